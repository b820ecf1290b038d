//! What the shards count together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use super::Transport;
use super::behind::{Behind, Question};
use crate::hub::Name;
use crate::limits::Counts;
use crate::session::Ending;
use crate::tally::{Durations, Tally};
use crate::turns::Loops;

/// Every word that clients are ended with.
pub const ENDINGS: [&str; 12] = Ending::WORDS;

/// Shared by all shards. Every number is read on its own; together they are a moment's blur.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connected Server-Sent Events clients.
    pub sse: AtomicUsize,
    /// Connected WebSocket clients.
    pub websocket: AtomicUsize,
    /// Server-Sent Events clients that came, since the start.
    pub sse_opened: AtomicU64,
    /// WebSocket clients that came, since the start.
    pub websocket_opened: AtomicU64,
    /// Clients that went, by the word for why ([`ENDINGS`]).
    pub ended: Tally,
    /// Connected clients whose sockets take nothing now.
    pub blocked: AtomicUsize,
    /// From hearing of a change to having handed it to the sockets of all subscribers of a shard that could take it: once
    /// for each message and shard.
    pub latency: Durations,
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
    /// Who is behind.
    pub(super) behind: Question,
    /// How often each limit was reached, those of connections included.
    pub limited: Arc<Counts>,
    /// The loops of the shards, beside those of the rest of the process.
    pub loops: Arc<Loops>,
}

impl Stats {
    /// How many clients of this transport came.
    pub(super) fn opened(&self, transport: Transport) -> &AtomicU64 {
        match transport {
            Transport::Sse { .. } => &self.sse_opened,
            Transport::WebSocket { .. } => &self.websocket_opened,
        }
    }

    /// The channels of which a connected subscriber takes nothing although there is something for it. A shard that has no
    /// time within 100 ms is left out, and so are stalled clients beyond some thousand subscriptions.
    pub async fn behind(&self) -> HashMap<Name, Behind> {
        self.behind.ask(self.shards.load(Ordering::Relaxed)).await
    }

    /// Connected clients.
    pub fn sessions(&self) -> usize {
        self.sse.load(Ordering::Relaxed) + self.websocket.load(Ordering::Relaxed)
    }
}
