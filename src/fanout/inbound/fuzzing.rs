//! Frames of WebSocket clients, whatever is in them.

use std::io::{self, ErrorKind, Read, Write};

use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketContext};

use super::{Boundary, Heard, config, listen};

/// As long as a message may be where the config says nothing.
const LONGEST: usize = 64 * 1024;

/// A client that sends `bytes` in parts of `step` bytes.
struct Peer<'a> {
    bytes: &'a [u8],
    step: usize,
    /// What the socket has to give before the next event.
    there: usize,
    boundary: Boundary,
    replies: Vec<u8>,
}

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.there.min(buffer.len()).min(self.bytes.len());
        if size == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let (now, later) = self.bytes.split_at(size);
        buffer[..size].copy_from_slice(now);
        self.boundary.feed(now);
        self.bytes = later;
        self.there -= size;
        Ok(size)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A byte that says in what parts the others come. Whether the state of a client is kept between messages or thrown away
/// whenever it seems to be between two, the same is heard and answered; and a message or an answer is no larger than it
/// may be.
pub fn frames(data: &[u8]) {
    let [step, bytes @ ..] = data else { return };
    let step = usize::from(*step) + 1;
    let kept = hear(bytes, step, false);
    let whole = hear(bytes, usize::MAX, false);
    assert_eq!(kept, whole, "by {step}");
    assert_eq!(hear(bytes, step, true), whole, "by {step}, and forgotten in between");
}

/// What is heard, up to the end, and what is answered.
fn hear(bytes: &[u8], step: usize, forgets: bool) -> (Vec<String>, Vec<u8>) {
    let new = || WebSocketContext::new(Role::Server, Some(config(LONGEST)));
    let mut peer = Peer {
        bytes,
        step,
        there: 0,
        boundary: Boundary::default(),
        replies: Vec::new(),
    };
    let mut context = new();
    let mut heard = Vec::new();
    while !peer.bytes.is_empty() {
        peer.there = peer.step;
        loop {
            match listen(&mut context, &mut peer) {
                Heard::Drained => break,
                Heard::Text(text) => {
                    assert!(text.len() <= LONGEST);
                    heard.push(format!("text {text:?}"));
                }
                Heard::Binary(bytes) => heard.push(format!("{} bytes", bytes.len())),
                Heard::Other => heard.push("other".to_owned()),
                Heard::Goodbye => {
                    heard.push("goodbye".to_owned());
                    return (heard, peer.replies);
                }
                Heard::End(ending) => {
                    heard.push(format!("{ending:?}"));
                    return (heard, peer.replies);
                }
            }
        }
        if forgets && peer.boundary.is_clean() {
            (context, peer.boundary) = (new(), Boundary::default());
        }
    }
    (heard, peer.replies)
}
