//! What the hub's logs may take, and what is counted when that is reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::limits::Count;

/// Of every limit that a channel may grow into, the last eighth is kept for the channels that are whole: what is opened
/// or still being read is turned away before, so that strangers cannot take the room in which others grow.
const RESERVE: usize = 8;

/// Of the bytes of all logs, the last quarter is not for encodings: they are only copies, and must take neither the room in
/// which whole channels grow ([`RESERVE`]) nor as much again that is left for new ones.
const NO_COPIES: usize = 4;

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Channels in all.
    Channels,
    /// Channels that one client's address made, or has open on all its connections.
    ChannelsPerAddress,
    /// Subscriptions in all: each connection has one for each of its channels.
    Subscriptions,
    /// Keys behind all channels.
    Keys,
    /// Keys behind one channel.
    KeysPerChannel,
    /// Bytes of all logs.
    LogBytes,
}

/// Why a log was closed although it had subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The limit does not let it be what it should be.
    Limit(Limit),
    /// What the channel is, or who may read it, is another thing now.
    Revised,
}

/// How often each limit was reached since the start.
#[derive(Debug)]
pub struct Counts {
    start: Instant,
    limits: [Count; Limit::ALL.len()],
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            start: Instant::now(),
            limits: Default::default(),
        }
    }
}

impl Counts {
    /// Counts that a limit was reached, and names it in the log now and then.
    pub fn hit(&self, limit: Limit) {
        let count = &self.limits[limit as usize];
        let reached = count.add();
        if count.is_due(self.start.elapsed()) {
            let option = limit.option();
            tracing::warn!(
                limit = option,
                reached,
                "a limit is reached: if the channels that give way, are refused or ended are wanted, raise this option of [limits]; \
                 docs/limits.md says what becomes of them"
            );
        }
    }

    /// How often each was reached, by its option's name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.limits.iter().map(Count::reached);
        Limit::ALL.into_iter().map(Limit::option).zip(counts)
    }
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 6] = [
        Limit::Channels,
        Limit::ChannelsPerAddress,
        Limit::Subscriptions,
        Limit::Keys,
        Limit::KeysPerChannel,
        Limit::LogBytes,
    ];

    /// The option that sets it.
    pub fn option(self) -> &'static str {
        match self {
            Limit::Channels => "max_channels",
            Limit::ChannelsPerAddress => "channels_per_address",
            Limit::Subscriptions => "subscriptions",
            Limit::Keys => "keys",
            Limit::KeysPerChannel => "keys_per_channel",
            Limit::LogBytes => "log_bytes",
        }
    }
}

/// How much of a limit may be used by what is not whole yet.
pub fn for_new(limit: usize) -> usize {
    limit - limit / RESERVE
}

/// Bytes of all messages that anything holds, with the encodings made of them.
#[derive(Clone, Debug)]
pub(super) struct Account(Arc<Sum>);

#[derive(Debug)]
struct Sum {
    bytes: AtomicUsize,
    /// Up to here encodings may be charged.
    copies: usize,
    /// Bytes of encodings that were charged since they were last let go: there are no more of them.
    copied: AtomicUsize,
}

impl Account {
    /// An account of so many bytes, which what is charged at once may exceed, and encodings may not come near.
    pub fn new(limit: usize) -> Account {
        Account(Arc::new(Sum {
            bytes: AtomicUsize::new(0),
            copies: limit - limit / NO_COPIES,
            copied: AtomicUsize::new(0),
        }))
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether letting go of encodings may let go of so many bytes; if so, it is to be done.
    pub fn recall(&self, bytes: usize) -> bool {
        let worth = self.0.copied.load(Ordering::Relaxed) >= bytes;
        if worth {
            self.0.copied.store(0, Ordering::Relaxed);
        }
        worth
    }

    /// Charges so many bytes until the charge is dropped.
    pub fn charge(&self, bytes: usize) -> Charge {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        Charge {
            account: Some(self.clone()),
            bytes: AtomicUsize::new(bytes),
        }
    }
}

/// What one message is charged.
#[derive(Debug, Default)]
pub(super) struct Charge {
    /// None: nobody counts it.
    account: Option<Account>,
    bytes: AtomicUsize,
}

impl Charge {
    /// Charges so many bytes more.
    pub fn add(&self, bytes: usize) {
        if let Some(account) = &self.account {
            account.0.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Whether an encoding of so many bytes would have room now.
    pub fn has_room(&self, bytes: usize) -> bool {
        let fits = |account: &Account| account.bytes().saturating_add(bytes) <= account.0.copies;
        self.account.as_ref().is_none_or(fits)
    }

    /// Charges an encoding of so many bytes, if there is room.
    pub fn copy(&self, bytes: usize) -> bool {
        let Some(account) = &self.account else { return true };
        let fits = |sum: usize| sum.checked_add(bytes).filter(|sum| *sum <= account.0.copies);
        let fitted = account.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if fitted.is_ok() {
            account.0.copied.fetch_add(bytes, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        fitted.is_ok()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.0.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
        }
    }
}
