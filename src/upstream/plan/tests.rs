//! Every wanted key is heard, and none of them twice.

use proptest::{collection::vec, prelude::*};

use super::*;

fn planned(patterns: &[&str], db: u32) -> (Vec<String>, Vec<String>) {
    let patterns: Vec<KeyPattern> = patterns.iter().map(|text| KeyPattern::parse(text).unwrap()).collect();
    let plan = Subscriptions::plan(&patterns.iter().collect::<Vec<_>>(), db);
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
fn a_channel_tells_its_key() {
    let plan = plan([(None, b"a:".to_vec())].into_iter(), 7);
    assert_eq!(plan.key_of(b"__keyspace@7__:a:\xff"), Some(b"a:\xff".as_slice()));
    assert_eq!(plan.key_of(b"__keyspace@7__:"), Some(b"".as_slice()));
    assert_eq!(plan.key_of(b"__keyspace@70__:a"), None);
    assert_eq!(plan.key_of(b"news"), None);
}

proptest! {
    #[test]
    fn every_wanted_key_is_heard_exactly_once(
        wanted in vec((any::<bool>(), "[ab*\\[]{0,3}"), 0..14),
        rest in "[ab*\\[]{0,2}",
    ) {
        let plan = plan(
            wanted.iter().map(|(one, text)| (one.then(|| text.clone().into_bytes()), text.clone().into_bytes())),
            0,
        );
        prop_assert!(plan.patterns().len() <= MAX_PATTERNS);
        for (one, text) in &wanted {
            let key = if *one { text.clone() } else { format!("{text}{rest}") };
            let channel = format!("__keyspace@0__:{key}").into_bytes();
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
