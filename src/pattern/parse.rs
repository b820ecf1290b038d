//! Reads the text of key patterns and channel templates.

use std::ops::Range;
use std::sync::Arc;

use super::PatternError;
use super::program::{Gap, Op, Set, Takes};

/// Longest pattern or template in bytes. Far above what a key looks like, and below the depth of 1000 stars at which
/// newer servers give up on a glob and take nothing.
const MAX_TEXT: usize = 1024;

/// Begins what stands in braces for a field of a JSON message.
pub(super) const JSON: &str = "json.";

/// A key pattern as read.
pub(super) struct Parsed {
    pub ops: Vec<Op>,
    pub names: Vec<Arc<str>>,
    pub at: Vec<Range<usize>>,
}

/// A piece of a channel template.
pub(super) enum Piece {
    Literal(String),
    Capture {
        name: Arc<str>,
        takes: Takes,
        at: Range<usize>,
    },
    /// A field of the JSON message: `json.` and its path.
    Field {
        name: Arc<str>,
        takes: Takes,
        at: Range<usize>,
    },
}

impl Piece {
    /// The name in its braces and their place; None for literal text.
    pub fn braces(&self) -> Option<(&Arc<str>, &Range<usize>)> {
        match self {
            Piece::Literal(_) => None,
            Piece::Capture { name, at, .. } | Piece::Field { name, at, .. } => Some((name, at)),
        }
    }
}

/// Reads a key pattern.
pub(super) fn key_pattern(text: &str) -> Result<Parsed, PatternError> {
    check_size(text, "pattern")?;
    let bytes = text.as_bytes();
    let mut parsed = Parsed {
        ops: Vec::new(),
        names: Vec::new(),
        at: Vec::new(),
    };
    let mut literal = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let op = match bytes[at] {
            b'*' => {
                at += 1;
                Op::Gap(Gap::new(Takes::Any, None))
            }
            b'?' => {
                at += 1;
                Op::Any
            }
            b'[' => {
                let (set, end) = set(text, at)?;
                at = end;
                // `[*]` is a common way to write the byte itself: as a literal it can be looked up.
                if let Some(byte) = set.only() {
                    literal.push(byte);
                    continue;
                }
                Op::OneOf(set, text[start..end].into())
            }
            b'{' => {
                let (name, takes, end) = capture(text, at)?;
                at = end;
                if parsed.names.iter().any(|known| **known == *name) {
                    return Err(twice(name, start..end));
                }
                parsed.names.push(name.into());
                parsed.at.push(start..end);
                Op::Gap(Gap::new(takes, Some(parsed.names.len() - 1)))
            }
            b'}' => return Err(lone_brace(at)),
            _ => {
                let (from, end) = literal_char(text, at);
                literal.extend_from_slice(&bytes[from..end]);
                at = end;
                continue;
            }
        };
        if !literal.is_empty() {
            parsed.ops.push(Op::Literal(std::mem::take(&mut literal).into()));
        }
        if let (Some(Op::Gap(before)), Op::Gap(gap)) = (parsed.ops.last(), &op) {
            if before.capture.is_none() && gap.capture.is_none() {
                continue; // a run of stars is one star
            }
            return Err(adjacent(start..at));
        }
        parsed.ops.push(op);
    }
    if !literal.is_empty() {
        parsed.ops.push(Op::Literal(literal.into()));
    }
    Ok(parsed)
}

