//! Which channels have a log, and who is interested in them.

mod revise;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

use super::appender::Appender;
use super::channel::{Access, Catalog};
use super::inbox::Inbox;
use super::limit::{Account, Counts, Ended, Limit, for_new};
use super::log::Log;
use super::makers::{Maker, Makers};
use super::message::Name;
use crate::bell::Bell;
pub use revise::Revision;

/// What the hub needs to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most channels that may have a log at once, lingering ones included.
    pub max_channels: usize,
    /// Most of them that one [`Maker`] may have made, and most subscriptions that it may have.
    pub channels_per_maker: usize,
    /// Most subscriptions at once.
    pub subscriptions: usize,
    /// Most bytes that the messages of all logs may take, with what is encoded of them.
    pub log_bytes: usize,
}

impl Options {
    /// So many channels, whoever makes them and however large they are.
    pub fn channels(max_channels: usize) -> Options {
        Options {
            max_channels,
            channels_per_maker: max_channels,
            subscriptions: usize::MAX,
            log_bytes: usize::MAX,
        }
    }
}

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// No mapping can produce the name. It will not get better.
    #[error("no mapping gives a channel of this name")]
    Unknown,
    /// A limit is reached. It may get better.
    #[error("`{}` is reached", .0.option())]
    Full(Limit),
}

/// The process's channels.
pub struct Hub {
    /// 64 random bits of this process; cursors of another process carry another.
    pub epoch: u64,
    options: Options,
    catalog: Box<dyn Catalog>,
    /// What all messages take.
    pub(super) account: Account,
    /// How often its limits were reached, and those of what the left side holds for it.
    pub limited: Counts,
    /// Said by the left side: what it holds for the channels lets no new one in.
    crowded: AtomicBool,
    /// Stored by the appender after the messages up to it were appended.
    pub(super) watermark: AtomicU64,
    /// How often what channels there are, and who may read them, was made another. Grows under the registry's lock.
    revision: AtomicU64,
    /// The revision since which verdicts on credentials count.
    verdicts: watch::Sender<u64>,
    /// Tells of a new watermark, for the few who wait for one without a shard.
    pub(super) progress: Notify,
    /// Taken before any log's lock.
    registry: Mutex<Registry>,
    /// Changes only while the shards start.
    inboxes: Mutex<Arc<[Arc<Inbox>]>>,
    /// Logs whose interest changed, each once (`LogView::queued`).
    interest: Mutex<Vec<Arc<Log>>>,
    interested: Bell,
}

