//! What systemd and keyrelay tell each other, with the test in systemd's place: it is told how keyrelay stands, wants to be
//! shown that it has not hung, and hands over sockets.

mod manager;
mod notify;
mod sockets;
mod unit;
mod watchdog;

pub use manager::{Manager, Service, Setup};
