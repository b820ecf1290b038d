//! What ends with the token, and how a client goes on.

use std::collections::BTreeSet;

use serde_json::json;

use super::{mapping, relay, target};
use crate::harness::http::request;
use crate::harness::tokens::{now, token};
use crate::harness::{Client, End, Memory, Server, Sse, Ws};
use crate::redis;

#[test]
fn streams_end_when_the_token_does_and_go_on_with_a_new_one() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = relay(
        &server,
        "",
        &(mapping("v:{id}", "\"signed-in\"") + &mapping("p:{id}", "\"public\"")),
    );
    let short = token(2, json!({}));
    let mut sse = Sse::request(&relay, &target("/events", "v:1", Some(&short)), &[], None);
    let mut ws = Ws::request(&relay, &target("/ws", "v:1", Some(&short)), None);
    // What is public needs no token, and does not end with one.
    let mut public = Sse::request(&relay, &target("/events", "p:1", Some(&short)), &[], None);
    for client in [&mut sse, &mut public] {
        client.ready();
    }
    ws.ready();
    let end = sse.control("end");
    assert_eq!(
        (&end["reason"], &end["reconnect"]),
        (&json!("expired"), &json!(false)),
        "{end}"
    );
    assert!(now() >= 2 && sse.closed() == End::Proper(None));
    assert_eq!(ws.control("end")["reason"], "expired");
    assert_eq!(ws.closed(), End::Proper(Some(4401)));
    let refused = request(relay.address(), "GET", &target("/events", "v:1", Some(&short)), &[]);
    assert_eq!(refused.status(), 401, "the same token does not count again");

    redis!(server, "SET", "v:1", "two");
    redis!(server, "SET", "p:1", "alive");
    public.sees("p:1", "p:1", "alive");
    let fresh = token(600, json!({}));
    let cursor = sse.memory().query_cursor.clone().expect("a cursor");
    let again = format!("{}&cursor={cursor}", target("/events", "v:1", Some(&fresh)));
    let mut again = Sse::request(&relay, &again, &[], None);
    again.ready();
    assert_eq!(again.memory().values_of("v:1"), [json!("two")], "just what was missed");
    assert_eq!(again.memory().count("reset"), 0);
}

/// A stream with several channels ends with the first of its grants.
#[test]
fn it_is_told_before_on_request_and_can_be_renewed_in_place() {
    let server = Server::start();
    let relay = relay(&server, "", &mapping("v:{id}", "\"listed\""));
    let short = token(4, json!({"channels": ["v:1"]}));
    let mut sse = Sse::request(
        &relay,
        &format!("{}&expiring=1", target("/events", "v:1", Some(&short))),
        &[],
        None,
    );
    let told = sse.control("expiring");
    let at = told["expires_at"].as_i64().expect("a time in milliseconds");
    assert!((at / 1000 - now()).abs() <= 5, "{told}");

    let mut ws = Ws::request(
        &relay,
        &format!("{}&expiring=1", target("/ws", "v:1", Some(&short))),
        None,
    );
    // A grant this short is told at once, before `ready`.
    ws.until("both", |memory| {
        memory.count("ready") == 1 && memory.count("expiring") == 1
    });
    let renew = |ws: &mut Ws, token: &str, reference: u64| {
        ws.send(&json!({"type": "renew", "token": token, "ref": reference}));
        ws.until("an answer to it", |memory| {
            memory
                .controls
                .iter()
                .any(|(kind, data)| kind != "ready" && data["ref"] == reference)
        });
        let answer = ws
            .memory()
            .controls
            .iter()
            .rev()
            .find(|(_, data)| data["ref"] == reference);
        answer
            .map(|(kind, data)| (kind.clone(), data.clone()))
            .expect("it was found")
    };
    let (kind, said) = renew(&mut ws, "nonsense", 1);
    assert_eq!((kind.as_str(), &said["reason"]), ("error", &json!("malformed")));
    let (kind, said) = renew(&mut ws, &token(600, json!({"channels": ["v:2"]})), 2);
    assert_eq!(
        (kind.as_str(), &said["reason"], &said["channel"]),
        ("error", &json!("not-covered"), &json!("v:1"))
    );
    let (kind, said) = renew(&mut ws, &token(600, json!({"channels": ["v:1", "v:2"]})), 3);
    assert_eq!(kind, "renewed");
    assert!(
        (said["expires_at"].as_i64().unwrap() / 1000 - now() - 600).abs() <= 5,
        "{said}"
    );
    // The stream that was not renewed ends, this one does not, and what counts now opens what it lists.
    sse.control("end");
    ws.send(&json!({"type": "subscribe", "channels": ["v:2"], "ref": 4}));
    assert_eq!(ws.control("ready")["ref"], 4);
    redis!(server, "SET", "v:1", "alive");
    ws.sees("v:1", "v:1", "alive");
    assert!(ws.memory().end.is_none());
}

/// However many they are: they are judged a part at a time.
#[test]
fn a_renewal_names_every_channel_that_it_does_not_open() {
    const EACH: usize = 100;
    let server = Server::start();
    let relay = relay(&server, "", &mapping("v:{id}", "\"listed\""));
    let good = token(600, json!({"channels": ["v:*"]}));
    let mut ws = Ws::request(&relay, &format!("/ws?token={good}"), None);
    let names: Vec<String> = (0..2 * EACH).map(|n| format!("v:{n}-{}", "x".repeat(500))).collect();
    for (part, names) in names.chunks(EACH).enumerate() {
        ws.send(&json!({"type": "subscribe", "channels": names, "ref": part}));
        ws.until("the state", |memory| memory.count("ready") == part + 1);
    }
    let poor = token(600, json!({"channels": [names[0]]}));
    ws.send(&json!({"type": "renew", "token": poor, "ref": 9}));
    let refused = |memory: &Memory| -> BTreeSet<String> {
        let errors = memory.controls.iter().filter(|(_, data)| data["ref"] == 9);
        errors
            .map(|(_, data)| data["channel"].as_str().expect("a name").to_owned())
            .collect()
    };
    ws.until("an error for each", |memory| refused(memory).len() == 2 * EACH - 1);
    assert!(!refused(ws.memory()).contains(&names[0]));
}

/// A token that expires while the client is connected opens nothing more, be the stream alive for what is public.
#[test]
fn an_expired_token_opens_nothing_more() {
    let server = Server::start();
    let relay = relay(
        &server,
        "",
        &(mapping("v:{id}", "\"signed-in\"") + &mapping("p:{id}", "\"public\"")),
    );
    let short = token(2, json!({}));
    let mut ws = Ws::request(&relay, &target("/ws", "p:1", Some(&short)), None);
    ws.ready();
    let mut witness = Sse::request(&relay, &target("/events", "v:1", Some(&short)), &[], None);
    witness.control("end");
    ws.send(&json!({"type": "subscribe", "channels": ["v:1"]}));
    assert_eq!(ws.control("error")["reason"], "expired");
}
