//! Channels that must be enumerated.

use super::*;

#[test]
fn a_channel_of_a_pattern_is_whole_when_all_found_keys_are_read() {
    let mut world = World::new(&[("message:{room}:{id}", "room:{room}"), ("topic:{room}", "room:{room}")]);
    world.hold("message:1:a", "x");
    world.hold("message:1:b", "y");
    world.hold("message:2:a", "z");
    world.hold("topic:1", "t");
    let mut client = world.subscribe("room:1");
    world.answer();
    assert!(!client.is_filled(&world));
    world.answer_page();
    assert!(!client.is_filled(&world));
    world.answer();
    assert!(client.is_filled(&world));
    assert_eq!(client.news(&world), ["topic:1=t", "message:1:a=x", "message:1:b=y"]);
}

#[test]
fn a_thousand_rooms_that_come_at_once_cost_two_passes() {
    let mut world = World::new(&[("message:{room}:{id}", "room:{room}")]);
    world.hold("message:1:a", "x");
    world.hold("message:999:a", "y");
    let names: Vec<String> = (0..1000).map(|room| format!("room:{room}")).collect();
    let mut clients: Vec<Client> = names.iter().map(|name| world.subscribe(name)).collect();
    assert_eq!(world.pages[0].1.glob.as_deref(), Some(&b"message:0:*"[..]));
    world.answer_page();
    world.run();
    assert_eq!(world.mirror.passes, 2);
    assert!(clients.iter().all(|client| client.is_filled(&world)));
    assert_eq!(clients[999].news(&world), ["message:999:a=y"]);
    assert_eq!(world.asked().len(), 2);
}

#[test]
fn a_key_that_is_heard_and_found_is_read_once() {
    let mut world = World::new(&[("m:{id}", "all")]);
    let mut client = world.subscribe("all");
    world.set("m:1", "a");
    world.answer();
    world.answer_page();
    assert!(client.is_filled(&world));
    assert_eq!(world.asked(), ["m:1"]);
    assert_eq!(client.news(&world), ["m:1=a!set"]);
}

#[test]
fn a_channel_is_not_whole_before_a_key_is_read_that_was_heard_during_the_scan() {
    let mut world = World::new(&[("m:{id}", "all")]);
    world.hold("m:2", "b");
    let mut client = world.subscribe("all");
    world.set("m:1", "a");
    // The scan ends first and passes by the key that is known already.
    world.answer_page();
    assert!(!client.is_filled(&world));
    world.run();
    assert!(client.is_filled(&world));
    assert_eq!(client.news(&world), ["m:1=a!set", "m:2=b"]);
}

#[test]
fn a_refused_page_is_asked_for_again_and_after_a_second_clients_know() {
    let mut world = World::new(&[("m:{id}", "all")]);
    world.hold("m:1", "a");
    let mut client = world.subscribe("all");
    for _ in 0..200 {
        if let Some((_, page)) = world.pages.pop_front() {
            let refused = Err(error(ReadErrorKind::Loading));
            world
                .mirror
                .scanned(NODE, page.pass, refused, Duration::ZERO, world.now);
        }
        world.pass(10);
    }
    assert!(world.scanned < 20, "{}", world.scanned);
    assert_eq!(client.news(&world), ["stale loading"]);
    world.pass(1000);
    world.run();
    assert_eq!(client.news(&world), ["m:1=a", "fresh loading"]);
    assert_eq!(world.mirror.passes, 1);
}

#[test]
fn a_page_that_never_comes_costs_the_connection() {
    let mut world = World::new(&[("m:{id}", "all")]);
    world.hold("m:1", "a");
    let mut client = world.subscribe("all");
    let (_, page) = world.pages.pop_front().unwrap();
    let never = Err(error(ReadErrorKind::Timeout));
    world.mirror.scanned(NODE, page.pass, never, Duration::ZERO, world.now);
    assert!(world.mirror.wants_reader(NODE).is_some());
    world.run();
    assert_eq!(client.news(&world), ["m:1=a"]);
    assert_eq!(world.mirror.passes, 2);
}

#[test]
fn a_flush_during_a_pass_begins_it_anew() {
    let mut world = World::new(&[("m:{id}", "all")]);
    world.hold("m:1", "a");
    let mut client = world.subscribe("all");
    world.intake.flushed(Cause::Signal);
    world.step();
    world.answer_page();
    assert!(!client.is_filled(&world));
    assert_eq!(world.asked(), [""; 0]);
    world.run();
    assert_eq!(client.news(&world), ["m:1=a"]);
    assert!(client.is_filled(&world));
}

#[test]
fn a_pass_that_nobody_waits_for_any_more_ends() {
    let mut world = World::new(&[("m:{id}", "all")]);
    let client = world.subscribe("all");
    drop(client);
    world.step();
    let (_, page) = world.pages.pop_front().unwrap();
    let more = ScanPage {
        next: Some(Cursor::start()),
        keys: vec![],
    };
    world
        .mirror
        .scanned(NODE, page.pass, Ok(more), Duration::ZERO, world.now);
    world.pass(1000);
    assert_eq!(world.pages.len(), 0);
    let client = world.subscribe("all");
    world.run();
    assert!(client.is_filled(&world));
}

#[test]
fn a_channel_that_is_closed_waits_for_no_pass() {
    let mut world = World::new(&[("message:{room}:{id}", "room:{room}")]);
    let _first = world.subscribe("room:first");
    // The pass under way is the first one's, and its page does not come.
    let others: Vec<Client> = (0..100).map(|room| world.subscribe(&format!("room:{room}"))).collect();
    assert_eq!(world.mirror.nodes[NODE].scans.waiting.len(), 100);
    drop(others);
    world.step();
    world.pass(LINGER.as_millis() as u64);
    world.step();
    assert_eq!(world.hub.channels(), 1);
    assert_eq!(world.mirror.nodes[NODE].scans.waiting.len(), 0);
}
