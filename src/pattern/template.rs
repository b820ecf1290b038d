//! Channel templates: from captures to a channel name, and back.
//!
//! The way back must be unambiguous: two different sets of captures may never give the same name. That is so exactly if
//! between two neighbouring captures there is always a literal with a `:` in it, and at most one of them may itself
//! contain `:`.
//!
//! *It suffices.* Left of the capture that may contain `:` (or of the last one, if none may) every capture ends where the
//! first `:` after its start says, less the part of the literal before its `:`; right of it every capture starts, read
//! backwards, in the same way; and that one has what remains. *It is needed.* With a literal `l` without `:` between
//! two captures, `x l y l z` can be split in two ways, also if one of them may contain `:`. With two captures
//! that may contain `:`, whatever stands between them can be put into either.
//!
//! One more template can be turned back: the key pattern itself, if it has no wildcards. Then the channel *is* the key.
//!
//! The fields of a JSON message are held to the same rule, though no message need be found again: what they hold is not
//! chosen by the config's author, and no value may make of one channel's name another's.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::parse::{self, Piece};
use super::program::{Gap, Op, Program, Takes};
use super::{Captures, KeyPattern, PatternError, Subject, name};

/// The channel that a key or a published message belongs to: literal text, captures of the pattern, fields of the
/// message.
#[derive(Debug, Clone)]
pub struct ChannelTemplate {
    text: Arc<str>,
    pieces: Arc<[Piece]>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Literal(text) => write!(f, "{text:?}"),
            Piece::Capture { name, .. } | Piece::Field { name, .. } => write!(f, "{{{name}}}"),
        }
    }
}

/// By what was written, which says all.
impl PartialEq for ChannelTemplate {
    fn eq(&self, other: &ChannelTemplate) -> bool {
        self.text == other.text
    }
}

impl Eq for ChannelTemplate {}

impl ChannelTemplate {
    /// Reads a channel template. A `\` makes the next character literal; `*`, `?` and `[` are literal anyway.
    ///
    /// # Errors
    /// A capture that is not closed, badly named, or named twice; a `}` without its `{`; a template that is empty or
    /// longer than 1024 bytes.
    pub fn parse(text: &str) -> Result<ChannelTemplate, PatternError> {
        Ok(ChannelTemplate {
            text: text.into(),
            pieces: parse::template(text)?.into(),
        })
    }

