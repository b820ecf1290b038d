//! A message: immutable, numbered, shared by all who receive it.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;

use super::channel::Channel;
use super::limit::{Account, Charge};

/// What a message takes beside the bytes of its payload: itself, its slot, the slot's two entries for its order, and what
/// the allocator adds. Measured as the growth of a process by a million of them (`docs/limits.md`).
pub const MESSAGE: usize = 512;

/// What its encodings take beside their bytes.
const ENCODINGS: usize = size_of::<Encodings>();

/// A place for each encoding; `None` in it where there was no room for the bytes.
type Encodings = [OnceLock<Option<Bytes>>; Encoding::COUNT];

/// A channel's name.
pub type Name = Arc<str>;

/// The rendered bytes of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// What a connected subscriber is sent.
    pub live: Bytes,
    /// What the same value looks like in a snapshot, where no event is named.
    pub snapshot: Snapshot,
    /// Whether the bytes are one JSON value; otherwise they are text.
    pub json: bool,
    /// Whether this says that the key is gone.
    pub absent: bool,
}

/// How a payload's snapshot rendition is had from the live one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// It is the same.
    Same,
    /// It is the live one without these bytes.
    Without(Range<usize>),
    /// It is another text.
    Other(Bytes),
}

impl Payload {
    /// Bytes that it holds.
    fn bytes(&self) -> usize {
        let other = match &self.snapshot {
            Snapshot::Other(other) => other.len(),
            Snapshot::Same | Snapshot::Without(_) => 0,
        };
        self.live.len() + other
    }

    /// The bytes for a snapshot; a copy is made only where a part is left out.
    pub fn snapshot(&self) -> Cow<'_, [u8]> {
        match &self.snapshot {
            Snapshot::Same => Cow::Borrowed(&self.live),
            Snapshot::Other(other) => Cow::Borrowed(other),
            Snapshot::Without(part) => {
                let mut bytes = Vec::with_capacity(self.live.len() - part.len());
                bytes.extend_from_slice(&self.live[..part.start]);
                bytes.extend_from_slice(&self.live[part.end..]);
                Cow::Owned(bytes)
            }
        }
    }
}

/// What was written from this place on, in no more room than it needs: the log keeps it for long. What is short is copied, for
/// to have the allocator cut a rest off costs more than that, and leaves it a hole to look after.
pub fn tight(written: Vec<u8>, from: usize) -> Bytes {
    const SHORT: usize = 1024;
    match written.len() > SHORT {
        true => Bytes::from(written.into_boxed_slice()).slice(from..),
        false => Bytes::copy_from_slice(&written[from..]),
    }
}

/// Why a channel is behind, as clients are told: a fixed word, so that no address or key leaves the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(pub &'static str);

/// What a message says.
#[derive(Clone, Debug)]
pub enum Body {
    /// A value changed, or something happened.
    Change(Payload),
    /// The slot's value is gone, and nothing says so to clients: what stood there before is void.
    Void,
    /// The channel may be behind its keys from here on.
    Stale {
        /// Why.
        reason: Reason,
        /// Since when.
        since: SystemTime,
    },
    /// The channel is true again: everything that differed stands before this message.
    Fresh {
        /// Why it had been stale.
        reason: Reason,
        /// Since when it had been.
        since: SystemTime,
    },
    /// Happenings of an events channel are missing here.
    Gap {
        /// Why.
        reason: Reason,
        /// How many, where that is known.
        missed: Option<u64>,
    },
}

/// Which cached encoding of a message is meant; the numbers are the transports' business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding(pub usize);

impl Encoding {
    /// How many different encodings a message can cache.
    pub const COUNT: usize = 9;
}

/// One numbered entry of a log.
#[derive(Debug)]
pub struct Message {
    /// Place in the one order of the process; larger is newer.
    pub sequence: u64,
    /// The channel it belongs to.
    pub channel: Arc<Channel>,
    /// What it says.
    pub body: Body,
    /// When it was heard of, in microseconds since 1970, if it is to be counted how long it takes.
    pub heard: Option<NonZeroU64>,
    /// Made on first use: most messages of an idle channel are never encoded again.
    encoded: OnceLock<Box<Encodings>>,
    /// What all of that takes, as long as anybody holds it.
    charge: Charge,
}

impl Message {
    /// A message that is about to be appended, and that nobody counts.
    pub fn new(sequence: u64, channel: Arc<Channel>, body: Body) -> Message {
        Message {
            sequence,
            channel,
            body,
            heard: None,
            encoded: OnceLock::new(),
            charge: Charge::default(),
        }
    }

    /// Counts it, and `name` bytes of its slot's name.
    pub(super) fn charged(self, account: &Account, name: usize) -> Message {
        let payload = match &self.body {
            Body::Change(payload) => payload.bytes(),
            _ => 0,
        };
        Message {
            charge: account.charge(MESSAGE + name + payload),
            ..self
        }
    }

    /// It was heard of then.
    pub(super) fn heard(self, heard: Option<u64>) -> Message {
        let heard = heard.and_then(NonZeroU64::new);
        Message { heard, ..self }
    }

    /// The bytes that it is counted for.
    pub(super) fn charge(&self) -> usize {
        self.charge.bytes()
    }

    /// The same without its encodings, if it has any; `name` as in [`Message::charged`].
    pub(super) fn bare(&self, account: &Account, name: usize) -> Option<Message> {
        self.encoded.get()?;
        let bare = Message::new(self.sequence, self.channel.clone(), self.body.clone());
        Some(bare.charged(account, name))
    }

    /// The bytes of one encoding, made by the first who asks and shared by all who follow; where copies have no room, made
    /// for each who asks.
    pub fn encoded(&self, encoding: Encoding, encode: impl Fn(&Message) -> Bytes) -> Cow<'_, Bytes> {
        let made = self.encoded.get().and_then(|all| all[encoding.0].get());
        match made {
            Some(Some(bytes)) => return Cow::Borrowed(bytes),
            // An encoding is about as long as its payload. Without this look, whatever is sent in a shortage would be made
            // for each who asks also after it.
            None if self.charge.has_room(ENCODINGS + self.size()) => {}
            _ => return Cow::Owned(encode(self)),
        }
        let all = self.encoded.get_or_init(|| {
            self.charge.add(ENCODINGS);
            Box::default()
        });
        let mut own = None;
        let made = all[encoding.0].get_or_init(|| {
            let bytes = encode(self);
            if self.charge.copy(bytes.len()) {
                return Some(bytes);
            }
            own = Some(bytes);
            None
        });
        match made {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(own.unwrap_or_else(|| encode(self))),
        }
    }

    /// Payload bytes that count against a retention.
    pub fn size(&self) -> usize {
        match &self.body {
            Body::Change(payload) => payload.live.len(),
            _ => 0,
        }
    }

    /// Whether there is anything to send.
    pub fn is_sendable(&self) -> bool {
        !matches!(self.body, Body::Void)
    }

    /// Whether the key behind it is there.
    pub fn is_present(&self) -> bool {
        match &self.body {
            Body::Change(payload) => !payload.absent,
            _ => false,
        }
    }
}
