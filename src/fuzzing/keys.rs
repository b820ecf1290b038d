//! Names, cursors, patterns and templates, and the keys that they are about.

use crate::hub::{Cursor, set_of};
use crate::keyspace::{EventName, flags};
use crate::mapping::{KeySet, Mappings, Rule, Scratch};
use crate::pattern::{ChannelTemplate, KeyPattern, Subject, name};
use crate::session::Start;
use crate::upstream::{Source, Subscriptions};

/// Channel names and cursors: what is written is read back, and nothing else is read.
pub fn names(data: &[u8]) {
    let mut encoded = String::new();
    name::encode(data, &mut encoded);
    assert_eq!(name::decode(&encoded).as_deref(), Some(data));
    assert!(!encoded.bytes().any(|byte| byte.is_ascii_control()), "{encoded:?}");

    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(bytes) = name::decode(text) {
        let mut again = String::new();
        name::encode(&bytes, &mut again);
        assert_eq!(again, text);
    }
    if let Some(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.to_string(), text);
        assert!(text.len() <= 54 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
        assert_eq!(cursor.set.is_some(), text.matches('-').count() == 2);
    }
    // Another process's epoch, another list.
    let set = set_of(["a"]);
    for kept in [true, false] {
        match Start::judge(Some(text), 7, set, kept) {
            Start::Resume(sequence) => {
                let cursor = Cursor::parse(text).expect("only a cursor is resumed from");
                assert_eq!((cursor.epoch, cursor.sequence), (7, sequence));
                assert!(cursor.set.map_or(kept, |named| named == set));
            }
            start => assert_eq!(start, Start::Unknown),
        }
    }
}

