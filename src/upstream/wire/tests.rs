//! Every frame at every split, and bytes that no honest server sends.

use proptest::{collection::vec, prelude::*};
use redis_protocol::resp3::types::{FrameKind, Resp3Frame};

use super::*;

/// A frame as the tests compare it: owned.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Message(Vec<u8>, Vec<u8>),
    Invalidated(Vec<u8>),
    Flushed,
    Push(FrameKind, Vec<u8>),
    Reply(FrameKind),
}

fn seen(frame: Frame<'_>) -> Seen {
    match frame {
        Frame::Message { channel, payload, .. } => Seen::Message(channel.to_vec(), payload.to_vec()),
        Frame::Invalidated(key) => Seen::Invalidated(key.to_vec()),
        Frame::Flushed => Seen::Flushed,
        Frame::Push(OwnedFrame::Push { data, .. }) => match data.into_iter().next() {
            Some(OwnedFrame::BlobString { data, .. }) => Seen::Push(FrameKind::BlobString, data),
            other => panic!("a push without a name: {other:?}"),
        },
        Frame::Push(other) | Frame::Reply(other) => Seen::Reply(other.kind()),
    }
}

/// Feeds `bytes` in parts of the given lengths, the last part being the rest.
fn fed(bytes: &[u8], parts: impl IntoIterator<Item = usize>) -> Result<Vec<Seen>, WireError> {
    let (mut stream, mut frames) = (Frames::default(), Vec::new());
    let (mut done, mut read) = (0, 0);
    for part in parts.into_iter().chain([bytes.len()]) {
        read = (read + part).min(bytes.len());
        while let Some((frame, length)) = stream.next(&bytes[done..read])? {
            frames.push(seen(frame));
            done += length;
        }
    }
    assert_eq!(done, bytes.len(), "everything was taken");
    Ok(frames)
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    Frames::default().next(bytes)
}

fn invalidated(keys: &[&[u8]]) -> Vec<u8> {
    let start = format!(">2\r\n$10\r\ninvalidate\r\n*{}\r\n", keys.len()).into_bytes();
    [start, keys.iter().flat_map(|key| bulk(key)).collect()].concat()
}

fn written(frame: &Seen) -> Vec<u8> {
    match frame {
        Seen::Message(channel, payload) if channel.len() % 2 == 0 => {
            [b">3\r\n$7\r\nmessage\r\n", &bulk(channel)[..], &bulk(payload)].concat()
        }
        Seen::Message(channel, payload) => {
            let pattern = bulk(b"__keyspace@0__:*");
            [
                b">4\r\n$8\r\npmessage\r\n",
                &pattern[..],
                &bulk(channel),
                &bulk(payload),
            ]
            .concat()
        }
        Seen::Invalidated(key) => invalidated(&[key]),
        Seen::Flushed => b">2\r\n$10\r\ninvalidate\r\n_\r\n".to_vec(),
        Seen::Push(_, name) => [b">3\r\n", &bulk(name)[..], &bulk(b"channel"), b":1\r\n"].concat(),
        Seen::Reply(FrameKind::SimpleString) => b"+PONG\r\n".to_vec(),
        Seen::Reply(FrameKind::SimpleError) => b"-NOPERM no permission\r\n".to_vec(),
        Seen::Reply(FrameKind::Map) => b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*0\r\n".to_vec(),
        Seen::Reply(FrameKind::VerbatimString) => b"=18\r\ntxt:loading:0\r\na:b\r\n".to_vec(),
        Seen::Reply(FrameKind::Null) => b"_\r\n".to_vec(),
        Seen::Reply(other) => panic!("not written here: {other:?}"),
    }
}

fn any_frame() -> impl Strategy<Value = Seen> {
    let bytes = || vec(any::<u8>(), 0..120);
    let name = prop_oneof![
        Just("subscribe"),
        Just("psubscribe"),
        Just("message2"),
        Just("m"),
        Just("pong")
    ];
    let kind = prop_oneof![
        Just(FrameKind::SimpleString),
        Just(FrameKind::SimpleError),
        Just(FrameKind::Map),
        Just(FrameKind::VerbatimString),
        Just(FrameKind::Null)
    ];
    prop_oneof![
        4 => (bytes(), bytes()).prop_map(|(channel, payload)| Seen::Message(channel, payload)),
        1 => bytes().prop_map(Seen::Invalidated),
        1 => Just(Seen::Flushed),
        1 => name.prop_map(|name| Seen::Push(FrameKind::BlobString, name.as_bytes().to_vec())),
        1 => kind.prop_map(Seen::Reply),
    ]
}

