//! `[limits]`: how much may be held for clients, and asked of the server for them.

use super::compile::{Bounds, Compiler, Name};
use super::diagnostics::Problem;
use super::file;
use crate::{hub, relay};

/// A tenth of the channels, and a hundredth of the subscriptions, that there may be: hundreds of connections behind one
/// address, each with dozens of channels.
const CHANNELS_PER_ADDRESS: usize = 10_000;
/// Each costs some 0.3 KiB: all connections that there may be by default may have 20 channels each.
const SUBSCRIPTIONS: usize = 1_000_000;
/// Each costs some 0.6 KiB without its value; more than this in one process is seldom listened to at once.
const KEYS: usize = 1_000_000;
/// Each new client is sent all of them, and a page that shows more than some thousand shows nobody anything.
const KEYS_PER_CHANNEL: usize = 100_000;
/// What a small machine can spare; the average of [`KEYS`] may then have some 100 bytes, encoded twice.
const LOG_BYTES: u64 = 1 << 30;
/// 64 of the largest values that are sent by default.
const PINNED: u64 = 64 << 20;
/// Nobody notices that a tenth of a core is gone, and a pass over a million keys takes some ten seconds.
const SCAN_SHARE: usize = 10;

const CHANNELS_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=100_000_000,
    why: "without any a client would get nothing, and no more than `max_channels` can be made anyway",
};
const SUBSCRIPTIONS_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=1_000_000_000,
    why: "each costs memory, and without any there is nobody to serve",
};
const KEYS_BOUNDS: Bounds<usize> = Bounds {
    range: 100..=1_000_000_000,
    why: "each key costs memory, and without any there is nothing to show",
};
const KEYS_PER_CHANNEL_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=100_000_000,
    why: "a channel needs a key to show, and each new client is sent all of them",
};
const LOG_BYTES_BOUNDS: Bounds<u64> = Bounds {
    range: 1 << 20..=1 << 40,
    why: "the largest value must fit in it together with what is sent of it, and all of it is memory",
};
const PINNED_BOUNDS: Bounds<u64> = Bounds {
    range: 1 << 20..=1 << 36,
    why: "the rest of one large message must fit, and all of it is memory",
};
const SCAN_SHARE_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=100,
    why: "it is percent of one core: without any no channel of many keys would ever be there",
};

/// Values that are read for the first time may be as large as allowed: many at once for speed, and no more than this.
const READING: usize = 256 << 20;

/// What `[limits]` says of what may be held.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub(crate) channels_per_address: usize,
    pub(crate) subscriptions: usize,
    pub(crate) log_bytes: usize,
    pub(crate) pinned: usize,
    pub(crate) mirror: relay::Limits,
}

fn name(option: &'static str) -> Name {
    Name {
        section: "limits",
        option,
    }
}

impl Compiler<'_> {
    pub(crate) fn room(&mut self, file: &file::Limits) -> Room {
        let mut number =
            |option, written: &Option<_>, default, bounds| self.number(name(option), written.as_ref(), default, bounds);
        let channels_per_address = number(
            "channels_per_address",
            &file.channels_per_address,
            CHANNELS_PER_ADDRESS,
            &CHANNELS_BOUNDS,
        );
        let subscriptions = number(
            "subscriptions",
            &file.subscriptions,
            SUBSCRIPTIONS,
            &SUBSCRIPTIONS_BOUNDS,
        );
        let keys = number("keys", &file.keys, KEYS, &KEYS_BOUNDS);
        let keys_per_channel = number(
            "keys_per_channel",
            &file.keys_per_channel,
            KEYS_PER_CHANNEL.min(keys),
            &KEYS_PER_CHANNEL_BOUNDS,
        );
        let scan_share = number("scan_share", &file.scan_share, SCAN_SHARE, &SCAN_SHARE_BOUNDS);
        let mut size = |option, written: &Option<_>, default, bounds| {
            let size = self.size(name(option), written.as_ref(), default, bounds);
            usize::try_from(size).unwrap_or(usize::MAX)
        };
        let log_bytes = size("log_bytes", &file.log_bytes, LOG_BYTES, &LOG_BYTES_BOUNDS);
        let pinned = size("pinned", &file.pinned, PINNED, &PINNED_BOUNDS);
        if let Some(written) = file.keys_per_channel.as_ref().filter(|_| keys_per_channel > keys) {
            let problem = Problem::new(written.at, "`keys_per_channel` is more than `keys`", "never reached")
                .why(format!("all channels together may have {keys} keys"))
                .instead("make `keys_per_channel` smaller, or `keys` larger");
            self.problems.add(problem);
        }
        Room {
            channels_per_address,
            subscriptions,
            log_bytes,
            pinned,
            mirror: relay::Limits {
                keys,
                keys_per_channel,
                // More has no place in the logs anyway.
                reading: READING.min(log_bytes),
                scan_share: scan_share as u32,
            },
        }
    }
}

impl Room {
    /// As the hub takes it.
    pub(crate) fn hub(&self, max_channels: usize) -> hub::Options {
        hub::Options {
            max_channels,
            channels_per_maker: self.channels_per_address,
            subscriptions: self.subscriptions,
            log_bytes: self.log_bytes,
        }
    }
}
