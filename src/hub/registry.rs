//! Which channels have a log, and who is interested in them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::appender::Appender;
use super::channel::{Access, Catalog};
use super::inbox::Inbox;
use super::log::Log;
use super::message::Name;

/// What the hub needs to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most channels that may have a log at once, lingering ones included.
    pub max_channels: usize,
}

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// No mapping can produce the name. It will not get better.
    #[error("no mapping gives a channel of this name")]
    Unknown,
    /// As many channels as allowed are in use. It may get better.
    #[error("too many channels are in use")]
    Full,
}

/// The process's channels.
pub struct Hub {
    /// 64 random bits of this process; cursors of another process carry another.
    pub epoch: u64,
    options: Options,
    catalog: Box<dyn Catalog>,
    /// Stored by the appender after the messages up to it were appended.
    pub(super) watermark: AtomicU64,
    /// The watermark again, for the few who wait for progress without a shard.
    pub(super) progress: watch::Sender<u64>,
    /// Taken before any log's lock.
    registry: Mutex<Registry>,
    /// Changes only while the shards start.
    inboxes: Mutex<Arc<[Arc<Inbox>]>>,
    /// Logs whose interest changed, each once (`LogView::queued`).
    interest: Mutex<Vec<Arc<Log>>>,
    interested: Notify,
}

#[derive(Default)]
struct Registry {
    logs: HashMap<Name, Arc<Log>>,
    /// The logs without subscribers in the order they became idle; the key stands in the log (`LogView::idle`).
    idle: BTreeMap<u64, Arc<Log>>,
    last_id: u64,
    last_idle: u64,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("watermark", &self.watermark())
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub without channels, and its one appender. `epoch` must be random and new for every process.
    pub fn new(options: Options, epoch: u64, catalog: impl Catalog) -> (Arc<Hub>, Appender) {
        let hub = Arc::new(Hub {
            epoch,
            options,
            catalog: Box::new(catalog),
            watermark: AtomicU64::new(0),
            progress: watch::Sender::new(0),
            registry: Mutex::default(),
            inboxes: Mutex::new(Arc::new([])),
            interest: Mutex::default(),
            interested: Notify::new(),
        });
        let appender = Appender::new(hub.clone());
        (hub, appender)
    }

    /// Everything up to here is appended, on every log.
    pub fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Acquire)
    }

    /// Follows the watermark without a shard.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// An inbox for one more shard; at most 64.
    pub fn open_inbox(&self) -> Arc<Inbox> {
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(inboxes.len() < 64, "a log has one bit for each of 64 shards");
        let inbox = Arc::new(Inbox::new(inboxes.len() as u32, self.watermark()));
        *inboxes = inboxes.iter().cloned().chain([inbox.clone()]).collect();
        inbox
    }

    pub(super) fn inboxes(&self) -> Arc<[Arc<Inbox>]> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many channels have a log.
    pub fn channels(&self) -> usize {
        self.registry().logs.len()
    }

    /// Who may read the channel of this name: all of these must be satisfied. `None` where it cannot exist.
    pub fn access(&self, name: &str) -> Option<Vec<Access>> {
        self.catalog.access(name)
    }

    /// Counts one more subscriber of the channel, whose log is made if there was none. `lingers`: the log is to be kept
    /// warm for a while after the subscriber has gone.
    pub fn subscribe(self: &Arc<Self>, name: &str, lingers: bool) -> Result<Subscription, SubscribeError> {
        let mut registry = self.registry();
        let log = match registry.logs.get(name) {
            Some(log) => log.clone(),
            None => {
                let channel = self.catalog.describe(name).ok_or(SubscribeError::Unknown)?;
                if registry.logs.len() >= self.options.max_channels && !self.evict(&mut registry) {
                    return Err(SubscribeError::Full);
                }
                registry.last_id += 1;
                let log = Arc::new(Log::new(registry.last_id, Arc::new(channel)));
                registry.logs.insert(log.channel.name.clone(), log.clone());
                log
            }
        };
        // A log in the registry is open: it is closed and removed under the registry's lock.
        let mut view = log.view();
        view.subscribers += 1;
        view.lingers |= lingers;
        if view.subscribers == 1 {
            view.unfill();
            if let Some(idle) = view.idle.take() {
                registry.idle.remove(&idle);
            }
            let tell = !std::mem::replace(&mut view.queued, true);
            drop(view);
            drop(registry);
            if tell {
                self.tell(log.clone());
            }
        } else {
            drop(view);
        }
        Ok(Subscription { hub: self.clone(), log })
    }

    /// Closes the log that has been idle longest.
    fn evict(&self, registry: &mut Registry) -> bool {
        let Some((_, log)) = registry.idle.pop_first() else {
            return false;
        };
        let mut view = log.view();
        view.closed = true;
        view.idle = None;
        let tell = !std::mem::replace(&mut view.queued, true);
        drop(view);
        registry.logs.remove(&log.channel.name);
        if tell {
            self.tell(log);
        }
        true
    }

    /// Closes a log unless it has subscribers, and says whether it is closed now.
    pub fn close(&self, log: &Arc<Log>) -> bool {
        let mut registry = self.registry();
        let mut view = log.view();
        if view.subscribers > 0 {
            return false;
        }
        if !view.closed {
            view.closed = true;
            if let Some(idle) = view.idle.take() {
                registry.idle.remove(&idle);
            }
            registry.logs.remove(&log.channel.name);
        }
        true
    }

    fn tell(&self, log: Arc<Log>) {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner).push(log);
        self.interested.notify_one();
    }

    /// The logs whose subscribers came or went, or that were closed, since the last call. Look at each log's
    /// [`super::LogView::subscribers`] and [`super::LogView::is_closed`] for what is true now.
    pub fn interest(&self) -> Vec<Arc<Log>> {
        let logs = std::mem::take(&mut *self.interest.lock().unwrap_or_else(PoisonError::into_inner));
        for log in &logs {
            log.view().queued = false;
        }
        logs
    }

    /// Waits until [`Hub::interest`] has something to give. Only one task may wait.
    pub async fn interested(&self) {
        self.interested.notified().await;
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One subscriber's hold on a log: while it lives the log is active.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    log: Arc<Log>,
}

impl Subscription {
    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut registry = self.hub.registry();
        let mut view = self.log.view();
        view.subscribers -= 1;
        if view.subscribers > 0 {
            return;
        }
        registry.last_idle += 1;
        let idle = registry.last_idle;
        view.idle = Some(idle);
        registry.idle.insert(idle, self.log.clone());
        let tell = !std::mem::replace(&mut view.queued, true);
        drop(view);
        drop(registry);
        if tell {
            self.hub.tell(self.log.clone());
        }
    }
}

#[cfg(test)]
mod tests;
