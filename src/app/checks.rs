//! What the server lets us do, told in the log as soon as it can be asked.

use std::time::Duration;

use crate::upstream::Endpoint;
use crate::upstream::probe::{self, Finding, Needs, Proof, Verdict};

/// How soon a server that could not be asked is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// The feed sees to this itself, and tells of it.
const OF_THE_FEED: &str = "notifications";

/// Tells once what [`probe`](probe::probe) finds. That the server is away is told by the feed.
pub(super) async fn tell(endpoint: &Endpoint, needs: &Needs) {
    let findings = loop {
        let findings = probe::probe(endpoint, needs, Proof::None).await;
        if !findings.iter().any(Finding::is_of_connection) {
            break findings;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let findings: Vec<Finding> = findings
        .into_iter()
        .filter(|finding| finding.subject != OF_THE_FEED)
        .collect();
    for finding in &findings {
        let Finding { subject, says, .. } = finding;
        let remedy = finding.remedy.as_deref();
        match finding.verdict {
            Verdict::Ok | Verdict::Unknown => tracing::info!(subject, says, remedy, "upstream check"),
            Verdict::Warning | Verdict::Problem => tracing::warn!(subject, says, remedy, "upstream check"),
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    tracing::info!(problems, warnings, "upstream checked");
}
