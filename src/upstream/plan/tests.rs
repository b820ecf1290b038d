//! Every wanted key is heard, and none of them twice.

use proptest::{collection::vec, prelude::*};

use super::*;

fn planned(keys: &[&str], db: u32) -> (Vec<String>, Vec<String>) {
    planned_with(keys, &[], db)
}

fn planned_with(keys: &[&str], topics: &[&str], db: u32) -> (Vec<String>, Vec<String>) {
    let parse = |patterns: &[&str]| -> Vec<KeyPattern> {
        patterns.iter().map(|text| KeyPattern::parse(text).unwrap()).collect()
    };
    let (keys, topics) = (parse(keys), parse(topics));
    let (keys, topics) = (keys.iter().collect::<Vec<_>>(), topics.iter().collect::<Vec<_>>());
    let plan = Subscriptions::plan(Source::Notifications, &keys, &topics, db);
    let text = |names: &[Vec<u8>]| {
        names
            .iter()
            .map(|name| String::from_utf8(name.clone()).unwrap())
            .collect()
    };
    (text(plan.channels()), text(plan.patterns()))
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn nothing_wanted_is_nothing_subscribed() {
    assert_eq!(planned(&[], 0), (vec![], vec![]));
}

#[test]
fn literals_by_name_and_prefixes_by_pattern() {
    let (channels, patterns) = planned(&["config", "cart:{user}", "message:{room}:{id}"], 3);
    assert_eq!(channels, strings(&["__keyspace@3__:config"]));
    assert_eq!(
        patterns,
        strings(&["__keyspace@3__:cart:*", "__keyspace@3__:message:*"])
    );
}

#[test]
fn what_a_prefix_covers_is_not_subscribed_again() {
    let (channels, patterns) = planned(&["a:{x}", "a:b:{x}", "a:b", "ab", "a:b:c"], 0);
    assert_eq!(channels, strings(&["__keyspace@0__:ab"]));
    assert_eq!(patterns, strings(&["__keyspace@0__:a:*"]));
    assert_eq!(
        planned(&["a:{x}", "{all...}", "z"], 0),
        (vec![], strings(&["__keyspace@0__:*"]))
    );
}

#[test]
fn what_is_literal_is_literal_in_the_pattern_too() {
    let (_, patterns) = planned(&[r"a\*b\[c\]:{x}", r"{x}"], 0);
    assert_eq!(patterns, strings(&["__keyspace@0__:*"]));
    let (channels, patterns) = planned(&[r"a\*b\[c\]:{x}", r"lit\?eral"], 0);
    assert_eq!(patterns, strings(&[r"__keyspace@0__:a\*b\[c\]:*"]));
    assert_eq!(channels, strings(&["__keyspace@0__:lit?eral"]));
}

#[test]
fn many_prefixes_become_one_broad_pattern() {
    let eight: Vec<String> = (0..8).map(|n| format!("p{n}:{{x}}")).collect();
    let eight: Vec<&str> = eight.iter().map(String::as_str).collect();
    assert_eq!(planned(&eight, 0).1.len(), 8);
    let nine = [&eight[..], &["literal", "q:{x}"]].concat();
    assert_eq!(planned(&nine, 0), (vec![], strings(&["__keyspace@0__:*"])));
}

#[test]
fn topics_by_name_and_by_prefix_each_once() {
    let (channels, patterns) = planned_with(
        &["k:{x}", "one"],
        &["news", "chat:{room}", "chat:a:*", "chat:b", r"a\*b:{x}"],
        0,
    );
    assert_eq!(channels, strings(&["__keyspace@0__:one", "news"]));
    assert_eq!(patterns, strings(&["__keyspace@0__:k:*", r"a\*b:*", "chat:*"]));
}

#[test]
fn many_prefixes_of_topics_become_fewer_that_bring_no_key_events() {
    let topics: Vec<String> = (0..20)
        .map(|n| format!("app:{n:02}:{{x}}"))
        .chain(["other:{x}".into()])
        .collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let (_, patterns) = planned_with(&[], &topics, 0);
    assert!(patterns.len() <= MAX_PATTERNS, "{patterns:?}");
    assert!(patterns.contains(&"other:*".to_owned()), "{patterns:?}");
    // These have nothing in common but what key events begin with as well.
    let apart: Vec<String> = (0..10).map(|n| format!("{n}:{{x}}")).collect();
    let apart: Vec<&str> = apart.iter().map(String::as_str).collect();
    assert_eq!(planned_with(&[], &apart, 0).1.len(), 10);
}

fn tracked(keys: &[&str], topics: &[&str]) -> (Vec<String>, Vec<String>, Vec<String>) {
    let parse = |patterns: &[&str]| -> Vec<KeyPattern> {
        patterns.iter().map(|text| KeyPattern::parse(text).unwrap()).collect()
    };
    let (keys, topics) = (parse(keys), parse(topics));
    let (keys, topics) = (keys.iter().collect::<Vec<_>>(), topics.iter().collect::<Vec<_>>());
    let plan = Subscriptions::plan(Source::Tracking, &keys, &topics, 3);
    let text = |names: &[Vec<u8>]| {
        names
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    };
    (text(plan.tracked()), text(plan.channels()), text(plan.patterns()))
}

#[test]
fn keys_are_tracked_by_prefixes_that_do_not_overlap() {
    let (prefixes, channels, patterns) = tracked(&["a:{x}", "a:b:{x}", "a:b", "one", "once", "[x]y*"], &[]);
    assert_eq!(prefixes, ["a:", "once", "one", "xy"]);
    assert_eq!((channels, patterns), (strings(&["keyrelay:idle"]), strings(&[])));
    let all = tracked(&["a:{x}", "{any}:b"], &["news", "chat:*"]);
    assert_eq!(all, (strings(&[""]), strings(&["news"]), strings(&["chat:*"])));
    assert_eq!(tracked(&[], &["news"]).0, strings(&[]));
    let many: Vec<String> = (0..100).map(|n| format!("{}:key-{n:02}", n / 25)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let prefixes = tracked(&many, &[]).0;
    assert!(prefixes.len() <= MAX_PATTERNS, "{prefixes:?}");
    for key in &many {
        assert_eq!(
            prefixes.iter().filter(|prefix| key.starts_with(*prefix)).count(),
            1,
            "{key} {prefixes:?}"
        );
    }
    assert!(!prefixes.contains(&String::new()), "{prefixes:?}");
}

#[test]
fn topics_that_may_be_key_events_are_known() {
    let may = |topics: &str| may_be_a_key_event(&KeyPattern::parse(topics).unwrap());
    for topics in [
        "*",
        "{a}",
        "{a...}:x",
        "?ews",
        "_*",
        "__key*",
        "__keyspace@0__:a",
        "__keyevent@*",
        "__{x}",
    ] {
        assert!(may(topics), "{topics}");
    }
    for topics in [
        "news",
        "n*",
        "__sentinel__:hello",
        "__key",
        "_a*",
        "key:{x}",
        "__kex{a}",
    ] {
        assert_eq!(may(topics), topics == "__key", "{topics}");
    }
}

#[test]
fn a_channel_tells_its_key() {
    let plan = Subscriptions::plan(Source::Notifications, &[&KeyPattern::parse("a:*").unwrap()], &[], 7);
    assert_eq!(plan.key_of(b"__keyspace@7__:a:\xff"), Some(b"a:\xff".as_slice()));
    assert_eq!(plan.key_of(b"__keyspace@7__:"), Some(b"".as_slice()));
    assert_eq!(plan.key_of(b"__keyspace@70__:a"), None);
    assert_eq!(plan.key_of(b"news"), None);
}

proptest! {
    #[test]
    fn every_wanted_key_is_heard_exactly_once(
        wanted in vec((any::<bool>(), any::<bool>(), "[ab*\\[]{0,3}"), 0..28),
        rest in "[ab*\\[]{0,2}",
    ) {
        let (mut keys, mut topics) = (Names::default(), Names::default());
        // A topic has a beginning that no key event has.
        let name = |is_topic: bool, text: &str| if is_topic { format!("t{text}") } else { text.to_owned() };
        for (is_topic, one, text) in &wanted {
            let names = if *is_topic { &mut topics } else { &mut keys };
            let set = if *one { &mut names.literals } else { &mut names.prefixes };
            set.insert(name(*is_topic, text).into_bytes());
        }
        let plan = plan(Source::Notifications, keys, topics, 0);
        prop_assert!(plan.patterns().len() <= 2 * MAX_PATTERNS);
        for (is_topic, one, text) in &wanted {
            let text = name(*is_topic, text);
            let key = if *one { text } else { format!("{text}{rest}") };
            let channel = if *is_topic { key.clone() } else { format!("__keyspace@0__:{key}") }.into_bytes();
            let by_name = plan.channels().iter().filter(|name| **name == channel).count();
            let by_pattern = plan.patterns().iter().filter(|pattern| {
                // All that is planned ends in the one `*` that is not escaped.
                let literal = String::from_utf8(pattern[..pattern.len() - 1].to_vec()).unwrap().replace('\\', "");
                channel.starts_with(literal.as_bytes())
            });
            prop_assert_eq!(by_name + by_pattern.count(), 1, "{}", key);
        }
    }
}

#[test]
fn other_databases_are_heard_by_patterns() {
    let parse = |text: &str| KeyPattern::parse(text).unwrap();
    let (keys, topics) = ([parse("cart:{user}"), parse("con*ig"), parse("l?t")], [parse("news")]);
    let keys: Vec<&KeyPattern> = keys.iter().collect();
    let plan = |source| Subscriptions::plan(source, &keys, &[&topics[0]], 3).in_all_databases();
    let heard = plan(Source::Notifications);
    assert_eq!(heard.channels(), [b"news".to_vec()]);
    let mut patterns = heard.patterns().to_vec();
    patterns.sort();
    let expected: [&[u8]; 3] = [b"__keyspace@*__:cart:*", b"__keyspace@*__:con*", b"__keyspace@*__:l*"];
    assert_eq!(patterns, expected);
    assert_eq!(heard.key_of(b"__keyspace@3__:cart:1"), Some(b"cart:1".as_slice()));
    // A name that looks like a glob is that name.
    let literal = [parse(r"a\*b")];
    let literal = Subscriptions::plan(Source::Notifications, &[&literal[0]], &[], 0).in_all_databases();
    assert_eq!(literal.patterns(), [br"__keyspace@*__:a\*b".to_vec()]);
    let tracked = plan(Source::Tracking);
    assert_eq!(tracked.tracked().len(), 3);
    assert_eq!(tracked.patterns().len(), 0);
}

#[test]
fn events_of_any_database_are_known() {
    for (channel, event) in [
        ("__keyspace@0__:cart:1", Some((0, "cart:1"))),
        ("__keyspace@15__:", Some((15, ""))),
        ("__keyspace@1__:__keyspace@2__:x", Some((1, "__keyspace@2__:x"))),
        ("__keyevent@0__:set", None),
        ("__keyspace@__:x", None),
        ("__keyspace@99999999999__:x", None),
        ("__keyspace@1", None),
        ("news", None),
    ] {
        let event = event.map(|(db, key)| (db, key.as_bytes()));
        assert_eq!(key_event(channel.as_bytes()), event, "{channel}");
    }
}
