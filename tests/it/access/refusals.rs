//! What a refusal says, to the client and to the operator, and what it never says.

use serde_json::json;

use super::mapping;
use crate::harness::http::{Exchange, connect, request};
use crate::harness::tokens::{SECRET, token};
use crate::harness::{Client, Relay, Server, Ws};

fn relay(server: &Server) -> Relay {
    let access = format!(
        "[[access.jwt]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\naudience = \"keyrelay\"\nissuer = \"app\"\n[log]\nlevel = \"trace,tungstenite::protocol=trace\"\n"
    );
    Relay::start(
        server,
        &format!("{access}{}", mapping("cart:{user}", "{ sub = \"{user}\" }")),
    )
}

/// Whatever way it comes, and whatever is wrong with it: not in an answer, not in the log at its finest, not in a metric.
#[test]
fn no_credential_is_ever_said_back() {
    let server = Server::start();
    let relay = relay(&server);
    let token = token(
        600,
        json!({"sub": "wrong", "aud": "keyrelay", "iss": "app", "note": "q".repeat(40)}),
    );
    let bearer = format!("Bearer {token}");
    let protocols = format!("keyrelay.v1.json, keyrelay.token.{token}");
    let mut answers = String::new();
    for query in ["channel=cart:42", "channel=%FF", "", "channel=cart:42&cursor=%"] {
        for path in ["/events", "/channels", "/nothing", "/ws"] {
            for headers in [
                &[][..],
                &[("Authorization", bearer.as_str())],
                &[("Cookie", bearer.as_str())],
            ] {
                let target = format!("{path}?{query}&token={token}&signed={token}");
                answers += &request(relay.address(), "GET", &target, headers).text();
            }
        }
    }
    let mut ws = Ws::request_with(&relay, "/ws?channel=cart:42", &[("Sec-WebSocket-Protocol", &protocols)]);
    ws.send(&json!({"type": "renew", "token": format!("x{token}")}));
    ws.until("both answers", |memory| memory.count("error") == 2);
    answers += &format!("{:?}", ws.memory().controls);
    let metrics = relay.ask("/metrics").text();
    // The payload's text is the part that no other request shares.
    let mark = token.split('.').nth(1).unwrap();
    let mark = &mark[mark.len() - 40..];
    assert!(token.contains(mark));
    for (place, text) in [("answers", &answers), ("metrics", &metrics), ("log", &relay.log())] {
        assert!(!text.contains(mark), "{place}");
    }
    assert!(relay.log().contains("not-covered"));
}

/// Every answer carries what keeps browsers from guessing, leaking and caching.
#[test]
fn headers_of_every_answer() {
    let server = Server::start();
    let relay = Relay::start(&server, &crate::harness::mapping("key = \"v:{id}\""));
    for (method, target) in [
        ("GET", "/channels/v:1"),
        ("GET", "/channels/no:1"),
        ("GET", "/events"),
        ("GET", "/nothing"),
        ("GET", "/ws"),
        ("POST", "/events"),
        ("OPTIONS", "/events"),
        ("GET", "/events?channel=v:1"),
    ] {
        let answer = Exchange::send(
            connect(relay.address(), None),
            method,
            target,
            &[("Content-Length", "0")],
        )
        .head;
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{method} {target}"
        );
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{method} {target}"
        );
        assert_eq!(answer.header("vary"), Some("Origin"), "{method} {target}");
    }
}
