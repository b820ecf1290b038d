//! What every wire says, and that a reader of the standard reads it back.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::hub::{Reason, Snapshot};

const EPOCH: u64 = 0xab;
const WIRES: [Wire; 3] = [Wire::Sse, Wire::WebSocket, Wire::RawWebSocket];
const RENDITIONS_OF_ALL: [Rendition; 3] = [Rendition::Live, Rendition::Catchup, Rendition::Snapshot];

fn channel(event_name: Option<&str>) -> Channel {
    Channel {
        event_name: event_name.map(Arc::from),
        ..Channel::of_state("cart:\"42\"")
    }
}

fn text_payload(data: &[u8]) -> Payload {
    Payload {
        live: Bytes::copy_from_slice(data),
        snapshot: Snapshot::Same,
        json: false,
        absent: false,
    }
}

fn json_payload() -> Payload {
    Payload {
        live: Bytes::from_static(br#"{"value":1,"event":"set"}"#),
        snapshot: Snapshot::Without(10..24),
        json: true,
        absent: false,
    }
}

fn message(event_name: Option<&str>, body: Body) -> Message {
    Message::new(17, Arc::new(channel(event_name)), body)
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// The bytes of a chunked body, read as the RFC says; they must end with a whole chunk.
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a chunk's head");
        let size = std::str::from_utf8(&body[..end]).expect("hex digits");
        let size = usize::from_str_radix(size, 16).expect("hex digits");
        body = &body[end + 2..];
        out.extend_from_slice(&body[..size]);
        body = body[size..].strip_prefix(b"\r\n").expect("a chunk's tail");
    }
    out
}

/// An event as a browser dispatches it.
#[derive(Debug, Default, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: String,
}

/// Reads a stream by the letter of the standard.
fn events(stream: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(stream).expect("UTF-8");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut event) = (Vec::new(), Event::default());
    for line in text.split('\n') {
        if line.is_empty() {
            let id = event.id.clone();
            if event.data.is_empty() {
                event = Event { id, ..Event::default() };
                continue;
            }
            event.data.pop();
            events.push(std::mem::replace(&mut event, Event { id, ..Event::default() }));
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                event.data.push_str(value);
                event.data.push('\n');
            }
            "event" => event.name = value.to_owned(),
            "id" if !value.contains('\0') => event.id = value.to_owned(),
            _ => {}
        }
    }
    events
}

/// Opcode and payload of frames, read as the RFC says; they must be whole, final and unmasked.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    let take = |count: usize, bytes: &mut &[u8]| {
        let mut taken = vec![0; count];
        bytes.read_exact(&mut taken).expect("a whole frame");
        taken
    };
    while !bytes.is_empty() {
        let head = take(2, &mut bytes);
        assert_eq!(head[0] & 0xf0, 0x80, "final, no extension");
        let length = match head[1] {
            126 => u16::from_be_bytes(take(2, &mut bytes).try_into().unwrap()).into(),
            127 => u64::from_be_bytes(take(8, &mut bytes).try_into().unwrap()) as usize,
            short => short.into(),
        };
        frames.push((head[0] & 0x0f, take(length, &mut bytes)));
    }
    frames
}

fn sse_text(bytes: &Bytes) -> String {
    String::from_utf8(unchunk(bytes)).unwrap()
}

fn ws_json(bytes: &Bytes) -> Value {
    let frames = frames(bytes);
    assert_eq!((frames.len(), frames[0].0), (1, 1));
    serde_json::from_slice(&frames[0].1).unwrap()
}

fn ws_text(bytes: &Bytes) -> String {
    String::from_utf8(frames(bytes).remove(0).1).unwrap()
}

