//! What the appender tells one shard: the watermark, and the logs that grew up to it, as one fact.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::log::Log;
use crate::bell::Bell;

/// One shard's view of the hub's progress.
#[derive(Debug)]
pub struct Inbox {
    /// The shard's number, below 64; its bit in every log that it has subscribers of.
    pub shard: u32,
    /// The watermark and the grown logs change together: whoever takes a watermark also takes every log of its shard
    /// that has messages up to it. Where more than one is held, in the order of the shards.
    state: Mutex<Delivery>,
    bell: Bell,
}

/// What had come since the last look.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Everything up to here is appended, on every log.
    pub watermark: u64,
    /// The logs of this shard with something new up to the watermark; each once or more.
    pub grown: Vec<Arc<Log>>,
}

impl Inbox {
    pub(super) fn new(shard: u32, watermark: u64) -> Inbox {
        let state = Mutex::new(Delivery {
            watermark,
            grown: Vec::new(),
        });
        Inbox {
            shard,
            state,
            bell: Bell::default(),
        }
    }

    /// Takes what has come. A new subscriber must be registered at its logs ([`super::LogView::set_shard`]) before the
    /// shard takes the watermark that it will be served up to: then what is appended later is announced to it.
    pub fn take(&self) -> Delivery {
        let mut state = self.lock();
        Delivery {
            watermark: state.watermark,
            grown: std::mem::take(&mut state.grown),
        }
    }

    /// Rings when there is something to take.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Tells all shards at once: a cursor that one of them has given must be behind none of the others' watermarks, for who
    /// loses its connection may come back to any of them.
    pub(super) fn put(inboxes: &[Arc<Inbox>], watermark: u64, grown: &[Arc<Log>]) {
        let mut states: SmallVec<[MutexGuard<'_, Delivery>; 16]> = inboxes.iter().map(|inbox| inbox.lock()).collect();
        let mut news = 0_u64;
        for (inbox, state) in inboxes.iter().zip(&mut states) {
            state.watermark = watermark;
            let before = state.grown.len();
            let bit = 1 << inbox.shard;
            // Asked under this lock: a subscriber that registered later takes the new watermark itself.
            let of_shard = grown.iter().filter(|log| log.view().shards & bit != 0);
            state.grown.extend(of_shard.cloned());
            if state.grown.len() > before {
                news |= bit;
            }
        }
        drop(states);
        for inbox in inboxes.iter().filter(|inbox| news & (1 << inbox.shard) != 0) {
            inbox.bell.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Delivery> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
