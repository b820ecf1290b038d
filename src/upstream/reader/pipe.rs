//! The connection of a reader: commands go out as they are asked, replies come back to whoever asked, in their order.
//!
//! Nothing that the server says is trusted for a length, a number or a depth: a reply that is larger than whoever asked
//! wants is walked over and not held, and its place is taken by its size.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, BytesMut};
use redis_protocol::resp3::{decode::complete, types::BytesFrame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    select,
    sync::{mpsc, oneshot},
    task::JoinSet,
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

/// Replies as they came, one for each command.
type Replies = Vec<Result<BytesFrame, ReadError>>;

/// What a reply may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub bytes: u64,
    pub elements: u64,
}

/// See the module. It ends when it is dropped.
pub(super) struct Pipe {
    rounds: mpsc::Sender<Round>,
    _task: JoinSet<()>,
    /// Set when the connection has ended.
    ended: CancellationToken,
    why: Arc<Mutex<Option<String>>>,
}

/// Commands that are written together.
struct Round {
    bytes: Vec<u8>,
    commands: usize,
    room: Room,
    replies: oneshot::Sender<Replies>,
}

/// A round that was written.
struct Asked {
    /// Replies that are still to come.
    open: usize,
    room: Room,
    replies: Replies,
    to: oneshot::Sender<Replies>,
}

impl Room {
    /// For a value of so many bytes.
    pub fn of_value(bytes: u64) -> Room {
        // `$1`, its line end, a byte and its line end take seven bytes; and a page of a scan or an account of the server has
        // its place whatever is read.
        const LEAST_BYTES: u64 = 32 * 1024 * 1024;
        const LEAST_ELEMENTS: u64 = 256 * 1024;
        Room {
            bytes: LEAST_BYTES.max(bytes.saturating_mul(8)),
            // Each takes some hundred bytes.
            elements: LEAST_ELEMENTS.max(bytes),
        }
    }
}

impl Pipe {
    /// Takes over a connection on which nothing is awaited; `ended` is set when it is over.
    pub fn new(link: Link, ended: CancellationToken) -> Pipe {
        let (rounds, receiver) = mpsc::channel(ROUNDS);
        let why: Arc<Mutex<Option<String>>> = Arc::default();
        let mut task = JoinSet::new();
        let (guard, told) = (ended.clone().drop_guard(), why.clone());
        task.spawn(async move {
            let _guard = guard;
            let (socket, unread) = link.into_parts();
            let error = drive(socket, unread, receiver).await;
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        });
        Pipe {
            rounds,
            _task: task,
            ended,
            why,
        }
    }

    /// Sends commands and gives their replies, one for each.
    pub async fn ask(&self, bytes: Vec<u8>, commands: usize, room: Room) -> Result<Replies, ReadError> {
        let (replies, answered) = oneshot::channel();
        let round = Round {
            bytes,
            commands,
            room,
            replies,
        };
        let asked = async {
            self.rounds.send(round).await.ok()?;
            answered.await.ok()
        };
        select! {
            biased;
            replies = asked => replies.ok_or_else(|| self.closed()),
            () = self.ended.cancelled() => Err(self.closed()),
        }
    }

    fn closed(&self) -> ReadError {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        why.map_or_else(ReadError::closed, ReadError::no_connection)
    }
}

/// Writes and reads until the connection is over, and says why it is.
async fn drive(socket: Box<dyn Socket>, mut unread: BytesMut, mut rounds: mpsc::Receiver<Round>) -> LinkError {
    let (mut from, mut to) = split(socket);
    let asked: Mutex<VecDeque<Asked>> = Mutex::default();
    let writing = async {
        while let Some(round) = rounds.recv().await {
            lock(&asked).push_back(Asked {
                open: round.commands,
                room: round.room,
                replies: Vec::with_capacity(round.commands),
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
                let room = asked.front().map(|asked| asked.room);
                let Some(reply) = next(&mut walk, &mut unread, room)? else {
                    break;
                };
                give(&mut asked, reply)?;
            }
            unread.reserve(READ_SIZE);
            if from.read_buf(&mut unread).await? == 0 {
                return Err(LinkError::Closed);
            }
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

/// Takes the next reply off what was read; None if it is not all there. Pushes, which nothing here asks for, are passed over.
fn next(
    walk: &mut Walk,
    unread: &mut BytesMut,
    room: Option<Room>,
) -> Result<Option<Result<BytesFrame, ReadError>>, LinkError> {
    // What nobody waits for is an error as soon as it is whole.
    let room = room.unwrap_or(Room::of_value(0));
    loop {
        match walk.over(unread, room.bytes, room.elements)? {
            Walked::Part => {
                unread.advance(walk.forget());
                return Ok(None);
            }
            Walked::Whole {
                large: true,
                length,
                here,
            } => {
                unread.advance(here);
                return Ok(Some(Err(ReadError::too_large(length))));
            }
            Walked::Whole { here, .. } => {
                let bytes = unread.split_to(here).freeze();
                let frame = match complete::decode_bytes(&bytes) {
                    Ok(Some((frame, length))) if length == bytes.len() => frame,
                    _ => return Err(WireError::Malformed.into()),
                };
                if !matches!(frame, BytesFrame::Push { .. }) {
                    return Ok(Some(super::command::unless_error(frame)));
                }
            }
        }
    }
}

/// Gives a reply to the oldest command without one.
fn give(asked: &mut VecDeque<Asked>, reply: Result<BytesFrame, ReadError>) -> Result<(), LinkError> {
    let Some(front) = asked.front_mut() else {
        return Err(LinkError::Unexpected("nothing".into()));
    };
    front.replies.push(reply);
    front.open -= 1;
    if front.open == 0
        && let Some(whole) = asked.pop_front()
    {
        // Who does not wait any more has lost nothing.
        let _ = whole.to.send(whole.replies);
    }
    Ok(())
}

fn lock(asked: &Mutex<VecDeque<Asked>>) -> MutexGuard<'_, VecDeque<Asked>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}
