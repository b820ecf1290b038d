//! The payload `raw`: the text of a string, as it is.

use bytes::Bytes;

use super::template::Templates;
use super::{Change, Unsendable};
use crate::hub::{Payload, Snapshot};
use crate::keyspace::Value;

/// Renders a change of a string, or a key's end by the `absent` template.
pub(super) fn render(change: &Change<'_>, templates: &Templates) -> Result<Payload, Unsendable> {
    match change.value.value() {
        Value::Absent => templates.render_absent(change),
        Value::TooLarge(_) => Err(Unsendable::TooLarge),
        // Both transports carry text; a browser would drop the connection, or show U+FFFD, at anything else.
        Value::String(text) if std::str::from_utf8(text).is_err() => Err(Unsendable::NotText),
        Value::String(text) => Ok(Payload {
            // Copied: it is kept, and as a part of the reply would keep all of it.
            live: Bytes::copy_from_slice(text),
            snapshot: Snapshot::Same,
            json: false,
            absent: false,
        }),
        _ => Err(Unsendable::NotAString),
    }
}