    /// The names of the captures in it, in the order they are written.
    pub fn captures(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Capture { name, .. } => Some(name),
            Piece::Literal(_) | Piece::Field { .. } => None,
        })
    }

    /// Whether it names fields of a JSON message.
    pub fn has_fields(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Field { .. }))
    }

    /// What it makes of values for its captures: the values as they are, not as a channel name has them, so that it need not
    /// be text. `None` where one is missing.
    pub fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v [u8]>) -> Option<Bytes> {
        let mut filled = Vec::new();
        for piece in &*self.pieces {
            match piece {
                Piece::Literal(text) => filled.extend_from_slice(text.as_bytes()),
                Piece::Capture { name, .. } | Piece::Field { name, .. } => filled.extend_from_slice(value(name)?),
            }
        }
        Some(filled.into())
    }

    /// Ties the template to the pattern that its captures come from.
    ///
    /// # Errors
    /// A capture that the pattern does not have, or has with another reach; a field where nothing is published; captures
    /// or fields whose values could not be told apart in a channel name.
    pub fn bind(&self, pattern: &KeyPattern, subject: Subject) -> Result<BoundChannel, PatternError> {
        let mut parts = Vec::new();
        let mut ops: Vec<Op> = Vec::new();
        let mut sources = Vec::new();
        let mut fields = Vec::new();
        for piece in &*self.pieces {
            match piece {
                Piece::Literal(text) => {
                    let mut encoded = String::new();
                    name::encode(text.as_bytes(), &mut encoded);
                    parts.push(Part::Literal(encoded.into()));
                    ops.push(Op::Literal(text.as_bytes().into()));
                }
                Piece::Capture { name, takes, at } => {
                    let (index, reach) = find(pattern, subject, name, *takes, at)?;
                    parts.push(Part::Capture(index));
                    ops.push(Op::Gap(Gap::new(reach, Some(sources.len()))));
                    sources.push(Some(index));
                }
                Piece::Field { name, at, .. } if subject == Subject::Keys => return Err(no_message(name, at)),
                Piece::Field { name, takes, .. } => {
                    parts.push(Part::Field(fields.len()));
                    ops.push(Op::Gap(Gap::new(*takes, Some(sources.len()))));
                    sources.push(None);
                    fields.push(Field {
                        name: name.clone(),
                        takes: *takes,
                    });
                }
            }
        }
        // The pattern itself as its channel needs no check: the channel is the key, and is read as the key is.
        if !same(&ops, &sources, pattern) {
            self.check_unambiguous(&ops)?;
        }
        Ok(BoundChannel {
            parts,
            program: Program::new(ops),
            sources,
            fields,
        })
    }

    fn check_unambiguous(&self, ops: &[Op]) -> Result<(), PatternError> {
        let mut before: Option<(&str, &Range<usize>)> = None;
        let mut rest: Option<&str> = None;
        let mut between = "";
        for (piece, op) in self.pieces.iter().zip(ops) {
            let (name, at) = match piece {
                Piece::Literal(text) => {
                    between = text;
                    continue;
                }
                Piece::Capture { name, at, .. } | Piece::Field { name, at, .. } => (&**name, at),
            };
            if let Some((before, before_at)) = before
                && !between.contains(':')
            {
                let reason = match between {
                    "" => "nothing stands between them".to_owned(),
                    text => format!("`{text}` may also be part of either of them"),
                };
                return Err(PatternError {
                    at: before_at.start..at.end,
                    what: format!("`{{{before}}}` and `{{{name}}}` cannot be told apart in a channel name"),
                    why: format!("{reason}, so one channel name could be made in different ways"),
                    instead: format!("put a `:` between them, as in `{{{before}}}:{{{name}}}`"),
                });
            }
            if matches!(op, Op::Gap(gap) if gap.takes == Takes::Rest) {
                if let Some(first) = rest {
                    return Err(PatternError {
                        at: at.clone(),
                        what: format!("`{{{first}}}` and `{{{name}}}` cannot be told apart in a channel name"),
                        why: "both may contain `:`, so nothing says where the first one ends".into(),
                        instead: "leave one of them out, or write one of them without `...`".into(),
                    });
                }
                rest = Some(name);
            }
            before = Some((name, at));
            between = "";
        }
        Ok(())
    }
}

impl fmt::Display for ChannelTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A channel template tied to its key pattern: both ways are open.
#[derive(Debug, Clone)]
pub struct BoundChannel {
    parts: Vec<Part>,
    /// Takes the bytes of a channel, with the captures in the order of the template.
    program: Program,
    /// For each capture of the program, which one of the pattern it is; None for a field.
    sources: Vec<Option<usize>>,
    fields: Vec<Field>,
}

/// A field of a JSON message that is part of a channel's name.
#[derive(Debug, Clone)]
pub struct Field {
    /// With `json.` before the path.
    name: Arc<str>,
    takes: Takes,
}

impl Field {
    /// The names of the members that lead to it, the outermost first.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        self.name.split('.').skip(1)
    }

    /// Whether a value can stand in its place.
    pub fn takes(&self, value: &str) -> bool {
        !value.is_empty() && (self.takes != Takes::Segment || !value.contains(':'))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[derive(Debug, Clone)]
enum Part {
    /// Text that is encoded already.
    Literal(Box<str>),
    /// A capture of the pattern.
    Capture(usize),
    /// A field of the message.
    Field(usize),
}

impl BoundChannel {
    /// Appends the name of the channel for a key or topic with these captures, and a message with these values of
    /// [`fields`](BoundChannel::fields).
    pub fn render(&self, captures: &Captures<'_>, fields: &[String], channel: &mut String) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => channel.push_str(text),
                Part::Capture(index) => name::encode(captures.at(*index), channel),
                Part::Field(index) => name::encode(fields[*index].as_bytes(), channel),
            }
        }
    }

    /// The fields of a JSON message that are part of the name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether both can give the same channel name. Whether there are keys for it is not asked, so this says yes more
    /// often than needed, and never no wrongly.
    pub fn overlaps(&self, other: &BoundChannel) -> bool {
        super::overlap::overlap(&self.program, &other.program)
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn sources(&self) -> &[Option<usize>] {
        &self.sources
    }
}

