//! The process itself: what it logs.

pub mod logging;
