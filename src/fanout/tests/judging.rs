//! Clients are judged again when whose credentials count is another question.

use super::super::conn::Phase;
use super::*;
use crate::hub::Revision;

impl Rig {
    /// Nobody's channel is another one, but credentials count anew.
    fn judge_again(&mut self) {
        self.appender.revise(Revision {
            concerned: |_: &str| false,
            change: || {},
            judge_again: true,
        });
        // What the shard's loop does when the hub says so.
        self.core.judge_all();
        self.settle();
    }
}

#[test]
fn only_those_end_who_may_read_no_more() {
    let mut rig = Rig::new();
    let (open, _secret) = (rig.channel("a"), rig.channel("secret"));
    let (mut sse, _) = rig.join(SSE, &["a"]);
    let (mut ws, _) = rig.join(WS, &["a"]);
    let (mut ended, _) = rig.join(SSE, &["a", "secret"]);
    let (mut closed, _) = rig.join(WS, &["secret"]);
    for peer in [&mut sse, &mut ws, &mut ended, &mut closed] {
        rig.until_sees(peer, "ready");
    }
    rig.judge_again();
    rig.until(&mut ended, |peer| peer.ended);
    assert!(ended.sees(r#"{"reason":"reload","reconnect":true"#));
    rig.until_sees(&mut closed, r#""reason":"reload""#);
    rig.until(&mut closed, |peer| {
        peer.got.windows(2).any(|bytes| bytes == 1012_u16.to_be_bytes())
    });
    rig.put(&open, "k", "after");
    rig.until_sees(&mut sse, "after");
    rig.until_sees(&mut ws, "after");
    assert!(!sse.sees("keyrelay.end") && !ws.sees("end"));
    let judged = rig.hub.revision();
    assert!(
        rig.core
            .clients
            .iter()
            .filter(|(_, conn)| conn.phase == Phase::Open)
            .all(|(_, conn)| conn.judged == judged)
    );
}

/// It was let in before, and comes to the shard after.
#[test]
fn who_is_on_the_way_to_the_shard_is_judged_there() {
    let mut rig = Rig::new();
    let _secret = rig.channel("secret");
    rig.judge_again();
    let (mut late, _) = rig.join(WS, &["secret"]);
    rig.until_sees(&mut late, r#""reason":"reload""#);
    assert!(!late.sees("ready"));
}

/// Of very many only some are judged at a time, so that others get their turn; and who has gone meanwhile is passed over.
#[test]
fn many_are_judged_a_few_at_a_time() {
    let mut rig = Rig::new();
    let _channel = rig.channel("a");
    let mut peers: Vec<Peer> = (0..50).map(|_| rig.join(SSE, &["a"]).0).collect();
    rig.settle();
    rig.appender.revise(Revision {
        concerned: |_: &str| false,
        change: || {},
        judge_again: true,
    });
    let revision = rig.hub.revision();
    rig.core.judge_all();
    rig.core.slice(rig.now);
    let judged = |rig: &Rig| {
        rig.core
            .clients
            .iter()
            .filter(|(_, conn)| conn.judged == revision)
            .count()
    };
    let first = judged(&rig);
    assert!((1..=16).contains(&first), "{first}");
    peers.truncate(25);
    rig.settle();
    assert_eq!(judged(&rig), rig.core.clients.len());
}
