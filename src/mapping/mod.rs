//! From a key to its channels, and from a channel back to its keys.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::pattern::{BoundChannel, Captures, ChannelTemplate, Filled, KeyPattern, Memory, PatternError, name};

mod anchor;
mod explain;
mod index;

#[cfg(test)]
mod tests;

pub use explain::{Explanation, Verdict};
use index::Index;

/// A mapping by its place in the config, from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub u32);

impl fmt::Display for MappingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a mapping maps: the keys of a pattern to the channels of a template.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which keys.
    pub pattern: KeyPattern,
    /// The channel of each; by default [`KeyPattern::default_channel`].
    pub channel: ChannelTemplate,
}

/// A rule whose channel template does not fit its key pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mapping {mapping}: {problem}")]
pub struct RuleError {
    /// The mapping.
    pub mapping: MappingId,
    /// What is wrong; its place is one in the text of the channel template.
    pub problem: PatternError,
}

/// The keys that may stand behind a channel, by one mapping.
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
}

/// All mappings, with an index by which the ones that take a key are found without trying each.
#[derive(Debug)]
pub struct Mappings {
    routes: Vec<Route>,
    keys: Index,
    channels: Index,
}

#[derive(Debug)]
struct Route {
    pattern: KeyPattern,
    channel: BoundChannel,
}

/// Buffers of a look-up; kept from one to the next, they make it free of allocations.
#[derive(Debug, Default)]
pub struct Scratch {
    memory: Memory,
    candidates: Vec<u32>,
    channel: String,
}

impl Mappings {
    /// Checks and indexes the mappings, each being known by its place in `rules`.
    ///
    /// # Errors
    /// Every rule whose channel template names captures that its pattern does not have, or could not be turned back.
    pub fn new(rules: Vec<Rule>) -> Result<Mappings, Vec<RuleError>> {
        let mut routes = Vec::with_capacity(rules.len());
        let mut errors = Vec::new();
        for (mapping, rule) in (0..).map(MappingId).zip(rules) {
            match rule.channel.bind(&rule.pattern) {
                Ok(channel) => routes.push(Route {
                    pattern: rule.pattern,
                    channel,
                }),
                Err(problem) => errors.push(RuleError { mapping, problem }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let keys = Index::new(routes.iter().map(|route| route.pattern.program()));
        let channels = Index::new(routes.iter().map(|route| route.channel.program()));
        Ok(Mappings { routes, keys, channels })
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The key pattern of a mapping.
    ///
    /// # Panics
    /// If `mapping` is none of these.
    pub fn pattern(&self, mapping: MappingId) -> &KeyPattern {
        &self.route(mapping).pattern
    }

    /// Calls `found` for every mapping that takes `key`, in their order, with the name of the channel.
    pub fn each(&self, key: &[u8], scratch: &mut Scratch, mut found: impl FnMut(MappingId, &str, &Captures<'_>)) {
        let Scratch {
            memory,
            candidates,
            channel,
        } = scratch;
        self.keys.candidates(key, candidates);
        for mapping in candidates.iter().copied().map(MappingId) {
            let Route {
                pattern,
                channel: template,
            } = self.route(mapping);
            if !pattern.program().run(key, memory) {
                continue;
            }
            let captures = Captures {
                names: pattern.names(),
                spans: &memory.spans,
                key,
            };
            channel.clear();
            template.render(&captures, channel);
            found(mapping, channel, &captures);
        }
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
            .filter_map(|&mapping| self.source(MappingId(mapping), &bytes, &mut memory));
        sources.collect()
    }

    /// By one mapping, the keys that may stand behind the channel with the decoded name `channel`.
    fn source(&self, mapping: MappingId, channel: &[u8], memory: &mut Memory) -> Option<Source> {
        let Route {
            pattern,
            channel: template,
        } = self.route(mapping);
        if !template.program().run(channel, memory) {
            return None;
        }
        let told: Vec<(usize, &[u8])> = (template.sources().iter().zip(&memory.spans))
            .map(|(&index, span)| (index, &channel[span.from..span.to]))
            .collect();
        let filled = pattern.fill(|index| told.iter().find(|(told, _)| *told == index).map(|&(_, value)| value));
        let keys = match filled {
            Filled::Glob(glob) => KeySet::Matching(glob.into()),
            Filled::Key(key) => {
                // A key that would be split into other captures belongs to another channel.
                let taken = pattern.program().run(&key, memory);
                let again = Captures {
                    names: pattern.names(),
                    spans: &memory.spans,
                    key: &key,
                };
                if !taken || told.iter().any(|&(index, value)| again.at(index) != value) {
                    return None;
                }
                KeySet::One(key.into())
            }
        };
        let captures = (told.iter())
            .map(|&(index, value)| (pattern.names()[index].clone(), Bytes::copy_from_slice(value)))
            .collect();
        Some(Source {
            mapping,
            captures,
            keys,
        })
    }

    fn route(&self, mapping: MappingId) -> &Route {
        &self.routes[mapping.0 as usize]
    }
}
