//! Tokens that can be understood in two ways, are too large, or take long to understand.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{claiming, claims, headed, is_told, refused, scene, written};
use crate::access::refusal;
use crate::harness::http::{get, request};
use crate::harness::tokens::now;
use crate::harness::{Client, Relay, Ws, eventually};

/// What could be understood in two ways, or would have to be understood.
#[test]
fn tokens_of_an_odd_form() {
    let mut scene = scene();
    let (good, demands, object) = (claims(json!({})).to_string(), "`crit`", "not a JSON object");
    let exp = now() + 600;
    let twice = |members: &str| good.replacen('{', &format!("{{{members},"), 1);
    let deep = |depth: usize| good.replacen('{', &format!("{{\"a\":{}{},", "[".repeat(depth), "]".repeat(depth)), 1);
    let long = "x".repeat(6_100);
    let head = r#"{"alg":"HS256"}"#;
    let rows = [
        (
            "crit",
            written(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, &good),
            "malformed",
            demands,
        ),
        (
            "crit of nothing",
            written(r#"{"alg":"HS256","crit":[]}"#, &good),
            "malformed",
            demands,
        ),
        (
            "a payload as it is",
            written(r#"{"alg":"HS256","b64":false}"#, &good),
            "malformed",
            demands,
        ),
        (
            "alg twice",
            written(r#"{"alg":"HS256","alg":"none"}"#, &good),
            "malformed",
            object,
        ),
        (
            "alg twice, escaped",
            written(r#"{"alg":"none","\u0061lg":"HS256"}"#, &good),
            "malformed",
            object,
        ),
        ("exp twice", written(head, &twice("\"exp\":1")), "malformed", object),
        ("sub twice", written(head, &twice("\"sub\":\"7\"")), "malformed", object),
        (
            "a header that is a list",
            written(r#"["HS256"]"#, &good),
            "malformed",
            object,
        ),
        ("a header that is nothing", written("", &good), "malformed", object),
        (
            "a payload that is a list",
            written(head, &format!("[{exp}]")),
            "malformed",
            object,
        ),
        (
            "a payload that is a token",
            written(head, &claiming(json!({}))),
            "malformed",
            object,
        ),
        ("a deep payload", written(head, &deep(2_900)), "malformed", object),
        (
            "a deep header",
            written(&format!("{{\"a\":{}", "[".repeat(5_000)), &good),
            "malformed",
            object,
        ),
        ("more than 8 KiB", claiming(json!({"note": long})), "malformed", "8 KiB"),
        ("as much as a URL takes", "x".repeat(60_000), "malformed", "8 KiB"),
        ("dots", ".".repeat(5_000), "malformed", "three parts"),
    ];
    refused(&mut scene, &rows);
    // Also where there is more room than in a URL.
    let bearer = format!("Bearer {}", "x".repeat(60_000));
    let answer = request(
        scene.relay.address(),
        "GET",
        "/channels/cart:42",
        &[("Authorization", &bearer)],
    );
    assert_eq!(answer.status(), 401);
    assert!(!is_told(&bearer, &answer.text()) && !is_told(&bearer, &scene.relay.log()));
    let mut ws = Ws::request(&scene.relay, "/ws?channel=by:stander", None);
    ws.ready();
    for token in [
        "x".repeat(9_000),
        headed(json!({"alg": "none"})),
        claiming(json!({"exp": 1})),
    ] {
        ws.send(&json!({"type": "renew", "token": token, "ref": 1}));
        let error = ws.control("error").to_string();
        assert!(
            !is_told(&token, &error) && !is_told(&token, &scene.relay.log()),
            "{error}"
        );
    }
    drop(ws);
    scene.over();
}

/// Patterns that take a matcher with backtracking longer than the world is old, in a token that is in order: who signs it
/// means no harm, but copies what users have typed.
#[test]
fn patterns_that_explode() {
    /// In seconds of a core, a debug build's included: what is bounded takes a fraction, and what is not does not end.
    const ALLOWED: f64 = 30.0;
    let mut scene = scene();
    let letters = || b'a'..=b'z';
    let captures: String = letters()
        .flat_map(|one| letters().map(move |two| format!("{{{}{}}}a", char::from(one), char::from(two))))
        .take(200)
        .collect();
    let listed = [
        format!("list:{}", "*a".repeat(500)),
        format!("list:{}c", "?*".repeat(490)),
        format!("list:{}b", "*aa".repeat(330)),
        format!("list:*{}b*", "a".repeat(450)),
        format!("list:*{}b*", "?a".repeat(250)),
        format!("list:{captures}b"),
    ];
    let token = claiming(json!({ "channels": listed }));
    let names: Vec<String> = (0..40).map(|n| format!("list:{}{n:02}", "a".repeat(1_000))).collect();
    let query: String = names.iter().map(|name| format!("channel={name}&")).collect();
    let before = cpu(&scene.relay);
    let over = AtomicBool::new(false);
    let address = scene.relay.address();
    let mut ws = Ws::request(&scene.relay, &format!("/ws?token={token}"), None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let answer = get(address, &format!("/channels?{query}token={token}"));
                assert_eq!(answer.status(), 403, "{}", answer.text());
                ws.send(&json!({"type": "subscribe", "channels": names}));
                assert_eq!(ws.control("error")["reason"], "not-covered");
            }
            over.store(true, Ordering::Relaxed);
        });
        eventually("all of it is refused", || {
            scene.undisturbed();
            over.load(Ordering::Relaxed).then_some(())
        });
    });
    drop(ws);
    // What they do take they still open.
    let taken = format!("list:{}", "a".repeat(1_000));
    assert!(refusal(&scene.relay, &taken, Some(&token)).is_none());
    let spent = cpu(&scene.relay) - before;
    assert!(spent < ALLOWED, "{spent} s");
    scene.over();
}

/// How many ticks of times in /proc a second has, on every machine that Linux runs on (USER_HZ).
const TICKS: f64 = 100.0;

/// Seconds that the process has spent on a core.
#[track_caller]
fn cpu(relay: &Relay) -> f64 {
    let file = format!("/proc/{}/stat", relay.pid().as_raw_nonzero());
    let stat = std::fs::read_to_string(file).expect("the relay runs");
    // The second field is the name in parentheses; utime and stime are the 14th and 15th.
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let ticks: Vec<f64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse().expect("a number"))
        .collect();
    (ticks[0] + ticks[1]) / TICKS
}
