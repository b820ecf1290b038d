//! Events channels: every happening, in order, with the value read after it.

use super::super::backlog::BACKLOG;
use super::*;

#[test]
fn every_happening_is_told_in_order_with_one_read_for_those_that_wait() {
    let mut world = World::new(&[("job:{id}", "log")]);
    let mut client = world.subscribe("log");
    assert!(client.is_filled(&world), "there is nothing to read first");
    world.set("job:1", "a");
    world.set("job:2", "b");
    world.set("job:1", "c");
    world.set("job:1", "d");
    // The second is answered before the first.
    let first = world.reads.pop_front().unwrap();
    world.answer();
    assert_eq!(client.news(&world), [""; 0]);
    world.reads.push_front(first);
    world.answer();
    assert_eq!(client.news(&world), ["job:1=a!set", "job:2=b!set"]);
    world.pass(1);
    world.answer();
    assert_eq!(client.news(&world), ["job:1=d!set", "job:1=d!set"]);
    assert_eq!(world.asked(), ["job:1", "job:2", "job:1"]);
    world.pass(5);
    assert!(world.mirror.keys.is_empty());
}

#[test]
fn events_that_were_not_asked_for_are_not_told() {
    let mut rule = rule(0, "job:{id}", "log");
    rule.on = Some(vec![EventName::from_bytes(b"expired")]);
    let mut world = World::of(vec![rule]);
    world.up();
    let mut client = world.subscribe("log");
    world.set("job:1", "a");
    world.keys.clear();
    world.event("job:1", "expired");
    world.run();
    assert_eq!(client.news(&world), ["job:1=-!expired"]);
}

#[test]
fn what_overflows_is_counted_in_its_place() {
    let mut world = World::new(&[("job:{id}", "log")]);
    let mut client = world.subscribe("log");
    world.hold("job:1", "a");
    for _ in 0..BACKLOG + 3 {
        world.event("job:1", "set");
    }
    world.step();
    world.answer();
    world.event("job:1", "del");
    world.run();
    // Four messages are retained.
    let expected = ["job:1=a!set", "job:1=a!set", "gap overflow Some(3)", "job:1=a!del"];
    assert_eq!(client.news(&world), expected);
}

#[test]
fn a_loss_is_a_gap_behind_what_was_heard_before_it() {
    let mut world = World::new(&[("job:{id}", "log")]);
    let mut client = world.subscribe("log");
    world.run();
    world.set("job:1", "a");
    world.lost();
    assert_eq!(client.news(&world), ["stale upstream-lost"]);
    world.up();
    world.set("job:2", "b");
    world.run();
    let mut news = client.news(&world);
    news.retain(|each| !each.starts_with("fresh"));
    assert_eq!(news, ["job:1=a!set", "gap upstream-lost None", "job:2=b!set"]);
}

#[test]
fn before_the_first_connection_nothing_can_be_promised() {
    let mut world = World::away(&[("job:{id}", "log")]);
    let mut client = world.subscribe("log");
    assert!(!client.is_filled(&world));
    world.lost();
    assert_eq!(client.news(&world), ["stale upstream-lost"]);
    world.up();
    assert!(client.is_filled(&world));
    assert_eq!(client.news(&world), ["fresh upstream-lost"]);
}

#[test]
fn an_error_drops_no_happening() {
    let mut world = World::new(&[("job:{id}", "log")]);
    let mut client = world.subscribe("log");
    world.broken = Some(ReadErrorKind::Busy);
    world.set("job:1", "a");
    world.answer();
    world.broken = None;
    world.pass(20);
    world.run();
    assert_eq!(client.news(&world), ["job:1=a!set"]);
}

#[test]
fn it_records_on_while_it_lingers() {
    let mut world = World::new(&[("job:{id}", "log")]);
    drop(world.subscribe("log"));
    world.step();
    world.set("job:1", "a");
    world.run();
    let mut client = world.subscribe("log");
    assert!(client.is_filled(&world));
    assert_eq!(client.news(&world), ["job:1=a!set"]);
}

#[test]
fn a_key_may_be_a_state_and_a_happening() {
    let mut world = World::new(&[("job:{id}", "log"), ("job:{id}", "job:{id}")]);
    let (mut log, mut state) = (world.subscribe("log"), world.subscribe("job:1"));
    world.run();
    state.news(&world);
    world.set("job:1", "a");
    world.run();
    assert_eq!(log.news(&world), ["job:1=a!set"]);
    assert_eq!(state.news(&world), ["job:1=a!set"]);
    assert_eq!(world.asked(), ["job:1", "job:1"]);
}
