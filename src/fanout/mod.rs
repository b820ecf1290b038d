//! The shards that own the clients' sockets.
//!
//! A [`Shard`] is one future on a thread's own runtime. It has all its sockets in one epoll set, which is itself watched by
//! the runtime, and serves them by hand: no task, no queue and no buffer for a client, only the rest of a frame that a
//! socket took in part. When a log grows, the shard *walks* the log's subscribers with a frame that was encoded once for
//! all of them; whoever cannot take it falls behind, and is *pumped* from its session when it can be written to again.
//!
//! Everything is done in slices, so that neither a channel with very many subscribers nor a very long snapshot holds up
//! the others: after each slice other work gets its turn.

mod codec;
mod conn;
mod core;
mod handle;
mod inbound;
mod serve;
mod shard;
mod socket;
mod stats;
mod subscribers;
#[cfg(test)]
mod tests;
mod timers;
mod walk;
mod wheel;

use std::time::Duration;

use bytes::Bytes;

use crate::hub::Subscription;
use crate::session::{Session, Start};

pub use handle::Handle;
#[cfg(any(test, fuzzing))]
pub(crate) use inbound::fuzzing;
pub use shard::{Shard, shard};
pub use socket::Socket;
pub use stats::Stats;

/// Bytes of frames that half-written clients of all shards may hold on to. Such a frame is mostly superseded by the time
/// its rest is written, and it is the one thing of a slow client that costs memory; 64 of the largest values that are
/// sent by default fit. Beyond it whoever has stalled longest is ended.
pub const PINNED: usize = 64 << 20;

/// What a shard needs to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// A stream that was silent this long (± 20 %) gets a heartbeat.
    pub heartbeat: Duration,
    /// A client that took nothing for this long is ended.
    pub write_timeout: Duration,
    /// Time within which every stream must have ended once the drain began.
    pub drain: Duration,
}

/// How a client is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Server-Sent Events.
    Sse {
        /// In chunks, as HTTP/1.1 has it; otherwise the stream ends with the connection.
        chunked: bool,
    },
    /// WebSocket, after its handshake.
    WebSocket {
        /// Bare payloads in place of the protocol's messages.
        raw: bool,
    },
}

/// A client whose request was checked: from now on it is the shard's.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub socket: Socket,
    /// How it is spoken to.
    pub transport: Transport,
    /// The head of the response and whatever else is to be written before the first step of the session.
    pub head: Bytes,
    /// What it has sent after its request; only a WebSocket may have.
    pub read_ahead: Bytes,
    /// Its channels.
    pub session: Session,
}

/// Opens channels for clients that ask for them while they are connected.
pub trait Gate: Send + Sync {
    /// Opens all of these channels, or says of each one that is refused why. `cursor`: as the client gave it.
    fn open(&self, names: &[String], cursor: Option<&str>) -> Result<Vec<(Subscription, Start)>, Vec<Refusal>>;
}

/// A channel that is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name, as the client gave it.
    pub channel: String,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub what: String,
}
