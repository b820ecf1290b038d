//! What a server sends, whatever it sends.

use bytes::{Buf, BytesMut};
use redis_protocol::resp3::{
    decode::complete,
    types::{FrameKind, OwnedFrame, Resp3Frame as _},
};

use super::wire::{Frame, Frames, Walk, Walked, WireError};

/// A byte that says in what parts the others come. However they are cut, the same frames are found; and what is read
/// without the codec is what the codec reads.
pub(crate) fn wire(data: &[u8]) {
    let [step, bytes @ ..] = data else { return };
    let step = usize::from(*step) + 1;
    let whole = take(bytes, usize::MAX);
    assert_eq!(take(bytes, step), whole, "by {step}");

    // What is walked over is as long as what is taken, also if it is not held.
    for room in [64, 1 << 20] {
        let whole = walk(bytes, usize::MAX, room);
        assert_eq!(walk(bytes, step, room), whole, "by {step}");
    }
}

/// Replies to what a feed asks a server all the time, to what a check asks it once, and to what sentinels are asked.
pub(crate) fn answers(data: &[u8]) {
    let replies = replies_in(data);
    super::feed::fuzzing::answers(replies.iter().cloned());
    super::probe::fuzzing::answers(replies.iter().cloned());
    super::topology::fuzzing::answers(replies.into_iter());
}

/// A byte that says what a key is thought to hold and one for how much may be read, then replies to what is asked of it.
pub(crate) fn replies(data: &[u8]) {
    let [likely, most, data @ ..] = data else { return };
    let mut unread = BytesMut::from(data);
    let mut walk = Walk::default();
    // As the connection of a reader gives them.
    let frames = std::iter::from_fn(|| match walk.over(&unread, 1 << 20, 2 << 20) {
        Ok(Walked::Whole { large: false, here, .. }) => {
            let bytes = unread.split_to(here).freeze();
            super::reader::fuzzing::decode(&bytes)
        }
        _ => None,
    });
    super::reader::fuzzing::replies(*likely, u64::from(*most), frames);
}

/// What a node of a cluster says of all of them.
pub(crate) fn cluster(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        super::topology::fuzzing::nodes(text);
    }
}

/// All frames in words, and how it ended.
fn take(bytes: &[u8], step: usize) -> (Vec<String>, Option<WireError>) {
    let mut frames = Frames::default();
    let mut taken = Vec::new();
    let (mut from, mut to) = (0, 0);
    loop {
        match frames.next(&bytes[from..to]) {
            Ok(Some((frame, length))) => {
                assert!(length > 0 && length <= to - from);
                agrees(&frame, &bytes[from..from + length]);
                taken.push(match frame {
                    // In which order the members of a set are printed says nothing.
                    Frame::Push(_) => format!("push {}", bytes[from..from + length].escape_ascii()),
                    Frame::Reply(_) => format!("reply {}", bytes[from..from + length].escape_ascii()),
                    frame => format!("{frame:?}"),
                });
                from += length;
            }
            Ok(None) if to == bytes.len() => return (taken, None),
            Ok(None) => to = to.saturating_add(step).min(bytes.len()),
            Err(error) => return (taken, Some(error)),
        }
    }
}

/// The length of each frame and whether there was room for it, and how it ended. Of what there is no room for nothing is held.
fn walk(bytes: &[u8], step: usize, room: u64) -> (Vec<(bool, u64)>, Option<WireError>) {
    let (mut walk, mut unread, mut found) = (Walk::default(), BytesMut::new(), Vec::new());
    for part in bytes.chunks(step.min(bytes.len().max(1))) {
        unread.extend_from_slice(part);
        loop {
            match walk.over(&unread, room, 2 << 20) {
                Ok(Walked::Part) => {
                    unread.advance(walk.forget());
                    break;
                }
                Ok(Walked::Whole {
                    large,
                    length,
                    memory,
                    here,
                }) => {
                    assert!(large || here as u64 == length && memory <= 2 << 20);
                    unread.advance(here);
                    found.push((large, length));
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// That a message is what the codec reads in its bytes.
fn agrees(frame: &Frame<'_>, bytes: &[u8]) {
    let Frame::Message { channel, payload, .. } = frame else {
        return;
    };
    let Ok(Some((OwnedFrame::Push { data, .. }, length))) = complete::decode(bytes) else {
        panic!("the codec reads no push in {}", bytes.escape_ascii());
    };
    assert_eq!(length, bytes.len());
    let words: Vec<&[u8]> = data.iter().filter_map(OwnedFrame::as_bytes).collect();
    assert!(data.iter().all(|word| word.kind() == FrameKind::BlobString));
    assert_eq!(words[words.len() - 2..], [*channel, *payload]);
}

/// The replies in a stream, until it cannot be read.
fn replies_in(mut bytes: &[u8]) -> Vec<OwnedFrame> {
    let mut frames = Frames::default();
    let mut replies = Vec::new();
    while let Ok(Some((frame, length))) = frames.next(bytes) {
        if let Frame::Reply(reply) = frame {
            replies.push(reply);
        }
        bytes = &bytes[length..];
    }
    replies
}
