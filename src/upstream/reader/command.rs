//! Commands and replies as `fred` has them.

use std::time::Duration;

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Key, Value},
};
use tokio::{join, time::timeout};

use super::ReadError;

/// A command and its arguments.
#[derive(Debug)]
pub(super) struct Command {
    name: &'static str,
    words: Vec<Value>,
}

impl Command {
    /// `name` is one word.
    pub fn new(name: &'static str, words: impl IntoIterator<Item = impl Into<Bytes>>) -> Command {
        let words = words.into_iter().map(|word| Value::Bytes(word.into())).collect();
        Command { name, words }
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
    let count = commands.len();
    let pipeline = client.pipeline();
    for Command { name, words } in commands {
        // In a pipeline this only queues the command.
        let queued: Result<Value, _> = pipeline.custom(raw(name), words).await;
        queued.map_err(|error| ReadError::from_fred(&error))?;
    }
    let guarded = async {
        // Both are sent before either is waited for, in this order.
        join!(biased; pipeline.try_all::<Value>(), client.custom::<Value, _>(raw("PING"), vec![guard]))
    };
    let (replies, answer) = timeout(time, guarded).await.map_err(|_| ReadError::timeout(time))?;
    if replies.len() != count {
        // fred has one error for all of them, of the connection.
        let error = replies.into_iter().find_map(Result::err);
        return Err(error.map_or_else(ReadError::out_of_step, |error| ReadError::from_fred(&error)));
    }
    match answer {
        Ok(answer) if answer.as_str().as_deref() == Some(guard) => {}
        Ok(_) => return Err(ReadError::out_of_step()),
        // A server that cannot save its data says so to writes and to PING, and to nothing else that is sent here.
        Err(error) if error.details().starts_with("MISCONF") => {}
        Err(error) => return Err(ReadError::from_fred(&error)),
    }
    Ok(replies
        .into_iter()
        .map(|reply| reply.map_err(|error| ReadError::from_fred(&error)))
        .collect())
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
