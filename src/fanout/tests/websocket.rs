//! What WebSocket clients say.

use super::*;

#[test]
fn who_cannot_keep_up_with_a_channel_can_leave_it() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut peer, token) = rig.join(WS, &["a"]);
    rig.until_sees(&mut peer, "ready");
    rig.choke(token, &channel);
    peer.send_frame(1, br#"{"type":"unsubscribe","channels":["a"]}"#);
    for round in 0..30 {
        // More than the buffers between the two hold.
        for key in 0..80 {
            rig.put(&channel, &key.to_string(), format!("{round} {}", "x".repeat(200_000)));
        }
        peer.read();
        rig.settle();
        if rig.conn(token).unwrap().session.logs().next().is_none() {
            return;
        }
    }
    panic!("it was not heard");
}

#[test]
fn a_websocket_that_answers_no_ping_is_ended() {
    let mut rig = Rig::new();
    let _a = rig.channel("a");
    let (mut alive, _) = rig.join(WS, &["a"]);
    let (mut dead, token) = rig.join(WS, &["a"]);
    for peer in [&mut alive, &mut dead] {
        rig.until_sees(peer, "ready");
    }
    for _ in 0..6 {
        rig.pass(Duration::from_secs(10));
        alive.got.clear();
        rig.settle();
        alive.read();
        if alive.got.ends_with(&[0x89, 0]) {
            alive.send_frame(10, b"");
            // The pong is underway on a real socket.
            while rig
                .core
                .clients
                .iter()
                .any(|(_, conn)| conn.token != token && conn.unanswered)
            {
                rig.settle();
            }
        }
    }
    assert!(rig.conn(token).is_none());
    dead.read();
    assert!(dead.ended && dead.got.ends_with(&[0x89, 0]));
    assert_eq!(rig.core.books.stats.websocket.load(Ordering::Relaxed), 1);
    assert!(
        rig.core.clients.iter().all(|(_, conn)| conn.inbound.is_none()),
        "a pong leaves nothing behind"
    );
}

/// Its last bytes and its end come in one event.
#[test]
fn a_websocket_that_leaves_with_its_last_word_is_let_go_at_once() {
    let mut rig = Rig::new();
    let _a = rig.channel("a");
    let (mut peer, token) = rig.join(WS, &["a"]);
    rig.until_sees(&mut peer, "ready");
    // Nobody looks before both are there.
    peer.send_frame(1, br#"{"type":"ping"}"#);
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    while !has_hung_up(&mut rig, token) {
        std::thread::yield_now();
    }
    rig.settle();
    assert!(rig.conn(token).is_none());
}

/// Whether the end of the client's bytes has arrived.
fn has_hung_up(rig: &mut Rig, token: Token) -> bool {
    let Socket::Tcp(socket) = &rig.conn(token).unwrap().socket else {
        panic!("it has a socket of its own");
    };
    let mut polled = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::RDHUP)];
    rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default())).unwrap() > 0
}

