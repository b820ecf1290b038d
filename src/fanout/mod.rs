//! The shards that own the clients' sockets.
//!
//! A [`Shard`] is one future on a thread's own runtime. It has all its sockets in one epoll set, which is itself watched by
//! the runtime, and serves them by hand: no task, no queue and no buffer for a client, only the rest of a frame that a
//! socket took in part. When a log grows, the shard *walks* the log's subscribers with a frame that was encoded once for
//! all of them; whoever cannot take it falls behind, and is *pumped* from its session when it can be written to again.
//!
//! Everything is done in slices, so that neither a channel with very many subscribers nor a very long snapshot holds up
//! the others: after each slice other work gets its turn.

mod asking;
mod behind;
mod codec;
mod conn;
mod core;
mod handle;
mod inbound;
mod judging;
mod pipe;
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

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::hub::{Name, Subscription};
use crate::limits::{Permits, Rate};
#[cfg(doc)]
use crate::session::Ending;
use crate::session::{Session, Start};

pub use behind::Behind;
pub use handle::Handle;
#[cfg(any(test, fuzzing))]
pub(crate) use inbound::fuzzing;
pub use pipe::{Far, Near, Parting, Watch, pipe};
pub use shard::{Shard, shard};
pub use socket::{Socket, limit_sends};
pub use stats::{ENDINGS, Stats};

/// What a shard needs to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// A stream that was silent this long (± 20 %) gets a heartbeat.
    pub heartbeat: Duration,
    /// A client that took nothing for this long is ended.
    pub write_timeout: Duration,
    /// Time within which every stream must have ended once the drain began.
    pub drain: Duration,
    /// What one client may take.
    pub bounds: Bounds,
    /// Bytes of frames that half-written clients of all shards may hold on to. Such a frame is mostly superseded by the
    /// time its rest is written, and it is the one thing of a slow client that costs memory. Beyond it whoever has stalled
    /// longest is ended, in a shard that holds more than its share.
    pub pinned: usize,
}

/// What one client may take of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Channels of one connection.
    pub channels: usize,
    /// Messages that a WebSocket client may send.
    pub messages: Rate,
    /// The longest of them, in bytes.
    pub message_size: usize,
    /// How long a stream lives (± 10 %) before its client is asked to come back; `None` for as long as it likes.
    pub lifetime: Option<Duration>,
}

impl Default for Bounds {
    /// What counts where a config says nothing.
    fn default() -> Bounds {
        Bounds {
            // A page shows a few dozen; a thousand names of usual length still fit into one message or URL, and a sweep
            // over them stays short.
            channels: 1_000,
            messages: Rate {
                // A page subscribes when something on it changes; nobody clicks this often.
                per_second: 10,
                // A page of many parts that each subscribe by themselves when it is opened.
                burst: 100,
            },
            // A list of a thousand channels with long names.
            message_size: 64 << 10,
            // Once a day costs nobody anything, and whatever a connection holds on to is let go some time.
            lifetime: Some(Duration::from_secs(86_400)),
        }
    }
}

/// How a client is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Server-Sent Events.
    Sse {
        /// In chunks, as HTTP/1.1 has it; otherwise whoever carries the stream tells its end.
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
    /// Until when it may read them.
    pub until: Until,
    /// What it asks while it is connected, and what judges it again; a client that cannot ask, and whose channels are open to
    /// anybody, has none.
    pub gate: Option<Arc<dyn Gate>>,
    /// By which revision of the hub it was let in.
    pub judged: u64,
    /// What it gives back when it goes.
    pub permits: Box<Permits>,
}

/// Until when a client may read its channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until {
    /// Then its stream ends; never if `None`.
    pub expires: Option<SystemTime>,
    /// Whether what it showed may count again when it comes back ([`Ending::Expired`]).
    pub renewable: bool,
    /// Whether it wants to be told some time before.
    pub announced: bool,
}

/// Judges what one client asks for while it is connected.
pub trait Gate: Debug + Send + Sync {
    /// Opens all of these channels, or says of each one that is refused why. `cursor`: as the client gave it.
    fn open(&self, names: Vec<String>, cursor: Option<String>) -> Asked<Opened>;

    /// Lets another token count in place of what the client has shown so far, if it allows all of these channels.
    /// One refusal without a channel speaks of the token itself.
    fn renew(&self, token: String, names: Vec<Name>) -> Asked<Renewed>;

    /// Judges the client once more for all of these channels, as whose credentials count is another question now.
    fn again(&self, names: Vec<Name>) -> Asked<Renewed>;
}

/// What a [`Gate`] says, now or a little later.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, Vec<Refusal>>> + Send>>;

/// Channels that were opened.
#[derive(Debug)]
pub struct Opened {
    /// Each with where the client begins in it.
    pub channels: Vec<(Subscription, Start)>,
    /// When the client may no longer read them.
    pub expires: Option<SystemTime>,
    /// By which revision of the hub they were.
    pub judged: u64,
}

/// What counts for a client from now on.
#[derive(Debug)]
pub struct Renewed {
    /// When the client may no longer read its channels.
    pub expires: Option<SystemTime>,
    /// What it asks from now on.
    pub gate: Arc<dyn Gate>,
    /// By which revision of the hub that is so.
    pub judged: u64,
}

/// Something that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The channel, as the client named it; none if it is not about one.
    pub channel: Option<String>,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub what: String,
}
