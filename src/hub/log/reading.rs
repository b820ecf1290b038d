//! What stands in a log after a given sequence.

use std::sync::Arc;

use super::{Found, LogView};
use crate::hub::channel::Mode;
use crate::hub::message::Message;

impl LogView {
    /// A `stale` in `(after, upto]` that is over. Values may have gone back in it, so it must be told before any of them
    /// to who comes later.
    pub fn passed(&self, after: u64, upto: u64) -> Option<&Arc<Message>> {
        let within = |stale: &&Arc<Message>| stale.sequence > after && stale.sequence <= upto;
        self.passed.as_ref().filter(within)
    }

    /// The message with the lowest sequence in `(after, upto]` that has something to send.
    pub fn next(&self, after: u64, upto: u64) -> Option<Found> {
        let found = match self.mode {
            Mode::State => self
                .order
                .range(self.order.partition_point(|&(sequence, _)| sequence <= after)..)
                .take_while(|&&(sequence, _)| sequence <= upto)
                .find_map(|&(sequence, slot)| self.current(sequence, slot)),
            Mode::Events => {
                let first = self.ring.partition_point(|happening| happening.sequence <= after);
                let first = self.ring.get(first).filter(|happening| happening.sequence <= upto);
                first.map(|happening| Found {
                    message: happening.message.clone(),
                    slot: None,
                })
            }
        };
        let status = self.status(upto).filter(|status| status.sequence > after);
        match (found, status) {
            (Some(found), Some(status)) if status.sequence > found.message.sequence => Some(found),
            (_, Some(status)) => Some(Found {
                message: status.clone(),
                slot: None,
            }),
            (found, None) => found,
        }
    }

    /// All messages in `(after, upto]` that have something to send, in order.
    pub fn since(&self, after: u64, upto: u64, mut take: impl FnMut(&Arc<Message>)) {
        let mut last = after;
        while let Some(found) = self.next(last, upto) {
            last = found.message.sequence;
            take(&found.message);
        }
    }

    /// At most how many messages [`LogView::since`] would give.
    pub fn pending(&self, after: u64, upto: u64) -> usize {
        let count = |upto: u64| match self.mode {
            Mode::State => self.order.partition_point(|&(sequence, _)| sequence <= upto),
            Mode::Events => self.ring.partition_point(|happening| happening.sequence <= upto),
        };
        count(upto).saturating_sub(count(after))
    }

    /// The first slot at `from` or behind it, in the fixed order of a sweep, with a message in `(base, upto]`. What
    /// `base` 0 never had needs no deletion: then only values that are there are given, and absent fixed ones.
    pub fn slot(&self, from: u32, base: u64, upto: u64) -> Option<Found> {
        let slots = self.slots.iter().enumerate().skip(from as usize);
        slots
            .filter_map(|(place, slot)| Some((place, slot.as_ref()?)))
            .find_map(|(place, slot)| {
                let message = &slot.message;
                let due = message.sequence > base && message.sequence <= upto && message.is_sendable();
                let told = base > 0 || slot.fixed || message.is_present();
                (due && told).then(|| Found {
                    message: message.clone(),
                    slot: Some(place as u32),
                })
            })
    }

    fn current(&self, sequence: u64, slot: u32) -> Option<Found> {
        let message = &self.slots.get(slot as usize)?.as_ref()?.message;
        let current = message.sequence == sequence && message.is_sendable();
        current.then(|| Found {
            message: message.clone(),
            slot: Some(slot),
        })
    }
}
