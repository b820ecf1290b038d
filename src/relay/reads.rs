//! From keys that may have changed to batches of reads, and what becomes of a batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use smallvec::smallvec;

use super::entries::{Awaits, Now, State, Trouble, back_off};
use super::mirror::Mirror;
use super::refusal::{Scope, reason};
use super::timers::{Timer, TimerId};
use crate::switches::{self, Switch};
use crate::upstream::NodeId;
use crate::upstream::reader::{ReadError, ReadErrorKind, ReadRequest, Reading};

/// Most keys of one batch: enough that a round trip costs a key next to nothing, few enough that the server is not kept
/// from others for more than some 100 µs.
pub(super) const BATCH_KEYS: usize = 256;

/// Most bytes of memory that a batch is expected to take.
pub(super) const BATCH_BYTES: usize = 4 << 20;

/// Most batches in flight: one being answered, one on the way, and as many being taken apart.
const FLIGHTS: usize = 4;

/// One key in so many comes from those that only need to be known, however many change.
const BULK_SHARE: usize = 4;

/// How long a key may be unreadable before clients are told.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A batch of reads under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub keys: Vec<Bytes>,
    /// Bytes that the values of keys which were never read before may have.
    unknown: usize,
    /// Nothing else is begun until it is over.
    alone: bool,
    generation: u64,
    /// Set for when it has taken too long.
    timer: TimerId,
}

/// A batch of reads to begin now.
#[derive(Debug)]
pub(super) struct Batch {
    pub flight: u64,
    pub requests: Vec<ReadRequest>,
}

impl Mirror {
    /// The next reads of a node, if there is something to read and a way to do it.
    pub fn next_batch(&mut self, id: NodeId, now: Now) -> Option<Batch> {
        let node = &self.nodes[id];
        if !node.is_there() || node.flights.len() >= FLIGHTS || node.flights.values().any(|flight| flight.alone) {
            return None;
        }
        let most = node.most_keys(now)?;
        let flight = self.next_id();
        let node = &self.nodes[id];
        if !node.queue.alone.is_empty() {
            if !node.flights.is_empty() {
                return None;
            }
            while let Some(key) = self.nodes[id].queue.alone.pop_front() {
                if let Some((request, _)) = self.begin_read(&key, id, flight, now) {
                    return Some(self.begin_flight(id, flight, vec![request], 0, true, now));
                }
            }
        }
        let under_way: usize = self.nodes[id].flights.values().map(|flight| flight.unknown).sum();
        let most_bytes = BATCH_BYTES.min(self.limits.reading / FLIGHTS);
        let (mut requests, mut bytes) = (Vec::new(), 0);
        let mut unknown: usize = 0;
        while requests.len() < most
            && (requests.is_empty() || bytes < most_bytes)
            && under_way.saturating_add(unknown) < self.limits.reading
        {
            let bulk_first = requests.len() % BULK_SHARE == BULK_SHARE - 1;
            let queue = &mut self.nodes[id].queue;
            let [first, second] = match bulk_first {
                false => [&mut queue.urgent, &mut queue.bulk],
                true => [&mut queue.bulk, &mut queue.urgent],
            };
            let Some(key) = first.pop_front().or_else(|| second.pop_front()) else {
                break;
            };
            if self.needs_most_of_the_room(&key) {
                self.nodes[id].queue.alone.push_back(key);
                continue;
            }
            if let Some((request, size)) = self.begin_read(&key, id, flight, now) {
                if self.keys.get(&key).is_some_and(|entry| entry.size.is_none()) {
                    unknown = unknown.saturating_add(request.max_value as usize);
                }
                requests.push(request);
                bytes = bytes.saturating_add(size);
            }
        }
        for key in std::mem::take(&mut self.nodes[id].queue.looks) {
            requests.extend(self.begin_look(id, &key, flight, now));
        }
        if !requests.is_empty() {
            return Some(self.begin_flight(id, flight, requests, unknown, false, now));
        }
        match self.nodes[id].queue.alone.is_empty() {
            true => None,
            false => self.next_batch(id, now),
        }
    }

