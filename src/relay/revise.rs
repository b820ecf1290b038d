//! Other mappings while the mirror runs.
//!
//! All of it happens on the relay's thread, in one order: what was appended becomes visible; the hub stops to let anybody
//! in, and meanwhile the catalog is replaced and all channels are closed that are another thing by the new mappings; what
//! is known of these channels is dropped; then the feeds' threads sort by the new mappings. So what such a thread has put
//! down is either of a log that is gone, or of a mapping that is here: ids are never used again, and a channel stays only if
//! its mappings do.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::channels::Catalog;
use super::entries::Now;
use super::mirror::Mirror;
use super::rule::Rule;
use crate::hub;
use crate::mapping::RuleError;
use crate::upstream::NodeId;
#[cfg(doc)]
use crate::upstream::feed;

/// What is another thing from now on.
pub struct Revision {
    /// All mappings, in the order of the config. Where one has the id of one from before it is the same thing to clients: only
    /// `linger`, `min_interval`, `poll` and where it stands may differ. No other id was ever used.
    pub rules: Vec<Arc<Rule>>,
    /// The [plan](feed::Plan) by which all is heard that they need.
    pub plan: u64,
    /// Whether credentials may count that did not, or the other way around.
    pub judge_again: bool,
    /// Makes whatever else is to change in the same moment, while nobody is let in; it must be quick.
    pub also: Box<dyn FnOnce() + Send>,
}

/// Gives a running relay other mappings.
#[derive(Clone, Debug)]
pub struct Reviser(mpsc::Sender<Ordered>);

/// Why mappings were not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReviseError {
    /// A checked config has none of these.
    #[error("mappings that a checked config does not have: {0:?}")]
    Rules(Vec<RuleError>),
    /// The relay has ended.
    #[error("the relay has ended")]
    Ended,
}

/// A revision that the relay's thread is to do.
pub(super) struct Ordered {
    revision: Revision,
    done: oneshot::Sender<Result<usize, ReviseError>>,
}

impl Reviser {
    /// With what the relay's thread takes its orders from.
    pub(super) fn new() -> (Reviser, mpsc::Receiver<Ordered>) {
        let (sender, receiver) = mpsc::channel(1);
        (Reviser(sender), receiver)
    }

    /// Does it, and gives the number of channels that were ended by it.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn revise(&self, revision: Revision) -> Result<usize, ReviseError> {
        let (done, result) = oneshot::channel();
        let ordered = Ordered { revision, done };
        self.0.send(ordered).await.map_err(|_| ReviseError::Ended)?;
        result.await.unwrap_or(Err(ReviseError::Ended))
    }
}

impl Ordered {
    pub fn carry_out(self, mirror: &mut Mirror, catalog: &Catalog, now: Now) {
        // Whoever ordered it may have gone in a drain.
        let _ = self.done.send(mirror.revise(catalog, self.revision, now));
    }
}

impl Mirror {
    /// Goes by other mappings from here on. Gives the number of channels that were ended.
    pub(super) fn revise(&mut self, catalog: &Catalog, revision: Revision, now: Now) -> Result<usize, ReviseError> {
        let Revision {
            rules,
            plan,
            judge_again,
            also,
        } = revision;
        let table = Arc::new(
            self.table
                .next(rules, plan, &self.shared.stats)
                .map_err(ReviseError::Rules)?,
        );
        let before = std::mem::replace(&mut self.table, table.clone());
        let same = before.has_same(&table);
        let ended = self.appender.revise(hub::Revision {
            concerned: |name: &str| !same && before.of_channel(name) != table.of_channel(name),
            change: || {
                catalog.put(table.clone());
                also();
            },
            judge_again,
        });
        for log in &ended {
            self.remove(log.id);
        }
        self.shared.put(table.clone());
        self.said.retain(|(mapping, _)| table.rule(*mapping).is_some());
        self.begin_polling(Some(&before), now.mono);
        Ok(ended.len())
    }

    /// The feed of a node hears all that this plan asks for: what waited for it is read.
    pub(super) fn hears(&mut self, node: NodeId, plan: u64, now: Now) {
        self.nodes[node].plan = plan;
        self.begin_outdated(node, None, now);
    }
}
