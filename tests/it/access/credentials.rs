//! How credentials come: explicit before ambient, and cookies only from pages that may read.

use serde_json::json;

use super::{mapping, relay};
use crate::harness::http::{Exchange, connect, request};
use crate::harness::tokens::token;
use crate::harness::{Client, PROTOCOL, Relay, Server, Ws};

fn status(relay: &Relay, target: &str, headers: &[(&str, &str)]) -> u16 {
    let plain = request(relay.address(), "GET", &format!("/channels/{target}"), headers).status();
    let stream = Exchange::send(connect(relay.address(), None), "GET", &events(target), headers);
    assert_eq!(stream.head.status, plain);
    plain
}

fn events(target: &str) -> String {
    let (channel, query) = target.split_once('?').unwrap_or((target, ""));
    format!("/events?channel={channel}&{query}")
}

/// Whether a WebSocket with these headers may subscribe.
fn subscribes(relay: &Relay, query: &str, headers: &[(&'static str, &str)]) -> bool {
    let mut ws = Ws::request_with(relay, &format!("/ws?{query}"), headers);
    ws.send(&json!({"type": "subscribe", "channels": ["cart:42"], "ref": 1}));
    ws.until("an answer", |memory| memory.count("ready") + memory.count("error") > 0);
    ws.memory().count("ready") == 1
}

#[test]
fn a_token_comes_on_four_ways() {
    let server = Server::start();
    let relay = relay(
        &server,
        "cookie = \"pass\"\ntoken_parameter = \"jwt\"",
        &mapping("cart:{user}", "{ sub = \"{user}\" }"),
    );
    let good = token(600, json!({"sub": "42"}));
    let other = token(600, json!({"sub": "7"}));
    let bearer = |token: &str| format!("Bearer {token}");
    let cookie = |token: &str| format!("theme=dark; pass={token}; last=1");
    let query = |token: &str| format!("cart:42?jwt={token}");
    assert_eq!(status(&relay, "cart:42", &[("Authorization", &bearer(&good))]), 200);
    assert_eq!(status(&relay, "cart:42", &[("Cookie", &cookie(&good))]), 200);
    assert_eq!(status(&relay, &query(&good), &[]), 200);
    // Under its usual name it is not looked for any more.
    assert_eq!(status(&relay, &format!("cart:42?token={good}"), &[]), 401);

    // The first one counts alone, be it worse than the others.
    let all = |first: &str, second: &str, third: &str| {
        let (header, cookie) = (bearer(first), cookie(third));
        status(
            &relay,
            &query(second),
            &[("Authorization", &header), ("Cookie", &cookie)],
        )
    };
    assert_eq!(all(&good, &other, &other), 200);
    assert_eq!(all(&other, &good, &good), 403);
    assert_eq!(status(&relay, &query(&other), &[("Cookie", &cookie(&good))]), 403);
    assert_eq!(status(&relay, &query(&good), &[("Cookie", &cookie(&other))]), 200);

    let protocols = format!("{PROTOCOL}, keyrelay.token.{good}");
    assert!(subscribes(&relay, "", &[("Sec-WebSocket-Protocol", &protocols)]));
    assert!(subscribes(
        &relay,
        &format!("jwt={good}"),
        &[("Sec-WebSocket-Protocol", PROTOCOL)]
    ));
    assert!(!subscribes(
        &relay,
        &format!("jwt={other}"),
        &[("Sec-WebSocket-Protocol", PROTOCOL)]
    ));
    let ws = Ws::request_with(&relay, "/ws", &[("Sec-WebSocket-Protocol", &protocols)]);
    let chosen = ws
        .response
        .headers()
        .get("sec-websocket-protocol")
        .map(|value| value.as_bytes());
    assert_eq!(chosen, Some(PROTOCOL.as_bytes()), "the token is not said back");
}

/// A token alone cannot be answered: a browser ends a connection whose answer names none of what it offered.
#[test]
fn a_token_is_offered_beside_the_subprotocol() {
    let server = Server::start();
    let relay = relay(&server, "", &mapping("v:{id}", "\"signed-in\""));
    let offered = format!("keyrelay.token.{}", token(600, json!({})));
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", &offered),
    ];
    let refused = request(relay.address(), "GET", "/ws", &headers);
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("keyrelay.v1.json"), "{}", refused.text());
    assert!(!refused.text().contains(&offered));
}

/// No cookie is looked at that the config does not name.
#[test]
fn cookies_are_deliberate() {
    let server = Server::start();
    let relay = relay(&server, "", &mapping("cart:{user}", "\"signed-in\""));
    let token = token(600, json!({}));
    for name in ["token", "keyrelay", "access_token", "mercureAuthorization"] {
        assert_eq!(
            status(&relay, "cart:42", &[("Cookie", &format!("{name}={token}"))]),
            401
        );
    }
}

#[test]
fn a_cookie_counts_only_for_pages_that_may_read() {
    let server = Server::start();
    let relay = Relay::with(
        &server,
        "origins = [\"https://*.example.com\"]",
        &format!(
            "[access]\ncookie = \"pass\"\n{}\n{}",
            crate::harness::tokens::ACCESS,
            mapping("cart:{user}", "\"signed-in\"")
        ),
    );
    let token = token(600, json!({}));
    let cookie = format!("pass={token}");
    let asked = |more: &[(&str, &str)]| {
        let headers: Vec<_> = [("Cookie", cookie.as_str())]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        status(&relay, "cart:42", &headers)
    };
    assert_eq!(asked(&[]), 200, "no page at all");
    assert_eq!(asked(&[("Origin", "http://relay.test")]), 200);
    assert_eq!(asked(&[("Origin", "https://app.example.com")]), 200);
    assert_eq!(asked(&[("Origin", "https://evil.test")]), 403);
    assert_eq!(asked(&[("Origin", "null")]), 403);
    assert_eq!(asked(&[("Sec-Fetch-Site", "same-origin")]), 200);
    assert_eq!(
        asked(&[("Sec-Fetch-Site", "cross-site")]),
        401,
        "an image of another site, say"
    );
    assert_eq!(asked(&[("Sec-Fetch-Site", "same-site")]), 401);

    let subscribes = |more: &[(&'static str, &str)]| {
        let headers: Vec<_> = [("Cookie", cookie.as_str())]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        subscribes(&relay, "", &headers)
    };
    assert!(subscribes(&[("Origin", "http://relay.test")]));
    assert!(subscribes(&[("Origin", "https://app.example.com")]));
    assert!(
        !subscribes(&[]),
        "any page may open a WebSocket, and its browser names it"
    );
    assert!(!subscribes(&[("Sec-Fetch-Site", "same-origin")]));
    // Who shows a token deliberately needs no origin.
    let bearer = format!("Bearer {token}");
    assert!(subscribes(&[("Authorization", &bearer)]));
}
