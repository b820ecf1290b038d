//! The one grammar of key patterns and channel templates.
//!
//! A key pattern is the server's own glob, plus captures:
//!
//! | written | takes |
//! |---|---|
//! | `{name}` | one or more bytes, none of them `:`, and remembers them |
//! | `{name...}` | one or more bytes, `:` included, and remembers them |
//! | `*` | any bytes, also none |
//! | `?` | any one byte |
//! | `[a-c]`, `[^x]` | one byte of the set, one byte out of it |
//! | `\x` | the byte `x`, so `\{` and `\}` for a cluster hash tag |
//! | anything else | itself |
//!
//! The glob part follows the server's matcher (`stringmatchlen` in Redis, Valkey and KeyDB) to the letter: a `[` that
//! is never closed ends with the pattern, `[]` takes nothing, `[z-a]` is `[a-z]`, a `\` at the very end is itself. The
//! empty key is taken by `*` and, unlike by `KEYS`, by its like `**`. One thing is refused that servers accept: a range with an end outside ASCII,
//! because a server compares it as a signed byte on x86 and as an unsigned one on ARM.
//!
//! Where several captures could share the bytes in several ways, each takes as little as it can, from left to right.
//!
//! The names of Pub/Sub channels, here called topics so that they are not taken for channels of clients, are matched by
//! patterns of the same grammar.
//!
//! A [channel template](ChannelTemplate) has literal text and the captures of its pattern, and for topics fields of the
//! JSON messages that are published: `{json.user.id}`. Its `*`, `?` and `[` are text: `cache:*` as the channel of the
//! pattern `cache:*` is one channel that gathers all those keys.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub mod name;
mod overlap;
mod parse;
mod program;
mod template;

#[cfg(test)]
mod tests;

pub(crate) use program::{Memory, Op, Program, Span, Takes};
pub use template::{BoundChannel, ChannelTemplate, Field};

/// A text that is not a key pattern or a channel template, told so that it can be mended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}; {instead}")]
pub struct PatternError {
    /// The bytes of the text that are at fault, on character boundaries.
    pub at: Range<usize>,
    /// What is wrong.
    pub what: String,
    /// Why it is refused.
    pub why: String,
    /// What to write instead.
    pub instead: String,
}

/// What the names are that a pattern is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Keys.
    Keys,
    /// Pub/Sub channels, on which messages are published.
    Topics,
}

/// Which keys, or topics, a mapping takes: the server's glob, with captures.
#[derive(Debug, Clone)]
pub struct KeyPattern {
    text: Arc<str>,
    program: Program,
    names: Arc<[Arc<str>]>,
    /// Where each capture stands in `text`.
    at: Vec<Range<usize>>,
}

/// What a pattern becomes when some of its captures are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Everything is known: this key.
    Key(Vec<u8>),
    /// A server glob that takes every such key, and perhaps others.
    Glob(Vec<u8>),
}

impl Filled {
    /// A server glob that takes all that is meant.
    pub fn into_glob(self) -> Vec<u8> {
        match self {
            Filled::Key(key) => {
                let mut glob = Vec::with_capacity(key.len());
                escape(&key, &mut glob);
                glob
            }
            Filled::Glob(glob) => glob,
        }
    }
}

/// By what was written, which says all.
impl PartialEq for KeyPattern {
    fn eq(&self, other: &KeyPattern) -> bool {
        self.text == other.text
    }
}

impl Eq for KeyPattern {}

