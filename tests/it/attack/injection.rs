//! What stands in keys, in values and in names of events stays what it is: text in a payload.

use serde_json::{Value, json};

use super::Scene;
use crate::harness::http::{Exchange, More};
use crate::harness::{Client, PATIENCE, Sse, Ws, mapping};
use crate::redis;

/// Whatever ends a line, a field, a string, a tag or a text somewhere.
const HOSTILE: [&str; 12] = [
    "a\r\ndata: evil",
    "a\nid: evil\n\nevent: keyrelay.end\ndata: {}\n\n",
    "a\rretry: 1\r\rdata: evil",
    "a\0b",
    "\u{feff}data: evil",
    "\u{2028}\u{2029}\u{85}\u{b}\u{c}",
    "\"},\"type\":\"end\",{\"x\":\"",
    "\\\"\\u0022\\",
    "</script><script>evil()</script>",
    "' onload='evil()' \" onload=\"evil()\"",
    "{{ key }}{% raw %}{{ evil }}",
    ": comment",
];

/// What a stream of events may have: what it is made of, and no other field.
fn is_ours(line: &str) -> bool {
    let fields = ["data: ", "id: ", "retry: ", ":"];
    line.is_empty() || fields.iter().any(|field| line.starts_with(field)) || line.starts_with("event: keyrelay.")
}

/// Reads a stream to the end of the state, writes one more key with `end` in it, reads to the end of its message, and gives
/// all lines, whatever ended them. (A state has no order, so what was written last may stand first in it.)
#[track_caller]
fn lines_until(scene: &Scene, channel: &str, end: &str) -> Vec<String> {
    let target = format!("/events?channel={channel}");
    let mut exchange = scene.relay.exchange("GET", &target, &[], None);
    read_past(&mut exchange, "keyrelay.ready");
    redis!(scene.server, "SET", format!("{channel}:end"), end);
    let text = read_past(&mut exchange, end);
    text.split(['\r', '\n']).map(str::to_owned).collect()
}

/// Reads on until a whole event with this text is there, and gives all that was read.
#[track_caller]
fn read_past(exchange: &mut Exchange, text: &str) -> String {
    loop {
        let body = String::from_utf8_lossy(&exchange.body);
        if body.find(text).is_some_and(|at| body[at..].contains("\n\n")) {
            return body.into_owned();
        }
        let read = exchange.read(PATIENCE);
        assert_ne!(read, More::Nothing, "{text:?} never came");
    }
}

#[test]
pub fn through_keys_and_values_into_events() {
    let mut scene = Scene::new(
        "",
        &[
            mapping("key = \"j:{id...}\"\nchannel = \"j\""),
            mapping("key = \"r:{id...}\"\nchannel = \"r\"\nformat = \"raw\""),
            mapping("key = \"t:{id...}\"\nchannel = \"t\"\nformat = \"template\"\ntemplate = \"<p title='{{ id }}'>{{ value }}</p>\""),
        ]
        .concat(),
    );
    for hostile in HOSTILE {
        for kind in ["j", "r", "t"] {
            redis!(scene.server, "SET", format!("{kind}:{hostile}"), hostile);
        }
    }
    // Bytes that are no text.
    for kind in ["j", "r", "t"] {
        let key = [kind.as_bytes(), b":\xff\xfe\r\ndata: evil"].concat();
        redis!(scene.server, "SET", key, b"\x80\r\n\r\ndata: evil");
    }
    scene.undisturbed();
    for kind in ["j", "r", "t"] {
        let lines = lines_until(&scene, kind, "the end of it");
        for line in &lines {
            assert!(is_ours(line), "{kind}: {line:?}");
        }
        let events = lines.iter().filter(|line| line.starts_with("event: "));
        assert!(
            events.clone().all(|line| line == "event: keyrelay.ready"),
            "{kind}: {lines:?}"
        );
        // Of a template, nothing opens or closes a tag or an attribute but the template.
        if kind == "t" {
            let markup: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("data: <p")).collect();
            assert!(markup.len() > HOSTILE.len());
            assert!(
                lines
                    .iter()
                    .all(|line| !line.contains("<script") && line.matches('\'').count() <= 2)
            );
        }
    }
    // Not a line more or less of any of them.
    let mut raw = Sse::open(&scene.relay, &["r"]);
    raw.ready();
    let mut texts: Vec<&str> = raw.memory().messages.iter().map(|message| &*message.text).collect();
    let ended_by_lf = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
    let mut expected: Vec<String> = HOSTILE.iter().map(|text| ended_by_lf(text)).collect();
    expected.push("the end of it".to_owned());
    texts.sort_unstable();
    expected.sort_unstable();
    assert_eq!(texts, expected);
    // And what was written is what is read.
    for mut heard in [heard::<Sse>(&scene), heard::<Ws>(&scene)] {
        for hostile in HOSTILE {
            let key = format!("j:{hostile}");
            let payload = json!({"channel": "j", "key": key, "value": hostile});
            let at = heard.iter().position(|told| *told == payload);
            heard.remove(at.unwrap_or_else(|| panic!("{hostile:?} did not arrive as it was: {heard:?}")));
        }
    }
    scene.over();
}

