//! What servers say about keys: events, values, notification flags. No I/O.

mod value;

pub use value::{Kind, Size, StreamEntry, Value};
