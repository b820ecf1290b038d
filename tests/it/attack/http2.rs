//! What HTTP/2 alone lets a client do: ask and take it back, begin and never end, talk of the connection itself.

use std::io::{ErrorKind, Read, Write};

use super::Scene;
use crate::harness::frames::{
    self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, frame, preface,
};
use crate::harness::{Stream, Way, eventually, over};

/// What the relay may hold for one connection, however much it is sent.
const ALLOWED: u64 = 16 << 20;

fn scene() -> Scene {
    over(Way::Http2);
    Scene::new("write_timeout = \"2s\"", "")
}

/// A connection on which HTTP/2 has begun.
fn begun(scene: &Scene) -> Stream {
    let mut stream = frames::connect(&scene.relay);
    stream.write_all(&preface()).expect("the relay takes a connection");
    stream.set_nonblocking(true).expect("a socket can be made nonblocking");
    stream
}

/// Whether the relay has closed the connection; what it says is read and dropped.
fn is_closed(stream: &mut Stream) -> bool {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Sends what comes next, as fast as it is taken, until the relay has enough.
#[track_caller]
fn is_cut_off(scene: &mut Scene, mut next: impl FnMut() -> Vec<u8>) {
    let mut stream = begun(scene);
    let (mut rounds, mut rest) = (0, Vec::new());
    eventually("the relay closes the connection", || {
        if rest.is_empty() {
            rest = next();
        }
        let taken = stream.write(&rest).unwrap_or(0);
        rest.drain(..taken);
        rounds += 1;
        if rounds % 50 == 0 {
            scene.undisturbed();
        }
        assert!(scene.grown() < ALLOWED, "grew by {} bytes", scene.grown());
        is_closed(&mut stream).then_some(())
    });
    drop(stream);
    scene.over();
}

/// Requests that are taken back before they are answered cost their work, and no place by which they were counted.
#[test]
fn requests_that_are_taken_back_at_once() {
    for target in ["/channels/by:stander", "/events?channel=by:stander"] {
        let fields = frames::get(target);
        let mut number = 1;
        is_cut_off(&mut scene(), || {
            let both = |number| {
                let asked = frame(HEADERS, END_STREAM | END_HEADERS, number, &fields);
                [asked, frame(RST_STREAM, 0, number, &8_u32.to_be_bytes())].concat()
            };
            let frames = (0..100).flat_map(|n| both(number + 2 * n)).collect();
            number += 200;
            frames
        });
    }
}

/// A head that goes on and on, with a field in each piece or with nothing.
#[test]
fn heads_that_never_end() {
    for piece in [&[0, 1, b'a', 1, b'b'][..], &[]] {
        let mut first = Some(frame(HEADERS, 0, 1, &frames::get("/channels/by:stander")));
        is_cut_off(&mut scene(), || {
            first.take().unwrap_or_else(|| frame(CONTINUATION, 0, 1, piece))
        });
    }
}

/// Frames that are to be answered, whose answers nobody reads.
#[test]
fn questions_whose_answers_nobody_reads() {
    let mut scene = scene();
    const ACK: u8 = 1;
    for (kind, about) in [(PING, &b"12345678"[..]), (SETTINGS, b"")] {
        let (question, answer) = (frame(kind, 0, 0, about), frame(kind, ACK, 0, about));
        let many = question.repeat(1_000);
        let mut stream = begun(&scene);
        let mut from = 0;
        for round in 0..1_000 {
            // Whether it is taken is the relay's business.
            from = (from + stream.write(&many[from..]).unwrap_or(0)) % many.len();
            if round % 250 == 0 {
                scene.undisturbed();
            }
            assert!(scene.grown() < ALLOWED, "grew by {} bytes", scene.grown());
        }
        // It did answer: more than once, and whatever it made of those that followed.
        let mut said = Vec::new();
        eventually("an answer is there", || {
            let mut buffer = [0; 4096];
            let size = stream.read(&mut buffer).unwrap_or(0);
            said.extend_from_slice(&buffer[..size]);
            said.windows(2 * answer.len())
                .any(|both| both == answer.repeat(2))
                .then_some(())
        });
        drop(stream);
    }
    scene.over();
}
