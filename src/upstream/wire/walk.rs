//! Moves over a frame as it comes, whatever its size, without holding it.

use memchr::memchr;

use super::{MAX_DEPTH, MAX_LINE, WireError};
use crate::keyspace;

const ELEMENT: u64 = keyspace::ELEMENT as u64;
const HASHED: u64 = keyspace::HASHED as u64;

/// Where in a frame the bytes read so far end.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Walk {
    /// How many elements are still to come, on each level.
    open: [u64; MAX_DEPTH],
    depth: usize,
    /// Bytes of a string, and of the line end behind it, still to come.
    blob: u64,
    /// Bytes of the frame so far.
    length: u64,
    /// What its elements take beside their bytes, those that it has promised included.
    elements: u64,
    /// Bytes of the buffer that were walked over.
    at: usize,
    begun: bool,
    large: bool,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Walked {
    /// More bytes must come.
    Part,
    /// To the end of a frame of this length, of which so many bytes are in the buffer: all of them, unless it was larger
    /// than there is room for. Decoded it takes so much memory.
    Whole {
        large: bool,
        length: u64,
        memory: u64,
        here: usize,
    },
}

impl Walk {
    /// Goes on over `buffer`, which begins with the frame, or with what was not [forgotten](Walk::forget) of it. A frame of more
    /// bytes, or that takes more memory, is known by its first too many, or by what it says of them.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing after them can be understood.
    pub fn over(&mut self, buffer: &[u8], most_bytes: u64, most_memory: u64) -> Result<Walked, WireError> {
        if !self.begun {
            (self.begun, self.open[0], self.elements) = (true, 1, ELEMENT);
        }
        loop {
            let rest = &buffer[self.at..];
            if self.blob > 0 {
                let skipped = rest.len().min(usize::try_from(self.blob).unwrap_or(usize::MAX));
                self.pass(skipped);
                self.blob -= skipped as u64;
                if self.blob > 0 {
                    return Ok(Walked::Part);
                }
                continue;
            }
            while self.open[self.depth] == 0 {
                if self.depth == 0 {
                    let Walk {
                        large,
                        length,
                        elements,
                        at: here,
                        ..
                    } = std::mem::take(self);
                    return Ok(Walked::Whole {
                        large,
                        length,
                        memory: length.saturating_add(elements),
                        here,
                    });
                }
                self.depth -= 1;
            }
            let Some(end) = memchr(b'\r', rest) else {
                return match rest.len() > MAX_LINE {
                    true => Err(WireError::TooLarge),
                    false => Ok(Walked::Part),
                };
            };
            match rest.get(end + 1) {
                None => return Ok(Walked::Part),
                Some(b'\n') => {}
                Some(_) => return Err(WireError::Malformed),
            }
            let (&kind, digits) = rest[..end].split_first().ok_or(WireError::Malformed)?;
            self.pass(end + 2);
            self.open[self.depth] -= 1;
            let children = match kind {
                b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => 0,
                b'$' | b'=' | b'!' => {
                    self.blob = number(digits)? + 2;
                    0
                }
                b'*' | b'~' | b'>' => number(digits)?,
                b'%' => 2 * number(digits)?,
                // Attributes precede a reply only where a client asked for them; streamed types no server sends.
                _ => return Err(WireError::Malformed),
            };
            let each = if matches!(kind, b'~' | b'%') { HASHED } else { ELEMENT };
            self.elements = self.elements.saturating_add(children.saturating_mul(each));
            if children > 0 {
                self.depth += 1;
                *self.open.get_mut(self.depth).ok_or(WireError::TooLarge)? = children;
            }
            let length = self.length.saturating_add(self.blob);
            self.large |= length > most_bytes || length.saturating_add(self.elements) > most_memory;
        }
    }

    /// How many bytes at the start of the buffer are not needed any more, of a frame that there is no room for: they must be
    /// taken away now.
    pub fn forget(&mut self) -> usize {
        match self.large {
            true => std::mem::take(&mut self.at),
            false => 0,
        }
    }

    fn pass(&mut self, bytes: usize) {
        self.at += bytes;
        self.length = self.length.saturating_add(bytes as u64);
    }
}

