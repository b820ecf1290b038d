//! The slow second look: mirrored keys are read again, one after the other, to find what nothing else noticed.
//!
//! A difference is shown to subscribers at once. It counts as a repair only if nothing accounts for it: neither an event
//! of the key that was on its way (the server is asked, and what it said before its answer was heard), nor a deadline,
//! nor a loss or silent change that the feed notices a little later.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::HashMap;

use super::entries::{Now, State};
use super::mirror::Mirror;
use crate::mapping::MappingId;
use crate::upstream::NodeId;
use crate::upstream::reader::ReadRequest;

/// However short the round, keys are read no faster than this: 1,000 a second, some 1 % of what a server can do.
const FASTEST: Duration = Duration::from_millis(1);

/// Keys are looked at together that come due within this time: waking for each would cost more than reading it.
const STEP: Duration = Duration::from_millis(50);

/// Most keys of a batch that are only looked at, of the 256 that fit: what changed waits no longer for them than this.
const SHARE: usize = 16;

/// Silent changes are looked for each second; by then one has been noticed that accounts for a difference.
const NOTICED: Duration = Duration::from_secs(2);

/// Differences that wait to be counted; there are more only if the mirror is wrong altogether.
const SUSPECTS: usize = 1_000;

/// How far the present round has come.
#[derive(Debug)]
pub(super) struct Verify {
    /// How long a round takes; `None` if keys are not verified.
    round: Option<Duration>,
    /// Keys at this place of the table and behind were visited. It goes down, so that what fills the place of a key that
    /// went was visited already, and what comes in behind was just read.
    place: usize,
    /// The time that each key has in this round.
    each: Duration,
    /// Until when keys were visited as they came due.
    visited: Instant,
    /// The number of the last question to the feed.
    question: u64,
    suspects: HashMap<Bytes, Suspect>,
}

/// A difference that something may yet account for.
#[derive(Debug)]
struct Suspect {
    mapping: MappingId,
    node: NodeId,
    found: Instant,
    /// The question that was asked after it was found.
    question: u64,
    /// All that the server had said when it was found has been heard.
    answered: bool,
}

impl Verify {
    pub fn new(round: Option<Duration>, now: Instant) -> Verify {
        Verify {
            round,
            place: 0,
            each: Duration::ZERO,
            visited: now,
            question: 0,
            suspects: HashMap::default(),
        }
    }

    /// An event of the key came, which accounts for a difference.
    pub fn heard(&mut self, key: &[u8]) {
        if !self.suspects.is_empty() {
            self.suspects.remove(key);
        }
    }

    /// Keys of the node may have changed unheard, which accounts for all differences.
    pub fn excuse(&mut self, node: NodeId) {
        self.suspects.retain(|_, suspect| suspect.node != node);
    }

    /// All that the node had said before the question was heard.
    pub fn answered(&mut self, node: NodeId, question: u64) {
        for suspect in self.suspects.values_mut().filter(|suspect| suspect.node == node) {
            suspect.answered |= suspect.question <= question;
        }
    }

    /// When keys are due for a second look, or differences to be counted.
    pub fn next(&self) -> Option<Instant> {
        let visit = (self.place > 0).then(|| self.visited + self.each.max(STEP));
        let answered = self.suspects.values().filter(|suspect| suspect.answered);
        let count = answered.map(|suspect| suspect.found + NOTICED).min();
        [visit, count].into_iter().flatten().min()
    }

    /// Begins a round unless one is under way.
    fn begin(&mut self, keys: usize, now: Instant) {
        let Some(round) = self.round.filter(|_| self.place == 0 && keys > 0) else {
            return;
        };
        self.place = keys;
        self.each = (round / u32::try_from(keys).unwrap_or(u32::MAX)).max(FASTEST);
        self.visited = now;
    }

    /// Says how many keys are due, and that they are visited.
    fn take_due(&mut self, now: Instant) -> u32 {
        if self.place == 0 {
            return 0;
        }
        // What could not be done in time is not made up for.
        let longest = self.each.max(STEP) * 2;
        self.visited = self.visited.max(now.checked_sub(longest).unwrap_or(now));
        let due = now.saturating_duration_since(self.visited).as_nanos() / self.each.as_nanos();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        self.visited += self.each * due;
        due
    }
}

impl Mirror {
    /// Puts the keys that are due for a second look into the queues of their nodes.
    pub(super) fn visit(&mut self, now: Now) {
        self.verify.begin(self.keys.len(), now.mono);
        for _ in 0..self.verify.take_due(now.mono) {
            self.verify.place = self.verify.place.min(self.keys.len()).saturating_sub(1);
            let Some((key, _)) = self.keys.get_index(self.verify.place) else {
                break;
            };
            let node = self.nodes.owner(key);
            // While nothing comes there is nothing to be learnt. What waits to be read is not looked at in any case.
            let calm = node.is_healthy();
            if calm && node.queue.looks.len() < SHARE {
                node.queue.looks.push(key.clone());
            }
        }
        // The next one, if this was the last key.
        self.verify.begin(self.keys.len(), now.mono);
    }

    /// Begins to read a key that is not known to have changed, if somebody listens.
    pub(super) fn begin_look(&mut self, id: NodeId, key: &Bytes, flight: u64, now: Now) -> Option<ReadRequest> {
        let moved = self.nodes.owners().of(key) != id;
        let entry = self.keys.get_mut(key)?;
        if moved || entry.state != State::Clean || entry.is_idle() || entry.is_cold(&self.logs) {
            return None;
        }
        if self.needs_most_of_the_room(key) {
            // Not together with others.
            self.dirty(key, false, now);
            return None;
        }
        let entry = self.keys.get_mut(key)?;
        entry.state = State::Queued { urgent: false };
        let (request, _) = self.begin_read(key, id, flight, now)?;
        self.keys.get_mut(key)?.verifying = true;
        Some(request)
    }

    /// A second look found another value than the one that was shown.
    pub(super) fn suspect(&mut self, key: &Bytes, mapping: MappingId, now: Now) {
        // Such keys are expected to change without a word.
        if self.table.rule(mapping).is_none_or(|rule| rule.poll.is_some()) || self.verify.suspects.len() >= SUSPECTS {
            return;
        }
        self.verify.question += 1;
        let suspect = Suspect {
            mapping,
            node: self.nodes.owners().of(key),
            found: now.mono,
            question: self.verify.question,
            answered: false,
        };
        self.verify.suspects.insert(key.clone(), suspect);
        self.shared.ask(self.verify.question);
    }

    /// Counts the differences that nothing accounted for in time.
    pub(super) fn count_repairs(&mut self, now: Now) {
        let due = |suspect: &Suspect| suspect.answered && suspect.found + NOTICED <= now.mono;
        for (key, suspect) in self.verify.suspects.extract_if(|_, suspect| due(suspect)) {
            let Some(rule) = self.table.rule(suspect.mapping) else {
                continue;
            };
            let repairs = self.shared.stats.repairs.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(
                file = %rule.file.display(),
                line = rule.line,
                repairs,
                "a key had changed and nothing said so: repaired"
            );
            tracing::debug!(key = %key.escape_ascii(), "the key that was repaired");
        }
    }
}
