//! Tells for a key, a published message or a channel which mappings take it, and why the others do not.

use std::sync::Arc;

use bytes::Bytes;

use super::{KeySet, MappingId, Mappings, Route, Source, Unroutable, message, source};
use crate::pattern::{Captures, KeyPattern, Memory, Op, Program, Span, Subject, Takes, name};

/// What one mapping makes of a key, a published message or a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The mapping.
    pub mapping: MappingId,
    /// Whether it takes it, or why not.
    pub verdict: Verdict,
}

/// Whether a mapping takes a key, a topic or a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the key or topic, and this is what becomes of it.
    Name {
        /// The captures, in the order of the pattern.
        captures: Vec<(Arc<str>, Bytes)>,
        /// The name of the channel; or why the message that is published has none.
        channel: Result<String, Unroutable>,
    },
    /// It can give the channel, and this is where its keys are.
    Channel {
        /// The captures that the name tells, in the order of the template.
        captures: Vec<(Arc<str>, Bytes)>,
        /// Where to look for keys.
        keys: KeySet,
    },
    /// It does not, and this is why, as half a sentence.
    No(String),
}

impl Mappings {
    /// What each mapping makes of a key, in their order.
    pub fn explain_key(&self, key: &[u8]) -> Vec<Explanation> {
        let mut memory = Memory::default();
        self.verdicts(|route| route.verdict_of_key(key, &mut memory))
    }

    /// What one mapping makes of a key; `None` if it is none of these.
    pub fn verdict_of_key(&self, mapping: MappingId, key: &[u8]) -> Option<Verdict> {
        Some(self.route(mapping)?.verdict_of_key(key, &mut Memory::default()))
    }

    /// What each mapping makes of a message that is published on a topic, in their order.
    pub fn explain_published(&self, topic: &[u8], message: &[u8]) -> Vec<Explanation> {
        let (mut memory, mut fields) = (Memory::default(), Vec::new());
        self.verdicts(|route| {
            if route.subject != Subject::Topics {
                return Verdict::No("it takes keys, not what is published".into());
            }
            let Some(captures) = route.captures(topic, &mut memory) else {
                return Verdict::No(why_not(route.pattern.program(), &named(&route.pattern), topic));
            };
            let routed = message::fields(message, route.channel.fields(), &mut fields);
            let channel = routed.map(|()| {
                let mut channel = String::new();
                route.channel.render(&captures, &fields, &mut channel);
                channel
            });
            Verdict::Name {
                captures: owned(captures),
                channel,
            }
        })
    }

    fn verdicts(&self, verdict: impl FnMut(&Route) -> Verdict) -> Vec<Explanation> {
        let verdicts = self.routes.iter().map(verdict);
        let explained = self.routes.iter().zip(verdicts);
        let explained = explained.map(|(route, verdict)| Explanation {
            mapping: route.id,
            verdict,
        });
        explained.collect()
    }

    /// What each mapping makes of a channel name, in their order.
    pub fn explain_channel(&self, channel: &str) -> Vec<Explanation> {
        let mut memory = Memory::default();
        let bytes = name::decode(channel);
        self.verdicts(|route| {
            let Some(bytes) = &bytes else {
                return Verdict::No(format!(
                    "`{channel}` is not a channel name: `%`, control bytes and bytes that are not UTF-8, and only \
                     these, are written as `%` and two digits of `0-9A-F`"
                ));
            };
            if let Some(Source { captures, keys, .. }) = source(route, bytes, &mut memory) {
                return Verdict::Channel { captures, keys };
            }
            let program = route.channel.program();
            if program.run(bytes, &mut memory) {
                return Verdict::No(format!(
                    "what is behind it belongs to another channel of `{}`",
                    route.pattern
                ));
            }
            let mut fields = route.channel.fields().iter();
            let name_of = |source: &Option<usize>| match source {
                Some(index) => route.pattern.names()[*index].clone(),
                None => fields.next().map(ToString::to_string).unwrap_or_default().into(),
            };
            let names: Vec<Arc<str>> = route.channel.sources().iter().map(name_of).collect();
            Verdict::No(why_not(program, &names, bytes))
        })
    }
}

