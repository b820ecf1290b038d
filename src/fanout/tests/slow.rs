//! Clients that do not take what they are sent, and what a client costs.

use super::*;

#[test]
fn a_client_that_does_not_read_delays_nobody_and_gets_the_newest_value() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut slow, token) = rig.join(SSE, &["a"]);
    let (mut quick, _) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut quick, "keyrelay.ready");
    rig.choke(token, &channel);
    for round in 0..100 {
        rig.put(&channel, "k", format!("value {round}."));
        rig.until_sees(&mut quick, &format!("value {round}."));
    }
    rig.until_sees(&mut slow, "value 99.");
    assert!(!slow.sees("value 50."), "what was superseded meanwhile is not sent");
    // No frame was torn.
    slow.body();
    assert!(rig.conn(token).unwrap().session.is_live());
    assert_eq!(rig.core.books.stats.pinned.load(Ordering::Relaxed), 0);
}

#[test]
fn half_written_frames_are_finished_before_anything_else() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut peer, token) = rig.join(WS, &["a"]);
    rig.until_sees(&mut peer, "ready");
    rig.choke(token, &channel);
    // A ping is answered, but not in the midst of a frame; and a heartbeat waits.
    peer.send_frame(9, b"are you there");
    rig.pass(Duration::from_secs(20));
    rig.until_sees(&mut peer, "are you there");
    let mut rest = peer.got.strip_prefix(b"HEAD\r\n\r\n").unwrap();
    let mut opcodes = Vec::new();
    // What stands behind the answer may not have come as a whole yet.
    while opcodes.last() != Some(&0x8a) {
        let (head, size) = match rest[1] {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 => (10, u64::from_be_bytes(rest[2..10].try_into().unwrap()) as usize),
            size => (2, usize::from(size)),
        };
        opcodes.push(rest[0]);
        rest = &rest[head + size..];
    }
    let (_, before) = opcodes.split_last().expect("an answer");
    assert!(before.iter().all(|opcode| *opcode == 0x81), "{opcodes:x?}");
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_ended() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let (mut peer, token) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut peer, "keyrelay.ready");
    rig.choke(token, &channel);
    rig.pass(Duration::from_secs(29));
    assert!(rig.conn(token).is_some());
    rig.pass(Duration::from_secs(2));
    assert!(rig.conn(token).is_none());
    let stats = &rig.core.books.stats;
    assert_eq!(
        (stats.slow.load(Ordering::Relaxed), stats.pinned.load(Ordering::Relaxed)),
        (1, 0)
    );
}

#[test]
fn what_half_written_clients_hold_on_to_is_bounded() {
    let mut rig = Rig::new();
    let channels: Vec<Subscription> = (0..8).map(|at| rig.channel(&format!("c{at}"))).collect();
    let mut peers = Vec::new();
    for (at, channel) in channels.iter().enumerate() {
        let (mut peer, token) = rig.join(SSE, &[&*channel.log().channel.name]);
        rig.until_sees(&mut peer, "keyrelay.ready");
        rig.now += Duration::from_secs(1);
        rig.put(channel, "k", "x".repeat(12 << 20));
        rig.settle();
        let pinned = rig.core.books.stats.pinned.load(Ordering::Relaxed);
        assert!(pinned <= PINNED && pinned >= at.min(5) * (12 << 20), "{pinned} at {at}");
        peers.push((peer, token));
    }
    let ended: Vec<bool> = peers.iter().map(|(_, token)| rig.conn(*token).is_none()).collect();
    assert_eq!(
        ended,
        [true, true, true, false, false, false, false, false],
        "the longest stalled"
    );
}