/// All payloads of the state of `j`.
fn heard<C: Client>(scene: &Scene) -> Vec<Value> {
    let mut client = C::open(&scene.relay, &["j"]);
    client.ready();
    client
        .memory()
        .messages
        .iter()
        .map(|message| message.json.clone())
        .collect()
}

/// Whoever may publish on the server can pretend that anything happened.
#[test]
pub fn through_names_of_events() {
    let mapping = mapping("key = \"e:{id...}\"\nchannel = \"e\"\nmode = \"events\"");
    let mut scene = Scene::new("", &mapping);
    redis!(scene.server, "SET", "e:1", "one");
    let mut ws = Ws::open(&scene.relay, &["e"]);
    ws.ready();
    let mut exchange = scene.relay.exchange("GET", "/events?channel=e", &[], None);
    read_past(&mut exchange, "keyrelay.ready");
    for hostile in HOSTILE {
        redis!(scene.server, "PUBLISH", "__keyspace@0__:e:1", hostile);
        redis!(scene.server, "PUBLISH", format!("__keyspace@0__:e:{hostile}"), "set");
    }
    redis!(scene.server, "PUBLISH", "__keyspace@0__:e:1", b"\xff\r\ndata: evil");
    redis!(scene.server, "PUBLISH", "__keyspace@0__:e:1", "the end of it");
    ws.until("the last", |memory| {
        memory
            .messages
            .iter()
            .any(|message| message.json["event"] == "the end of it")
    });
    let events: Vec<&Value> = ws
        .memory()
        .messages
        .iter()
        .map(|message| &message.json["event"])
        .collect();
    for hostile in HOSTILE {
        assert!(
            events.contains(&&json!(hostile)),
            "{hostile:?} did not arrive as it was: {events:?}"
        );
    }
    let text = read_past(&mut exchange, "the end of it");
    assert!(text.split(['\r', '\n']).all(is_ours), "{text}");
    scene.over();
}

/// Nothing that a request holds comes back as a header, or as anything but text in JSON.
#[test]
pub fn through_requests() {
    let mut scene = Scene::new("origins = [\"https://app.example.com\"]", "");
    let channel = "x%0D%0AX-Evil:%201%0D%0A%0D%0A%3Cscript%3E";
    for target in [format!("/events?channel={channel}"), format!("/channels/{channel}")] {
        let headers = [("Origin", "https://app.example.com")];
        let response = scene.relay.exchange("GET", &target, &headers, None).response();
        assert_eq!(response.status(), 404, "{target}");
        assert_eq!(response.header("x-evil"), None);
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        let json = response.json();
        assert!(
            json["channels"]
                .as_object()
                .is_some_and(|channels| { channels.contains_key("x\r\nX-Evil: 1\r\n\r\n<script>") })
        );
    }
    let offered = [("Sec-WebSocket-Protocol", "evil, keyrelay.v1.json")];
    let mut ws = Ws::request_with(&scene.relay, &format!("/ws?channel={channel}"), &offered);
    assert!(ws.response.headers().get("x-evil").is_none());
    assert_eq!(ws.control("error")["channel"], "x\r\nX-Evil: 1\r\n\r\n<script>");
    // The log is one line for each.
    let log = scene.relay.log();
    assert!(!log.lines().any(|line| line.starts_with("X-Evil")), "{log}");
    scene.over();
}
