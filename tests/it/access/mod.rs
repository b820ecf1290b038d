//! Who may read a channel, tried as a client would.

mod ask;
mod credentials;
mod expiry;
mod refusals;
mod rules;
mod signed;

use serde_json::{Value, json};

use crate::harness::http::{escape, request};
use crate::harness::tokens::ACCESS;
use crate::harness::{Client, Relay, Server, Ws};

/// A relay of these mappings for which the tokens of the tests count. `options`: lines of [access].
fn relay(server: &Server, options: &str, mappings: &str) -> Relay {
    Relay::start(server, &format!("[access]\n{options}\n{ACCESS}\n{mappings}"))
}

fn mapping(key: &str, access: &str) -> String {
    format!("[[mapping]]\nkey = \"{key}\"\naccess = {access}\n")
}

/// What is asked for, with a token or without.
fn target(path: &str, channel: &str, token: Option<&str>) -> String {
    let token = token.map(|token| format!("&token={token}")).unwrap_or_default();
    format!("{path}?channel={}{token}", escape(channel))
}

/// Whether the channel is open to this token, on every way to a channel alike: nothing, or the word of the refusal.
#[track_caller]
fn judged(relay: &Relay, channel: &str, token: Option<&str>) -> Option<String> {
    let plain = request(relay.address(), "GET", &target("/channels", channel, token), &[]);
    let accept = [("Accept", "text/event-stream")];
    let mut ws = Ws::request(relay, &target("/ws", "none:1", token), None);
    ws.control("error");
    ws.send(&json!({"type": "subscribe", "channels": [channel], "ref": 1}));
    let (mut open, mut reason) = (false, None);
    ws.until("an answer", |memory| {
        for (kind, data) in &memory.controls {
            open |= kind == "ready" && data["ref"] == 1;
            if kind == "error" && data["ref"] == 1 {
                reason = data["reason"].as_str().map(str::to_owned);
            }
        }
        open || reason.is_some()
    });
    if open {
        assert_eq!(plain.status(), 200, "{}", plain.text());
        let mut sse = crate::harness::Sse::request(relay, &target("/events", channel, token), &[], None);
        sse.ready();
        return None;
    }
    let stream = request(relay.address(), "GET", &target("/events", channel, token), &accept);
    assert_eq!(stream.status(), plain.status(), "{}", stream.text());
    assert!([401, 403, 404].contains(&plain.status()), "{}", plain.text());
    assert_eq!(stream.text(), plain.text());
    let named: &Value = &plain.json()["channels"][channel];
    assert!(named.is_string(), "{}", plain.text());
    reason
}
