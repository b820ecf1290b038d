//! Which logs there are, when one goes, and who is told that one has grown.

use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::*;
use crate::hub::{Channel, Mode, Payload, Retention, Snapshot, Way};

mod limits;

struct Any;

impl Catalog for Any {
    fn access(&self, name: &str) -> Option<Vec<Access>> {
        self.describe(name).map(|_| vec![vec![Way::Public]])
    }

    fn describe(&self, name: &str) -> Option<Channel> {
        let retention = Retention {
            messages: 10,
            bytes: 1000,
            age: Duration::from_secs(1),
        };
        (!name.starts_with("no")).then(|| Channel {
            name: name.into(),
            mode: Mode::Events,
            event_name: None,
            retention,
            snapshot: true,
            on_reset: Vec::new(),
        })
    }
}

fn hub(max_channels: usize) -> (Arc<Hub>, Appender) {
    Hub::new(Options::channels(max_channels), 7, Any)
}

#[test]
fn a_name_that_no_mapping_gives_is_refused() {
    let (hub, _appender) = hub(10);
    assert_eq!(hub.subscribe("nope", true).err(), Some(SubscribeError::Unknown));
    assert_eq!(hub.channels(), 0);
}

#[test]
fn at_the_limit_the_log_that_is_idle_longest_goes() {
    let (hub, _appender) = hub(2);
    let a = hub.subscribe("a", true).unwrap();
    let b = hub.subscribe("b", true).unwrap();
    assert_eq!(
        hub.subscribe("c", true).err(),
        Some(SubscribeError::Full(Limit::Channels))
    );
    let (log_a, log_b) = (a.log().clone(), b.log().clone());
    drop((b, a));
    let again = hub.subscribe("b", true).unwrap();
    assert!(Arc::ptr_eq(again.log(), &log_b));
    let _c = hub.subscribe("c", true).unwrap();
    assert!(log_a.view().is_closed() && !log_b.view().is_closed());
    assert!(hub.interest().iter().any(|log| log.id == log_a.id));
}

#[test]
fn a_log_with_a_subscriber_cannot_be_closed() {
    let (hub, _appender) = hub(2);
    let a = hub.subscribe("a", true).unwrap();
    let log = a.log().clone();
    assert!(!hub.close(&log));
    drop(a);
    assert!(hub.close(&log));
    let b = hub.subscribe("a", true).unwrap();
    assert!(!Arc::ptr_eq(b.log(), &log));
    for _ in 0..100 {
        drop(hub.subscribe("a", true).unwrap());
    }
    drop(b);
    assert_eq!(
        hub.registry().makers.counts(),
        (1, 1),
        "coming and going leaves nothing behind"
    );
}

#[test]
fn interest_names_each_changed_log_once() {
    let (hub, _appender) = hub(2);
    let a = hub.subscribe("a", true).unwrap();
    drop(a);
    let _a = hub.subscribe("a", true).unwrap();
    let logs = hub.interest();
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].view().subscribers(), 1);
    assert!(hub.interest().is_empty());
}

#[test]
fn a_shard_hears_of_its_logs_with_the_watermark_that_covers_them() {
    let (hub, mut appender) = hub(4);
    let (other, inbox) = (hub.open_inbox(), hub.open_inbox());
    let (a, b) = (hub.subscribe("a", true).unwrap(), hub.subscribe("b", true).unwrap());
    a.log().view().set_shard(inbox.shard, true);
    let payload = Payload {
        live: "1".into(),
        snapshot: Snapshot::Same,
        json: true,
        absent: false,
    };
    appender.push(a.log(), payload.clone(), Instant::now());
    appender.push(b.log(), payload.clone(), Instant::now());
    appender.push(a.log(), payload, Instant::now());
    assert_eq!(inbox.take().watermark, 0, "nothing is visible before the commit");
    appender.commit();
    let woken = |inbox: &Inbox| inbox.bell().rung().now_or_never().is_some();
    assert_eq!((woken(&inbox), woken(&other)), (true, false));
    let delivery = inbox.take();
    assert_eq!((delivery.watermark, delivery.grown.len()), (3, 1));
    assert!(Arc::ptr_eq(&delivery.grown[0], a.log()));
    assert!(inbox.take().grown.is_empty());
}

#[test]
fn no_shard_is_told_of_progress_before_another() {
    let (hub, mut appender) = hub(1);
    let (first, second) = (hub.open_inbox(), hub.open_inbox());
    let a = hub.subscribe("a", false).unwrap();
    let last = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..last {
                appender.activate(a.log());
                appender.commit();
            }
        });
        let mut seen = 0;
        while seen < last {
            seen = first.take().watermark;
            let other = second.take().watermark;
            assert!(other >= seen, "the one is at {seen}, the other still at {other}");
        }
    });
}
