//! The process itself: what it logs, and how it is told to end.

pub mod files;
pub mod logging;
pub mod signals;