impl Route {
    fn verdict_of_key(&self, key: &[u8], memory: &mut Memory) -> Verdict {
        if self.subject != Subject::Keys {
            return Verdict::No("it takes what is published, no keys".into());
        }
        let Some(captures) = self.captures(key, memory) else {
            return Verdict::No(why_not(self.pattern.program(), &named(&self.pattern), key));
        };
        let mut channel = String::new();
        self.channel.render(&captures, &[], &mut channel);
        Verdict::Name {
            captures: owned(captures),
            channel: Ok(channel),
        }
    }
}

fn owned(captures: Captures<'_>) -> Vec<(Arc<str>, Bytes)> {
    let captures = captures.iter();
    captures
        .map(|(name, value)| (name.clone(), Bytes::copy_from_slice(value)))
        .collect()
}

fn named(pattern: &KeyPattern) -> Vec<Arc<str>> {
    pattern.names().to_vec()
}

/// Why a program does not take `text`, which it does not.
fn why_not(program: &Program, names: &[Arc<str>], text: &[u8]) -> String {
    let ops = program.ops();
    if let [Op::Literal(bytes)] = ops {
        return format!("it takes only {}", quoted(bytes));
    }
    if !text.starts_with(program.prefix()) {
        return format!("the literal {} is not at the start", quoted(program.prefix()));
    }
    if !text.ends_with(program.suffix()) {
        return format!("the literal {} is not at the end", quoted(program.suffix()));
    }
    if let Some((index, span)) = blocked_by_colon(ops, text) {
        let name = &names[index];
        return format!(
            "`{{{name}}}` cannot take {} because of the `:`",
            quoted(&text[span.from..span.to])
        );
    }
    // The first step that does not fit, even if anything may follow it.
    let mut memory = Memory::default();
    let mut fits = |steps: usize| {
        let mut ops = ops[..steps].to_vec();
        if !matches!(ops.last(), Some(Op::Gap(gap)) if gap.capture.is_none()) {
            ops.push(Op::anything());
        }
        Program::new(ops).run(text, &mut memory)
    };
    match (0..ops.len()).find(|&step| !fits(step + 1)).map(|step| &ops[step]) {
        Some(Op::Literal(bytes)) => format!("the literal {} is not where it should be", quoted(bytes)),
        Some(Op::Any) => "there is no byte left for a `?`".into(),
        Some(Op::OneOf(_, set)) => format!("there is no byte that `{set}` takes where it stands"),
        Some(Op::Gap(gap)) => match gap.capture {
            Some(index) => format!("there is nothing that `{{{}}}` could take", names[index]),
            None => "there is nothing that `*` could take".into(),
        },
        None => "something is left over at the end".into(),
    }
}

/// The first capture that stands in the way only because it takes no `:`, and what it would have to take.
fn blocked_by_colon(ops: &[Op], text: &[u8]) -> Option<(usize, Span)> {
    let relaxed = ops.iter().map(|op| match op {
        Op::Gap(gap) if gap.takes == Takes::Segment => Op::rest(gap.capture),
        op => op.clone(),
    });
    let mut memory = Memory::default();
    if !Program::new(relaxed.collect()).run(text, &mut memory) {
        return None;
    }
    let segments = ops.iter().filter_map(|op| match op {
        Op::Gap(gap) if gap.takes == Takes::Segment => gap.capture,
        _ => None,
    });
    segments
        .map(|index| (index, memory.spans[index]))
        .find(|(_, span)| text[span.from..span.to].contains(&b':'))
}

fn quoted(bytes: &[u8]) -> String {
    format!(
        "`{}`",
        bytes
            .escape_ascii()
            .to_string()
            .replace("\\'", "'")
            .replace("\\\"", "\"")
            .replace("\\\\", "\\")
    )
}
