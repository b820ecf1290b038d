//! What an events channel may keep waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hub::Retention;

/// Happenings of a channel that may wait for their values however few it retains: what comes in the 100 ms that a slow
/// answer takes at 100,000 events a second. At some 200 bytes each they are 2 MB.
pub(super) const BACKLOG: usize = 10_000;

/// Bytes of published messages of a channel that may wait to be taken by the relay's thread, however few it retains.
const BACKLOG_BYTES: usize = 4 << 20;

/// How many happenings of one channel wait for their value, on both threads together, and bytes of published messages.
#[derive(Debug)]
pub(super) struct Backlog {
    waiting: AtomicUsize,
    bytes: AtomicUsize,
    most: usize,
    most_bytes: usize,
    /// Of all channels.
    all: Arc<Waiting>,
}

/// What waits in all channels together.
#[derive(Debug)]
pub(super) struct Waiting {
    count: AtomicUsize,
    bytes: AtomicUsize,
    most: usize,
    most_bytes: usize,
}

impl Waiting {
    /// At most so many happenings, and so many bytes of published messages.
    pub fn new(most: usize, most_bytes: usize) -> Arc<Waiting> {
        Arc::new(Waiting {
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            most,
            most_bytes,
        })
    }

    fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < self.most && self.bytes.load(Ordering::Relaxed) < self.most_bytes
    }
}

/// What was counted and never appended, as its log is gone, is not counted any more.
impl Drop for Backlog {
    fn drop(&mut self) {
        self.all.count.fetch_sub(*self.waiting.get_mut(), Ordering::Relaxed);
        self.all.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

impl Backlog {
    /// For a channel that retains so much.
    pub fn new(retention: Retention, all: Arc<Waiting>) -> Arc<Backlog> {
        Arc::new(Backlog {
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            most: retention.messages.max(BACKLOG),
            most_bytes: retention.bytes.max(BACKLOG_BYTES),
            all,
        })
    }

    /// Whether one more of so many bytes may wait. Only the feeds' thread adds, so nothing can come between look and
    /// deed. The last one may exceed the bytes: it is no larger than what a channel retains.
    pub fn add(&self, bytes: usize) -> bool {
        let room =
            self.waiting.load(Ordering::Relaxed) < self.most && self.bytes.load(Ordering::Relaxed) < self.most_bytes;
        let room = room && self.all.has_room();
        if room {
            self.all.count.fetch_add(1, Ordering::Relaxed);
            self.all.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        room
    }

    /// One of so many bytes has been appended.
    pub fn remove(&self, bytes: usize) {
        self.all.count.fetch_sub(1, Ordering::Relaxed);
        self.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
