//! What each address holds and how often it connects. Who holds nothing and was quiet for long enough is forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::counts::Limit;
use super::meter::{Meter, Rate};
use super::{Options, Refused};

/// Addresses that may be remembered beyond one for each connection: those that have just gone or were just refused. At the
/// default rate each is remembered for 50 ms after a connect, so that this allows for a million connects in a second.
const QUIET: usize = 65_536;

/// Looking for those who can be forgotten is worth it from here on.
const FEW: usize = 1_024;

/// How long no further look is taken where the last one found too little.
const PAUSE: Duration = Duration::from_millis(100);

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// One address.
    V4(u32),
    /// A /64: what a single customer gets, who can take any address in it for each connection.
    V6(u64),
}

/// All addresses that hold something or have connected lately.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Its hashes are keyed: strangers choose what stands in it.
    known: HashMap<Network, Entry>,
    most: usize,
    /// At this size it is looked for those who can be forgotten …
    look_at: usize,
    /// … and not before this time.
    look_from: Duration,
}

#[derive(Debug, Default)]
struct Entry {
    held: usize,
    connects: Meter,
    /// Counts those that were refused, to see a flood.
    refused: Meter,
}

impl Network {
    /// That which counts for this address.
    pub fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(address) => Network::V4(address.to_bits()),
            IpAddr::V6(address) => Network::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl Addresses {
    pub fn new(connections: usize) -> Addresses {
        Addresses {
            known: HashMap::new(),
            most: connections.saturating_add(QUIET),
            look_at: FEW,
            look_from: Duration::ZERO,
        }
    }

    /// Counts one more connection and connect.
    pub fn take(&mut self, network: Network, options: &Options, now: Duration) -> Result<(), Refused> {
        let Some(entry) = self.entry(network, now) else {
            let limit = Limit::ConnectsPerSecond;
            return Err(Refused { limit, flood: true });
        };
        let limit = if !entry.connects.take(options.connects, now) {
            Limit::ConnectsPerSecond
        } else if entry.held >= options.connections_per_address {
            Limit::ConnectionsPerAddress
        } else {
            entry.held += 1;
            return Ok(());
        };
        let flood = !entry.refused.take(options.connects, now);
        Err(Refused { limit, flood })
    }

    /// Counts one more connect alone.
    pub fn again(&mut self, network: Network, rate: Rate, now: Duration) -> bool {
        self.entry(network, now)
            .is_some_and(|entry| entry.connects.take(rate, now))
    }

    pub fn give_back(&mut self, network: Network, now: Duration) {
        if let Some(entry) = self.known.get_mut(&network) {
            entry.held -= 1;
            if entry.is_forgettable(now) {
                self.known.remove(&network);
            }
        }
    }

    /// The entry of this address; nothing if more are known than may be.
    fn entry(&mut self, network: Network, now: Duration) -> Option<&mut Entry> {
        if self.known.len() >= self.look_at && !self.known.contains_key(&network) {
            if now >= self.look_from {
                self.known.retain(|_, entry| !entry.is_forgettable(now));
                self.known.shrink_to(2 * FEW);
                // As many again must come before the next look, so that each costs its share only.
                self.look_at = (self.known.len() * 2).clamp(FEW, self.most);
                self.look_from = now + PAUSE;
            }
            if self.known.len() >= self.most {
                return None;
            }
        }
        Some(self.known.entry(network).or_default())
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

impl Entry {
    fn is_forgettable(&self, now: Duration) -> bool {
        self.held == 0 && self.connects.is_even(now) && self.refused.is_even(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(per_address: usize, per_second: u32, burst: u32) -> Options {
        Options {
            connections: 10,
            connections_per_address: per_address,
            connects: Rate { per_second, burst },
            ..Options::default()
        }
    }

    fn network(number: u32) -> Network {
        Network::V4(number)
    }

    #[test]
    fn addresses_of_one_64_are_one_and_mapped_ones_are_ipv4() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("::1"), of("0.0.0.0"));
    }

    #[test]
    fn a_place_comes_back_and_a_flood_is_seen() {
        let options = options(2, 1, 100);
        let mut addresses = Addresses::new(10);
        let now = Duration::ZERO;
        let take = |addresses: &mut Addresses| addresses.take(network(1), &options, now);
        assert_eq!((take(&mut addresses), take(&mut addresses)), (Ok(()), Ok(())));
        let refused = |limit, flood| Err(Refused { limit, flood });
        assert_eq!(take(&mut addresses), refused(Limit::ConnectionsPerAddress, false));
        addresses.give_back(network(1), now);
        assert_eq!(take(&mut addresses), Ok(()));
        for _ in 0..96 {
            assert_eq!(take(&mut addresses), refused(Limit::ConnectionsPerAddress, false));
        }
        for _ in 0..3 {
            assert_eq!(take(&mut addresses), refused(Limit::ConnectsPerSecond, false));
        }
        assert_eq!(take(&mut addresses), refused(Limit::ConnectsPerSecond, true));
        assert_eq!(
            addresses.take(network(2), &options, now),
            Ok(()),
            "others do not notice"
        );
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let options = options(1, 10, 1);
        let mut addresses = Addresses::new(10);
        let soon = Duration::from_millis(100);
        assert_eq!(addresses.take(network(1), &options, Duration::ZERO), Ok(()));
        assert!(!addresses.again(network(1), options.connects, Duration::ZERO));
        addresses.give_back(network(1), soon);
        assert_eq!(addresses.len(), 0);
        // Whoever leaves sooner is remembered until the next look.
        for number in 0..FEW as u32 {
            assert_eq!(addresses.take(network(number), &options, soon), Ok(()));
            addresses.give_back(network(number), soon);
        }
        assert_eq!(addresses.len(), FEW);
        assert_eq!(addresses.take(network(u32::MAX), &options, soon * 2), Ok(()));
        assert_eq!(addresses.len(), 1);
    }

    #[test]
    fn no_more_are_known_than_may_be() {
        // Nobody is forgotten within a second.
        let options = options(1, 1, 1);
        let most = (10 + QUIET) as u32;
        let mut addresses = Addresses::new(10);
        for number in 0..most {
            assert_eq!(addresses.take(network(number), &options, Duration::ZERO), Ok(()));
            addresses.give_back(network(number), Duration::ZERO);
        }
        let limit = Limit::ConnectsPerSecond;
        let refused = Err(Refused { limit, flood: true });
        assert_eq!(addresses.take(network(most), &options, Duration::ZERO), refused);
        assert_eq!(addresses.len(), most as usize);
        let later = Duration::from_secs(2);
        assert_eq!(addresses.take(network(most), &options, later), Ok(()));
        assert_eq!(addresses.len(), 1);
    }
}
