//! How it stands, for people and scripts.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{Sources, health};
use crate::relay::stats::{Condition, Node, Trouble};
use crate::upstream::Address;
use crate::upstream::feed::Role;

#[derive(Serialize)]
struct Status {
    version: &'static str,
    ready: bool,
    draining: bool,
    upstream: Vec<Upstream>,
    channels: Channels,
    connections: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
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

#[derive(Serialize)]
struct State {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// In milliseconds since 1970, as on the wire.
    since: u64,
}

#[derive(Serialize)]
struct Channels {
    active: usize,
    stale: usize,
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

/// One JSON object.
pub fn json(sources: &Sources) -> String {
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        ready: health::is_ready(&health::parts(sources)),
        draining: sources.drain.is_cancelled(),
        upstream: sources.relay.nodes().into_iter().map(upstream).collect(),
        channels: Channels {
            active: sources.hub.channels(),
            stale: sources.relay.stale.load(Ordering::Relaxed),
        },
        connections: BTreeMap::from([
            ("sse", sources.fanout.sse.load(Ordering::Relaxed)),
            ("websocket", sources.fanout.websocket.load(Ordering::Relaxed)),
        ]),
    };
    let mut text = serde_json::to_string(&status).expect("names and numbers become JSON");
    text.push('\n');
    text
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

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