proptest! {
    #[test]
    fn any_split_gives_the_same_frames(frames in vec(any_frame(), 0..8), parts in vec(0usize..40, 0..60)) {
        let bytes: Vec<u8> = frames.iter().flat_map(written).collect();
        prop_assert_eq!(fed(&bytes, parts), Ok(frames.clone()));
        prop_assert_eq!(fed(&bytes, std::iter::repeat_n(1, bytes.len())), Ok(frames));
    }

    #[test]
    fn a_push_of_many_keys_is_as_many_frames(
        keys in vec(vec(any::<u8>(), 0..20), 1..40),
        parts in vec(0usize..40, 0..60),
    ) {
        let push = invalidated(&keys.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let bytes = [&push[..], b"+PONG\r\n"].concat();
        let expected: Vec<Seen> = keys.into_iter().map(Seen::Invalidated).chain([Seen::Reply(FrameKind::SimpleString)]).collect();
        prop_assert_eq!(fed(&bytes, parts), Ok(expected));
    }

    #[test]
    fn random_bytes_are_an_error_or_wait(bytes in vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn bytes_that_look_like_frames_are_an_error_or_wait(
        parts in vec(prop_oneof![
            Just("\r\n"), Just(">3\r\n"), Just(">2\r\n"), Just("$7\r\nmessage\r\n"), Just("$10\r\ninvalidate\r\n"),
            Just("*"), Just("$"), Just("%"), Just("~"), Just("_"), Just("1"), Just("-1"), Just("999999999999"), Just("?"),
            Just("*1\r\n"), Just(",nan\r\n"), Just("(1\r\n"), Just("#t\r\n"), Just("|1\r\n"), Just("=4\r\ntxt:\r\n"),
        ], 0..20)
    ) {
        let bytes = parts.concat().into_bytes();
        if let Ok(Some((_, length))) = parse(&bytes) {
            prop_assert!(length > 0 && length <= bytes.len());
        }
    }
}

#[test]
fn whatever_begins_no_frame_is_malformed() {
    for bytes in [
        "hello\r\n",
        "\r\n",
        "+PO\rNG\r\n",
        ">3\r\n$7\r\nmessage\r\n+a\r\n$1\r\nb\r\n",
        ">3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\nb\r\n",
        ">3\r\n$7\r\nmessage\r\n$1\r\nabc$1\r\nb\r\n",
        ">2\r\n$10\r\ninvalidate\r\n$1\r\na\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*0\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n+a\r\n",
        "*?\r\n",
        "$?\r\n",
        "|1\r\n+a\r\n+b\r\n+c\r\n",
        ":twelve\r\n",
    ] {
        assert_eq!(parse(bytes.as_bytes()), Err(WireError::Malformed), "{bytes:?}");
    }
}

#[test]
fn what_is_promised_beyond_the_bounds_is_refused_before_it_comes() {
    for bytes in [
        ">3\r\n$7\r\nmessage\r\n$16777217\r\n",
        ">3\r\n$7\r\nmessage\r\n$99999999999999999999999\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*99999999999\r\n",
        "$1000000000\r\n",
        "*5000\r\n",
        "%3000\r\n",
    ] {
        assert_eq!(parse(bytes.as_bytes()), Err(WireError::TooLarge), "{bytes:?}");
    }
    assert_eq!(parse("*1\r\n".repeat(9).as_bytes()), Err(WireError::TooLarge));
    assert_eq!(
        parse(&[b"+".to_vec(), vec![b'a'; MAX_LINE + 1]].concat()),
        Err(WireError::TooLarge)
    );
    let unfinished = [b">3\r\n$7\r\nmessage\r\n".to_vec(), bulk(&vec![0; MAX_FRAME])].concat();
    assert_eq!(parse(&unfinished), Err(WireError::TooLarge));
}

#[test]
fn a_long_key_is_within_bounds() {
    let key = vec![b'k'; 1024 * 1024];
    let bytes = written(&Seen::Message(key.clone(), b"set".to_vec()));
    assert_eq!(
        fed(&bytes, [100, 1000, 100_000]),
        Ok(vec![Seen::Message(key, b"set".to_vec())])
    );
}
