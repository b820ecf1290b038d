//! How it stands, for people and scripts: one structure behind `/status` and the dashboard.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::channels::{self, Channels};
use super::{Sources, health, process};
use crate::relay::gaps;
use crate::relay::stats::{Condition, Node, Trouble};
use crate::upstream::Address;
use crate::upstream::feed::Role;

/// Everything. `docs/operations.md` types it.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    /// When the process began to serve; as all times here, in milliseconds since 1970.
    started: u64,
    ready: bool,
    draining: bool,
    /// A line for each part that is not well, as `/readyz` has it.
    problems: Vec<String>,
    upstream: Vec<Upstream>,
    traffic: Traffic,
    mirror: Mirror,
    /// The channels.
    pub channels: Channels,
    connections: BTreeMap<&'static str, usize>,
    sessions: Sessions,
    slow_clients: Slow,
    /// How often each limit was reached, by its option; those that never were are left out.
    limits: BTreeMap<&'static str, u64>,
    config: Config,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<process::Usage>,
    /// The last gaps, the newest first.
    pub gaps: Vec<Gap>,
}

#[derive(Debug, Serialize)]
struct Upstream {
    address: String,
    heard: State,
    readable: State,
    current: State,
    /// What it is; null until it has said so.
    role: Option<&'static str>,
    /// The peers to which links of a KeyDB active replica are down.
    peers_down: Vec<String>,
    /// Of the server, when it was last heard.
    version: Option<String>,
    run_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct State {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    since: u64,
}

/// What passes through, counted from the start of the process.
#[derive(Debug, Serialize)]
struct Traffic {
    /// When it was counted.
    at: u64,
    key_events: u64,
    key_events_mapped: u64,
    key_events_unmapped: u64,
    published_messages: u64,
    reads: u64,
    read_errors: u64,
    messages_sent: u64,
}

/// What is known of keys, now.
#[derive(Debug, Serialize)]
struct Mirror {
    keys: usize,
    dirty_keys: usize,
    log_bytes: usize,
    /// Since the start.
    resyncs: u64,
    repairs: u64,
}

#[derive(Debug, Serialize)]
struct Sessions {
    opened: BTreeMap<&'static str, u64>,
    ended: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct Slow {
    /// Clients whose sockets take nothing now.
    blocked: usize,
    /// Clients that were ended for it, since the start.
    ended: u64,
    /// Frames that they hold on to, now.
    pinned_bytes: usize,
}

#[derive(Debug, Serialize)]
struct Config {
    reloads_applied: u64,
    reloads_refused: u64,
    /// When the config that holds was read; null if that is not known.
    last: Option<u64>,
}

/// One gap.
#[derive(Debug, Serialize)]
pub struct Gap {
    /// Its place in the order of all gaps of the process.
    pub number: u64,
    /// The node; null where it is one channel that could not keep its happenings.
    address: Option<String>,
    reason: &'static str,
    detail: Option<String>,
    since: u64,
    /// From its beginning to the end of its resync, in milliseconds; null while it goes on.
    took: Option<u64>,
    /// Values that were found to differ; null while it goes on.
    differences: Option<u64>,
}

impl Status {
    /// As it is now. Looks at all channels, so it is for those who ask, and once a second while somebody watches.
    pub async fn of(sources: &Sources) -> Status {
        let behind = sources.fanout.behind().await;
        let channels = channels::survey(&sources.hub, &behind).await;
        let parts = health::parts(sources);
        let (relay, fanout) = (&*sources.relay, &*sources.fanout);
        let limits = fanout.limited.all().chain(sources.hub.limited.all());
        Status {
            version: env!("CARGO_PKG_VERSION"),
            started: unix_ms(sources.started),
            ready: health::is_ready(&parts),
            draining: sources.drain.is_cancelled(),
            problems: health::problems(&parts),
            upstream: relay.nodes().into_iter().map(upstream).collect(),
            traffic: traffic(sources),
            mirror: Mirror {
                keys: relay.keys.load(Ordering::Relaxed),
                dirty_keys: relay.dirty.load(Ordering::Relaxed),
                log_bytes: sources.hub.log_bytes(),
                resyncs: relay.resyncs.all().values().sum(),
                repairs: load(&relay.repairs),
            },
            channels,
            connections: BTreeMap::from([
                ("sse", fanout.sse.load(Ordering::Relaxed)),
                ("websocket", fanout.websocket.load(Ordering::Relaxed)),
            ]),
            sessions: Sessions {
                opened: BTreeMap::from([
                    ("sse", load(&fanout.sse_opened)),
                    ("websocket", load(&fanout.websocket_opened)),
                ]),
                ended: fanout.ended.all(),
            },
            slow_clients: Slow {
                blocked: fanout.blocked.load(Ordering::Relaxed),
                ended: load(&fanout.slow),
                pinned_bytes: fanout.pinned.load(Ordering::Relaxed),
            },
            limits: limits.filter(|(_, reached)| *reached > 0).collect(),
            config: Config {
                reloads_applied: load(&sources.reloads.applied),
                reloads_refused: load(&sources.reloads.refused),
                last: Some(load(&sources.reloads.last)).filter(|last| *last > 0),
            },
            process: process::usage(),
            gaps: relay.gap_log.all().into_iter().map(gap).collect(),
        }
    }

