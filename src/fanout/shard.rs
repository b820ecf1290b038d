//! The shard's future: waits for whatever comes first, and lets the [`Core`] do its work slice by slice.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::hub::Hub;

use super::core::Core;
use super::handle::Handle;
use super::stats::Stats;
use super::{Gate, Options};

/// Owns the sockets of many clients. Made by [`shard`].
pub struct Shard {
    core: Core,
    /// The set of all sockets; readable while any of them has something.
    epoll: AsyncFd<Rc<OwnedFd>>,
}

/// A shard, and the handle that gives it clients. To be called within the runtime of the thread that it is to run on; the
/// hub allows 64. `seed`: random, for moments that are spread.
///
/// # Errors
/// If the system grants no further epoll set.
pub fn shard(
    options: Options,
    hub: &Hub,
    gate: Arc<dyn Gate>,
    stats: Arc<Stats>,
    seed: u64,
) -> io::Result<(Shard, Handle)> {
    let core = Core::new(options, gate, hub, stats, seed, Instant::now())?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types that are no real descriptors"
    )]
    let epoll = AsyncFd::with_interest(core.epoll.clone(), Interest::READABLE)?;
    let handle = core.handle.clone();
    Ok((Shard { core, epoll }, handle))
}

impl Shard {
    /// Serves its clients until it was drained ([`Handle::drain`]).
    pub async fn run(self) {
        let Shard { mut core, epoll } = self;
        let inbox = core.inbox.clone();
        let handle = core.handle.clone();
        let mut wake = None;
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            let now = Instant::now();
            let more = core.slice(now);
            if core.is_over(now) {
                return;
            }
            if more {
                // Other tasks of the thread, and the sockets, get their turn between two slices.
                tokio::task::yield_now().await;
                core.poll();
                continue;
            }
            let next = core.wake(now);
            if next != wake
                && let Some(next) = next
            {
                timer.as_mut().reset(next);
            }
            wake = next;
            tokio::select! {
                biased;
                () = inbox.changed() => core.take(),
                ready = epoll.readable() => match ready {
                    Ok(mut guard) => {
                        // An event that comes after the empty answer makes the set readable anew.
                        if core.poll() == 0 {
                            guard.clear_ready();
                        }
                    }
                    // Only where the runtime goes down.
                    Err(_) => return,
                },
                () = handle.changed() => {}
                () = &mut timer, if wake.is_some() => {}
            }
        }
    }
}
