//! Commands as they are written, and replies as they are understood.

use std::sync::Arc;

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;

use super::ReadError;

/// A command and its arguments.
#[derive(Debug)]
pub(super) enum Command {
    /// A command that takes a key, with what else it takes being always the same.
    Of(Verb, Bytes),
    /// The first bytes of a string, one more than so many.
    Start(Bytes, u64),
    /// HMGET.
    Fields(Bytes, Arc<[Bytes]>),
    /// Anything else.
    Other(&'static str, Vec<Bytes>),
}

/// What is asked about a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    Type,
    Pttl,
    Get,
    StrLen,
    HLen,
    HGetAll,
    LLen,
    /// All of a list.
    LRange,
    SCard,
    SMembers,
    ZCard,
    /// All of a sorted set, with its scores.
    ZRange,
    XLen,
    /// All of a stream.
    XRange,
}

impl Verb {
    /// The command, and what stands behind the key.
    fn words(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Verb::Type => ("TYPE", &[]),
            Verb::Pttl => ("PTTL", &[]),
            Verb::Get => ("GET", &[]),
            Verb::StrLen => ("STRLEN", &[]),
            Verb::HLen => ("HLEN", &[]),
            Verb::HGetAll => ("HGETALL", &[]),
            Verb::LLen => ("LLEN", &[]),
            Verb::LRange => ("LRANGE", &["0", "-1"]),
            Verb::SCard => ("SCARD", &[]),
            Verb::SMembers => ("SMEMBERS", &[]),
            Verb::ZCard => ("ZCARD", &[]),
            Verb::ZRange => ("ZRANGE", &["0", "-1", "WITHSCORES"]),
            Verb::XLen => ("XLEN", &[]),
            Verb::XRange => ("XRANGE", &["-", "+"]),
        }
    }
}

impl Command {
    /// A command that is not about one key; `name` is one word.
    pub fn other(name: &'static str, words: impl IntoIterator<Item = impl Into<Bytes>>) -> Command {
        Command::Other(name, words.into_iter().map(Into::into).collect())
    }

    /// Whether it is one of [`Command::other`] with this name.
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Command::Other(own, _) if *own == name)
    }

    /// Appends it as servers read it.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Command::Of(verb, key) => {
                let (name, rest) = verb.words();
                begin(out, 2 + rest.len());
                word(out, name.as_bytes());
                word(out, key);
                rest.iter().for_each(|rest| word(out, rest.as_bytes()));
            }
            Command::Start(key, length) => {
                // The largest number of the protocol.
                let end = (*length).min(i64::MAX as u64);
                write(
                    out,
                    &[b"GETRANGE", key, b"0", itoa::Buffer::new().format(end).as_bytes()],
                );
            }
            Command::Fields(key, names) => {
                begin(out, 2 + names.len());
                word(out, b"HMGET");
                word(out, key);
                names.iter().for_each(|name| word(out, name));
            }
            Command::Other(name, words) => {
                begin(out, 1 + words.len());
                word(out, name.as_bytes());
                words.iter().for_each(|own| word(out, own));
            }
        }
    }
}

/// Appends a command of these words.
pub(super) fn write(out: &mut Vec<u8>, words: &[&[u8]]) {
    begin(out, words.len());
    words.iter().for_each(|own| word(out, own));
}

fn begin(out: &mut Vec<u8>, words: usize) {
    number(out, b'*', words);
}

fn word(out: &mut Vec<u8>, word: &[u8]) {
    number(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, sign: u8, number: usize) {
    out.push(sign);
    // It is written for every word: `write!` takes ten times as long.
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A reply that is no error.
pub(super) fn unless_error(reply: BytesFrame) -> Result<BytesFrame, ReadError> {
    match reply {
        BytesFrame::SimpleError { data, .. } => Err(ReadError::refused(data.to_string())),
        BytesFrame::BlobError { data, .. } => Err(ReadError::refused(String::from_utf8_lossy(&data).into_owned())),
        reply => Ok(reply),
    }
}

/// A string reply.
pub(super) fn bytes(reply: BytesFrame) -> Result<Bytes, ReadError> {
    optional_bytes(reply)?.ok_or_else(|| ReadError::not_understood("a string"))
}

/// A string reply, or None for null.
pub(super) fn optional_bytes(reply: BytesFrame) -> Result<Option<Bytes>, ReadError> {
    match unless_error(reply)? {
        BytesFrame::BlobString { data, .. }
        | BytesFrame::SimpleString { data, .. }
        | BytesFrame::VerbatimString { data, .. } => Ok(Some(data)),
        BytesFrame::Null => Ok(None),
        _ => Err(ReadError::not_understood("a string")),
    }
}

/// A number.
pub(super) fn integer(reply: &BytesFrame) -> Result<i64, ReadError> {
    match reply {
        BytesFrame::Number { data, .. } => Ok(*data),
        _ => Err(ReadError::not_understood("a number")),
    }
}

/// A number that may have a fraction.
pub(super) fn float(reply: &BytesFrame) -> Result<f64, ReadError> {
    match reply {
        BytesFrame::Double { data, .. } => Ok(*data),
        BytesFrame::Number { data, .. } => Ok(*data as f64),
        _ => Err(ReadError::not_understood("a score")),
    }
}

/// An array or set.
pub(super) fn array(reply: BytesFrame) -> Result<Vec<BytesFrame>, ReadError> {
    match unless_error(reply)? {
        BytesFrame::Array { data, .. } => Ok(data),
        BytesFrame::Set { data, .. } => Ok(data.into_iter().collect()),
        _ => Err(ReadError::not_understood("an array")),
    }
}

/// An array of strings.
pub(super) fn strings(reply: BytesFrame) -> Result<Vec<Bytes>, ReadError> {
    array(reply)?.into_iter().map(bytes).collect()
}

/// A map of strings.
pub(super) fn map(reply: BytesFrame) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    match unless_error(reply)? {
        BytesFrame::Map { data, .. } => {
            let pair = |(name, value)| Ok((bytes(name)?, bytes(value)?));
            data.into_iter().map(pair).collect()
        }
        _ => Err(ReadError::not_understood("a map")),
    }
}
