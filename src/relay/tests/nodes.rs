//! Several nodes, each with its part of the keys.

use super::*;

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

/// A world of two nodes: `a` and `c` are on the first, `b` and `d` on the second.
fn two(mappings: &[(&str, &str)]) -> World {
    let mut world = World::away(mappings);
    world.own((0..slots::COUNT).map(home).collect());
    if let Owners::Many(slots) = &world.owners {
        world.intake.slots(slots.clone());
    }
    world.node_up(A);
    world.node_up(B);
    world
}

fn home(slot: u16) -> NodeId {
    let second = ["b", "d"].map(|key| slots::slot_of(key.as_bytes()));
    if second.contains(&slot) { B } else { A }
}

fn hold_all(world: &mut World) {
    for key in ["a", "b", "c", "d"] {
        world.hold(key, "1");
    }
}

#[test]
fn a_flush_of_one_node_reads_again_what_is_there() {
    let mut world = two(&[("?", "all"), ("a", "one"), ("b", "two")]);
    hold_all(&mut world);
    let mut clients = ["all", "one", "two"].map(|name| world.subscribe(name));
    world.run();
    for client in &mut clients {
        client.news(&world);
    }
    let (_, scanned) = (world.asked(), world.scanned);
    world.keys.remove("b");
    world.keys.remove("a");
    world.intake.ear(B).flushed(Cause::Signal);
    world.run();
    let [all, one, two] = &mut clients;
    assert_eq!(
        (all.news(&world), two.news(&world)),
        (vec!["b=-".into()], vec!["b=-".into()])
    );
    assert_eq!(one.news(&world), [""; 0], "nobody said that this node was flushed");
    let mut asked = world.asked();
    asked.sort_unstable();
    assert_eq!((asked, world.scanned), (vec!["b".into(), "d".into()], scanned + 1));
}

#[test]
fn a_channel_is_stale_while_any_node_of_its_keys_is() {
    let mut world = two(&[("?", "all"), ("a", "one"), ("b", "two")]);
    hold_all(&mut world);
    let [mut all, mut one, mut two] = ["all", "one", "two"].map(|name| world.subscribe(name));
    world.run();
    for client in [&mut all, &mut one, &mut two] {
        client.news(&world);
    }
    world.intake.ear(A).lost(&LostReason::Closed);
    world.set("b", "2");
    world.run();
    assert_eq!(all.news(&world), ["stale upstream-lost", "b=2!set"]);
    assert_eq!(one.news(&world), ["stale upstream-lost"]);
    assert_eq!(two.news(&world), ["b=2!set"]);
    world.intake.ear(B).lost(&LostReason::Closed);
    world.step();
    world.hold("c", "2");
    world.node_up(A);
    world.run();
    assert_eq!(one.news(&world), ["fresh upstream-lost"]);
    assert_eq!(
        (all.news(&world), two.news(&world)),
        (vec!["c=2".into()], vec!["stale upstream-lost".into()])
    );
    world.node_up(B);
    world.run();
    assert_eq!(
        (all.news(&world), two.news(&world)),
        (vec!["fresh upstream-lost".into()], vec!["fresh upstream-lost".into()])
    );
}

#[test]
fn keys_that_move_are_read_again_where_they_are() {
    let mut world = two(&[("?", "all"), ("a", "one"), ("c", "still")]);
    hold_all(&mut world);
    let mut clients = ["all", "one", "still"].map(|name| world.subscribe(name));
    world.run();
    for client in &mut clients {
        client.news(&world);
    }
    world.asked();
    let a = slots::slot_of(b"a");
    let moved: Slots = (0..slots::COUNT)
        .map(|slot| if slot == a { B } else { home(slot) })
        .collect();
    world.own(moved.clone());
    world.hold("a", "2");
    world.intake.slots(moved);
    world.run();
    let [all, one, still] = &mut clients;
    assert_eq!(
        (all.news(&world), one.news(&world)),
        (vec!["a=2".into()], vec!["a=2".into()])
    );
    assert_eq!(still.news(&world), [""; 0]);
    assert!(!world.asked().contains(&"c".into()), "it is where it was");
    world.intake.ear(A).lost(&LostReason::Closed);
    world.step();
    assert_eq!(one.news(&world), [""; 0], "it is on the other node now");
    assert_eq!(still.news(&world), ["stale upstream-lost"]);
}

