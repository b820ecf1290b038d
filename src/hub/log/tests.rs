//! What stays in a log, and that readers of it end where a plain map does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::hub::{Payload, Retention, Snapshot};

fn channel(mode: Mode, messages: usize) -> Arc<Channel> {
    Arc::new(Channel {
        name: "c".into(),
        mode,
        event_name: None,
        retention: Retention {
            messages,
            bytes: 1 << 20,
            age: Duration::from_secs(60),
        },
        snapshot: true,
        on_reset: Vec::new(),
    })
}

fn key(name: &str) -> SlotKey {
    SlotKey {
        source: 0,
        name: Bytes::copy_from_slice(name.as_bytes()),
    }
}

fn message(log: &Log, sequence: u64, absent: bool) -> Arc<Message> {
    let live = Bytes::from(sequence.to_string());
    let payload = Payload {
        live,
        snapshot: Snapshot::Same,
        json: true,
        absent,
    };
    Arc::new(Message::new(sequence, log.channel.clone(), Body::Change(payload)))
}

fn sequences(log: &Log, after: u64, upto: u64) -> Vec<u64> {
    let mut all = Vec::new();
    log.view().since(after, upto, |message| all.push(message.sequence));
    all
}

fn sweep(log: &Log, base: u64, upto: u64) -> Vec<u64> {
    let view = log.view();
    let mut from = 0;
    let mut all = Vec::new();
    while let Some(found) = view.slot(from, base, upto) {
        all.push(found.message.sequence);
        from = found.slot.unwrap() + 1;
    }
    all
}

#[test]
fn a_state_log_keeps_the_newest_message_of_each_slot() {
    let log = Log::new(1, channel(Mode::State, 0));
    let now = Instant::now();
    for (sequence, name) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
        log.view().put(key(name), false, message(&log, sequence, false), now);
    }
    assert_eq!(sequences(&log, 0, 9), [2, 3, 4]);
    assert_eq!(sequences(&log, 2, 3), [3]);
    assert_eq!(sweep(&log, 0, 9), [3, 2, 4], "in the order of the slots");
    assert_eq!(sweep(&log, 2, 9), [3, 4]);
    assert_eq!(log.view().len(), 3);
}

#[test]
fn a_snapshot_tells_no_deletions_but_of_fixed_slots() {
    let log = Log::new(1, channel(Mode::State, 0));
    let now = Instant::now();
    assert_eq!(log.view().put(key("never"), false, message(&log, 1, true), now), None);
    log.view().put(key("gone"), false, message(&log, 2, false), now);
    log.view().put(key("gone"), false, message(&log, 3, true), now);
    log.view().put(key("fixed"), true, message(&log, 4, true), now);
    assert_eq!(sweep(&log, 0, 9), [4]);
    assert_eq!(sweep(&log, 1, 9), [3, 4]);
    assert_eq!(log.view().len(), 0);
}

#[test]
fn an_old_deletion_is_dropped_and_makes_older_cursors_unknown() {
    let log = Log::new(1, channel(Mode::State, 0));
    let now = Instant::now();
    log.view().activate(1);
    log.view().put(key("a"), false, message(&log, 2, false), now);
    log.view().put(key("a"), false, message(&log, 3, true), now);
    assert_eq!(log.view().trim(&log.channel, now + TOMBSTONE_AGE / 2).dropped, 0);
    assert_eq!(log.view().complete_from(), 1);
    assert_eq!(log.view().trim(&log.channel, now + TOMBSTONE_AGE).dropped, 1);
    assert_eq!(log.view().complete_from(), 3);
    assert!(!log.view().has_slot(&key("a")));
}

#[test]
fn deletions_are_bounded_by_number() {
    let log = Log::new(1, channel(Mode::State, 0));
    let now = Instant::now();
    let mut sequence = 0;
    for i in 0..3_000 {
        let now = now + i * FRESH / 100;
        for absent in [false, true] {
            sequence += 1;
            let mut view = log.view();
            view.put(key(&i.to_string()), false, message(&log, sequence, absent), now);
            view.trim(&log.channel, now);
        }
    }
    let view = log.view();
    assert_eq!(view.index.len(), TOMBSTONES);
    assert!(view.order.len() <= 2 * TOMBSTONES + 65);
    assert!(view.slots.len() <= TOMBSTONES + 1, "places are used again");
}

