//! Names that Rails has signed.

use serde_json::{Value, json};

use super::mapping;
use crate::harness::http::{escape, request};
use crate::harness::tokens::{ACCESS, now, signed_name, token};
use crate::harness::{Client, End, Relay, Server, Sse, Ws};
use crate::redis;

const KEY: &str = "a key of the verifier, long enough to count";

fn signed(payload: &Value) -> String {
    signed_name(KEY, payload)
}

fn relay(server: &Server, access: &str) -> Relay {
    let access = format!("[[access.signed]]\nscheme = \"rails\"\n{access}\n");
    let mappings = mapping("room:{id}", "\"listed\"") + "[[mapping]]\nkey = \"closed:{id}\"\n";
    Relay::start(server, &format!("{access}{mappings}"))
}

/// The one channel, and no other; beside others it must still be all or nothing.
#[test]
fn a_signed_name_opens_its_channel() {
    let server = Server::start();
    let relay = relay(&server, &format!("key = \"{KEY}\""));
    let name = escape(&signed(&json!("room:1")));
    for (parameter, value) in [("signed", "one"), ("turbo_signed_stream_name", "two")] {
        let mut sse = Sse::request(&relay, &format!("/events?{parameter}={name}"), &[], None);
        sse.ready();
        let cursor = sse.memory().cursor.clone().expect("a cursor");
        redis!(server, "SET", "room:1", value);
        // The same URL names the same channel, so a browser's own cursor counts.
        let headers = [("Last-Event-ID", cursor.as_str())];
        let mut again = Sse::request(&relay, &format!("/events?{parameter}={name}"), &headers, None);
        again.sees("room:1", "room:1", value);
        assert_eq!(again.memory().values_of("room:1"), [json!(value)]);
    }
    let mut ws = Ws::request(&relay, &format!("/ws?signed={name}"), None);
    ws.ready();
    ws.send(&json!({"type": "subscribe", "channels": ["room:2"]}));
    assert_eq!(ws.control("error")["reason"], "missing");
    let status = |query: &str| request(relay.address(), "GET", &format!("/channels?{query}"), &[]).status();
    assert_eq!(status(&format!("signed={name}")), 200);
    assert_eq!(status(&format!("signed={name}&channel=room:1")), 200);
    assert_eq!(status(&format!("signed={name}&channel=room:2")), 401);
    assert_eq!(
        status(&format!("signed={name}&signed={}", escape(&signed(&json!("room:2"))))),
        200
    );
    let closed = escape(&signed(&json!("closed:1")));
    assert_eq!(status(&format!("signed={closed}")), 403, "no mapping opens it");
}

/// Another token stands in place of the one before, and of no signed name.
#[test]
fn a_signed_name_outlives_the_token_beside_it() {
    let server = Server::start();
    let relay = relay(&server, &format!("key = \"{KEY}\"\n{ACCESS}"));
    let name = escape(&signed(&json!("room:1")));
    let first = token(600, json!({"channels": ["room:2"]}));
    let target = format!("/ws?signed={name}&channel=room:2&token={first}");
    let mut ws = Ws::request(&relay, &target, None);
    ws.ready();
    ws.send(&json!({"type": "renew", "token": token(600, json!({"channels": ["room:3"]}))}));
    assert_eq!(ws.control("error")["channel"], "room:2");
    ws.send(&json!({"type": "renew", "token": token(600, json!({"channels": ["room:2"]}))}));
    ws.control("renewed");
}

/// Turbo's own key, by the vector that was computed from its source.
#[test]
fn turbos_key_is_made_of_secret_key_base() {
    let server = Server::start();
    let access = format!(
        "secret_key_base = \"{}\"\nsalt = \"turbo/signed_stream_verifier_key\"",
        "0123456789abcdef".repeat(8)
    );
    let access = format!("[[access.signed]]\nscheme = \"rails\"\n{access}\n");
    let relay = Relay::start(&server, &format!("{access}{}", mapping("messages", "\"listed\"")));
    let name = "Im1lc3NhZ2VzIg==--37d167f3c32c475876ccef55b4b9672bec85810fe816a183157b41dfed95d334";
    let mut sse = Sse::request(
        &relay,
        &format!("/events?turbo_signed_stream_name={}", escape(name)),
        &[],
        None,
    );
    sse.ready();
}

