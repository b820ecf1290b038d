//! Reads that fail: no key is forgotten, the server is not pestered, and after a second clients know.

use super::*;

/// Lets `milliseconds` pass in steps of ten, everything being answered at once.
fn live(world: &mut World, milliseconds: u64) {
    for _ in 0..milliseconds / 10 {
        world.pass(10);
        while !world.reads.is_empty() {
            world.answer();
        }
    }
}

#[test]
fn a_key_that_cannot_be_read_is_asked_for_again_and_after_a_second_clients_know() {
    let mut world = World::new(&[("k", "k"), ("other", "other")]);
    let mut client = world.subscribe("k");
    let mut other = world.subscribe("other");
    world.run();
    client.news(&world);
    other.news(&world);
    world.asked();

    world.broken = Some(ReadErrorKind::NoPermission);
    world.set("k", "a");
    live(&mut world, 990);
    let tries = world.asked().len();
    assert!((5..20).contains(&tries), "{tries}");
    assert_eq!(client.news(&world), [""; 0]);
    live(&mut world, 2000);
    assert_eq!(client.news(&world), ["stale no-permission"]);
    world.broken = None;
    live(&mut world, 2000);
    assert_eq!(client.news(&world), ["k=a!set", "fresh no-permission"]);
    assert_eq!(other.news(&world), [""; 0]);
}

#[test]
fn fresh_comes_after_every_key_that_could_not_be_read() {
    const KEYS: usize = 20;
    let mut world = World::new(&[("k:{id}", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.broken = Some(ReadErrorKind::NoPermission);
    for key in 0..KEYS {
        world.set(format!("k:{key}").leak(), "a");
    }
    // Told by the first key that fails after a second; the others are not asked for again before it.
    let told = (0..300).find_map(|_| {
        live(&mut world, 10);
        Some(client.news(&world)).filter(|news| !news.is_empty())
    });
    assert_eq!(told, Some(vec!["stale no-permission".to_owned()]));
    world.broken = None;
    live(&mut world, 2000);
    let news = client.news(&world);
    assert_eq!(news.len(), KEYS + 1);
    assert_eq!(news.last().map(String::as_str), Some("fresh no-permission"));
}

#[test]
fn many_keys_that_cannot_be_read_are_asked_for_at_a_steady_pace_and_at_once_when_one_can_be() {
    const KEYS: usize = 5000;
    let mut world = World::new(&[("k:{id}", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.broken = Some(ReadErrorKind::NoPermission);
    for key in 0..KEYS {
        world.set(format!("k:{key}").leak(), "a");
    }
    live(&mut world, 2500);
    world.asked();
    live(&mut world, 5000);
    let tries = world.asked().len();
    assert!((800..1200).contains(&tries), "{tries}");
    assert_eq!(client.news(&world), ["stale no-permission"]);
    world.broken = None;
    live(&mut world, 100);
    let news = client.news(&world);
    assert_eq!(news.len(), KEYS + 1);
    assert_eq!(news.last().map(String::as_str), Some("fresh no-permission"));
}

#[test]
fn a_server_that_refuses_all_is_asked_by_few_and_all_who_wait_know() {
    let mut world = World::new(&[("k:{id}", "k:{id}"), ("job:{id}", "log")]);
    let mut log = world.subscribe("log");
    let mut quiet = world.subscribe("k:quiet");
    world.run();
    quiet.news(&world);
    log.news(&world);
    world.asked();
    world.broken = Some(ReadErrorKind::Busy);
    world.set("job:1", "a");
    let mut clients: Vec<Client> = (0..1000 - 2).map(|id| world.subscribe(&format!("k:{id}"))).collect();
    live(&mut world, 3000);
    let tries = world.asked().len();
    assert!((20..300).contains(&tries), "{tries}");
    for client in clients.iter_mut().chain([&mut log]) {
        assert_eq!(client.news(&world), ["stale busy"]);
        assert_eq!(
            client.subscription.log().channel.mode == Mode::State,
            !client.is_filled(&world)
        );
    }
    assert_eq!(quiet.news(&world), [""; 0]);
    world.broken = None;
    live(&mut world, 2000);
    assert_eq!(log.news(&world), ["job:1=a!set", "fresh busy"]);
    for client in &mut clients {
        assert!(client.is_filled(&world));
        assert!(client.news(&world)[1].starts_with("fresh"));
    }
}

/// Keys that all grow at once: what found no room is asked for again by as few at once as it needs.
#[test]
fn keys_without_room_are_read_in_smaller_batches() {
    const KEYS: usize = 20;
    let mut world = World::new(&[("k:{id}", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.broken = Some(ReadErrorKind::NoRoom(BATCH_BYTES as u64 / 2));
    for key in 0..KEYS {
        world.set(format!("k:{key}").leak(), "a");
    }
    let mut largest = 0;
    while let Some((_, _, results)) = world.reads.front() {
        largest = largest.max(results.len());
        world.answer();
    }
    assert!(largest > 2, "they were asked for together");
    world.broken = None;
    for _ in 0..100 {
        world.pass(10);
        assert!(world.reads.iter().all(|(_, _, results)| results.len() <= 2));
        while !world.reads.is_empty() {
            world.answer();
        }
    }
    let news = client.news(&world);
    assert_eq!(news.len(), KEYS, "{news:?}");
}

#[test]
fn an_answer_that_does_not_come_is_told_after_a_second() {
    let mut world = World::new(&[("k", "k"), ("job:{id}", "log")]);
    let (mut client, mut log) = (world.subscribe("k"), world.subscribe("log"));
    world.run();
    client.news(&world);
    world.set("k", "a");
    world.set("job:1", "b");
    world.pass(999);
    assert_eq!(client.news(&world), [""; 0]);
    world.pass(1);
    assert_eq!(client.news(&world), ["stale timeout"]);
    assert_eq!(log.news(&world), ["stale timeout"]);
    world.run();
    assert_eq!(client.news(&world), ["k=a!set", "fresh timeout"]);
    assert_eq!(log.news(&world), ["job:1=b!set", "fresh timeout"]);
}

#[test]
fn a_connection_without_answers_is_replaced() {
    let mut world = World::new(&[("k", "k")]);
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.broken = Some(ReadErrorKind::Timeout);
    world.set("k", "a");
    world.broken = None;
    let (_, flight, results) = world.reads.pop_front().unwrap();
    world.mirror.replied(NODE, flight, results, world.now);
    assert!(world.mirror.wants_reader(NODE).is_some());
    world.run();
    assert_eq!(client.news(&world), ["k=a!set"]);
}