    /// One JSON object, and the end of a line.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("names and numbers become JSON");
        text.push('\n');
        text
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn traffic(sources: &Sources) -> Traffic {
    let relay = &*sources.relay;
    let (key_events, key_events_mapped) = relay.key_events();
    Traffic {
        at: unix_ms(SystemTime::now()),
        key_events,
        key_events_mapped,
        key_events_unmapped: key_events - key_events_mapped,
        published_messages: load(&relay.published),
        reads: load(&relay.reads),
        read_errors: relay.read_errors.all().values().sum(),
        messages_sent: load(&sources.fanout.messages),
    }
}

fn upstream(node: Node) -> Upstream {
    let (version, run_id) = node.server.map(|server| (server.version, server.run_id)).unzip();
    let role = node.role.as_ref();
    Upstream {
        address: node.address,
        heard: state(node.heard),
        readable: state(node.readable),
        current: state(node.current),
        role: role.map(Role::word),
        peers_down: role.map_or_else(Vec::new, |role| {
            role.peers_down().iter().map(Address::to_string).collect()
        }),
        version,
        run_id,
    }
}

fn state(Condition { trouble, since }: Condition) -> State {
    let (reason, detail) = trouble.map(|Trouble { reason, detail }| (reason, detail)).unzip();
    State {
        ok: reason.is_none(),
        reason,
        detail,
        since: unix_ms(since),
    }
}

fn gap(gap: gaps::Gap) -> Gap {
    Gap {
        number: gap.number,
        address: gap.node.map(|_| gap.address),
        reason: gap.reason,
        detail: gap.detail,
        since: unix_ms(gap.since),
        took: gap.end.map(|end| end.took.as_millis() as u64),
        differences: gap.end.map(|end| end.differences),
    }
}

/// How it stands, in a line: `12 clients, 3 channels; upstream 127.0.0.1:6379 is heard`.
pub fn line(sources: &Sources) -> String {
    let counted = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let clients = counted(sources.fanout.sessions(), "client");
    let channels = counted(sources.hub.channels(), "channel");
    let parts = health::parts(sources);
    let ill: Vec<String> = parts.iter().filter_map(health::Part::brief).collect();
    let standing = match &*ill {
        [] => match &*sources.relay.nodes() {
            [node] => format!("upstream {} is heard", node.address),
            nodes => format!("{} upstream nodes are heard", nodes.len()),
        },
        [first] => first.clone(),
        [first, others @ ..] => format!("{first}, and {} more", counted(others.len(), "trouble")),
    };
    format!("{clients}, {channels}; {standing}")
}

/// Milliseconds since 1970, as on the wire.
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