#[test]
fn purposes_and_ends_are_kept() {
    let server = Server::start();
    let relay = relay(&server, &format!("key = \"{KEY}\"\npurpose = \"relay\""));
    let time = |ahead: u64| httpdate_iso(ahead);
    let envelope =
        |purpose: &str, exp: Value| signed(&json!({"_rails": {"data": "room:1", "exp": exp, "pur": purpose}}));
    let status = |text: &str| {
        let target = format!("/channels?signed={}", escape(text));
        request(relay.address(), "GET", &target, &[]).status()
    };
    assert_eq!(status(&envelope("relay", Value::Null)), 200);
    assert_eq!(status(&envelope("other", Value::Null)), 401);
    assert_eq!(status(&signed(&json!("room:1"))), 401, "for no purpose");
    assert_eq!(status(&envelope("relay", json!("2020-01-01T00:00:00.000Z"))), 401);
    let short = envelope("relay", json!(time(3)));
    let mut sse = Sse::request(&relay, &format!("/events?signed={}", escape(&short)), &[], None);
    sse.ready();
    assert_eq!(sse.control("end")["reason"], "expired");
    assert_eq!(sse.closed(), End::Proper(None));
    assert_eq!(status(&short), 401);
}

/// A channel that a signed name and a token open is open until the later end of the two, be there others beside it or not.
#[test]
fn beside_a_token_the_later_end_counts() {
    let server = Server::start();
    let access = format!("{ACCESS}[[access.signed]]\nscheme = \"rails\"\nkey = \"{KEY}\"\n");
    let relay = Relay::start(&server, &format!("{access}{}", mapping("room:{id}", "\"listed\"")));
    // What ends within 30 s is told at once.
    let ends = |signed_until: u64, token: &str, others: &str| {
        let begun = now();
        let envelope = json!({"_rails": {"data": "room:1", "exp": httpdate_iso(signed_until)}});
        let name = escape(&signed(&envelope));
        let target = format!("/events?expiring=1&signed={name}&token={token}{others}");
        let mut sse = Sse::request(&relay, &target, &[], None);
        let told = sse.control("expiring");
        told["expires_at"].as_i64().expect("a time in milliseconds") / 1000 - begun
    };
    let covers = |seconds| token(seconds, json!({"channels": ["room:1", "room:2"]}));
    let near = |ends: i64, expected: i64| assert!((ends - expected).abs() <= 5, "{ends} {expected}");
    near(ends(10, &covers(28), ""), 28);
    near(ends(10, &covers(28), "&channel=room:2"), 28);
    near(ends(28, &covers(10), ""), 28);
    // Each must be open, so that the first end of all counts.
    near(ends(28, &covers(10), "&channel=room:2"), 10);
    // A token that counts for nothing takes nothing away.
    near(ends(28, &token(-10, json!({})), ""), 28);
    near(ends(28, &token(10, json!({"channels": ["room:2"]})), ""), 28);
}

/// Some seconds from now as Ruby writes a time: `2026-11-21T10:00:00.000Z`.
fn httpdate_iso(ahead: u64) -> String {
    let at = std::time::SystemTime::now() + std::time::Duration::from_secs(ahead);
    // Sat, 21 Nov 2026 10:00:00 GMT
    let text = httpdate::fmt_http_date(at);
    let parts: Vec<&str> = text.split(' ').collect();
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = 1 + months.iter().position(|month| *month == parts[2]).expect("a month");
    format!("{}-{month:02}-{}T{}.000Z", parts[3], parts[1], parts[4])
}
