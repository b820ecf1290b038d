//! A delivery as a line: for people, or as JSON.

use std::time::SystemTime;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::heard::Word;
use super::sse::Event;
use super::{clock, instant};
use crate::cli::shown::shown;

/// What the names of control events begin with.
const CONTROL: &str = "keyrelay.";

/// The word of a control event.
pub(super) fn control(event: &Event) -> Option<&str> {
    event.name.as_deref()?.strip_prefix(CONTROL)
}

/// Writes an event of a channel as one line.
pub(super) fn line(channel: &str, event: &Event, json: bool) -> String {
    let at = SystemTime::now();
    match json {
        true => as_json(at, channel, event),
        false => as_text(at, event),
    }
}

/// Writes what is said of the connection as one line; the word is for machines.
pub(super) fn status(word: Word, text: &str, json: bool) -> String {
    let at = SystemTime::now();
    match json {
        true => {
            let line = serde_json::json!({ "time": instant(at), "type": "status", "status": word, "text": text });
            format!("{line}\n")
        }
        false => format!("{}  -- {}\n", clock(at), shown(text.as_bytes())),
    }
}

fn as_text(at: SystemTime, event: &Event) -> String {
    let at = clock(at);
    let data = shown(event.data.as_bytes());
    match (control(event), &event.id) {
        (Some(word), _) => format!("{at}  -- {} {data}\n", shown(word.as_bytes())),
        (None, id) => {
            let word = if id.is_some() { "message" } else { "snapshot" };
            let name = event.name.as_ref().map(|name| format!("[{}] ", shown(name.as_bytes())));
            format!("{at}  {word:<8} {}{data}\n", name.unwrap_or_default())
        }
    }
}

/// As over a WebSocket (docs/protocol.md), and with the time.
fn as_json(at: SystemTime, channel: &str, event: &Event) -> String {
    let mut line = format!("{{\"time\":{}", string(&instant(at)));
    let mut add = |name: &str, json: &str| line.push_str(&format!(",\"{name}\":{json}"));
    let id = event.id.as_deref().map(string);
    match control(event) {
        Some(word) => {
            add("type", &string(word));
            id.iter().for_each(|id| add("id", id));
            match serde_json::from_str::<Map<String, Value>>(&event.data) {
                Ok(members) => members.iter().for_each(|(name, value)| add(name, &value.to_string())),
                Err(_) => add("data", &string(&event.data)),
            }
        }
        None => {
            add("type", "\"message\"");
            add("channel", &string(channel));
            id.iter().for_each(|id| add("id", id));
            event.name.iter().for_each(|name| add("name", &string(name)));
            add("data", &payload(&event.data));
        }
    }
    line + "}\n"
}

/// A JSON object, which is what the format `json` makes, as it is; any other text as a string.
fn payload(data: &str) -> String {
    let object = data.starts_with('{') && !data.contains('\n') && serde_json::from_str::<&RawValue>(data).is_ok();
    match object {
        true => data.to_owned(),
        false => string(data),
    }
}

fn string(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn both(event: &Event) -> (String, String) {
        let at = UNIX_EPOCH + Duration::from_millis(1_763_762_345_678);
        (as_text(at, event), as_json(at, "cart:42", event))
    }

    fn event(id: Option<&str>, name: Option<&str>, data: &str) -> Event {
        Event {
            id: id.map(str::to_owned),
            name: name.map(str::to_owned),
            data: data.to_owned(),
        }
    }

    #[test]
    fn messages() {
        let (text, json) = both(&event(Some("7f-1"), None, "{\"value\":1}"));
        assert_eq!(text, "21:59:05.678Z  message  {\"value\":1}\n");
        assert_eq!(
            json,
            "{\"time\":\"2025-11-21T21:59:05.678Z\",\"type\":\"message\",\"channel\":\"cart:42\",\"id\":\"7f-1\",\
             \"data\":{\"value\":1}}\n"
        );
        let (text, json) = both(&event(None, Some("cart"), "<p>\n\u{1b}[2J</p>"));
        assert_eq!(text, "21:59:05.678Z  snapshot [cart] <p>\\n\\u{1b}[2J</p>\n");
        assert!(
            json.ends_with("\"name\":\"cart\",\"data\":\"<p>\\n\\u001b[2J</p>\"}\n") && json.lines().count() == 1,
            "{json}"
        );
    }

    #[test]
    fn control_events() {
        let (text, json) = both(&event(
            None,
            Some("keyrelay.ready"),
            "{\"channels\":{\"cart:42\":1},\"set\":\"9\"}",
        ));
        assert_eq!(
            text,
            "21:59:05.678Z  -- ready {\"channels\":{\"cart:42\":1},\"set\":\"9\"}\n"
        );
        assert!(
            json.ends_with("\"type\":\"ready\",\"channels\":{\"cart:42\":1},\"set\":\"9\"}\n"),
            "{json}"
        );
    }

    #[test]
    fn what_looks_like_json_and_is_none_is_text() {
        for data in ["{", "{\"a\":\n1}", "[1]", "3", ""] {
            assert_eq!(payload(data), string(data));
        }
    }
}
