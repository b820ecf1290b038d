//! The reading of one key, round by round.

use std::time::Duration;

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame as Reply;

use super::{
    ReadError, ReadErrorKind, ReadRequest, Reading,
    command::{self, Commands, Verb},
};
use crate::keyspace::{Kind, Size, StreamEntry, Value};

/// How often a key is looked at anew because it changed its type between two commands. Each time takes a write that
/// fell into a gap of microseconds, so this many in a row are no coincidence.
const TRIES: u32 = 16;

/// What PTTL says of a key that does not exist.
const NO_KEY: i64 = -2;

/// One key that is being read.
#[derive(Debug)]
pub(super) struct Job {
    request: ReadRequest,
    tries: u32,
    step: Step,
}

/// What is asked next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Expiry alone: that of a key that is gone says so.
    Gone,
    /// Expiry and text of what was a string before: where there is a text, the type need not be asked.
    Text,
    /// Type and expiry, and with them what fits the guessed type: the size, or for a string at once its text.
    Look(Kind),
    /// The value, whose type and size are known.
    Whole(Kind, Option<Duration>),
    /// The length of a string that is too large.
    Length(Option<Duration>),
}

/// What came of a step.
enum Taken {
    Done(Value, Option<Duration>),
    Next(Step),
    /// The key was changed between two commands, or the guess was wrong; the type it has now.
    Again(Kind),
}

/// The replies to what was asked for a key, in their order.
type Replies<'a> = &'a mut dyn Iterator<Item = Result<Reply, ReadError>>;

impl Job {
    pub fn new(request: ReadRequest) -> Job {
        let step = match request.probably_gone {
            true => Step::Gone,
            false => first(&request),
        };
        Job {
            request,
            tries: 0,
            step,
        }
    }

    /// Writes what is asked next; [`Job::take`] takes the replies.
    pub fn ask(&self, commands: &mut Commands<'_>) {
        let key = &self.request.key;
        commands.asking(self.request.asking);
        match self.step {
            Step::Gone => commands.of(Verb::Pttl, key),
            Step::Text => {
                commands.of(Verb::Pttl, key);
                self.ask_text(commands);
            }
            Step::Look(kind) => {
                commands.of(Verb::Type, key);
                commands.of(Verb::Pttl, key);
                match kind {
                    Kind::String => self.ask_text(commands),
                    Kind::Hash => commands.of(Verb::HLen, key),
                    Kind::List => commands.of(Verb::LLen, key),
                    Kind::Set => commands.of(Verb::SCard, key),
                    Kind::SortedSet => commands.of(Verb::ZCard, key),
                    Kind::Stream => commands.of(Verb::XLen, key),
                }
            }
            Step::Length(_) => commands.of(Verb::StrLen, key),
            Step::Whole(kind, _) => match (kind, &self.request.fields) {
                (Kind::String, _) => commands.of(Verb::Get, key),
                (Kind::Hash, None) => commands.of(Verb::HGetAll, key),
                (Kind::Hash, Some(fields)) => {
                    commands.fields(key, fields);
                    commands.of(Verb::HLen, key);
                }
                (Kind::List, _) => commands.of(Verb::LRange, key),
                (Kind::Set, _) => commands.of(Verb::SMembers, key),
                (Kind::SortedSet, _) => commands.of(Verb::ZRange, key),
                (Kind::Stream, _) => {
                    commands.of(Verb::XRange, key);
                    commands.of(Verb::Type, key);
                }
            },
        }
    }

    /// One byte more than allowed tells whether there are more.
    fn ask_text(&self, commands: &mut Commands<'_>) {
        commands.start(&self.request.key, self.request.max_value);
    }

