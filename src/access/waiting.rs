//! The clients that wait for keys or for the app, each with the names that it asks for.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;

use super::ask;
use super::failure::Failure;
use super::shares::Shares;
use crate::limits::{Counts, Network};

/// Most clients that wait at once: as many as there may be questions.
pub const MAX_WAITING: usize = ask::MAX_OPEN;

/// Most of one address. The tabs of a browser all find a place; and an address with its two hundred connections, each of a
/// hundred streams over HTTP/2, leaves enough of them to others.
const MAX_PER_ADDRESS: usize = 64;

/// What a client is told that finds no place.
pub(super) const NO_PLACE: Failure = Failure::Unavailable("too many clients wait to be let in");

/// The places for them.
pub(super) struct Waiting {
    places: Mutex<Places>,
    counts: Arc<Counts>,
}

struct Places {
    free: usize,
    shares: Shares,
}

/// Gives the place back however the wait ends, also where the client goes away.
struct Place<'a>(&'a Waiting, Option<Network>);

impl Waiting {
    /// All free. `counts`: where those are counted who find none.
    pub fn new(counts: Arc<Counts>) -> Waiting {
        let places = Places {
            free: MAX_WAITING,
            shares: Shares::of(MAX_PER_ADDRESS),
        };
        Waiting {
            places: Mutex::new(places),
            counts,
        }
    }

    /// What comes of it, on behalf of a client of this address, if clients are told apart. What is not there at once needs a
    /// place.
    ///
    /// # Errors
    /// If there is none.
    pub async fn wait<T>(&self, address: Option<Network>, future: impl Future<Output = T>) -> Result<T, Failure> {
        let mut future = pin!(future);
        if let Some(there) = future.as_mut().now_or_never() {
            return Ok(there);
        }
        let Some(_place) = self.place(address) else {
            self.counts.refused_questions.fetch_add(1, Ordering::Relaxed);
            return Err(NO_PLACE);
        };
        Ok(future.await)
    }

    fn place(&self, address: Option<Network>) -> Option<Place<'_>> {
        let mut places = self.places();
        if places.free == 0 || !places.shares.take(address) {
            return None;
        }
        places.free -= 1;
        Some(Place(self, address))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing that could panic happens under it.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.0.places();
        places.free += 1;
        places.shares.give_back(self.1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn address(text: &str) -> Option<Network> {
        Some(Network::of(text.parse().unwrap()))
    }

    #[test]
    fn who_waits_takes_a_place_until_it_goes() {
        let waiting = Waiting::new(Arc::default());
        let mut all: Vec<_> = (0..MAX_WAITING)
            .map(|_| Box::pin(waiting.wait(None, pending::<()>())))
            .collect();
        for one in &mut all {
            assert_eq!(one.now_or_never(), None);
        }
        let late = || waiting.wait(None, pending::<()>()).now_or_never();
        assert_eq!(late(), Some(Err(NO_PLACE)));
        let there = waiting.wait(None, ready(7)).now_or_never();
        assert_eq!(there, Some(Ok(7)), "who does not wait needs none");
        all.pop();
        assert_eq!(late(), None, "a place that was given back is taken again");
        drop(all);
        assert_eq!(waiting.places().free, MAX_WAITING);
        assert_eq!(waiting.counts.refused_questions.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_address_has_a_share_of_the_places() {
        let waiting = Waiting::new(Arc::default());
        let one = address("203.0.113.1");
        let mut all: Vec<_> = (0..MAX_PER_ADDRESS)
            .map(|_| Box::pin(waiting.wait(one, pending::<()>())))
            .collect();
        for one in &mut all {
            assert_eq!(one.now_or_never(), None);
        }
        assert_eq!(waiting.wait(one, pending::<()>()).now_or_never(), Some(Err(NO_PLACE)));
        for other in [address("203.0.113.2"), address("2001:db8::1"), None] {
            assert_eq!(waiting.wait(other, pending::<()>()).now_or_never(), None, "{other:?}");
        }
        drop(all);
        let places = waiting.places();
        assert_eq!((places.free, places.shares.len()), (MAX_WAITING, 0));
    }
}
