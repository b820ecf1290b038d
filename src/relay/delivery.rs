//! What goes out, line by line, for whoever develops an app.

use crate::hub::Log;
use crate::keyspace::EventName;

/// Its lines name keys, so it is off unless the log's filter names it, or asks for `debug` of everything.
const TARGET: &str = "keyrelay::delivery";

/// Logs that a change of this key goes out to those who are subscribed.
pub(super) fn tell(log: &Log, key: &[u8], event: Option<&EventName>, absent: bool) {
    if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        return;
    }
    let key = String::from_utf8_lossy(key);
    let (key, channel) = (key.escape_debug(), log.channel.name.escape_debug());
    let subscribers = log.view().subscribers();
    let event = event.map(EventName::as_str);
    tracing::debug!(target: TARGET, %key, %channel, event, absent, subscribers, "delivery");
}
