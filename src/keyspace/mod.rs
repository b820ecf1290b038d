//! What servers say about keys: events, values, notification flags. No I/O.

pub mod event;
pub mod flags;
mod value;

pub use event::EventName;
pub use value::{ELEMENT, HASHED, Kind, Size, StreamEntry, Value};
