//! The answers, without a network.

use std::time::{Duration, UNIX_EPOCH};

use http_body_util::BodyExt;
use hyper::Request;
use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, HOST};

use super::*;
use crate::hub::{self, Access, Catalog, Channel, Way};
use crate::server::{Answer, Front};
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
        reloads: Arc::default(),
        started: UNIX_EPOCH,
        drain: CancellationToken::new(),
    };
    Desk {
        metrics: Metrics::new(sources.clone()),
        reach: Reach::Loopback,
        sources,
    }
}

async fn ask(desk: &Desk, request: hyper::http::request::Builder) -> Option<Answer> {
    let (request, ()) = request.body(()).unwrap().into_parts();
    desk.answer(&request).await
}

async fn get(desk: &Desk, target: &str) -> (u16, String) {
    let answer = ask(desk, Request::get(target)).await.expect("it is for no stream");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn it_is_ready_while_all_is_well() {
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

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let desk = desk();
    let ask = async |method: &str, target: &str| ask(&desk, Request::builder().method(method).uri(target)).await;
    let status = async |method: &str, target: &str| Some(ask(method, target).await?.status().as_u16());
    assert_eq!(status("GET", "/nothing").await, Some(404));
    assert_eq!(status("GET", "/ws").await, Some(404));
    assert_eq!(status("HEAD", "/status").await, Some(200));
    assert_eq!(status("GET", "/events").await, None, "that is for the streams");
    let answer = ask("POST", "/metrics").await.unwrap();
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
    assert!(plain.contains("# TYPE keyrelay_gaps_total counter\nkeyrelay_gaps_total{reason=\"events-off\"} 0\n"));
    assert!(plain.contains("\nkeyrelay_gaps_total{reason=\"upstream-lost\"} 1\n"));
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

#[tokio::test]
async fn only_verbose_is_verbose() {
    let desk = desk();
    for (target, lines) in [
        ("/readyz?verbose", 1),
        ("/readyz?verbose=1", 1),
        ("/readyz?nonverbose", 1),
    ] {
        let (status, text) = get(&desk, target).await;
        assert_eq!((status, text.lines().count()), (200, lines), "{target}: {text}");
        assert_eq!(text.starts_with("[+]"), !target.contains("non"), "{target}: {text}");
    }
}

/// A page that had its own name lead here is told nothing, and no page can show or embed what is here.
#[tokio::test]
async fn pages_of_strangers_learn_nothing() {
    let desk = desk();
    for target in ["/", "/status", "/events", "/metrics", "/readyz"] {
        let request = Request::get(target).header(HOST, "evil.example:7401");
        let answer = ask(&desk, request)
            .await
            .expect("it is refused before streams are asked");
        assert_eq!(answer.status(), 403, "{target}");
        let own = ask(&desk, Request::get(target).header(HOST, "localhost:7401")).await;
        assert!(own.is_none_or(|answer| answer.status() == 200), "{target}");
    }
    let page = ask(&desk, Request::get("/")).await.unwrap();
    let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"));
    assert!(
        page.headers()
            .keys()
            .all(|name| !name.as_str().starts_with("access-control-"))
    );
}

/// What a pattern holds cannot end its label.
#[test]
fn labels_are_escaped() {
    let desk = desk();
    let count = desk.sources.relay.mapping(r#"a\"{x}"#);
    count.fetch_add(3, std::sync::atomic::Ordering::Relaxed);
    let (_, text) = desk.metrics.text([].into_iter());
    let escaped = r#"keyrelay_mapping_events_total{mapping="a\\\"{x}"} 3"#;
    assert!(text.lines().any(|line| line == escaped), "{text}");
}
