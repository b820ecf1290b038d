//! The payload `json`: `{"channel","key","value","expires_at"?,"too_large"?,"event"?,"heard_at"?}` on one line.
//!
//! `event` and `heard_at` stand last, so that a snapshot, which has neither, is the same bytes with that stretch cut out.

use std::collections::HashSet;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::decode;
use super::{Change, Decode};
use crate::hub::{Payload, Snapshot, tight};
use crate::keyspace::Value;

/// Stands before the base64 of a field's name that is not UTF-8, where JSON allows nothing but a string. A name that
/// begins like this itself is sent in base64 as well, so that there is one way to read it.
const NAME_IN_BASE64: &str = "base64:";

/// Room for what stands around the value.
const ENVELOPE: usize = 96;

/// Renders a change.
pub(super) fn render(change: &Change<'_>, decode: Decode) -> Payload {
    let value = change.value.value();
    let expected = ENVELOPE + change.channel.len() + change.key.len() + value.size_in_bytes();
    // A sixteenth more, for what must be escaped.
    let mut out = Vec::with_capacity(expected + expected / 16);
    out.extend_from_slice(b"{\"channel\":");
    write_string(&mut out, change.channel);
    out.extend_from_slice(b",\"key\":");
    write_text(&mut out, change.key);
    if let Value::TooLarge(_) = value {
        write_expiry(&mut out, change.expires_at);
        out.extend_from_slice(b",\"too_large\":true");
    } else {
        out.extend_from_slice(b",\"value\":");
        write_value(&mut out, value, decode);
        write_expiry(&mut out, change.expires_at);
    }
    let start = out.len();
    if let Some(event) = change.event {
        out.extend_from_slice(b",\"event\":");
        write_string(&mut out, event.as_str());
    }
    if let Some(at) = change.heard_at {
        // In milliseconds, as every time that clients are told: a message may be on the screen before one has passed.
        let (whole, rest) = (at / 1000, at % 1000);
        out.extend_from_slice(b",\"heard_at\":");
        // This is in nearly every message: `write!` takes five times as long.
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
        out.push(b'.');
        out.extend([rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8));
    }
    let snapshot = match start == out.len() {
        true => Snapshot::Same,
        false => Snapshot::Without(start..out.len()),
    };
    out.push(b'}');
    Payload {
        live: tight(out, 0),
        snapshot,
        json: true,
        absent: value.is_absent(),
    }
}

fn write_expiry(out: &mut Vec<u8>, expires_at: Option<u64>) {
    if let Some(at) = expires_at {
        write!(out, ",\"expires_at\":{at}").expect("a Vec takes all that is written");
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value, decode: Decode) {
    match value {
        Value::Absent | Value::TooLarge(_) => out.extend_from_slice(b"null"),
        Value::String(text) => write_item(out, text, decode),
        Value::Hash(fields) => write_pairs(out, fields.iter(), decode),
        Value::List(items) => write_array(out, items, |out, item| write_item(out, item, decode)),
        Value::Set(members) => write_array(out, members, |out, member| write_text(out, member)),
        Value::SortedSet(members) => write_array(out, members, |out, (member, score)| {
            out.extend_from_slice(b"{\"member\":");
            write_text(out, member);
            out.extend_from_slice(b",\"score\":");
            write_score(out, *score);
            out.push(b'}');
        }),
        Value::Stream(entries) => write_array(out, entries, |out, entry| {
            out.extend_from_slice(b"{\"id\":");
            write_text(out, &entry.id);
            out.extend_from_slice(b",\"fields\":");
            write_pairs(out, last_of_each(&entry.fields).into_iter(), decode);
            out.push(b'}');
        }),
    }
}

/// The fields of a stream entry as an object has them: of a name that comes more than once, the last.
pub(super) fn last_of_each(fields: &[(Bytes, Bytes)]) -> Vec<&(Bytes, Bytes)> {
    let mut seen = HashSet::with_capacity(fields.len());
    let mut last: Vec<_> = fields.iter().rev().filter(|(name, _)| seen.insert(name)).collect();
    last.reverse();
    last
}

fn write_array<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn write_pairs<'a>(out: &mut Vec<u8>, pairs: impl Iterator<Item = &'a (Bytes, Bytes)>, decode: Decode) {
    out.push(b'{');
    for (i, (name, value)) in pairs.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match name_in_base64(name) {
            None => write_text(out, name),
            Some(name) => write_string(out, &name),
        }
        out.push(b':');
        write_item(out, value, decode);
    }
    out.push(b'}');
}

/// The name of a field that cannot be sent as it is; `None` if it can.
pub(super) fn name_in_base64(name: &[u8]) -> Option<String> {
    let plain = std::str::from_utf8(name).is_ok_and(|name| !name.starts_with(NAME_IN_BASE64));
    (!plain).then(|| format!("{NAME_IN_BASE64}{}", STANDARD.encode(name)))
}

/// Writes JSON as JSON, if it is to be looked for, and anything else as text.
fn write_item(out: &mut Vec<u8>, bytes: &[u8], decode: Decode) {
    match decode {
        Decode::Json => match decode::json(bytes) {
            Some(json) => decode::write_compact(out, json),
            None => write_text(out, bytes),
        },
        Decode::None => write_text(out, bytes),
    }
}

/// Writes bytes as a string, or as `{"base64":"…"}` if they are not UTF-8.
fn write_text(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => write_string(out, text),
        Err(_) => {
            out.extend_from_slice(b"{\"base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

/// Writes a score as a number; the infinite ones, which JSON has not, as the strings that the server calls them by.
fn write_score(out: &mut Vec<u8>, score: f64) {
    let written = match Score::of(score) {
        Score::Whole(whole) => write!(out, "{whole}"),
        Score::Fraction(fraction) => serde_json::to_writer(&mut *out, &fraction).map_err(Into::into),
        Score::Name(name) => write!(out, "\"{name}\""),
    };
    written.expect("a Vec takes all that is written");
}

/// The shortest exact way to say a score.
pub(super) enum Score {
    Whole(i64),
    Fraction(f64),
    Name(&'static str),
}

impl Score {
    pub(super) fn of(score: f64) -> Score {
        // Whole numbers up to here are exact, in a float and in every JSON parser.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if score.is_nan() {
            Score::Name("nan")
        } else if score.is_infinite() {
            Score::Name(if score > 0.0 { "inf" } else { "-inf" })
        } else if score.fract() == 0.0 && score.abs() <= EXACT {
            Score::Whole(score as i64)
        } else {
            Score::Fraction(score)
        }
    }
}

/// Writes text as a JSON string.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    // Most has nothing to escape. It is looked through to its end, so that the compiler may look at sixteen bytes at once.
    let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if !text.bytes().fold(false, |any, byte| any | escaped(byte)) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    serde_json::to_writer(out, text).expect("a Vec takes all that is written, and a string is always JSON");
}
