//! Tells the service manager how the relay stands, and that it has not hung.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval_at, sleep};

use crate::admin::{self, Sources};
use crate::process::systemd::{Notifier, State, Watchdog};
use crate::server::ListenError;
use crate::turns::Loops;

/// Between two looks at what may have changed: whoever reads it does not see more, and every client that comes and goes
/// changes it.
const STATUS: Duration = Duration::from_secs(3);

/// What the process takes to end itself, beyond the drain of its clients.
const MARGIN: Duration = Duration::from_secs(5);

/// It failed, for this reason.
pub(super) fn failed(notifier: &Notifier, error: &anyhow::Error) {
    let why = format!("failed: {error:#}");
    let errno = error.chain().find_map(|cause| {
        let refused = cause.downcast_ref::<ListenError>().and_then(ListenError::errno);
        refused.or_else(|| cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error))
    });
    match errno {
        Some(errno) => notifier.tell(&[State::Status(&why), State::Errno(errno)]),
        None => notifier.tell(&[State::Status(&why)]),
    }
}

/// Tells that clients may connect and then, until it is dropped, what changes; that the drain, which takes at most `drain`, has
/// begun; and, if there is a watchdog, that all `loops` turn.
pub(super) async fn follow(
    notifier: &Notifier,
    watchdog: Option<Watchdog>,
    sources: &Sources,
    loops: &Loops,
    drain: Duration,
) -> Infallible {
    tokio::select! {
        never = changes(notifier, sources, drain) => match never {},
        never = watch(notifier, watchdog, sources, loops) => match never {},
    }
}

async fn changes(notifier: &Notifier, sources: &Sources, drain: Duration) -> Infallible {
    // What changes from here on is told, so what it is compared with must have been told.
    let mut said = admin::line(sources);
    notifier.tell(&[State::Ready, State::Status(&said)]);
    let mut ticks = interval_at(tokio::time::Instant::now() + STATUS, STATUS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sources.drain.cancelled() => break,
        }
        let line = admin::line(sources);
        if line != said {
            notifier.tell(&[State::Status(&line)]);
            said = line;
        }
    }
    let line = format!("draining: {}", admin::line(sources));
    notifier.tell(&[State::Stopping(drain + MARGIN), State::Status(&line)]);
    pending().await
}

async fn watch(notifier: &Notifier, watchdog: Option<Watchdog>, sources: &Sources, loops: &Loops) -> Infallible {
    let Some(mut watchdog) = watchdog else {
        return pending().await;
    };
    loop {
        let verdict = watchdog.look(loops.so_far(), Instant::now());
        for (name, time) in verdict.hung {
            tracing::error!(
                name,
                ?time,
                "a loop does not turn: the watchdog is not fed, and ends this process if that goes on"
            );
        }
        for name in verdict.back {
            tracing::warn!(name, "a loop that did not turn does again");
        }
        // In a drain the loops end one after the other, and the drain itself ends in time.
        if verdict.well || sources.drain.is_cancelled() {
            notifier.tell(&[State::Watchdog]);
        }
        sleep(watchdog.interval()).await;
    }
}