/// Reads a channel template.
pub(super) fn template(text: &str) -> Result<Vec<Piece>, PatternError> {
    check_size(text, "channel template")?;
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at] {
            b'{' => {
                let (name, takes, end) = match field(text, at)? {
                    Some(found) => found,
                    None => capture(text, at)?,
                };
                let mut named = pieces.iter().filter_map(Piece::braces);
                if named.any(|(known, _)| **known == *name) {
                    return Err(twice(name, at..end));
                }
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                let (is_field, name, at_end) = (name.starts_with(JSON), name.into(), at..end);
                pieces.push(match is_field {
                    true => Piece::Field {
                        name,
                        takes,
                        at: at_end,
                    },
                    false => Piece::Capture {
                        name,
                        takes,
                        at: at_end,
                    },
                });
                at = end;
            }
            b'}' => return Err(lone_brace(at)),
            _ => {
                let (from, end) = literal_char(text, at);
                literal.push_str(&text[from..end]);
                at = end;
            }
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// One literal character at `at`, its `\` left out. A `\` at the very end is itself, as on the server.
fn literal_char(text: &str, at: usize) -> (usize, usize) {
    let from = if text.as_bytes()[at] == b'\\' && at + 1 < text.len() {
        at + 1
    } else {
        at
    };
    let end = text[from..].chars().next().map_or(from, |char| from + char.len_utf8());
    (from, end)
}

/// Reads what stands between the braces that open at `start`: it, what it takes, and where it ends.
fn braces(text: &str, start: usize) -> Result<(&str, Takes, usize), PatternError> {
    let Some(length) = text[start + 1..].find('}') else {
        return Err(PatternError {
            at: start..text.len(),
            what: "`{` opens a capture that is never closed".into(),
            why: "a capture is written `{name}`, or `{name...}` to take `:` too".into(),
            instead: "add the `}`, or write `\\{` for the byte itself".into(),
        });
    };
    let end = start + length + 2;
    let inner = &text[start + 1..end - 1];
    let (name, takes) = match inner.strip_suffix("...") {
        Some(name) => (name, Takes::Rest),
        None => (inner, Takes::Segment),
    };
    Ok((name, takes, end))
}

/// Reads `{json.path}` or `{json.path...}`, whose `{` is at `start`, if that is what stands there.
fn field(text: &str, start: usize) -> Result<Option<(&str, Takes, usize)>, PatternError> {
    let (name, takes, end) = braces(text, start)?;
    let Some(path) = name.strip_prefix(JSON) else {
        return Ok(None);
    };
    if path.split('.').any(str::is_empty) {
        return Err(PatternError {
            at: start..end,
            what: format!("`{{{name}}}` does not name a field of a JSON message"),
            why:
                "after `json.` stand the names of members, from the outermost to the innermost, with a `.` between them"
                    .into(),
            instead: "write e.g. `{json.user.id}`".into(),
        });
    }
    Ok(Some((name, takes, end)))
}

/// Reads `{name}` or `{name...}`, whose `{` is at `start`: name, what it takes, and where it ends.
fn capture(text: &str, start: usize) -> Result<(&str, Takes, usize), PatternError> {
    let (name, takes, end) = braces(text, start)?;
    let inner = &text[start + 1..end - 1];
    if name.starts_with(JSON) {
        return Err(PatternError {
            at: start..end,
            what: format!("`{{{inner}}}` asks for a field of a JSON message"),
            why: "a name says nothing of what is in the value or message".into(),
            instead: "write it in `channel`, for messages of a Pub/Sub channel; here only names are captured".into(),
        });
    }
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named {
        return Err(PatternError {
            at: start..end,
            what: format!("`{{{inner}}}` is not a capture"),
            why: "a name starts with a letter or `_` and goes on with letters, digits and `_`".into(),
            instead: "write `{name}` or `{name...}`; for the bytes themselves, as in a cluster hash tag, write `\\{` and `\\}`"
                .into(),
        });
    }
    Ok((name, takes, end))
}

/// Reads the set whose `[` is at `start`, as the server does: what it takes, and where it ends.
fn set(text: &str, start: usize) -> Result<(Set, usize), PatternError> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    let inverted = bytes.get(at) == Some(&b'^');
    if inverted {
        at += 1;
    }
    let mut set = Set::default();
    loop {
        match bytes[at..] {
            // Never closed: the set ends with the pattern.
            [] => break,
            [b'\\', byte, ..] => {
                set.add(byte);
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            // The end of a range may be anything, also `]` or `\`, and the ends may stand in either order.
            [from, b'-', to, ..] => {
                if !from.is_ascii() || !to.is_ascii() {
                    return Err(PatternError {
                        at: start..memchr::memchr(b']', &bytes[at..]).map_or(text.len(), |length| at + length + 1),
                        what: "a range in a set ends in a byte outside ASCII".into(),
                        why: "servers compare bytes, signed on x86 and unsigned on ARM, so they disagree on what it takes"
                            .into(),
                        instead: "list the characters one by one outside of `[…]`, or use `?` or `*`".into(),
                    });
                }
                (from.min(to)..=from.max(to)).for_each(|byte| set.add(byte));
                at += 3;
            }
            [byte, ..] => {
                set.add(byte);
                at += 1;
            }
        }
    }
    if inverted {
        set.invert();
    }
    Ok((set, at))
}

fn check_size(text: &str, what: &str) -> Result<(), PatternError> {
    if text.is_empty() {
        return Err(PatternError {
            at: 0..0,
            what: format!("the {what} is empty"),
            why: "it would stand for the empty name alone".into(),
            instead: "write a name such as `cart:{user}`".into(),
        });
    }
    if text.len() > MAX_TEXT {
        return Err(PatternError {
            at: 0..text.len(),
            what: format!("the {what} has {} bytes", text.len()),
            why: format!("at most {MAX_TEXT} are allowed: servers give up on globs that are much longer"),
            instead: "shorten it, with `*` in place of what need not be spelled out".into(),
        });
    }
    Ok(())
}

fn twice(name: &str, at: Range<usize>) -> PatternError {
    PatternError {
        at,
        what: format!("`{{{name}}}` stands here twice"),
        why: "each capture has one place, so that its value is never in doubt".into(),
        instead: "give the second one a name of its own, or leave it out".into(),
    }
}

fn lone_brace(at: usize) -> PatternError {
    PatternError {
        at: at..at + 1,
        what: "`}` without its `{`".into(),
        why: "braces enclose captures".into(),
        instead: "write `\\}` for the byte itself".into(),
    }
}

fn adjacent(at: Range<usize>) -> PatternError {
    PatternError {
        at,
        what: "nothing stands between this and the capture or `*` before it".into(),
        why: "nothing would say where the one ends and the other begins".into(),
        instead: "put a literal such as `:` between them, or make them one capture".into(),
    }
}
