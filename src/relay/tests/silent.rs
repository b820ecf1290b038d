//! What no event tells and the feed finds out: what is repaired, and what clients are told of it.

use super::*;

#[test]
fn happenings_that_no_event_told_are_a_gap_and_an_emptied_database_is_none() {
    let mut world = World::new(&[("k", "k"), ("job:{id}", "log")]);
    let (mut state, mut log) = (world.subscribe("k"), world.subscribe("log"));
    world.run();
    state.news(&world);
    // Where values may go back, subscribers are told that they may.
    for (cause, told, gap) in [
        (Cause::Signal, None, None),
        (Cause::SignalOfReplica, Some("upstream-flushed"), None),
        (Cause::Flushed, None, None),
        (Cause::Swapped, Some("upstream-swapped"), None),
        (
            Cause::FullSync,
            Some("upstream-resynced"),
            Some("gap upstream-resynced None"),
        ),
        (Cause::Unheard, None, Some("gap events-off None")),
    ] {
        world.asked();
        world.intake.flushed(cause);
        world.run();
        assert_eq!(world.asked(), ["k"], "{cause:?}");
        // The `stale` before it is in the same place of the log.
        let fresh = told.map(|reason| format!("fresh {reason}"));
        assert_eq!(
            state.news(&world),
            fresh.iter().cloned().collect::<Vec<_>>(),
            "{cause:?}"
        );
        assert_eq!(log.news(&world), gap.into_iter().collect::<Vec<_>>(), "{cause:?}");
    }
}

#[test]
fn after_a_swap_the_reader_chooses_its_database_anew() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.hold("k", "of the other database");
    world.intake.flushed(Cause::Swapped);
    let mut taken = Taken::default();
    world.shared.take(&mut taken);
    world.mirror.take(&mut taken, world.now);
    assert!(!world.mirror.has_reader(NODE));
    world.run();
    assert!(world.mirror.has_reader(NODE));
    let heard = ["k=of the other database", "fresh upstream-swapped"];
    assert_eq!(client.news(&world), heard);
}

#[test]
fn a_repair_that_takes_long_is_told_with_its_cause() {
    for (cause, told) in [
        (Cause::Signal, "upstream-flushed"),
        (Cause::FullSync, "upstream-resynced"),
        (Cause::Unheard, "events-off"),
    ] {
        let mut world = World::new(&[("k", "k")]);
        let mut client = world.subscribe("k");
        world.run();
        client.news(&world);
        world.intake.flushed(cause);
        world.step();
        world.pass(1000);
        assert_eq!(client.news(&world), [format!("stale {told}")]);
        world.run();
        assert_eq!(client.news(&world), [format!("fresh {told}")]);
    }
}

#[test]
fn who_reads_a_replica_that_is_behind_is_told_until_it_has_caught_up() {
    let mut world = World::new(&[("k", "k"), ("late", "late")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.intake.behind(Some(Duration::from_secs(7)));
    world.step();
    assert_eq!(client.news(&world), ["stale upstream-behind"]);
    world.set("k", "old news");
    world.run();
    assert_eq!(client.news(&world), ["k=old news!set"], "what comes is passed on");
    let mut late = world.subscribe("late");
    world.run();
    assert!(late.is_filled(&world), "there is something to show");
    assert_eq!(late.news(&world), ["stale upstream-behind", "late=-"]);
    // Over the new link all data came anew.
    world.hold("k", "new");
    world.intake.flushed(Cause::FullSync);
    world.intake.behind(None);
    world.step();
    assert_eq!(client.news(&world), [""; 0], "not fresh before it was read");
    world.run();
    assert_eq!(client.news(&world), ["k=new", "fresh upstream-behind"]);
    assert_eq!(late.news(&world), ["fresh upstream-behind"]);
}

#[test]
fn a_partial_synchronization_reads_nothing() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.asked();
    world.intake.behind(Some(Duration::ZERO));
    world.step();
    assert_eq!(client.news(&world), ["stale upstream-behind"]);
    world.intake.behind(None);
    world.run();
    assert_eq!(client.news(&world), ["fresh upstream-behind"]);
    assert_eq!(world.asked(), [""; 0]);
}

#[test]
fn a_replica_that_is_lost_while_behind_may_be_behind_no_more() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.intake.behind(Some(Duration::ZERO));
    world.step();
    assert_eq!(client.news(&world), ["stale upstream-behind"]);
    world.lost();
    assert_eq!(client.news(&world), ["stale upstream-lost"]);
    world.up();
    world.run();
    assert_eq!(client.news(&world), ["fresh upstream-lost"]);
}

