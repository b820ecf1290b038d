//! Other channels, or others who may read them, from one moment to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Hub;
#[cfg(doc)]
use crate::hub::Appender;
use crate::hub::{Ended, Log};

/// What is another thing from now on.
#[derive(Debug)]
pub struct Revision<C, F> {
    /// Whether the channel of this name is concerned. Asked without the hub waiting, and again for the few that came meanwhile.
    pub concerned: C,
    /// Makes it so; while this runs nobody subscribes, so it must be quick.
    pub change: F,
    /// Whether credentials may count that did not, or the other way around.
    pub judge_again: bool,
}

impl Hub {
    /// See [`Appender::revise`]. Gives the logs that were closed.
    pub(in crate::hub) fn revise(&self, revision: Revision<impl Fn(&str) -> bool, impl FnOnce()>) -> Vec<Arc<Log>> {
        let Revision {
            concerned,
            change,
            judge_again,
        } = revision;
        let is_concerned = |log: &&Arc<Log>| concerned(&log.channel.name);
        // Looking at all names may take a while, in which others come and go.
        let (known, last) = {
            let registry = self.registry();
            (registry.logs.values().cloned().collect::<Vec<_>>(), registry.last_id)
        };
        let mut ended: Vec<Arc<Log>> = known.iter().filter(is_concerned).cloned().collect();
        drop(known);
        let mut registry = self.registry();
        change();
        let number = self.revision.fetch_add(1, Ordering::Release) + 1;
        let later = registry.logs.values().filter(|log| log.id > last);
        ended.extend(later.filter(is_concerned).cloned());
        ended.retain(|log| !log.view().closed);
        for log in &ended {
            self.shut(&mut registry, log, Some(Ended::Revised));
        }
        drop(registry);
        if judge_again {
            self.verdicts.send_replace(number);
        }
        for log in &ended {
            let remains = log.view().remains();
            drop(remains);
        }
        ended
    }
}
