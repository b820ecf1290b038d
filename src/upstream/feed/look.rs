//! What the answers to the questions of a look say.

use std::time::Duration;

use redis_protocol::resp3::types::OwnedFrame;

use super::{Cause, Role};
use crate::upstream::{Address, Info};

/// A difference between two clocks that is not taken for a jump: a key's expiry is told within 100 ms.
const JUMP: i64 = 20_000;

/// How the server stands to its primaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Links {
    pub role: Role,
    /// A plain replica's link is down, for so long; zero if the server does not say.
    pub behind: Option<Duration>,
}

/// How often something was done that changes keys without an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    swaps: u64,
    flushes: u64,
}

/// The server's clock minus ours, in microseconds: somewhere between the two, because nobody knows when between the
/// question and its answer the server looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offset {
    least: i64,
    most: i64,
}

impl Links {
    /// From the section `replication`. KeyDB can have several primaries: `master_host`, `master_1_host` and so on.
    pub fn of(info: &Info) -> Links {
        let link = |at: usize, name: &str| match at {
            0 => info.get(&format!("master_{name}")),
            at => info.get(&format!("master_{at}_{name}")),
        };
        let down = (0..)
            .map_while(|at| Some((at, link(at, "link_status")?)))
            .filter(|(_, status)| *status != "up")
            .map(|(at, _)| at);
        let down_for = |at| {
            // -1: it never was up.
            let seconds = link(at, "link_down_since_seconds").and_then(|seconds| seconds.parse().ok());
            Duration::from_secs(seconds.unwrap_or_default())
        };
        let peer = |at| Address::Tcp {
            host: link(at, "host").unwrap_or_default().to_owned(),
            port: link(at, "port").and_then(|port| port.parse().ok()).unwrap_or_default(),
        };
        let (role, behind) = match info.get("role") {
            Some("slave" | "replica") => (Role::Replica, down.map(down_for).max()),
            Some("active-replica") => {
                let peers_down = down.map(peer).collect();
                (Role::ActiveReplica { peers_down }, None)
            }
            _ => (Role::Primary, None),
        };
        Links { role, behind }
    }
}

impl Counters {
    /// From the section `commandstats`.
    pub fn of(info: &Info) -> Counters {
        let calls = |command: &str| {
            let line = info.get(&format!("cmdstat_{command}"))?;
            line.strip_prefix("calls=")?.split(',').next()?.parse().ok()
        };
        let calls = |command| calls(command).unwrap_or(0);
        Counters {
            swaps: calls("swapdb"),
            flushes: calls("flushall").saturating_add(calls("flushdb")),
        }
    }

    /// What happened since `before`; `signalled` if flushes are heard of without this. Counters that were set back
    /// (CONFIG RESETSTAT) may hide what was counted.
    pub fn since(self, before: Counters, signalled: bool) -> Option<Cause> {
        if self.swaps != before.swaps {
            Some(Cause::Swapped)
        } else if self.flushes != before.flushes && !signalled {
            Some(Cause::Flushed)
        } else {
            None
        }
    }
}

impl Offset {
    /// The server said `time` (microseconds since 1970) between `sent` and `heard`.
    pub fn new(time: i64, sent: Duration, heard: Duration) -> Offset {
        let micros = |since: Duration| i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Offset {
            least: time.saturating_sub(micros(heard)),
            most: time.saturating_sub(micros(sent)),
        }
    }

    /// By how many milliseconds the clock was set ahead (negative: back), if no reading of the clocks explains both; at
    /// most, so that nothing which depends on it comes too late.
    pub fn set_since(self, before: Offset) -> Option<i64> {
        let ahead = self.least > before.most.saturating_add(JUMP);
        let back = self.most < before.least.saturating_sub(JUMP);
        (ahead || back).then(|| self.most.saturating_sub(before.least).div_euclid(1000) + 1)
    }

    /// What both allow; this one where they have nothing in common, so that clocks which drift apart slowly are noticed
    /// as well.
    pub fn agreed(self, other: Offset) -> Offset {
        let (least, most) = (self.least.max(other.least), self.most.min(other.most));
        if least <= most { Offset { least, most } } else { self }
    }
}

/// The number of the connection in the reply to `HELLO`. A server that does not tell it has none higher.
pub(super) fn connection_id(reply: OwnedFrame) -> u64 {
    let OwnedFrame::Map { data, .. } = reply else { return 0 };
    let id = data
        .into_iter()
        .find_map(|(name, value)| match (text(name).as_deref(), value) {
            (Some("id"), OwnedFrame::Number { data, .. }) => u64::try_from(data).ok(),
            _ => None,
        });
    id.unwrap_or_default()
}

/// The highest number of a connection in a `CLIENT LIST`; None if there is none.
pub(super) fn newest(list: &str) -> Option<u64> {
    let ids = list
        .lines()
        .filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok());
    ids.max()
}

/// The value in the reply to `CONFIG GET` of one setting; None if the server does not tell it.
pub(super) fn setting(reply: OwnedFrame) -> Option<String> {
    match reply {
        OwnedFrame::Map { data, .. } => data.into_values().next().and_then(text),
        _ => None,
    }
}

/// The reply to `INFO`.
pub(super) fn info(reply: OwnedFrame) -> Option<Info> {
    match reply {
        OwnedFrame::VerbatimString { data, .. } | OwnedFrame::BlobString { data, .. } => Some(Info::from_bytes(&data)),
        _ => None,
    }
}

/// A reply that is text.
pub(in crate::upstream) fn text(reply: OwnedFrame) -> Option<String> {
    match reply {
        OwnedFrame::VerbatimString { data, .. }
        | OwnedFrame::BlobString { data, .. }
        | OwnedFrame::SimpleString { data, .. } => String::from_utf8(data).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_number_of_a_connection() {
        let reply = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:42\r\n";
        let (reply, _) = redis_protocol::resp3::decode::complete::decode(reply).unwrap().unwrap();
        assert_eq!(connection_id(reply), 42);
        assert_eq!(newest("id=3 addr=127.0.0.1:1 id=99\nid=12 name=\nnonsense\n"), Some(12));
        assert_eq!(newest(""), None);
    }

    #[test]
    fn a_plain_replica_of_several_is_behind_while_one_link_is_down() {
        let links = Links::of(&Info::from_bytes(
            b"role:slave\r\nmaster_link_status:up\r\nmaster_1_link_status:down\r\nmaster_1_link_down_since_seconds:-1\r\n",
        ));
        let expected = Links {
            role: Role::Replica,
            behind: Some(Duration::ZERO),
        };
        assert_eq!(links, expected);
        assert_eq!(Links::of(&Info::from_bytes(b"role:master\r\n")).role, Role::Primary);
    }
}
