//! The meeting point of both sides: named channels, each with a log of messages in one order for the whole process.
//!
//! The left side ([`Appender`], one in the process) assigns sequences, appends, and then moves the watermark; the right
//! side ([`Subscription`], [`Inbox`]) takes nothing above the watermark that its inbox gave it. A subscriber is a cursor
//! into its logs, never a queue. The hub knows names and bytes: no key is read here, no request answered.

mod appender;
mod channel;
mod cursor;
mod inbox;
mod limit;
mod log;
mod makers;
mod message;
mod registry;

pub use appender::Appender;
pub use channel::{Access, Catalog, Channel, Mode, Retention, Way};
pub use cursor::{Cursor, set_of};
pub use inbox::{Delivery, Inbox};
pub use limit::{Counts, Ended, Limit, for_new};
pub use log::{Found, Log, LogView, SlotKey, TOMBSTONE_AGE, Trim};
pub use makers::Maker;
pub use message::{Body, Encoding, MESSAGE, Message, Name, Payload, Reason, Snapshot, tight};
pub use registry::{Hub, Options, Revision, SubscribeError, Subscription};
