//! The reader: values of keys, in pipelined batches, and scans, over one connection.
//!
//! Each round of commands ends with a PING whose answer proves that no reply was lost or put in: a value is never taken
//! for that of another key, whatever the server says.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use tokio::time::timeout;

use self::{
    command::Commands,
    job::Job,
    pipe::{Pipe, Replies},
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

/// One connection that reads. It is not mended: when it is closed, connect a new one. It does nothing by itself: whoever asks
/// must [`poll`](Reader::poll) it.
pub struct Reader {
    pipe: Pipe,
    server: ServerInfo,
    /// What guards begin with. It makes them unguessable, so that no value can look like one.
    secret: String,
    /// Counts rounds, so that no two guards are equal.
    rounds: u64,
    /// What was asked and is not answered, in the order of the rounds that are under way.
    errands: VecDeque<Errand>,
    closed: bool,
}

/// What came of what a reader was asked.
#[derive(Debug)]
pub enum Told {
    /// A batch of this number was read; the answers are in the order of the requests.
    Read(u64, Vec<Result<Reading, ReadError>>),
    /// A page of the scan of this number, or why there is none; the cursor stays good as long as the connection does. It took
    /// so long.
    Page(u64, Result<ScanPage, ReadError>, Duration),
    /// The connection is closed. Nothing else that was asked is answered.
    Closed,
}

/// Something that was asked, and the guard of its round.
struct Errand {
    number: u64,
    guard: u64,
    task: Task,
}

enum Task {
    Read(Batch),
    Scan { begun: Instant },
}

/// Keys that are read together.
struct Batch {
    /// Those that are not read yet, each with its place in the batch, and with how many commands were asked for it.
    jobs: Vec<(usize, usize, Job)>,
    done: Vec<Option<Result<Reading, ReadError>>>,
    largest: u64,
    /// What its replies take.
    memory: u64,
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
        let secret = getrandom::u64().map(|secret| format!("{secret:016x}-"));
        let mut reader = Reader {
            pipe: Pipe::new(link, options.memory, options.timeout),
            server: ServerInfo::default(),
            secret: secret.map_err(|error| refused(ReadError::other(error.to_string())))?,
            rounds: 0,
            errands: VecDeque::new(),
            closed: false,
        };
        reader.prepare(endpoint).await.map_err(refused)?;
        Ok(reader)
    }

    /// Chooses the database and learns who answers.
    async fn prepare(&mut self, endpoint: &Endpoint) -> Result<(), ReadError> {
        let db = endpoint.db.to_string();
        let guard = self.round(0, |commands| {
            commands.other("SELECT", &[db.as_bytes()]);
            commands.other("CLIENT", &[b"SETNAME", endpoint.client_name.as_bytes()]);
            commands.other("INFO", &[b"server"]);
        });
        let mut replies = poll_fn(|context| self.pipe.poll(context)).await?;
        self.check(&mut replies, guard)?;
        self.pipe.release(replies.memory);
        let mut replies = replies.each.into_iter();
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

    /// Asks for keys, each as it is at some moment until that is [told](Told::Read) under this number.
    ///
    /// The number of elements is asked before a value is read, the bytes of a value other than a string are counted
    /// after: what is held at once for one key may exceed `max_value` by the size of its elements. What all of them take is
    /// bounded by [`Options::memory`]; a key beyond what is left of it fails with [`ReadErrorKind::NoRoom`], one beyond
    /// all of it is [`Value::TooLarge`].
    pub fn read(&mut self, number: u64, requests: Vec<ReadRequest>) {
        let batch = Batch {
            largest: requests
                .iter()
                .map(|request| request.max_value)
                .max()
                .unwrap_or_default(),
            done: requests.iter().map(|_| None).collect(),
            jobs: (0..)
                .zip(requests)
                .map(|(place, request)| (place, 0, Job::new(request)))
                .collect(),
            memory: 0,
        };
        self.ask_for(number, batch);
    }

    fn ask_for(&mut self, number: u64, mut batch: Batch) {
        let guard = self.round(batch.largest, |commands| {
            for (_, asked, job) in &mut batch.jobs {
                let before = commands.count;
                job.ask(commands);
                *asked = commands.count - before;
            }
            commands.asking(false);
        });
        let task = Task::Read(batch);
        self.errands.push_back(Errand { number, guard, task });
    }

    /// Asks for one page of all keys, or of those that `glob` matches, which is [told](Told::Page) under this number; the server
    /// looks at about `count` keys for it, and at no more than [`SCAN_COUNT`].
    pub fn scan(&mut self, number: u64, cursor: &Cursor, glob: Option<&[u8]>, count: u32) {
        let mut buffer = itoa::Buffer::new();
        let count = buffer.format(count.clamp(1, SCAN_COUNT)).as_bytes();
        let guard = self.round(0, |commands| match glob {
            Some(glob) => commands.other("SCAN", &[&cursor.0, b"MATCH", glob, b"COUNT", count]),
            None => commands.other("SCAN", &[&cursor.0, b"COUNT", count]),
        });
        let task = Task::Scan { begun: Instant::now() };
        self.errands.push_back(Errand { number, guard, task });
    }

    /// Goes on with what was asked; ready when there is something to tell.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Told> {
        while !self.closed {
            let mut replies = ready!(self.pipe.poll(context));
            let Some(Errand { number, guard, task }) = self.errands.pop_front() else {
                self.closed = true;
                break;
            };
            let checked = match &mut replies {
                Ok(replies) => self.check(replies, guard),
                Err(error) => Err(error.clone()),
            };
            if replies.is_err() || matches!(&checked, Err(error) if error.kind == ReadErrorKind::OutOfStep) {
                // Out of step, nothing that comes can be trusted.
                self.closed = true;
            }
            if let (Err(_), Ok(replies)) = (&checked, &replies) {
                self.pipe.release(replies.memory);
            }
            let replies = checked.and(replies);
            match task {
                Task::Scan { begun } => {
                    let page = replies.and_then(|mut replies| {
                        self.pipe.release(replies.memory);
                        page(replies.each.pop().unwrap_or_else(|| Err(ReadError::out_of_step()))?)
                    });
                    return Poll::Ready(Told::Page(number, page, begun.elapsed()));
                }
                Task::Read(mut batch) => {
                    batch.take(replies);
                    if batch.jobs.is_empty() {
                        self.pipe.release(batch.memory);
                        return Poll::Ready(Told::Read(number, batch.readings()));
                    }
                    self.ask_for(number, batch);
                }
            }
        }
        Poll::Ready(Told::Closed)
    }

    /// Asks what `write` writes, with replies for values of at most so many bytes, and a guard behind it, whose number it gives.
    fn round(&mut self, largest: u64, write: impl FnOnce(&mut Commands<'_>)) -> u64 {
        self.rounds += 1;
        let (secret, number) = (&self.secret, self.rounds);
        self.pipe.ask(pipe::most_bytes(largest), |commands| {
            write(commands);
            // Its answer shows that the replies are in step.
            commands.guard(secret, number);
        });
        number
    }

    /// Whether these are the replies to the round with this guard, which is taken off.
    fn check(&self, replies: &mut Replies, guard: u64) -> Result<(), ReadError> {
        match replies.each.pop() {
            Some(Ok(answer)) if is(&answer, &self.secret, guard) => Ok(()),
            // A server that cannot save its data says so to writes and to PING, and to nothing else that is sent here.
            Some(Err(error)) if error.message.starts_with("MISCONF") => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Err(ReadError::out_of_step()),
        }
    }
}

impl Batch {
    /// Takes the replies of a round: what is read leaves the jobs.
    fn take(&mut self, replies: Result<Replies, ReadError>) {
        match replies {
            Ok(replies) => {
                self.memory += replies.memory;
                let mut replies = replies.each.into_iter();
                self.jobs.retain_mut(|(place, asked, job)| {
                    let mut own = replies.by_ref().take(*asked);
                    self.done[*place] = job.take(&mut own);
                    // Not all of them may have been worth a look.
                    own.for_each(drop);
                    self.done[*place].is_none()
                });
            }
            Err(error) => {
                for (place, ..) in self.jobs.drain(..) {
                    self.done[place] = Some(Err(error.clone()));
                }
            }
        }
    }

    fn readings(self) -> Vec<Result<Reading, ReadError>> {
        let done = self.done.into_iter();
        done.map(|reading| reading.unwrap_or_else(|| Err(ReadError::out_of_step())))
            .collect()
    }
}

/// What SCAN answers.
fn page(reply: BytesFrame) -> Result<ScanPage, ReadError> {
    let [next, keys] = <[_; 2]>::try_from(command::array(reply)?).map_err(|_| ReadError::not_understood("SCAN"))?;
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

/// Whether this is what the guard of this number is answered by.
fn is(answer: &BytesFrame, secret: &str, number: u64) -> bool {
    let mut buffer = itoa::Buffer::new();
    let number = buffer.format(number).as_bytes();
    matches!(answer, BytesFrame::BlobString { data, .. } if data.strip_prefix(secret.as_bytes()) == Some(number))
}
