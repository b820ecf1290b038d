//! What the mirror may hold.

use super::super::limits::BARRED;
use super::*;
use crate::hub::{Limit, SubscribeError};

/// A world that may hold so many keys, and one channel so many.
fn world(keys: usize, keys_per_channel: usize) -> World {
    let rules = (0..).zip([
        ("m:{room}:{id}", "room:{room}"),
        ("k:{id}", "{id}"),
        ("e:{id}", "log:{id}"),
        ("e:{room}:{id}", "log:{room}"),
    ]);
    let rules = rules.map(|(id, (key, channel))| rule(id, key, channel));
    let limits = Limits {
        keys,
        keys_per_channel,
        ..Limits::NONE
    };
    let mut world = World::limited(rules.collect(), None, hub::Options::channels(1000), limits);
    world.up();
    world
}

fn leak(text: String) -> &'static str {
    text.leak()
}

fn refused(world: &World, name: &str) -> Option<SubscribeError> {
    world.hub.subscribe(name, true).err()
}

fn ended(client: &Client) -> Option<Limit> {
    match client.subscription.log().view().ended()? {
        hub::Ended::Limit(limit) => Some(limit),
        hub::Ended::Revised => panic!("nothing was revised"),
    }
}

/// A world in which these keys were found to need most of the room for what is read.
fn with_large(keys: &[&'static str]) -> (World, Client) {
    let limits = Limits {
        reading: 8 << 20,
        ..Limits::NONE
    };
    let rules = [rule(0, "k:{id}", "k")].into();
    let mut world = World::limited(rules, None, hub::Options::channels(1000), limits);
    world.up();
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.broken = Some(ReadErrorKind::NoRoom(5 << 20));
    for key in keys {
        world.set(key, "a");
    }
    while !world.reads.is_empty() {
        world.answer();
    }
    world.broken = None;
    world.asked();
    (world, client)
}

/// Others keep the server busy all the time.
#[test]
fn a_key_that_needs_most_of_the_room_is_read_alone() {
    let (mut world, mut client) = with_large(&["k:large"]);
    for _ in 0..100 {
        for key in ["k:1", "k:2", "k:3"] {
            world.set(key, "a");
        }
        world.pass(10);
        if world.asked().last().is_some_and(|key| key == "k:large") {
            let sizes: Vec<_> = world.reads.iter().map(|(_, _, results)| results.len()).collect();
            assert_eq!(sizes, [1], "nothing else is under way");
            world.set("k:1", "b");
            assert_eq!(world.asked(), [""; 0], "and nothing else begins");
            world.run();
            assert!(client.news(&world).contains(&"k:large=a!set".to_owned()));
            return;
        }
        // One is always under way when the next is wanted.
        if !world.reads.is_empty() {
            world.answer();
        }
    }
    panic!("it is never read");
}

/// Four batches are under way at most, so that each takes no more than a quarter of a small room.
#[test]
fn batches_are_no_larger_than_their_share_of_the_room() {
    let (mut world, mut client) = with_large(&[]);
    let keys: Vec<_> = (0..20).map(|id| leak(format!("k:{id}"))).collect();
    for key in &keys {
        world.set(key, "a");
    }
    world.run();
    world.pass(10);
    for key in &keys {
        world.mirror.keys.get_mut(key.as_bytes()).expect("a key").size = Some(1 << 20);
        world.set(key, "b");
    }
    let mut largest = 0;
    while let Some((_, _, results)) = world.reads.front() {
        largest = largest.max(results.len());
        world.answer();
    }
    assert_eq!(largest, 2);
    assert_eq!(
        client.news(&world).iter().filter(|news| news.contains("=b")).count(),
        keys.len()
    );
}

/// However often they change, others have their turn; and so have those that only need to be known.
#[test]
fn keys_that_are_read_alone_keep_no_others_from_being_read() {
    const LARGE: [&str; 3] = ["k:a", "k:b", "k:c"];
    let (mut world, mut client) = with_large(&LARGE);
    let mut newcomer = None;
    for round in 0..100 {
        for key in LARGE {
            world.set(key, if round % 2 == 0 { "x" } else { "y" });
            // What they hold here is small.
            world.mirror.keys.get_mut(key.as_bytes()).expect("a key").size = Some(5 << 20);
        }
        if round == 10 {
            world.set("k:small", "a");
            newcomer = Some(world.subscribe("k"));
        }
        world.pass(10);
        // They change faster than they are read.
        if !world.reads.is_empty() {
            world.answer();
        }
        if !world.pages.is_empty() {
            world.answer_page();
        }
    }
    let news = client.news(&world);
    assert!(news.contains(&"k:small=a!set".to_owned()), "{news:?}");
    for key in LARGE {
        assert!(news.iter().any(|news| news.starts_with(key)), "{key}: {news:?}");
    }
    assert!(newcomer.is_some_and(|newcomer| newcomer.is_filled(&world)));
}

#[test]
fn a_channel_with_too_many_keys_is_ended_and_barred_for_a_while() {
    let mut world = world(1000, 3);
    let mut small = world.subscribe("room:small");
    world.hold("m:small:1", "s");
    for id in 0..4 {
        world.hold(leak(format!("m:big:{id}")), "x");
    }
    let big = world.subscribe("room:big");
    world.run();
    assert_eq!(ended(&big), Some(Limit::KeysPerChannel));
    assert!(!big.is_filled(&world), "what cannot be whole is not called so");
    assert!(small.is_filled(&world));
    assert_eq!(small.news(&world), ["m:small:1=s"]);
    assert_eq!(world.mirror.keys.len(), 1, "nothing of it is left");
    assert_eq!(
        refused(&world, "room:big"),
        Some(SubscribeError::Full(Limit::KeysPerChannel))
    );
    assert_eq!(world.hub.channels(), 1, "who asks again makes nothing");
    for id in 1..4 {
        world.keys.remove(format!("m:big:{id}").as_str());
    }
    world.pass(BARRED.as_millis() as u64 + 1);
    let mut again = world.subscribe("room:big");
    world.run();
    assert_eq!(again.news(&world), ["m:big:0=x"]);
}

#[test]
fn a_channel_that_grows_beyond_is_ended_and_others_go_on() {
    let mut world = world(1000, 3);
    for id in 0..3 {
        world.hold(leak(format!("m:a:{id}")), "x");
    }
    let a = world.subscribe("room:a");
    let mut b = world.subscribe("room:b");
    world.run();
    assert!(a.is_filled(&world) && b.is_filled(&world));
    world.set("m:a:3", "x");
    world.set("m:b:0", "y");
    world.run();
    assert_eq!(ended(&a), Some(Limit::KeysPerChannel));
    assert_eq!(b.news(&world), ["m:b:0=y!set"]);
}

#[test]
fn lingering_channels_go_before_new_ones_are_refused_and_open_ones_may_grow() {
    let mut world = world(8, 8);
    for id in 0..3 {
        world.hold(leak(format!("m:old:{id}")), "x");
    }
    let old = world.subscribe("room:old");
    world.run();
    drop(old);
    world.run();
    let mut held: Vec<Client> = Vec::new();
    for id in 0..5 {
        held.push(world.subscribe(&id.to_string()));
        world.run();
    }
    assert_eq!(world.hub.channels(), 5, "the lingering channel made room");
    assert_eq!(world.mirror.keys.len(), 5);
    for id in 5..7 {
        held.push(world.subscribe(&id.to_string()));
        world.run();
    }
    assert_eq!(refused(&world, "7"), Some(SubscribeError::Full(Limit::Keys)));
    let mut grows = held.pop().unwrap();
    assert!(grows.is_filled(&world));
    drop(held.pop());
    world.run();
    world.pass(1);
    let mut room = world.subscribe("room:r");
    world.run();
    assert!(room.is_filled(&world));
    assert_eq!(refused(&world, "7").map(|_| ()), None);
    // Into the last eighth none but those that are whole may grow.
    world.set("m:r:0", "1");
    world.set("m:r:1", "2");
    world.run();
    assert_eq!(room.news(&world), ["m:r:0=1!set", "m:r:1=2!set"]);
    world.set("m:r:2", "3");
    world.run();
    assert_eq!(ended(&room), Some(Limit::Keys));
    world.set("k:6", "x");
    world.run();
    assert!(ended(&grows).is_none() && grows.is_filled(&world));
    assert_eq!(grows.news(&world).last().map(String::as_str), Some("k:6=x!set"));
}

#[test]
fn a_happening_without_a_place_for_its_key_is_a_gap() {
    let mut world = world(8, 8);
    let mut log = world.subscribe("log:a");
    let mut room = world.subscribe("room:r");
    let held: Vec<Client> = (0..7).map(|id| world.subscribe(&id.to_string())).collect();
    world.run();
    world.set("m:r:0", "1");
    world.run();
    assert_eq!((world.mirror.keys.len(), room.news(&world).len()), (8, 1));
    world.set("e:a", "1");
    world.run();
    assert_eq!(log.news(&world), ["gap overflow Some(1)"]);
    drop(held);
}

#[test]
fn happenings_without_a_place_are_one_gap_and_leave_the_last_keys_to_others() {
    let mut world = world(8, 8);
    let mut log = world.subscribe("log:a");
    let mut room = world.subscribe("room:r");
    let held: Vec<Client> = (0..6).map(|id| world.subscribe(&id.to_string())).collect();
    world.run();
    world.set("e:a", "1");
    // It waits for its value, and what comes behind it has no place.
    let many = |world: &mut World| {
        (0..1_000).for_each(|_| world.event("e:a:2", "set"));
        world.step();
    };
    (0..3).for_each(|_| many(&mut world));
    assert_eq!(world.mirror.keys.len(), 7);
    world.set("m:r:0", "1");
    world.run();
    assert_eq!(room.news(&world), ["m:r:0=1!set"], "the last place is for it");
    assert_eq!(log.news(&world), ["e:a=1!set", "gap overflow Some(3000)"]);
    // Where nothing waits, those of one moment are one.
    many(&mut world);
    assert_eq!(log.news(&world), ["gap overflow Some(1000)"]);
    drop(held);
}

#[test]
fn keys_that_come_and_go_while_nothing_can_be_read_leave_no_queue() {
    let mut world = world(1000, 1000);
    world.lost();
    for round in 0..5_000 {
        drop(world.subscribe(&format!("k{}", round % 7)));
        world.pass(0);
    }
    let queued = world.mirror.nodes[NODE].queue.len();
    assert!(queued < 2_000, "{queued}");
}
