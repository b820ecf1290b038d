//! Heartbeats, the drain, and clients that talk out of turn.

use super::*;

#[test]
fn an_idle_stream_is_kept_alive_and_a_busy_one_is_left_alone() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let _b = rig.channel("b");
    let (mut idle, _) = rig.join(SSE, &["b"]);
    let (mut busy, _) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut idle, "keyrelay.ready");
    rig.until_sees(&mut busy, "keyrelay.ready");
    for round in 0..60 {
        rig.pass(Duration::from_secs(1));
        rig.put(&channel, "k", format!("{round}"));
        rig.settle();
    }
    rig.put(&channel, "k", "the end");
    rig.until_sees(&mut busy, "the end");
    assert!(!busy.sees("3\r\n:\n\n\r\n"));
    idle.read();
    let beats = idle.body().matches(":\n\n").count();
    assert!((3..=5).contains(&beats), "{beats} in a minute, one in 12 to 18 s");
}

#[test]
fn a_drain_finishes_the_frame_of_who_can_just_be_written_to_again() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut peer, token) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut peer, "ready");
    rig.choke(token, &channel);
    rig.core.handle.drain();
    // It has room again, but was not served since.
    while rig.conn(token).unwrap().blocked {
        peer.read();
        rig.core.poll();
    }
    assert!(rig.conn(token).unwrap().pending.is_some());
    rig.until(&mut peer, |peer| peer.ended);
    let body = peer.body();
    assert!(body.ends_with("\n\n") && body.matches("event: keyrelay.end\n").count() == 1);
}

#[test]
fn a_drain_tells_everybody_and_waits_for_nobody_too_long() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut sse, _) = rig.join(SSE, &["a"]);
    let (mut plain, _) = rig.join(Transport::Sse { chunked: false }, &["a"]);
    let (mut ws, _) = rig.join(WS, &["a"]);
    let (mut choked, token) = rig.join(SSE, &["a"]);
    let (_stuck, stuck) = rig.join(SSE, &["a"]);
    for peer in [&mut sse, &mut plain, &mut ws, &mut choked] {
        rig.until_sees(peer, "ready");
    }
    for token in [token, stuck] {
        rig.choke(token, &channel);
    }
    rig.core.handle.drain();
    rig.settle();
    rig.pass(Duration::from_millis(100));
    let (mut late, _) = rig.join(SSE, &["a"]);
    for peer in [&mut sse, &mut late, &mut choked] {
        rig.until(peer, |peer| peer.ended);
        let body = peer.body();
        let end = body.rfind("event: keyrelay.end\nretry: ").expect("an ending");
        assert!(body[end..].contains("\"reason\":\"drain\""), "{}", &body[end..]);
        assert!(peer.got.ends_with(b"\r\n0\r\n\r\n"));
    }
    rig.until(&mut plain, |peer| peer.ended);
    assert!(plain.sees("\n\nevent: keyrelay.end\n") && plain.got.ends_with(b"}\n\n"));
    rig.until(&mut ws, |peer| peer.ended);
    let close = [&[0x88, 7][..], &1012u16.to_be_bytes()].concat();
    assert!(
        memchr::memmem::find(&ws.got, &close).is_some(),
        "{:?}",
        String::from_utf8_lossy(&ws.got)
    );
    drop(ws);
    rig.until(&mut late, |_| true);
    assert!(!rig.core.is_over(rig.now), "one is left, and there is time");
    rig.pass(Duration::from_secs(4));
    assert!(rig.core.is_over(rig.now));
    assert!(rig.conn(stuck).is_some(), "who cannot be told is not waited for");
}

#[test]
fn many_are_drained_one_after_the_other() {
    let mut rig = Rig::new();
    let _a = rig.channel("a");
    let _peers: Vec<Peer> = (0..500).map(|_| rig.join(SSE, &["a"]).0).collect();
    rig.settle();
    rig.core.handle.drain();
    rig.settle();
    rig.pass(Duration::from_millis(250));
    assert!(
        (200..300).contains(&rig.core.clients.len()),
        "{}",
        rig.core.clients.len()
    );
    assert!(rig.core.wake(rig.now).unwrap() <= rig.now + Duration::from_millis(2));
    rig.pass(Duration::from_millis(250));
    assert!(rig.core.is_over(rig.now));
}

