//! Who may read becomes another question: streams are ended that may not go on, and no others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::{ended, keys, undisturbed};
use crate::access::ask::{App, grants};
use crate::both;
use crate::harness::tokens::{ACCESS, SECRET, now, signed, signed_name, token};
use crate::harness::{Client, Event, Relay, Server, Sse, Ws, eventually};
use crate::redis;

const OTHER: &str = "fedcba9876543210fedcba9876543210";

fn closed(kind: &str, access: &str) -> String {
    format!("[[mapping]]\nkey = \"{kind}:{{id}}\"\naccess = {access}\n")
}

/// The lines by which tokens of this secret count.
fn of(secret: &str) -> String {
    format!("[[access.jwt]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n")
}

/// A token of this secret.
fn by(secret: &str, mut claims: Value) -> String {
    claims["exp"] = json!(now() + 600);
    signed(secret, &json!({"alg": "HS256", "typ": "JWT"}), &claims)
}

fn with_token(relay: &Relay, channel: &str, token: &str) -> Sse {
    Sse::request(relay, &format!("/events?channel={channel}&token={token}"), &[], None)
}

fn ws_with_token(relay: &Relay, channel: &str, token: &str) -> Ws {
    Ws::request(relay, &format!("/ws?channel={channel}&token={token}"), None)
}

both! {
    fn a_channel_that_is_closed_to_some<C>() {
        let server = Server::start();
        redis!(server, "SET", "k:1", "a");
        let rest = keys("stays") + ACCESS;
        let mut relay = Relay::start(&server, &(keys("k") + &rest));
        let mut client = C::open(&relay, &["k:1"]);
        client.sees("k:1", "k:1", "a");
        client.ready();
        let mut stays = C::open(&relay, &["stays:1"]);
        stays.ready();
        let log = relay.reload(&(closed("k", "\"signed-in\"") + &rest));
        assert!(log.contains("\"what\":\"open to others\",\"count\":1"), "{log}");
        ended(&mut client);
        assert_eq!(relay.get("/events?channel=k:1").status(), 401);
        // Who still may comes back.
        let token = token(600, json!({"sub": "x"}));
        let mut again = with_token(&relay, "k:1", &token);
        again.sees("k:1", "k:1", "a");
        again.ready();
        undisturbed(&stays);
        // And when nobody may:
        relay.reload(&("[[mapping]]\nkey = \"k:{id}\"\n".to_owned() + &rest));
        ended(&mut again);
        let refused = relay.get(&format!("/events?channel=k:1&token={token}"));
        assert_eq!(refused.status(), 403);
        undisturbed(&stays);
    }
}

/// A key is added, then the one before is taken away: whose token still counts is not ended by it.
#[test]
fn keys_are_replaced() {
    let server = Server::start();
    let mappings = closed("k", "\"signed-in\"") + &keys("open");
    let mut relay = Relay::start(&server, &(mappings.clone() + &of(SECRET)));
    let (first, second) = (by(SECRET, json!({"sub": "1"})), by(OTHER, json!({"sub": "2"})));
    let mut old = with_token(&relay, "k:1", &first);
    let mut old_ws = ws_with_token(&relay, "k:1", &first);
    let mut open = Sse::open(&relay, &["open:1"]);
    for client in [&mut old, &mut open] {
        client.ready();
    }
    old_ws.ready();
    assert_eq!(relay.get(&format!("/channels/k:1?token={second}")).status(), 401);
    let log = relay.reload(&(mappings.clone() + &of(SECRET) + &of(OTHER)));
    assert!(
        log.contains("\"config value applied\",\"option\":\"access.jwt\""),
        "{log}"
    );
    let mut new = with_token(&relay, "k:1", &second);
    let mut new_ws = ws_with_token(&relay, "k:1", &second);
    new.ready();
    new_ws.ready();
    relay.reload(&(mappings + &of(OTHER)));
    ended(&mut old);
    ended(&mut old_ws);
    assert_eq!(relay.get(&format!("/events?channel=k:1&token={first}")).status(), 401);
    redis!(server, "SET", "k:1", "a");
    redis!(server, "SET", "open:1", "a");
    new.sees("k:1", "k:1", "a");
    new_ws.sees("k:1", "k:1", "a");
    open.sees("open:1", "open:1", "a");
    undisturbed(&new);
    undisturbed(&new_ws);
    undisturbed(&open);
    for heard in [old.memory(), old_ws.memory()] {
        assert_eq!(heard.value("k:1", "k:1"), None);
    }
}

