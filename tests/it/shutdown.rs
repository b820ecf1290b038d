//! The orderly end of the process.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Client, End, Relay, Server, Sse, Ws, eventually, mapping};
use crate::{both, redis};

both! {
    fn a_drain_ends_every_stream<C>() {
        for signal in [Signal::TERM, Signal::INT] {
            let server = Server::start();
            redis!(server, "SET", "v:1", "one");
            let mut relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
            let mut clients: Vec<C> = (0..10).map(|_| C::open(&relay, &["v"])).collect();
            for client in &mut clients {
                client.ready();
            }
            relay.signal(signal);
            for client in &mut clients {
                let end = client.control("end");
                assert_eq!(end["reconnect"], true, "{end}");
                let closed = client.closed();
                assert!(matches!(closed, End::Proper(None | Some(1012))), "{closed:?}");
            }
            let (status, took) = relay.wait();
            assert!(status.success(), "{status}");
            assert!(took < Duration::from_secs(6), "the drain is 4 s, the relay took {took:?}");
        }
    }

    /// A stream that does not take its ending must not hold the process.
    fn a_client_that_does_not_read<C>() {
        let server = Server::start();
        let mut relay = Relay::with(&server, "drain = \"1s\"", &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut client = C::narrow(&relay, &["v"]);
        client.ready();
        let pad = "x".repeat(256 << 10);
        for n in 0..60 {
            redis!(server, "SET", format!("v:{n}"), &pad);
        }
        relay.signal(Signal::TERM);
        let (status, took) = relay.wait();
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(4), "the drain is 1 s, the relay took {took:?}");
    }
}

#[test]
fn who_is_cut_off_is_counted() {
    let server = Server::start();
    let mut relay = Relay::with(&server, "drain = \"1s\"", &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut client = Sse::narrow(&relay, &["v"]);
    client.ready();
    let pad = "x".repeat(256 << 10);
    eventually("it takes nothing any more", || {
        for n in 0..10 {
            redis!(server, "SET", format!("v:{n}"), &pad);
        }
        (relay.metric("keyrelay_blocked_connections") == 1.0).then_some(())
    });
    relay.signal(Signal::TERM);
    relay.wait();
    let log = eventually("it says that it ends", || {
        Some(relay.log()).filter(|log| log.contains("\"drained"))
    });
    let end = log.lines().find(|line| line.contains("\"drained")).unwrap_or_default();
    assert!(end.contains("\"WARN\"") && end.contains("\"streams\":1"), "{log}");
}

#[test]
fn sse_is_told_when_to_come_back() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut clients: Vec<Sse> = (0..10).map(|_| Sse::open(&relay, &["v"])).collect();
    for client in &mut clients {
        client.ready();
    }
    relay.signal(Signal::TERM);
    let mut retries: Vec<u64> = Vec::new();
    for client in &mut clients {
        assert_eq!(client.closed(), End::Proper(None), "the last chunk is there");
        retries.push(client.memory().retry.expect("a retry"));
    }
    retries.sort_unstable();
    retries.dedup();
    assert!(
        retries.len() > 1,
        "spread, so that not all come back at once: {retries:?}"
    );
}

#[test]
fn ws_is_closed_as_a_restart() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut client = Ws::open(&relay, &["v"]);
    client.ready();
    relay.signal(Signal::TERM);
    assert_eq!(client.closed(), End::Proper(Some(1012)));
}

/// The listener is closed first.
#[test]
fn nobody_new_is_accepted() {
    let server = Server::start();
    let mut relay = Relay::with(
        &server,
        "drain = \"20s\"",
        &mapping("key = \"v:{id}\"\nchannel = \"v\""),
    );
    // Holds the drain open: its ending stays in its own buffers.
    let mut client = Sse::narrow(&relay, &["v"]);
    client.ready();
    let pad = "x".repeat(256 << 10);
    for n in 0..60 {
        redis!(server, "SET", format!("v:{n}"), &pad);
    }
    relay.signal(Signal::TERM);
    eventually("connections are refused", || {
        TcpStream::connect(relay.address()).is_err().then_some(())
    });
    // A second signal ends at once what the first would wait for.
    relay.signal(Signal::TERM);
    let (_, took) = relay.wait();
    assert!(
        took < Duration::from_secs(5),
        "a second signal ends at once, the relay took {took:?}"
    );
}

#[test]
fn the_server_away_does_not_hold_it() {
    let server = Server::away();
    let mut relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut client = Sse::open(&relay, &["v"]);
    client.control("stale");
    relay.signal(Signal::TERM);
    assert_eq!(client.closed(), End::Proper(None));
    assert!(relay.wait().0.success());
}
