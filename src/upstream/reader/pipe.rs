//! The connection of a reader: commands go out as they are asked, replies come back to whoever asked, in their order.
//!
//! Nothing that the server says is trusted for a length, a number or a depth: a reply that is larger than whoever asked
//! wants, or than there is [room](Room) for, is walked over and not held, and its place is taken by its size.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BytesMut};
use redis_protocol::resp3::{decode::complete, types::BytesFrame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    pin, select,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::ReadError;
use crate::upstream::{
    link::{Link, LinkError, Socket},
    wire::{Walk, Walked, WireError},
};

/// Rounds that wait to be written. Each is a batch of reads or a page of a scan, of which there are a few at a time.
const ROUNDS: usize = 64;

/// Room for one read, as a feed has it.
const READ_SIZE: usize = 64 * 1024;

/// A server that sends less than 64 KB a second is as good as one that sends nothing: what it sends may be a byte now and then.
const LEAST_BYTES_PER_MS: u64 = 64;

/// A reply of so little memory has its place in any case: what is said about a key, and the guard of a round.
const SMALL: u64 = 1024;

/// Replies as they came, one for each command, which take their room for as long as what was made of them is held.
#[derive(Debug)]
pub(super) struct Replies {
    pub each: Vec<Result<BytesFrame, ReadError>>,
    pub held: Held,
}

/// Memory for the replies of one connection, all that are held at once.
#[derive(Debug)]
struct Room {
    all: u64,
    held: AtomicU64,
}

/// A part of the room that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    memory: u64,
}

/// See the module. It ends when it is dropped.
pub(super) struct Pipe {
    rounds: mpsc::Sender<Round>,
    _task: JoinSet<()>,
    state: Arc<State>,
}

/// What both sides of a pipe see.
struct State {
    /// Set when the connection has ended.
    ended: CancellationToken,
    why: Mutex<Option<String>>,
    room: Arc<Room>,
    heard: Mutex<Heard>,
}

/// What came from the server.
#[derive(Clone, Copy)]
struct Heard {
    bytes: u64,
    /// When it last sent something.
    last: Instant,
}

/// Commands that are written together.
struct Round {
    bytes: Vec<u8>,
    commands: usize,
    most: u64,
    replies: oneshot::Sender<Replies>,
}

/// A round that was written.
struct Asked {
    /// Replies that are still to come.
    open: usize,
    most: u64,
    replies: Replies,
    to: oneshot::Sender<Replies>,
}

/// Most bytes of a reply that gives a value of so many.
pub(super) fn most_bytes(value: u64) -> u64 {
    // `$1`, its line end, a byte and its line end take seven bytes; and a page of a scan or an account of the server has its
    // place whatever is read.
    const LEAST: u64 = 32 * 1024 * 1024;
    LEAST.max(value.saturating_mul(8))
}

impl Room {
    fn left(&self) -> u64 {
        self.all.saturating_sub(self.held.load(Ordering::Relaxed))
    }
}

impl Held {
    /// Takes more.
    fn add(&mut self, memory: u64) {
        self.memory += memory;
        self.room.held.fetch_add(memory, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.memory, Ordering::Relaxed);
    }
}

impl Pipe {
    /// Takes over a connection on which nothing is awaited; `ended` is set when it is over. Replies take at most so much memory.
    pub fn new(link: Link, ended: CancellationToken, memory: u64) -> Pipe {
        let (rounds, receiver) = mpsc::channel(ROUNDS);
        let state = Arc::new(State {
            ended,
            why: Mutex::default(),
            room: Arc::new(Room {
                all: memory,
                held: AtomicU64::new(0),
            }),
            heard: Mutex::new(Heard {
                bytes: 0,
                last: Instant::now(),
            }),
        });
        let mut task = JoinSet::new();
        let shared = state.clone();
        task.spawn(async move {
            let _guard = shared.ended.clone().drop_guard();
            let (socket, unread) = link.into_parts();
            select! {
                biased;
                // Whoever waits for a reply learns that none comes.
                () = shared.ended.cancelled() => {}
                error = drive(socket, unread, receiver, &shared) => *lock(&shared.why) = Some(error.to_string()),
            }
        });
        Pipe {
            rounds,
            _task: task,
            state,
        }
    }

