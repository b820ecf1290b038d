//! A hot key starves nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::harness::{Event, PATIENCE, Relay, Server, mapping};
use crate::{both, redis};

both! {
    /// One hot key, 99 cool ones, and a client that takes half of what is written: every key is seen again and again.
    fn every_key_is_seen_again_and_again<C>() {
        const COOL: usize = 99;
        /// As large as to make the few messages that fit into the socket's buffers a small part of a round.
        const VALUE: usize = 8 << 10;
        const TIMES: usize = 5;
        /// Far more than it takes: a key that is written just before its turn has its turn a round later, and so may it be
        /// again.
        const ROUNDS: u64 = 400;
        let server = Server::start();
        let pad = "x".repeat(VALUE);
        for key in 0..=COOL {
            redis!(server, "SET", format!("k:{key}"), format!("0 {pad}"));
        }
        let relay = Relay::start(&server, &mapping("key = \"k:{id}\"\nchannel = \"k\""));
        let mut client = C::narrow(&relay, &["k"]);
        client.ready();

        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let writer = std::thread::spawn({
            let (mut connection, stop, written) = (server.connect(), stop.clone(), written.clone());
            move || {
                for round in 1_u64.. {
                    for cool in 1..=COOL {
                        for key in [0, cool] {
                            let (key, value) = (format!("k:{key}"), format!("{round}.{cool} {pad}"));
                            connection.command(&[b"SET", key.as_bytes(), value.as_bytes()]).expect("the server answers");
                        }
                        written.fetch_add(2, Ordering::Relaxed);
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
            }
        });
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut taken = 0;
        while seen.len() <= COOL || seen.values().any(|times| *times < TIMES) {
            crate::harness::eventually("twice as much is written as is taken", || {
                (written.load(Ordering::Relaxed) >= 2 * taken).then_some(())
            });
            match client.poll(PATIENCE).expect("the stream goes on") {
                Event::Message(message) => {
                    taken += 1;
                    *seen.entry(message.key()).or_default() += 1;
                }
                Event::Closed(end) => panic!("closed: {end:?}"),
                _ => {}
            }
            let rarest = seen.values().min();
            assert!(taken < ROUNDS * (COOL as u64 + 1), "{taken} messages, {} keys, the rarest {rarest:?} times", seen.len());
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer ends well");
        // Who reads again ends with what the server has.
        redis!(server, "SET", "k:0", "end");
        client.sees("k", "k:0", "end");
        for cool in 1..=COOL {
            let key = format!("k:{cool}");
            let value = redis!(server, "GET", key).text();
            client.sees("k", &key, value);
        }
    }
}
