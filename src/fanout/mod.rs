//! The shards that own the clients' sockets.

use std::time::Duration;

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
