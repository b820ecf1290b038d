//! Replies and pushes of RESP3, taken from a read buffer one by one.
//!
//! Key events come by the hundred thousand a second, each as one push of three or four strings, so those are parsed
//! here, without copying. Everything else is rare: it is measured and bounded here, and decoded by `redis-protocol`.
//! The format is that of <https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md>.

mod walk;

use memchr::memchr;
use redis_protocol::resp3::{decode::complete, types::OwnedFrame};

/// Most bytes of one frame. It bounds what a server can make us hold; a key longer than that cannot be followed.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Most elements of one frame that is not a key event; `HELLO` with its list of modules stays far below. Lists of
/// invalidated keys are not counted: they are taken key by key.
const MAX_ELEMENTS: u64 = 4096;

/// Deepest nesting of one frame; the replies to the commands sent here reach 4.
const MAX_DEPTH: usize = 8;

/// Most bytes of a line: an error text, a number, a length.
const MAX_LINE: usize = 64 * 1024;

pub(super) use walk::{Walk, Walked};

/// Takes frames off a stream, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    /// Keys of an `invalidate` push that are still to come. A script may change a million of them, which no bound of a
    /// frame would fit.
    owed: usize,
}

/// One whole frame at the start of the buffer.
#[derive(Debug, PartialEq)]
pub enum Frame<'a> {
    /// A message on a channel we subscribed to, by name or by pattern.
    Message {
        /// The pattern that was subscribed to and takes the channel; none if it was subscribed to by name.
        pattern: Option<&'a [u8]>,
        /// Where it was published.
        channel: &'a [u8],
        /// What was published.
        payload: &'a [u8],
    },
    /// This key of a tracked prefix was changed. A push of several is that many frames.
    Invalidated(&'a [u8]),
    /// All keys may have changed: the database was flushed or loaded anew.
    Flushed,
    /// Any other push, for instance the confirmation of a subscription.
    Push(OwnedFrame),
    /// The reply to a command.
    Reply(OwnedFrame),
}

/// Bytes that are no RESP3, or more of it than is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not what the protocol allows at this place.
    #[error("the server sent bytes that are not RESP3")]
    Malformed,
    /// A frame over one of the bounds of this module.
    #[error("the server sent a reply or key larger than keyrelay takes (16 MiB)")]
    TooLarge,
}

/// Why there is no frame.
enum Stop {
    /// More bytes must come first.
    Incomplete,
    Error(WireError),
}

use Stop::Incomplete;

const MALFORMED: Stop = Stop::Error(WireError::Malformed);
const TOO_LARGE: Stop = Stop::Error(WireError::TooLarge);

impl Frames {
    /// Takes the first frame of `buffer`: the frame and its length in bytes, or None while it is not all there. The next
    /// call must be given what follows it.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing after them can be understood, so the connection must be closed.
    pub fn next<'a>(&mut self, buffer: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, WireError> {
        let mut at = Reader { bytes: buffer, at: 0 };
        let found = match self.frame(&mut at) {
            Ok(frame) => Ok(Some((frame, at.at))),
            Err(Incomplete) if buffer.len() > MAX_FRAME => Err(WireError::TooLarge),
            Err(Incomplete) => Ok(None),
            Err(Stop::Error(error)) => Err(error),
        };
        debug_assert!(!matches!(found, Ok(Some((_, length))) if length > buffer.len()));
        found
    }

    fn frame<'a>(&mut self, at: &mut Reader<'a>) -> Result<Frame<'a>, Stop> {
        let owed = match self.owed {
            0 => match begin(at)? {
                Begun::Frame(frame) => return Ok(frame),
                Begun::Keys(count) => count,
            },
            owed => owed,
        };
        let key = at.bulk()?;
        self.owed = owed - 1;
        Ok(Frame::Invalidated(key))
    }
}

/// What stands at the start of a buffer.
enum Begun<'a> {
    Frame(Frame<'a>),
    /// The start of a push with so many keys, at least one.
    Keys(usize),
}

fn begin<'a>(at: &mut Reader<'a>) -> Result<Begun<'a>, Stop> {
    const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n";
    const PMESSAGE: &[u8] = b">4\r\n$8\r\npmessage\r\n";
    const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

    let bytes = at.bytes;
    if bytes.starts_with(PMESSAGE) {
        at.at = PMESSAGE.len();
        let pattern = at.bulk()?;
        return message(Some(pattern), at).map(Begun::Frame);
    }
    if bytes.starts_with(MESSAGE) {
        at.at = MESSAGE.len();
        return message(None, at).map(Begun::Frame);
    }
    if bytes.starts_with(INVALIDATE) {
        at.at = INVALIDATE.len();
        return invalidation(at);
    }
    if let Some(b'>') = bytes.first() {
        // The start of a push must not be mistaken for something else while its name is not all there.
        let fast = [PMESSAGE, MESSAGE, INVALIDATE];
        if fast.iter().any(|start| start.starts_with(bytes)) {
            return Err(Incomplete);
        }
    }
    other(at).map(Begun::Frame)
}

