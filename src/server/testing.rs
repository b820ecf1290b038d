//! A hub for the tests of this module, and what serves connections in front of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Head;
use super::connection::Site;
use super::door::{Arrival, Door};
use super::gate::Gate;
use super::listen::Accepted;
use super::request::Desk;
use super::terms::Live;
use crate::fanout::{self, Shard};
use crate::hub::{
    Access, Appender, Catalog, Channel, Hub, Mode, Options, Payload, Retention, SlotKey, Snapshot, Subscription, Way,
};
use crate::limits::{self, Limits};

/// The epoch of [`hub`].
pub const EPOCH: u64 = 7;

struct Names;

impl Catalog for Names {
    fn access(&self, name: &str) -> Option<Vec<Access>> {
        self.describe(name).map(|_| vec![vec![Way::Public]])
    }

    fn describe(&self, name: &str) -> Option<Channel> {
        (!name.starts_with("no:")).then(|| Channel {
            name: name.into(),
            mode: if name.starts_with("events:") {
                Mode::Events
            } else {
                Mode::State
            },
            event_name: None,
            retention: Retention {
                messages: 100,
                bytes: 1 << 20,
                age: Duration::from_secs(60),
            },
            snapshot: !name.starts_with("blind:"),
            on_reset: Vec::new(),
        })
    }
}

/// A hub with a channel of every name but those that begin with `no:`. `events:` are events channels, `blind:` are without snapshot.
pub fn hub(max_channels: usize) -> (Arc<Hub>, Appender) {
    Hub::new(Options::channels(max_channels), EPOCH, Names)
}

/// Puts a value of this many bytes into the channel `big`, which is there for as long as somebody holds it.
pub fn filled(hub: &Arc<Hub>, appender: &mut Appender, size: usize) -> Subscription {
    let held = hub.subscribe("big", true).expect("there is room");
    let payload = Payload {
        live: vec![b'1'; size].into(),
        snapshot: Snapshot::Same,
        json: false,
        absent: false,
    };
    let key = SlotKey {
        source: 0,
        name: Bytes::new(),
    };
    appender.put(held.log(), key, false, Some(payload), std::time::Instant::now());
    appender.fill(held.log());
    appender.commit();
    held
}

/// How long a client of [`site`] may take nothing.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection of [`site`] lives that carries many streams.
pub const LIFETIME: Duration = Duration::from_secs(100);

/// What serves connections, and the shard that it hands streams to.
pub fn site(hub: &Arc<Hub>) -> (Rc<Site>, Shard) {
    let options = fanout::Options {
        heartbeat: Duration::from_secs(15),
        write_timeout: WRITE_TIMEOUT,
        drain: Duration::from_secs(4),
        bounds: fanout::Bounds::default(),
        pinned: 64 << 20,
    };
    let (shard, handle) = fanout::shard(options, hub, Arc::default(), 0).expect("a shard can be started");
    let limits = Limits::new(limits::Options::default(), Arc::default());
    let desk = Desk {
        path: String::new(),
        gate: Gate::new(hub.clone(), Live::default(), limits.clone()),
        limits,
        channels: 1_000,
        drain: CancellationToken::new(),
        front: None,
    };
    let site = Site {
        desk: Rc::new(desk),
        shard: handle,
        head: Head::default(),
        write_timeout: WRITE_TIMEOUT,
        lifetime: Some(LIFETIME),
        tls: None,
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
    };
    (Rc::new(site), shard)
}

/// A connection that was let in.
pub fn arrival(site: &Site, stream: Accepted) -> Arrival {
    let door = Door::new(site.desk.limits.clone(), Live::default());
    door.admit(stream).expect("there is a place")
}

/// Reads 64 KiB at a time and then waits this long, until the connection ends: how long that took, and how many bytes came.
pub async fn drip(client: &mut (impl AsyncRead + Unpin), wait: Duration) -> (Duration, usize) {
    let since = Instant::now();
    let (mut size, mut buffer) = (0, vec![0; 64 << 10]);
    // A reset is an end as well.
    while let Ok(read @ 1..) = client.read(&mut buffer).await {
        size += read;
        sleep(wait).await;
    }
    (since.elapsed(), size)
}
