//! The meeting point of both sides: named channels, each with a log of messages in one order for the whole process.

use std::time::Duration;

/// What the hub needs to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most channels that may have a log at once, lingering ones included.
    pub max_channels: usize,
}

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