/// A WebSocket that has shown another token since is judged by that.
#[test]
fn a_token_that_was_renewed() {
    let server = Server::start();
    let mappings = closed("k", "\"signed-in\"");
    let mut relay = Relay::start(&server, &(mappings.clone() + &of(SECRET) + &of(OTHER)));
    let mut client = ws_with_token(&relay, "k:1", &by(SECRET, json!({"sub": "1"})));
    client.ready();
    client.send(&json!({"type": "renew", "token": by(OTHER, json!({"sub": "1"}))}));
    client.control("renewed");
    relay.reload(&(mappings.clone() + &of(OTHER)));
    redis!(server, "SET", "k:1", "a");
    client.sees("k:1", "k:1", "a");
    assert_eq!(client.memory().count("end"), 0);
    relay.reload(&(mappings + &of(SECRET)));
    ended(&mut client);
}

/// Names that were signed with a key that counts no more.
#[test]
fn signed_names() {
    let server = Server::start();
    let mappings = closed("k", "\"listed\"");
    let of = |key: &str| format!("[[access.signed]]\nkey = \"{key}\"\n");
    let mut relay = Relay::start(&server, &(mappings.clone() + &of(SECRET)));
    let name = crate::harness::http::escape(&signed_name(SECRET, &json!("k:1")));
    let target = format!("/events?signed={name}");
    let mut client = Sse::request(&relay, &target, &[], None);
    client.ready();
    relay.reload(&(mappings.clone() + &of(OTHER) + &of(SECRET)));
    redis!(server, "SET", "k:1", "a");
    client.sees("k:1", "k:1", "a");
    undisturbed(&client);
    relay.reload(&(mappings + &of(OTHER)));
    ended(&mut client);
    assert_eq!(relay.get(&target).status(), 401);
}

/// Credentials that are looked for elsewhere: all come back who had shown one, and no others.
#[test]
fn where_tokens_are_looked_for() {
    let server = Server::start();
    let mappings = closed("k", "\"signed-in\"") + &keys("open");
    let mut relay = Relay::start(
        &server,
        &format!("[access]\ntoken_parameter = \"jwt\"\n{ACCESS}{mappings}"),
    );
    let shown = token(600, json!({"sub": "1"}));
    let mut client = Sse::request(&relay, &format!("/events?channel=k:1&jwt={shown}"), &[], None);
    let mut open = Sse::open(&relay, &["open:1"]);
    client.ready();
    open.ready();
    relay.reload(&(ACCESS.to_owned() + &mappings));
    let end = client.control("end");
    assert_eq!((&end["reason"], &end["reconnect"]), (&json!("reload"), &json!(true)));
    assert_eq!(relay.get(&format!("/channels/k:1?jwt={shown}")).status(), 401);
    assert_eq!(relay.get(&format!("/channels/k:1?token={shown}")).status(), 200);
    undisturbed(&open);
}

/// Pages of another origin are let in no more, and those that are have their streams ended.
#[test]
fn pages_of_other_origins() {
    let server = Server::start();
    let mut relay = Relay::with(
        &server,
        "origins = [\"https://a.example\", \"https://b.example\"]\n",
        &keys("k"),
    );
    let page = |relay: &Relay, origin: &str| Sse::request(relay, "/events?channel=k:1", &[("Origin", origin)], None);
    let (mut a, mut b) = (page(&relay, "https://a.example"), page(&relay, "https://b.example"));
    let mut none = Sse::open(&relay, &["k:1"]);
    for client in [&mut a, &mut b, &mut none] {
        client.ready();
    }
    relay.set_options("origins = [\"https://a.example\"]\n");
    let log = relay.reload(&keys("k"));
    assert!(log.contains("\"option\":\"server.origins\""), "{log}");
    ended(&mut b);
    let refused = relay.exchange("GET", "/events?channel=k:1", &[("Origin", "https://b.example")], None);
    assert_eq!(refused.response().status(), 403);
    redis!(server, "SET", "k:1", "x");
    a.sees("k:1", "k:1", "x");
    none.sees("k:1", "k:1", "x");
    undisturbed(&a);
    undisturbed(&none);
}