#[test]
fn all_keys_of_a_large_channel_may_go_at_once() {
    let log = Log::new(1, channel(Mode::State, 0));
    let now = Instant::now();
    log.view().activate(1);
    let keys = FRESH_TOMBSTONES as u64;
    let put = |sequence, i: u64, absent, at| {
        let mut view = log.view();
        view.put(key(&i.to_string()), false, message(&log, sequence, absent), at);
        view.trim(&log.channel, at);
    };
    for i in 0..=keys {
        put(2 + i, i, false, now);
    }
    for i in 0..keys {
        put(2 + keys + i + 1, i, true, now);
    }
    assert_eq!(
        log.view().complete_from(),
        1,
        "who was there before is still to be told all of them"
    );
    put(4 + 2 * keys, keys, true, now);
    assert!(log.view().complete_from() > 1, "but there is a bound");
    log.view().trim(&log.channel, now + FRESH);
    assert_eq!(log.view().dead, TOMBSTONES);
}

#[test]
fn a_value_that_comes_and_goes_leaves_nothing_behind() {
    let log = Log::new(1, channel(Mode::State, 0));
    let now = Instant::now();
    let mut sequence = 0;
    for name in ["stays gone"].into_iter().chain(["comes and goes"; 10_000]) {
        for absent in [false, true] {
            sequence += 1;
            let mut view = log.view();
            view.put(key(name), false, message(&log, sequence, absent), now);
            view.trim(&log.channel, now);
        }
    }
    let view = log.view();
    assert!(view.tombstones.len() <= 2 * 2 + 65, "{}", view.tombstones.len());
}

#[test]
fn an_events_log_keeps_what_the_retention_says() {
    let log = Log::new(1, channel(Mode::Events, 3));
    let now = Instant::now();
    for sequence in 1..=5 {
        log.view().push(message(&log, sequence, false), now);
        log.view().trim(&log.channel, now);
    }
    assert_eq!(sequences(&log, 0, 9), [3, 4, 5]);
    assert_eq!(log.view().complete_from(), u64::MAX, "not before it is activated");
    log.view().activate(2);
    log.view().trim(&log.channel, now + Duration::from_secs(61));
    assert_eq!(log.view().complete_from(), 5);
    assert!(log.view().is_empty());
}

#[test]
fn a_happening_larger_than_the_retention_is_kept_until_the_next() {
    let log = Log::new(1, channel(Mode::Events, 3));
    let now = Instant::now();
    for sequence in 1..=2 {
        let live = Bytes::from(vec![b'x'; 2 << 20]);
        let payload = Payload {
            live,
            snapshot: Snapshot::Same,
            json: false,
            absent: false,
        };
        let message = Message::new(sequence, log.channel.clone(), Body::Change(payload));
        log.view().push(Arc::new(message), now);
        log.view().trim(&log.channel, now);
        assert_eq!(sequences(&log, 0, 9), [sequence]);
    }
}

#[test]
fn a_status_stands_in_the_order_of_messages() {
    let log = Log::new(1, channel(Mode::State, 0));
    let now = Instant::now();
    log.view().put(key("a"), false, message(&log, 1, false), now);
    let body = Body::Stale {
        reason: crate::hub::Reason("test"),
        since: std::time::SystemTime::UNIX_EPOCH,
    };
    log.view()
        .set_status(Arc::new(Message::new(2, log.channel.clone(), body)));
    log.view().put(key("b"), false, message(&log, 3, false), now);
    assert_eq!(sequences(&log, 0, 9), [1, 2, 3]);
    assert_eq!(sequences(&log, 0, 1), [1]);
    assert!(log.view().status(1).is_none());
    assert!(log.view().stale().is_some());
}

proptest! {
    /// Whatever happened, reading on from any cursor gives exactly the slots whose newest message stands after it, in
    /// order; and a sweep gives the same set in the order of the slots.
    #[test]
    fn reading_agrees_with_a_plain_map(
        writes in prop::collection::vec((0u8..12, any::<bool>()), 0..200),
        cursor in 0u64..200,
    ) {
        let log = Log::new(1, channel(Mode::State, 0));
        let now = Instant::now();
        let mut model: BTreeMap<u8, (u64, bool)> = BTreeMap::new();
        for (i, &(name, absent)) in writes.iter().enumerate() {
            let sequence = i as u64 + 1;
            let kept = log.view().put(key(&name.to_string()), false, message(&log, sequence, absent), now);
            prop_assert_eq!(kept.is_some(), !absent || model.contains_key(&name));
            if kept.is_some() {
                model.insert(name, (sequence, absent));
            }
        }
        let mut newer: Vec<u64> = model.values().map(|v| v.0).filter(|&s| s > cursor).collect();
        newer.sort_unstable();
        prop_assert_eq!(&sequences(&log, cursor, u64::MAX), &newer);
        prop_assert!(log.view().pending(cursor, u64::MAX) >= newer.len());
        if cursor > 0 {
            let mut swept = sweep(&log, cursor, u64::MAX);
            swept.sort_unstable();
            prop_assert_eq!(swept, newer);
        }
        prop_assert_eq!(log.view().len(), model.values().filter(|v| !v.1).count());
    }
}
