//! Commands and replies as `fred` has them.

use std::time::Duration;

use bytes::Bytes;
use fred::{
    clients::{Client, Pipeline},
    error::Error,
    interfaces::{
        ClientLike, HashesInterface, KeysInterface, ListInterface, SetsInterface, SortedSetsInterface, StreamsInterface,
    },
    types::{ClusterHash, CustomCommand, Key, Value},
};
use tokio::{time::timeout, try_join};

use super::ReadError;

/// A command and its arguments.
#[derive(Debug)]
pub(super) enum Command {
    /// A command that takes a key, with what else it takes being always the same.
    Of(Verb, Bytes),
    /// The first bytes of a string, one more than so many.
    Start(Bytes, u64),
    /// HMGET.
    Fields(Bytes, Vec<Bytes>),
    /// Anything else; fred writes it out at once, with whatever waits before it.
    Other(&'static str, Vec<Value>),
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

impl Command {
    /// A command that is not about one key; `name` is one word.
    pub fn other(name: &'static str, words: impl IntoIterator<Item = impl Into<Bytes>>) -> Command {
        Command::Other(name, words.into_iter().map(|word| Value::Bytes(word.into())).collect())
    }

    /// Whether it is one of [`Command::other`] with this name.
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Command::Other(own, _) if *own == name)
    }

    /// Puts it into `pipeline`, which sends nothing yet.
    async fn queue(self, pipeline: &Pipeline<Client>) -> Result<Value, Error> {
        let (verb, key) = match self {
            Command::Of(verb, key) => (verb, key),
            Command::Start(key, length) => {
                // fred takes only what is below the largest number of the protocol.
                let end = usize::try_from(length.min(i64::MAX as u64 - 1)).unwrap_or(usize::MAX);
                return pipeline.getrange(key, 0, end).await;
            }
            Command::Fields(key, names) => return pipeline.hmget(key, names).await,
            Command::Other(name, words) => return pipeline.custom(raw(name), words).await,
        };
        match verb {
            Verb::Type => pipeline.r#type(key).await,
            Verb::Pttl => pipeline.pttl(key).await,
            Verb::Get => pipeline.get(key).await,
            Verb::StrLen => pipeline.strlen(key).await,
            Verb::HLen => pipeline.hlen(key).await,
            Verb::HGetAll => pipeline.hgetall(key).await,
            Verb::LLen => pipeline.llen(key).await,
            Verb::LRange => pipeline.lrange(key, 0, -1).await,
            Verb::SCard => pipeline.scard(key).await,
            Verb::SMembers => pipeline.smembers(key).await,
            Verb::ZCard => pipeline.zcard(key).await,
            Verb::ZRange => pipeline.zrange(key, 0, -1, None, false, None, true).await,
            Verb::XLen => pipeline.xlen(key).await,
            Verb::XRange => pipeline.xrange(key, "-", "+", None).await,
        }
    }
}

/// Sends `commands` in one write and gives their replies in order.
///
/// `guard` must be unlike that of any other call. It is sent last: its answer shows that the replies are in step, and
/// it makes fred write only once, for fred writes after each command unless another is waiting behind the pipeline.
pub(super) async fn send(
    client: &Client,
    commands: Vec<Command>,
    guard: &str,
    time: Duration,
) -> Result<Vec<Result<Value, ReadError>>, ReadError> {
    // fred's futures take 5 KB each, and whatever is made of them copies them as often as it is moved: hence the boxes.
    let count = commands.len();
    let pipeline = client.pipeline();
    for command in commands {
        Box::pin(command.queue(&pipeline))
            .await
            .map_err(|error| ReadError::from_fred(&error))?;
    }
    let replies = Box::pin(async {
        let replies = pipeline.try_all::<Value>().await;
        // A reply was lost if the last command seems to be answered by what belongs to the guard.
        match replies.last() {
            Some(reply) if answers(reply, guard) => Err(ReadError::out_of_step()),
            _ => Ok(replies),
        }
    });
    let guarded = Box::pin(async {
        let answer = client.custom::<Value, _>(raw("PING"), vec![guard]).await;
        match answer {
            answer if answers(&answer, guard) => Ok(()),
            Ok(_) => Err(ReadError::out_of_step()),
            Err(error) => Err(ReadError::from_fred(&error)),
        }
    });
    // Both are sent before either is waited for, in this order.
    let both = async { try_join!(biased; replies, guarded) };
    let (replies, ()) = timeout(time, both).await.map_err(|_| ReadError::timeout(time))??;
    if replies.len() != count {
        // fred has one error for all of them, of the connection.
        let error = replies.into_iter().find_map(Result::err);
        return Err(error.map_or_else(ReadError::out_of_step, |error| ReadError::from_fred(&error)));
    }
    Ok(replies
        .into_iter()
        .map(|reply| reply.map_err(|error| ReadError::from_fred(&error)))
        .collect())
}

/// Whether `reply` is what a PING with `guard` is answered by.
fn answers(reply: &Result<Value, Error>, guard: &str) -> bool {
    match reply {
        Ok(reply) => reply.as_str().as_deref() == Some(guard),
        // A server that cannot save its data says so to writes and to PING, and to nothing else that is sent here.
        Err(error) => error.details().starts_with("MISCONF"),
    }
}

fn raw(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

/// A string reply.
pub(super) fn bytes(value: Value) -> Result<Bytes, ReadError> {
    match value {
        Value::String(text) => Ok(text.into_inner()),
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(ReadError::not_understood("a string")),
    }
}

/// A string reply, or None for null.
pub(super) fn optional_bytes(value: Value) -> Result<Option<Bytes>, ReadError> {
    if value.is_null() {
        Ok(None)
    } else {
        bytes(value).map(Some)
    }
}

/// A number.
pub(super) fn integer(value: &Value) -> Result<i64, ReadError> {
    value.as_i64().ok_or_else(|| ReadError::not_understood("a number"))
}

/// An array or set.
pub(super) fn array(value: Value) -> Result<Vec<Value>, ReadError> {
    match value {
        Value::Array(elements) => Ok(elements),
        _ => Err(ReadError::not_understood("an array")),
    }
}

/// An array of strings.
pub(super) fn strings(value: Value) -> Result<Vec<Bytes>, ReadError> {
    array(value)?.into_iter().map(bytes).collect()
}

/// A map of strings.
pub(super) fn map(value: Value) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    match value {
        Value::Map(map) => {
            let pair = |(name, value): (Key, Value)| Ok((name.into_bytes(), bytes(value)?));
            map.inner().into_iter().map(pair).collect()
        }
        _ => Err(ReadError::not_understood("a map")),
    }
}