#[derive(Default)]
struct Registry {
    /// Each has a place, so that they can be visited a few at a time ([`Hub::some`]).
    logs: IndexMap<Name, Arc<Log>>,
    makers: Makers,
    /// Names of channels that were ended and are not made again for now.
    barred: HashSet<Name>,
    last_id: u64,
    /// Subscriptions that were not dropped yet.
    subscriptions: usize,
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
            account: Account::new(options.log_bytes),
            options,
            catalog: Box::new(catalog),
            limited: Counts::default(),
            crowded: AtomicBool::new(false),
            watermark: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            verdicts: watch::Sender::new(0),
            progress: Notify::new(),
            registry: Mutex::default(),
            inboxes: Mutex::new(Arc::new([])),
            interest: Mutex::default(),
            interested: Bell::default(),
        });
        let appender = Appender::new(hub.clone());
        (hub, appender)
    }

    /// Everything up to here is appended, on every log.
    pub fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Acquire)
    }

    /// Waits for the next watermark after this call, without a shard.
    pub fn progress(&self) -> Notified<'_> {
        self.progress.notified()
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

    /// Subscriptions that were not dropped yet: each connection has one for each of its channels.
    pub fn subscriptions(&self) -> usize {
        self.registry().subscriptions
    }

    /// At most so many logs, from this place on: to visit all of them without holding up those who come and go. One that
    /// comes or goes meanwhile may move another, so that this is missed or seen twice.
    pub fn some(&self, from: usize, most: usize) -> Vec<Arc<Log>> {
        let registry = self.registry();
        let logs = registry.logs.values().skip(from).take(most);
        logs.cloned().collect()
    }

    /// Who may read the channel of this name: all of these must be satisfied. `None` where it cannot exist.
    pub fn access(&self, name: &str) -> Option<Vec<Access>> {
        self.catalog.access(name)
    }

    /// How often what channels there are, and who may read them, was made another ([`super::Appender::revise`]). Whoever judges
    /// a client and then subscribes it must find this the same before and after: only then the verdict and the channels are
    /// of one revision, and a later one ends what it concerns.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The revision before which no verdict on a credential counts any more: sessions that were opened by one are judged
    /// again when it grows.
    pub fn verdicts(&self) -> watch::Receiver<u64> {
        self.verdicts.subscribe()
    }

    /// Bytes that the messages of all logs take.
    pub fn log_bytes(&self) -> usize {
        self.account.bytes()
    }

    /// How many bytes too many the logs take for one that is whole (`filled`) or not yet.
    pub(super) fn over(&self, filled: bool) -> Option<usize> {
        let limit = match filled {
            true => self.options.log_bytes,
            false => for_new(self.options.log_bytes),
        };
        self.account.bytes().checked_sub(limit).filter(|over| *over > 0)
    }

    /// As [`Hub::subscribe_for`], where nothing tells clients apart; `lingers`: as with [`Subscription::linger`].
    pub fn subscribe(self: &Arc<Self>, name: &str, lingers: bool) -> Result<Subscription, SubscribeError> {
        let subscription = self.subscribe_for(Maker::NOBODY, name)?;
        if lingers {
            subscription.linger();
        }
        Ok(subscription)
    }

    /// Counts one more subscriber of the channel, whose log is made if there was none. `maker`: whom the log is put down
    /// to if nobody has it now.
    pub fn subscribe_for(self: &Arc<Self>, maker: Maker, name: &str) -> Result<Subscription, SubscribeError> {
        loop {
            match self.attempt(maker, name) {
                Err(SubscribeError::Full(Limit::LogBytes)) if self.evict(Limit::LogBytes).is_some() => {}
                attempted => {
                    if let Err(SubscribeError::Full(limit)) = &attempted {
                        self.limited.hit(*limit);
                    }
                    return attempted;
                }
            }
        }
    }

    fn attempt(self: &Arc<Self>, maker: Maker, name: &str) -> Result<Subscription, SubscribeError> {
        let mut registry = self.registry();
        if registry.subscriptions >= self.options.subscriptions {
            return Err(SubscribeError::Full(Limit::Subscriptions));
        }
        if maker != Maker::NOBODY && registry.makers.subscriptions(maker) >= self.options.channels_per_maker {
            return Err(SubscribeError::Full(Limit::ChannelsPerAddress));
        }
        let found = registry.logs.get(name).cloned();
        let log = match found {
            Some(log) => {
                let (idle, before) = {
                    let view = log.view();
                    (view.idle, view.maker)
                };
                if let Some(idle) = idle {
                    if before != maker {
                        self.admit(&mut registry, maker)?;
                    }
                    registry.makers.wake(before, idle);
                    registry.makers.remove(before);
                    registry.makers.add(maker);
                }
                log
            }
            None => self.make(&mut registry, maker, name)?,
        };
        registry.subscriptions += 1;
        registry.makers.subscribe(maker);
        // A log in the registry is open: it is closed and removed under the registry's lock.
        let mut view = log.view();
        view.subscribers += 1;
        if view.subscribers == 1 {
            view.unfill();
            view.idle = None;
            view.maker = maker;
            let tell = !std::mem::replace(&mut view.queued, true);
            drop(view);
            drop(registry);
            if tell {
                self.tell(log.clone());
            }
        } else {
            drop(view);
        }
        Ok(Subscription {
            hub: self.clone(),
            log,
            maker,
        })
    }

    fn make(&self, registry: &mut Registry, maker: Maker, name: &str) -> Result<Arc<Log>, SubscribeError> {
        let channel = self.catalog.describe(name).ok_or(SubscribeError::Unknown)?;
        if registry.barred.contains(name) {
            return Err(SubscribeError::Full(Limit::KeysPerChannel));
        }
        if self.crowded.load(Ordering::Relaxed) {
            return Err(SubscribeError::Full(Limit::Keys));
        }
        if self.over(false).is_some() {
            return Err(SubscribeError::Full(Limit::LogBytes));
        }
        self.admit(registry, maker)?;
        while registry.logs.len() >= self.options.max_channels {
            self.evict_one(registry, Limit::Channels)
                .ok_or(SubscribeError::Full(Limit::Channels))?;
        }
        registry.last_id += 1;
        let log = Arc::new(Log::new(registry.last_id, Arc::new(channel)));
        registry.logs.insert(log.channel.name.clone(), log.clone());
        registry.makers.add(maker);
        Ok(log)
    }

    /// Makes room for one more log of this maker among its own.
    fn admit(&self, registry: &mut Registry, maker: Maker) -> Result<(), SubscribeError> {
        let limit = Limit::ChannelsPerAddress;
        while maker != Maker::NOBODY && registry.makers.logs(maker) >= self.options.channels_per_maker {
            let Some(oldest) = registry.makers.oldest(maker) else {
                return Err(SubscribeError::Full(limit));
            };
            self.limited.hit(limit);
            self.shut(registry, &oldest, None);
        }
        Ok(())
    }

    /// Closes the log that has been idle longest of those of whoever has the most idle ones, for the sake of a limit.
    pub fn evict(&self, limit: Limit) -> Option<Arc<Log>> {
        let log = self.evict_one(&mut self.registry(), limit)?;
        let remains = log.view().remains();
        drop(remains);
        Some(log)
    }

    fn evict_one(&self, registry: &mut Registry, limit: Limit) -> Option<Arc<Log>> {
        let log = registry.makers.first_to_go()?;
        self.limited.hit(limit);
        self.shut(registry, &log, None);
        Some(log)
    }

    /// Closes a log and takes it out of the registry.
    fn shut(&self, registry: &mut Registry, log: &Arc<Log>, ended: Option<Ended>) {
        let mut view = log.view();
        view.close(ended);
        if let Some(idle) = view.idle.take() {
            registry.makers.wake(view.maker, idle);
        }
        registry.makers.remove(view.maker);
        registry.logs.swap_remove(&log.channel.name);
        let tell = !std::mem::replace(&mut view.queued, true);
        drop(view);
        if tell {
            self.tell(log.clone());
        }
    }

    /// Lets go of all that was encoded, and says how many bytes that were. Looks at every message, but only where so many
    /// bytes were encoded since it last did.
    pub(super) fn strip(&self, bytes: usize) -> usize {
        if !self.account.recall(bytes) {
            return 0;
        }
        let logs: Vec<_> = self.registry().logs.values().cloned().collect();
        logs.into_iter().map(|log| log.view().strip(&self.account)).sum()
    }

    /// The open log whose messages take most. Looks at every message, so it is for when a log must end.
    pub(super) fn largest(&self) -> Option<Arc<Log>> {
        let logs: Vec<_> = self.registry().logs.values().cloned().collect();
        logs.into_iter().max_by_key(|log| log.view().bytes())
    }

    /// Closes a log with its subscribers, and says whether it was open.
    pub(super) fn end(&self, log: &Arc<Log>, limit: Limit) -> bool {
        let mut registry = self.registry();
        if log.view().closed {
            return false;
        }
        self.limited.hit(limit);
        self.shut(&mut registry, log, Some(Ended::Limit(limit)));
        drop(registry);
        let remains = log.view().remains();
        drop(remains);
        true
    }

    /// Closes a log unless it has subscribers, and says whether it is closed now.
    pub fn close(&self, log: &Arc<Log>) -> bool {
        let mut registry = self.registry();
        let view = log.view();
        let (closed, subscribers) = (view.closed, view.subscribers);
        drop(view);
        if !closed && subscribers == 0 {
            // Nobody can come while the registry is locked.
            self.shut(&mut registry, log, None);
        }
        closed || subscribers == 0
    }

    /// Whether what the left side holds lets no new channel in.
    pub fn set_crowded(&self, crowded: bool) {
        self.crowded.store(crowded, Ordering::Relaxed);
    }

    /// Whether a channel of this name is not to be made, for as long as the caller leaves it so.
    pub fn bar(&self, name: &Name, barred: bool) {
        let names = &mut self.registry().barred;
        match barred {
            true => names.insert(name.clone()),
            false => names.remove(name),
        };
    }

    fn tell(&self, log: Arc<Log>) {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner).push(log);
        self.interested.ring();
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

    /// Rings when [`Hub::interest`] has something to give.
    pub fn interested(&self) -> &Bell {
        &self.interested
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
    maker: Maker,
}

impl Subscription {
    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Has the log kept warm for a while after its last subscriber.
    pub fn linger(&self) {
        self.log.view().lingers = true;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut guard = self.hub.registry();
        let registry = &mut *guard;
        registry.subscriptions -= 1;
        registry.makers.unsubscribe(self.maker);
        let mut view = self.log.view();
        view.subscribers -= 1;
        if view.subscribers > 0 || view.closed {
            return;
        }
        // It lingers for the sake of who left last.
        registry.makers.remove(view.maker);
        registry.makers.add(self.maker);
        view.maker = self.maker;
        view.idle = Some(registry.makers.idle(self.maker, self.log.clone()));
        let tell = !std::mem::replace(&mut view.queued, true);
        drop(view);
        drop(guard);
        if tell {
            self.hub.tell(self.log.clone());
        }
    }
}

#[cfg(test)]
mod tests;
