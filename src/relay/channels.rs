//! Which channels there can be, and what each of them is.

use std::sync::Arc;

use bytes::Bytes;

use super::Rule;
use crate::hub::{self, Access, Channel, Mode, Payload, Snapshot, Way};
use crate::keyspace::EventName;
use crate::mapping::{self, MappingId, Mappings, RuleError, Source};
use crate::pattern::ChannelTemplate;

/// All mappings, and the way from a key to their channels and back.
#[derive(Debug)]
pub(super) struct Table {
    rules: Vec<Rule>,
    pub mappings: Mappings,
}

impl Table {
    /// # Errors
    /// Every rule whose channel template does not fit its pattern.
    pub fn new(rules: Vec<Rule>) -> Result<Table, Vec<RuleError>> {
        let pairs = rules.iter().map(|rule| mapping::Rule {
            subject: rule.subject,
            pattern: rule.pattern.clone(),
            channel: rule.channel.clone(),
        });
        let mappings = Mappings::new(pairs.collect())?;
        Ok(Table { rules, mappings })
    }

    pub fn rule(&self, mapping: MappingId) -> &Rule {
        &self.rules[mapping.0 as usize]
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether the mapping takes an event of this name.
    pub fn takes(&self, mapping: MappingId, event: &EventName) -> bool {
        let on = self.rule(mapping).on.as_ref();
        on.is_none_or(|names| names.contains(event))
    }
}

/// Says which channel names the mappings can give.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(super) table: Arc<Table>,
}

impl hub::Catalog for Catalog {
    fn access(&self, name: &str) -> Option<Vec<Access>> {
        let sources = self.table.mappings.sources(name);
        let asked = |source: &Source| {
            let ways = &self.table.rule(source.mapping).access;
            ways.iter().filter_map(|way| filled(way, &source.captures)).collect()
        };
        let asked: Vec<Access> = sources.iter().map(asked).collect();
        Some(asked).filter(|asked| !asked.is_empty())
    }

    /// Mappings of one channel agree in mode, event name and retention; it lingers as long as the longest of them says,
    /// and has a snapshot if one of them wants it.
    fn describe(&self, name: &str) -> Option<Channel> {
        let sources = self.table.mappings.sources(name);
        let rules = sources.iter().map(|source| self.table.rule(source.mapping));
        let first = rules.clone().next()?;
        let mut channel = Channel {
            name: name.into(),
            mode: first.mode,
            event_name: first.event_name.clone(),
            retention: first.retain,
            linger: first.linger,
            snapshot: false,
            on_reset: Vec::new(),
        };
        for rule in rules {
            channel.linger = channel.linger.max(rule.linger);
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