fn message<'a>(pattern: Option<&'a [u8]>, at: &mut Reader<'a>) -> Result<Frame<'a>, Stop> {
    let channel = at.bulk()?;
    let payload = at.bulk()?;
    Ok(Frame::Message {
        pattern,
        channel,
        payload,
    })
}

fn invalidation<'a>(at: &mut Reader<'a>) -> Result<Begun<'a>, Stop> {
    match at.line()? {
        [b'_'] => Ok(Begun::Frame(Frame::Flushed)),
        [b'*', count @ ..] => match length(count)? {
            0 => Err(MALFORMED),
            count => Ok(Begun::Keys(count)),
        },
        _ => Err(MALFORMED),
    }
}

/// Measures the frame, then has it decoded. The codec would look at an unfinished frame from its start again with
/// every read, trusts lengths with memory, and nests without bound; so it is given nothing but whole, bounded frames.
fn other<'a>(at: &mut Reader<'a>) -> Result<Frame<'a>, Stop> {
    let start = at.at;
    measure(at)?;
    let bytes = &at.bytes[start..at.at];
    match complete::decode(bytes) {
        Ok(Some((frame, length))) if length == bytes.len() => Ok(match frame {
            OwnedFrame::Push { .. } => Frame::Push(frame),
            _ => Frame::Reply(frame),
        }),
        _ => Err(MALFORMED),
    }
}

/// Moves behind one frame of any type.
fn measure(at: &mut Reader<'_>) -> Result<(), Stop> {
    let mut elements = 0;
    // How many elements are still to come, on each level.
    let mut open = [0u64; MAX_DEPTH];
    let mut depth = 0;
    open[0] = 1;
    loop {
        while open[depth] == 0 {
            if depth == 0 {
                return Ok(());
            }
            depth -= 1;
        }
        open[depth] -= 1;
        elements += 1;
        let line = at.line()?;
        let (&kind, rest) = line.split_first().ok_or(MALFORMED)?;
        let children = match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => 0,
            b'$' | b'=' | b'!' => {
                at.blob(length(rest)?)?;
                0
            }
            b'*' | b'~' | b'>' => length(rest)? as u64,
            b'%' => 2 * length(rest)? as u64,
            // Attributes precede a reply only where a client asked for them; streamed types no server sends.
            _ => return Err(MALFORMED),
        };
        if elements + children > MAX_ELEMENTS {
            return Err(TOO_LARGE);
        }
        if children > 0 {
            depth += 1;
            *open.get_mut(depth).ok_or(TOO_LARGE)? = children;
        }
    }
}

/// A length in decimal digits, at most [`MAX_FRAME`].
fn length(digits: &[u8]) -> Result<usize, Stop> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    // Nine digits cannot overflow, and say more than is allowed.
    if digits.len() > 9 {
        return Err(TOO_LARGE);
    }
    let length = digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    if length > MAX_FRAME { Err(TOO_LARGE) } else { Ok(length) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Up to the next CR LF, without them.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let Some(end) = memchr(b'\r', rest) else {
            return Err(if rest.len() > MAX_LINE { TOO_LARGE } else { Incomplete });
        };
        match rest.get(end + 1) {
            None => Err(Incomplete),
            Some(b'\n') => {
                self.at += end + 2;
                Ok(&rest[..end])
            }
            Some(_) => Err(MALFORMED),
        }
    }

    /// `$<length>CRLF<bytes>CRLF`.
    fn bulk(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        match rest {
            // Nearly all lengths of events have one or two digits.
            [b'$', a @ b'0'..=b'9', b'\r', b'\n', ..] => {
                self.at += 4;
                self.blob(usize::from(a - b'0'))
            }
            [b'$', a @ b'0'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
                self.at += 5;
                self.blob(usize::from(a - b'0') * 10 + usize::from(b - b'0'))
            }
            _ => match self.line()? {
                [b'$', digits @ ..] => self.blob(length(digits)?),
                _ => Err(MALFORMED),
            },
        }
    }

    /// So many bytes and CR LF.
    fn blob(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.get(length..length + 2) else {
            return Err(Incomplete);
        };
        if end != b"\r\n" {
            return Err(MALFORMED);
        }
        self.at += length + 2;
        Ok(&rest[..length])
    }
}

#[cfg(test)]
mod tests;