    fn begin_flight(
        &mut self,
        id: NodeId,
        flight: u64,
        requests: Vec<ReadRequest>,
        unknown: usize,
        alone: bool,
        now: Now,
    ) -> Batch {
        let node = &mut self.nodes[id];
        let entry = Flight {
            keys: requests.iter().map(|request| request.key.clone()).collect(),
            unknown,
            alone,
            generation: node.generation,
            timer: self.timers.set(now.mono + PATIENCE, Timer::Flight(id, flight)),
        };
        node.flights.insert(flight, entry);
        Batch { flight, requests }
    }

    /// Whether a key that is to be read takes more than half of what all reads may take.
    pub(super) fn needs_most_of_the_room(&self, key: &Bytes) -> bool {
        let size = self.keys.get(key).and_then(|entry| entry.size);
        size.is_some_and(|size| size > self.limits.reading / 2)
    }

    pub(super) fn begin_read(
        &mut self,
        key: &Bytes,
        node: NodeId,
        flight: u64,
        now: Now,
    ) -> Option<(ReadRequest, usize)> {
        let entry = self.keys.get_mut(key)?;
        if !matches!(entry.state, State::Queued { .. }) {
            return None;
        }
        if entry.is_cold(&self.logs) {
            entry.state = State::Deferred;
            self.forgive(key);
            return None;
        }
        entry.state = State::Reading { flight, again: false };
        entry.verifying = false;
        entry.last_read = Some(now.mono);
        entry.reading_event = entry.event.take();
        entry.reading.append(&mut entry.happenings);
        for each in entry.uses.iter_mut().filter(|each| each.awaits == Awaits::Next) {
            each.awaits = Awaits::This;
        }
        let mappings = entry.uses.iter().map(|each| each.mapping);
        let rules = mappings
            .chain(entry.reading.iter().map(|each| each.mapping))
            .filter_map(|mapping| self.table.rule(mapping));
        let max_value = rules.clone().map(|rule| rule.max_value).max().unwrap_or_default();
        let request = ReadRequest {
            key: key.clone(),
            max_value,
            fields: union(rules.map(|rule| rule.payload.fields())),
            likely: entry.kind,
            probably_gone: entry.probably_gone,
            asking: entry.asked.take() == Some(node),
        };
        let size = entry.size.unwrap_or(self.typical);
        Some((request, size.saturating_add(key.len())))
    }

