//! From a key or a published message to its channels, and from a channel back to its keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::pattern::{
    BoundChannel, Captures, ChannelTemplate, Filled, KeyPattern, Memory, PatternError, Subject, name,
};

mod anchor;
mod explain;
mod index;
mod message;

#[cfg(test)]
mod tests;

pub use explain::{Explanation, Verdict};
use index::Index;
pub use message::{UNROUTABLE, Unroutable};

/// A mapping: in a config its place, from 0 on; in a relay that was given another config, that of its first appearance, and
/// what comes later has a greater one, so that none is ever another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub u32);

impl fmt::Display for MappingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a mapping maps: the keys or topics of a pattern to the channels of a template.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Whether it takes keys, or what is published.
    pub subject: Subject,
    /// Which keys or topics.
    pub pattern: KeyPattern,
    /// The channel of each; by default [`KeyPattern::default_channel`].
    pub channel: ChannelTemplate,
}

/// A rule whose channel template does not fit its pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mapping {mapping}: {problem}")]
pub struct RuleError {
    /// The mapping.
    pub mapping: MappingId,
    /// What is wrong; its place is one in the text of the channel template.
    pub problem: PatternError,
}

/// What may stand behind a channel, by one mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The mapping.
    pub mapping: MappingId,
    /// The captures that the channel name tells, in the order of the template.
    pub captures: Vec<(Arc<str>, Bytes)>,
    /// Where to look for keys.
    pub keys: KeySet,
}

/// Where to look for the keys of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySet {
    /// This key and no other.
    One(Bytes),
    /// Some of the keys that this server glob takes, if any. Each must be matched again with [`Mappings::each`].
    Matching(Bytes),
    /// There are none: it has the messages that are published on the topics that this server glob takes.
    Published(Bytes),
}

/// All mappings, with an index by which the ones that take a key are found without trying each.
#[derive(Debug)]
pub struct Mappings {
    /// In the order of the config.
    routes: Vec<Route>,
    /// Where each is in `routes`.
    places: HashMap<MappingId, usize>,
    keys: Index,
    topics: Index,
    channels: Index,
}

#[derive(Debug)]
struct Route {
    id: MappingId,
    subject: Subject,
    pattern: KeyPattern,
    channel: BoundChannel,
}

/// Buffers of a look-up; kept from one to the next, they make it free of allocations.
#[derive(Debug, Default)]
pub struct Scratch {
    memory: Memory,
    candidates: Vec<u32>,
    channel: String,
    fields: Vec<String>,
}

impl Mappings {
    /// Checks and indexes the mappings, each being known by its place in `rules`.
    ///
    /// # Errors
    /// Every rule whose channel template names captures that its pattern does not have, or could not be turned back.
    pub fn new(rules: Vec<Rule>) -> Result<Mappings, Vec<RuleError>> {
        Mappings::of((0..).map(MappingId).zip(rules))
    }

