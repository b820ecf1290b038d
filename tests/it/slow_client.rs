//! A client that does not read costs little, delays nobody, and gets the newest state when it reads again.

use crate::harness::{End, Relay, Server, eventually, mapping};
use crate::{both, redis};

both! {
    fn bounded_memory_and_nobody_delayed<C>() {
        const CLIENTS: usize = 20;
        const WRITES: usize = 3000;
        const VALUE: usize = 64 << 10;
        /// Far below what was written (190 MB) times the clients; enough for what sockets and logs pin for a moment.
        const ALLOWED: u64 = 64 << 20;
        let server = Server::start();
        // However long the machine takes to write so much.
        let patient = "write_timeout = \"10m\"";
        let relay = Relay::with(&server, patient, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut slow: Vec<C> = (0..CLIENTS).map(|_| C::narrow(&relay, &["v"])).collect();
        for client in &mut slow {
            client.ready();
        }
        let mut fast = C::open(&relay, &["v"]);
        fast.ready();
        let before = relay.resident();
        let pad = "x".repeat(VALUE);
        let mut connection = server.connect();
        for n in 1..=WRITES {
            let key = format!("v:{}", n % 10);
            connection.command(&[b"SET", key.as_bytes(), format!("{n} {pad}").as_bytes()]).expect("the server answers");
            // One in a hundred is waited for: the fast client is not behind while the slow ones stand still.
            if n % 100 == 0 {
                fast.sees("v", &key, format!("{n} {pad}"));
            }
        }
        let after = relay.resident();
        assert!(after < before + ALLOWED, "grew from {before} to {after} bytes");
        redis!(server, "SET", "v:0", "the end");
        for client in &mut slow {
            client.sees("v", "v:0", "the end");
            for id in 1..10 {
                let last = WRITES - 10 + id;
                client.sees("v", &format!("v:{id}"), format!("{last} {pad}"));
            }
            let told = client.memory().messages.len();
            assert!(told < WRITES / 2, "values in between are skipped, {told} were told");
        }
    }

    /// What never reads again is ended.
    fn ended_after_the_write_timeout<C>() {
        let server = Server::start();
        let relay = Relay::with(&server, "write_timeout = \"1s\"", &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut slow = C::narrow(&relay, &["v"]);
        slow.ready();
        let pad = "x".repeat(256 << 10);
        // What the kernel takes on both sides is a few megabytes at most: the relay must stand before a full socket.
        let mut n = 0;
        eventually("the relay gives the client up", || {
            for _ in 0..20 {
                n += 1;
                redis!(server, "SET", format!("v:{}", n % 40), format!("{n} {pad}"));
            }
            (open_sockets(&relay) == 0).then_some(())
        });
        match slow.closed() {
            End::Cut | End::Proper(None | Some(1013)) => {}
            end => panic!("ended with {end:?}"),
        }
    }
}

/// How many connections of clients the relay holds, as the kernel lists them.
fn open_sockets(relay: &Relay) -> usize {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists connections");
    let port = format!(":{:04X}", relay.address().port());
    let rows = table
        .lines()
        .skip(1)
        .map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&port) && row[3] == ESTABLISHED)
        .count()
}
