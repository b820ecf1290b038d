//! The connection of a reader: commands go out as they are asked, replies come back in their order.
//!
//! Nothing that the server says is trusted for a length, a number or a depth: a reply that is larger than whoever asked
//! wants, or than there is [room](Room) for, is walked over and not held, and its place is taken by its size.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp3::{decode::complete, types::BytesFrame};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    time::Instant,
};

use super::{ReadError, command::Commands};
use crate::{
    alarm::Alarm,
    upstream::{
        link::{Link, LinkError, Socket},
        wire::{Walk, Walked, WireError},
    },
};

/// Room for one read, as a feed has it.
const READ_SIZE: usize = 64 * 1024;

/// With less room than this there is made more.
const LEAST_READ: usize = 4 * 1024;

/// A server that sends less than 64 KB a second is as good as one that sends nothing: what it sends may be a byte now and then.
const LEAST_BYTES_PER_MS: u64 = 64;

/// A reply of so little memory has its place in any case: what is said about a key, and the guard of a round.
const SMALL: u64 = 1024;

/// Replies of a round as they came, one for each command.
#[derive(Debug)]
pub(super) struct Replies {
    pub each: Vec<Result<BytesFrame, ReadError>>,
    /// What they take of the room, until [`Pipe::release`].
    pub memory: u64,
}

/// Memory for the replies of one connection, all that are held at once.
#[derive(Debug)]
struct Room {
    all: u64,
    held: u64,
}

/// See the module. It does nothing by itself: whoever asks must poll it.
pub(super) struct Pipe {
    socket: Box<dyn Socket>,
    /// What is to be written, of which so many bytes are.
    out: Vec<u8>,
    written: usize,
    /// Whether the socket may keep back something, as TLS does.
    flushing: bool,
    /// What was read, but for whole replies.
    unread: BytesMut,
    walk: Walk,
    /// Rounds that wait for replies, in the order in which they were asked.
    asked: VecDeque<Asked>,
    room: Room,
    /// How long the server may say nothing.
    patience: Duration,
    /// Bytes that came, and when the last of them did.
    heard: u64,
    last: Instant,
    /// Set for when the oldest round is given up.
    alarm: Alarm,
}

/// Commands that were asked together.
struct Asked {
    /// Replies that are still to come.
    open: usize,
    /// Most bytes of each.
    most: u64,
    replies: Replies,
    /// When that was, and what had come by then.
    begun: Instant,
    before: u64,
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
        self.all.saturating_sub(self.held)
    }
}

impl Pipe {
    /// Takes over a connection on which nothing is awaited. Replies take at most so much memory. Whoever asks waits for as long
    /// as `patience`, or until all in all less has come than a line that is worth it brings: what is large takes its time.
    pub fn new(link: Link, memory: u64, patience: Duration) -> Pipe {
        let (socket, unread) = link.into_parts();
        let now = Instant::now();
        Pipe {
            socket,
            out: Vec::new(),
            written: 0,
            flushing: false,
            unread,
            walk: Walk::default(),
            asked: VecDeque::new(),
            room: Room { all: memory, held: 0 },
            patience,
            heard: 0,
            last: now,
            alarm: Alarm::default(),
        }
    }

