//! Control events: what a client is told about its channels, as JSON.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{millis, write_number, write_string};
use crate::hub::{Cursor, Name};
use crate::session::Ending;

/// Something a client is told about the stream itself. In SSE its name is `keyrelay.` and the word; in WebSocket the
/// word is the message's `type`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control<'a> {
    /// All that was due has been sent; live messages follow.
    Ready {
        /// Each with the number of its values.
        channels: &'a [(Name, usize)],
        /// How far the client is, with the set of its list.
        cursor: Cursor,
        /// What the client called its request.
        reference: Option<u64>,
    },
    /// Whatever the client knows of the channel is void; a snapshot follows.
    Reset { channel: &'a str, reason: &'static str },
    /// The channel may be behind from here on.
    Stale {
        channel: &'a str,
        reason: &'static str,
        since: SystemTime,
    },
    /// The channel is true again.
    Fresh {
        channel: &'a str,
        /// Why and since when it had been stale.
        reason: &'static str,
        since: SystemTime,
    },
    /// Happenings are missing.
    Gap {
        channel: &'a str,
        reason: &'static str,
        /// How many, where that is known.
        missed: Option<u64>,
    },
    /// The stream will end, unless the client renews what allows it to read.
    Expiring { at: SystemTime },
    /// The stream ends after this.
    End {
        reason: &'static str,
        /// More, where there is more to say.
        message: Option<&'static str>,
        /// After what time the client is to come back, if it is to.
        retry: Option<Duration>,
    },
}

/// What is to be said of an ending beside its code: the word, or what a client did wrong.
pub(super) fn description(ending: Ending) -> &'static str {
    match ending {
        Ending::Protocol(what) => what,
        Ending::Expired { renewable: false } => "what allowed this client to read has expired: get a new token first",
        Ending::NotText => "a text message that is not UTF-8",
        ending => ending.reason(),
    }
}

impl Control<'_> {
    pub(super) fn end(ending: Ending, retry: Duration) -> Control<'static> {
        Control::End {
            reason: ending.reason(),
            message: Some(description(ending)).filter(|what| *what != ending.reason()),
            retry: ending.reconnect().then_some(retry),
        }
    }

    /// The event's word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Control::Ready { .. } => "ready",
            Control::Reset { .. } => "reset",
            Control::Stale { .. } => "stale",
            Control::Fresh { .. } => "fresh",
            Control::Gap { .. } => "gap",
            Control::Expiring { .. } => "expiring",
            Control::End { .. } => "end",
        }
    }

    /// Writes the members of the event's JSON object, without its braces; at least one.
    pub(super) fn write_members(&self, out: &mut Vec<u8>) {
        match *self {
            Control::Ready {
                channels,
                cursor,
                reference,
            } => {
                out.extend_from_slice(b"\"channels\":{");
                for (i, (name, values)) in channels.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_string(out, name);
                    out.push(b':');
                    write_number(out, *values as u64);
                }
                out.extend_from_slice(b"},\"cursor\":\"");
                cursor.write(out);
                out.push(b'"');
                if let Some(set) = cursor.set {
                    out.extend_from_slice(b",\"set\":\"");
                    Cursor::write_hex(out, set);
                    out.push(b'"');
                }
                if let Some(reference) = reference {
                    write(out, format_args!(",\"ref\":{reference}"));
                }
            }
            Control::Reset { channel, reason } => write_channel(out, channel, format_args!(""), reason),
            Control::Stale { channel, reason, since } | Control::Fresh { channel, reason, since } => {
                let since = since_1970(since);
                write_channel(out, channel, format_args!("\"since\":{since}"), reason);
            }
            Control::Gap {
                channel,
                reason,
                missed: Some(missed),
            } => write_channel(out, channel, format_args!("\"missed\":{missed}"), reason),
            Control::Gap { channel, reason, .. } => {
                write_channel(out, channel, format_args!("\"missed\":null"), reason);
            }
            Control::Expiring { at } => write(out, format_args!("\"expires_at\":{}", since_1970(at))),
            Control::End { reason, message, retry } => {
                write_member(out, "reason", reason);
                if let Some(message) = message {
                    out.push(b',');
                    write_member(out, "message", message);
                }
                write(out, format_args!(",\"reconnect\":{}", retry.is_some()));
                if let Some(retry) = retry {
                    write(out, format_args!(",\"retry\":{}", millis(retry)));
                }
            }
        }
    }
}

/// `"channels":{"<name>":{<traits>}},"reason":"<reason>"`
fn write_channel(out: &mut Vec<u8>, name: &str, traits: std::fmt::Arguments<'_>, reason: &str) {
    out.extend_from_slice(b"\"channels\":{");
    write_string(out, name);
    write(out, format_args!(":{{{traits}}}}},"));
    write_member(out, "reason", reason);
}

/// In milliseconds; a clock before 1970 has no better answer.
pub(super) fn since_1970(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn write_member(out: &mut Vec<u8>, name: &str, text: &str) {
    write(out, format_args!("\"{name}\":"));
    write_string(out, text);
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes all that is written");
}