#[test]
fn a_websocket_asks_for_channels_and_gives_them_up() {
    let mut rig = Rig::new();
    let (a, b) = (rig.channel("a"), rig.channel("b"));
    rig.put(&b, "k", "old");
    let (mut peer, token) = rig.join(WS, &["a"]);
    rig.until_sees(&mut peer, "ready");
    peer.send_frame(1, br#"{"type":"subscribe","channels":["b"],"ref":5}"#);
    peer.send_frame(1, br#"{"type":"ping","ref":"after"}"#);
    rig.until_sees(&mut peer, "pong");
    let text = String::from_utf8_lossy(&peer.got).into_owned();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
    assert!(
        at("\"old\"") < at("\"ref\":5") && at("\"ref\":5") < at("\"ref\":\"after\""),
        "{text}"
    );
    rig.put(&b, "k", "of b");
    rig.put(&a, "k", "of a");
    rig.until_sees(&mut peer, "of a");
    assert!(peer.sees("of b"));
    peer.send_frame(1, br#"{"type":"unsubscribe","channels":["b"]}"#);
    peer.send_frame(1, br#"{"type":"ping","ref":"unsubscribed"}"#);
    rig.until_sees(&mut peer, "unsubscribed");
    assert!(rig.core.subscribers.get_mut(b.log().id).is_none());
    rig.put(&b, "k", "unheard");
    rig.put(&a, "k", "heard");
    rig.until_sees(&mut peer, "\"heard\"");
    assert!(!peer.sees("unheard"));
    assert!(rig.conn(token).unwrap().inbound.is_none());
}

#[test]
fn a_websocket_is_told_what_is_wrong_and_goes_on() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut peer, _) = rig.join(WS, &["a"]);
    rig.until_sees(&mut peer, "ready");
    peer.send_frame(1, br#"{"type":"subscribe","channels":["a","-"],"ref":9}"#);
    rig.until_sees(
        &mut peer,
        r#""channel":"-","reason":"unknown","message":"no such channel","ref":9"#,
    );
    peer.send_frame(1, b"[]");
    rig.until_sees(&mut peer, r#""reason":"malformed""#);
    peer.got.clear();
    peer.send_frame(2, b"bytes");
    rig.until_sees(&mut peer, r#""reason":"malformed""#);
    let many: Vec<String> = (0..1_000).map(|at| format!("\"c{at}\"")).collect();
    peer.send_frame(
        1,
        format!(r#"{{"type":"subscribe","channels":[{}]}}"#, many.join(",")).as_bytes(),
    );
    rig.until_sees(&mut peer, r#""reason":"too-many""#);
    rig.put(&channel, "k", "still here");
    rig.until_sees(&mut peer, "still here");
}

#[test]
fn a_websocket_that_breaks_the_protocol_is_ended_with_its_code() {
    let oversized = [&[0x81, 0xff][..], &70_000u64.to_be_bytes(), &[0; 4]].concat();
    let cases: [(&[u8], u16); 4] = [
        (&[0x81, 0x01, b'x'], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        (&oversized, 1009),
        (&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8], 1000),
    ];
    for (bytes, code) in cases {
        let mut rig = Rig::new();
        let _a = rig.channel("a");
        let (mut peer, _) = rig.join(WS, &["a"]);
        rig.until_sees(&mut peer, "ready");
        peer.stream.write_all(bytes).unwrap();
        rig.until(&mut peer, |peer| peer.ended);
        let close = peer
            .got
            .windows(4)
            .rfind(|part| part[0] == 0x88 && part[2..] == code.to_be_bytes());
        assert!(close.is_some(), "{code}: {:?}", String::from_utf8_lossy(&peer.got));
        assert_eq!(rig.core.clients.len(), 1, "its answer is awaited");
        drop(peer);
        while rig.core.poll() > 0 || rig.core.slice(rig.now) {}
        assert_eq!(rig.core.clients.len(), 0);
    }
}

#[test]
fn a_message_that_comes_in_pieces_is_understood() {
    let mut rig = Rig::new();
    let _a = rig.channel("a");
    let (mut peer, token) = rig.join(WS, &["a"]);
    rig.until_sees(&mut peer, "ready");
    let mut bytes = vec![0x81, 0x80 | 25, 0, 0, 0, 0];
    bytes.extend_from_slice(br#"{"type":"ping","ref":123}"#);
    for byte in bytes {
        assert!(!peer.sees("pong"));
        peer.stream.write_all(&[byte]).unwrap();
        // The byte is underway on a real socket.
        while rig.core.poll() == 0 {}
        rig.settle();
        peer.read();
    }
    rig.until_sees(&mut peer, r#"{"type":"pong","ref":123}"#);
    assert!(rig.conn(token).unwrap().inbound.is_none());
}

#[test]
fn what_came_with_the_request_is_heard() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    rig.put(&channel, "k", "one");
    let stream = TcpStream::connect(rig.listener.local_addr().unwrap()).unwrap();
    let (socket, _) = rig.listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let request = br#"{"type":"subscribe","channels":["a"]}"#;
    let mut read_ahead = vec![0x81, 0x80 | request.len() as u8, 0, 0, 0, 0];
    read_ahead.extend_from_slice(request);
    rig.core.handle.adopt(Client {
        socket: Socket::Tcp(socket),
        transport: WS,
        head: Bytes::from_static(b"HEAD\r\n\r\n"),
        read_ahead: read_ahead.into(),
        permits: Box::default(),
        session: Session::new(rig.hub.epoch),
        until: Until::default(),
        gate: rig.gate(),
        judged: 0,
    });
    stream.set_nonblocking(true).unwrap();
    let mut peer = Peer {
        stream,
        got: Vec::new(),
        ended: false,
    };
    rig.until_sees(&mut peer, "ready");
    assert!(peer.got.starts_with(b"HEAD\r\n\r\n\x81") && peer.sees("\"one\""));
}

#[test]
fn who_talks_too_much_is_ended_and_who_pauses_is_not() {
    let rate = Rate {
        per_second: 1,
        burst: 3,
    };
    let mut rig = Rig::bound(Bounds {
        messages: rate,
        ..Bounds::default()
    });
    let _a = rig.channel("a");
    let (mut patient, token) = rig.join(WS, &["a"]);
    rig.until_sees(&mut patient, "ready");
    for round in 1..20 {
        patient.send_frame(1, br#"{"type":"ping"}"#);
        rig.until(&mut patient, |peer| count(peer, b"pong") == round);
        rig.pass(Duration::from_millis(1_200));
    }
    let (mut hasty, _) = rig.join(WS, &["a"]);
    rig.until_sees(&mut hasty, "ready");
    for _ in 0..4 {
        hasty.send_frame(1, br#"{"type":"ping"}"#);
    }
    rig.until_sees(&mut hasty, "\"reason\":\"too-fast\",\"reconnect\":true");
    assert_eq!(count(&hasty, b"pong"), 3);
    let close = [&[0x88, 10][..], &1013u16.to_be_bytes()].concat();
    rig.until(&mut hasty, |peer| memchr::memmem::find(&peer.got, &close).is_some());
    assert!(rig.conn(token).is_some());
}

fn count(peer: &Peer, part: &[u8]) -> usize {
    memchr::memmem::find_iter(&peer.got, part).count()
}
