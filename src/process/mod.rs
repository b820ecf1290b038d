//! The process itself: what it logs, how it is told to end, and what it tells those who supervise it.

pub mod files;
pub mod logging;
pub mod signals;
pub mod systemd;
