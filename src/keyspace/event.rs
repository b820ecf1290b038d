//! The name of what happened to a key.

use std::{fmt, sync::Arc};

/// The name a server gives to a change of a key, e.g. `set` or `expired`; cheap to clone.
///
/// A replica names the *replicated* command, so one change may have other names on other nodes: a name is passed on,
/// nothing is built on it.
#[derive(Clone)]
pub struct EventName(Name);

#[derive(Clone)]
enum Name {
    Known(&'static str),
    Other(Arc<str>),
}

/// Names that Redis 7, Valkey 8 and KeyDB 6 send; others (of modules, of later servers) are allocated.
/// Sorted, because they are looked up by binary search.
const KNOWN: [&str; 62] = [
    "append",
    "copy_to",
    "decrby",
    "del",
    "evicted",
    "expire",
    "expired",
    "getdel",
    "hdel",
    "hexpire",
    "hexpired",
    "hincrby",
    "hincrbyfloat",
    "hpersist",
    "hset",
    "incrby",
    "incrbyfloat",
    "linsert",
    "lpop",
    "lpush",
    "lrem",
    "lset",
    "ltrim",
    "move_from",
    "move_to",
    "new",
    "persist",
    "pfadd",
    "rename_from",
    "rename_to",
    "restore",
    "rpop",
    "rpush",
    "sadd",
    "sdiffstore",
    "set",
    "setbit",
    "setrange",
    "sinterstore",
    "sortstore",
    "spop",
    "srem",
    "sunionstore",
    "xadd",
    "xautoclaim",
    "xclaim",
    "xdel",
    "xgroup-create",
    "xgroup-createconsumer",
    "xgroup-delconsumer",
    "xgroup-destroy",
    "xgroup-setid",
    "xsetid",
    "xtrim",
    "zadd",
    "zdiffstore",
    "zincr",
    "zinterstore",
    "zrem",
    "zrembyrank",
    "zrembyscore",
    "zunionstore",
];

impl EventName {
    /// The name in `bytes`. A name that is not UTF-8, which no server sends, loses what is not.
    pub fn from_bytes(bytes: &[u8]) -> EventName {
        match KNOWN.binary_search_by(|name| name.as_bytes().cmp(bytes)) {
            Ok(at) => EventName(Name::Known(KNOWN[at])),
            Err(_) => EventName(Name::Other(String::from_utf8_lossy(bytes).into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Known(name) => name,
            Name::Other(name) => name,
        }
    }
}

impl PartialEq for EventName {
    fn eq(&self, other: &EventName) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for EventName {}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_sorted_and_not_allocated() {
        assert!(KNOWN.is_sorted());
        for name in KNOWN {
            let found = EventName::from_bytes(name.as_bytes());
            assert!(matches!(found.0, Name::Known(known) if known == name));
        }
    }

    #[test]
    fn other_names_are_kept() {
        assert_eq!(EventName::from_bytes(b"json.set").as_str(), "json.set");
        assert_eq!(EventName::from_bytes(b"").as_str(), "");
        assert_eq!(EventName::from_bytes(b"a\xff").as_str(), "a\u{fffd}");
        assert_eq!(EventName::from_bytes(b"set"), EventName::from_bytes(b"set"));
        assert_ne!(EventName::from_bytes(b"set"), EventName::from_bytes(b"del"));
    }
}
