//! Where the feed's thread hands over to the relay's: which keys may have changed, and what happened, in order.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use smallvec::SmallVec;
use tokio::sync::watch;

use super::Rule;
use super::backlog::Backlog;
use super::channels::Table;
use super::entries::Event;
use super::node::Heard;
use super::resync::{self, BEHIND, EVENTS_OFF, LATE};
use super::stats::Stats;
use super::taken::{Item, Taken};
use crate::bell::Bell;
use crate::hub::Name;
use crate::keyspace::{EventName, Size, Value};
use crate::mapping::{MappingId, Scratch};
use crate::upstream::feed::{Cause, KeyEvent, Listener, LostReason, Role};
use crate::upstream::topology::{Ears, Slots};
use crate::upstream::{Endpoint, NodeId, ServerInfo};

/// Most keys that wait to be taken by the relay's thread. It takes all of them many times a second, so this many wait
/// only if it is stuck; at some 150 bytes each they are 150 MB, and reading everything again is cheaper than more.
pub const MAX_DIRTY: usize = 1_000_000;

/// A channel that key events are wanted for.
#[derive(Clone, Debug)]
pub(super) struct Interest {
    /// Id of its log; the name may get another log later.
    pub log: u64,
    /// In events mode, how many happenings wait.
    pub backlog: Option<Arc<Backlog>>,
}

/// What is to be made of what is heard. Table and channels are replaced together: of a channel that is here, the table is
/// that of the relay's thread.
#[derive(Debug)]
struct Interests {
    table: Arc<Table>,
    /// A channel comes here before a key of it is first read: an event that is not heard yet is older than that read.
    channels: HashMap<Name, Interest>,
}

/// What both threads share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Written by the relay's thread alone.
    interests: RwLock<Interests>,
    /// Filled by the feed's thread, emptied by the relay's.
    taken: Mutex<Taken>,
    /// Told after something was put into `taken`.
    pub bell: Bell,
    /// Counted by both threads, for operators.
    pub stats: Arc<Stats>,
    /// The last question to all feeds, see [`Shared::ask`].
    question: watch::Sender<u64>,
}

impl Shared {
    pub fn new(table: Arc<Table>, stats: Arc<Stats>) -> Shared {
        Shared {
            interests: RwLock::new(Interests {
                table,
                channels: HashMap::default(),
            }),
            taken: Mutex::default(),
            bell: Bell::default(),
            stats,
            question: watch::Sender::default(),
        }
    }

    pub fn insert(&self, name: Name, interest: Interest) {
        self.write().channels.insert(name, interest);
    }

    pub fn remove(&self, name: &Name) {
        self.write().channels.remove(name);
    }

    /// From here on what is heard is sorted by this table; channels that are another thing by it were removed.
    pub fn put(&self, table: Arc<Table>) {
        self.write().table = table;
    }

    fn write(&self) -> RwLockWriteGuard<'_, Interests> {
        self.interests.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all feeds ask their servers, and say by [`Item::Answered`] when they have heard all that was said before. Of
    /// several questions only the last may be answered.
    pub fn ask(&self, number: u64) {
        self.question.send_replace(number);
    }

