//! The reader: values of keys, in pipelined batches, and scans, over one connection.
//!
//! Each round of commands ends with a PING whose answer proves that no reply was lost or put in: a value is never taken
//! for that of another key, whatever the server says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::{
    command::Command,
    job::Job,
    pipe::{Held, Pipe, Replies},
};
use super::{
    Endpoint, Info,
    info::ServerInfo,
    link::{Link, LinkError},
};
use crate::keyspace::{Kind, Value};

mod command;
mod error;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod job;
mod pipe;

pub use error::{ConnectError, ReadError, ReadErrorKind};

/// How long a server may send nothing that was asked by default. One that blocks for longer is better asked again.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting may take, logging in included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most keys that a page of a scan looks at. From 100 on KeyDB 6.3 scans on another thread, for which it makes a
/// snapshot of the database, and leaves commands that came together with the SCAN unanswered until more bytes come.
pub const SCAN_COUNT: u32 = 99;

/// A usual size of a command with a key, to begin with.
const COMMAND_SIZE: usize = 64;

/// What a reader connects to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub endpoint: Endpoint,
    /// How long the server may send nothing, or hardly anything, while it is asked, see [`TIMEOUT`].
    pub timeout: Duration,
    /// Bytes of memory that all that was read and is not handed over may take, beside what is below 1 KiB each. Buffers that
    /// grow for it are at most as large once more.
    pub memory: u64,
}

/// One key to read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// The key.
    pub key: Bytes,
    /// Most bytes of the value; a larger one is not given.
    pub max_value: u64,
    /// Read only these fields, at least one, if it is a hash; None reads all.
    pub fields: Option<Arc<[Bytes]>>,
    /// The type it had last: a right guess saves a round trip.
    pub likely: Option<Kind>,
    /// It is probably gone: if it is, that costs the server and us one command; if not, a round trip more.
    pub probably_gone: bool,
    /// Whether its slot is being moved here, see [`ReadErrorKind::Ask`].
    pub asking: bool,
}

/// What a read gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The value. Of a hash read by fields only those that exist; none of them, and it is an empty hash.
    pub value: Value,
    /// How long the key has yet to live; None without expiry.
    pub ttl: Option<Duration>,
}

/// How far a scan has come. Only the connection that gave it may be asked to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Bytes);

/// A part of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPage {
    /// Where to go on; None when this was the last page.
    pub next: Option<Cursor>,
    /// Keys, some perhaps given before; a page may have none.
    pub keys: Vec<Bytes>,
}

/// One connection that reads. It is not mended: when it is closed, connect a new one.
pub struct Reader {
    pipe: Pipe,
    options: Options,
    server: ServerInfo,
    /// What guards begin with. It makes them unguessable, so that no value can look like one.
    secret: String,
    /// Counts rounds, so that no two guards are equal.
    rounds: AtomicU64,
    /// Set when the connection has ended, and when replies are out of step or no longer come, as from a peer that is silently
    /// gone: it is of no use any more.
    broken: CancellationToken,
}

impl Cursor {
    /// Where a scan begins.
    pub fn start() -> Cursor {
        Cursor(Bytes::from_static(b"0"))
    }
}

impl Reader {
    /// Connects, logs in and chooses the database.
    ///
    /// # Errors
    /// Why there is no connection; trying again later may help.
    pub async fn connect(options: &Options) -> Result<Reader, ConnectError> {
        let endpoint = &options.endpoint;
        let refused = |error| ConnectError::new(&endpoint.address, error);
        let link = timeout(CONNECT_TIMEOUT, log_in(endpoint)).await;
        let link = link
            .unwrap_or(Err(ReadError::timeout(CONNECT_TIMEOUT)))
            .map_err(refused)?;
        let broken = CancellationToken::new();
        let secret = getrandom::u64().map(|secret| format!("{secret:016x}-"));
        let mut reader = Reader {
            pipe: Pipe::new(link, broken.clone(), options.memory),
            options: options.clone(),
            server: ServerInfo::default(),
            secret: secret.map_err(|error| refused(ReadError::other(error.to_string())))?,
            rounds: AtomicU64::new(0),
            broken,
        };
        reader.prepare().await.map_err(refused)?;
        Ok(reader)
    }