#[test]
fn a_message_has_an_id_only_when_live_and_an_event_only_outside_a_snapshot() {
    let message = message(None, Body::Change(json_payload()));
    let sse = |rendition| sse_text(&encoded(&message, Wire::Sse, rendition, EPOCH));
    let live = "id: 00000000000000ab-17\ndata: {\"value\":1,\"event\":\"set\"}\n\n";
    assert_eq!(sse(Rendition::Live), live);
    assert_eq!(sse(Rendition::Catchup), "data: {\"value\":1,\"event\":\"set\"}\n\n");
    assert_eq!(sse(Rendition::Snapshot), "data: {\"value\":1}\n\n");

    let ws = |rendition| ws_text(&encoded(&message, Wire::WebSocket, rendition, EPOCH));
    assert_eq!(
        ws(Rendition::Live),
        r#"{"type":"message","channel":"cart:\"42\"","id":"00000000000000ab-17","data":{"value":1,"event":"set"}}"#
    );
    assert_eq!(
        ws(Rendition::Catchup),
        r#"{"type":"message","channel":"cart:\"42\"","data":{"value":1,"event":"set"}}"#
    );
    assert_eq!(
        ws(Rendition::Snapshot),
        r#"{"type":"message","channel":"cart:\"42\"","data":{"value":1}}"#
    );

    let raw = |rendition| ws_text(&encoded(&message, Wire::RawWebSocket, rendition, EPOCH));
    assert_eq!(raw(Rendition::Live), r#"{"value":1,"event":"set"}"#);
    assert_eq!(raw(Rendition::Catchup), raw(Rendition::Live));
    assert_eq!(raw(Rendition::Snapshot), r#"{"value":1}"#);
}

#[test]
fn no_two_renditions_share_a_place_but_equal_ones() {
    let mut taken = std::collections::BTreeMap::new();
    for wire in WIRES {
        for rendition in RENDITIONS_OF_ALL {
            let Encoding(place) = wire.encoding(rendition);
            assert!(place < Encoding::COUNT);
            let before = taken.insert(place, (wire, rendition));
            assert!(
                matches!(before, None | Some((Wire::RawWebSocket, Rendition::Live))),
                "{before:?}"
            );
        }
    }
}

#[test]
fn text_is_a_string_in_json_and_names_are_told() {
    let message = message(Some("tick"), Body::Change(text_payload("<a>\n\"é".as_bytes())));
    let sse = encoded(&message, Wire::Sse, Rendition::Catchup, EPOCH);
    assert_eq!(sse_text(&sse), "event: tick\ndata: <a>\ndata: \"é\n\n");
    let ws = ws_json(&encoded(&message, Wire::WebSocket, Rendition::Catchup, EPOCH));
    assert_eq!(
        ws,
        json!({"type": "message", "channel": "cart:\"42\"", "name": "tick", "data": "<a>\n\"é"})
    );
    let cleared = Step::OnReset {
        channel: Arc::new(channel(None)),
        payload: text_payload(b"clear"),
    };
    assert_eq!(sse_text(&step(&cleared, Wire::Sse, EPOCH)), "data: clear\n\n");
    assert_eq!(ws_text(&step(&cleared, Wire::RawWebSocket, EPOCH)), "clear");
}

#[test]
fn what_cannot_be_sent_is_nothing_and_bare_payloads_know_no_control() {
    for wire in WIRES {
        let message = message(None, Body::Void);
        assert!(&encoded(&message, wire, Rendition::Live, EPOCH).is_empty());
    }
    let (reason, missed) = (Reason("lost"), Some(1));
    let message = message(None, Body::Gap { reason, missed });
    assert!(&encoded(&message, Wire::RawWebSocket, Rendition::Live, EPOCH).is_empty());
}

#[test]
fn the_control_events_of_a_log() {
    let reason = Reason("upstream");
    let bodies = [
        (
            Body::Stale {
                reason,
                since: at(1500),
            },
            r#""since":1500"#,
        ),
        (
            Body::Fresh {
                reason,
                since: at(1500),
            },
            r#""since":1500"#,
        ),
        (
            Body::Gap {
                reason,
                missed: Some(3),
            },
            r#""missed":3"#,
        ),
        (Body::Gap { reason, missed: None }, r#""missed":null"#),
    ];
    for ((body, traits), word) in bodies.into_iter().zip(["stale", "fresh", "gap", "gap"]) {
        let message = message(Some("named"), body);
        let members = format!(r#""channels":{{"cart:\"42\"":{{{traits}}}}},"reason":"upstream""#);
        let sse = sse_text(&encoded(&message, Wire::Sse, Rendition::Live, EPOCH));
        assert_eq!(
            sse,
            format!("id: 00000000000000ab-17\nevent: keyrelay.{word}\ndata: {{{members}}}\n\n")
        );
        let sse = sse_text(&encoded(&message, Wire::Sse, Rendition::Snapshot, EPOCH));
        assert_eq!(sse, format!("event: keyrelay.{word}\ndata: {{{members}}}\n\n"));
        let ws = ws_text(&encoded(&message, Wire::WebSocket, Rendition::Live, EPOCH));
        assert_eq!(
            ws,
            format!(r#"{{"type":"{word}","id":"00000000000000ab-17",{members}}}"#)
        );
    }
}

#[test]
fn the_control_events_of_a_session() {
    let cursor = Cursor {
        epoch: EPOCH,
        sequence: 9,
        set: Some(0xcd),
    };
    let ready = |channels: &[(&str, usize)], reference| Step::Ready {
        channels: channels
            .iter()
            .map(|(name, values)| (Arc::from(*name), *values))
            .collect(),
        cursor,
        reference,
    };
    let first = ready(&[("a", 2), ("b\n", 0)], None);
    assert_eq!(
        sse_text(&step(&first, Wire::Sse, EPOCH)),
        "id: 00000000000000ab-9\nevent: keyrelay.ready\ndata: {\"channels\":{\"a\":2,\"b\\n\":0},\
         \"cursor\":\"00000000000000ab-9-00000000000000cd\",\"set\":\"00000000000000cd\"}\n\n"
    );
    assert!(step(&first, Wire::RawWebSocket, EPOCH).is_empty());
    assert_eq!(
        ws_json(&step(&ready(&[("a", 1)], Some(7)), Wire::WebSocket, EPOCH)),
        json!({
            "type": "ready", "channels": {"a": 1},
            "cursor": "00000000000000ab-9-00000000000000cd", "set": "00000000000000cd", "ref": 7
        })
    );
    let (channel, reason) = (Arc::<str>::from("a"), "unknown-cursor");
    let reset = Step::Reset {
        channel: channel.clone(),
        reason,
    };
    assert_eq!(
        ws_text(&step(&reset, Wire::WebSocket, EPOCH)),
        r#"{"type":"reset","id":"00000000000000ab-0","channels":{"a":{}},"reason":"unknown-cursor"}"#
    );
    let gap = Step::Gap { channel, reason };
    assert_eq!(
        ws_text(&step(&gap, Wire::WebSocket, EPOCH)),
        r#"{"type":"gap","channels":{"a":{"missed":null}},"reason":"unknown-cursor"}"#
    );
}

#[test]
fn an_ending_says_whether_to_come_back_and_ends_the_stream_as_its_transport_does() {
    let retry = Duration::from_millis(1234);
    let drain = ending(Ending::Drain, retry, Wire::Sse);
    let event = "event: keyrelay.end\nretry: 1234\ndata: {\"reason\":\"drain\",\"reconnect\":true,\"retry\":1234}\n\n";
    assert!(drain.ends_with(sse::LAST_CHUNK));
    assert_eq!(sse_text(&drain), event);
    assert_eq!(sse_text(&sse::end_event(Ending::Drain, retry)), event);
    assert_eq!(&ending(Ending::Gone, retry, Wire::Sse)[..], sse::LAST_CHUNK);

    let big = frames(&ending(Ending::TooBig, retry, Wire::WebSocket));
    assert_eq!(
        big[0],
        (1, br#"{"type":"end","reason":"too-big","reconnect":false}"#.to_vec())
    );
    assert_eq!(big[1], (8, b"\x03\xf1too-big".to_vec()));
    let wrong = frames(&ending(Ending::Protocol("masked"), retry, Wire::WebSocket));
    let expected = br#"{"type":"end","reason":"protocol","message":"masked","reconnect":false}"#;
    assert_eq!(wrong, [(1, expected.to_vec()), (8, b"\x03\xeamasked".to_vec())]);
    let raw = frames(&ending(Ending::Drain, retry, Wire::RawWebSocket));
    assert_eq!(raw, [(8, b"\x03\xf4drain".to_vec())]);
}

#[test]
fn answers_carry_the_reference_of_their_request() {
    assert_eq!(
        ws_text(&ws::pong_message(Some("\"x\""))),
        r#"{"type":"pong","ref":"x"}"#
    );
    assert_eq!(ws_text(&ws::pong_message(None)), r#"{"type":"pong"}"#);
    assert_eq!(
        ws_text(&ws::error_message(Some("a\""), "not-allowed", "no.", Some("1"))),
        r#"{"type":"error","channel":"a\"","reason":"not-allowed","message":"no.","ref":1}"#
    );
    assert_eq!(
        ws_text(&ws::error_message(None, "malformed", "no.", None)),
        r#"{"type":"error","reason":"malformed","message":"no."}"#
    );
}

#[test]
fn lines_end_in_three_ways_and_nothing_else_is_lost() {
    let data = |text: &str| {
        let message = message(None, Body::Change(text_payload(text.as_bytes())));
        let mut stream = sse::opening(Duration::from_secs(2)).to_vec();
        stream.extend_from_slice(&encoded(&message, Wire::Sse, Rendition::Live, EPOCH));
        let mut events = events(&unchunk(&stream));
        assert_eq!(events.len(), 1, "{text:?}");
        events.remove(0).data
    };
    for (text, expected) in [
        ("a\r\nb\nc\rd", "a\nb\nc\nd"),
        ("", ""),
        ("\n", "\n"),
        ("\r\n\r\n", "\n\n"),
        ("\n\r", "\n\n"),
        ("a\n", "a\n"),
        (" a:b", " a:b"),
        ("\u{feff}a", "\u{feff}a"),
        ("a\0b", "a\0b"),
        (":data: x", ":data: x"),
    ] {
        assert_eq!(data(text), expected, "{text:?}");
    }
    let large = "x".repeat(1024 * 1024);
    assert_eq!(data(&large), large);
}

#[test]
fn the_event_of_a_chunk_is_shown_without_copying() {
    for chunk in [
        sse::opening(Duration::from_millis(2500)),
        heartbeat(Wire::Sse),
        sse::event(None, None, &[b'x'; 300]),
    ] {
        let inside = sse::without_chunk(&chunk);
        assert_eq!(inside, unchunk(&chunk));
        assert!(chunk.as_ptr_range().contains(&inside.as_ptr()));
    }
    assert_eq!(sse::without_chunk(&Bytes::new()), Bytes::new());
    assert_eq!(
        &sse::without_chunk(&sse::opening(Duration::from_millis(2500)))[..],
        b": keyrelay\nretry: 2500\n\n"
    );
}

#[test]
fn a_line_end_in_a_header_brings_no_other_header() {
    let extra = [
        ("vary", &b"origin"[..]),
        ("x-bad", &b"a\r\nset-cookie: b"[..]),
        ("x\nbad", &b"a"[..]),
    ];
    let head = sse::response_head(sse::Framing::Chunked, extra);
    assert_eq!(
        std::str::from_utf8(&head).unwrap(),
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store, no-transform\r\n\
         x-accel-buffering: no\r\nvary: origin\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let head = sse::response_head(sse::Framing::Close, []);
    assert!(head.ends_with(b"\r\nconnection: close\r\n\r\n"));
}

#[test]
fn a_websocket_is_accepted_as_the_standard_shows() {
    // RFC 6455 §1.3.
    let head = ws::response_head(b"dGhlIHNhbXBsZSBub25jZQ==", Some(ws::SUBPROTOCOL), []);
    assert_eq!(
        std::str::from_utf8(&head).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: keyrelay.v1.json\r\n\r\n"
    );
}

#[test]
fn frames_have_the_shortest_length_and_control_frames_fit() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1_048_576] {
        let frame = ws::text(&vec![b'x'; length]);
        let head = frame.len() - length;
        assert_eq!(
            head,
            if length < 126 {
                2
            } else if length < 65_536 {
                4
            } else {
                10
            }
        );
        assert_eq!(frames(&frame), [(1, vec![b'x'; length])]);
    }
    assert_eq!(frames(&heartbeat(Wire::WebSocket)), [(9, vec![])]);
    assert_eq!(frames(&ws::close(1012, "drain")), [(8, b"\x03\xf4drain".to_vec())]);
    let (_, payload) = frames(&ws::close(1013, &"é".repeat(100))).remove(0);
    assert_eq!(payload.len(), 124, "a character is not cut in two");
    assert!(std::str::from_utf8(&payload[2..]).is_ok());
    assert_eq!(ws_text(&ws::text(b"a\xff")), "a\u{fffd}");
}

proptest! {
    #[test]
    fn every_text_arrives(texts in prop::collection::vec("[\r\n\u{0}\u{feff} :a-cé😀]{0,40}", 0..5), name in prop::option::of("[ :a-z\u{feff}]{1,8}")) {
        let mut stream = sse::opening(Duration::from_secs(2)).to_vec();
        let mut frames_sent = Vec::new();
        for text in &texts {
            let message = message(name.as_deref(), Body::Change(text_payload(text.as_bytes())));
            stream.extend_from_slice(&encoded(&message, Wire::Sse, Rendition::Live, EPOCH));
            stream.extend_from_slice(&heartbeat(Wire::Sse));
            let frame = encoded(&message, Wire::WebSocket, Rendition::Live, EPOCH);
            frames_sent.push(ws_json(&frame)["data"].as_str().unwrap().to_owned());
        }
        let got = events(&unchunk(&stream));
        let expected: Vec<_> = texts.iter().map(|text| Event {
            id: "00000000000000ab-17".to_owned(),
            name: name.clone().unwrap_or_default(),
            data: text.replace("\r\n", "\n").replace('\r', "\n"),
        }).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(frames_sent, texts);
    }
}

/// The document of the wire shows what is sent, letter for letter.
#[test]
fn the_document_shows_what_is_sent() {
    const EPOCH: u64 = 0x7f3a_9c0d_51e8_b264;
    let document = include_str!("../../docs/protocol.md");
    let shows = |text: &str| {
        assert!(
            document.contains(&format!("\n{text}")),
            "not in docs/protocol.md:\n{text}"
        )
    };
    let shows_sse = |frame: &Bytes| shows(&format!("```text\n{}```\n", sse_text(frame)));
    let shows_ws = |frame: &Bytes| shows(&format!("```json\n{}\n```\n", ws_text(frame)));
    let at_cart = |sequence, body| {
        let channel = Channel {
            name: "cart:42".into(),
            ..channel(None)
        };
        Message::new(sequence, Arc::new(channel), body)
    };
    let change = |value: &str, event: &str| {
        let live = format!(r#"{{"channel":"cart:42","key":"cart:42","value":"{value}"{event}}}"#);
        Body::Change(Payload {
            live: live.into(),
            ..json_payload()
        })
    };
    let one = at_cart(1, change("one", ""));
    shows_sse(&encoded(&one, Wire::Sse, Rendition::Catchup, EPOCH));
    let two = at_cart(1042, change("two", r#","event":"set""#));
    shows_sse(&encoded(&two, Wire::Sse, Rendition::Live, EPOCH));
    shows_ws(&encoded(&two, Wire::WebSocket, Rendition::Live, EPOCH));

    let (reason, since) = (Reason("upstream-lost"), at(1_763_762_345_678));
    let stale = at_cart(1044, Body::Stale { reason, since });
    shows_sse(&encoded(&stale, Wire::Sse, Rendition::Live, EPOCH));
    shows_ws(&encoded(&stale, Wire::WebSocket, Rendition::Live, EPOCH));
    let fresh = at_cart(1050, Body::Fresh { reason, since });
    shows_sse(&encoded(&fresh, Wire::Sse, Rendition::Live, EPOCH));
    let log = Arc::new(Channel {
        name: "log".into(),
        ..channel(None)
    });
    let gap = Message::new(1043, log, Body::Gap { reason, missed: None });
    shows_sse(&encoded(&gap, Wire::Sse, Rendition::Live, EPOCH));

    let ready = |reference| Step::Ready {
        channels: vec![("cart:42".into(), 1), ("room:7".into(), 20)],
        cursor: Cursor {
            epoch: EPOCH,
            sequence: 1041,
            set: Some(0x90c1_a4f2_e06b_7d35),
        },
        reference,
    };
    shows_sse(&step(&ready(None), Wire::Sse, EPOCH));
    shows_ws(&step(&ready(Some(1)), Wire::WebSocket, EPOCH));
    let reset = Step::Reset {
        channel: "cart:42".into(),
        reason: "unknown-cursor",
    };
    shows_sse(&step(&reset, Wire::Sse, EPOCH));
    shows_sse(&sse::opening(Duration::from_millis(1870)));
    shows_sse(&sse::end_event(Ending::Drain, Duration::from_millis(2210)));
    shows_ws(&ws::pong_message(Some("\"any text or number\"")));
    let why = "no mapping gives a channel of this name";
    shows_ws(&ws::error_message(Some("secret"), "unknown", why, Some("1")));
    let wrong = ws::Request::parse(r#"{"type":1}"#).unwrap_err();
    shows_ws(&ws::error_message(
        None,
        "malformed",
        &wrong.what,
        wrong.reference.as_deref(),
    ));

    for kind in ["subscribe", "unsubscribe", "ping"] {
        let start = document
            .find(&format!("{{\"type\":\"{kind}\""))
            .expect("an example of each request");
        let example = document[start..].lines().next().unwrap();
        assert!(ws::Request::parse(example).is_ok(), "{example}");
    }
}
