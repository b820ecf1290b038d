//! What the mirror may hold, and what becomes of channels that want more.

use std::time::Duration;

use super::entries::Now;
use super::mirror::Mirror;
use super::timers::Timer;
use crate::hub::{Limit, Name, for_new};

/// A channel that had too many keys is not enumerated again for this long, whoever asks: each time costs as many keys as
/// it may have, and it has fewer only when somebody takes them away.
pub(super) const BARRED: Duration = Duration::from_secs(60);

/// Most channels that are barred at once; of more the first is let in again. A name has at most 1 KiB.
const MAX_BARRED: usize = 1_024;

/// What the relay needs to know from the config.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most keys behind all channels together.
    pub keys: usize,
    /// Most keys behind one channel.
    pub keys_per_channel: usize,
    /// Most bytes of values of unknown size that may be on their way, of memory that what was read takes until it is in the
    /// logs, and of published messages that wait.
    pub reading: usize,
    /// Share of one core of the server that may be spent on SCAN, in percent.
    pub scan_share: u32,
}

impl Limits {
    /// For tests of other things.
    pub const NONE: Limits = Limits {
        keys: usize::MAX,
        keys_per_channel: usize::MAX,
        reading: usize::MAX,
        scan_share: 50,
    };

    /// Most keys while a log is not whole, or once it is.
    pub(super) fn keys(&self, filled: bool) -> usize {
        match filled {
            true => self.keys,
            false => for_new(self.keys),
        }
    }
}

/// What is remembered of limits that were reached.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Channels that would have had one key too many, and of which limit. Emptied by [`Mirror::end_overfull`].
    pub overfull: Vec<(u64, Limit)>,
    /// Events channels with a gap that is still to be appended. Emptied by [`Mirror::append_gaps`].
    pub gaps: Vec<u64>,
    /// Names that are barred, the first of them first.
    barred: std::collections::VecDeque<Name>,
}

impl Mirror {
    /// Where there are so many keys that only channels which are whole may have more of them, lingering channels go, and
    /// no new ones come in.
    pub(super) fn relieve(&mut self) {
        let hub = self.appender.hub().clone();
        while self.keys.len() >= self.limits.keys(false) {
            let Some(log) = hub.evict(Limit::Keys) else { break };
            self.remove(log.id);
        }
        hub.set_crowded(self.keys.len() >= self.limits.keys(false));
    }

    /// Ends the channels that cannot have all their keys: one that is not whole would be a lie. Says whether one of them may
    /// have the next key after all, as lingering channels have gone.
    pub(super) fn end_overfull(&mut self, now: Now) -> bool {
        let mut again = false;
        for (id, limit) in std::mem::take(&mut self.reached.overfull) {
            if limit == Limit::Keys {
                let filled = self.logs.get(&id).is_some_and(|log| log.filled);
                let hub = self.appender.hub().clone();
                while self.keys.len() >= self.limits.keys(filled)
                    && let Some(log) = hub.evict(limit)
                {
                    self.remove(log.id);
                }
                if self.keys.len() < self.limits.keys(filled) {
                    again = true;
                    continue;
                }
            }
            self.end(id, limit, now);
        }
        again
    }

    fn end(&mut self, id: u64, limit: Limit, now: Now) {
        let Some(log) = self.logs.get(&id).map(|entry| entry.log.clone()) else {
            return;
        };
        // That the limit is reached, the hub tells.
        tracing::debug!(
            channel = ?log.channel.name,
            limit = limit.option(),
            "a channel wants more keys than there may be: it is ended"
        );
        self.appender.end(&log, limit);
        if limit == Limit::KeysPerChannel {
            let name = log.channel.name.clone();
            self.appender.hub().bar(&name, true);
            self.timers.set(now.mono + BARRED, Timer::Unbar(name.clone()));
            self.reached.barred.push_back(name);
            if self.reached.barred.len() > MAX_BARRED
                && let Some(first) = self.reached.barred.front().cloned()
            {
                self.unbar(&first);
            }
        }
        self.remove(id);
    }

    /// The channel may be tried again.
    pub(super) fn unbar(&mut self, name: &Name) {
        if let Some(at) = self.reached.barred.iter().position(|barred| barred == name) {
            self.reached.barred.remove(at);
            self.appender.hub().bar(name, false);
        }
    }
}
