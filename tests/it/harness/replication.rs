//! Servers that copy each other: plain replicas, and KeyDB nodes that all take writes.

use std::net::SocketAddr;
use std::process::Command;

use super::eventually::eventually;
use super::server::{Server, program};
use crate::redis;

/// A primary that sends its data at once, and a loading that keeps nobody waiting.
const PROMPT: &str = "repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n";

/// A server that can be a primary or a replica.
#[track_caller]
pub fn prompt_server(lines: &str) -> Server {
    Server::with_config(&format!("{PROMPT}{lines}"))
}

/// Makes `replica` a replica of who listens there, and waits until it has everything.
#[track_caller]
pub fn replicate(replica: &Server, primary: SocketAddr) {
    follow(replica, primary);
    eventually("the replica has everything", || linked(replica).then_some(()));
}

/// Makes `replica` a replica of who listens there; an active one keeps the primaries that it has.
#[track_caller]
pub fn follow(replica: &Server, primary: SocketAddr) {
    redis!(
        replica,
        "REPLICAOF",
        primary.ip().to_string(),
        primary.port().to_string()
    );
}

/// Whether all links of the server to its primaries are up.
#[track_caller]
pub fn linked(replica: &Server) -> bool {
    let info = redis!(replica, "INFO", "replication").text();
    let mut links = info
        .lines()
        .filter(|line| line.starts_with("master_") && line.contains("link_status:"));
    links.clone().count() > 0 && links.all(|line| line.trim_end().ends_with(":up"))
}

/// So many KeyDB nodes, each a replica of all others; None, said loudly, if another server is under test.
#[track_caller]
pub fn mesh<const NODES: usize>() -> Option<[Server; NODES]> {
    let nodes = active_nodes("")?;
    join(&nodes);
    Some(nodes)
}

/// So many KeyDB nodes that can be joined, with further lines of config; None as for [`mesh`].
#[track_caller]
pub fn active_nodes<const NODES: usize>(lines: &str) -> Option<[Server; NODES]> {
    let version = Command::new(program())
        .arg("--version")
        .output()
        .expect("the server tells its version");
    let version = String::from_utf8_lossy(&version.stdout);
    if !version.contains("KeyDB") {
        eprintln!(
            "SKIPPED: only KeyDB has active replicas, and this is {}",
            version.trim_end()
        );
        return None;
    }
    let lines = format!("active-replica yes\nmulti-master yes\n{lines}\n");
    Some([(); NODES].map(|()| prompt_server(&lines)))
}

/// Makes each node a replica of all others, and waits until all links are up.
#[track_caller]
pub fn join(nodes: &[Server]) {
    for (at, node) in nodes.iter().enumerate() {
        for (_, other) in nodes.iter().enumerate().filter(|(other, _)| *other != at) {
            follow(node, other.address());
        }
    }
    for node in nodes {
        eventually("all links are up", || linked(node).then_some(()));
    }
}

/// Ends all links between the nodes; each goes on by itself.
#[track_caller]
pub fn split(nodes: &[Server]) {
    for node in nodes {
        redis!(node, "REPLICAOF", "NO", "ONE");
    }
}