/// A length or a number of elements in decimal digits.
fn number(digits: &[u8]) -> Result<u64, WireError> {
    // So many digits cannot overflow, not even when they are doubled.
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(WireError::Malformed);
    }
    Ok(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::keyspace::{StreamEntry, Value};

    const FRAMES: &[u8] = b"*3\r\n$5\r\nhel\r\n\r\n:1\r\n%1\r\n+a\r\n~2\r\n_\r\n#t\r\n$0\r\n\r\n-ERR no\r\n";

    /// The lengths of all frames, and whether each was large, of bytes that come in parts.
    fn walked(bytes: &[u8], step: usize, room: u64) -> Vec<(bool, u64)> {
        let (mut walk, mut buffer, mut found) = (Walk::default(), Vec::new(), Vec::new());
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            loop {
                match walk.over(&buffer, room, 1 << 20).unwrap() {
                    Walked::Part => {
                        buffer.drain(..walk.forget());
                        break;
                    }
                    Walked::Whole {
                        large, length, here, ..
                    } => {
                        assert!(large || here as u64 == length);
                        buffer.drain(..here);
                        found.push((large, length));
                    }
                }
            }
        }
        assert!(buffer.is_empty());
        found
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        for step in 1..FRAMES.len() {
            assert_eq!(
                walked(FRAMES, step, 100),
                [(false, 38), (false, 6), (false, 9)],
                "by {step}"
            );
            assert_eq!(
                walked(FRAMES, step, 20),
                [(true, 38), (false, 6), (false, 9)],
                "by {step}"
            );
            assert_eq!(walked(FRAMES, step, 0), [(true, 38), (true, 6), (true, 9)], "by {step}");
        }
    }

    #[test]
    fn what_has_no_room_is_not_held() {
        let mut walk = Walk::default();
        let mut buffer = b"$900000000\r\n".to_vec();
        for _ in 0..10_000 {
            assert_eq!(walk.over(&buffer, 1000, 1 << 20), Ok(Walked::Part));
            buffer.drain(..walk.forget());
            assert!(buffer.is_empty());
            buffer.extend_from_slice(&[b'x'; 4096]);
        }
    }

    #[test]
    fn elements_take_memory() {
        let frame = b"*2\r\n:1\r\n+a\r\n";
        let walked = |most| Walk::default().over(frame, 1000, most).unwrap();
        assert!(matches!(
            Walk::default().over(b"~1\r\n+a\r\n", 1000, 1000),
            Ok(Walked::Whole { memory, .. }) if memory == 8 + ELEMENT + HASHED
        ));
        let memory = 12 + 3 * ELEMENT;
        let whole = |large| Walked::Whole {
            large,
            length: 12,
            memory,
            here: 12,
        };
        assert_eq!(walked(memory), whole(false));
        assert_eq!(walked(memory - 1), whole(true));
        // Those that were promised count at once.
        let mut walk = Walk::default();
        assert_eq!(walk.over(b"*1000000\r\n", 1000, 1 << 20), Ok(Walked::Part));
        assert_eq!(walk.forget(), 10);
    }

    /// What is expected of a key by what it held is what its reply takes, but for the reply itself.
    #[test]
    fn a_value_takes_what_its_reply_took() {
        let b = Bytes::from_static;
        let pair = || (b(b"a"), b(b"1"));
        let entry = StreamEntry {
            id: b(b"1-0"),
            fields: vec![pair()],
        };
        for (reply, value) in [
            (&b"$1\r\na\r\n"[..], Value::String(b(b"a"))),
            (b"%1\r\n$1\r\na\r\n$1\r\n1\r\n", Value::Hash(vec![pair()])),
            (b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", Value::List(vec![b(b"a"), b(b"b")])),
            (b"~1\r\n$1\r\na\r\n", Value::Set(vec![b(b"a")])),
            (b"*1\r\n*2\r\n$1\r\na\r\n,1\r\n", Value::SortedSet(vec![(b(b"a"), 1.0)])),
            (
                b"*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n",
                Value::Stream(vec![entry]),
            ),
        ] {
            let Ok(Walked::Whole { length, memory, .. }) = Walk::default().over(reply, 1000, 1 << 20) else {
                panic!("a whole reply: {}", reply.escape_ascii());
            };
            let beside = (value.size_in_memory() - value.size_in_bytes()) as u64;
            assert_eq!(memory - length, ELEMENT + beside, "{}", reply.escape_ascii());
        }
    }

    #[test]
    fn nothing_is_trusted() {
        for bytes in [
            "$-1\r\n",
            "$\r\n",
            "$1x\r\n",
            "$9999999999999999999\r\n",
            "?1\r\n",
            "|1\r\n",
            "\r\n",
            "+a\rb",
        ] {
            let walked = Walk::default().over(bytes.as_bytes(), 1000, 1 << 20);
            assert_eq!(walked, Err(WireError::Malformed), "{bytes:?}");
        }
        for bytes in ["*1\r\n".repeat(100_000), "+".repeat(100_000)] {
            let walked = Walk::default().over(bytes.as_bytes(), u64::MAX, u64::MAX);
            assert_eq!(walked, Err(WireError::TooLarge));
        }
    }
}
