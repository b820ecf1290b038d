//! Messages of WebSocket clients, whatever is in them.

use serde_json::Value;
use serde_json::value::RawValue;

use super::ws::{self, Request};

/// Reads a message: what is made of it is within its bounds, and the answer to it is JSON in which nothing of the
/// client's became anything else.
pub fn messages(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Request::parse(text) {
        Ok(
            Request::Subscribe {
                channels, reference, ..
            }
            | Request::Unsubscribe { channels, reference },
        ) => {
            assert!(!channels.is_empty());
            let reference = reference.map(|number| number.to_string());
            for channel in channels.iter().take(3) {
                answered(
                    &ws::error_message(Some(channel), "unknown", text, reference.as_deref()),
                    &["type", "channel", "reason", "message"],
                    reference.as_deref(),
                );
            }
        }
        Ok(Request::Renew { token, reference }) => {
            assert!(text.len() > token.len());
            answered(
                &ws::renewed_message(None, reference.as_deref()),
                &["type", "expires_at"],
                reference.as_deref(),
            );
        }
        Ok(Request::Ping { reference }) => {
            answered(&ws::pong_message(reference.as_deref()), &["type"], reference.as_deref());
        }
        Err(error) => answered(
            &ws::error_message(None, "malformed", &error.what, error.reference.as_deref()),
            &["type", "reason", "message"],
            error.reference.as_deref(),
        ),
    }
}

fn answered(frame: &[u8], members: &[&str], reference: Option<&str>) {
    assert!(reference.is_none_or(|reference| reference.len() <= 128));
    let head = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let answer: Value = serde_json::from_slice(&frame[head..]).expect("an answer is JSON");
    let names: Vec<&str> = answer
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected: Vec<&str> = members.to_vec();
    expected.extend(reference.map(|_| "ref"));
    expected.sort_unstable();
    let mut names = names;
    names.sort_unstable();
    assert_eq!(names, expected);
    if let Some(reference) = reference {
        let given: Value = serde_json::from_str(reference).expect("a reference is JSON");
        assert!(given.is_string() || given.is_number());
        assert!(serde_json::from_str::<Box<RawValue>>(reference).is_ok());
        assert_eq!(answer["ref"], given);
    }
}