#[test]
fn an_outage_is_told_with_the_word_of_its_last_reason() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    for (reason, word) in [
        (LostReason::Loading, "loading"),
        (LostReason::Login("WRONGPASS".into()), "no-permission"),
        (LostReason::Rights("NOPERM".into()), "no-permission"),
        (LostReason::Notifications("off".into()), "events-off"),
    ] {
        world.lost();
        assert_eq!(client.news(&world), ["stale upstream-lost"]);
        world.lost();
        assert_eq!(client.news(&world), [""; 0]);
        world.intake.lost(&reason);
        world.step();
        assert_eq!(client.news(&world), [format!("stale {word}")]);
    }
    world.up();
    world.run();
    assert_eq!(client.news(&world), ["fresh events-off"]);
}

#[test]
fn while_the_server_sends_no_events_clients_are_stale() {
    let mut world = World::new(&[("k", "k"), ("late", "late"), ("job:{id}", "log")]);
    let (mut state, mut log) = (world.subscribe("k"), world.subscribe("log"));
    world.run();
    state.news(&world);
    world.intake.unheard();
    world.step();
    assert_eq!(state.news(&world), ["stale events-off"]);
    assert_eq!(log.news(&world), ["stale events-off"]);
    let mut late = world.subscribe("late");
    world.hold("k", "unheard");
    world.run();
    assert_eq!(late.news(&world), ["stale events-off", "late=-"]);
    assert_eq!(state.news(&world), [""; 0]);
    world.intake.flushed(Cause::Unheard);
    world.run();
    assert_eq!(state.news(&world), ["k=unheard", "fresh events-off"]);
    assert_eq!(late.news(&world), ["fresh events-off"]);
    assert_eq!(log.news(&world), ["gap events-off None", "fresh events-off"]);
    world.intake.unheard();
    world.step();
    assert_eq!(state.news(&world), ["stale events-off"]);
    world.lost();
    world.up();
    world.run();
    assert_eq!(
        state.news(&world),
        ["fresh upstream-lost"],
        "a new connection hears all"
    );
}

/// Whichever of the two ends first.
#[test]
fn a_late_server_that_answers_again_may_still_send_no_events() {
    let mut world = World::new(&[("k", "k")]);
    let heard = |world: &World| {
        let node = world.shared.stats.nodes().remove(0);
        node.heard.trouble.map(|trouble| trouble.reason)
    };
    assert_eq!(heard(&world), None);
    world.intake.unheard();
    world.intake.late(true);
    world.intake.late(false);
    assert_eq!(heard(&world), Some("events-off"));
    world.intake.flushed(Cause::Unheard);
    assert_eq!(heard(&world), None);
    world.intake.unheard();
    world.intake.late(true);
    world.intake.flushed(Cause::Unheard);
    assert_eq!(heard(&world), Some("upstream-late"));
    world.intake.late(false);
    assert_eq!(heard(&world), None);
    // A new connection hears all.
    world.intake.unheard();
    world.lost();
    world.intake.up(&ServerInfo::default(), &endpoint(NODE));
    world.intake.late(true);
    world.intake.late(false);
    assert_eq!(heard(&world), None);
}

#[test]
fn signals_in_a_row_take_the_place_of_one() {
    let world = World::new(&[("k", "k")]);
    let mut intake = world.intake.ear(NODE);
    let mut taken = Taken::default();
    world.shared.take(&mut taken);
    taken.clear();
    for cause in [
        Cause::Signal,
        Cause::Signal,
        Cause::FullSync,
        Cause::Signal,
        Cause::Signal,
    ] {
        intake.flushed(cause);
    }
    world.shared.take(&mut taken);
    assert_eq!(taken.items.len(), 3, "{:?}", taken.items);
}

#[test]
fn who_returns_to_a_channel_that_may_have_gone_back_is_told() {
    for (cause, told) in [
        (Cause::SignalOfReplica, "upstream-flushed"),
        (Cause::Swapped, "upstream-swapped"),
        (Cause::FullSync, "upstream-resynced"),
    ] {
        let mut world = World::new(&[("k", "k")]);
        world.hold("k", "new");
        let client = world.subscribe("k");
        world.run();
        drop(client);
        world.step();
        world.hold("k", "old");
        world.intake.flushed(cause);
        world.run();
        let mut back = world.subscribe("k");
        world.step();
        assert_eq!(back.news(&world), ["k=new".to_owned(), format!("stale {told}")]);
        world.run();
        assert_eq!(back.news(&world), ["k=old".to_owned(), format!("fresh {told}")]);
    }
}

/// What keeps all from being read again says more than what began that.
#[test]
fn who_was_told_of_a_resync_is_told_what_keeps_it() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.broken = Some(ReadErrorKind::Loading);
    world.intake.flushed(Cause::FullSync);
    world.step();
    assert_eq!(client.news(&world), ["stale upstream-resynced"]);
    world.answer();
    world.pass(2000);
    world.answer();
    world.step();
    assert_eq!(client.news(&world), ["stale loading"]);
    world.broken = None;
    world.pass(2000);
    world.run();
    assert_eq!(client.news(&world), ["fresh loading"]);
}
