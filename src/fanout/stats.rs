//! What the shards count together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::limits::Counts;
use crate::turns::Loops;

/// Shared by all shards. Every number is read on its own; together they are a moment's blur.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connected Server-Sent Events clients.
    pub sse: AtomicUsize,
    /// Connected WebSocket clients.
    pub websocket: AtomicUsize,
    /// Messages handed to sockets, by walks and sweeps, since the start.
    pub messages: AtomicU64,
    /// Clients that were ended because they took nothing for too long, since the start.
    pub slow: AtomicU64,
    /// Bytes of frames that half-written clients hold on to: see [`super::Options::pinned`].
    pub pinned: AtomicUsize,
    /// How many shards there are.
    pub(super) shards: AtomicUsize,
    /// Told when more is pinned than may be, and the shard that notices is not the one that has too much.
    pub(super) crowded: watch::Sender<()>,
    /// How often each limit was reached, those of connections included.
    pub limited: Arc<Counts>,
    /// The loops of the shards, beside those of the rest of the process.
    pub loops: Arc<Loops>,
}

impl Stats {
    /// Connected clients.
    pub fn sessions(&self) -> usize {
        self.sse.load(Ordering::Relaxed) + self.websocket.load(Ordering::Relaxed)
    }
}
