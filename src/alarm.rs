//! A timer of a loop that knows anew in each turn when it must turn again.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Goes off at the moment it is set to, or earlier. To set it later than it stands does nothing until it has gone off: a moment
/// that moves on with every turn, as that of a timeout, costs next to nothing.
#[derive(Debug, Default)]
pub struct Alarm {
    /// The last that was set, and whether it is still to go off.
    sleep: Option<Pin<Box<Sleep>>>,
    set: bool,
}

impl Alarm {
    /// Has it go off at this moment at the latest. After it has gone off it must be set again.
    pub fn set(&mut self, at: Instant) {
        match &mut self.sleep {
            Some(sleep) if self.set && sleep.deadline() <= at => {}
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(sleep_until(at))),
        }
        self.set = true;
    }

    /// Waits until it goes off.
    pub fn gone_off(&mut self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| self.poll(context))
    }

    /// Ready when it goes off.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = self.sleep.as_mut().filter(|_| self.set) else {
            return Poll::Pending;
        };
        let polled = sleep.as_mut().poll(context);
        self.set = polled.is_pending();
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_earliest_moment_that_was_set() {
        let begun = Instant::now();
        let mut alarm = Alarm::default();
        for seconds in [5, 3, 4] {
            alarm.set(begun + Duration::from_secs(seconds));
        }
        alarm.gone_off().await;
        assert_eq!(begun.elapsed().as_secs(), 3);
        alarm.set(begun + Duration::from_secs(4));
        alarm.gone_off().await;
        assert_eq!(begun.elapsed().as_secs(), 4);
        assert!(alarm.gone_off().now_or_never().is_none());
    }
}
