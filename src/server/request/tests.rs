//! What each request is answered, from its head alone.

use http_body_util::BodyExt;
use hyper::Request;
use serde_json::{Value, json};

use super::*;
use crate::limits;
use crate::server::credentials::Places;
use crate::server::terms::Live;
use crate::server::testing::hub;

struct Site {
    desk: Desk,
    appender: crate::hub::Appender,
}

fn site(max_channels: usize, path: &str) -> Site {
    let (hub, appender) = hub(max_channels);
    let limits = Limits::new(limits::Options::default(), Arc::default());
    let desk = Desk {
        path: path.to_owned(),
        gate: Gate::new(
            hub,
            Live::letting(&["https://app.example"], Places::default()),
            limits.clone(),
        ),
        limits,
        channels: 1_000,
        drain: CancellationToken::new(),
        front: None,
    };
    Site { desk, appender }
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target).header("host", "relay");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

const UPGRADE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

impl Site {
    async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Outcome {
        self.desk
            .handle(&request("GET", target, headers), false, Guest::default())
            .await
    }

    async fn answer(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        match self
            .desk
            .handle(&request(method, target, headers), false, Guest::default())
            .await
        {
            Outcome::Answer(answer) => {
                let (head, body) = answer.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                (
                    head.status.as_u16(),
                    head.headers,
                    String::from_utf8(body.to_vec()).unwrap(),
                )
            }
            other => panic!("not an answer: {other:?}"),
        }
    }

