//! Payloads of hostile values, and what clients read of them.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::hub::{Body, Channel, Message, Payload};
use crate::keyspace::{EventName, Size, StreamEntry, Value};
use crate::payload::{Change, Decode, Format, Options, Renderer};
use crate::session::Rendition;
use crate::transport::{Wire, encoded};

/// Between the parts of an input: no text has it.
const SEPARATOR: u8 = 0xff;

const EPOCH: u64 = 0x1234_5678_9abc_def0;

/// Made once: to compile a template takes longer than all the rest.
static RENDERERS: LazyLock<Vec<Vec<(Format, Renderer)>>> = LazyLock::new(|| (0..8).map(renderers).collect());

/// A `json` payload, and no member more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json<'a> {
    channel: String,
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(default)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    too_large: bool,
    #[serde(default)]
    expires_at: Option<u64>,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    heard_at: Option<f64>,
}

/// A WebSocket message, and no member more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told<'a> {
    r#type: String,
    channel: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Two bytes that choose, then channel, event, name of the event on the wire, key, and the parts of the value.
pub fn payload(data: &[u8]) {
    let [kind, choice, data @ ..] = data else { return };
    let mut parts = data.split(|byte| *byte == SEPARATOR);
    let mut part = || parts.next().unwrap_or_default();
    let channel = String::from_utf8_lossy(part()).into_owned();
    let event = EventName::from_bytes(part());
    let event_name = std::str::from_utf8(part()).ok();
    // The config lets no other pass.
    let event_name = event_name.filter(|name| !name.is_empty() && !name.contains(['\r', '\n', '\0']));
    let key = part();
    let items: Vec<Bytes> = parts.map(Bytes::copy_from_slice).collect();
    let captures = [(Arc::from("id"), items.first().cloned().unwrap_or_default())];
    let is = |bit: u8| choice & (1 << bit) != 0;
    for (form, renderer) in &RENDERERS[usize::from(choice & 7)] {
        let value = renderer.project(value(*kind, &items));
        assert_eq!(renderer.fingerprint(&value), renderer.fingerprint(&value.clone()));
        let change = Change {
            channel: &channel,
            key,
            captures: &captures,
            value: &value,
            event: is(3).then_some(&event),
            expires_at: is(4).then_some(u64::from(*kind) << 40),
            heard_at: is(5).then_some(u64::from(*kind) << 40),
        };
        let Ok(payload) = renderer.render(&change) else {
            continue;
        };
        match form {
            Format::Json => json(&payload, &change),
            Format::Template { change, absent, .. } => {
                let template = if payload.absent {
                    absent.as_deref().unwrap_or_default()
                } else {
                    change
                };
                for bytes in [&payload.live[..], &payload.snapshot()] {
                    let markup = std::str::from_utf8(bytes).expect("markup is text");
                    for sign in ['<', '>', '"', '\''] {
                        let count = |text: &str| text.matches(sign).count();
                        assert_eq!(count(markup), count(template), "{markup:?} has a {sign} too many");
                    }
                }
            }
            Format::Raw { .. } => assert!(std::str::from_utf8(&payload.live).is_ok()),
        }
        on_the_wires(payload, &channel, event_name);
    }
}

/// A mapping of each format, by the first three bits of the choice.
fn renderers(choice: u8) -> Vec<(Format, Renderer)> {
    let is = |bit: u8| choice & (1 << bit) != 0;
    let renderer = |format: Format| {
        let options = Options {
            format: format.clone(),
            decode: if is(0) { Decode::Json } else { Decode::None },
            fields: is(1).then(|| vec!["a".to_owned(), "é\"".to_owned()]),
            expires: true,
            heard: true,
            max_value: if is(2) { 16 } else { 1 << 20 },
        };
        (
            format,
            Renderer::new(options, &["id".into()]).expect("the templates are right"),
        )
    };
    formats().map(renderer).into()
}

fn formats() -> [Format; 3] {
    // Every variable in text and in an attribute, and a loop over what may be one.
    let change = "<p title=\"{{ value }}\" id='{{ id }}'>{{ key }}{{ channel }}{{ event }}{% if value is iterable %}\
                  {% for item in value %}{{ item }}{{ loop.index }}{% endfor %}{% endif %}{{ value.a }}{{ value|length if value is string }}</p>";
    let change = change.to_owned();
    [
        Format::Json,
        Format::Raw {
            absent: None,
            on_reset: None,
        },
        Format::Template {
            change,
            absent: Some("<i>{{ key }}</i>".to_owned()),
            on_reset: Some("<b>{{ channel }}</b>".to_owned()),
        },
    ]
}

