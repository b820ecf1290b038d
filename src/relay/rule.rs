//! A mapping as the mirror uses it: which keys or topics it takes, to which channel they go, and how.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::hub::{Mode, Retention, Way};
use crate::keyspace::EventName;
use crate::mapping::MappingId;
use crate::pattern::{ChannelTemplate, KeyPattern, Subject};
use crate::payload::Renderer;

/// One mapping.
#[derive(Debug)]
pub struct Rule {
    /// Which one it is: in a config its position among all mappings.
    pub id: MappingId,
    /// Whether it takes keys, or what is published; that is always for events mode.
    pub subject: Subject,
    /// Which keys or topics it takes.
    pub pattern: KeyPattern,
    /// The name of the channel that a key or message goes to.
    pub channel: ChannelTemplate,
    /// Who may read the channels: each of these ways suffices; where there is none, nobody may. What a claim must hold is
    /// made of captures that the channel's name tells.
    pub access: Vec<Way<ChannelTemplate>>,
    /// Whether the channel is a state or a sequence of happenings.
    pub mode: Mode,
    /// In events mode, the events that it takes; all of them if `None`.
    pub on: Option<Vec<EventName>>,
    /// The name that its messages carry on the wire.
    pub event_name: Option<Arc<str>>,
    /// How long a channel is kept warm after its last subscriber; in events mode at least `retain.age`.
    pub linger: Duration,
    /// In state mode, whether a new subscriber is sent the current values first.
    pub snapshot: bool,
    /// In events mode, what is kept for those who come back.
    pub retain: Retention,
    /// Largest value that is read and sent, in bytes.
    pub max_value: u64,
    /// Two reads of one key are at least this far apart; zero leaves it at the mirror's own minimum.
    pub min_interval: Duration,
    /// In state mode, how often its keys are read again although nothing is heard of them.
    pub poll: Option<Duration>,
    /// Whether the payload says when the key expires, so that a change of the expiry alone is a change.
    pub expires: bool,
    /// Makes the payload.
    pub payload: Renderer,
    /// The file that holds it.
    pub file: Arc<Path>,
    /// The line of its `[[mapping]]` in that file, the first being 1.
    pub line: usize,
}