/// The template of a mapping that names none.
pub(super) fn of_pattern(pattern: &KeyPattern) -> ChannelTemplate {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    for op in pattern.program().ops() {
        match op {
            Op::Literal(bytes) => literal.extend_from_slice(bytes),
            Op::Any => literal.push(b'?'),
            Op::OneOf(_, text) => literal.extend_from_slice(text.as_bytes()),
            Op::Gap(Gap { capture: None, .. }) => literal.push(b'*'),
            Op::Gap(Gap {
                capture: Some(index),
                takes,
                ..
            }) => {
                push_literal(&mut literal, &mut pieces);
                let name = pattern.captures()[*index].clone();
                pieces.push(Piece::Capture {
                    name,
                    takes: *takes,
                    at: pattern.capture_at(*index),
                });
            }
        }
    }
    push_literal(&mut literal, &mut pieces);
    ChannelTemplate {
        text: pattern.text.clone(),
        pieces: pieces.into(),
    }
}

fn push_literal(literal: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    if !literal.is_empty() {
        // Text but for a set of one byte that is part of a longer character, which no one means to write.
        pieces.push(Piece::Literal(String::from_utf8_lossy(literal).into_owned()));
        literal.clear();
    }
}

/// A field in the channel of keys, which no message comes with.
fn no_message(name: &str, at: &Range<usize>) -> PatternError {
    PatternError {
        at: at.clone(),
        what: format!("`{{{name}}}` asks for a field of a JSON message"),
        why: "the channel of a key is made of its name, so that the key can be found from the channel".into(),
        instead: "use a capture of the key pattern, or `subscribe` to messages in place of `key`".into(),
    }
}

/// The capture of the pattern with this name: which one, and what it takes.
fn find(
    pattern: &KeyPattern,
    subject: Subject,
    name: &str,
    written: Takes,
    at: &Range<usize>,
) -> Result<(usize, Takes), PatternError> {
    // The option that holds the pattern, and what a name of its kind is called.
    let (option, named, whole) = match subject {
        Subject::Keys => ("key", "key pattern", "what is in the key"),
        Subject::Topics => (
            "subscribe",
            "pattern",
            "what is in the name of the Pub/Sub channel, or in the message",
        ),
    };
    let Some(index) = pattern.captures().iter().position(|known| **known == *name) else {
        let known: Vec<String> = pattern.captures().iter().map(|name| format!("`{{{name}}}`")).collect();
        return Err(PatternError {
            at: at.clone(),
            what: format!("`{{{name}}}` is not a capture of the {named} `{pattern}`"),
            why: format!("a channel is made of {whole}"),
            instead: match &known[..] {
                [] => format!("write `{{{name}}}` into the {named} too, or leave it out here"),
                known => format!("use {}, or write `{{{name}}}` into the {named} too", known.join(", ")),
            },
        });
    };
    let takes = pattern.program().ops().iter().find_map(|op| match op {
        Op::Gap(gap) if gap.capture == Some(index) => Some(gap.takes),
        _ => None,
    });
    let takes = takes.unwrap_or(Takes::Segment);
    if written == Takes::Rest && takes == Takes::Segment {
        return Err(PatternError {
            at: at.clone(),
            what: format!("`{{{name}...}}` is written `{{{name}}}` in the {named} `{pattern}`"),
            why: format!("what a capture takes is decided by the {named}, and there it takes no `:`"),
            instead: format!("write `{{{name}}}` here, or `{{{name}...}}` in `{option}`"),
        });
    }
    Ok((index, takes))
}

/// Whether the steps of a template are those of the pattern.
fn same(ops: &[Op], sources: &[Option<usize>], pattern: &KeyPattern) -> bool {
    let theirs = pattern.program().ops();
    ops.len() == theirs.len()
        && ops.iter().zip(theirs).all(|pair| match pair {
            (Op::Literal(bytes), Op::Literal(theirs)) => bytes == theirs,
            (Op::Gap(gap), Op::Gap(theirs)) => {
                let own = gap.capture.and_then(|capture| sources[capture]);
                own.is_some() && own == theirs.capture
            }
            _ => false,
        })
}
