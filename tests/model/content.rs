//! What the server holds, rendered by this test itself as docs/protocol.md says.

use std::collections::BTreeMap;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::keys::{KEYS, field_of, text};
use super::redis::Redis;
use crate::harness::Reply;

/// A key that is there.
#[derive(Clone, Debug)]
pub struct Content {
    pub value: Value,
    is_hash: bool,
    /// In milliseconds since 1970, if it expires.
    pub expires_at: Option<u64>,
}

impl Content {
    /// What a channel shows of it, if anything.
    pub fn shown_in(&self, channel: &str) -> Option<Value> {
        let Some(field) = field_of(channel) else {
            return Some(self.value.clone());
        };
        let fields = self.value.as_object().filter(|_| self.is_hash)?.iter();
        let chosen = fields.filter(|(name, _)| *name == field);
        Some(chosen.map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}

/// All keys of the schedule that are there, by their place in [`KEYS`].
///
/// Writing is paused meanwhile, where the server is `alone`: then a read does not make a key expire, which the server may do
/// much later by itself. KeyDB does not survive it if another server's writes come in.
pub async fn read(redis: &mut Redis, alone: bool) -> io::Result<BTreeMap<usize, Content>> {
    if !alone {
        return read_all(redis).await;
    }
    redis.words("CLIENT PAUSE 10000 WRITE").await?;
    let content = read_all(redis).await;
    redis.words("CLIENT UNPAUSE").await?;
    content
}

async fn read_all(redis: &mut Redis) -> io::Result<BTreeMap<usize, Content>> {
    let ask = |command: &[u8]| -> Vec<Vec<Vec<u8>>> {
        KEYS.iter()
            .map(|key| vec![command.to_vec(), key.bytes.clone()])
            .collect()
    };
    let types = redis.pipeline(&ask(b"TYPE")).await?;
    let ttls = redis.pipeline(&ask(b"PTTL")).await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(io::Error::other)?
        .as_millis() as u64;
    let mut content = BTreeMap::new();
    for (at, (kind, ttl)) in types.iter().zip(ttls).enumerate() {
        let key = &*KEYS[at].bytes;
        let kind = kind.text();
        let command: Vec<&[u8]> = match &*kind {
            "string" => vec![b"GET", key],
            "hash" => vec![b"HGETALL", key],
            "list" => vec![b"LRANGE", key, b"0", b"-1"],
            "set" => vec![b"SMEMBERS", key],
            "zset" => vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
            "stream" => vec![b"XRANGE", key, b"-", b"+"],
            "none" => continue,
            other => return Err(io::Error::other(format!("a type that nobody writes: {other}"))),
        };
        let value = render(&kind, &redis.command(&command).await?);
        let expires_at = match ttl {
            Reply::Integer(ttl) if ttl >= 0 => Some(now + ttl as u64),
            _ => None,
        };
        let is_hash = kind == "hash";
        content.insert(
            at,
            Content {
                value,
                is_hash,
                expires_at,
            },
        );
    }
    Ok(content)
}

fn render(kind: &str, reply: &Reply) -> Value {
    match kind {
        "string" => text(&bytes(reply)),
        "hash" => fields(reply),
        "list" => items(reply).iter().map(|item| text(&bytes(item))).collect(),
        "set" => {
            let mut members: Vec<Vec<u8>> = items(reply).iter().map(bytes).collect();
            members.sort();
            members.iter().map(|member| text(member)).collect()
        }
        "zset" => items(reply)
            .chunks(2)
            .map(|pair| json!({"member": text(&bytes(&pair[0])), "score": score(&bytes(&pair[1]))}))
            .collect(),
        _ => items(reply)
            .iter()
            .map(|entry| {
                let entry = items(entry);
                json!({"id": text(&bytes(&entry[0])), "fields": fields(&entry[1])})
            })
            .collect(),
    }
}

fn fields(reply: &Reply) -> Value {
    let named = items(reply);
    let members = named.chunks(2).map(|pair| {
        let name = match text(&bytes(&pair[0])) {
            Value::String(name) if !name.starts_with("base64:") => name,
            Value::String(name) => format!("base64:{}", base64(name.as_bytes())),
            other => format!("base64:{}", other["base64"].as_str().unwrap_or_default()),
        };
        (name, text(&bytes(&pair[1])))
    });
    Value::Object(members.collect::<Map<_, _>>())
}

fn score(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<f64>() {
        Ok(score) if score.is_finite() => json!(score),
        _ => json!(text),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn items(reply: &Reply) -> &[Reply] {
    match reply {
        Reply::Array(items) => items,
        _ => &[],
    }
}

fn bytes(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Bulk(bytes) => bytes.clone(),
        _ => Vec::new(),
    }
}

/// Whether two values are the same: 2 and 2.0 are.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Whether two servers hold the same.
pub fn agree(a: &BTreeMap<usize, Content>, b: &BTreeMap<usize, Content>) -> bool {
    let held = |(at, content): (&usize, &Content)| b.get(at).is_some_and(|other| same(&content.value, &other.value));
    a.len() == b.len() && a.iter().all(held)
}

/// The newest stamp in a value: every write leaves one (`#17`) in what it writes.
pub fn stamp(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => stamp_in(text.as_bytes()),
        Value::Array(items) => items.iter().filter_map(stamp).max(),
        Value::Object(members) => {
            let coded = members.get("base64").and_then(Value::as_str);
            let decoded = coded.and_then(|coded| {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.decode(coded).ok()
            });
            match decoded {
                Some(bytes) => stamp_in(&bytes),
                None => members.values().filter_map(stamp).max(),
            }
        }
        _ => None,
    }
}

fn stamp_in(bytes: &[u8]) -> Option<u64> {
    let mut parts = bytes.split(|&byte| byte == b'#').skip(1);
    let number = |part: &[u8]| {
        let digits = part.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&part[..digits]).ok()?.parse().ok()
    };
    let mut newest = None;
    for part in &mut parts {
        newest = newest.max(number(part));
    }
    newest
}
