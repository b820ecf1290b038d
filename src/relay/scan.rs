//! Channels that must be enumerated: one paced pass over the keys of a node at a time, shared by all that wait for one.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::entries::{Now, Part, Scan, back_off};
use super::mirror::Mirror;
use super::node::Node;
use super::reads::PATIENCE;
use super::refusal::{Scope, reason};
use super::report::Complaint;
use crate::mapping::KeySet;
use crate::upstream::NodeId;
use crate::upstream::reader::{Cursor, ReadError, SCAN_COUNT, ScanPage};

/// Pages follow each other until the server spent so much on them, then comes a pause: a pause after each would be longer
/// than its share, because timers know milliseconds only.
const BURST: Duration = Duration::from_micros(500);

/// What the server spends on the keys of a page. Its replies take longer, as they come back among those of reads, and say
/// nothing of it: redis-server 7 took 69 to 86 µs for 99 keys, with a pattern or without, KeyDB 6.3 81 to 104 µs (INFO
/// commandstats; `docs/limits.md`).
const PAGE: Duration = Duration::from_micros(100);

/// While this many keys wait to be read no more are looked for: the memory that a pass takes, whatever it finds.
const MAX_UNREAD: usize = 5_000;

/// The pass under way over the keys of one node, and who waits for the next.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// Open logs whose part of this node is in [`Scan::Waiting`]; others in it, whose keys went to other nodes, are void.
    pub waiting: BTreeSet<u64>,
    pass: Option<Pass>,
    pace: Pace,
}

/// How much of the server's time goes into pages, over all passes.
#[derive(Debug, Default)]
struct Pace {
    /// Spent since the last pause.
    spent: Duration,
    /// The next page is not asked for before.
    next_at: Option<Instant>,
}

impl Pace {
    /// A page came, `took` after it was asked for; the pause, which is given, lets no more than `share` percent of a core go
    /// into pages.
    fn spend(&mut self, took: Duration, share: u32, now: Instant) -> Duration {
        // No more than all of the time it took, where a server is faster.
        self.spent += PAGE.min(took);
        if self.spent < BURST {
            return Duration::ZERO;
        }
        let spent = std::mem::take(&mut self.spent);
        let pause = spent * (100 - share.min(100)) / share.max(1);
        self.next_at = Some(now + pause);
        pause
    }
}

#[derive(Debug)]
struct Pass {
    number: u64,
    generation: u64,
    logs: Vec<u64>,
    glob: Option<Bytes>,
    cursor: Cursor,
    /// A page is on its way.
    asked: bool,
    /// Set while the server refuses pages.
    retry_at: Option<Instant>,
    trouble: Option<Trouble>,
}

/// The server refuses a page.
#[derive(Debug)]
struct Trouble {
    since: Now,
    attempts: u32,
    /// What clients were told.
    told: Option<Complaint>,
}

/// A page to ask for now.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub pass: u64,
    pub cursor: Cursor,
    pub glob: Option<Bytes>,
    pub count: u32,
}

impl Scans {
    /// What clients were told of the pass under way.
    pub fn complaint(&self) -> Option<&Complaint> {
        self.pass.as_ref()?.trouble.as_ref()?.told.as_ref()
    }
}

impl Mirror {
    /// The next page of a node, if one is wanted and it is time for it.
    pub fn next_page(&mut self, id: NodeId, now: Now) -> Option<Page> {
        let node = &self.nodes[id];
        if !node.is_there() || node.unread() > MAX_UNREAD {
            return None;
        }
        let void = |pass: &Pass| pass.generation != node.generation && !pass.asked;
        if node.scans.pass.as_ref().is_some_and(void) {
            self.abandon_pass(id);
        }
        if self.nodes[id].scans.pass.is_none() {
            self.begin_pass(id);
        }
        let scans = &mut self.nodes[id].scans;
        let paced = scans.pace.next_at.is_some_and(|at| at > now.mono);
        let pass = scans.pass.as_mut()?;
        if pass.asked || paced || pass.retry_at.is_some_and(|at| at > now.mono) {
            return None;
        }
        pass.asked = true;
        Some(Page {
            pass: pass.number,
            cursor: pass.cursor.clone(),
            glob: pass.glob.clone(),
            count: SCAN_COUNT,
        })
    }

    fn begin_pass(&mut self, node: NodeId) {
        let Mirror { logs, nodes, .. } = self;
        let mut waiting = std::mem::take(&mut nodes[node].scans.waiting);
        let mut globs = Vec::new();
        waiting.retain(|id| {
            let Some(log) = logs.get_mut(id) else { return false };
            let lingers = log.lingering.is_some();
            let Some(part) = log.part_mut(node).filter(|part| part.scan == Scan::Waiting) else {
                return false;
            };
            if lingers {
                // Until somebody returns.
                nodes[node].scans.waiting.insert(*id);
                return false;
            }
            part.scan = Scan::Running;
            let here = log
                .sources
                .iter()
                .filter(|source| nodes.owners().has(node, &source.keys));
            globs.extend(here.filter_map(|source| match &source.keys {
                KeySet::Matching(glob) => Some(glob.clone()),
                KeySet::One(_) | KeySet::Published(_) => None,
            }));
            true
        });
        if waiting.is_empty() {
            return;
        }
        self.passes += 1;
        let node = &mut self.nodes[node];
        node.scans.pass = Some(Pass {
            number: self.passes,
            generation: node.generation,
            logs: waiting.into_iter().collect(),
            glob: common(&globs),
            cursor: Cursor::start(),
            asked: false,
            retry_at: None,
            trouble: None,
        });
    }