impl KeyPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A capture that is not closed, badly named, named twice, or beside another capture or a `*`; a `}` without its
    /// `{`; a range that ends outside ASCII; a pattern that is empty or longer than 1024 bytes.
    pub fn parse(text: &str) -> Result<KeyPattern, PatternError> {
        let parsed = parse::key_pattern(text)?;
        Ok(KeyPattern {
            text: text.into(),
            program: Program::new(parsed.ops),
            names: parsed.names.into(),
            at: parsed.at,
        })
    }

    /// The names of the captures, in the order they are written.
    pub fn captures(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Whether the pattern takes this key.
    pub fn is_match(&self, key: &[u8]) -> bool {
        self.program.run(key, &mut Memory::default())
    }

    /// The key, if the pattern names exactly one.
    pub fn literal(&self) -> Option<Vec<u8>> {
        match self.program.ops() {
            [Op::Literal(bytes)] => Some(bytes.to_vec()),
            _ => None,
        }
    }

    /// The longest literal that every key of this pattern starts with; empty if there is none.
    pub fn prefix(&self) -> Vec<u8> {
        self.program.prefix().to_vec()
    }

    /// A server glob that takes every key of this pattern. It may take more: a capture becomes `*`.
    pub fn glob(&self) -> Vec<u8> {
        self.fill(|_| None).into_glob()
    }

    /// A key that the pattern takes and that hardly anybody has; None if it takes none.
    pub fn example(&self) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        for op in self.program.ops() {
            match op {
                Op::Literal(bytes) => key.extend_from_slice(bytes),
                Op::Any => key.push(b'x'),
                Op::OneOf(set, _) => {
                    // One that can be printed if there is one.
                    let mut members = (b'!'..=b'~').chain(0..=u8::MAX).filter(|&byte| set.has(byte));
                    key.push(members.next()?);
                }
                Op::Gap(_) => key.extend_from_slice(b"keyrelay-example"),
            }
        }
        Some(key)
    }

    /// The channel template of a mapping that names none: the pattern itself, its wildcards being plain text.
    pub fn default_channel(&self) -> ChannelTemplate {
        template::of_pattern(self)
    }

    /// The pattern with the values that `value` knows put in place of the captures.
    pub(crate) fn fill<'v>(&self, value: impl Fn(usize) -> Option<&'v [u8]>) -> Filled {
        let mut key = Vec::new();
        let mut glob = Vec::new();
        let mut exact = true;
        for op in self.program.ops() {
            let known = match op {
                Op::Literal(bytes) => Some(&bytes[..]),
                Op::Gap(gap) => gap.capture.and_then(&value),
                Op::Any | Op::OneOf(..) => None,
            };
            if let Some(bytes) = known {
                key.extend_from_slice(bytes);
                escape(bytes, &mut glob);
                continue;
            }
            exact = false;
            match op {
                Op::Any => glob.push(b'?'),
                Op::OneOf(_, text) => glob.extend_from_slice(text.as_bytes()),
                Op::Gap(_) | Op::Literal(_) => glob.push(b'*'),
            }
        }
        if exact { Filled::Key(key) } else { Filled::Glob(glob) }
    }

    /// About how many bytes it takes in memory, with all that it points to.
    pub fn size(&self) -> usize {
        // An allocation is rounded up, and the allocator keeps something with it.
        const PIECE: usize = 32;
        let ops = self.program.ops();
        let bytes = ops.iter().map(|op| match op {
            Op::Literal(bytes) => bytes.len() + PIECE,
            Op::OneOf(_, text) => text.len() + PIECE,
            Op::Any | Op::Gap(_) => 0,
        });
        let names = self.names.iter().map(|name| size_of_val(name) + name.len() + 2 * PIECE);
        let pieces = size_of_val(ops) + bytes.sum::<usize>() + names.sum::<usize>();
        size_of::<KeyPattern>() + self.text.len() + pieces + self.at.capacity() * size_of::<Range<usize>>() + 4 * PIECE
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    fn capture_at(&self, index: usize) -> Range<usize> {
        self.at[index].clone()
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Appends `bytes` as a glob that takes nothing else.
fn escape(bytes: &[u8], glob: &mut Vec<u8>) {
    for &byte in bytes {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            glob.push(b'\\');
        }
        glob.push(byte);
    }
}

/// What the captures of a pattern took of one key.
#[derive(Debug, Clone, Copy)]
pub struct Captures<'a> {
    pub(crate) names: &'a [Arc<str>],
    pub(crate) spans: &'a [Span],
    pub(crate) key: &'a [u8],
}

impl<'a> Captures<'a> {
    /// The bytes that the capture of this name took.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        let index = self.names.iter().position(|known| &**known == name)?;
        Some(self.at(index))
    }

    /// All captures, in the order of the key pattern.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a Arc<str>, &'a [u8])> {
        let captures = *self;
        captures
            .names
            .iter()
            .enumerate()
            .map(move |(index, name)| (name, captures.at(index)))
    }

    pub(crate) fn at(&self, index: usize) -> &'a [u8] {
        let Span { from, to } = self.spans[index];
        &self.key[from..to]
    }
}
