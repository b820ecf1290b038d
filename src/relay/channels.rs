//! Which channels there can be, and what each of them is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;

use super::{Rule, Stats};
use crate::hub::{self, Access, Channel, Mode, Payload, Snapshot, Way};
use crate::keyspace::EventName;
use crate::mapping::{self, MappingId, Mappings, RuleError, Source};
use crate::pattern::ChannelTemplate;
#[cfg(doc)]
use crate::upstream::feed;

/// All mappings, and the way from a key to their channels and back.
#[derive(Debug)]
pub(super) struct Table {
    /// In the order of the config.
    rules: Vec<Entry>,
    /// Where each is in `rules`.
    places: HashMap<MappingId, usize>,
    pub mappings: Mappings,
}

/// A mapping, and what must be heard for it.
#[derive(Debug)]
struct Entry {
    rule: Arc<Rule>,
    /// The [plan](feed::Plan) with which what it needs came.
    plan: u64,
    /// What it has taken that somebody listened to.
    taken: Arc<AtomicU64>,
}

impl Table {
    /// What the mappings take is counted in `stats`.
    ///
    /// # Errors
    /// Every rule whose channel template does not fit its pattern.
    pub fn new(rules: Vec<Arc<Rule>>, stats: &Stats) -> Result<Table, Vec<RuleError>> {
        let entry = |rule: Arc<Rule>| Entry {
            taken: stats.mapping(&rule.pattern.to_string()),
            plan: 0,
            rule,
        };
        Table::of(rules.into_iter().map(entry).collect())
    }

    /// The table that comes after this one. What mappings need that this one has not got comes with `plan`.
    ///
    /// # Errors
    /// See [`Table::new`].
    pub fn next(&self, rules: Vec<Arc<Rule>>, plan: u64, stats: &Stats) -> Result<Table, Vec<RuleError>> {
        let entry = |rule: Arc<Rule>| Entry {
            taken: stats.mapping(&rule.pattern.to_string()),
            plan: self.entry(rule.id).map_or(plan, |entry| entry.plan),
            rule,
        };
        Table::of(rules.into_iter().map(entry).collect())
    }

    fn of(rules: Vec<Entry>) -> Result<Table, Vec<RuleError>> {
        let pairs = rules.iter().map(|Entry { rule, .. }| {
            let pair = mapping::Rule {
                subject: rule.subject,
                pattern: rule.pattern.clone(),
                channel: rule.channel.clone(),
            };
            (rule.id, pair)
        });
        let mappings = Mappings::of(pairs)?;
        let places = rules.iter().map(|entry| entry.rule.id).zip(0..).collect();
        Ok(Table {
            rules,
            places,
            mappings,
        })
    }

    fn entry(&self, mapping: MappingId) -> Option<&Entry> {
        self.places.get(&mapping).map(|place| &self.rules[*place])
    }

    /// Counts that the mapping has taken so many events or messages for channels that somebody listens to.
    pub fn count(&self, mapping: MappingId, times: u64) {
        if let Some(Entry { taken, .. }) = self.entry(mapping) {
            taken.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// A mapping, if it is one of these: what is on its way between the threads may be of one that went.
    pub fn rule(&self, mapping: MappingId) -> Option<&Rule> {
        self.entry(mapping).map(|entry| &*entry.rule)
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|entry| &*entry.rule)
    }

    /// Whether both have the same mappings, however they are set.
    pub fn has_same(&self, other: &Table) -> bool {
        self.places.len() == other.places.len() && self.places.keys().all(|id| other.places.contains_key(id))
    }

    /// The mappings that can give the channel of this name, whatever their order in the config.
    pub fn of_channel(&self, name: &str) -> BTreeSet<MappingId> {
        let sources = self.mappings.sources(name);
        sources.into_iter().map(|source| source.mapping).collect()
    }

    /// The [plan](feed::Plan) by which everything is heard that these sources need.
    pub fn plan(&self, sources: &[Source]) -> u64 {
        let entries = sources.iter().filter_map(|source| self.entry(source.mapping));
        entries.map(|entry| entry.plan).max().unwrap_or_default()
    }

    /// How long a channel of these sources is kept warm: as long as the longest of its mappings says.
    pub fn linger(&self, sources: &[Source]) -> Duration {
        let rules = sources.iter().filter_map(|source| self.rule(source.mapping));
        rules.map(|rule| rule.linger).max().unwrap_or_default()
    }

    /// Whether the mapping takes an event of this name.
    pub fn takes(&self, mapping: MappingId, event: &EventName) -> bool {
        let on = |rule: &Rule| rule.on.as_ref().is_none_or(|names| names.contains(event));
        self.rule(mapping).is_some_and(on)
    }
}

/// Says which channel names the mappings can give.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Replaced as a whole, while the hub lets nobody in.
    table: Arc<RwLock<Arc<Table>>>,
}