    async fn head(&self, target: &str, headers: &[(&str, &str)]) -> (String, Opening) {
        match self.get(target, headers).await {
            Outcome::Stream(opening) => (String::from_utf8_lossy(&opening.head).into_owned(), *opening),
            other => panic!("not a stream: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_begins_with_its_head_and_a_retry() {
    let site = site(10, "/keyrelay");
    let headers = [("origin", "https://app.example")];
    let (head, opening) = site
        .head("/keyrelay/events?channel=a&channel=b&channel=a", &headers)
        .await;
    let (lines, body) = head.split_once("\r\n\r\n").unwrap();
    for line in [
        "HTTP/1.1 200 OK",
        "content-type: text/event-stream",
        "cache-control: no-store, no-transform",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
        "transfer-encoding: chunked",
        "connection: close",
        "vary: Origin",
        "access-control-allow-origin: https://app.example",
        "access-control-allow-credentials: true",
    ] {
        assert!(
            lines.lines().any(|found| found.eq_ignore_ascii_case(line)),
            "{line} in {lines}"
        );
    }
    let retry = body
        .split("retry: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((RETRY.0..=RETRY.1).contains(&retry), "{retry}");
    assert_eq!(opening.transport, Transport::Sse { chunked: true });
    assert_eq!(opening.session.logs().count(), 2);
}

#[tokio::test]
async fn without_chunks_the_connection_ends_the_body() {
    let site = site(10, "");
    let mut request = request("GET", "/events?channel=a", &[]);
    request.version = Version::HTTP_10;
    let Outcome::Stream(opening) = site.desk.handle(&request, false, Guest::default()).await else {
        panic!("a stream begins");
    };
    let head = String::from_utf8_lossy(&opening.head).to_ascii_lowercase();
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert_eq!(head.matches("connection: close").count(), 1, "{head}");
    assert!(head.split_once("\r\n\r\n").unwrap().1.starts_with(':'), "{head}");
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let site = site(10, "");
    for (method, target, status) in [
        ("GET", "/", 404),
        ("GET", "/events/", 404),
        ("GET", "/events", 400),
        ("GET", "/channels", 400),
        ("GET", "/channels/", 400),
        ("GET", "/events?channel=%FF", 400),
        ("GET", "/channels/%zz", 400),
        ("GET", "/ws", 426),
        ("HEAD", "/events?channel=a", 405),
        ("POST", "/channels?channel=a", 405),
        ("DELETE", "/ws", 405),
    ] {
        let (found, headers, body) = site.answer(method, target, &[]).await;
        assert_eq!(found, status, "{method} {target}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(
            body["error"].as_str().is_some_and(|error| !error.is_empty()),
            "{target}"
        );
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["vary"], "Origin");
        assert_eq!(headers.contains_key("allow"), status == 405);
    }
    let outcome = site
        .desk
        .handle(&request("GET", "/events?channel=a", &[]), true, Guest::default())
        .await;
    assert!(matches!(outcome, Outcome::Answer(answer) if answer.status() == 400));
    assert_eq!(site.desk.gate.hub().channels(), 0, "nothing was opened for them");
}

#[tokio::test]
async fn a_refusal_names_every_channel_that_is_refused() {
    let site = site(10, "");
    for path in ["/events", "/channels"] {
        let (status, _, body) = site
            .answer("GET", &format!("{path}?channel=a&channel=no:1&channel=no:2"), &[])
            .await;
        assert_eq!(status, 404);
        let why = "no mapping gives a channel of this name";
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["channels"], json!({"no:1": why, "no:2": why}));
    }
    let (head, opening) = site.head("/ws?channel=a&channel=no:1", &UPGRADE).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        head.contains(r#""type":"error","channel":"no:1","reason":"unknown""#),
        "{head}"
    );
    assert_eq!(opening.session.logs().count(), 0, "all or none");
    let Outcome::Farewell(bytes) = site.get("/ws?raw=1&channel=no:1", &UPGRADE).await else {
        panic!("who hears only payloads is told by the close code");
    };
    let close = [&[0x88, 9][..], &4403_u16.to_be_bytes(), b"unknown"].concat();
    assert!(bytes.ends_with(&close), "{bytes:?}");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let site = site(10, "");
    for target in ["/events?channel=a", "/channels/a", "/ws"] {
        let headers: Vec<_> = [("origin", "https://evil.example")]
            .into_iter()
            .chain(UPGRADE)
            .collect();
        let (status, headers, _) = site.answer("GET", target, &headers).await;
        assert_eq!(
            (status, headers.get("access-control-allow-origin")),
            (403, None),
            "{target}"
        );
    }
    for origin in ["https://relay", "https://app.example"] {
        let headers: Vec<_> = [("origin", origin)].into_iter().chain(UPGRADE).collect();
        assert!(
            matches!(site.get("/ws", &headers).await, Outcome::Stream(_)),
            "{origin}"
        );
    }
}

#[tokio::test]
async fn a_preflight_is_answered() {
    let site = site(10, "");
    let headers = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "GET"),
    ];
    let (status, headers, body) = site.answer("OPTIONS", "/events?channel=a", &headers).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(headers["access-control-allow-methods"], "GET, OPTIONS");
    assert_eq!(headers["access-control-max-age"], "600");
    assert!(
        headers["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .contains("last-event-id")
    );
}

#[tokio::test]
async fn a_web_socket_begins_with_its_handshake() {
    let site = site(10, "");
    let headers: Vec<_> = UPGRADE
        .into_iter()
        .chain([("sec-websocket-protocol", "keyrelay.v1.json")])
        .collect();
    let (head, opening) = site.head("/ws?raw=1&channel=a", &headers).await;
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert!(head.contains("sec-websocket-protocol: keyrelay.v1.json\r\n"), "{head}");
    assert_eq!(opening.transport, Transport::WebSocket { raw: true });
    assert_eq!(opening.session.logs().count(), 1);
    let (_, opening) = site.head("/ws", &UPGRADE).await;
    assert_eq!(opening.transport, Transport::WebSocket { raw: false });
}

#[tokio::test]
async fn for_want_of_room_clients_are_told_to_come_back_in_their_own_way() {
    let site = site(0, "");
    for accept in [&[][..], &[("accept", "text/event-stream")], &[("accept", "*/*")]] {
        let (status, headers, body) = site.answer("GET", "/events?channel=a", accept).await;
        assert_eq!(
            (status, headers["content-type"].to_str().unwrap()),
            (200, "text/event-stream")
        );
        assert_eq!(headers["connection"], "close");
        assert!(
            body.contains("retry: ") && body.contains("\"reason\":\"overload\""),
            "{body}"
        );
        assert!(body.ends_with("\n\n"), "{body}");
    }
    let (status, headers, _) = site
        .answer("GET", "/events?channel=a", &[("accept", "application/json")])
        .await;
    assert_eq!(status, 503);
    let seconds: u32 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((2..=10).contains(&seconds), "{seconds}");
    let (status, headers, _) = site.answer("GET", "/channels/a", &[]).await;
    assert!(status == 503 && headers.contains_key("retry-after"));
    let Outcome::Farewell(bytes) = site.get("/ws?channel=a", &UPGRADE).await else {
        panic!("the WebSocket is closed");
    };
    assert!(bytes.starts_with(b"HTTP/1.1 101"));
    assert!(bytes.windows(2).any(|found| found == 1013_u16.to_be_bytes()));
}

#[tokio::test]
async fn no_stream_begins_in_a_drain() {
    let site = site(10, "");
    site.desk.drain.cancel();
    let (_, _, body) = site.answer("GET", "/events?channel=a", &[]).await;
    assert!(body.contains("\"reason\":\"drain\""), "{body}");
    let Outcome::Farewell(bytes) = site.get("/ws?channel=a", &UPGRADE).await else {
        panic!("the WebSocket is closed");
    };
    assert!(bytes.windows(2).any(|found| found == 1012_u16.to_be_bytes()));
    let (status, _, body) = site.answer("GET", "/channels/a", &[]).await;
    assert_eq!(status, 503, "nobody will fill it any more");
    assert!(body.contains(r#""channels":{"a":"filling"}"#), "{body}");
    assert_eq!(
        site.desk
            .gate
            .hub()
            .interest()
            .iter()
            .filter(|log| log.view().subscribers() > 0)
            .count(),
        0
    );
}

#[tokio::test]
async fn the_state_is_given_once_it_is_there() {
    let mut site = site(10, "");
    // Keeps the log of the channel, as a stream would.
    let held = site.desk.gate.hub().subscribe("a", true).unwrap();
    site.appender.fill(held.log());
    site.appender.commit();
    for (method, target) in [
        ("GET", "/channels/a"),
        ("GET", "/channels?channel=a"),
        ("HEAD", "/channels/a"),
    ] {
        let (status, headers, body) = site.answer(method, target, &[]).await;
        assert_eq!(
            (status, headers["content-type"].to_str().unwrap()),
            (200, "application/json")
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["channels"], json!({"a": []}));
    }
    assert_eq!(held.log().view().subscribers(), 1, "who looked is gone");
}

#[test]
fn a_random_time_is_between_its_limits() {
    for _ in 0..1_000 {
        let time = jitter(RETRY);
        assert!((1_000..=3_000).contains(&time.as_millis()));
    }
}