fn value(kind: u8, items: &[Bytes]) -> Value {
    let pairs = |items: &[Bytes]| -> Vec<(Bytes, Bytes)> {
        items
            .chunks_exact(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    };
    match kind % 8 {
        0 => Value::String(items.first().cloned().unwrap_or_default()),
        1 => Value::Hash(pairs(items)),
        2 => Value::List(items.to_vec()),
        3 => Value::Set(items.to_vec()),
        4 => {
            let score = |text: &Bytes| {
                let mut bits = [0; 8];
                bits.iter_mut().zip(text.iter()).for_each(|(bits, byte)| *bits = *byte);
                f64::from_le_bytes(bits)
            };
            Value::SortedSet(items.iter().map(|item| (item.clone(), score(item))).collect())
        }
        5 => {
            let id = items.first().cloned().unwrap_or_default();
            let fields = pairs(items.get(1..).unwrap_or_default());
            Value::Stream(vec![StreamEntry { id, fields }])
        }
        6 => Value::TooLarge(Size::Bytes(1 << 40)),
        _ => Value::Absent,
    }
}

fn json(payload: &Payload, change: &Change<'_>) {
    for (bytes, is_live) in [(&payload.live[..], true), (&payload.snapshot(), false)] {
        let text = std::str::from_utf8(bytes).expect("JSON is text");
        assert!(!text.contains(['\n', '\r']), "more than one line: {text:?}");
        let read: Json<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(read.channel, change.channel);
        assert_eq!(
            read.event.as_deref(),
            change.event.filter(|_| is_live).map(|event| event.as_str())
        );
        assert_eq!(read.expires_at, change.expires_at);
        let heard_at = change.heard_at.filter(|_| is_live).map(|at| at as f64 / 1000.0);
        assert_eq!(read.heard_at, heard_at);
        assert_eq!(read.too_large, matches!(change.value.value(), Value::TooLarge(_)));
        if let Ok(key) = std::str::from_utf8(change.key) {
            assert_eq!(
                serde_json::from_str::<String>(read.key.get()).ok().as_deref(),
                Some(key)
            );
        }
        if let Some(value) = read.value {
            assert!(serde_json::from_str::<IgnoredAny>(value.get()).is_ok());
        }
    }
}

/// What comes out of each wire is the payload, and nothing that stands in it became anything else.
fn on_the_wires(payload: Payload, channel: &str, event_name: Option<&str>) {
    let channel = Arc::new(Channel {
        event_name: event_name.map(Into::into),
        ..Channel::of_state(channel)
    });
    let message = Message::new(42, channel, Body::Change(payload));
    for rendition in [Rendition::Live, Rendition::Catchup, Rendition::Snapshot] {
        let Body::Change(payload) = &message.body else {
            unreachable!()
        };
        let sent = match rendition {
            Rendition::Snapshot => payload.snapshot().into_owned(),
            _ => payload.live.to_vec(),
        };
        let id = (rendition == Rendition::Live).then(|| format!("{EPOCH:016x}-42"));
        let name = message.channel.event_name.as_deref();
        let frame = encoded(&message, Wire::Sse, rendition, EPOCH);
        let sse = dechunked(&frame);
        let heard = Heard {
            id: id.clone(),
            name: name.unwrap_or("message").to_owned(),
            data: lines_ended_by_lf(&sent),
        };
        assert_eq!(read(sse), [heard], "{}", sse.escape_ascii());

        let frame = encoded(&message, Wire::WebSocket, rendition, EPOCH);
        let text = of_text_frame(&frame);
        let told: Told<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(
            (told.r#type.as_str(), told.channel.as_str()),
            ("message", &*message.channel.name)
        );
        assert_eq!((told.id, told.name.as_deref()), (id, name));
        match payload.json {
            true => assert_eq!(told.data.get().as_bytes(), sent),
            false => {
                let text: String = serde_json::from_str(told.data.get()).expect("a string");
                assert_eq!(text.as_bytes(), sent);
            }
        }
        assert_eq!(
            of_text_frame(&encoded(&message, Wire::RawWebSocket, rendition, EPOCH)).as_bytes(),
            sent
        );
    }
}

/// What is in the one chunk that this is.
fn dechunked(chunk: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\r', chunk).expect("a length and its end");
    let digits = std::str::from_utf8(&chunk[..end]).expect("a length in digits");
    let length = usize::from_str_radix(digits, 16).expect("a length in hex");
    let body = chunk[end..]
        .strip_prefix(b"\r\n")
        .and_then(|rest| rest.strip_suffix(b"\r\n"));
    let body = body.expect("the line ends of a chunk");
    assert_eq!(body.len(), length);
    body
}

/// The text in the one unmasked text frame that this is (RFC 6455 §5.2).
fn of_text_frame(frame: &[u8]) -> &str {
    assert_eq!(frame[0], 0x81, "a whole text message");
    let (length, text) = match frame[1] {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), &frame[4..]),
        127 => {
            let length = u64::from_be_bytes(frame[2..10].try_into().expect("eight bytes"));
            (length as usize, &frame[10..])
        }
        short => (usize::from(short), &frame[2..]),
    };
    assert_eq!(text.len(), length);
    std::str::from_utf8(text).expect("a text frame holds text")
}

#[derive(Debug, PartialEq)]
struct Heard {
    id: Option<String>,
    name: String,
    data: Vec<u8>,
}

/// The events of a stream, as the WHATWG HTML standard §9.2.6 reads them.
fn read(stream: &[u8]) -> Vec<Heard> {
    let (mut heard, mut id, mut name, mut data) = (Vec::new(), None, String::new(), None::<Vec<u8>>);
    for line in lines_ended_by_lf(stream).split(|byte| *byte == b'\n') {
        if line.is_empty() {
            if let Some(data) = data.take() {
                let name = std::mem::take(&mut name);
                let name = if name.is_empty() { "message".to_owned() } else { name };
                heard.push(Heard {
                    id: id.take(),
                    name,
                    data,
                });
            }
            name.clear();
            continue;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match &line[..colon] {
            b"" => {}
            b"event" => name = text(),
            b"id" => id = Some(text()),
            b"data" => match &mut data {
                None => data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            // A field that nobody wrote, `retry` among them.
            other => panic!("a field {} was injected", other.escape_ascii()),
        }
    }
    assert!(data.is_none(), "an event without its end");
    heard
}

fn lines_ended_by_lf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\r' {
            out.push(b'\n');
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        } else {
            out.push(byte);
        }
    }
    out
}
