//! How much clients may take at once and in a time, and who has how much of it.
//!
//! * [`Limits`] counts connections, addresses and subjects, and gives out [`Permit`]s that give back what they stand for
//! * [`Meter`] measures how often something happens
//! * [`Counts`] is what operators are told

mod addresses;
mod counts;
mod meter;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use addresses::Addresses;
pub use addresses::Network;
pub use counts::{Count, Counts, Limit};
pub use meter::{Meter, Rate};

/// Connections beyond all limits that are told at once that there is no room; a browser that is only cut off comes back too,
/// but some give up. They have their own small number, so that a flood cannot make more than this of them.
pub const TOLD: usize = 256;

/// What clients may take together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections in all.
    pub connections: usize,
    /// Connections, or streams where a proxy stands in front, of one address; of IPv6 of one /64.
    pub connections_per_address: usize,
    /// Streams of one token's subject.
    pub connections_per_subject: usize,
    /// Connections and further requests that one address may begin.
    pub connects: Rate,
}

impl Default for Options {
    /// What counts where a config says nothing.
    fn default() -> Options {
        Options {
            // An idle one costs about 1 KiB here and a few in the kernel, so that even a small machine has the memory.
            connections: 50_000,
            // Carriers put about 64 subscribers behind one address, offices more; three tabs each.
            connections_per_address: 200,
            // A person has some devices with some tabs each; a token that was passed around has thousands.
            connections_per_subject: 100,
            connects: Rate {
                per_second: 20,
                // After a restart all who were there come back at once.
                burst: 200,
            },
        }
    }
}

/// Whom a token speaks of. Several issuers may each have a subject of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Who says so, if the token tells.
    pub issuer: Option<String>,
    /// The issuer's name for it.
    pub name: String,
}

/// Who has how much of what clients may take.
#[derive(Debug)]
pub struct Limits {
    options: Options,
    counts: Arc<Counts>,
    /// Meters count from here.
    start: Instant,
    connections: AtomicUsize,
    told: AtomicUsize,
    addresses: Mutex<Addresses>,
    /// Only those that hold something.
    subjects: Mutex<HashMap<Arc<Subject>, usize>>,
}

/// A place that was given. It is given back when this is dropped.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Connection,
    Told,
    Address(Network),
    Subject(Arc<Subject>),
}

/// All that a client holds while it is connected.
#[derive(Debug, Default)]
pub struct Permits {
    /// Its connection.
    pub connection: Option<Permit>,
    /// Its address.
    pub address: Option<Permit>,
    /// The subject of its token.
    pub subject: Option<Permit>,
}

/// There is no place for a further connection of this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is reached.
    pub limit: Limit,
    /// Whether so many come that not even an answer should be spent on them.
    pub flood: bool,
}

impl Permits {
    /// What is held here, and of `others` what is not.
    pub fn or(&mut self, others: Permits) {
        let Permits {
            connection,
            address,
            subject,
        } = others;
        self.connection = self.connection.take().or(connection);
        self.address = self.address.take().or(address);
        self.subject = self.subject.take().or(subject);
    }
}

impl Limits {
    /// Nobody has anything yet. What is refused is counted in `counts`.
    pub fn new(options: Options, counts: Arc<Counts>) -> Arc<Limits> {
        Arc::new(Limits {
            addresses: Mutex::new(Addresses::new(options.connections)),
            options,
            counts,
            start: Instant::now(),
            connections: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            subjects: Mutex::default(),
        })
    }

    /// A place for a connection.
    ///
    /// # Errors
    /// If all are taken; that is counted.
    pub fn connection(self: &Arc<Limits>) -> Result<Permit, Limit> {
        if take(&self.connections, self.options.connections) {
            return Ok(self.permit(Held::Connection));
        }
        self.counts.hit(Limit::Connections, None);
        Err(Limit::Connections)
    }

    /// One of the few places for connections that are told why there is no other.
    pub fn told(self: &Arc<Limits>) -> Option<Permit> {
        take(&self.told, TOLD).then(|| self.permit(Held::Told))
    }

    /// A place for a connection of this address, which counts as a connect as well.
    ///
    /// # Errors
    /// If the address has all it may have, or connects too often; that is counted.
    pub fn address(self: &Arc<Limits>, address: IpAddr) -> Result<Permit, Refused> {
        let network = Network::of(address);
        let now = self.start.elapsed();
        let taken = lock(&self.addresses).take(network, &self.options, now);
        match taken {
            Ok(()) => Ok(self.permit(Held::Address(network))),
            Err(refused) => {
                self.counts.hit(refused.limit, Some(address));
                Err(refused)
            }
        }
    }

    /// Counts a further request of a connection as a connect of its address.
    ///
    /// # Errors
    /// If there are too many; that is counted.
    pub fn again(&self, address: IpAddr) -> Result<(), Limit> {
        let now = self.start.elapsed();
        let limit = Limit::ConnectsPerSecond;
        if lock(&self.addresses).again(Network::of(address), self.options.connects, now) {
            return Ok(());
        }
        self.counts.hit(limit, Some(address));
        Err(limit)
    }

    /// A place for a stream of this subject.
    ///
    /// # Errors
    /// If the subject has all it may have; that is counted.
    pub fn subject(self: &Arc<Limits>, subject: Subject) -> Result<Permit, Limit> {
        let mut subjects = lock(&self.subjects);
        let subject = match subjects.get_key_value(&subject) {
            Some((known, held)) if *held < self.options.connections_per_subject => known.clone(),
            None => subject.into(),
            Some(_) => {
                drop(subjects);
                self.counts.hit(Limit::ConnectionsPerSubject, None);
                return Err(Limit::ConnectionsPerSubject);
            }
        };
        *subjects.entry(subject.clone()).or_default() += 1;
        drop(subjects);
        Ok(self.permit(Held::Subject(subject)))
    }

    /// What was refused so far, to count what is refused elsewhere.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn permit(self: &Arc<Limits>, held: Held) -> Permit {
        Permit {
            limits: self.clone(),
            held,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let limits = &self.limits;
        match &self.held {
            Held::Connection => drop(limits.connections.fetch_sub(1, Ordering::Relaxed)),
            Held::Told => drop(limits.told.fetch_sub(1, Ordering::Relaxed)),
            Held::Address(network) => lock(&limits.addresses).give_back(*network, limits.start.elapsed()),
            Held::Subject(subject) => {
                let mut subjects = lock(&limits.subjects);
                if let Some(held) = subjects.get_mut(subject) {
                    *held -= 1;
                    if *held == 0 {
                        subjects.remove(subject);
                    }
                }
            }
        }
    }
}

/// Counts one more, if that is within the limit.
fn take(counter: &AtomicUsize, most: usize) -> bool {
    let more = |held| (held < most).then_some(held + 1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// Every change under these locks is whole, so that a thread which broke down leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