    /// Sends commands and gives their replies, one for each, of at most so many bytes. Gives up when nothing has come for as long
    /// as `patience`, or all in all less than a line that is worth it brings: what is large takes its time.
    pub async fn ask(
        &self,
        bytes: Vec<u8>,
        commands: usize,
        most: u64,
        patience: Duration,
    ) -> Result<Replies, ReadError> {
        let (replies, answered) = oneshot::channel();
        let round = Round {
            bytes,
            commands,
            most,
            replies,
        };
        let asked = async {
            self.rounds.send(round).await.ok()?;
            answered.await.ok()
        };
        pin!(asked);
        let begun = Instant::now();
        let before = lock(&self.state.heard).bytes;
        let mut until = begun + patience;
        loop {
            if let Ok(replies) = timeout_at(until, &mut asked).await {
                return replies.ok_or_else(|| self.closed());
            }
            let Heard { bytes, last } = *lock(&self.state.heard);
            let worth = Duration::from_millis((bytes - before) / LEAST_BYTES_PER_MS);
            let later = (last + patience).min(begun + patience + worth);
            if later <= until {
                return Err(ReadError::timeout(patience));
            }
            until = later;
        }
    }

    fn closed(&self) -> ReadError {
        let why = lock(&self.state.why).clone();
        why.map_or_else(ReadError::closed, ReadError::no_connection)
    }
}

/// Writes and reads until the connection is over, and says why it is.
async fn drive(
    socket: Box<dyn Socket>,
    mut unread: BytesMut,
    mut rounds: mpsc::Receiver<Round>,
    state: &State,
) -> LinkError {
    let room = &state.room;
    let (mut from, mut to) = split(socket);
    let asked: Mutex<VecDeque<Asked>> = Mutex::default();
    let writing = async {
        while let Some(round) = rounds.recv().await {
            lock(&asked).push_back(Asked {
                open: round.commands,
                most: round.most,
                replies: Replies {
                    each: Vec::with_capacity(round.commands),
                    held: Held {
                        room: room.clone(),
                        memory: 0,
                    },
                },
                to: round.replies,
            });
            to.write_all(&round.bytes).await?;
            // TLS keeps back what the socket did not take.
            to.flush().await?;
        }
        // Nobody can ask any more.
        Err::<(), LinkError>(LinkError::Closed)
    };
    let reading = async {
        let mut walk = Walk::default();
        loop {
            loop {
                let mut asked = lock(&asked);
                // What nobody waits for is an error as soon as it is whole.
                let most = asked.front().map_or(most_bytes(0), |asked| asked.most);
                let Some((reply, memory)) = next(&mut walk, &mut unread, most, room)? else {
                    break;
                };
                give(&mut asked, reply, memory)?;
            }
            unread.reserve(READ_SIZE);
            let size = from.read_buf(&mut unread).await?;
            if size == 0 {
                return Err(LinkError::Closed);
            }
            let mut heard = lock(&state.heard);
            heard.bytes += size as u64;
            heard.last = Instant::now();
        }
    };
    let ended = select! {
        ended = writing => ended,
        ended = reading => ended,
    };
    match ended {
        Ok(()) => LinkError::Closed,
        Err(error) => error,
    }
}

/// A reply and the memory that it takes.
type Measured = (Result<BytesFrame, ReadError>, u64);

/// Takes the next reply off what was read; None if it is not all there. Pushes, which nothing here asks for, are passed over.
fn next(walk: &mut Walk, unread: &mut BytesMut, most: u64, room: &Room) -> Result<Option<Measured>, LinkError> {
    loop {
        match walk.over(unread, most, room.left().max(SMALL))? {
            Walked::Part => {
                unread.advance(walk.forget());
                return Ok(None);
            }
            Walked::Whole {
                large: true,
                length,
                memory,
                here,
            } => {
                unread.advance(here);
                let error = match length <= most && memory <= room.all {
                    // Others have taken it.
                    true => ReadError::no_room(memory),
                    false => ReadError::too_large(length),
                };
                return Ok(Some((Err(error), 0)));
            }
            Walked::Whole { memory, here, .. } => {
                let bytes = unread.split_to(here).freeze();
                let frame = match complete::decode_bytes(&bytes) {
                    Ok(Some((frame, length))) if length == bytes.len() => frame,
                    _ => return Err(WireError::Malformed.into()),
                };
                if !matches!(frame, BytesFrame::Push { .. }) {
                    return Ok(Some((super::command::unless_error(frame), memory)));
                }
            }
        }
    }
}

/// Gives a reply to the oldest command without one.
fn give(asked: &mut VecDeque<Asked>, reply: Result<BytesFrame, ReadError>, memory: u64) -> Result<(), LinkError> {
    let Some(front) = asked.front_mut() else {
        return Err(LinkError::Unexpected("nothing".into()));
    };
    front.replies.each.push(reply);
    front.replies.held.add(memory);
    front.open -= 1;
    if front.open == 0
        && let Some(whole) = asked.pop_front()
    {
        // Who does not wait any more has lost nothing.
        let _ = whole.to.send(whole.replies);
    }
    Ok(())
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