#[test]
fn keys_that_move_to_a_node_that_is_not_heard_are_stale_until_it_is() {
    let mut world = two(&[("a", "one"), ("a", "log")]);
    hold_all(&mut world);
    let [mut one, mut log] = ["one", "log"].map(|name| world.subscribe(name));
    world.run();
    one.news(&world);
    world.intake.ear(B).lost(&LostReason::Closed);
    world.step();
    world.pass(1000);
    let all_on_b: Slots = (0..slots::COUNT).map(|_| B).collect();
    world.own(all_on_b.clone());
    world.intake.slots(all_on_b);
    world.hold("a", "2");
    world.run();
    assert_eq!(one.news(&world), ["stale upstream-lost"]);
    world.node_up(B);
    world.run();
    assert_eq!(one.news(&world), ["a=2", "fresh upstream-lost"]);
    assert_eq!(log.news(&world), ["gap upstream-lost None", "fresh upstream-lost"]);
}

#[test]
fn a_node_that_is_away_delays_no_other() {
    let mut world = two(&[("?", "all"), ("b", "two")]);
    hold_all(&mut world);
    world.intake.ear(A).lost(&LostReason::Closed);
    world.step();
    let (mut all, mut two) = (world.subscribe("all"), world.subscribe("two"));
    world.run();
    assert!(two.is_filled(&world) && !all.is_filled(&world));
    assert_eq!(two.news(&world), ["b=1"]);
    world.node_up(A);
    world.run();
    assert!(all.is_filled(&world));
    assert_eq!(all.news(&world).len(), 5, "four keys and what is true of the channel");
}

#[test]
fn keys_of_one_slot_are_looked_for_on_its_node_only() {
    let mut world = two(&[(r"\{{id}\}:*", "tagged:{id}"), ("?", "all")]);
    world.hold("{7}:x", "1");
    let mut tagged = world.subscribe("tagged:7");
    assert_eq!(world.scanned, 1);
    world.run();
    assert_eq!(tagged.news(&world), ["{7}:x=1"]);
    let all = world.subscribe("all");
    assert_eq!(world.scanned, 3);
    world.run();
    assert!(all.is_filled(&world));
}

#[test]
fn a_key_that_has_left_is_asked_for_where_it_went() {
    let mut world = two(&[("a", "one")]);
    world.hold("a", "1");
    let mut one = world.subscribe("one");
    world.run();
    one.news(&world);
    world.set("a", "2");
    let (node, flight, _) = world.reads.pop_front().unwrap();
    let gone = ReadError {
        kind: ReadErrorKind::Ask,
        message: "ASK 15495 1:6379".into(),
    };
    world.mirror.replied(node, flight, vec![Err(gone.clone())], world.now);
    world.pass(2);
    assert_eq!((node, world.reads[0].0), (A, B));
    let reading = Reading {
        value: text("2"),
        ttl: None,
    };
    let (node, flight, _) = world.reads.pop_front().unwrap();
    world.mirror.replied(node, flight, vec![Ok(reading)], world.now);
    world.step();
    assert_eq!(one.news(&world), ["a=2!set"]);
    // Once more, and the other node goes before it has answered: it is not forgotten.
    world.set("a", "3");
    world.pass(2);
    let (node, flight, _) = world.reads.pop_front().unwrap();
    world.mirror.replied(node, flight, vec![Err(gone)], world.now);
    world.intake.ear(B).lost(&LostReason::Closed);
    world.step();
    world.run();
    assert_eq!(one.news(&world), ["a=3!set"]);
}
