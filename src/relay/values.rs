//! What becomes of a value that was read: compared, rendered, put into its slots.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use foldhash::HashSet;

use super::channels::Table;
use super::delivery;
use super::entries::{Awaits, Event, Last, MIN_INTERVAL, Now, State, Use};
use super::mirror::Mirror;
use super::stats::Stats;
use super::timers::Timer;
use crate::hub::{Payload, SlotKey};
use crate::keyspace::Value;
use crate::mapping::MappingId;
use crate::payload::{Change, Projected, Unsendable};
use crate::upstream::reader::Reading;

/// How long it is remembered of a key that it was gone: the server's own word of it comes soon after that was read, and
/// often because of it.
const REMEMBERED: Duration = Duration::from_millis(10);

/// Two times of expiry that differ by less are the same, measured twice.
const SAME_EXPIRY: u64 = 5;

impl Mirror {
    /// A key was read; `None`: it has a type that cannot be read.
    pub(super) fn apply(&mut self, key: &Bytes, flight: u64, reading: Option<Reading>, now: Now) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        let State::Reading { flight: own, again } = entry.state else {
            return;
        };
        if own != flight {
            return;
        }
        let ttl = reading.as_ref().and_then(|reading| reading.ttl);
        let value = reading.map(|reading| reading.value);
        let absent = value.as_ref().is_some_and(Value::is_absent);
        let size = value.as_ref().map_or(0, Value::size_in_memory);
        self.typical = (self.typical * 15 + size) / 16;
        entry.state = State::Clean;
        entry.size = Some(size);
        if let Some(value) = &value {
            entry.kind = value.kind().or(entry.kind);
        }
        let expires_at = ttl.map(|ttl| unix_ms(now.wall + ttl));
        // Whose time has come, or is about to, is gone because of that.
        let expired = absent && self.deadlines.is_near(entry, now.mono);
        let unexplained = entry.verifying && !again && !expired;
        let event = entry.reading_event.take();
        let happenings = std::mem::take(&mut entry.reading);
        let mut uses = std::mem::take(&mut entry.uses);
        let forgiven = self.forgive(key);
        let relieved = forgiven.is_some();
        let mut touched = forgiven.unwrap_or_default();
        for each in &mut uses {
            let differed = self.show(each, key, value.as_ref(), event.as_ref(), expires_at, now);
            if differed && unexplained {
                self.suspect(key, each.mapping, now);
            }
            if each.awaits == Awaits::This {
                each.awaits = Awaits::Nothing;
                if let Some(log) = self.logs.get_mut(&each.log) {
                    log.awaiting -= 1;
                    touched.push(each.log);
                }
            }
        }
        for happening in happenings {
            let rule = self.table.rule(happening.mapping);
            let value = value.clone().zip(rule);
            let value = value.map(|(value, rule)| rule.payload.project(value));
            self.serve(happening, key, value.as_ref(), expires_at);
            self.drain(happening.log, now.mono);
        }
        if absent && !again {
            uses.retain(|each| {
                let keep = each.fixed;
                if let Some(log) = self.logs.get_mut(&each.log).filter(|_| !keep) {
                    log.keys.remove(key);
                }
                keep
            });
        }
        if let Some(entry) = self.keys.get_mut(key) {
            if absent && !again {
                // Were it to come back, it would have to be given its uses again.
                entry.as_of = 0;
            }
            entry.probably_gone = absent && uses.is_empty();
            entry.uses = uses;
            if entry.is_idle() && !std::mem::replace(&mut entry.forgetting, true) {
                // Its entry says when it was last read, and stays as long as that matters.
                let kept = if entry.probably_gone { REMEMBERED } else { MIN_INTERVAL };
                self.timers.set(now.mono + kept, Timer::Forget(key.clone()));
            }
        }
        self.arm(key, ttl, now);
        if again {
            self.dirty(key, true, now);
        }
        if relieved {
            self.relieved(key, now);
        }
        for id in touched {
            self.settle(id);
        }
    }

    /// Puts a value into a slot unless it is there already. Says whether another value had been there: a change of its
    /// expiry alone is none.
    fn show(
        &mut self,
        slot: &mut Use,
        key: &Bytes,
        value: Option<&Value>,
        event: Option<&Event>,
        expires_at: Option<u64>,
        now: Now,
    ) -> bool {
        let Some(log) = self.logs.get(&slot.log).map(|entry| entry.log.clone()) else {
            return false;
        };
        let Some(rule) = self.table.rule(slot.mapping) else {
            return false;
        };
        let value = value.map(|value| rule.payload.project(value.clone()));
        let fingerprint = value.as_ref().map(|value| rule.payload.fingerprint(value));
        let unread = value
            .as_ref()
            .is_some_and(|value| matches!(value.value(), Value::TooLarge(_)));
        let absent = value.as_ref().is_some_and(|value| value.value().is_absent());
        let same = match &slot.last {
            // What never was there need not be called gone.
            None => absent && !slot.fixed,
            Some(last) => {
                let same_expiry = !rule.expires || is_same_expiry(last.expires_at, expires_at);
                // Two values that were not read may differ although they are equally large.
                last.fingerprint == fingerprint && same_expiry && !(unread && event.is_some())
            }
        };
        if same {
            return false;
        }
        let mut last = Last {
            fingerprint,
            expires_at,
        };
        let mut rendered = |value, expires_at| {
            let change = Change {
                channel: &log.channel.name,
                key,
                captures: &slot.captures,
                value,
                event: event.and_then(|event| event.name.as_ref()),
                heard_at: event.map(|event| event.heard_at),
                expires_at,
            };
            render(&self.table, &self.shared.stats, &mut self.said, slot.mapping, &change)
        };
        let mut payload = value.as_ref().and_then(|value| rendered(value, expires_at));
        if payload.is_none() && !absent {
            // What has no form that could be sent is shown as gone: clients would go on showing what was there before.
            let gone = Projected::absent();
            last = Last {
                fingerprint: Some(rule.payload.fingerprint(&gone)),
                expires_at: None,
            };
            let known = slot.last.as_ref().map(|last| last.fingerprint);
            if known.map_or(!slot.fixed, |known| known == last.fingerprint) {
                return false;
            }
            payload = rendered(&gone, None);
        }
        let known = slot.last.is_some();
        let differed = slot.last.is_none_or(|before| before.fingerprint != last.fingerprint);
        slot.last = Some(last);
        let name = SlotKey {
            source: slot.mapping.0,
            name: key.clone(),
        };
        // What is read because somebody has subscribed is no change.
        if let Some(payload) = payload.as_ref().filter(|_| event.is_some() || known) {
            delivery::tell(&log, key, event.and_then(|event| event.name.as_ref()), payload.absent);
        }
        self.appender.heard(event.map(|event| event.since));
        self.appender.put(&log, name, slot.fixed, payload, now.mono);
        // What happens meanwhile anyway is no finding.
        if let Some(recovery) = self.recovery.as_mut().filter(|_| event.is_none()) {
            recovery.differences += 1;
        }
        differed
    }
}

/// Renders a change; what cannot be sent is logged once a mapping.
pub(super) fn render(
    table: &Table,
    stats: &Stats,
    said: &mut HashSet<(MappingId, &'static str)>,
    mapping: MappingId,
    change: &Change<'_>,
) -> Option<Payload> {
    let rule = table.rule(mapping)?;
    match rule.payload.render(change) {
        Ok(payload) => Some(payload),
        Err(Unsendable::AbsentWithoutTemplate) => None,
        Err(error) => {
            stats.unsendable.fetch_add(1, Ordering::Relaxed);
            if said.insert((mapping, error.reason())) {
                tracing::warn!(file = %rule.file.display(), line = rule.line, %error, "a value cannot be sent");
            }
            None
        }
    }
}

fn is_same_expiry(a: Option<u64>, b: Option<u64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.abs_diff(b) <= SAME_EXPIRY,
        (a, b) => a == b,
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
