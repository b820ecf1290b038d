//! The deliveries of one channel, by a relay within the command.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::config;
use crate::harness::{Data, Running, Server, mapping};
use crate::redis;

/// Snapshot, `ready`, changes, `stale` and `fresh`; and nobody asks who may read it.
#[test]
fn what_a_client_would_be_sent() {
    let mut server = Server::start();
    redis!(server, "SET", "cart:42", "one");
    let written = config(&server, "", "[[mapping]]\nkey = \"cart:{user}\"\n");
    let mut tail = Running::start(&["tail", "cart:42", "--config", &written.file()]);
    tail.says(&["-- ready", "\"cart:42\":1"]);
    redis!(server, "SET", "cart:42", "two");
    tail.says(&["message", "\"value\":\"two\"", "\"event\":\"set\""]);
    redis!(server, "SET", "cart:7", "another channel");
    server.kill();
    tail.says(&["-- stale", "upstream-lost"]);
    tail.complains("upstream lost");
    server.restart(Data::Lost);
    tail.says(&["-- fresh"]);
    tail.says(&["\"value\":null"]);
    let lines = tail.lines();
    let words: Vec<&str> = lines.iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(words[..3], ["snapshot", "--", "message"], "{lines:?}");
    assert!(!lines.join("").contains("another channel"), "{lines:?}");
    tail.signal(Signal::TERM);
    tail.ends_with(0);
}

/// The same objects that a WebSocket has.
#[test]
fn lines_of_json() {
    let server = Server::start();
    redis!(server, "HSET", "cart:42", "items", "1");
    let html = "key = \"row:{id}\"\nformat = \"template\"\ntemplate = \"<p>\\n{{ value }}</p>\"\nevent_name = \"row\"";
    let mappings = [mapping("key = \"cart:{user}\""), mapping(html)].concat();
    let written = config(&server, "", &mappings);
    let tail = Running::start(&["tail", "--json", "cart:42", "--config", &written.file()]);
    tail.says(&["\"type\":\"ready\"", "\"cursor\""]);
    redis!(server, "HSET", "cart:42", "items", "2");
    let line: Value = serde_json::from_str(&tail.says(&["\"hset\""])).expect("JSON");
    assert_eq!(
        (&line["type"], &line["channel"], &line["data"]["value"]),
        (&json!("message"), &json!("cart:42"), &json!({"items": "2"}))
    );
    assert!(line["id"].is_string() && line["time"].is_string(), "{line}");

    let tail = Running::start(&["tail", "--json", "row:1", "--config", &written.file()]);
    tail.says(&["\"ready\""]);
    redis!(server, "SET", "row:1", "<b>");
    let line: Value = serde_json::from_str(&tail.says(&["\"message\""])).expect("JSON");
    assert_eq!(
        (&line["name"], &line["data"]),
        (&json!("row"), &json!("<p>\n&lt;b&gt;</p>"))
    );
}

#[test]
fn happenings() {
    let server = Server::start();
    let written = config(
        &server,
        "",
        &mapping("key = \"order:{id}\"\nchannel = \"orders\"\nmode = \"events\""),
    );
    let tail = Running::start(&["tail", "orders", "--config", &written.file()]);
    tail.says(&["-- ready"]);
    for n in 0..50 {
        redis!(server, "SET", format!("order:{n}"), "x");
    }
    tail.says(&["order:49"]);
    let messages = tail.lines().into_iter().filter(|line| line.contains("  message "));
    assert_eq!(messages.count(), 50);
}

#[test]
fn a_channel_that_there_cannot_be() {
    let server = Server::start();
    let written = config(&server, "", &mapping("key = \"cart:{user}\""));
    let mut tail = Running::start(&["tail", "cart:4:2", "--config", &written.file()]);
    tail.ends_with(1);
    assert!(
        tail.errors().contains("keyrelay explain --channel cart:4:2"),
        "{}",
        tail.errors()
    );
}