    /// Asks what `write` writes, with replies of at most so many bytes each.
    pub fn ask(&mut self, most: u64, write: impl FnOnce(&mut Commands<'_>)) {
        let mut commands = Commands::new(&mut self.out);
        write(&mut commands);
        let open = commands.count;
        self.asked.push_back(Asked {
            open,
            most,
            replies: Replies {
                each: Vec::with_capacity(open),
                memory: 0,
            },
            begun: Instant::now(),
            before: self.heard,
        });
    }

    /// Replies that took so much are not held any more.
    pub fn release(&mut self, memory: u64) {
        self.room.held = self.room.held.saturating_sub(memory);
    }

    /// Writes and reads. Ready with the replies to the oldest round that has not got them, or with why there are no more: then
    /// it must not be used again.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Replies, ReadError>> {
        match self.advance(context) {
            Ok(Some(replies)) => Poll::Ready(Ok(replies)),
            Ok(None) if self.is_overdue(context) => Poll::Ready(Err(ReadError::timeout(self.patience))),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(ReadError::no_connection(error.to_string()))),
        }
    }

    fn advance(&mut self, context: &mut Context<'_>) -> Result<Option<Replies>, LinkError> {
        self.write(context)?;
        loop {
            // What nobody waits for is an error as soon as it is whole.
            let most = self.asked.front().map_or(most_bytes(0), |asked| asked.most);
            while !self.unread.is_empty()
                && let Some((reply, memory)) = next(&mut self.walk, &mut self.unread, most, &self.room)?
            {
                if let Some(whole) = self.give(reply, memory)? {
                    return Ok(Some(whole));
                }
            }
            if self.unread.capacity() - self.unread.len() < LEAST_READ {
                self.unread.reserve(READ_SIZE);
            }
            match pin!(self.socket.read_buf(&mut self.unread)).poll(context)? {
                Poll::Pending => return Ok(None),
                Poll::Ready(0) => return Err(LinkError::Closed),
                Poll::Ready(size) => {
                    self.heard += size as u64;
                    self.last = Instant::now();
                }
            }
        }
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), LinkError> {
        while self.written < self.out.len() {
            match Pin::new(&mut self.socket).poll_write(context, &self.out[self.written..])? {
                Poll::Pending => return Ok(()),
                Poll::Ready(0) => return Err(LinkError::Closed),
                Poll::Ready(size) => self.written += size,
            }
            self.flushing = true;
        }
        self.out.clear();
        self.out.shrink_to(READ_SIZE);
        self.written = 0;
        if self.flushing {
            self.flushing = Pin::new(&mut self.socket).poll_flush(context)?.is_pending();
        }
        Ok(())
    }

    /// Gives a reply to the oldest command without one; all of its round if it was the last.
    fn give(&mut self, reply: Result<BytesFrame, ReadError>, memory: u64) -> Result<Option<Replies>, LinkError> {
        let Some(front) = self.asked.front_mut() else {
            return Err(LinkError::Unexpected("nothing".into()));
        };
        front.replies.each.push(reply);
        front.replies.memory += memory;
        self.room.held += memory;
        front.open -= 1;
        let whole = (front.open == 0).then(|| self.asked.pop_front()).flatten();
        Ok(whole.map(|asked| asked.replies))
    }

    /// Whether the oldest round has waited too long; if not, there will be a look when that may be.
    fn is_overdue(&mut self, context: &mut Context<'_>) -> bool {
        let Some(asked) = self.asked.front() else { return false };
        loop {
            let worth = Duration::from_millis((self.heard - asked.before) / LEAST_BYTES_PER_MS);
            let silent = self.last.max(asked.begun) + self.patience;
            let until = silent.min(asked.begun + self.patience + worth);
            self.alarm.set(until);
            if self.alarm.poll(context).is_pending() {
                return false;
            }
            if until <= Instant::now() {
                return true;
            }
        }
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
                let frame = decode(&bytes).ok_or(WireError::Malformed)?;
                if !matches!(frame, BytesFrame::Push { .. }) {
                    return Ok(Some((super::command::unless_error(frame), memory)));
                }
            }
        }
    }
}

/// The frame that these bytes are, which were walked over to its end.
pub(in crate::upstream) fn decode(bytes: &Bytes) -> Option<BytesFrame> {
    let frame = scalar(bytes);
    debug_assert!(frame.is_none() || frame == by_codec(bytes), "{}", bytes.escape_ascii());
    frame.or_else(|| by_codec(bytes))
}

fn by_codec(bytes: &Bytes) -> Option<BytesFrame> {
    let (frame, length) = complete::decode_bytes(bytes).ok()??;
    (length == bytes.len()).then_some(frame)
}

/// The frame of a string or a number, which is what most replies are, for a tenth of what the codec takes for it; `None` leaves
/// it to the codec.
fn scalar(frame: &Bytes) -> Option<BytesFrame> {
    let end = frame.len().checked_sub(2).filter(|end| frame[*end..] == *b"\r\n")?;
    match frame.first()? {
        b':' => {
            let data = std::str::from_utf8(&frame[1..end]).ok()?.parse().ok()?;
            Some(BytesFrame::Number { data, attributes: None })
        }
        b'$' => {
            let start = memchr::memchr(b'\n', &frame[..end])? + 1;
            let data = frame.slice(start..end);
            Some(BytesFrame::BlobString { data, attributes: None })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_numbers_are_what_the_codec_says() {
        for frame in [
            ":0\r\n",
            ":-2\r\n",
            ":9223372036854775807\r\n",
            "$0\r\n\r\n",
            "$3\r\na\r\n\r\n",
            "$11\r\n$3\r\nabc\r\n:1\r\n",
        ] {
            let frame = Bytes::from(frame);
            assert!(scalar(&frame).is_some());
            assert_eq!(scalar(&frame), by_codec(&frame));
        }
        // A string that does not end where it says, and what is neither.
        for other in [":x\r\n", ":\r\n", "$1\r\nabc", "+OK\r\n", "_\r\n", "*1\r\n:1\r\n", ""] {
            assert!(scalar(&Bytes::from(other)).is_none(), "{other:?}");
        }
    }
}
