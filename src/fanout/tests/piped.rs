//! Clients whose bytes a task carries on.

use std::task::{Context, Poll, Waker};

use super::*;

/// What there is to be carried on now; none if the client was given up.
fn take(far: &mut Far) -> Option<Bytes> {
    match far.poll_take(&Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(bytes)) => Some(bytes),
        Poll::Ready(Err(_)) => None,
        Poll::Pending => Some(Bytes::new()),
    }
}

/// Carries all there is to a peer that reads everything.
fn carry(rig: &mut Rig, far: &mut Far, peer: &mut Peer) {
    loop {
        rig.settle();
        let bytes = take(far).expect("it is not given up");
        if bytes.is_empty() {
            return;
        }
        peer.got.extend_from_slice(&bytes);
    }
}

/// A peer that is carried to.
fn peer(rig: &Rig) -> Peer {
    Peer {
        stream: TcpStream::connect(rig.listener.local_addr().unwrap()).unwrap(),
        got: Vec::new(),
        ended: false,
    }
}

#[test]
fn who_is_not_carried_to_falls_behind_and_gets_the_newest_value() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let mut peer = peer(&rig);
    let (mut far, token) = rig.join_piped(SSE, &["a"]);
    carry(&mut rig, &mut far, &mut peer);
    assert!(peer.sees("keyrelay.ready"));
    for round in 0..200 {
        rig.put(&channel, "k", format!("value {round}. {}", "x".repeat(1000)));
        rig.settle();
    }
    assert!(rig.conn(token).unwrap().blocked);
    carry(&mut rig, &mut far, &mut peer);
    assert!(peer.sees("value 199.") && !peer.sees("value 100."));
    // No frame was torn.
    peer.body();
    assert!(rig.conn(token).unwrap().session.is_live());
    assert_eq!(rig.core.books.stats.pinned.load(Ordering::Relaxed), 0);
}

#[test]
fn who_is_not_carried_to_for_too_long_is_given_up() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut far, token) = rig.join_piped(SSE, &["a"]);
    rig.choke(token, &channel);
    rig.pass(Duration::from_secs(29));
    assert!(rig.conn(token).is_some());
    rig.pass(Duration::from_secs(2));
    assert!(rig.conn(token).is_none());
    assert_eq!(take(&mut far), None, "what it did not take is not carried on either");
    let stats = &rig.core.books.stats;
    assert_eq!((stats.slow.load(Ordering::Relaxed), stats.sessions()), (1, 0));
}

#[test]
fn a_drain_is_carried_to_its_end() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    let mut peer = peer(&rig);
    let (mut far, token) = rig.join_piped(SSE, &["a"]);
    rig.core.handle.drain();
    carry(&mut rig, &mut far, &mut peer);
    assert!(peer.body().contains("event: keyrelay.end"));
    assert!(rig.conn(token).is_none() && rig.core.is_over(rig.now));
}

#[test]
fn what_the_client_says_is_heard_and_that_it_left() {
    let mut rig = Rig::new();
    let _channels = [rig.channel("a"), rig.channel("b")];
    let mut peer = peer(&rig);
    let (mut far, token) = rig.join_piped(WS, &["a"]);
    carry(&mut rig, &mut far, &mut peer);
    let text = br#"{"type":"subscribe","channels":["b"]}"#;
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text);
    // Cut anywhere, each part with news of its own.
    for part in frame.chunks(7) {
        far.put(part);
        rig.settle();
    }
    carry(&mut rig, &mut far, &mut peer);
    assert_eq!(rig.conn(token).unwrap().session.logs().count(), 2);
    // The last words and the end at once.
    let goodbye = [0x88, 0x80, 0, 0, 0, 0];
    far.put(&goodbye);
    far.end();
    carry(&mut rig, &mut far, &mut peer);
    assert!(peer.got.ends_with(&[0x88, 0]), "the goodbye is answered");
    assert!(rig.conn(token).is_none());

    let (far, token) = rig.join_piped(SSE, &["a"]);
    rig.settle();
    assert!(rig.conn(token).is_some());
    drop(far);
    rig.settle();
    assert!(rig.conn(token).is_none());
}
