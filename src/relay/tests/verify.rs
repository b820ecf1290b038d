//! The second look, and the keys that are polled.

use std::sync::atomic::Ordering;

use super::*;

const ROUND: Duration = Duration::from_secs(1);

fn verifying(mappings: &[(&str, &str)]) -> World {
    let rules = (0..).zip(mappings).map(|(id, (key, channel))| rule(id, key, channel));
    let mut world = World::verifying(rules.collect(), Some(ROUND));
    world.up();
    world
}

/// Lets time pass in small steps, all being answered.
fn let_pass(world: &mut World, milliseconds: u64) {
    for _ in 0..milliseconds.div_ceil(50) {
        world.pass(50);
        while !world.reads.is_empty() {
            world.answer();
        }
    }
}

/// The feed has heard all that the server said so far.
fn answered(world: &mut World) {
    world.intake.answered(u64::MAX);
    world.step();
}

fn repairs(world: &World) -> u64 {
    world.shared.stats.repairs.load(Ordering::Relaxed)
}

#[test]
fn every_key_is_read_once_in_a_round() {
    let mut world = verifying(&[("k:{id}", "all")]);
    for key in ["k:1", "k:2", "k:3", "k:4"] {
        world.hold(key, "a");
    }
    let _client = world.subscribe("all");
    world.run();
    let_pass(&mut world, 2_000);
    world.asked();
    let_pass(&mut world, 4_000);
    let mut asked = world.asked();
    asked.sort();
    let count = |key: &str| asked.iter().filter(|asked| *asked == key).count();
    for key in ["k:1", "k:2", "k:3", "k:4"] {
        assert!((3..=5).contains(&count(key)), "{asked:?}");
    }
}

#[test]
fn a_difference_that_nothing_accounts_for_is_a_repair() {
    let mut world = verifying(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.hold("k", "b");
    let_pass(&mut world, 2_500);
    assert_eq!(client.news(&world), ["k=b"], "shown at once");
    assert_eq!(repairs(&world), 0, "the feed may be behind");
    answered(&mut world);
    let_pass(&mut world, 2_500);
    assert_eq!(repairs(&world), 1);
}

#[test]
fn an_event_on_its_way_accounts_for_a_difference() {
    let mut world = verifying(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.hold("k", "b");
    let_pass(&mut world, 2_500);
    world.event("k", "set");
    answered(&mut world);
    let_pass(&mut world, 5_000);
    assert_eq!(client.news(&world), ["k=b"]);
    assert_eq!(repairs(&world), 0);
}

#[test]
fn a_loss_that_is_noticed_later_accounts_for_a_difference() {
    let mut world = verifying(&[("k", "k")]);
    world.hold("k", "a");
    let _client = world.subscribe("k");
    world.run();
    world.hold("k", "b");
    let_pass(&mut world, 1_500);
    answered(&mut world);
    let_pass(&mut world, 500);
    world.intake.flushed(Cause::Signal);
    let_pass(&mut world, 5_000);
    assert_eq!(repairs(&world), 0);
}

/// Or whoever may not read one of a million keys would have none of them looked at after the first loss.
#[test]
fn a_key_that_cannot_be_read_after_a_loss_does_not_keep_others_from_being_looked_at() {
    let mut world = verifying(&[("k", "k"), ("denied", "denied")]);
    world.hold("k", "a");
    world.hold("denied", "a");
    let _clients = (world.subscribe("k"), world.subscribe("denied"));
    world.run();
    world.lost();
    world.denied = Some("denied");
    world.up();
    let_pass(&mut world, 2_000);
    world.asked();
    let_pass(&mut world, 3_000);
    assert!(world.asked().contains(&"k".to_owned()));
}

#[test]
fn a_deadline_accounts_for_a_key_that_is_gone() {
    let mut world = verifying(&[("k", "k")]);
    world.keys.insert("k", (text("a"), Some(Duration::from_millis(2_000))));
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    // Somewhat early: the server's clock was set, and that is not known yet.
    let_pass(&mut world, 1_000);
    world.keys.clear();
    let_pass(&mut world, 3_000);
    answered(&mut world);
    let_pass(&mut world, 3_000);
    assert_eq!(client.news(&world), ["k=-"]);
    assert_eq!(repairs(&world), 0);
}

#[test]
fn what_changed_is_read_before_what_is_only_looked_at() {
    let mut world = verifying(&[("k:{id}", "all"), ("v", "v")]);
    world.hold("k:1", "a");
    world.hold("v", "a");
    let (_all, _v) = (world.subscribe("all"), world.subscribe("v"));
    world.run();
    let_pass(&mut world, 2_000);
    world.asked();
    world.hold("v", "b");
    world.event("v", "set");
    world.pass(1_000);
    assert_eq!(world.asked().first().map(String::as_str), Some("v"));
}

#[test]
fn a_polled_key_is_read_at_each_interval_while_somebody_listens() {
    let mut polled = rule(0, "k", "k");
    polled.poll = Some(Duration::from_secs(1));
    let mut world = World::verifying(vec![polled, rule(1, "other", "other")], Some(ROUND));
    world.up();
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    world.run();
    assert_eq!(client.news(&world), ["k=a"]);
    world.hold("k", "b");
    let_pass(&mut world, 1_100);
    assert_eq!(client.news(&world), ["k=b"], "without an event");
    answered(&mut world);
    let_pass(&mut world, 5_000);
    assert_eq!(repairs(&world), 0, "that is what polling is for");
    drop(client);
    let_pass(&mut world, 1_100);
    world.asked();
    let_pass(&mut world, 5_000);
    assert_eq!(world.asked(), [""; 0], "nobody listens");
}

#[test]
fn a_second_look_that_comes_to_nothing_is_forgotten() {
    let mut world = verifying(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.broken = Some(ReadErrorKind::NoPermission);
    let_pass(&mut world, 5_000);
    world.pass(1_000);
    world.pass(1_000);
    assert!(!world.reads.is_empty(), "one is in flight, and takes long");
    assert_eq!(client.news(&world), [""; 0], "nobody says that it may have changed");
}
