//! The server ends and is started again.

use std::time::{Duration, Instant};

use super::Setup;
use crate::harness::{Client, Data, eventually};
use crate::redis;

#[test]
fn with_its_data() {
    let mut setup = Setup::new();
    setup.server.save();
    setup.server.kill();
    setup.hears_stale("upstream-lost");
    setup.server.restart(Data::Kept);
    setup.hears_fresh();
    assert_eq!(
        setup.look(),
        (vec!["stale upstream-lost".into(), "fresh upstream-lost".into()], 0)
    );
    setup.is_live();
}

/// The last values are those of the disk again: back to what was, forward to what was deleted.
#[test]
fn with_older_data() {
    let mut setup = Setup::new();
    setup.server.save();
    setup.write();
    setup.client.sees("v", "v:4", "four");
    setup.client.misses("v", "v:2");
    setup.client.sees("v", "v:1", "new");
    setup.look();
    setup.server.kill();
    setup.server.restart(Data::Kept);
    setup.hears_fresh();
    assert_eq!(
        setup.look(),
        (vec!["stale upstream-lost".into(), "fresh upstream-lost".into()], 3)
    );
    let memory = setup.client.memory();
    let value = |key| memory.value("v", key).and_then(|value| value.as_str());
    assert_eq!(
        ["v:1", "v:2", "v:3", "v:4"].map(value),
        [Some("one"), Some("two"), Some("three"), None]
    );
    setup.is_live();
}

#[test]
fn empty() {
    let mut setup = Setup::new();
    setup.server.restart(Data::Lost);
    setup.hears_fresh();
    assert_eq!(
        setup.look(),
        (vec!["stale upstream-lost".into(), "fresh upstream-lost".into()], 3)
    );
    assert!(setup.client.memory().state.is_empty());
    setup.is_live();
}

/// A key that expired meanwhile is not loaded, and of that there is no event.
#[test]
fn after_a_key_has_expired() {
    let mut setup = Setup::new();
    let life = Duration::from_millis(1000);
    redis!(setup.server, "SET", "v:2", "short", "PX", life.as_millis().to_string());
    let born = Instant::now();
    setup.client.sees("v", "v:2", "short");
    setup.server.save();
    setup.server.kill();
    setup.hears_stale("upstream-lost");
    setup.look();
    eventually("it has expired", || (born.elapsed() > life).then_some(()));
    setup.server.restart(Data::Kept);
    setup.hears_fresh();
    assert_eq!(setup.look(), (vec!["fresh upstream-lost".into()], 1));
    assert_eq!(setup.client.memory().value("v", "v:2"), None);
    setup.is_live();
}