    /// The same where each is known by the id that is given with it, no two by the same.
    ///
    /// # Errors
    /// See [`Mappings::new`].
    pub fn of(rules: impl IntoIterator<Item = (MappingId, Rule)>) -> Result<Mappings, Vec<RuleError>> {
        let mut routes = Vec::new();
        let mut errors = Vec::new();
        for (mapping, rule) in rules {
            match rule.channel.bind(&rule.pattern, rule.subject) {
                Ok(channel) => routes.push(Route {
                    id: mapping,
                    subject: rule.subject,
                    pattern: rule.pattern,
                    channel,
                }),
                Err(problem) => errors.push(RuleError { mapping, problem }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let of = |subject| {
            let routes = (0..).zip(&routes).filter(move |(_, route)| route.subject == subject);
            Index::new(routes.map(|(number, route)| (number, route.pattern.program())))
        };
        let (keys, topics) = (of(Subject::Keys), of(Subject::Topics));
        let channels = Index::new(
            (0..)
                .zip(&routes)
                .map(|(number, route)| (number, route.channel.program())),
        );
        Ok(Mappings {
            places: routes.iter().map(|route| route.id).zip(0..).collect(),
            routes,
            keys,
            topics,
            channels,
        })
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Calls `found` for every mapping that takes `key`, in their order, with the name of the channel.
    pub fn each(&self, key: &[u8], scratch: &mut Scratch, mut found: impl FnMut(MappingId, &str, &Captures<'_>)) {
        self.keys.candidates(key, &mut scratch.candidates);
        for at in 0..scratch.candidates.len() {
            let route = &self.routes[scratch.candidates[at] as usize];
            let Scratch { memory, channel, .. } = &mut *scratch;
            let Some(captures) = route.captures(key, memory) else {
                continue;
            };
            channel.clear();
            route.channel.render(&captures, &[], channel);
            found(route.id, channel, &captures);
        }
    }

    /// Calls `found` for every mapping that takes what is published on `topic`, in their order, with the name of the
    /// channel, or why this message has none.
    pub fn each_published(
        &self,
        topic: &[u8],
        message: &[u8],
        scratch: &mut Scratch,
        mut found: impl FnMut(MappingId, Result<&str, Unroutable>),
    ) {
        self.topics.candidates(topic, &mut scratch.candidates);
        for at in 0..scratch.candidates.len() {
            let route = &self.routes[scratch.candidates[at] as usize];
            let Scratch {
                memory,
                channel,
                fields,
                ..
            } = &mut *scratch;
            let Some(captures) = route.captures(topic, memory) else {
                continue;
            };
            channel.clear();
            let routed = message::fields(message, route.channel.fields(), fields);
            let routed = routed.map(|()| {
                route.channel.render(&captures, fields, channel);
                channel.as_str()
            });
            found(route.id, routed);
        }
    }

    /// What the captures of a mapping take of a key or topic, if it is one of these and takes it.
    pub fn captures<'a>(
        &'a self,
        mapping: MappingId,
        name: &'a [u8],
        scratch: &'a mut Scratch,
    ) -> Option<Captures<'a>> {
        self.route(mapping)?.captures(name, &mut scratch.memory)
    }

    /// Where to look for the keys of a channel: for every mapping that can give this name, in their order. Empty if none
    /// can.
    pub fn sources(&self, channel: &str) -> Vec<Source> {
        let Some(bytes) = name::decode(channel) else {
            return Vec::new();
        };
        let (mut memory, mut candidates) = (Memory::default(), Vec::new());
        self.channels.candidates(&bytes, &mut candidates);
        let sources = candidates
            .iter()
            .filter_map(|&route| source(&self.routes[route as usize], &bytes, &mut memory));
        sources.collect()
    }

    fn route(&self, mapping: MappingId) -> Option<&Route> {
        self.places.get(&mapping).map(|place| &self.routes[*place])
    }
}

impl Route {
    /// What the captures take of a key or topic, if the pattern takes it.
    fn captures<'a>(&'a self, name: &'a [u8], memory: &'a mut Memory) -> Option<Captures<'a>> {
        self.pattern.program().run(name, memory).then(|| Captures {
            names: self.pattern.names(),
            spans: &memory.spans,
            key: name,
        })
    }
}

/// By one mapping, the keys that may stand behind the channel with the decoded name `channel`.
fn source(route: &Route, channel: &[u8], memory: &mut Memory) -> Option<Source> {
    let Route {
        id,
        subject,
        pattern,
        channel: template,
    } = route;
    if !template.program().run(channel, memory) {
        return None;
    }
    let told: Vec<(usize, &[u8])> = (template.sources().iter().zip(&memory.spans))
        .filter_map(|(index, span)| Some(((*index)?, &channel[span.from..span.to])))
        .collect();
    let filled = pattern.fill(|index| told.iter().find(|(told, _)| *told == index).map(|&(_, value)| value));
    if let Filled::Key(name) = &filled {
        // A key that would be split into other captures belongs to another channel.
        let again = route.captures(name, memory)?;
        if told.iter().any(|&(index, value)| again.at(index) != value) {
            return None;
        }
    }
    let keys = match (subject, filled) {
        (Subject::Topics, filled) => KeySet::Published(filled.into_glob().into()),
        (Subject::Keys, Filled::Key(key)) => KeySet::One(key.into()),
        (Subject::Keys, Filled::Glob(glob)) => KeySet::Matching(glob.into()),
    };
    let captures = (told.iter())
        .map(|&(index, value)| (pattern.names()[index].clone(), Bytes::copy_from_slice(value)))
        .collect();
    Some(Source {
        mapping: *id,
        captures,
        keys,
    })
}
