//! What a client gets for each kind of value, payload and mapping.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Message, Relay, Server, is_tracking, mapping};
use crate::{every_way, redis};

every_way! {
    /// The thin whole path: the current value first, then `ready`, then each change.
    fn a_string_key<C>() {
        let server = Server::start();
        redis!(server, "SET", "cart:42", "one");
        let relay = Relay::start(&server, &mapping("key = \"cart:{user}\""));
        let mut client = C::open(&relay, &["cart:42"]);
        client.ready();
        assert_eq!(client.memory().value("cart:42", "cart:42"), Some(&json!("one")));
        assert_eq!(client.memory().messages[0].id, None, "a snapshot's message carries no id");
        redis!(server, "SET", "cart:42", "two");
        client.sees("cart:42", "cart:42", "two");
        let message = client.memory().messages.last().unwrap().clone();
        assert!(message.id.is_some(), "a live message carries its id");
        let event = (!is_tracking()).then_some("set");
        assert_eq!(message.json.get("event").and_then(Value::as_str), event);
        assert_eq!(client.memory().messages[0].json.get("event"), None, "a snapshot names no event");
        redis!(server, "DEL", "cart:42");
        client.misses("cart:42", "cart:42");
    }

    fn a_key_that_is_not_there_yet<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"cart:{user}\""));
        let mut client = C::open(&relay, &["cart:42"]);
        client.ready();
        // The one key that makes the channel is known to be absent, and that is its state.
        assert_eq!(client.memory().values_of("cart:42"), [Value::Null]);
        redis!(server, "SET", "cart:42", "one");
        client.sees("cart:42", "cart:42", "one");
    }

    fn every_type<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"v:{name}\"\nchannel = \"v\""));
        redis!(server, "SET", "v:string", "text");
        redis!(server, "HSET", "v:hash", "a", "1", "b", "2");
        redis!(server, "RPUSH", "v:list", "x", "y", "x");
        redis!(server, "SADD", "v:set", "b", "c", "a");
        redis!(server, "ZADD", "v:sorted", "1.5", "low", "20", "high");
        redis!(server, "XADD", "v:stream", "1-1", "field", "one");
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        let value = |client: &C, key: &str| client.memory().value("v", key).cloned().unwrap_or_default();
        assert_eq!(value(&client, "v:string"), json!("text"));
        assert_eq!(value(&client, "v:hash"), json!({"a": "1", "b": "2"}));
        assert_eq!(value(&client, "v:list"), json!(["x", "y", "x"]));
        assert_eq!(value(&client, "v:set"), json!(["a", "b", "c"]));
        let sorted = json!([{"member": "low", "score": 1.5}, {"member": "high", "score": 20}]);
        assert_eq!(value(&client, "v:sorted"), sorted);
        assert_eq!(value(&client, "v:stream"), json!([{"id": "1-1", "fields": {"field": "one"}}]));

        redis!(server, "APPEND", "v:string", "!");
        client.sees("v", "v:string", "text!");
        redis!(server, "HDEL", "v:hash", "a");
        client.sees("v", "v:hash", json!({"b": "2"}));
        redis!(server, "LPOP", "v:list");
        client.sees("v", "v:list", json!(["y", "x"]));
        redis!(server, "SREM", "v:set", "b");
        client.sees("v", "v:set", json!(["a", "c"]));
        redis!(server, "ZINCRBY", "v:sorted", "-20", "high");
        client.sees("v", "v:sorted", json!([{"member": "high", "score": 0}, {"member": "low", "score": 1.5}]));
        redis!(server, "XADD", "v:stream", "2-1", "field", "two");
        let stream = json!([{"id": "1-1", "fields": {"field": "one"}}, {"id": "2-1", "fields": {"field": "two"}}]);
        client.sees("v", "v:stream", stream);
    }

    fn a_type_that_changes_under_the_key<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"v:{name}\"\nchannel = \"v\""));
        redis!(server, "SET", "v:1", "text");
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        redis!(server, "MULTI");
        redis!(server, "DEL", "v:1");
        redis!(server, "RPUSH", "v:1", "item");
        redis!(server, "EXEC");
        client.sees("v", "v:1", json!(["item"]));
        redis!(server, "HSET", "v:other", "field", "value");
        client.sees("v", "v:other", json!({"field": "value"}));
        redis!(server, "RENAME", "v:other", "v:1");
        client.sees("v", "v:1", json!({"field": "value"}));
        client.misses("v", "v:other");
    }

    fn keys_and_values_that_are_not_text<C>() {
        let server = Server::start();
        let patterns = [mapping("key = \"bin:{id}\"\nchannel = \"bin\""), mapping("key = \"at:{id}\"")].concat();
        let relay = Relay::start(&server, &patterns);
        redis!(server, "SET", b"bin:\xff", b"\x00\xfe");
        redis!(server, "SET", b"at:\xff", "here");
        let mut client = C::open(&relay, &["bin", "at:%FF"]);
        client.ready();
        assert_eq!(client.memory().value("bin", r#"{"base64":"YmluOv8="}"#), Some(&json!({"base64": "AP4="})));
        assert_eq!(client.memory().value("at:%FF", r#"{"base64":"YXQ6/w=="}"#), Some(&json!("here")));
        redis!(server, "SET", b"at:\xff", "there");
        client.sees("at:%FF", r#"{"base64":"YXQ6/w=="}"#, "there");
        redis!(server, "SET", "bin:line", "a\r\nb\nc\rd\0\u{feff}e");
        client.sees("bin", "bin:line", "a\r\nb\nc\rd\0\u{feff}e");
    }

    fn chosen_fields_of_a_hash<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"cart:{user}\"\nfields = [\"items\", \"total\"]"));
        redis!(server, "HSET", "cart:1", "items", "3", "total", "9.50", "secret", "s");
        let mut client = C::open(&relay, &["cart:1"]);
        client.ready();
        assert_eq!(client.memory().value("cart:1", "cart:1"), Some(&json!({"items": "3", "total": "9.50"})));
        // What is not sent is no change either.
        redis!(server, "HSET", "cart:1", "secret", "t");
        redis!(server, "HSET", "cart:1", "items", "4");
        client.sees("cart:1", "cart:1", json!({"items": "4", "total": "9.50"}));
        assert_eq!(client.memory().messages.len(), 2);
    }

    fn decoded_json<C>() {
        let server = Server::start();
        let options = "key = \"m:{id}\"\nchannel = \"m\"\ndecode = \"json\"";
        let relay = Relay::start(&server, &mapping(options));
        redis!(server, "SET", "m:json", r#"{"n": [1, 2.5, null], "text": "é"}"#);
        redis!(server, "SET", "m:not", "{not json");
        redis!(server, "HSET", "m:hash", "a", "true", "b", "plain");
        redis!(server, "RPUSH", "m:list", "1", "one");
        let mut client = C::open(&relay, &["m"]);
        client.ready();
        let value = |key: &str| client.memory().value("m", key).cloned().unwrap_or_default();
        assert_eq!(value("m:json"), json!({"n": [1, 2.5, null], "text": "é"}));
        assert_eq!(value("m:not"), json!("{not json"));
        assert_eq!(value("m:hash"), json!({"a": true, "b": "plain"}));
        assert_eq!(value("m:list"), json!([1, "one"]));
    }

    fn a_value_that_is_too_large<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nmax_value = \"1KiB\""));
        let mut client = C::open(&relay, &["v:1"]);
        client.ready();
        redis!(server, "SET", "v:1", "x".repeat(4096));
        client.until("a message of the large value", |memory| memory.messages.len() == 2);
        let message = client.memory().messages[1].clone();
        assert_eq!(message.json["too_large"], true);
        assert_eq!(message.json.get("value"), None);
        redis!(server, "SET", "v:1", "small");
        client.sees("v:1", "v:1", "small");
    }

    fn several_mappings_make_one_channel<C>() {
        let server = Server::start();
        let mappings = [
            mapping("key = \"user:{id}\"\nchannel = \"page:{id}\""),
            mapping("key = \"cart:{id}\"\nchannel = \"page:{id}\""),
        ];
        let relay = Relay::start(&server, &mappings.concat());
        redis!(server, "SET", "user:7", "Ann");
        let mut client = C::open(&relay, &["page:7"]);
        client.ready();
        assert_eq!(client.memory().value("page:7", "user:7"), Some(&json!("Ann")));
        redis!(server, "SET", "cart:7", "full");
        client.sees("page:7", "cart:7", "full");
        redis!(server, "SET", "cart:8", "not yours");
        redis!(server, "DEL", "user:7");
        client.misses("page:7", "user:7");
        assert!(client.memory().values_of("cart:8").is_empty());
    }

    fn one_key_feeds_several_channels<C>() {
        let server = Server::start();
        let mappings =
            [mapping("key = \"m:{room}:{id}\"\nchannel = \"room:{room}\""), mapping("key = \"m:{room}:{id}\"")];
        let relay = Relay::start(&server, &mappings.concat());
        let mut client = C::open(&relay, &["room:a", "m:a:1"]);
        client.ready();
        redis!(server, "SET", "m:a:1", "hello");
        client.sees("room:a", "m:a:1", "hello");
        client.sees("m:a:1", "m:a:1", "hello");
    }

    fn html_templates<C>() {
        let server = Server::start();
        let options = r#"
            key = "message:{room}:{id}"
            channel = "room:{room}"
            decode = "json"
            format = "template"
            template = "<p id=m{{ id }}>{{ value.text }}</p>"
            absent = "<gone id=m{{ id }}>"
            on_reset = "<clear>"
        "#;
        let relay = Relay::start(&server, &mapping(options));
        redis!(server, "SET", "message:a:1", r#"{"text": "1 < 2"}"#);
        let mut client = C::open(&relay, &["room:a"]);
        let heard = |client: &mut C, text: &str| {
            client.until(text, |memory| memory.messages.last().is_some_and(|message| message.text == text));
        };
        heard(&mut client, "<p id=m1>1 &lt; 2</p>");
        client.ready();
        redis!(server, "SET", "message:a:2", r#"{"text": "two"}"#);
        heard(&mut client, "<p id=m2>two</p>");
        redis!(server, "DEL", "message:a:1");
        heard(&mut client, "<gone id=m1>");
        // A page that comes back with a cursor that nobody knows must be cleared before it is filled.
        let mut stranger = C::resume(&relay, &["room:a"], Some("00000000000000ff-7-00000000000000ff".to_owned()));
        stranger.ready();
        let texts: Vec<_> = stranger.memory().messages.iter().map(|message| message.text.as_str()).collect();
        assert_eq!(texts, ["<clear>", "<p id=m2>two</p>"]);
    }

    fn raw_payloads_with_a_name<C>() {
        let server = Server::start();
        let options = "key = \"page:{id}\"\nformat = \"raw\"\nevent_name = \"page\"\nabsent = \"(gone)\"";
        let relay = Relay::start(&server, &mapping(options));
        redis!(server, "SET", "page:1", "first\r\nsecond\n\nfourth\n");
        let mut client = C::open(&relay, &["page:1"]);
        client.ready();
        let message = client.memory().messages[0].clone();
        assert_eq!(message.name.as_deref(), Some("page"));
        // A line end is a line end to Server-Sent Events: which one it was, only JSON can tell.
        assert_eq!(message.text.replace("\r\n", "\n"), "first\nsecond\n\nfourth\n");
        redis!(server, "DEL", "page:1");
        client.until("the text for a key that is gone", |memory| memory.messages.last().unwrap().text == "(gone)");
    }

    /// Raw payloads have no form for a hash: it is left out, and the channel goes on.
    fn raw_payloads_are_strings_only<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"page:{id}\"\nformat = \"raw\"\nabsent = \"(gone)\""));
        redis!(server, "HSET", "page:1", "a", "b");
        let mut client = C::open(&relay, &["page:1"]);
        client.ready();
        redis!(server, "DEL", "page:1");
        redis!(server, "SET", "page:1", "text");
        client.until("the string", |memory| memory.messages.last().is_some_and(|message| message.text == "text"));
        let texts = client.memory().messages.iter().map(|message| message.text.as_str());
        assert!(texts.clone().all(|text| ["(gone)", "text"].contains(&text)), "{:?}", texts.collect::<Vec<_>>());
    }

    fn a_value_that_is_the_same_is_not_sent_again<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        redis!(server, "SET", "v:1", "same");
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        redis!(server, "SET", "v:1", "same");
        redis!(server, "EXPIRE", "v:1", "1000");
        redis!(server, "PERSIST", "v:1");
        redis!(server, "SET", "v:2", "marker");
        client.sees("v", "v:2", "marker");
        assert_eq!(client.memory().values_of("v:1"), [json!("same")]);
    }

    /// The server fires `expired` when it comes across the key, which may be minutes late; the relay knows the deadline.
    fn a_key_that_expires<C>() {
        let server = Server::start();
        // What the server does by itself is switched off, so that only the relay's own reading finds the key gone.
        redis!(server, "CONFIG", "SET", "hz", "1");
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nexpires = true"));
        redis!(server, "SET", "v:1", "short", "PX", "700");
        let mut client = C::open(&relay, &["v:1"]);
        client.ready();
        if let Some(message) = client.memory().messages.first() {
            assert!(message.json["expires_at"].as_u64().is_some_and(|at| at > 1_700_000_000_000), "{message:?}");
        }
        client.misses("v:1", "v:1");
    }

    fn a_flush_removes_everything<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        for id in 0..50 {
            redis!(server, "SET", format!("v:{id}"), "x");
        }
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        assert_eq!(client.memory().state.len(), 50);
        redis!(server, "FLUSHALL");
        client.until("no key is left", |memory| memory.state.is_empty());
        redis!(server, "SET", "v:1", "new");
        client.sees("v", "v:1", "new");
    }

    fn the_rest_of_a_key<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("key = \"file:{path...}\"\nchannel = \"files:{path...}\""));
        let mut client = C::open(&relay, &["files:a:b c/é:*"]);
        client.ready();
        redis!(server, "SET", "file:a:b c/é:x", "another");
        redis!(server, "SET", "file:a:b c/é:*", "this");
        client.sees("files:a:b c/é:*", "file:a:b c/é:*", "this");
        let keys: BTreeSet<String> = client.memory().messages.iter().map(Message::key).collect();
        let own = BTreeSet::from(["file:a:b c/é:*".to_owned()]);
        assert_eq!(keys, own, "a channel's name is text, not a pattern");
    }
}