    /// A batch has been answered by its node.
    pub fn replied(&mut self, node: NodeId, flight: u64, results: Vec<Result<Reading, ReadError>>, now: Now) {
        // A batch that is not known was given up with its connection.
        let Some(Flight {
            keys,
            generation,
            timer,
            ..
        }) = self.nodes[node].flights.remove(&flight)
        else {
            return;
        };
        self.timers.cancel(timer);
        self.now = now;
        let stats = &self.shared.stats;
        stats.reads.fetch_add(results.len() as u64, Ordering::Relaxed);
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            stats.read_errors.add(reason(error.kind).0);
        }
        self.judge(node, &results, now);
        let mut results = results.into_iter();
        let void = generation != self.nodes[node].generation;
        for key in &keys {
            match results.next() {
                _ if void => self.put_back(key, flight, now),
                Some(Ok(reading)) => self.apply(key, flight, Some(reading), now),
                Some(Err(error)) => match Scope::of(error.kind) {
                    Scope::Value => self.apply(key, flight, None, now),
                    Scope::Key => match self.asked(&error) {
                        Some(there) => self.ask(key, flight, there, now),
                        None => self.failed(key, flight, &error, now),
                    },
                    Scope::Server | Scope::Connection => self.put_back(key, flight, now),
                },
                None => self.put_back(key, flight, now),
            }
        }
    }

    /// Gives up what is in flight from a node; all of it will be read again.
    pub(super) fn abandon_flights(&mut self, node: NodeId, now: Now) {
        for (flight, Flight { keys, timer, .. }) in std::mem::take(&mut self.nodes[node].flights) {
            self.timers.cancel(timer);
            for key in &keys {
                self.put_back(key, flight, now);
            }
        }
    }

    /// The read of a key came to nothing: whatever waited for it waits for the next one.
    fn put_back(&mut self, key: &Bytes, flight: u64, now: Now) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        if !matches!(entry.state, State::Reading { flight: own, .. } if own == flight) {
            return;
        }
        let nothing_missed = entry.is_looked_at() || switches::off(Switch::PutBack);
        entry.state = State::Clean;
        if nothing_missed {
            return;
        }
        let earlier = entry.reading_event.take();
        entry.event = match entry.event.take() {
            Some(event) => Some(event.after(earlier)),
            None => earlier,
        };
        let later = std::mem::replace(&mut entry.happenings, std::mem::take(&mut entry.reading));
        entry.happenings.extend(later);
        for each in entry.uses.iter_mut().filter(|each| each.awaits == Awaits::This) {
            each.awaits = Awaits::Next;
        }
        let urgent = entry.event.is_some() || !entry.happenings.is_empty();
        self.dirty(key, urgent, now);
    }

    /// The key is not here any more, and must be asked for where its slot is being moved to.
    fn ask(&mut self, key: &Bytes, flight: u64, there: NodeId, now: Now) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.asked = Some(there);
        }
        self.put_back(key, flight, now);
    }

    /// The server could not give the value: it is asked again, less and less often.
    fn failed(&mut self, key: &Bytes, flight: u64, error: &ReadError, now: Now) {
        let node = self.nodes.owners().of(key);
        let Some(entry) = self.keys.get_mut(key) else { return };
        if !matches!(entry.state, State::Reading { flight: own, .. } if own == flight) {
            return;
        }
        if let ReadErrorKind::NoRoom(memory) = error.kind {
            // So many others are not asked for together with it again.
            entry.size = Some(usize::try_from(memory).unwrap_or(usize::MAX));
        }
        if entry.is_looked_at() {
            entry.state = State::Clean;
            return;
        }
        let fresh = || {
            Box::new(Trouble {
                since: now,
                attempts: 0,
                retry_at: now.mono,
                node,
                logs: smallvec![],
            })
        };
        let trouble = entry.trouble.get_or_insert_with(fresh);
        trouble.retry_at = now.mono + back_off(trouble.attempts, &mut self.jitter);
        trouble.attempts += 1;
        let since = trouble.since;
        if now.mono.saturating_duration_since(since.mono) >= PATIENCE {
            trouble.retry_at = self.troubled.add(key, trouble.retry_at);
            let happenings = entry.reading.iter().chain(&entry.happenings).map(|each| each.log);
            let concerned: Vec<u64> = entry.uses.iter().map(|each| each.log).chain(happenings).collect();
            for id in concerned {
                let Some(trouble) = self.keys.get_mut(key).and_then(|entry| entry.trouble.as_mut()) else {
                    break;
                };
                let Some(log) = self.logs.get_mut(&id).filter(|log| log.is_told()) else {
                    continue;
                };
                if !trouble.logs.contains(&id) {
                    if trouble.logs.is_empty() {
                        self.nodes[trouble.node].failing.add(reason(error.kind), since, error);
                    }
                    trouble.logs.push(id);
                    log.failing += 1;
                    if log.stale.is_none() {
                        // Others may have changed as well, and be in trouble for less than a second.
                        self.expect_changed(id, now);
                    }
                    self.stale(id, reason(error.kind), since.wall);
                }
            }
        }
        self.put_back(key, flight, now);
    }
}

/// The fields that all want together; `None` if one of them wants all.
fn union<'a>(mut each: impl Iterator<Item = Option<&'a Arc<[Bytes]>>>) -> Option<Arc<[Bytes]>> {
    let first = each.next()??;
    let mut all: Option<Vec<Bytes>> = None;
    for fields in each {
        let fields = fields?;
        if !Arc::ptr_eq(first, fields) {
            let all = all.get_or_insert_with(|| first.to_vec());
            all.extend(fields.iter().filter(|field| !first.contains(field)).cloned());
        }
    }
    Some(match all {
        None => first.clone(),
        Some(mut all) => {
            all.sort_unstable();
            all.dedup();
            all.into()
        }
    })
}
