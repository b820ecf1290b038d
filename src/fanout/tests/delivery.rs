//! Who is sent what, in which order.

use super::*;

#[test]
fn a_client_gets_the_state_then_ready_then_what_changes() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    rig.put(&channel, "k", "one");
    let (mut peer, _) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut peer, "keyrelay.ready");
    rig.put(&channel, "k", "two");
    rig.put(&channel, "l", "three");
    rig.until_sees(&mut peer, "three");
    let body = peer.body();
    assert!(body.starts_with("data: one\n\nid: "), "{body}");
    let live: Vec<String> = peer.live().into_iter().map(|(_, data)| data).collect();
    assert_eq!(live, ["two", "three"]);
}

#[test]
fn a_client_of_a_channel_that_is_not_filled_waits_for_it() {
    let mut rig = Rig::new();
    let (mut peer, _) = rig.join(SSE, &["a"]);
    rig.until_sees(&mut peer, "HEAD");
    let subscription = rig.hub.subscribe("a", false).unwrap();
    rig.appender.activate(subscription.log());
    rig.put(&subscription, "k", "one");
    rig.settle();
    rig.appender.fill(subscription.log());
    rig.appender.commit();
    rig.until_sees(&mut peer, "keyrelay.ready");
    assert!(peer.body().starts_with("data: one\n\n"));
}

#[test]
fn messages_of_several_channels_come_in_the_order_they_happened() {
    let mut rig = Rig::new();
    let channels = ["a", "b", "c"].map(|name| rig.channel(name));
    let mut peers: Vec<Peer> = (0..20).map(|_| rig.join(SSE, &["a", "b", "c"]).0).collect();
    for peer in &mut peers {
        rig.until_sees(peer, "keyrelay.ready");
    }
    // Without a turn between them, so that one turn has them all.
    for round in 0..30 {
        rig.put(&channels[round % 3], &format!("key {round}"), format!("value {round}"));
    }
    for peer in &mut peers {
        rig.until_sees(peer, "value 29");
        let live = peer.live();
        assert!(live.is_sorted_by_key(|(sequence, _)| *sequence), "{live:?}");
        assert_eq!(live.len(), 30);
    }
}

#[test]
fn a_walk_is_cut_into_slices_and_survives_those_who_leave_meanwhile() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let mut peers: Vec<(Peer, Token)> = (0..3 * SLICE).map(|_| rig.join(SSE, &["a"])).collect();
    rig.settle();
    assert!(
        peers
            .iter()
            .all(|(_, token)| client(&mut rig.core.clients, *token).unwrap().session.is_live())
    );
    rig.put(&channel, "k", "first");
    rig.core.take();
    let before = rig.core.books.stats.messages.load(Ordering::Relaxed);
    assert!(rig.core.slice(rig.now), "there is more");
    let sent = rig.core.books.stats.messages.load(Ordering::Relaxed) - before;
    assert_eq!(sent, SLICE as u64);
    // Some who were served and some who were not yet leave, others come, and more happens, all within the turn.
    let mut at = 0;
    peers.retain(|_| {
        at += 1;
        at % 3 != 0
    });
    rig.core.poll();
    rig.put(&channel, "k", "second");
    let mut late: Vec<Peer> = (0..10).map(|_| rig.join(SSE, &["a"]).0).collect();
    for peer in &mut late {
        rig.until_sees(peer, "second");
    }
    for (peer, _) in &mut peers {
        rig.until_sees(peer, "second");
        let live: Vec<String> = peer.live().into_iter().map(|(_, data)| data).collect();
        assert!(live == ["first", "second"] || live == ["second"], "{live:?}");
    }
    assert_eq!(peers.len(), 2 * SLICE);
    assert_eq!(rig.core.clients.len(), 2 * SLICE + 10);
}

#[test]
fn a_thousand_clients_of_one_channel_all_get_everything() {
    let mut rig = Rig::new();
    let channel = rig.channel("a");
    let mut peers: Vec<Peer> = (0..1_000).map(|_| rig.join(SSE, &["a"]).0).collect();
    rig.settle();
    for round in 0..5 {
        rig.put(&channel, "k", format!("round {round}."));
        rig.settle();
    }
    for peer in &mut peers {
        rig.until_sees(peer, "round 4.");
        assert_eq!(peer.live().len(), 5);
    }
    let stats = rig.core.books.stats.clone();
    assert_eq!(stats.sessions(), 1_000);
    drop(peers);
    while rig.core.poll() > 0 || rig.core.slice(rig.now) {}
    assert_eq!((stats.sessions(), rig.core.clients.len()), (0, 0));
    assert!(rig.core.subscribers.get_mut(channel.log().id).is_none());
    assert_eq!(channel.log().view().subscribers(), 1, "only this test's own is left");
}

#[test]
fn a_subscriber_is_told_when_the_log_could_not_keep_what_it_has_not_seen() {
    let mut rig = Rig::new();
    let channel = rig.channel("events");
    let (mut peer, _) = rig.join(SSE, &["events"]);
    rig.until_sees(&mut peer, "keyrelay.ready");
    // More than is retained happens between two turns.
    for round in 0..150 {
        let payload = Payload {
            live: Bytes::from(format!("happening {round}.")),
            snapshot: Snapshot::Same,
            json: false,
            absent: false,
        };
        rig.appender.push(channel.log(), payload, std::time::Instant::now());
    }
    rig.appender.commit();
    rig.until_sees(&mut peer, "happening 149.");
    let body = peer.body();
    let gap = body.find("event: keyrelay.gap").expect("a gap");
    assert!(
        gap < body.find("happening 50.").unwrap() && !body.contains("happening 49."),
        "{body}"
    );
}

#[test]
fn stale_and_fresh_reach_those_whom_they_concern() {
    let mut rig = Rig::new();
    let (a, b) = (rig.channel("a"), rig.channel("b"));
    let (mut of_a, _) = rig.join(SSE, &["a"]);
    let (mut of_b, _) = rig.join(SSE, &["b"]);
    for peer in [&mut of_a, &mut of_b] {
        rig.until_sees(peer, "keyrelay.ready");
    }
    let now = std::time::SystemTime::now();
    rig.appender.stale(a.log(), Reason("upstream-lost"), now);
    rig.appender.stale(a.log(), Reason("upstream-lost"), now);
    rig.appender.commit();
    rig.until_sees(&mut of_a, "keyrelay.stale");
    rig.appender.fresh(a.log(), Reason("upstream-lost"), now);
    // It was not stale, so there is nothing to say.
    rig.appender.fresh(b.log(), Reason("upstream-lost"), now);
    rig.appender.commit();
    rig.put(&b, "k", "end");
    rig.until_sees(&mut of_a, "keyrelay.fresh");
    rig.until_sees(&mut of_b, "end");
    assert_eq!(of_a.body().matches("keyrelay.stale").count(), 1);
    assert!(!of_b.body().contains("keyrelay.fresh"));
}
