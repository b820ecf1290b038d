//! Names that Rails did not sign, or not for this.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{VERIFIER, is_told, scene};
use crate::harness::http::{escape, get, request};
use crate::harness::tokens::{SECRET, signed_name};
use crate::harness::{Relay, eventually};

#[test]
fn signed_names() {
    let mut scene = scene();
    let envelope = |data: &str, purpose: &str, exp: Value| {
        signed_name(VERIFIER, &json!({"_rails": {"data": data, "exp": exp, "pur": purpose}}))
    };
    let good = envelope("list:1", "relay", Value::Null);
    let (text, signature) = good.split_once("--").expect("two parts");
    let other = STANDARD.encode("\"list:2\"");
    let past = json!("2020-01-01T00:00:00.000Z");
    let rows = [
        ("another text", format!("{other}--{signature}"), "signature"),
        (
            "a signature of zeros",
            format!("{text}--{}", "0".repeat(64)),
            "signature",
        ),
        (
            "in capitals",
            format!("{text}--{}", signature.to_uppercase()),
            "malformed",
        ),
        ("no signature", format!("{text}--"), "malformed"),
        ("half of it", format!("{text}--{}", &signature[..32]), "malformed"),
        ("the text alone", text.to_owned(), "malformed"),
        ("the signature alone", signature.to_owned(), "malformed"),
        ("another key", signed_name(SECRET, &json!("list:1")), "signature"),
        ("another purpose", envelope("list:1", "other", Value::Null), "purpose"),
        ("no purpose", signed_name(VERIFIER, &json!("list:1")), "purpose"),
        ("expired", envelope("list:1", "relay", past), "expired"),
        (
            "an end that is none",
            envelope("list:1", "relay", json!("soon")),
            "malformed",
        ),
        (
            "what is no text",
            signed_name(VERIFIER, &json!({"_rails": {"data": {}, "pur": "relay"}})),
            "malformed",
        ),
        (
            "more than 4 KiB",
            envelope(&"x".repeat(4_000), "relay", Value::Null),
            "malformed",
        ),
        ("text", "\"list:1\"".to_owned(), "malformed"),
    ];
    let ws = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
    ];
    let ws = [&ws[..], &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]].concat();
    for (what, name, word) in &rows {
        let logged = |relay: &Relay| relay.log().matches(&format!("\"reason\":\"{word}\"")).count();
        let before = logged(&scene.relay);
        for (path, headers) in [("/events", &[][..]), ("/channels", &[]), ("/ws", &ws)] {
            let target = format!("{path}?signed={}", escape(name));
            let answer = request(scene.relay.address(), "GET", &target, headers);
            assert_eq!(answer.status(), 401, "{what}: {}", answer.text());
            assert!(!is_told(name, &answer.text()), "{what}: {}", answer.text());
        }
        eventually("a line for the operator of each way", || {
            (logged(&scene.relay) == before + 3).then_some(())
        });
        assert!(!is_told(name, &scene.relay.log()), "{what}");
    }
    scene.undisturbed();
    assert_eq!(
        get(scene.relay.address(), &format!("/channels?signed={}", escape(&good))).status(),
        200
    );
    scene.over();
}
