//! How many open questions each address has brought about.

use std::collections::HashMap;

use crate::limits::Network;

/// Most questions of one address, under way and waiting. It is half of those that are under way at once, so that the others
/// find room however long those of one address take; and an office whose people all come back at once is through in seconds.
pub(super) const MAX_PER_ADDRESS: usize = super::IN_FLIGHT / 2;

/// Only addresses that have any. Nothing is remembered of what became of them.
#[derive(Default)]
pub(super) struct Shares(HashMap<Network, usize>);

impl Shares {
    /// Counts one more question of this address, if it may have one. Clients without an address of their own have no share.
    pub fn take(&mut self, address: Option<Network>) -> bool {
        let Some(address) = address else { return true };
        let open = self.0.entry(address).or_default();
        let may = *open < MAX_PER_ADDRESS;
        *open += usize::from(may);
        may
    }

    /// A question that was counted has ended.
    pub fn give_back(&mut self, address: Option<Network>) {
        if let Some(address) = address
            && let Some(open) = self.0.get_mut(&address)
        {
            *open -= 1;
            if *open == 0 {
                self.0.remove(&address);
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
