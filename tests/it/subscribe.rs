//! Snapshot, `ready`, then changes, with no hole between them, however much is written meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Relay, Server, mapping};
use crate::{every_way, redis};

every_way! {
    fn a_channel_of_one_key<C>() {
        let server = Server::start();
        redis!(server, "SET", "a", "1");
        let relay = Relay::start(&server, &mapping("key = \"a\""));
        let mut client = C::open(&relay, &["a"]);
        let ready = client.control("ready");
        assert_eq!(ready["channels"], json!({"a": 1}));
        assert_eq!(client.memory().value("a", "a"), Some(&json!("1")));
    }

    fn a_channel_of_several_exact_keys<C>() {
        let server = Server::start();
        redis!(server, "MSET", "a", "1", "b:7", "2");
        let mappings = ["a", "b:7", "c"].map(|key| mapping(&format!("key = \"{key}\"\nchannel = \"all\""))).concat();
        let relay = Relay::start(&server, &mappings);
        let mut client = C::open(&relay, &["all"]);
        let ready = client.control("ready");
        assert_eq!(ready["channels"], json!({"all": 2}));
        let expected = [(("all".to_owned(), "a".to_owned()), json!("1")), (("all".to_owned(), "b:7".to_owned()), json!("2"))];
        assert_eq!(client.memory().state, BTreeMap::from(expected));
        redis!(server, "SET", "c", "3");
        client.sees("all", "c", "3");
    }

    fn a_channel_of_a_pattern<C>() {
        let server = Server::start();
        for id in 0..700 {
            redis!(server, "SET", format!("m:a:{id}"), id.to_string());
            redis!(server, "SET", format!("m:b:{id}"), "another room");
        }
        let relay = Relay::start(&server, &mapping("key = \"m:{room}:{id}\"\nchannel = \"room:{room}\""));
        let mut client = C::open(&relay, &["room:a"]);
        let ready = client.control("ready");
        assert_eq!(ready["channels"], json!({"room:a": 700}));
        assert_eq!(client.memory().state.len(), 700);
        assert_eq!(client.memory().value("room:a", "m:a:699"), Some(&json!("699")));
        // The second to come finds the channel filled.
        let mut second = C::open(&relay, &["room:a"]);
        second.ready();
        assert_eq!(second.memory().state, client.memory().state);
    }

    fn without_a_snapshot<C>() {
        let server = Server::start();
        redis!(server, "SET", "v:1", "old");
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\"\nsnapshot = false"));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        assert_eq!(client.memory().messages, []);
        redis!(server, "SET", "v:2", "new");
        client.sees("v", "v:2", "new");
        assert_eq!(client.memory().messages.len(), 1);
    }

    /// Clients join while a writer hammers the keys: nobody sees a value go back, and all end with what the server has.
    fn joining_while_keys_are_written<C>() {
        const KEYS: usize = 20;
        let server = Server::start();
        for key in 0..KEYS {
            redis!(server, "SET", format!("n:{key}"), "0");
        }
        let relay = Relay::start(&server, &mapping("key = \"n:{id}\"\nchannel = \"n\"\ndecode = \"json\""));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (mut connection, stop) = (server.connect(), stop.clone());
            move || {
                let mut written = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    for key in 0..KEYS {
                        connection.command(&[b"INCR", format!("n:{key}").as_bytes()]).expect("the server answers");
                    }
                    written += 1;
                }
                written
            }
        });
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = C::open(&relay, &["n"]);
            client.ready();
            assert_eq!(client.memory().state.len(), KEYS, "a snapshot is whole when ready is said");
            client.until("some live changes", |memory| {
                memory.messages.iter().filter(|message| message.id.is_some()).count() > KEYS
            });
            clients.push(client);
        }
        stop.store(true, Ordering::Relaxed);
        let last = writer.join().expect("the writer ends well");
        for client in &mut clients {
            client.until("the last value of every key", |memory| {
                memory.state.len() == KEYS && memory.state.values().all(|value| *value == json!(last))
            });
            for key in 0..KEYS {
                let values = client.memory().values_of(&format!("n:{key}"));
                let numbers: Vec<u64> = values.iter().filter_map(Value::as_u64).collect();
                assert!(numbers.is_sorted_by(|a, b| a < b), "n:{key} went back or came twice: {numbers:?}");
            }
        }
    }
}
