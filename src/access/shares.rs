//! How much each address has of what all of them share.

use std::collections::HashMap;

use crate::limits::Network;

/// Only addresses that have anything. Nothing is remembered of what became of them.
pub(super) struct Shares {
    most: usize,
    taken: HashMap<Network, usize>,
}

impl Shares {
    /// Shares of at most so much each.
    pub fn of(most: usize) -> Shares {
        let taken = HashMap::new();
        Shares { most, taken }
    }

    /// Counts one more for this address, if it may have one. Clients without an address of their own have no share.
    pub fn take(&mut self, address: Option<Network>) -> bool {
        let Some(address) = address else { return true };
        let taken = self.taken.entry(address).or_default();
        let may = *taken < self.most;
        *taken += usize::from(may);
        may
    }

    /// What was counted has ended.
    pub fn give_back(&mut self, address: Option<Network>) {
        if let Some(address) = address
            && let Some(taken) = self.taken.get_mut(&address)
        {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(&address);
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.taken.len()
    }
}
