//! The relay as a whole: the real executable in front of a real server, seen through its clients.

mod harness;

/// What a client gets for each kind of value, payload and mapping.
mod delivery;
