//! What to subscribe to and which keys to track, at the least cost to the server.

use std::collections::BTreeSet;

use crate::pattern::KeyPattern;

/// Most patterns that are subscribed to for keys, and as many for topics, or prefixes that are tracked. The server compares each write with each
/// pattern: ten cost it 0.1 µs a write, a thousand 50 µs, whereas one broad pattern costs 0.3 µs for every event that is
/// sent in vain.
pub const MAX_PATTERNS: usize = 8;

/// With this begins the name of every channel that a server announces key events on.
const OF_THE_SERVER: &[u8] = b"__key";

/// With this begin the patterns of the channels of all databases.
const EVERYWHERE: &[u8] = b"__keyspace@*__:";

/// Subscribed to where nothing else is: only of subscribers does a server bound the memory that it holds for them
/// (`client-output-buffer-limit pubsub`), and of one that tracks keys and does not read it would hold ever more.
pub const IDLE: &[u8] = b"keyrelay:idle";

/// Where a server tells that keys changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// On channels of its own, by keyspace notifications.
    #[default]
    Notifications,
    /// By client tracking, which no setting must be changed for. It tells of the same changes, but neither what happened,
    /// nor in which database, nor how often.
    Tracking,
}

/// What to subscribe to and to track, so that no event or message is delivered twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriptions {
    channels: Vec<Vec<u8>>,
    patterns: Vec<Vec<u8>>,
    tracked: Vec<Vec<u8>>,
    /// What the channels of key events begin with.
    prefix: Vec<u8>,
}

impl Subscriptions {
    /// What it takes to hear of every change of a key of database `db` that one of `keys` takes, and every message on a
    /// topic that one of `topics` takes.
    pub fn plan(source: Source, keys: &[&KeyPattern], topics: &[&KeyPattern], db: u32) -> Subscriptions {
        plan(source, names(keys), names(topics), db)
    }

    /// The same without topics: every node of a cluster passes on what is published, so that one of them is enough.
    pub fn of_keys(&self) -> Subscriptions {
        let own = |names: &[Vec<u8>]| -> Vec<Vec<u8>> {
            let own = names.iter().filter(|name| name.starts_with(&self.prefix));
            own.cloned().collect()
        };
        let idle = (!self.tracked.is_empty()).then(|| IDLE.to_vec());
        Subscriptions {
            channels: own(&self.channels).into_iter().chain(idle).collect(),
            patterns: own(&self.patterns),
            tracked: self.tracked.clone(),
            prefix: self.prefix.clone(),
        }
    }

    /// Whether changes of keys are heard of.
    pub fn hears_keys(&self) -> bool {
        let mut names = self.channels.iter().chain(&self.patterns);
        let hears = |name: &[u8]| name.starts_with(&self.prefix) || name.starts_with(EVERYWHERE);
        !self.tracked.is_empty() || names.any(|name| hears(name))
    }

    /// Whether a message comes by one of these: by this pattern, or by the name of its channel.
    pub fn has(&self, pattern: Option<&[u8]>, channel: &[u8]) -> bool {
        match pattern {
            Some(pattern) => self.patterns.iter().any(|own| own == pattern),
            None => self.channels.iter().any(|own| own == channel),
        }
    }

    /// What to subscribe to that the others do not. Of prefixes to track those that none of the others' covers.
    pub fn beyond(&self, others: &Subscriptions) -> Subscriptions {
        let beyond = |own: &[Vec<u8>], other: &[Vec<u8>]| -> Vec<Vec<u8>> {
            own.iter().filter(|name| !other.contains(name)).cloned().collect()
        };
        let tracked = self.tracked.iter().filter(|prefix| !covered(prefix, &others.tracked));
        Subscriptions {
            channels: beyond(&self.channels, &others.channels),
            patterns: beyond(&self.patterns, &others.patterns),
            tracked: tracked.cloned().collect(),
            prefix: self.prefix.clone(),
        }
    }

    /// Goes on tracking what the others do, for no connection can give up a single prefix. `false`, and nothing is changed, if
    /// an own prefix covers one of theirs, which servers do not take.
    pub fn track_too(&mut self, others: &Subscriptions) -> bool {
        let more = self.beyond(others).tracked;
        if others.tracked.iter().any(|prefix| covered(prefix, &more)) {
            return false;
        }
        self.tracked = others.tracked.iter().chain(&more).cloned().collect();
        true
    }

    /// The same, and the key events of these keys in all other databases: they come as messages whose channel
    /// [`key_event`] reads. It asks for the right to subscribe to `__keyspace@*`, and changes nothing where keys are tracked.
    pub fn in_all_databases(self) -> Subscriptions {
        let everywhere = |name: &[u8]| {
            let key = name.strip_prefix(self.prefix.as_slice())?;
            Some([EVERYWHERE, key].concat())
        };
        let (mut channels, mut patterns) = (Vec::new(), Vec::new());
        for pattern in &self.patterns {
            patterns.push(everywhere(pattern).unwrap_or_else(|| pattern.clone()));
        }
        for channel in self.channels {
            match channel.strip_prefix(self.prefix.as_slice()) {
                Some(key) => patterns.extend(everywhere(&[&self.prefix, escaped(key).as_slice()].concat())),
                None => channels.push(channel),
            }
        }
        Subscriptions {
            channels,
            patterns,
            ..self
        }
    }

    /// Channels to subscribe to by name.
    pub fn channels(&self) -> &[Vec<u8>] {
        &self.channels
    }