impl Catalog {
    pub(super) fn new(table: Arc<Table>) -> Catalog {
        Catalog {
            table: Arc::new(RwLock::new(table)),
        }
    }

    pub(super) fn put(&self, table: Arc<Table>) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl hub::Catalog for Catalog {
    fn access(&self, name: &str) -> Option<Vec<Access>> {
        let table = self.table();
        let sources = table.mappings.sources(name);
        let asked = |source: &Source| {
            // One that is not there opens the channel to nobody.
            let ways = table.rule(source.mapping).map(|rule| &*rule.access).unwrap_or_default();
            ways.iter().filter_map(|way| filled(way, &source.captures)).collect()
        };
        let asked: Vec<Access> = sources.iter().map(asked).collect();
        Some(asked).filter(|asked| !asked.is_empty())
    }

    /// Mappings of one channel agree in mode, event name and retention; it has a snapshot if one of them wants it.
    fn describe(&self, name: &str) -> Option<Channel> {
        let table = self.table();
        let sources = table.mappings.sources(name);
        let rules = sources.iter().filter_map(|source| table.rule(source.mapping));
        let first = rules.clone().next()?;
        let mut channel = Channel {
            name: name.into(),
            mode: first.mode,
            event_name: first.event_name.clone(),
            retention: first.retain,
            snapshot: false,
            on_reset: Vec::new(),
        };
        for rule in rules {
            channel.snapshot |= rule.snapshot && channel.mode == Mode::State;
            match rule.payload.on_reset(name) {
                Ok(Some(text)) => channel.on_reset.push(plain(text)),
                Ok(None) => {}
                Err(error) => tracing::warn!(file = %rule.file.display(), line = rule.line, %error, "on_reset fails"),
            }
        }
        // Two mappings that clear the same list clear it once.
        let mut seen = Vec::new();
        channel.on_reset.retain(|payload| {
            let new = !seen.contains(&payload.live);
            seen.push(payload.live.clone());
            new
        });
        Some(channel)
    }
}

/// A way with what its claims must hold; `None` where it asks for a capture that there is not.
fn filled(way: &Way<ChannelTemplate>, captures: &[(Arc<str>, Bytes)]) -> Option<Way> {
    let value = |name: &str| {
        let capture = captures.iter().find(|(capture, _)| **capture == *name);
        capture.map(|(_, value)| &**value)
    };
    Some(match way {
        Way::Public => Way::Public,
        Way::SignedIn => Way::SignedIn,
        Way::Listed => Way::Listed,
        Way::Claims(claims) => {
            let claims = claims
                .iter()
                .map(|(claim, text)| Some((claim.clone(), text.fill(value)?)));
            Way::Claims(claims.collect::<Option<_>>()?)
        }
    })
}

fn plain(live: Bytes) -> Payload {
    Payload {
        live,
        snapshot: Snapshot::Same,
        json: false,
        absent: false,
    }
}