    /// Takes the replies to the last [`Job::ask`]; the reading when there is one, else there is more to ask.
    pub fn take(&mut self, replies: Replies<'_>) -> Option<Result<Reading, ReadError>> {
        let taken = match self.request.asking {
            true => self.taken(&mut replies.skip(1).step_by(2)),
            false => self.taken(replies),
        };
        match taken {
            Ok(Taken::Done(value, ttl)) => {
                // A key that is gone has no expiry, whatever was said of it before.
                let ttl = ttl.filter(|_| !value.is_absent());
                Some(Ok(Reading { value, ttl }))
            }
            Ok(Taken::Next(step)) => {
                self.step = step;
                None
            }
            Ok(Taken::Again(_)) if self.tries >= TRIES => Some(Err(ReadError::other(
                "the key changes its type faster than it can be read".to_owned(),
            ))),
            Ok(Taken::Again(kind)) => {
                self.tries += 1;
                self.step = Step::Look(kind);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    fn taken(&self, replies: Replies<'_>) -> Result<Taken, ReadError> {
        match self.step {
            Step::Gone => self.gone(replies),
            Step::Text => self.text(replies),
            Step::Look(kind) => self.look(kind, replies),
            Step::Whole(kind, ttl) => self.whole(kind, ttl, replies),
            Step::Length(ttl) => self.length(ttl, replies),
        }
    }

    fn gone(&self, replies: Replies<'_>) -> Result<Taken, ReadError> {
        Ok(match command::integer(&next(replies)?)? {
            NO_KEY => Taken::Done(Value::Absent, None),
            _ => Taken::Next(first(&self.request)),
        })
    }

    fn text(&self, replies: Replies<'_>) -> Result<Taken, ReadError> {
        let time = next(replies)?;
        let ttl = expiry(&time)?;
        let text = match next(replies) {
            Err(error) if error.is_wrong_type() => return Ok(Taken::Next(Step::Look(Kind::String))),
            Err(ReadError {
                kind: ReadErrorKind::TooLarge(bytes),
                ..
            }) => return Ok(unheld(bytes, ttl)),
            text => command::bytes(text?)?,
        };
        if text.is_empty() && command::integer(&time)? == NO_KEY {
            return Ok(Taken::Done(Value::Absent, None));
        }
        self.judge(text, ttl, Step::Look(Kind::String))
    }

    /// The start of a string; `empty` is the step that finds out why there is none.
    fn judge(&self, text: Bytes, ttl: Option<Duration>, empty: Step) -> Result<Taken, ReadError> {
        Ok(match text.len() as u64 {
            // An absent key looks the same to GETRANGE.
            0 => Taken::Next(empty),
            length if length > self.request.max_value => Taken::Next(Step::Length(ttl)),
            _ => Taken::Done(Value::String(text), ttl),
        })
    }

    fn look(&self, guess: Kind, replies: Replies<'_>) -> Result<Taken, ReadError> {
        let kind = command::bytes(next(replies)?)?;
        let ttl = expiry(&next(replies)?)?;
        let kind = match &kind[..] {
            b"none" => return Ok(Taken::Done(Value::Absent, None)),
            b"string" => Kind::String,
            b"hash" => Kind::Hash,
            b"list" => Kind::List,
            b"set" => Kind::Set,
            b"zset" => Kind::SortedSet,
            b"stream" => Kind::Stream,
            other => return Err(ReadError::unsupported(&String::from_utf8_lossy(other))),
        };
        if kind != guess {
            return Ok(Taken::Again(kind));
        }
        let looked = match next(replies) {
            Err(error) if error.is_wrong_type() => return Ok(Taken::Again(kind)),
            Err(ReadError {
                kind: ReadErrorKind::TooLarge(bytes),
                ..
            }) => return Ok(unheld(bytes, ttl)),
            looked => looked?,
        };
        if kind == Kind::String {
            return self.judge(command::bytes(looked)?, ttl, Step::Whole(kind, ttl));
        }
        let elements = command::integer(&looked)?.unsigned_abs();
        let all = kind != Kind::Hash || self.request.fields.is_none();
        if all && elements.saturating_mul(smallest(kind)) > self.request.max_value {
            return Ok(Taken::Done(Value::TooLarge(Size::Elements(elements)), ttl));
        }
        Ok(Taken::Next(Step::Whole(kind, ttl)))
    }

    fn length(&self, ttl: Option<Duration>, replies: Replies<'_>) -> Result<Taken, ReadError> {
        let length = match next(replies) {
            Err(error) if error.is_wrong_type() => return Ok(Taken::Again(Kind::String)),
            length => command::integer(&length?)?.unsigned_abs(),
        };
        if length > self.request.max_value {
            return Ok(Taken::Done(Value::TooLarge(Size::Bytes(length)), ttl));
        }
        Ok(Taken::Again(Kind::String))
    }

    fn whole(&self, kind: Kind, ttl: Option<Duration>, replies: Replies<'_>) -> Result<Taken, ReadError> {
        let value = match self.value(kind, replies) {
            Err(error) if error.is_wrong_type() => return Ok(Taken::Again(kind)),
            Err(ReadError {
                kind: ReadErrorKind::TooLarge(bytes),
                ..
            }) => return Ok(unheld(bytes, ttl)),
            value => value?,
        };
        let size = value.size_in_bytes() as u64;
        if size > self.request.max_value {
            return Ok(Taken::Done(Value::TooLarge(Size::Bytes(size)), ttl));
        }
        Ok(Taken::Done(value, ttl))
    }

    /// The value; a collection without elements does not exist on servers, so it is an absent key.
    fn value(&self, kind: Kind, replies: Replies<'_>) -> Result<Value, ReadError> {
        let first = next(replies)?;
        Ok(match kind {
            Kind::String => command::optional_bytes(first)?.map_or(Value::Absent, Value::String),
            Kind::Hash => match &self.request.fields {
                None => unless_empty(command::map(first)?, Value::Hash),
                Some(fields) => {
                    let values = command::array(first)?.into_iter().map(command::optional_bytes);
                    let values = values.collect::<Result<Vec<_>, _>>()?;
                    let present = fields
                        .iter()
                        .cloned()
                        .zip(values)
                        .filter_map(|(name, value)| Some((name, value?)));
                    let present: Vec<_> = present.collect();
                    match command::integer(&next(replies)?)? {
                        0 if present.is_empty() => Value::Absent,
                        _ => Value::Hash(present),
                    }
                }
            },
            Kind::List => unless_empty(command::strings(first)?, Value::List),
            Kind::Set => unless_empty(command::strings(first)?, Value::Set),
            Kind::SortedSet => unless_empty(members(first)?, Value::SortedSet),
            Kind::Stream => {
                let entries = command::array(first)?
                    .into_iter()
                    .map(entry)
                    .collect::<Result<Vec<_>, _>>()?;
                // Unlike all others it may exist without elements.
                let exists = command::bytes(next(replies)?)? == "stream";
                if entries.is_empty() && !exists {
                    Value::Absent
                } else {
                    Value::Stream(entries)
                }
            }
        })
    }
}

/// A value whose reply of so many bytes was not held: nothing but that tells it from others.
fn unheld(bytes: u64, ttl: Option<Duration>) -> Taken {
    Taken::Done(Value::TooLarge(Size::Bytes(bytes)), ttl)
}

/// The first step towards the value of a key that is there.
fn first(request: &ReadRequest) -> Step {
    match request.likely {
        Some(Kind::String) => Step::Text,
        likely => Step::Look(likely.unwrap_or(Kind::String)),
    }
}

/// Fewest bytes that an element takes: less than the server holds for it, and not 0 for the empty text.
fn smallest(kind: Kind) -> u64 {
    match kind {
        Kind::String | Kind::List | Kind::Set => 1,
        Kind::Hash => 2,
        // A member and its score of eight bytes.
        Kind::SortedSet => 9,
        // `0-1`, a field and a value.
        Kind::Stream => 5,
    }
}

/// What PTTL says.
fn expiry(reply: &Reply) -> Result<Option<Duration>, ReadError> {
    Ok(match command::integer(reply)? {
        ttl @ 0.. => Some(Duration::from_millis(ttl.unsigned_abs())),
        // -1: none; or no key.
        _ => None,
    })
}

fn next(replies: Replies<'_>) -> Result<Reply, ReadError> {
    replies.next().unwrap_or_else(|| Err(ReadError::out_of_step()))
}

fn unless_empty<T>(elements: Vec<T>, value: impl FnOnce(Vec<T>) -> Value) -> Value {
    if elements.is_empty() {
        Value::Absent
    } else {
        value(elements)
    }
}

fn members(reply: Reply) -> Result<Vec<(Bytes, f64)>, ReadError> {
    let member = |pair: Reply| {
        let [member, score] =
            <[_; 2]>::try_from(command::array(pair)?).map_err(|_| ReadError::not_understood("a member and a score"))?;
        Ok((command::bytes(member)?, command::float(&score)?))
    };
    command::array(reply)?.into_iter().map(member).collect()
}

fn entry(reply: Reply) -> Result<StreamEntry, ReadError> {
    let [id, fields] =
        <[_; 2]>::try_from(command::array(reply)?).map_err(|_| ReadError::not_understood("an id and its fields"))?;
    let mut words = command::strings(fields)?.into_iter();
    let mut pairs = Vec::with_capacity(words.len() / 2);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        pairs.push((name, value));
    }
    Ok(StreamEntry {
        id: command::bytes(id)?,
        fields: pairs,
    })
}
