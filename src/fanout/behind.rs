//! Who takes nothing although there is something for it: asked of all shards, for operators.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::hub::Name;

use super::core::{Core, SLICE};

/// Subscriptions of stalled clients that a shard looks at for one answer: about a millisecond.
const VISITS: usize = 16 * SLICE;

/// How long shards are waited for. One that is busy for longer answers the next question.
const PATIENCE: Duration = Duration::from_millis(100);

/// The subscribers of one channel that are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// How many there are.
    pub subscribers: usize,
    /// For how long the slowest of them has taken nothing, to about a quarter of a second.
    pub lag: Duration,
}

/// A question to all shards.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// The number of the last one.
    asked: watch::Sender<u64>,
    answers: Mutex<Answers>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct Answers {
    /// The number of the question that they answer.
    number: u64,
    shards: usize,
    channels: HashMap<Name, Behind>,
}

impl Question {
    /// Told of each question.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Asks so many shards. Who asks while another waits has both get the answers to the later question.
    pub async fn ask(&self, shards: usize) -> HashMap<Name, Behind> {
        self.asked.send_modify(|asked| {
            *asked += 1;
            *self.answers() = Answers {
                number: *asked,
                ..Answers::default()
            };
        });
        let all = async {
            loop {
                let answered = self.answered.notified();
                if self.answers().shards >= shards {
                    return;
                }
                answered.await;
            }
        };
        // What has come by then is what is told.
        let _ = timeout(PATIENCE, all).await;
        self.answers().channels.clone()
    }

    fn answer(&self, number: u64, channels: HashMap<Name, Behind>) {
        let mut answers = self.answers();
        if answers.number != number {
            return;
        }
        answers.shards += 1;
        for (name, more) in channels {
            let behind = answers.channels.entry(name).or_default();
            behind.subscribers += more.subscribers;
            behind.lag = behind.lag.max(more.lag);
        }
        drop(answers);
        self.answered.notify_waiters();
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Says which channels have subscribers in this shard that are behind. A client whose socket takes nothing is behind in
    /// the channels of which it was not sent the newest; if that is none, in the one whose message it was sent in part,
    /// which may be any of its channels.
    pub fn tell_behind(&self, number: u64, now: Instant) {
        let mut channels: HashMap<Name, Behind> = HashMap::new();
        let mut visits = 0;
        for token in &self.books.blocked {
            let Some(conn) = self.clients.get(token.index as usize) else {
                continue;
            };
            let since = self.start + self.books.wheel.begins(conn.last);
            let lag = now.saturating_duration_since(since);
            let mut add = |name: &Name| {
                let behind = channels.entry(name.clone()).or_default();
                behind.subscribers += 1;
                behind.lag = behind.lag.max(lag);
            };
            let mut any = false;
            for log in conn.session.behind(self.watermark) {
                any = true;
                add(&log.channel.name);
            }
            if !any && conn.pending.is_some() {
                conn.session.logs().for_each(|log| add(&log.channel.name));
            }
            visits += 1 + conn.session.logs().count();
            if visits >= VISITS {
                break;
            }
        }
        self.books.stats.behind.answer(number, channels);
    }
}