    /// A page has come, `took` after it was asked for.
    pub fn scanned(&mut self, id: NodeId, number: u64, page: Result<ScanPage, ReadError>, took: Duration, now: Now) {
        let node = &mut self.nodes[id];
        let Some(pass) = node.scans.pass.as_mut().filter(|pass| pass.number == number) else {
            return;
        };
        pass.asked = false;
        if pass.generation != node.generation {
            return self.abandon_pass(id);
        }
        if let Err(error) = &page {
            self.shared.stats.read_errors.add(reason(error.kind).0);
        }
        match page {
            Ok(page) => {
                let pause = node.scans.pace.spend(took, self.limits.scan_share, now.mono);
                pass.retry_at = None;
                pass.trouble = None;
                let last = page.next.is_none();
                if !last {
                    let pauses = &self.shared.stats.scan_pauses;
                    pauses.fetch_add(pause.as_micros() as u64, Ordering::Relaxed);
                }
                if let Some(next) = page.next {
                    pass.cursor = next;
                }
                for key in page.keys {
                    if self.adopt(&key, Some(id), now) {
                        self.dirty(&key, false, now);
                    }
                }
                let listened = |id: &u64| self.logs.get(id).is_some_and(|log| log.lingering.is_none());
                let pass = self.nodes[id].scans.pass.as_ref();
                let wanted = pass.is_some_and(|pass| pass.logs.iter().any(listened));
                if last {
                    self.end_pass(id);
                } else if !wanted {
                    self.abandon_pass(id);
                }
            }
            Err(error) if Scope::of(error.kind) == Scope::Connection => self.unlinked(id, now),
            Err(error) => {
                let reason = reason(error.kind);
                let trouble = pass.trouble.get_or_insert(Trouble {
                    since: now,
                    attempts: 0,
                    told: None,
                });
                pass.retry_at = Some(now.mono + back_off(trouble.attempts, &mut self.jitter));
                trouble.attempts += 1;
                let since = trouble.since;
                if now.mono.saturating_duration_since(since.mono) >= PATIENCE {
                    trouble
                        .told
                        .get_or_insert_with(|| Complaint::new(reason, since, &error));
                    for log in pass.logs.clone() {
                        self.stale(log, reason, since.wall);
                    }
                }
            }
        }
    }

    /// The pass has found all that it can find: who waited for it waits for it no more.
    pub(super) fn end_pass(&mut self, node: NodeId) {
        let Some(pass) = self.nodes[node].scans.pass.take() else {
            return;
        };
        for id in pass.logs {
            if let Some(part) = self.running(id, node) {
                part.scan = Scan::Done;
                self.settle(id);
            }
        }
    }

    /// Gives the pass up: whoever waited for it waits for the next one.
    pub(super) fn abandon_pass(&mut self, node: NodeId) {
        let Some(pass) = self.nodes[node].scans.pass.take() else {
            return;
        };
        for id in pass.logs {
            if let Some(part) = self.running(id, node) {
                part.scan = Scan::Waiting;
                self.nodes[node].scans.waiting.insert(id);
            }
        }
    }

    /// The part of a log that waits for the pass under way.
    fn running(&mut self, log: u64, node: NodeId) -> Option<&mut Part> {
        let part = self.logs.get_mut(&log)?.part_mut(node)?;
        (part.scan == Scan::Running).then_some(part)
    }
}

impl Node {
    /// When a page may be wanted that is not wanted now.
    pub fn next_page_at(&self) -> Option<Instant> {
        let pass = self.scans.pass.as_ref().filter(|pass| !pass.asked)?;
        let at = pass.retry_at.max(self.scans.pace.next_at)?;
        (self.reader.is_some() && self.unread() <= MAX_UNREAD).then_some(at)
    }
}

/// One server glob that takes all that these take, or `None` where nothing but every key would do.
fn common(globs: &[Bytes]) -> Option<Bytes> {
    let (first, rest) = globs.split_first()?;
    if rest.iter().all(|glob| glob == first) {
        return Some(first.clone());
    }
    let mut prefix = literal_prefix(first);
    for glob in rest {
        let other = literal_prefix(glob);
        let same = prefix.iter().zip(&other).take_while(|(a, b)| a == b).count();
        prefix.truncate(same);
    }
    if prefix.is_empty() {
        return None;
    }
    let mut glob = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            glob.push(b'\\');
        }
        glob.push(byte);
    }
    glob.push(b'*');
    Some(glob.into())
}

/// The bytes that every key of a server glob begins with.
pub(super) fn literal_prefix(glob: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut bytes = glob.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => break,
            b'\\' => match bytes.next() {
                Some(&escaped) => prefix.push(escaped),
                None => break,
            },
            byte => prefix.push(byte),
        }
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(globs: &[&'static str]) -> Option<String> {
        let globs: Vec<Bytes> = globs.iter().map(|glob| Bytes::from_static(glob.as_bytes())).collect();
        common(&globs).map(|glob| String::from_utf8(glob.to_vec()).unwrap())
    }

    #[test]
    fn one_glob_takes_what_all_of_them_take() {
        assert_eq!(of(&["room:1:*"]), Some("room:1:*".into()));
        assert_eq!(of(&["room:1:*", "room:1:*"]), Some("room:1:*".into()));
        assert_eq!(of(&["room:1:*", "room:2:*"]), Some("room:*".into()));
        assert_eq!(of(&[r"room:\*:*", r"room:\*:x:?"]), Some(r"room:\*:*".into()));
        assert_eq!(of(&["room:*", "cart:*"]), None);
        assert_eq!(of(&["room:*", "*"]), None);
        assert_eq!(of(&["room[12]:*", "room1"]), Some("room*".into()));
    }
}
