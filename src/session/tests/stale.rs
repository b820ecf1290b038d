//! A channel was stale while nobody looked: whoever looks afterwards is told before values that may have gone back.

use std::time::SystemTime;

use super::*;

/// What the steps say, in a word each.
fn words(session: &mut Session, watermark: u64) -> Vec<&'static str> {
    let steps = std::iter::from_fn(|| session.next(watermark));
    let word = |step| match step {
        Step::Message { message, .. } => match message.body {
            Body::Stale { .. } => "stale",
            Body::Fresh { .. } => "fresh",
            _ => "value",
        },
        Step::Ready { .. } => "ready",
        _ => "other",
    };
    steps.map(word).collect()
}

/// The value changes back within `stale` and `fresh`.
fn lose_and_repair(world: &mut World, log: &Arc<Log>) {
    world.appender.stale(log, Reason("lost"), SystemTime::UNIX_EPOCH);
    world.put(log, "k", Some(1));
    world.appender.fresh(log, Reason("lost"), SystemTime::UNIX_EPOCH);
}

#[test]
fn who_comes_back_is_told_what_came_and_went() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    world.put(&log, "k", Some(2));
    let cursor = world.commit();
    lose_and_repair(&mut world, &log);
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::Resume(cursor), watermark, None);
    assert_eq!(words(&mut session, watermark), ["stale", "value", "fresh", "ready"]);
    assert_eq!(words(&mut session, watermark), [""; 0]);
}

#[test]
fn who_knows_nothing_yet_is_not() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    lose_and_repair(&mut world, &log);
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, None);
    assert_eq!(words(&mut session, watermark), ["value", "ready"]);
}

/// Even twice: the value stands between two losses of which only the second is still known.
#[test]
fn who_was_up_to_date_is_told_though_all_came_at_once() {
    let mut world = World::new();
    let subscription = world.open("a");
    let log = subscription.log().clone();
    world.put(&log, "k", Some(2));
    let watermark = world.commit();
    let mut session = Session::new(7);
    session.subscribe(subscription, Start::New, watermark, None);
    assert_eq!(words(&mut session, watermark), ["value", "ready"]);
    assert!(session.is_live());
    lose_and_repair(&mut world, &log);
    world.appender.stale(&log, Reason("late"), SystemTime::UNIX_EPOCH);
    world.appender.fresh(&log, Reason("late"), SystemTime::UNIX_EPOCH);
    let watermark = world.commit();
    assert_eq!(words(&mut session, watermark), ["stale", "value", "fresh", "ready"]);
    assert!(session.is_live());
}