/// The app is asked by another URL, and says no.
#[test]
fn another_app_is_asked() {
    let server = Server::start();
    let (yes, no) = (App::start(), App::start());
    yes.says(200, &grants(600, json!({"sub": "1", "channels": ["k:1"]})));
    no.says(403, "");
    let with = |app: &App| format!("[access]\nask = \"{}\"\n{}", app.url(), closed("k", "\"listed\""));
    let mut relay = Relay::start(&server, &with(&yes));
    let mut client = Sse::request(&relay, "/events?channel=k:1", &[("Authorization", "Bearer x")], None);
    client.ready();
    // Another mapping beside it is no reason to ask.
    let asked = yes.asked();
    relay.reload(&(with(&yes) + &keys("more")));
    relay.reload(&with(&no));
    ended(&mut client);
    assert_eq!(yes.asked(), asked);
    assert!(no.asked() > 0);
}

/// In no instant does anybody read what is open to him neither before nor after: clients come and go all the while, and the
/// value is a secret whenever the channel is closed.
#[test]
fn nobody_slips_through() {
    const ROUNDS: usize = 30;
    let server = Server::start();
    let (open, shut) = (keys("k") + ACCESS, closed("k", "\"signed-in\"") + ACCESS);
    redis!(server, "SET", "k:1", "open");
    let mut relay = Relay::start(&server, &open);
    let done = Arc::new(AtomicBool::new(false));
    let read = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        let (address, done, read) = (relay.address(), &done, &read);
        for _ in 0..3 {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let body = crate::harness::http::get(address, "/channels/k:1").text();
                    assert!(!body.contains("secret"), "{body}");
                    read.fetch_add(usize::from(body.contains("open")), Ordering::Relaxed);
                }
            });
        }
        let relay = &mut relay;
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..ROUNDS {
                let mut stream = Sse::open(relay, &["k:1"]);
                stream.sees("k:1", "k:1", "open");
                relay.reload(&shut);
                // Only now is it known that it is closed.
                redis!(server, "SET", "k:1", "secret");
                while let Some(event) = stream.poll(crate::harness::PATIENCE) {
                    if let Event::Message(message) = event {
                        assert_eq!(message.value(), "open");
                    }
                }
                let token = token(600, json!({"sub": "x"}));
                let mut allowed = with_token(relay, "k:1", &token);
                allowed.sees("k:1", "k:1", "secret");
                redis!(server, "SET", "k:1", "open");
                allowed.sees("k:1", "k:1", "open");
                relay.reload(&open);
            }
        }));
        done.store(true, Ordering::Relaxed);
        checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(read.load(Ordering::Relaxed) > 0);
}

/// A reload that judges again does not hold up those who come meanwhile.
#[test]
fn many_are_judged_again() {
    const CLIENTS: usize = 300;
    let server = Server::start();
    let mappings = closed("k", "\"signed-in\"");
    let mut relay = Relay::start(&server, &(mappings.clone() + &of(SECRET)));
    let shown = by(SECRET, json!({}));
    let mut clients: Vec<Sse> = (0..CLIENTS).map(|_| with_token(&relay, "k:1", &shown)).collect();
    clients.iter_mut().for_each(Sse::ready);
    relay.reload(&(mappings.clone() + &of(OTHER) + &of(SECRET)));
    redis!(server, "SET", "k:1", "a");
    for client in &mut clients {
        client.sees("k:1", "k:1", "a");
        undisturbed(client);
    }
    relay.reload(&(mappings + &of(OTHER)));
    clients.iter_mut().for_each(ended);
    eventually("all are gone", || {
        (relay.metric("keyrelay_connections{transport=\"sse\"}") == 0.0).then_some(())
    });
}
