//! `[limits]`: how much clients may take, each option with its bounds.

use std::time::Duration;

use super::compile::{Bounds, Compiler, Name};
use super::file;
use super::reader::Written;
use crate::limits::{Options, Rate};
use crate::{fanout, server};

const CONNECTIONS_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=10_000_000,
    why: "each connection costs memory and a descriptor, and without any there is nobody to serve",
};
const PER_SECOND_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=1_000_000,
    why: "without any nobody is served, and beyond a million a second nothing is limited",
};
const BURST_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=1_000_000,
    why: "one must be possible, and beyond a million at once nothing is limited",
};
const CHANNELS_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=100_000,
    why: "a new client is sent the state of all its channels in one go, and others wait meanwhile",
};
const MESSAGE_BOUNDS: Bounds<u64> = Bounds {
    range: 1 << 10..=16 << 20,
    why: "a list of a few channels must fit, and every client may have a message of this size in memory",
};
// hyper takes no less than 8 KiB.
const HEAD_BOUNDS: Bounds<u64> = Bounds {
    range: 8 << 10..=1 << 20,
    why: "cookies and tokens need some KiB, and every connection may have a head of this size in memory",
};
const HEAD_TIMEOUT_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::from_secs(1)..=Duration::from_secs(600),
    why: "a head takes a second on a bad network, and a connection that says nothing holds its place until then",
};
const LIFETIME_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::from_secs(1)..=Duration::from_secs(365 * 86_400),
    why: "each end costs a new connection, and what lives longer than a year is not limited",
};

/// What `[limits]` says to each part.
pub(crate) struct Limits {
    pub(crate) shared: Options,
    pub(crate) stream: fanout::Bounds,
    pub(crate) head: server::Head,
}

fn name(option: &'static str) -> Name {
    Name {
        section: "limits",
        option,
    }
}

impl Compiler<'_> {
    pub(crate) fn limits(&mut self, file: &file::Limits) -> Limits {
        let (shared, stream, head) = (Options::default(), fanout::Bounds::default(), server::Head::default());
        let mut connections = |option, written: &Option<_>, default| {
            self.number(name(option), written.as_ref(), default, &CONNECTIONS_BOUNDS)
        };
        let all = connections("connections", &file.connections, shared.connections);
        let per_address = connections(
            "connections_per_address",
            &file.connections_per_address,
            shared.connections_per_address,
        );
        let per_subject = connections(
            "connections_per_subject",
            &file.connections_per_subject,
            shared.connections_per_subject,
        );
        let connects = self.rate(
            ["connects_per_second", "connects_burst"],
            [&file.connects_per_second, &file.connects_burst],
            shared.connects,
        );
        let messages = self.rate(
            ["messages_per_second", "messages_burst"],
            [&file.messages_per_second, &file.messages_burst],
            stream.messages,
        );
        let channels = self.number(
            name("channels_per_connection"),
            file.channels_per_connection.as_ref(),
            stream.channels,
            &CHANNELS_BOUNDS,
        );
        let mut size = |option, written: &Option<_>, default: usize, bounds| {
            self.size(name(option), written.as_ref(), default as u64, bounds) as usize
        };
        let message_size = size("message_size", &file.message_size, stream.message_size, &MESSAGE_BOUNDS);
        let head_size = size("head_size", &file.head_size, head.size, &HEAD_BOUNDS);
        let timeout = self.duration(
            name("head_timeout"),
            file.head_timeout.as_ref(),
            head.timeout,
            &HEAD_TIMEOUT_BOUNDS,
        );
        let lifetime = self.duration_or_off(
            name("lifetime"),
            file.lifetime.as_ref(),
            stream.lifetime,
            &LIFETIME_BOUNDS,
        );
        Limits {
            shared: Options {
                connections: all,
                connections_per_address: per_address,
                connections_per_subject: per_subject,
                connects,
            },
            stream: fanout::Bounds {
                channels,
                messages,
                message_size,
                lifetime,
            },
            head: server::Head {
                size: head_size,
                timeout,
            },
        }
    }

    fn rate(&mut self, options: [&'static str; 2], written: [&Option<Written<i64>>; 2], default: Rate) -> Rate {
        let mut number = |which: usize, default: u32, bounds| {
            self.number(name(options[which]), written[which].as_ref(), default as usize, bounds) as u32
        };
        Rate {
            per_second: number(0, default.per_second, &PER_SECOND_BOUNDS),
            burst: number(1, default.burst, &BURST_BOUNDS),
        }
    }
}
