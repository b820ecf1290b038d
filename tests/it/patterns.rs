//! Patterns without captures mean what the server means by them.

use std::collections::BTreeSet;

use keyrelay::pattern::KeyPattern;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Reply, Server};
use crate::redis;

/// Bytes of keys: few, so that patterns hit, with some that a glob or a terminal would trip over.
const BYTES: &[u8] = b"aabbcd:*?[]^-\\\n\xff";

/// Pieces of patterns.
const PIECES: &[&str] = &[
    "a", "b", "c", ":", "*", "**", "?", "[", "]", "[a-c]", "[c-a]", "[^b]", "[^", "[]", "[a", "[ab*]", "[\\]]", "[-]",
    "-", "^", "\\", "\\*", "\\a", "\\[",
];

#[test]
fn patterns_agree_with_the_servers_own() {
    let server = Server::start();
    let mut runner = TestRunner::new(Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    });
    let keys = btree_set(vec(prop::sample::select(BYTES), 1..6), 100..200);
    let patterns = vec(vec(prop::sample::select(PIECES), 1..6), 60);
    let result = runner.run(&(keys, patterns), |(keys, patterns)| {
        redis!(server, "FLUSHALL");
        for key in &keys {
            redis!(server, "SET", key, "");
        }
        for text in patterns.iter().map(|pieces| pieces.concat()) {
            // What is refused is told to the operator; it cannot be wrong.
            let Ok(pattern) = KeyPattern::parse(&text) else {
                continue;
            };
            let ours: BTreeSet<&[u8]> = keys
                .iter()
                .map(Vec::as_slice)
                .filter(|key| pattern.is_match(key))
                .collect();
            let Reply::Array(replies) = redis!(server, "KEYS", &text) else {
                panic!("KEYS gives an array")
            };
            let theirs: Vec<&[u8]> = replies
                .iter()
                .map(|reply| match reply {
                    Reply::Bulk(key) => key.as_slice(),
                    other => panic!("KEYS gives keys, not {other:?}"),
                })
                .collect();
            let theirs: BTreeSet<&[u8]> = theirs.into_iter().collect();
            prop_assert_eq!(ours, theirs, "pattern {:?}", text);
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