#[test]
fn who_stalls_in_one_shard_ends_nobody_in_another() {
    let mut rig = Rig::new();
    let stats = rig.core.books.stats.clone();
    let mut other = Core::new(rig.core.options.clone(), &rig.hub, stats.clone(), 2, rig.now).unwrap();
    let crowded = stats.crowded.subscribe();
    let pinned = || stats.pinned.load(Ordering::Relaxed);
    let mut stalled = Vec::new();
    for at in 0..5 {
        let name = format!("stalled {at}");
        let channel = rig.channel(&name);
        stalled.push(rig.join(SSE, &[&name]));
        rig.now += Duration::from_secs(1);
        rig.put(&channel, "k", "x".repeat(12 << 20));
        rig.settle();
    }
    assert!(pinned() >= 60 << 20 && pinned() <= PINNED);
    let channel = rig.channel("read");
    std::mem::swap(&mut rig.core, &mut other);
    let (mut reader, token) = rig.join(SSE, &["read"]);
    rig.until_sees(&mut reader, "keyrelay.ready");
    rig.put(&channel, "k", format!("{} the end", "x".repeat(12 << 20)));
    rig.settle();
    assert!(pinned() > PINNED, "the frame is written in part");
    assert!(rig.conn(token).is_some());
    assert!(crowded.has_changed().unwrap(), "the shard that holds too much is told");
    std::mem::swap(&mut rig.core, &mut other);
    rig.settle();
    let held: Vec<bool> = stalled.iter().map(|(_, token)| rig.conn(*token).is_some()).collect();
    assert_eq!(held, [false, true, true, true, true]);
    assert!(pinned() <= PINNED);
    std::mem::swap(&mut rig.core, &mut other);
    rig.until_sees(&mut reader, " the end");
    assert!(rig.conn(token).is_some());
}

#[test]
fn a_frame_that_many_hold_is_counted_once() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let peers: Vec<(Peer, Token)> = (0..8).map(|_| rig.join(SSE, &["a"])).collect();
    rig.settle();
    rig.put(&channel, "k", "x".repeat(12 << 20));
    rig.settle();
    assert!(peers.iter().all(|(_, token)| rig.conn(*token).unwrap().blocked));
    let pinned = rig.core.books.stats.pinned.load(Ordering::Relaxed);
    assert!((12 << 20..13 << 20).contains(&pinned), "{pinned}");
}

/// Short frames go out together and long ones by themselves, wherever the socket takes no more.
#[test]
fn who_stalls_in_a_long_state_gets_all_of_it_and_holds_little_meanwhile() {
    const KEYS: usize = 20_000;
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let value = |at: usize| {
        format!(
            "{at}. {}",
            "x".repeat(if at.is_multiple_of(7) { 5_000 } else { at % 900 })
        )
    };
    for at in 0..KEYS {
        rig.put(&channel, &at.to_string(), value(at));
    }
    let (mut peer, token) = rig.join(SSE, &["a"]);
    rig.settle();
    let (mut stalled, mut copied) = (0, 0);
    while !rig.conn(token).unwrap().session.is_live() {
        if rig.conn(token).unwrap().blocked {
            stalled += 1;
            let pinned = rig.core.books.stats.pinned.load(Ordering::Relaxed);
            assert!(pinned <= 32 << 10, "{pinned} bytes are held");
            copied += usize::from(pinned > 6_000);
        }
        // As much as makes room for a part.
        let mut buffer = [0; 100_000];
        if let Ok(size) = peer.stream.read(&mut buffer) {
            peer.got.extend_from_slice(&buffer[..size]);
        }
        rig.settle();
    }
    rig.until_sees(&mut peer, "keyrelay.ready");
    assert!(stalled > 10, "it stalled {stalled} times only");
    assert!(
        copied * 4 < stalled,
        "of {stalled} times it held more than a frame {copied} times"
    );
    let body = peer.body();
    let mut values = body.lines().filter_map(|line| line.strip_prefix("data: "));
    assert!((0..KEYS).all(|at| values.next() == Some(&value(at))));
    assert_eq!(rig.core.books.stats.pinned.load(Ordering::Relaxed), 0);
}

#[test]
fn an_idle_client_is_small() {
    // What a session has on the heap, one channel, and the entries in lists and in the wheel come to as much again.
    assert!(size_of::<Conn>() <= 320, "{} bytes", size_of::<Conn>());
}
