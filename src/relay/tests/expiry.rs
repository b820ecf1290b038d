//! Keys that expire are read at their deadline, whatever the server says when.

use super::*;

fn volatile(world: &mut World, key: &'static str, ms: u64) {
    world.keys.insert(key, (text("a"), Some(Duration::from_millis(ms))));
}

#[test]
fn at_the_deadline_the_key_is_read_without_an_event() {
    let mut world = World::new(&[("k", "k")]);
    volatile(&mut world, "k", 500);
    let mut client = world.subscribe("k");
    world.run();
    assert_eq!(client.news(&world), ["k=a"]);
    world.keys.clear();
    world.asked();
    world.pass(498);
    assert_eq!(world.asked(), [""; 0]);
    world.pass(3);
    world.run();
    assert_eq!(client.news(&world), ["k=-"]);
}

/// At its deadline, and when the server says so soon after; not when it is heard of later or is there.
#[test]
fn a_key_is_thought_to_be_gone_while_that_is_likely() {
    let mut world = World::new(&[("many:{id}", "many")]);
    volatile(&mut world, "many:1", 500);
    let _client = world.subscribe("many");
    world.run();
    world.pass(10);
    world.event("many:1", "expire");
    world.run();
    assert_eq!(world.thought_gone, [""; 0]);
    world.keys.clear();
    world.pass(501);
    world.run();
    assert_eq!(world.thought_gone, ["many:1"]);
    world.pass(2);
    world.event("many:1", "expired");
    world.run();
    assert_eq!(world.thought_gone, ["many:1"; 2]);
    world.pass(20);
    world.set("many:1", "c");
    world.run();
    assert_eq!(world.thought_gone.len(), 2);
}

#[test]
fn a_key_that_outlives_its_deadline_is_asked_for_less_and_less_often() {
    let mut world = World::new(&[("k", "k")]);
    volatile(&mut world, "k", 0);
    let _client = world.subscribe("k");
    world.run();
    world.asked();
    for _ in 0..1000 {
        world.pass(1);
        while !world.reads.is_empty() {
            world.answer();
        }
    }
    let reads = world.asked().len();
    assert!((6..12).contains(&reads), "{reads}");
}

#[test]
fn a_deadline_that_is_moved_or_removed_is_followed() {
    let mut world = World::new(&[("k", "k")]);
    volatile(&mut world, "k", 1000);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    volatile(&mut world, "k", 5000);
    world.event("k", "expire");
    world.run();
    world.asked();
    world.pass(3000);
    assert_eq!(world.asked(), [""; 0], "prolonged");
    volatile(&mut world, "k", 10);
    world.event("k", "expire");
    world.step();
    world.answer();
    world.asked();
    world.pass(20);
    assert_eq!(world.asked(), ["k"], "shortened");
    world.hold("k", "a");
    world.run();
    world.event("k", "persist");
    world.run();
    world.asked();
    world.pass(100_000);
    assert_eq!(world.asked(), [""; 0], "removed");
    assert_eq!(client.news(&world), [""; 0], "none of that changes the value");
}

#[test]
fn an_expiry_that_is_sent_is_a_change_but_not_its_jitter() {
    let mut rule = rule(0, "k", "k");
    rule.expires = true;
    let options = Options {
        format: Format::Json,
        decode: Decode::None,
        fields: None,
        expires: true,
        heard: false,
        max_value: 1000,
    };
    rule.payload = Renderer::new(options, &[]).unwrap();
    let mut world = World::of(vec![rule]);
    world.up();
    volatile(&mut world, "k", 10_000);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    let passed = 2 + 2;
    world.pass(2);
    volatile(&mut world, "k", 10_000 - passed + 3);
    world.event("k", "expire");
    world.run();
    assert_eq!(client.news(&world), [""; 0]);
    volatile(&mut world, "k", 20_000);
    world.event("k", "expire");
    world.run();
    assert_eq!(client.news(&world), ["k=a!expire"]);
}

#[test]
fn a_clock_that_was_set_ahead_brings_all_deadlines_forward() {
    let mut world = World::new(&[("k", "k")]);
    volatile(&mut world, "k", 60_000);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.asked();
    world.keys.clear();
    world.intake.clock_set(59_000);
    world.pass(990);
    assert_eq!(world.asked(), [""; 0]);
    world.pass(20);
    world.run();
    assert_eq!(client.news(&world), ["k=-"]);
}

#[test]
fn a_clock_that_was_set_back_is_noticed_at_the_old_deadline() {
    let mut world = World::new(&[("k", "k")]);
    volatile(&mut world, "k", 1_000);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.intake.clock_set(-5_000);
    volatile(&mut world, "k", 5_000);
    world.pass(1_002);
    world.run();
    world.asked();
    world.keys.clear();
    world.pass(5_002);
    world.run();
    assert_eq!(client.news(&world), ["k=-"]);
}

#[test]
fn deadlines_that_are_void_are_dropped() {
    let mut world = World::new(&[("k", "k")]);
    let _client = world.subscribe("k");
    for round in 0..10_000 {
        // Each is earlier than the one before, so that none of them can stand for the next.
        volatile(&mut world, "k", 10_000_000 - 100 * round);
        world.event("k", "expire");
        world.step();
        world.answer();
        world.pass(1);
    }
    let entries = world.mirror.deadlines.len();
    assert!(entries < 2_000, "{entries} entries for one key");
}
