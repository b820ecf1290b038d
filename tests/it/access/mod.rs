//! Who may read a channel, tried as a client would.

pub mod ask;
mod credentials;
mod expiry;
mod refusals;
pub mod rules;
mod signed;

use serde_json::{Value, json};

use crate::harness::http::escape;
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
    let token = token
        .map(|token| format!("&token={}", escape(token)))
        .unwrap_or_default();
    format!("{path}?channel={}{token}", escape(channel))
}

/// What somebody is told who may not read a channel.
pub struct Refusal {
    pub status: u16,
    /// The reason as a fixed word.
    pub word: String,
    /// The reason as a sentence.
    pub sentence: String,
}

/// Whether the channel is open to this token, on every way to a channel alike; nothing that is said holds the token.
#[track_caller]
pub fn refusal(relay: &Relay, channel: &str, token: Option<&str>) -> Option<Refusal> {
    let plain = relay.get(&target("/channels", channel, token));
    let accept = [("Accept", "text/event-stream")];
    let mut ws = Ws::request(relay, &target("/ws", "none:1", token), None);
    ws.control("error");
    ws.send(&json!({"type": "subscribe", "channels": [channel], "ref": 1}));
    let (mut open, mut error) = (false, None);
    ws.until("an answer", |memory| {
        for (kind, data) in &memory.controls {
            open |= kind == "ready" && data["ref"] == 1;
            if kind == "error" && data["ref"] == 1 {
                error = Some(data.clone());
            }
        }
        open || error.is_some()
    });
    let Some(error) = error else {
        assert_eq!(plain.status(), 200, "{}", plain.text());
        let mut sse = crate::harness::Sse::request(relay, &target("/events", channel, token), &[], None);
        sse.ready();
        return None;
    };
    let stream = relay.exchange("GET", &target("/events", channel, token), &accept, None);
    let stream = stream.response();
    let status = plain.status();
    assert_eq!(stream.status(), status, "{}", stream.text());
    assert!([401, 403, 404].contains(&status), "{}", plain.text());
    // How long ago a token expired may be another second by now.
    let undated = |text: String| text.replace(|c: char| c.is_ascii_digit(), "");
    assert_eq!(undated(stream.text()), undated(plain.text()));
    let challenge = plain.header("www-authenticate").is_some();
    assert_eq!(challenge, status == 401, "{}", plain.text());
    // An empty text stands in everything.
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        assert!(!plain.text().contains(token) && !error.to_string().contains(token));
    }
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    Some(Refusal {
        status,
        word: text(&error["reason"]),
        sentence: text(&plain.json()["channels"][channel]),
    })
}

/// The word of the refusal, if there is one.
#[track_caller]
fn judged(relay: &Relay, channel: &str, token: Option<&str>) -> Option<String> {
    refusal(relay, channel, token).map(|refusal| refusal.word)
}
