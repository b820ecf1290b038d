//! What servers say about keys: events, values, notification flags. No I/O.

pub mod event;
mod value;

pub use event::EventName;
pub use value::{Kind, Size, StreamEntry, Value};