#[test]
fn a_client_without_anything_to_say_is_not_listened_to_for_ever() {
    let mut rig = Rig::new();
    let _a = rig.channel("a");
    let (mut quiet, token) = rig.join(SSE, &["a"]);
    quiet.stream.write_all(b"\r\n").unwrap();
    rig.until_sees(&mut quiet, "ready");
    assert!(rig.conn(token).is_some());
    let (mut chatty, _) = rig.join(SSE, &["a"]);
    // It may be gone before it has taken all of this.
    let _ = chatty.stream.write_all(&[b'x'; CHATTER as usize + 1]);
    rig.until(&mut chatty, |peer| peer.ended);
    assert!(chatty.sees("\"reason\":\"protocol\"") || chatty.ended);
    assert_eq!(rig.core.clients.len(), 1);
}

fn short_lived() -> Rig {
    Rig::bound(Bounds {
        lifetime: Some(Duration::from_secs(100)),
        ..Bounds::default()
    })
}

#[test]
fn those_who_came_together_are_asked_to_come_back_one_after_the_other() {
    let mut rig = short_lived();
    let _a = rig.channel("a");
    let mut peers: Vec<Peer> = (0..100).map(|_| rig.join(SSE, &["a"]).0).collect();
    rig.settle();
    let mut left = |seconds: u64| {
        rig.pass(Duration::from_secs(seconds));
        rig.core.clients.len()
    };
    assert_eq!(left(89), 100);
    let half = left(11);
    assert!((20..80).contains(&half), "{half}");
    assert_eq!(left(11), 0);
    for peer in &mut peers {
        rig.until(peer, |peer| peer.ended);
        let body = peer.body();
        assert!(
            body.ends_with("\n\n") && body.contains("\"reason\":\"lifetime\",\"reconnect\":true"),
            "{body}"
        );
    }
    let reached: Vec<_> = rig
        .core
        .books
        .stats
        .limited
        .all()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(reached, [("lifetime", 100)]);
}

/// Whose time is over while it takes nothing is told when it reads again, and is not waited for longer than others.
#[test]
fn a_choked_client_is_asked_to_come_back_when_it_reads() {
    let mut rig = short_lived();
    let channel = rig.channel("a");
    let (mut late, token) = rig.join(SSE, &["a"]);
    let (_stuck, stuck) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut late, "ready");
    rig.pass(Duration::from_secs(89));
    for token in [token, stuck] {
        rig.choke(token, &channel);
    }
    rig.pass(Duration::from_secs(22));
    assert!(rig.conn(token).is_some() && rig.conn(stuck).is_some());
    rig.until(&mut late, |peer| peer.ended);
    assert!(late.body().contains("\"reason\":\"lifetime\""));
    rig.pass(Duration::from_secs(9));
    assert!(rig.conn(stuck).is_none(), "it took nothing for 30 s");
}

#[test]
fn who_may_live_for_ever_does() {
    let mut rig = Rig::bound(Bounds {
        lifetime: None,
        ..Bounds::default()
    });
    let _a = rig.channel("a");
    let (_peer, token) = rig.join(SSE, &["a"]);
    for _ in 0..10 {
        rig.pass(Duration::from_secs(365 * 86_400 / 10));
    }
    assert!(rig.conn(token).is_some());
}

/// Whatever ends a WebSocket, its client has a moment to answer: closed at once, the connection might be reset before the
/// close frame was read.
#[test]
fn a_websocket_that_is_ended_may_answer() {
    let mut rig = short_lived();
    let _a = rig.channel("a");
    let until = Until {
        expires: Some(std::time::SystemTime::now() + Duration::from_secs(10)),
        ..Until::default()
    };
    let (mut expired, first) = rig.join_until(WS, &["a"], until);
    let (mut retired, second) = rig.join(WS, &["a"]);
    rig.until_sees(&mut retired, "ready");
    rig.pass(Duration::from_secs(11));
    rig.until_sees(&mut expired, "expired");
    rig.pass(Duration::from_millis(500));
    assert!(rig.conn(first).is_some());
    rig.pass(Duration::from_secs(2));
    assert!(rig.conn(first).is_none());
    rig.pass(Duration::from_secs(97));
    rig.until_sees(&mut retired, "lifetime");
    rig.pass(Duration::from_millis(500));
    assert!(rig.conn(second).is_some());
    rig.pass(Duration::from_secs(2));
    assert!(rig.conn(second).is_none());
}