    /// Chooses the database and learns who answers.
    async fn prepare(&mut self) -> Result<(), ReadError> {
        let endpoint = &self.options.endpoint;
        let commands = [
            Command::other("SELECT", [endpoint.db.to_string()]),
            Command::other("CLIENT", ["SETNAME".to_owned(), endpoint.client_name.clone()]),
            Command::other("INFO", ["server"]),
        ];
        let mut replies = self.round(commands.into(), 0).await?.each.into_iter();
        let mut next = || replies.next().unwrap_or_else(|| Err(ReadError::out_of_step()));
        // Database 0 is there without asking, and not every user may ask.
        let selected = next();
        if endpoint.db != 0 {
            selected?;
        }
        // The name is for people only.
        let _ = next();
        let server = Info::from_bytes(&command::bytes(next()?)?).server();
        self.server = server.ok_or_else(|| ReadError::other("INFO server has no run_id".into()))?;
        Ok(())
    }

    /// Random name of the server's process; the feed must hear the same one.
    pub fn run_id(&self) -> &str {
        &self.server.run_id
    }

    /// Who answers.
    pub fn server(&self) -> &ServerInfo {
        &self.server
    }

    /// Waits until the connection is closed, by whatever side.
    pub async fn closed(&self) {
        self.broken.cancelled().await;
    }

    /// Gives the connection up: whoever reads learns that it is closed.
    pub fn close(&self) {
        self.broken.cancel();
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.broken.is_cancelled()
    }

    /// Reads keys, each as it is at some moment during the call; the answers are in the order of the requests.
    ///
    /// The number of elements is asked before a value is read, the bytes of a value other than a string are counted
    /// after: what is held at once for one key may exceed `max_value` by the size of its elements. What all of them take is
    /// bounded by [`Options::memory`]; a key beyond what is left of it fails with [`ReadErrorKind::NoRoom`], one beyond
    /// all of it is [`Value::TooLarge`].
    pub async fn read(&self, batch: Vec<ReadRequest>) -> Vec<Result<Reading, ReadError>> {
        let largest = batch.iter().map(|request| request.max_value).max().unwrap_or_default();
        let mut done: Vec<Option<Result<Reading, ReadError>>> = batch.iter().map(|_| None).collect();
        let mut jobs: Vec<(usize, Job)> = batch.into_iter().map(Job::new).enumerate().collect();
        let mut held = Vec::new();
        while !jobs.is_empty() {
            let mut commands = Vec::with_capacity(3 * jobs.len());
            let mut ends = Vec::with_capacity(jobs.len());
            for (_, job) in &jobs {
                commands.extend(job.commands());
                ends.push(commands.len());
            }
            match self.round(commands, largest).await {
                Ok(replies) => {
                    held.push(replies.held);
                    let mut replies = replies.each.into_iter();
                    let mut ends = ends.into_iter();
                    let mut start = 0;
                    jobs.retain_mut(|(index, job)| {
                        let end = ends.next().unwrap_or(start);
                        let own = replies.by_ref().take(end - start).collect();
                        start = end;
                        done[*index] = job.take(own);
                        done[*index].is_none()
                    });
                }
                Err(error) => {
                    for (index, _) in jobs.drain(..) {
                        done[index] = Some(Err(error.clone()));
                    }
                }
            }
        }
        done.into_iter()
            .map(|reading| reading.unwrap_or_else(|| Err(ReadError::out_of_step())))
            .collect()
    }

