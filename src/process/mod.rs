//! The process itself: what it logs, how it is told to end, what it tells those who supervise it, and which files it follows.

pub mod files;
pub mod logging;
pub mod signals;
pub mod systemd;
pub mod watch;
