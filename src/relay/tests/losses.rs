//! Losses of the feed, of the reader and of changes, and what is repaired how.

use super::*;

#[test]
fn before_the_first_connection_clients_wait_and_after_a_second_they_know() {
    let mut world = World::away(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    assert_eq!(client.news(&world), [""; 0]);
    world.pass(1000);
    assert_eq!(client.news(&world), ["stale upstream-lost"]);
    assert_eq!(world.asked(), [""; 0]);
    world.up();
    assert!(!client.is_filled(&world));
    world.run();
    assert!(client.is_filled(&world));
    assert_eq!(client.news(&world), ["k=a", "fresh upstream-lost"]);
}

#[test]
fn a_short_start_is_not_worth_a_word() {
    let mut world = World::away(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.pass(900);
    world.up();
    world.run();
    world.pass(5000);
    assert_eq!(client.news(&world), ["k=-"]);
}

#[test]
fn after_a_loss_only_what_differs_is_sent() {
    let mut world = World::new(&[("k", "k"), ("many:{id}", "many"), ("same", "same")]);
    world.hold("k", "a");
    world.hold("same", "s");
    world.hold("many:1", "a");
    world.hold("many:2", "b");
    let mut clients = ["k", "many", "same"].map(|name| world.subscribe(name));
    world.run();
    for client in &mut clients {
        client.news(&world);
    }
    world.lost();
    world.hold("k", "b");
    world.keys.remove("many:1");
    world.hold("many:3", "c");
    for client in &mut clients {
        assert_eq!(client.news(&world), ["stale upstream-lost"]);
    }
    let mut late = world.subscribe("k");
    assert!(late.is_filled(&world), "the old state is shown, marked as stale");
    late.news(&world);
    world.pass(3000);
    world.run_id = "two";
    world.up();
    world.run();
    let [k, many, same] = &mut clients;
    assert_eq!(k.news(&world), ["k=b", "fresh upstream-lost"]);
    assert_eq!(many.news(&world), ["many:1=-", "many:3=c", "fresh upstream-lost"]);
    assert_eq!(same.news(&world), ["fresh upstream-lost"]);
}

#[test]
fn replies_of_before_a_flush_are_void() {
    let mut world = World::new(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    world.keys.clear();
    world.intake.flushed(Cause::Signal);
    world.step();
    world.answer();
    assert_eq!(client.news(&world), [""; 0]);
    assert!(!client.is_filled(&world));
    world.run();
    world.pass(10);
    world.run();
    assert_eq!(client.news(&world), ["k=-"]);
}

#[test]
fn a_flush_that_is_repaired_at_once_is_not_worth_a_word() {
    let mut world = World::new(&[("k", "k"), ("gone", "gone")]);
    world.hold("k", "a");
    world.hold("gone", "a");
    let (mut kept, mut gone) = (world.subscribe("k"), world.subscribe("gone"));
    world.run();
    kept.news(&world);
    gone.news(&world);
    world.keys.remove("gone");
    world.intake.flushed(Cause::Signal);
    world.run();
    world.pass(2000);
    assert_eq!(kept.news(&world), [""; 0]);
    assert_eq!(gone.news(&world), ["gone=-"]);
}

#[test]
fn a_flush_that_takes_longer_is_told() {
    let mut world = World::new(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.intake.flushed(Cause::Signal);
    world.step();
    world.pass(1000);
    assert_eq!(client.news(&world), ["stale upstream-flushed"]);
    world.run();
    assert_eq!(client.news(&world), ["fresh upstream-flushed"]);
}

#[test]
fn a_late_server_has_lost_nothing() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.asked();
    world.intake.late(true);
    world.step();
    assert_eq!(client.news(&world), ["stale upstream-late"]);
    world.hold("k", "a");
    world.event("k", "set");
    world.intake.late(false);
    world.step();
    assert_eq!(client.news(&world), [""; 0], "what came with the answer is read first");
    world.run();
    assert_eq!(client.news(&world), ["k=a!set", "fresh upstream-late"]);
    assert_eq!(world.asked(), ["k"]);
}

/// Each reason is told that says more than the one before, and since when it all began.
#[test]
fn what_was_late_is_lost_and_then_will_not_say() {
    let mut world = World::new(&[("k", "k"), ("log", "log")]);
    let (mut state, mut events) = (world.subscribe("k"), world.subscribe("log"));
    world.run();
    state.news(&world);
    world.intake.late(true);
    world.step();
    world.pass(1500);
    let since = state.subscription.log().view().stale().map(|(_, since)| since);
    let mut late = world.subscribe("k");
    assert_eq!(late.news(&world), ["k=-", "stale upstream-late"]);
    state.news(&world);
    world.lost();
    assert_eq!(state.news(&world), ["stale upstream-lost"]);
    assert_eq!(events.news(&world), ["stale upstream-lost"]);
    world.pass(3000);
    world.broken = Some(ReadErrorKind::Loading);
    world.up();
    world.run();
    world.pass(5000);
    world.run();
    assert_eq!(state.news(&world), ["stale loading"]);
    let (reason, now) = state.subscription.log().view().stale().unzip();
    assert_eq!((reason.map(|reason| reason.0), now), (Some("loading"), since));
    // It has lost events, and waits for no value.
    assert_eq!(events.news(&world), ["gap upstream-lost None", "fresh upstream-lost"]);
    world.broken = None;
    world.pass(5000);
    world.run();
    assert_eq!(state.news(&world), ["fresh loading"]);
}

#[test]
fn a_lost_reader_is_replaced_and_nothing_in_flight_forgotten() {
    let mut world = World::new(&[("k", "k"), ("many:{id}", "many")]);
    world.hold("many:1", "m");
    let (mut one, mut many) = (world.subscribe("k"), world.subscribe("many"));
    assert_eq!((world.reads.len(), world.pages.len()), (1, 1));
    world.mirror.unlinked(NODE, world.now);
    world.step();
    assert_eq!(
        (world.reads.len(), world.pages.len(), world.scanned),
        (0, 1, 2),
        "the pass begins anew"
    );
    world.pass(10);
    world.run();
    assert_eq!(one.news(&world), ["k=-"]);
    assert_eq!(many.news(&world), ["many:1=m"]);
    assert!(one.is_filled(&world) && many.is_filled(&world));
}

#[test]
fn a_reader_that_stays_away_makes_stale_and_fresh_waits_for_what_changed_meanwhile() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    let run_id = std::mem::replace(&mut world.run_id, "another server");
    world.mirror.unlinked(NODE, world.now);
    world.set("k", "a");
    world.pass(1000);
    assert!(!world.mirror.has_reader(NODE), "it reads another process than is heard");
    assert_eq!(client.news(&world), ["stale upstream-lost"]);
    world.run_id = run_id;
    world.step();
    assert_eq!(client.news(&world), [""; 0]);
    world.run();
    assert_eq!(client.news(&world), ["k=a!set", "fresh upstream-lost"]);
}

#[test]
fn who_lingers_through_a_loss_is_read_again_for_the_one_who_returns() {
    let mut world = World::new(&[("k", "k"), ("many:{id}", "many")]);
    world.hold("k", "a");
    world.hold("many:1", "a");
    let clients = [world.subscribe("k"), world.subscribe("many")];
    world.run();
    drop(clients);
    world.step();
    world.lost();
    world.hold("k", "b");
    world.keys.remove("many:1");
    world.hold("many:2", "b");
    world.up();
    world.run();
    world.asked();
    let (mut one, mut many) = (world.subscribe("k"), world.subscribe("many"));
    assert!(!one.is_filled(&world) && !many.is_filled(&world));
    // Who has a cursor from before may see a value go back, and must be told.
    assert_eq!(one.news(&world), ["k=a", "stale upstream-lost"]);
    assert_eq!(many.news(&world), ["many:1=a", "stale upstream-lost"]);
    world.run();
    assert_eq!(one.news(&world), ["k=b", "fresh upstream-lost"]);
    assert_eq!(many.news(&world), ["many:1=-", "many:2=b", "fresh upstream-lost"]);
}

/// What nobody waits for any more is no part of a recovery.
#[test]
fn a_recovery_ends_when_those_who_wait_for_it_have_gone() {
    let mut world = World::new(&[("k", "k"), ("many:{id}", "many"), ("other", "other")]);
    let [one, many, mut other] = ["k", "many", "other"].map(|name| world.subscribe(name));
    world.run();
    other.news(&world);
    world.lost();
    world.denied = Some("k");
    world.up();
    // The scan of `many` has not been answered, and `k` cannot be read.
    while !world.reads.is_empty() {
        world.answer();
    }
    let resyncs = |world: &World| world.shared.stats.resyncs.all().into_values().sum::<u64>();
    assert_eq!(other.news(&world), ["fresh upstream-lost"]);
    assert_eq!(resyncs(&world), 0);
    drop(one);
    world.step();
    assert_eq!(resyncs(&world), 0);
    drop(many);
    world.step();
    assert_eq!(resyncs(&world), 1);
    // Who returns is told, and is no part of it any more.
    world.denied = None;
    let mut one = world.subscribe("k");
    world.pass(20);
    world.run();
    assert!(one.is_filled(&world));
    assert_eq!(one.news(&world).last().map(String::as_str), Some("fresh upstream-lost"));
    assert_eq!(resyncs(&world), 1);
}

#[test]
fn too_many_changes_at_once_are_a_resync() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.hold("k", "a");
    let mut taken = Taken::default();
    taken.overflowed = true;
    world.mirror.take(&mut taken, world.now);
    world.run();
    assert_eq!(client.news(&world), ["k=a"]);
}