    /// One page of all keys, or of those that `glob` matches; the server looks at about `count` keys for it, and at
    /// no more than [`SCAN_COUNT`].
    ///
    /// # Errors
    /// Why there is no page; the cursor stays good as long as the connection does.
    pub async fn scan(&self, cursor: Cursor, glob: Option<&[u8]>, count: u32) -> Result<ScanPage, ReadError> {
        let mut words = vec![cursor.0];
        if let Some(glob) = glob {
            words.extend([Bytes::from_static(b"MATCH"), Bytes::copy_from_slice(glob)]);
        }
        words.extend([
            Bytes::from_static(b"COUNT"),
            Bytes::from(count.clamp(1, SCAN_COUNT).to_string()),
        ]);
        let (page, _held) = self.ask(Command::other("SCAN", words)).await?;
        let [next, keys] = <[_; 2]>::try_from(command::array(page)?).map_err(|_| ReadError::not_understood("SCAN"))?;
        let next = command::bytes(next)?;
        // Copied: a key is kept for long, and as a part of the reply would keep all of it.
        let keys = command::array(keys)?
            .into_iter()
            .map(|key| Ok(Bytes::copy_from_slice(&command::bytes(key)?)));
        Ok(ScanPage {
            next: (next != "0").then(|| Cursor(Bytes::copy_from_slice(&next))),
            keys: keys.collect::<Result<_, ReadError>>()?,
        })
    }

    /// A section of what the server says of itself, e.g. `persistence`.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn info(&self, section: &'static str) -> Result<Info, ReadError> {
        let (text, _held) = self.ask(Command::other("INFO", [section])).await?;
        Ok(Info::from_bytes(&command::bytes(text)?))
    }

    async fn ask(&self, command: Command) -> Result<(BytesFrame, Held), ReadError> {
        let Replies { mut each, held } = self.round(vec![command], 0).await?;
        let reply = each.pop().unwrap_or_else(|| Err(ReadError::out_of_step()))?;
        Ok((reply, held))
    }

    /// Sends commands in one go, which may be answered by values of so many bytes; the replies are in their order, or there are
    /// none at all.
    async fn round(&self, commands: Vec<Command>, largest: u64) -> Result<Replies, ReadError> {
        if self.is_closed() {
            return Err(ReadError::closed());
        }
        let number = self.rounds.fetch_add(1, Ordering::Relaxed);
        let guard = [&*self.secret, itoa::Buffer::new().format(number)].concat();
        let count = commands.len() + 1;
        let mut bytes = Vec::with_capacity(count * COMMAND_SIZE);
        for command in commands {
            command.write(&mut bytes);
        }
        // Its answer shows that the replies are in step.
        command::write(&mut bytes, &[b"PING", guard.as_bytes()]);
        let most = pipe::most_bytes(largest);
        let replies = self.pipe.ask(bytes, count, most, self.options.timeout).await;
        let replies = replies.and_then(|mut replies| match replies.each.pop() {
            Some(Ok(answer)) if is(&answer, &guard) => Ok(replies),
            // A server that cannot save its data says so to writes and to PING, and to nothing else that is sent here.
            Some(Err(error)) if error.message.starts_with("MISCONF") => Ok(replies),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Err(ReadError::out_of_step()),
        });
        if matches!(&replies, Err(error) if matches!(error.kind, ReadErrorKind::OutOfStep | ReadErrorKind::Timeout)) {
            self.broken.cancel();
        }
        replies
    }
}

/// Connects and logs in.
async fn log_in(endpoint: &Endpoint) -> Result<Link, ReadError> {
    let error = |error| match error {
        LinkError::Refused { message, .. } => ReadError::refused(message),
        error => ReadError::no_connection(error.to_string()),
    };
    let mut link = Link::connect(endpoint).await.map_err(error)?;
    let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(password) = &endpoint.password {
        let user = endpoint.username.as_deref().unwrap_or("default");
        hello.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
    }
    link.command(&hello).await.map_err(error)?;
    Ok(link)
}

/// Whether this is what a PING with `guard` is answered by.
fn is(answer: &BytesFrame, guard: &str) -> bool {
    matches!(answer, BytesFrame::BlobString { data, .. } if data == guard)
}
