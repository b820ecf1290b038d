//! What a channel is, before anything happened in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::message::{Name, Payload};

/// Whether a channel is the current value of its keys or a sequence of happenings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Compacted: only the newest message of each key is kept.
    State,
    /// Every message is kept while the retention lasts.
    Events,
}

/// How much of an events channel is kept for those who come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Most messages kept.
    pub messages: usize,
    /// Most payload bytes kept.
    pub bytes: usize,
    /// Longest time a message is kept.
    pub age: Duration,
}

/// One channel's constant traits, shared by its log and all its messages.
#[derive(Clone, Debug)]
pub struct Channel {
    /// The name that clients subscribe to.
    pub name: Name,
    /// State or events.
    pub mode: Mode,
    /// The event name its messages carry on the wire; without one they are plain messages.
    pub event_name: Option<Arc<str>>,
    /// What an events channel keeps; a state channel has no use for it.
    pub retention: Retention,
    /// Whether a new subscriber is sent the current state before `ready` (state mode only).
    pub snapshot: bool,
    /// Sent after `reset`, before the new snapshot: what clears a list in clients that hear no control events.
    pub on_reset: Vec<Payload>,
}

impl Channel {
    /// A state channel of this name, with a snapshot, and with nothing else that a mapping may say.
    pub fn of_state(name: &str) -> Channel {
        Channel {
            name: name.into(),
            mode: Mode::State,
            event_name: None,
            retention: Retention {
                messages: 0,
                bytes: 0,
                age: Duration::ZERO,
            },
            snapshot: true,
            on_reset: Vec::new(),
        }
    }
}

/// One way to be allowed to read a channel. `T` is what a claim must hold; where that is no text, none can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way<T = Bytes> {
    /// Everyone may.
    Public,
    /// Whoever has a token that counts.
    SignedIn,
    /// Whoever has a token that lists the channel, or a pattern that covers it.
    Listed,
    /// Whoever has a token with all of these claims.
    Claims(Vec<(Arc<str>, T)>),
}

/// Who may read a channel, as one mapping says it: each of these ways suffices; where there is none, nobody may.
pub type Access = Vec<Way>;

/// Says which channel names exist; the left side's answer to a subscriber.
pub trait Catalog: Send + Sync + 'static {
    /// Who may read the channel of this name, one entry for each mapping that can produce it: a client must satisfy all
    /// of them. `None` where no mapping can.
    fn access(&self, name: &str) -> Option<Vec<Access>>;

    /// The channel of this name, or `None` where no mapping can produce the name.
    fn describe(&self, name: &str) -> Option<Channel>;
}
