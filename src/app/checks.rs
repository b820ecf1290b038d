//! What the server lets us do, told in the log as soon as it can be asked.

use std::time::Duration;

use crate::upstream::probe::{self, Finding, Needs, Proof, Verdict};
use crate::upstream::{Address, Endpoint, Topology};

/// How soon a server that could not be asked is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// The feed sees to this itself, and tells of it.
const OF_THE_FEED: &str = "notifications";

/// What the feed tells at each connection, and whenever it changes.
const TOLD_BY_THE_FEED: [&str; 2] = ["server", "role"];

/// Tells once what [`probe`](probe::probe) finds at each server. That one is away is told by the feed.
pub(super) async fn tell(topology: &Topology, endpoint: &Endpoint, needs: &Needs) {
    let mut told: Vec<Address> = Vec::new();
    loop {
        let servers = topology.servers(endpoint).await.unwrap_or_default();
        for server in &servers {
            if told.contains(&server.address) {
                continue;
            }
            let findings = probe::probe(server, needs, Proof::None).await;
            if !findings.iter().any(Finding::is_of_connection) {
                log(&server.address, &findings);
                told.push(server.address.clone());
            }
        }
        if !servers.is_empty() && servers.iter().all(|server| told.contains(&server.address)) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn log(address: &Address, findings: &[Finding]) {
    let findings = findings.iter().filter(|finding| finding.subject != OF_THE_FEED);
    for finding in findings.clone() {
        let Finding { subject, says, .. } = finding;
        let remedy = finding.remedy.as_deref();
        match finding.verdict {
            Verdict::Ok if TOLD_BY_THE_FEED.contains(subject) => {}
            Verdict::Ok | Verdict::Unknown => tracing::info!(%address, subject, says, remedy, "upstream check"),
            Verdict::Warning | Verdict::Problem => tracing::warn!(%address, subject, says, remedy, "upstream check"),
        }
    }
    let count = |verdict| findings.clone().filter(|finding| finding.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    tracing::info!(%address, problems, warnings, "upstream checked");
}
