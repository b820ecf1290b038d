//! Whether key events come.

use std::time::{Duration, Instant};

use redis_protocol::resp3::types::OwnedFrame;
use tokio::time::timeout;

use super::{Finding, Probe, Proof, Verdict, start};
use crate::upstream::link::{Heard, Link, LinkError};

/// How long to listen for an event that somebody else causes.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the event of a canary may take.
const CANARY_PATIENCE: Duration = Duration::from_secs(5);

/// The canary goes by itself, should we be cut off before we take it away.
const CANARY_LIFE: &[u8] = b"10000";

impl Probe<'_> {
    /// Whether key events come: those that others caused meanwhile, or that of the canary.
    pub(super) async fn events(&mut self, proof: Proof<'_>) -> Result<(), LinkError> {
        match proof {
            Proof::None => return Ok(()),
            Proof::Canary(key) => return self.canary(key).await,
            Proof::Chance => {}
        }
        match timeout(PATIENCE, self.changed_key()).await {
            Ok(heard) => {
                heard?;
                self.find("events", Verdict::Ok, "they come: somebody changed a key meanwhile");
            }
            Err(_) => {
                let finding = Finding::new(
                    "events",
                    Verdict::Unknown,
                    "nobody changed a key meanwhile, so none came",
                );
                self.findings
                    .push(finding.remedy("to prove that events come, name a key that may be written: --canary KEY"));
            }
        }
        Ok(())
    }

    /// Waits for the news that a key was changed, whichever way they come.
    async fn changed_key(&mut self) -> Result<Vec<u8>, LinkError> {
        loop {
            match self.link.heard().await? {
                Heard::Change(key) => return Ok(key),
                Heard::Message(channel) => {
                    if let Some(key) = self.needs.subscriptions.key_of(&channel) {
                        return Ok(key.to_vec());
                    }
                }
            }
        }
    }

    async fn canary(&mut self, key: &[u8]) -> Result<(), LinkError> {
        let shown = key.escape_ascii();
        let cannot = |why: String, remedy: &str| Finding::new("events", Verdict::Unknown, why).remedy(remedy);
        if !self.needs.patterns.iter().any(|pattern| pattern.is_match(key)) {
            let why = format!("no mapping takes the key {shown}");
            self.findings.push(cannot(why, "name a key that a mapping takes"));
            return Ok(());
        }
        // On a connection of its own: here its event would come before the reply.
        let mut writer = Link::connect(self.endpoint).await?;
        start::log_in(&mut writer, self.endpoint).await?;
        let written = writer
            .command(&[b"SET", key, b"keyrelay-check", b"NX", b"PX", CANARY_LIFE])
            .await;
        match written {
            Ok(OwnedFrame::Null) => {
                let why = format!("the key {shown} is there already");
                let remedy = "name a key that is not there, for it is written and removed";
                self.findings.push(cannot(why, remedy));
                return Ok(());
            }
            Err(LinkError::Refused { message, .. }) => {
                let why = format!("{shown} cannot be written ({message})");
                let remedy = "while this runs, have somebody else write a key that a mapping takes";
                self.findings.push(cannot(why, remedy));
                return Ok(());
            }
            written => written?,
        };
        let begun = Instant::now();
        let heard = timeout(CANARY_PATIENCE, async {
            while self.changed_key().await? != key {}
            Ok::<_, LinkError>(())
        })
        .await;
        let took = begun.elapsed();
        writer.command(&[b"DEL", key]).await?;
        match heard {
            Ok(heard) => {
                heard?;
                let says = format!("they come: {shown} was written, and heard of {took:.1?} later");
                self.find("events", Verdict::Ok, says);
            }
            Err(_) => {
                let says = format!("none came of {shown} within {CANARY_PATIENCE:?}, though it was written");
                self.find("events", Verdict::Problem, says);
            }
        }
        Ok(())
    }
}