/// Two mappings, each a line with the pattern and one with the template, then lines with a key and with anything else:
/// forth and back without loss, and no channel of both that would not have been known to be one.
pub fn templates(data: &[u8]) {
    let mut lines = data.splitn(6, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let written = [[line(), line()], [line(), line()]];
    let (key, rest) = (line(), line());
    let rules: Vec<Rule> = written.into_iter().filter_map(rule).collect();
    for Rule { pattern, .. } in &rules {
        views(pattern, key);
        if let Some(example) = pattern.example() {
            assert!(pattern.is_match(&example), "{pattern}: {}", example.escape_ascii());
            views(pattern, &example);
        }
    }
    let rules: Vec<Rule> = rules
        .into_iter()
        .filter(|rule| rule.channel.bind(&rule.pattern, rule.subject).is_ok())
        .collect();
    let mappings = Mappings::new(rules.clone()).expect("each can be bound");
    let mut names = vec![Vec::new(); rules.len()];
    for name in [key, rest] {
        there(&mappings, &rules, name, rest, &mut names);
        if let Ok(channel) = std::str::from_utf8(name) {
            back(&mappings, channel);
        }
    }
    if let [a, b] = &rules[..] {
        let bound = |rule: &Rule| {
            rule.channel
                .bind(&rule.pattern, rule.subject)
                .expect("it was bound before")
        };
        let common = names[0].iter().find(|name| names[1].contains(name));
        if let Some(common) = common {
            assert!(
                bound(a).overlaps(&bound(b)) && bound(b).overlaps(&bound(a)),
                "both give {common:?}: {a:?} {b:?}"
            );
        }
    }
}

/// A message of a channel of key events: the name of the channel, and in the next line the event.
pub fn events(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (channel, event) = (line(), line());
    let name = EventName::from_bytes(event);
    assert_eq!(name.as_str(), String::from_utf8_lossy(event));
    if let Ok(setting) = std::str::from_utf8(event)
        && let Some(united) = flags::missing(setting)
    {
        assert_eq!(flags::missing(&united), None);
    }
    let patterns = ["cart:{user}", "message:{room}:{id}", "*"].map(|text| KeyPattern::parse(text).expect("a pattern"));
    for (source, db, prefix) in [
        (Source::Notifications, 0, b"__keyspace@0__:".as_slice()),
        (Source::Notifications, 10, b"__keyspace@10__:"),
    ] {
        let subscriptions = Subscriptions::plan(source, &patterns.each_ref(), &[], db);
        assert_eq!(subscriptions.key_of(channel), channel.strip_prefix(prefix));
    }
}

/// The mapping of two lines.
fn rule([pattern, channel]: [&[u8]; 2]) -> Option<Rule> {
    let pattern = KeyPattern::parse(std::str::from_utf8(pattern).ok()?).ok()?;
    let channel = match channel {
        b"" => pattern.default_channel(),
        text => ChannelTemplate::parse(std::str::from_utf8(text).ok()?).ok()?,
    };
    // Fields there are only in what is published.
    let subject = match channel.has_fields() {
        true => Subject::Topics,
        false => Subject::Keys,
    };
    Some(Rule {
        subject,
        pattern,
        channel,
    })
}

/// Whatever a pattern says of its keys is true of each.
fn views(pattern: &KeyPattern, key: &[u8]) {
    let literal = pattern.literal();
    if !pattern.is_match(key) {
        return assert_ne!(literal.as_deref(), Some(key), "{pattern}");
    }
    assert!(key.starts_with(&pattern.prefix()), "{pattern}: {}", key.escape_ascii());
    assert!(literal.is_none_or(|literal| literal == key), "{pattern}");
    if let Some(glob) = as_pattern(&pattern.glob()) {
        assert!(glob.is_match(key), "{pattern}: {glob} {}", key.escape_ascii());
    }
}

/// A server glob as a pattern without captures; None if it cannot be written as one.
fn as_pattern(glob: &[u8]) -> Option<KeyPattern> {
    let mut text = Vec::new();
    let mut rest = glob;
    while let [first, ..] = rest {
        let length = match first {
            b'[' => set_length(rest),
            b'\\' => rest.len().min(2),
            _ => 1,
        };
        if matches!(first, b'{' | b'}') {
            text.push(b'\\');
        }
        let (part, others) = rest.split_at(length);
        text.extend_from_slice(part);
        rest = others;
    }
    KeyPattern::parse(std::str::from_utf8(&text).ok()?).ok()
}

/// How long the set is that a glob begins with. The end of a range may be a `]`, which does not close it.
fn set_length(glob: &[u8]) -> usize {
    let mut at = 1 + usize::from(glob.get(1) == Some(&b'^'));
    loop {
        at += match glob[at..] {
            [] => return at,
            [b'\\', _, ..] => 2,
            [b']', ..] => return at + 1,
            [_, b'-', _, ..] => 3,
            _ => 1,
        };
    }
}

/// From a key, or a topic and the message, to the channels, and from each back to where it came from.
fn there(mappings: &Mappings, rules: &[Rule], name: &[u8], message: &[u8], names: &mut [Vec<String>]) {
    let mut scratch = Scratch::default();
    let mut found = Vec::new();
    mappings.each(name, &mut scratch, |mapping, channel, captures| {
        let captures: Vec<_> = captures
            .iter()
            .map(|(name, value)| (name.clone(), value.to_vec()))
            .collect();
        found.push((mapping, channel.to_owned(), Some(captures)));
    });
    mappings.each_published(name, message, &mut scratch, |mapping, channel| {
        if let Ok(channel) = channel {
            found.push((mapping, channel.to_owned(), None));
        }
    });
    for (mapping, channel, captures) in found {
        let rule = &rules[mapping.0 as usize];
        assert!(rule.pattern.is_match(name), "{rule:?}: {}", name.escape_ascii());
        assert!(crate::pattern::name::decode(&channel).is_some(), "{channel:?}");
        let sources = mappings.sources(&channel);
        let source = sources.iter().find(|source| source.mapping == mapping);
        let source = source.unwrap_or_else(|| panic!("{rule:?}: {channel:?} does not lead back"));
        match &source.keys {
            KeySet::One(one) => assert_eq!(one, name, "{rule:?}: {channel:?}"),
            KeySet::Matching(glob) | KeySet::Published(glob) => {
                if let Some(pattern) = as_pattern(glob) {
                    assert!(pattern.is_match(name), "{rule:?}: {channel:?} {pattern}");
                }
            }
        }
        for (known, value) in captures.iter().flat_map(|_| &source.captures) {
            let captures = captures.as_ref().expect("they were looked through");
            assert!(
                captures.contains(&(known.clone(), value.to_vec())),
                "{rule:?}: {channel:?}"
            );
        }
        names[mapping.0 as usize].push(channel);
    }
}

/// From a channel to the one key behind it, and from that to the channel.
fn back(mappings: &Mappings, channel: &str) {
    let mut scratch = Scratch::default();
    for source in mappings.sources(channel) {
        if let KeySet::One(key) = &source.keys {
            let mut again = None;
            mappings.each(key, &mut scratch, |mapping, name, _| {
                if mapping == source.mapping {
                    again = Some(name.to_owned());
                }
            });
            assert_eq!(again.as_deref(), Some(channel), "{}", key.escape_ascii());
        }
    }
}
