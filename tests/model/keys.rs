//! The fifty keys that every schedule writes, and the channels that the mappings make of them.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// The relay's mappings. Channels are kept warm so shortly that schedules see them go, and happenings so long that they
/// mostly do not.
pub const MAPPINGS: &str = r#"
[defaults]
linger = "150ms"
retain = { messages = 4096, bytes = "16MiB", age = "3s" }

[[mapping]]
key = "one:{id}"
access = "public"

[[mapping]]
key = "one:{id}"
channel = "ones"
access = "public"

[[mapping]]
key = "room:{room}:{id}"
channel = "room:{room}"
access = "public"

[[mapping]]
key = "room:{room}:{id}"
channel = "part:{room}"
fields = ["stamp"]
access = "public"

[[mapping]]
key = "room:{room}:{id}"
channel = "log:{room}"
mode = "events"
linger = "3s"
access = "public"

[[mapping]]
key = "ttl:{id}"
expires = true
access = "public"

[[mapping]]
key = "ttl:{id}"
channel = "ttls"
mode = "events"
linger = "3s"
access = "public"
"#;

/// One key.
#[derive(Debug)]
pub struct Key {
    pub bytes: Vec<u8>,
    /// What messages call it.
    pub name: String,
    /// The state channels that show it.
    pub state: Vec<String>,
    /// The events channel that tells of it, if any.
    pub events: Option<String>,
    /// Whether its channel sends when it expires.
    pub expires: bool,
}

/// The rooms; the name of the last one is not UTF-8.
const ROOMS: [(&[u8], &str); 2] = [(b"a", "a"), (b"b\xfe", "b%FE")];

/// All keys. Some of their bytes are no text.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    let odd = |n: usize| match n {
        3 => (b"\xff\x00x".to_vec(), "%FF%00x".to_owned()),
        7 => (b"line\r\nend".to_vec(), "line%0D%0Aend".to_owned()),
        11 => ("50% \u{1f511}".as_bytes().to_vec(), "50%25 \u{1f511}".to_owned()),
        _ => (n.to_string().into_bytes(), n.to_string()),
    };
    for n in 0..16 {
        let (bytes, name) = odd(n);
        let state = vec![format!("one:{name}"), "ones".into()];
        keys.push(key(&[b"one:", &bytes], state, None, false));
    }
    for (room, room_name) in ROOMS {
        for n in 0..12 {
            let state = vec![format!("room:{room_name}"), format!("part:{room_name}")];
            let events = Some(format!("log:{room_name}"));
            keys.push(key(&[b"room:", room, b":", &odd(n).0], state, events, false));
        }
    }
    for n in 0..10 {
        let (bytes, name) = odd(n);
        let state = vec![format!("ttl:{name}")];
        keys.push(key(&[b"ttl:", &bytes], state, Some("ttls".into()), true));
    }
    keys
});

fn key(parts: &[&[u8]], state: Vec<String>, events: Option<String>, expires: bool) -> Key {
    let bytes = parts.concat();
    let name = name_of(&text(&bytes));
    Key {
        bytes,
        name,
        state,
        events,
        expires,
    }
}

/// Bytes as a payload shows them where a string stands.
pub fn text(bytes: &[u8]) -> Value {
    use base64::Engine;
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)}),
    }
}

/// What a payload's `key` is called in pictures.
pub fn name_of(key: &Value) -> String {
    key.as_str().map_or_else(|| key.to_string(), str::to_owned)
}

/// Whether a channel shows this field of hashes alone, and nothing of other types.
pub fn field_of(channel: &str) -> Option<&'static str> {
    channel.starts_with("part:").then_some("stamp")
}

/// Whether a channel is a sequence of happenings.
pub fn is_events(channel: &str) -> bool {
    channel.starts_with("log:") || channel == "ttls"
}

/// What every key is on a server that no relay is to show.
pub const ELSEWHERE: &str = "of another server";

/// The server's patterns for the keys of all events channels.
pub const EVENT_PATTERNS: [&str; 2] = ["__keyspace@0__:room:*", "__keyspace@0__:ttl:*"];
