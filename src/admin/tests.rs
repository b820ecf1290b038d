//! The answers, without a network.

use super::*;
use crate::hub::{self, Access, Catalog, Channel, Way};
use crate::upstream::NodeId;

struct Nothing;

impl Catalog for Nothing {
    fn access(&self, name: &str) -> Option<Vec<Access>> {
        self.describe(name).map(|_| vec![vec![Way::Public]])
    }

    fn describe(&self, _: &str) -> Option<Channel> {
        None
    }
}

fn desk() -> Desk {
    let (hub, _) = Hub::new(hub::Options::channels(1), 1, Nothing);
    let sources = Sources {
        hub,
        fanout: Arc::default(),
        relay: Arc::default(),
        drain: CancellationToken::new(),
    };
    Desk {
        metrics: Metrics::new(sources.clone()),
        sources,
    }
}

async fn get(desk: &Desk, target: &str) -> (u16, String) {
    use http_body_util::BodyExt;
    let answer = desk.answer(&Request::get(target).body(()).unwrap());
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn it_is_ready_while_all_is_well() {
    use std::time::UNIX_EPOCH;
    let desk = desk();
    desk.sources
        .relay
        .node(NodeId::FIRST, |node| node.address = "127.0.0.1:6379".into());
    let (status, text) = get(&desk, "/readyz").await;
    assert_eq!((status, text.lines().count()), (503, 2), "{text}");
    assert!(
        text.starts_with("[-] upstream 127.0.0.1:6379 is not heard: connecting: "),
        "{text}"
    );
    desk.sources.relay.node(NodeId::FIRST, |node| {
        node.heard.mend(UNIX_EPOCH);
        node.readable.mend(UNIX_EPOCH);
    });
    assert_eq!(get(&desk, "/readyz").await, (200, "ready\n".into()));
    let (status, text) = get(&desk, "/readyz?verbose").await;
    assert_eq!((status, text.lines().count()), (200, 4), "{text}");
    let heard = "[+] upstream 127.0.0.1:6379 is heard, since Thu, 01 Jan 1970 00:00:00 GMT";
    assert_eq!(text.lines().nth(1), Some(heard));
    let advice = "do this:\n\n    CONFIG SET\n";
    desk.sources
        .relay
        .node(NodeId::FIRST, |node| node.heard.fail("events-off", advice, UNIX_EPOCH));
    let (status, text) = get(&desk, "/readyz").await;
    assert_eq!((status, text.lines().count()), (503, 1), "{text}");
    assert!(
        text.contains("is not heard: events-off: do this: CONFIG SET, since"),
        "{text}"
    );
    desk.sources.drain.cancel();
    assert_eq!(get(&desk, "/readyz").await.0, 503);
    assert_eq!(get(&desk, "/livez").await.0, 200);
}

#[test]
fn what_is_not_there_is_refused() {
    let desk = desk();
    let ask = |method, target| {
        let request = Request::builder().method(method).uri(target).body(()).unwrap();
        desk.answer(&request)
    };
    assert_eq!(ask("GET", "/").status(), 404);
    assert_eq!(ask("HEAD", "/status").status(), 200);
    let answer = ask("POST", "/metrics");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[ALLOW]),
        (405, &"GET, HEAD".parse().unwrap())
    );
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let desk = desk();
    desk.sources.relay.gaps.add("upstream-lost");
    desk.sources.relay.resync_time.add(Duration::from_millis(20));
    let (kind, plain) = desk.metrics.text(["text/plain;version=0.0.4"].into_iter());
    assert!(kind.starts_with("text/plain"));
    assert!(plain.contains("# TYPE keyrelay_gaps_total counter\nkeyrelay_gaps_total{reason=\"upstream-lost\"} 1\n"));
    assert!(plain.contains("# HELP keyrelay_gaps_total Times"));
    assert!(
        plain.contains("\nkeyrelay_resync_duration_seconds_bucket{le=\"0.01\"} 0\n"),
        "{plain}"
    );
    assert!(plain.contains("\nkeyrelay_resync_duration_seconds_bucket{le=\"0.05\"} 1\n"));
    assert!(plain.contains("\nkeyrelay_resync_duration_seconds_bucket{le=\"+Inf\"} 1\n"));
    assert!(!plain.contains("EOF") && !plain.contains("UNIT"));
    let (kind, open) = desk
        .metrics
        .text(["application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1"].into_iter());
    assert!(kind.starts_with("application/openmetrics-text"));
    assert!(open.contains("# TYPE keyrelay_gaps counter\n"));
    assert!(open.ends_with("# EOF\n"));
}
