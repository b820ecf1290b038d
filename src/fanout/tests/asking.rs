//! What clients ask while they are connected, and how long they may read.

use std::task::{Context, Waker};

use futures_util::StreamExt;

use super::*;

const SUBSCRIBE: &[u8] = br#"{"type":"subscribe","channels":["a"],"ref":1}"#;

fn expiring(seconds: u64, announced: bool) -> Until {
    Until {
        expires: Some(SystemTime::now() + Duration::from_secs(seconds)),
        renewable: false,
        announced,
    }
}

/// What the shard's loop does when a gate answers.
fn answer(rig: &mut Rig) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if let std::task::Poll::Ready(Some(answer)) = rig.core.asking.poll_next_unpin(&mut context) {
            rig.core.answered(answer);
            return;
        }
    }
    panic!("no gate answers");
}

#[test]
fn a_stream_ends_when_its_grant_does() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    let (mut sse, _) = rig.join_until(SSE, &["a"], expiring(20, false));
    let (mut ws, _) = rig.join_until(WS, &["a"], expiring(20, false));
    let (mut endless, token) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut sse, "ready");
    rig.pass(Duration::from_secs(19));
    sse.read();
    assert!(!sse.sees("keyrelay.end") && !sse.sees("expiring"));
    rig.pass(Duration::from_secs(2));
    rig.until(&mut sse, |peer| peer.ended);
    assert!(sse.sees(r#"{"reason":"expired","message":"#) && sse.sees(r#""reconnect":false"#));
    rig.until_sees(&mut ws, r#""reason":"expired""#);
    rig.until(&mut ws, |peer| {
        peer.got.windows(2).any(|bytes| bytes == 4401_u16.to_be_bytes())
    });
    endless.read();
    assert!(!endless.ended && rig.conn(token).is_some());
}

/// It is told half a minute before, once, and only if it asked for that.
#[test]
fn an_expiring_grant_announces_itself_on_request() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    let (mut told, _) = rig.join_until(SSE, &["a"], expiring(100, true));
    let (mut silent, _) = rig.join_until(SSE, &["a"], expiring(100, false));
    for _ in 0..69 {
        rig.pass(Duration::from_secs(1));
    }
    told.read();
    assert!(!told.sees("keyrelay.expiring"));
    for _ in 0..29 {
        rig.pass(Duration::from_secs(1));
    }
    rig.until_sees(&mut told, "event: keyrelay.expiring\ndata: {\"expires_at\":1");
    assert_eq!(memchr::memmem::find_iter(&told.got, "expiring").count(), 1);
    silent.read();
    assert!(!silent.sees("expiring") && !silent.ended);
}

/// A grant that lasts less than half a minute is told at once.
#[test]
fn a_short_grant_announces_itself_at_once() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    let (mut told, _) = rig.join_until(WS, &["a"], expiring(10, true));
    rig.pass(Duration::from_secs(1));
    rig.until_sees(&mut told, r#"{"type":"expiring","expires_at":1"#);
}

#[test]
fn a_token_is_renewed_in_place() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    let (mut ws, token) = rig.join_until(WS, &["a"], expiring(10, false));
    rig.until_sees(&mut ws, "ready");
    ws.send_frame(1, br#"{"type":"renew","token":"wrong","ref":1}"#);
    rig.until_sees(
        &mut ws,
        r#"{"type":"error","reason":"expired","message":"too old","ref":1}"#,
    );
    ws.send_frame(1, br#"{"type":"renew","token":"long","ref":"x"}"#);
    rig.until_sees(&mut ws, r#"{"type":"renewed","expires_at":1"#);
    assert!(ws.sees(r#","ref":"x"}"#));
    rig.pass(Duration::from_secs(60));
    assert!(rig.conn(token).is_some());
    // It can be made shorter as well.
    ws.send_frame(1, br#"{"type":"renew","token":"short"}"#);
    rig.until(&mut ws, |peer| {
        memchr::memmem::find_iter(&peer.got, "renewed").count() == 2
    });
    rig.pass(Duration::from_secs(2));
    rig.until_sees(&mut ws, r#""reason":"expired""#);
}

/// A machine that was suspended wakes up to an hour of which its own clock knows nothing.
#[test]
fn a_grant_ends_by_the_clock_of_the_world() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    let (mut limited, _) = rig.join_until(SSE, &["a"], expiring(3_000, false));
    let (mut endless, token) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut limited, "ready");
    rig.until_sees(&mut endless, "ready");
    rig.core.clock.1 -= Duration::from_secs(3_600);
    rig.pass(Duration::from_secs(1));
    rig.pass(Duration::from_secs(1));
    rig.until_sees(&mut limited, r#""reason":"expired""#);
    assert!(rig.conn(token).is_some());
}

/// Who wants a word before the end gets one before each.
#[test]
fn every_end_announces_itself() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    let (mut ws, _) = rig.join_until(WS, &["a"], expiring(10, true));
    let words = |peer: &Peer| memchr::memmem::find_iter(&peer.got, b"\"expiring\"").count();
    rig.pass(Duration::from_secs(1));
    rig.until(&mut ws, |peer| words(peer) == 1);
    ws.send_frame(1, br#"{"type":"renew","token":"soon"}"#);
    rig.until_sees(&mut ws, "renewed");
    rig.pass(Duration::from_secs(1));
    rig.until(&mut ws, |peer| words(peer) == 2);
}

/// A client whose gate takes its time is not heard meanwhile; others are served.
#[test]
fn an_answer_that_takes_time_keeps_the_order_of_one_client_alone() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    rig.put(&channel, "k", "one");
    rig.answers.store(false, Ordering::Relaxed);
    let (mut slow, _) = rig.join(WS, &[]);
    let (mut other, _) = rig.join(WS, &["a"]);
    slow.send_frame(1, SUBSCRIBE);
    slow.send_frame(1, br#"{"type":"ping","ref":"after"}"#);
    other.send_frame(1, br#"{"type":"ping","ref":"other"}"#);
    rig.until_sees(&mut other, r#""ref":"other""#);
    slow.read();
    assert!(!slow.sees("after") && !slow.sees("ready"));
    rig.answers.store(true, Ordering::Relaxed);
    answer(&mut rig);
    rig.until_sees(&mut slow, "after");
    let at = |text: &str| memchr::memmem::find(&slow.got, text.as_bytes()).unwrap();
    assert!(at("\"ready\"") < at("after"), "what was asked first is answered first");
}

#[test]
fn an_answer_to_one_who_has_gone_harms_nobody() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    rig.answers.store(false, Ordering::Relaxed);
    let (mut slow, token) = rig.join(WS, &[]);
    slow.send_frame(1, SUBSCRIBE);
    while rig.core.asking.is_empty() {
        rig.settle();
    }
    drop(slow);
    while rig.conn(token).is_some() {
        rig.settle();
    }
    rig.answers.store(true, Ordering::Relaxed);
    answer(&mut rig);
    assert_eq!(rig.core.clients.len(), 0);
}
