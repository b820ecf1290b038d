//! A hub for the tests of this module.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::{Access, Appender, Catalog, Channel, Hub, Mode, Options, Retention, Way};

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
            linger: Duration::ZERO,
            snapshot: !name.starts_with("blind:"),
            on_reset: Vec::new(),
        })
    }
}

/// A hub with a channel of every name but those that begin with `no:`. `events:` are events channels, `blind:` are without snapshot.
pub fn hub(max_channels: usize) -> (Arc<Hub>, Appender) {
    Hub::new(Options::channels(max_channels), EPOCH, Names)
}
