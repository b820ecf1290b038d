//! Commands as they are written, and replies as they are understood.

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;

use super::ReadError;

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

/// Appends commands as servers read them, and counts them.
#[derive(Debug)]
pub(super) struct Commands<'a> {
    out: &'a mut Vec<u8>,
    /// Whether each is for a slot that is being moved to the node that is asked.
    asking: bool,
    /// How many replies there will be.
    pub count: usize,
}

impl<'a> Commands<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Commands<'a> {
        Commands {
            out,
            asking: false,
            count: 0,
        }
    }

    /// Whether what follows is for a slot that is being moved to the node that is asked: then each command has two replies, of
    /// which the first says nothing.
    pub fn asking(&mut self, asking: bool) {
        self.asking = asking;
    }

    /// A command that takes a key, with what else it takes being always the same.
    pub fn of(&mut self, verb: Verb, key: &[u8]) {
        let (name, rest) = verb.words();
        self.begin(name, 1 + rest.len());
        word(self.out, key);
        rest.iter().for_each(|rest| word(self.out, rest.as_bytes()));
    }

    /// The first bytes of a string, one more than so many.
    pub fn start(&mut self, key: &[u8], length: u64) {
        // The largest number of the protocol.
        let end = length.min(i64::MAX as u64);
        self.other("GETRANGE", &[key, b"0", itoa::Buffer::new().format(end).as_bytes()]);
    }

    /// These fields of a hash.
    pub fn fields(&mut self, key: &[u8], names: &[Bytes]) {
        self.begin("HMGET", 1 + names.len());
        word(self.out, key);
        names.iter().for_each(|name| word(self.out, name));
    }

    /// Anything else.
    pub fn other(&mut self, name: &str, words: &[&[u8]]) {
        self.begin(name, words.len());
        words.iter().for_each(|own| word(self.out, own));
    }

    /// A PING that is answered by the secret and the number.
    pub fn guard(&mut self, secret: &str, guard: u64) {
        let mut buffer = itoa::Buffer::new();
        let guard = buffer.format(guard).as_bytes();
        self.begin("PING", 1);
        number(self.out, b'$', secret.len() + guard.len());
        self.out.extend_from_slice(secret.as_bytes());
        self.out.extend_from_slice(guard);
        self.out.extend_from_slice(b"\r\n");
    }

    fn begin(&mut self, name: &str, words: usize) {
        if self.asking {
            number(self.out, b'*', 1);
            word(self.out, b"ASKING");
            self.count += 1;
        }
        number(self.out, b'*', 1 + words);
        word(self.out, name.as_bytes());
        self.count += 1;
    }
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
