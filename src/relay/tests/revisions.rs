//! Other mappings while the mirror runs.

use super::*;
use crate::hub::{Ended, SubscribeError};

fn ended(client: &Client) -> bool {
    client.subscription.log().view().ended() == Some(Ended::Revised)
}

/// What is new, as text.
fn told(client: &mut Client, world: &World) -> Vec<String> {
    let values = client.values(world).into_iter();
    values.map(|value| value.trim_matches('"').to_owned()).collect()
}

#[test]
fn a_channel_ends_only_if_its_mappings_are_others() {
    let stays = || rule(0, "k:{id}", "k:{id}");
    let mut world = World::of(vec![stays(), rule(1, "m:{id}", "m:{id}")]);
    world.up();
    world.hold("k:1", "a");
    let (kept, gone) = (world.subscribe("k:1"), world.subscribe("m:1"));
    world.run();
    assert_eq!(world.revise(vec![rule(2, "n:{id}", "n:{id}"), stays()]), 1);
    assert!(!ended(&kept) && ended(&gone));
    assert_eq!(world.hub.subscribe("m:1", true).unwrap_err(), SubscribeError::Unknown);
    world.hold("n:1", "b");
    let mut came = world.subscribe("n:1");
    world.run();
    assert_eq!(told(&mut came, &world), ["b"]);
    world.set("k:1", "c");
    world.set("n:1", "d");
    world.run();
    assert_eq!(told(&mut came, &world), ["d"]);
    // A mapping more for its name makes it another one.
    assert_eq!(world.revise(vec![stays(), rule(3, "extra:{id}", "k:{id}")]), 2);
    assert!(ended(&kept) && ended(&came));
    assert_eq!(world.mirror.logs.len(), 0);
    assert_eq!(world.mirror.keys.len(), 0, "nothing is left of them");
}

/// Where mappings stand is no matter, also to a channel that several give.
#[test]
fn a_channel_of_several_mappings_stays_in_whatever_order_they_are() {
    let (one, two) = (|| rule(0, "a:{id}", "c:{id}"), || rule(1, "b:{id}", "c:{id}"));
    let mut world = World::of(vec![one(), two()]);
    world.up();
    let client = world.subscribe("c:1");
    world.run();
    assert_eq!(world.revise(vec![two(), rule(2, "d", "d"), one()]), 0);
    assert!(!ended(&client));
    assert_eq!(world.revise(vec![two(), rule(2, "d", "d")]), 1);
    assert!(ended(&client));
}

/// What the feed has put down, what is being read and what waits for its value may be of mappings that went.
#[test]
fn what_is_under_way_of_a_mapping_that_went_comes_to_nothing() {
    let log = |id| rule(id, "e:{id}", "log:{id}");
    let topic = |id| rule(id, "pub:{id}", "log:{id}");
    let state = |id| rule(id, "k:{id}", "k:{id}");
    let mut world = World::of(vec![log(0), topic(1), state(2)]);
    world.up();
    let _clients = [world.subscribe("log:1"), world.subscribe("k:1")];
    world.run();
    world.hold("e:1", "a");
    world.hold("k:1", "a");
    world.event("e:1", "set");
    world.event("k:1", "set");
    world.step();
    assert!(!world.reads.is_empty(), "both are being read");
    world.event("e:1", "set");
    world.event("k:1", "set");
    world.intake.published(b"pub:1", b"text");
    assert_eq!(world.revise(vec![log(3), topic(4), state(5)]), 2);
    let (mut log, mut state) = (world.subscribe("log:1"), world.subscribe("k:1"));
    world.run();
    assert_eq!(told(&mut log, &world), Vec::<String>::new());
    assert_eq!(told(&mut state, &world), ["a"]);
    world.event("e:1", "set");
    world.intake.published(b"pub:1", b"text");
    world.step();
    world.run();
    assert_eq!(told(&mut log, &world), ["a", "text"]);
    assert!(
        world
            .mirror
            .keys
            .values()
            .all(|entry| entry.happenings.is_empty() && entry.reading.is_empty())
    );
}

/// Nobody is told that a channel is whole before the server has confirmed what its mapping needs.
#[test]
fn a_new_mapping_waits_for_its_plan() {
    let (old, new) = (|| rule(0, "k:{id}", "k:{id}"), || rule(1, "m:{id}", "m:{id}"));
    let mut world = World::of(vec![old()]);
    world.up();
    world.revise_by(vec![old(), new()], 1);
    world.hold("m:1", "a");
    world.hold("k:1", "a");
    let (mut waits, mut ready) = (world.subscribe("m:1"), world.subscribe("k:1"));
    let log = world.subscribe("k:1").subscription.log().clone();
    world.run();
    assert!(
        log.view().is_filled(u64::MAX),
        "what is heard already needs no confirmation"
    );
    assert_eq!(
        (told(&mut ready, &world), told(&mut waits, &world)),
        (vec!["a".to_owned()], vec![])
    );
    // Neither a flush nor a loss makes it whole.
    world.intake.flushed(Cause::Signal);
    world.step();
    world.run();
    world.lost();
    world.up();
    world.run();
    assert!(!waits.subscription.log().view().is_filled(u64::MAX));
    world.intake.hears(1);
    world.step();
    world.run();
    assert!(waits.subscription.log().view().is_filled(u64::MAX));
    assert_eq!(told(&mut waits, &world), ["a"]);
}

#[test]
fn what_only_the_mirror_goes_by_is_taken_over() {
    let with = |poll: Option<u64>, linger: u64| {
        let mut rule = rule(0, "k:{id}", "k:{id}");
        rule.poll = poll.map(Duration::from_millis);
        rule.linger = Duration::from_secs(linger);
        vec![rule]
    };
    let mut world = World::of(with(None, 30));
    world.up();
    let client = world.subscribe("k:1");
    world.run();
    assert_eq!(world.revise(with(Some(100), 0)), 0);
    let asked = world.asked.len();
    world.pass(150);
    world.run();
    assert_eq!(world.asked.len(), asked + 1, "it is polled");
    // One timer, however often it is set anew.
    for interval in [200, 300, 100, 100] {
        world.revise(with(Some(interval), 0));
    }
    assert_eq!(world.mirror.polls.len(), 1);
    world.pass(150);
    world.run();
    assert_eq!(world.asked.len(), asked + 2);
    world.revise(with(None, 0));
    world.pass(1_000);
    world.run();
    assert_eq!((world.asked.len(), world.mirror.polls.len()), (asked + 2, 0));
    drop(client);
    world.step();
    assert_eq!(world.mirror.logs.len(), 0, "it does not linger");
}
