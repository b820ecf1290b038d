//! Wakes one task from anywhere.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// What rings while nobody waits is heard by the next who does; rung often, it is heard once. Only one task may wait.
///
/// It does what `tokio::sync::Notify` does for one task, without a lock and without a place in a list for each wait, which loops
/// that wait for several things with every message pay for each time.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    waiting: AtomicWaker,
}

impl Bell {
    /// Wakes who waits, or will.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waiting.wake();
        }
    }

    /// Waits until it is rung, if it was not since the last wait ended.
    pub fn rung(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| self.poll(context))
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.heard() {
            return Poll::Ready(());
        }
        self.waiting.register(context.waker());
        // It may have been rung meanwhile, and have woken nobody.
        match self.heard() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn heard(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Waker;
    use std::thread;
    use std::time::{Duration, Instant};

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn what_rings_before_is_heard_and_once() {
        let bell = Bell::default();
        let context = Context::from_waker(Waker::noop());
        assert!(bell.poll(&context).is_pending());
        bell.ring();
        bell.ring();
        assert!(bell.poll(&context).is_ready());
        assert!(bell.poll(&context).is_pending());
    }

    /// However it falls between two looks, no ring is lost: none comes before the last one was heard.
    #[tokio::test]
    async fn every_ring_is_heard() {
        const RINGS: u32 = 50_000;
        let shared = Arc::new((Bell::default(), AtomicU32::new(0)));
        let ringing = shared.clone();
        let ringer = thread::spawn(move || {
            let begun = Instant::now();
            for heard in 0..RINGS {
                ringing.0.ring();
                while ringing.1.load(Ordering::Acquire) == heard {
                    assert!(begun.elapsed() < Duration::from_secs(30), "ring {heard} is lost");
                    thread::yield_now();
                }
            }
        });
        for heard in 1..=RINGS {
            let rung = timeout(Duration::from_secs(30), shared.0.rung()).await;
            assert!(rung.is_ok(), "ring {heard} is lost");
            shared.1.store(heard, Ordering::Release);
        }
        ringer.join().unwrap();
    }
}
