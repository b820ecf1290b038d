//! Listeners, HTTP requests, and the hand-over of a stream's socket to a shard.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What the public listeners need to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; at least one.
    pub listen: Vec<Address>,
    /// Prefix of all public URLs: starts with `/`, has no `/` at its end, so the root is the empty string.
    pub path: String,
    /// Origins other than the server's own whose pages may connect, as browsers write them (`https://app.example.com`), or `*`.
    pub origins: Vec<String>,
}

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address; port 0 takes any free port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}
