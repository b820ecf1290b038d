//! What is published: told as it was, in its place among what happens to keys.

use super::super::backlog::BACKLOG;
use super::*;

fn publish(world: &mut World, topic: &str, message: &[u8]) {
    world.intake.published(topic.as_bytes(), message);
}

#[test]
fn messages_are_told_as_they_were_and_nothing_is_read() {
    let mut world = World::new(&[("pub:{t}", "log:{t}")]);
    let mut client = world.subscribe("log:a");
    assert!(client.is_filled(&world));
    publish(&mut world, "pub:a", b"one");
    publish(&mut world, "pub:b", b"nobody listens");
    publish(&mut world, "pub:a", b"one");
    world.event("pub:a", "set");
    world.step();
    assert_eq!(client.news(&world), ["pub:a=one", "pub:a=one"]);
    assert_eq!(world.asked(), [""; 0]);
}

#[test]
fn a_message_waits_for_the_happening_before_it() {
    let mut world = World::new(&[("pub", "log"), ("job:{id}", "log")]);
    let mut client = world.subscribe("log");
    publish(&mut world, "pub", b"first");
    world.set("job:1", "a");
    publish(&mut world, "pub", b"third");
    world.step();
    assert_eq!(client.news(&world), ["pub=first"]);
    world.run();
    assert_eq!(client.news(&world), ["job:1=a!set", "pub=third"]);
}

#[test]
fn a_message_that_cannot_be_routed_is_passed_over() {
    let mut world = World::new(&[("pub", "log:{json.id}")]);
    let mut client = world.subscribe("log:7");
    for message in [
        "no json",
        r#"{"id":8}"#,
        r#"{"id":"7"}"#,
        r#"{"id":null}"#,
        r#"{"id":7}"#,
    ] {
        publish(&mut world, "pub", message.as_bytes());
    }
    world.step();
    assert_eq!(client.news(&world), [r#"pub={"id":"7"}"#, r#"pub={"id":7}"#]);
}

#[test]
fn what_overflows_by_number_or_bytes_is_counted_in_its_place() {
    let mut rule = rule(0, "pub", "log");
    rule.max_value = 1 << 20;
    let mut world = World::of(vec![rule]);
    world.up();
    let mut client = world.subscribe("log");
    for _ in 0..BACKLOG + 2 {
        publish(&mut world, "pub", b"x");
    }
    world.step();
    assert_eq!(client.news(&world).last().unwrap(), "gap overflow Some(2)");
    let large = vec![b'x'; 1 << 20];
    for _ in 0..7 {
        publish(&mut world, "pub", &large);
    }
    world.step();
    assert_eq!(client.news(&world).last().unwrap(), "gap overflow Some(3)");
    // What waited was taken: there is room again.
    publish(&mut world, "pub", b"after");
    world.step();
    assert_eq!(client.news(&world), ["pub=after"]);
}

#[test]
fn what_is_too_large_is_told_to_be_so() {
    let mut world = World::new(&[("pub", "log")]);
    let mut client = world.subscribe("log");
    publish(&mut world, "pub", &[b'x'; 1001]);
    world.step();
    let Body::Change(payload) = client_last(&client, &world) else {
        panic!("a message")
    };
    assert_eq!(&payload.live[..], br#"{"channel":"log","key":"pub","too_large":true}"#);
    assert_eq!(client.news(&world).len(), 1);
}

fn client_last(client: &Client, world: &World) -> Body {
    let mut last = None;
    let log = client.subscription.log();
    log.view()
        .since(0, world.hub.watermark(), |message| last = Some(message.body.clone()));
    last.expect("a message")
}

#[test]
fn a_loss_is_a_gap() {
    let mut world = World::new(&[("pub", "log")]);
    let mut client = world.subscribe("log");
    world.run();
    publish(&mut world, "pub", b"a");
    world.lost();
    world.up();
    publish(&mut world, "pub", b"b");
    world.run();
    let mut news = client.news(&world);
    news.retain(|each| !each.starts_with("fresh"));
    assert_eq!(news, ["pub=a", "gap upstream-lost None", "pub=b"]);
}