    /// Patterns to subscribe to.
    pub fn patterns(&self) -> &[Vec<u8>] {
        &self.patterns
    }

    /// Prefixes of the keys to track, none of them a prefix of another, as servers demand it.
    pub fn tracked(&self) -> &[Vec<u8>] {
        &self.tracked
    }

    /// Whose event a message on `channel` is; None if it is no key event of this database.
    pub fn key_of<'a>(&self, channel: &'a [u8]) -> Option<&'a [u8]> {
        channel.strip_prefix(self.prefix.as_slice())
    }
}

/// The database and the key of the event that a message on `channel` is; None if it is no keyspace event.
pub fn key_event(channel: &[u8]) -> Option<(u32, &[u8])> {
    let rest = channel.strip_prefix(b"__keyspace@")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let db = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((db, rest[end..].strip_prefix(b"__:")?))
}

/// Whether subscribing to the topics of a pattern could bring key events too: a topic is then refused, because the keys
/// that it would tell of were opened to nobody, and events would be heard twice.
pub fn may_be_a_key_event(topics: &KeyPattern) -> bool {
    match topics.literal() {
        Some(topic) => topic.starts_with(OF_THE_SERVER),
        None => leads_to_key_events(&topics.prefix()),
    }
}

/// Whether a name that begins so may be one on which key events are announced.
fn leads_to_key_events(prefix: &[u8]) -> bool {
    prefix.starts_with(OF_THE_SERVER) || OF_THE_SERVER.starts_with(prefix)
}

/// What is wanted of some patterns: single names, and prefixes of names.
#[derive(Debug, Default)]
struct Names {
    literals: BTreeSet<Vec<u8>>,
    prefixes: BTreeSet<Vec<u8>>,
}

fn names(patterns: &[&KeyPattern]) -> Names {
    let mut names = Names::default();
    for pattern in patterns {
        match pattern.literal() {
            Some(name) => names.literals.insert(name),
            None => names.prefixes.insert(pattern.prefix()),
        };
    }
    names
}

fn plan(source: Source, mut keys: Names, mut topics: Names, db: u32) -> Subscriptions {
    let mut tracked = Vec::new();
    if source == Source::Tracking {
        let Names { literals, prefixes } = std::mem::take(&mut keys);
        tracked = disjoint(&prefixes.into_iter().chain(literals).collect());
        while tracked.len() > MAX_PATTERNS && unite(&mut tracked, |_| true) {}
    }
    let mut of_keys = disjoint(&keys.prefixes);
    if of_keys.len() > MAX_PATTERNS {
        of_keys = vec![Vec::new()];
    }
    keys.literals.retain(|key| !covered(key, &of_keys));
    let mut of_topics = disjoint(&topics.prefixes);
    while of_topics.len() > MAX_PATTERNS && unite(&mut of_topics, |prefix| !leads_to_key_events(prefix)) {}
    topics.literals.retain(|topic| !covered(topic, &of_topics));
    if !tracked.is_empty() && of_topics.is_empty() && topics.literals.is_empty() {
        topics.literals.insert(IDLE.to_vec());
    }

    let start = format!("__keyspace@{db}__:").into_bytes();
    let of_key = |key: Vec<u8>| [start.as_slice(), &key].concat();
    let pattern = |prefix: Vec<u8>| [escaped(&prefix).as_slice(), b"*"].concat();
    Subscriptions {
        channels: keys.literals.into_iter().map(of_key).chain(topics.literals).collect(),
        patterns: of_keys.into_iter().map(of_key).chain(of_topics).map(pattern).collect(),
        tracked,
        prefix: start,
    }
}

/// Those of the prefixes that no other one covers, sorted.
fn disjoint(prefixes: &BTreeSet<Vec<u8>>) -> Vec<Vec<u8>> {
    // In sorted order whatever begins with a prefix follows right behind it.
    let mut disjoint: Vec<Vec<u8>> = Vec::new();
    for prefix in prefixes {
        if !disjoint.last().is_some_and(|last| prefix.starts_with(last)) {
            disjoint.push(prefix.clone());
        }
    }
    disjoint
}

fn covered(name: &[u8], prefixes: &[Vec<u8>]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Puts what the two most similar of some sorted prefixes have in common in the place of all that it covers; false if
/// that is not allowed.
fn unite(prefixes: &mut Vec<Vec<u8>>, allowed: impl Fn(&[u8]) -> bool) -> bool {
    let common = |pair: &[Vec<u8>]| pair[0].iter().zip(&pair[1]).take_while(|(a, b)| a == b).count();
    let pairs = prefixes.windows(2).map(common).enumerate();
    let Some((at, length)) = pairs.max_by_key(|(_, length)| *length) else {
        return false;
    };
    let united = prefixes[at][..length].to_vec();
    if !allowed(&united) {
        return false;
    }
    prefixes.retain(|prefix| !prefix.starts_with(&united));
    let place = prefixes.partition_point(|prefix| *prefix < united);
    prefixes.insert(place, united);
    true
}

/// The glob that matches `literal` and nothing else.
pub(super) fn escaped(literal: &[u8]) -> Vec<u8> {
    let mut glob = Vec::with_capacity(literal.len());
    for &byte in literal {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'^' | b'\\') {
            glob.push(b'\\');
        }
        glob.push(byte);
    }
    glob
}

#[cfg(test)]
mod tests;
