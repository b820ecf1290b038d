//! What is heard of the server, as a line: for people, or as JSON.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;

use super::fate::{Fate, Judge};
use super::output::Told;
use super::{clock, instant};
use crate::cli::shown::shown;
use crate::keyspace::EventName;

/// Longest key that a line for people shows whole, in bytes: a line of a terminal is shorter.
const LONG: usize = 512;

/// Something that was heard, and when.
pub(super) struct Heard {
    pub at: SystemTime,
    pub what: What,
}

/// What was heard.
pub(super) enum What {
    /// A key event, of client tracking without a name.
    Event {
        db: u32,
        key: Bytes,
        event: Option<EventName>,
    },
    /// A message of a Pub/Sub channel that a mapping subscribes to.
    Published { topic: Bytes, message: Bytes },
    /// How it stands with the connection.
    Said(Word, String),
}

/// What is said of the connection.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    Connecting,
    Notifications,
    Connected,
    Lost,
    Late,
    Answers,
    Behind,
    Unheard,
    AllKeys,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    what: Json<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Json<'a> {
    Event {
        database: u32,
        event: Option<&'a str>,
        key: Text<'a>,
        #[serde(flatten)]
        fate: Fate,
    },
    Published {
        topic: Text<'a>,
        #[serde(flatten)]
        fate: Fate,
    },
    Missed {
        count: u64,
    },
    Status {
        status: Word,
        text: &'a str,
    },
}

/// Bytes as the wire has them in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Text<'a> {
    Utf8(&'a str),
    Bytes { base64: String },
}

impl Text<'_> {
    fn new(bytes: &[u8]) -> Text<'_> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text::Utf8(text),
            Err(_) => Text::Bytes {
                base64: STANDARD.encode(bytes),
            },
        }
    }
}

/// What writes the lines.
pub(super) fn writer(mut judge: Judge, json: bool) -> impl FnMut(Told<Heard>) -> String + Send + 'static {
    move |told| match json {
        true => as_json(&mut judge, told),
        false => as_text(&mut judge, told),
    }
}

fn as_json(judge: &mut Judge, told: Told<Heard>) -> String {
    let (at, what) = match &told {
        Told::Item(Heard { at, what }) => (*at, what),
        Told::Missed(count) => return json_line(SystemTime::now(), Json::Missed { count: *count }),
    };
    let what = match what {
        What::Event { db, key, event } => Json::Event {
            database: *db,
            event: event.as_ref().map(EventName::as_str),
            key: Text::new(key),
            fate: judge.of_key(*db, key, event.as_ref()),
        },
        What::Published { topic, message } => Json::Published {
            topic: Text::new(topic),
            fate: judge.of_message(topic, message),
        },
        What::Said(status, text) => Json::Status { status: *status, text },
    };
    json_line(at, what)
}

fn json_line(at: SystemTime, what: Json<'_>) -> String {
    let line = Line {
        time: instant(at),
        what,
    };
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

fn as_text(judge: &mut Judge, told: Told<Heard>) -> String {
    let (at, what) = match told {
        Told::Item(Heard { at, what }) => (at, what),
        Told::Missed(count) => {
            return format!(
                "{}  -- {count} events are not shown: they came too fast\n",
                clock(SystemTime::now())
            );
        }
    };
    let at = clock(at);
    match what {
        What::Event { db, key, event } => {
            let fate = judge.of_key(db, &key, event.as_ref()).to_string();
            let event = event.as_ref().map_or("(changed)", EventName::as_str);
            format!(
                "{at}  {:<8} {}  {}\n",
                shown(event.as_bytes()),
                short(&key),
                shown(fate.as_bytes())
            )
        }
        What::Published { topic, message } => {
            let fate = judge.of_message(&topic, &message).to_string();
            format!(
                "{at}  {:<8} {}  {}\n",
                "(message)",
                short(&topic),
                shown(fate.as_bytes())
            )
        }
        What::Said(word, text) => format!("{at}  -- {} {}\n", word.text(), shown(text.as_bytes())),
    }
}

/// A key, or the beginning of a long one.
fn short(key: &[u8]) -> String {
    match key.len() {
        0..=LONG => shown(key),
        length => format!("{}… ({length} bytes)", shown(&key[..LONG])),
    }
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Word::Connecting => "connecting to",
            Word::Notifications => "key events:",
            Word::Connected => "connected to",
            Word::Lost => "lost:",
            Word::Late => "late:",
            Word::Answers => "the server answers",
            Word::Behind => "behind:",
            Word::Unheard => "the server does not send all",
            Word::AllKeys => "all keys",
        }
    }
}