    /// Exchanges an empty `Taken` for what has come.
    pub fn take(&self, empty: &mut Taken) {
        std::mem::swap(&mut *self.taken(), empty);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The relay's ear at the feed of one node.
#[derive(Debug)]
pub struct Intake {
    node: NodeId,
    shared: Arc<Shared>,
    question: watch::Receiver<u64>,
    max_dirty: usize,
    scratch: Scratch,
    hits: Vec<Hit>,
    /// The server does not answer.
    late: bool,
    /// The server does not send all key events.
    unheard: bool,
    /// What was logged once already.
    said: HashSet<(MappingId, &'static str)>,
}

/// An event of a batch that somebody is interested in.
#[derive(Debug)]
enum Hit {
    /// In a state channel.
    Change { at: usize, event: Event },
    /// In an events channel.
    Happening {
        at: usize,
        event: EventName,
        log: u64,
        mapping: MappingId,
        backlog: Arc<Backlog>,
    },
}

/// An events channel that a message belongs to, and that somebody listens to.
struct Listened {
    log: u64,
    mapping: MappingId,
    /// Whether the message is within the mapping's `max_value`.
    fits: bool,
    backlog: Arc<Backlog>,
}

impl Intake {
    pub(super) fn new(shared: Arc<Shared>, max_dirty: usize) -> Intake {
        Intake {
            node: NodeId::FIRST,
            question: shared.question.subscribe(),
            shared,
            max_dirty,
            scratch: Scratch::default(),
            hits: Vec::new(),
            late: false,
            unheard: false,
            said: HashSet::default(),
        }
    }

    /// Says whether key events are heard, of a server that is connected.
    fn report(&self) {
        let now = SystemTime::now();
        let why =
            "the server does not send all key events: its notify-keyspace-events was changed, and is set right soon";
        self.shared
            .stats
            .node(self.node, |node| match (self.late, self.unheard) {
                (true, _) => node.heard.fail(LATE.0, "the server does not answer", now),
                (false, true) => node.heard.fail(EVENTS_OFF.0, why, now),
                (false, false) => node.heard.mend(now),
            });
    }

    fn tell(&self, item: Item) {
        self.shared.taken().item(self.node, item);
        self.shared.bell.ring();
    }
}

impl Ears for Intake {
    type Ear = Intake;

    fn ear(&self, node: NodeId) -> Intake {
        Intake {
            node,
            ..Intake::new(self.shared.clone(), self.max_dirty)
        }
    }

    /// Keys of slots that are another node's now are read there again.
    fn slots(&self, slots: Slots) {
        self.tell(Item::Slots(slots));
    }
}

impl Listener for Intake {
    fn up(&mut self, server: &ServerInfo, at: &Endpoint) {
        let stats = &self.shared.stats;
        stats.node(self.node, |node| {
            node.address = at.address.to_string();
            // It says that anew.
            node.role = None;
            let now = SystemTime::now();
            node.current.mend(now);
            if node.server.replace(server.clone()).is_some() {
                stats.reconnects.fetch_add(1, Ordering::Relaxed);
            }
        });
        (self.late, self.unheard) = (false, false);
        self.report();
        let run_id = server.run_id.clone();
        self.tell(Item::Up(Heard { run_id, at: at.clone() }));
    }

    fn hears(&mut self, plan: u64) {
        self.tell(Item::Hears(plan));
    }

    fn events(&mut self, batch: &[KeyEvent<'_>]) {
        let Intake {
            node,
            shared,
            scratch,
            hits,
            ..
        } = self;
        let stats = &shared.stats;
        stats.events.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let interests = shared.interests.read().unwrap_or_else(PoisonError::into_inner);
        let Interests { table, channels } = &*interests;
        if channels.is_empty() {
            return;
        }
        let heard_at = now_us();
        let mut mapped = 0;
        // Events of one mapping mostly come together: they are counted as one run.
        let mut run: Option<(MappingId, u64)> = None;
        for (at, &KeyEvent { key, event: name }) in batch.iter().enumerate() {
            let mut event = None;
            let mut state = false;
            table.mappings.each(key, scratch, |mapping, channel, _| {
                let Some(interest) = channels.get(channel) else {
                    return;
                };
                match &mut run {
                    Some((last, times)) if *last == mapping => *times += 1,
                    _ => {
                        if let Some((last, times)) = run.replace((mapping, 1)) {
                            table.count(last, times);
                        }
                    }
                }
                let event = event.get_or_insert_with(|| Event::new(name.map(EventName::from_bytes), heard_at));
                match (&interest.backlog, &event.name) {
                    (None, _) => state = true,
                    (Some(backlog), Some(name)) if table.takes(mapping, name) => hits.push(Hit::Happening {
                        at,
                        event: name.clone(),
                        log: interest.log,
                        mapping,
                        backlog: backlog.clone(),
                    }),
                    // What has no name is no happening: of several, client tracking tells one.
                    (Some(_), _) => {}
                }
            });
            mapped += u64::from(event.is_some());
            if let Some(event) = event.filter(|_| state) {
                hits.push(Hit::Change { at, event });
            }
        }
        if let Some((last, times)) = run {
            table.count(last, times);
        }
        drop(interests);
        stats.mapped.fetch_add(mapped, Ordering::Relaxed);
        if hits.is_empty() {
            return;
        }
        let mut taken = shared.taken();
        for hit in hits.drain(..) {
            match hit {
                Hit::Change { at, event } => taken.key(batch[at].key, &event, self.max_dirty),
                Hit::Happening {
                    at,
                    event,
                    log,
                    mapping,
                    backlog,
                } => taken.happening(*node, log, &backlog, 0, || Item::Happening {
                    log,
                    mapping,
                    key: Bytes::copy_from_slice(batch[at].key),
                    event,
                    heard_at,
                }),
            }
        }
        drop(taken);
        shared.bell.ring();
    }

    fn published(&mut self, topic: &[u8], message: &[u8]) {
        let Intake {
            node,
            shared,
            scratch,
            said,
            ..
        } = self;
        shared.stats.published.fetch_add(1, Ordering::Relaxed);
        let interests = shared.interests.read().unwrap_or_else(PoisonError::into_inner);
        let Interests { table, channels } = &*interests;
        if channels.is_empty() {
            return;
        }
        let mut hits: SmallVec<[Listened; 2]> = SmallVec::new();
        table
            .mappings
            .each_published(topic, message, scratch, |mapping, routed| match routed {
                Ok(channel) => {
                    let interest = channels.get(channel);
                    let backlog = interest.and_then(|interest| Some((interest.log, interest.backlog.clone()?)));
                    table.count(mapping, u64::from(backlog.is_some()));
                    let fits = |rule: &Rule| message.len() as u64 <= rule.max_value;
                    hits.extend(backlog.map(|(log, backlog)| Listened {
                        log,
                        mapping,
                        fits: table.rule(mapping).is_some_and(fits),
                        backlog,
                    }));
                }
                Err(error) => {
                    shared.stats.unroutable.add(error.reason());
                    if said.insert((mapping, error.reason()))
                        && let Some(rule) = table.rule(mapping)
                    {
                        let (file, line) = (rule.file.display(), rule.line);
                        tracing::warn!(%file, line, %error, "a published message has no channel: it is passed over");
                    }
                }
            });
        drop(interests);
        if hits.is_empty() {
            return;
        }
        let heard_at = now_us();
        let mut taken = shared.taken();
        for Listened {
            log,
            mapping,
            fits,
            backlog,
        } in hits
        {
            // What is too large is told to be so, and need not be kept.
            let bytes = if fits { message.len() } else { 0 };
            taken.happening(*node, log, &backlog, bytes, || Item::Published {
                log,
                mapping,
                topic: Bytes::copy_from_slice(topic),
                message: match fits {
                    true => Value::String(Bytes::copy_from_slice(message)),
                    false => Value::TooLarge(Size::Bytes(message.len() as u64)),
                },
                heard_at,
            });
        }
        drop(taken);
        shared.bell.ring();
    }

    fn unheard(&mut self) {
        self.unheard = true;
        self.report();
        self.tell(Item::Unheard);
    }

    fn flushed(&mut self, cause: Cause) {
        if cause == Cause::Unheard {
            self.unheard = false;
            self.report();
        }
        self.tell(Item::Flushed(cause));
    }

    fn lost(&mut self, reason: &LostReason) {
        let why = reason.to_string();
        let stats = &self.shared.stats;
        stats.lost.add(reason.word());
        stats.node(self.node, |node| {
            node.heard.fail(reason.word(), why.clone(), SystemTime::now());
        });
        let reason = resync::lost(reason);
        self.tell(Item::Lost { why, reason });
    }

    fn late(&mut self, late: bool) {
        let stats = &self.shared.stats;
        stats.late.fetch_add(u64::from(late), Ordering::Relaxed);
        self.late = late;
        self.report();
        self.tell(Item::Late(late));
    }

    fn clock_set(&mut self, ahead_ms: i64) {
        self.tell(Item::ClockSet { ahead_ms });
    }

    async fn asked(&mut self) -> u64 {
        // Its sender lives in `shared`.
        let _ = self.question.changed().await;
        *self.question.borrow_and_update()
    }

    fn answered(&mut self, number: u64) {
        self.tell(Item::Answered { number });
    }

    fn behind(&mut self, behind: Option<Duration>) {
        let now = SystemTime::now();
        let since = behind.map(|since| now.checked_sub(since).unwrap_or(now));
        self.shared.stats.node(self.node, |node| match since {
            Some(since) => {
                node.current.fail(BEHIND.0, "the link to its primary is down", since);
            }
            None => node.current.mend(now),
        });
        self.tell(Item::Behind(since));
    }

    fn role(&mut self, role: Role) {
        self.shared.stats.node(self.node, |node| node.role = Some(role));
    }
}

/// The time in microseconds since 1970.
fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}
