//! What a refusal says, to the client and to the operator, and what it never says.

use serde_json::{Value, json};

use super::{mapping, target};
use crate::harness::http::{Exchange, connect, escape, request};
use crate::harness::tokens::{SECRET, now, signed, token};
use crate::harness::{Client, Relay, Server, Ws, eventually};

fn relay(server: &Server) -> Relay {
    let access = format!(
        "[[access.jwt]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\naudience = \"keyrelay\"\nissuer = \"app\"\n[log]\nlevel = \"trace,tungstenite::protocol=trace\"\n"
    );
    Relay::start(
        server,
        &format!("{access}{}", mapping("cart:{user}", "{ sub = \"{user}\" }")),
    )
}

/// Every check that can fail, each told by a word to the operator and by a sentence to the client.
#[test]
fn each_check_is_named() {
    let server = Server::start();
    let relay = relay(&server);
    let head = json!({"alg": "HS256", "typ": "JWT"});
    let whole = |change: Value| {
        let mut claims = json!({"sub": "42", "aud": "keyrelay", "iss": "app", "exp": now() + 600});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let made = |change: Value| signed(SECRET, &head, &whole(change));
    let good = made(json!({}));
    let tampered = good.replacen("ey", "fy", 1);
    let cut = good[..good.len() - 3].to_owned();
    let cases = [
        ("missing", "no credential came", None),
        ("malformed", "malformed", Some("not a token".to_owned())),
        ("malformed", "malformed", Some(tampered)),
        ("signature", "not signed by any key", Some(cut)),
        (
            "signature",
            "not signed by any key",
            Some(signed("another secret of 32 bytes length", &head, &whole(json!({})))),
        ),
        (
            "algorithm",
            "algorithm",
            Some(signed(SECRET, &json!({"alg": "none"}), &whole(json!({})))),
        ),
        (
            "algorithm",
            "algorithm",
            Some(signed(SECRET, &json!({"alg": "HS512"}), &whole(json!({})))),
        ),
        (
            "expired",
            "the token expired 5 s ago",
            Some(made(json!({"exp": now() - 5}))),
        ),
        ("no-expiry", "`exp`", Some(made(json!({"exp": null})))),
        ("not-yet-valid", "clock", Some(made(json!({"nbf": now() + 60})))),
        ("audience", "audience", Some(made(json!({"aud": "somebody"})))),
        ("issuer", "issuer", Some(made(json!({"iss": "somebody"})))),
        ("not-covered", "does not cover", Some(made(json!({"sub": "43"})))),
    ];
    for (word, sentence, token) in &cases {
        let logged = |relay: &Relay| relay.log().matches(&format!("({word})")).count();
        let before = logged(&relay);
        let encoded = token.as_deref().map(escape);
        let asked = target("/channels", "cart:42", encoded.as_deref());
        let answer = request(relay.address(), "GET", &asked, &[]);
        let status = if *word == "not-covered" { 403 } else { 401 };
        assert_eq!(answer.status(), status, "{word}: {}", answer.text());
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
        let body = answer.json();
        let said = body["channels"]["cart:42"].as_str().unwrap_or_default();
        assert!(
            said.contains(sentence) || (*word == "expired" && said.contains("expired 6 s ago")),
            "{word}: {said}"
        );
        eventually("one line for the operator", || {
            (logged(&relay) == before + 1).then_some(())
        });
        if let Some(token) = token {
            assert!(!answer.text().contains(token.as_str()));
        }
    }
    assert_eq!(
        request(
            relay.address(),
            "GET",
            &target("/channels", "cart:42", Some(&good)),
            &[]
        )
        .status(),
        200
    );
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
