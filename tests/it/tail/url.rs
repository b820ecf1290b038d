//! A client of a running relay.

use rustix::process::Signal;
use serde_json::json;

use crate::harness::tokens::{ACCESS, token};
use crate::harness::{Authority, Relay, Running, Server, Written, eventually, mapping};
use crate::redis;

fn url(relay: &Relay) -> String {
    format!("http://{}/", relay.address())
}

fn count(tail: &Running, part: &str) -> usize {
    tail.lines().iter().filter(|line| line.contains(part)).count()
}

#[track_caller]
fn has(tail: &Running, part: &str, times: usize) {
    eventually(&format!("{part} {times} times"), || {
        (count(tail, part) >= times).then_some(())
    });
}

/// It goes on where it was: nothing comes twice.
#[test]
fn it_comes_back_with_its_cursor() {
    let server = Server::start();
    redis!(server, "SET", "cart:42", "one");
    let relay = Relay::start(
        &server,
        &format!("[limits]\nlifetime = \"1s\"\n{}", mapping("key = \"cart:{user}\"")),
    );
    let mut tail = Running::start(&["tail", "--url", &url(&relay), "cart:42"]);
    tail.says(&["snapshot", "\"value\":\"one\""]);
    has(&tail, "-- end ", 1);
    has(&tail, "-- connected to", 2);
    redis!(server, "SET", "cart:42", "two");
    has(&tail, "-- ready ", 2);
    tail.says(&["\"value\":\"two\""]);
    assert_eq!(count(&tail, "\"value\":\"one\""), 1, "{:?}", tail.lines());
    assert_eq!(count(&tail, "-- reset"), 0);
    tail.signal(Signal::INT);
    tail.ends_with(0);
}

/// A relay that is started again knows no cursor, and says so.
#[test]
fn it_outlives_the_relay() {
    let server = Server::start();
    redis!(server, "SET", "cart:42", "one");
    let mut relay = Relay::start(&server, &mapping("key = \"cart:{user}\""));
    let tail = Running::start(&["tail", "--json", "--url", &url(&relay), "cart:42"]);
    tail.says(&[
        "\"status\":\"connected\",\"text\":\"connected to ",
        "\"type\":\"status\"",
    ]);
    tail.says(&["\"ready\""]);
    redis!(server, "SET", "cart:42", "two");
    tail.says(&["\"two\""]);
    relay.kill();
    tail.says(&["\"status\":\"lost\",\"text\":\"lost: "]);
    relay.restart();
    tail.says(&["\"type\":\"reset\"", "unknown-cursor"]);
    redis!(server, "SET", "cart:42", "three");
    tail.says(&["\"three\"", "\"event\":\"set\""]);
}

#[test]
fn a_token_is_shown_in_any_of_three_ways() {
    let server = Server::start();
    let mapping = "[[mapping]]\nkey = \"cart:{user}\"\naccess = { sub = \"{user}\" }\n";
    let relay = Relay::start(&server, &format!("{ACCESS}{mapping}"));
    let of = |user: &str| token(60, json!({ "sub": user }));
    let url = url(&relay);
    let (right, wrong) = (of("42"), of("7"));
    let written = Written::new("");
    written.write("token.txt", &format!("{right}\n"));
    let file = written.path("token.txt");
    let file = file.to_str().expect("a path in UTF-8");
    let shows = |options: &[&str], environment: &str| {
        let arguments = [&["tail", "--url", &url, "cart:42"], options].concat();
        let tail = Running::with(&arguments, &[("KEYRELAY_TOKEN", environment)]);
        tail.says(&["-- ready"]);
    };
    shows(&["--token", &right], "");
    shows(&["--token-file", file], &wrong);
    shows(&[], &right);
    let mut tail = Running::with(&["tail", "--url", &url, "cart:42"], &[("KEYRELAY_TOKEN", &wrong)]);
    tail.ends_with(1);
    assert!(
        tail.errors().contains("403") && tail.errors().contains("cart:42: "),
        "{}",
        tail.errors()
    );
    assert!(!tail.errors().contains(&wrong));
}

/// What a relay refuses is told with its own words; what cannot be reached, with the system's.
#[test]
fn refusals_are_explained() {
    let server = Server::start();
    let relay = Relay::start(
        &server,
        &format!(
            "{ACCESS}{}",
            "[[mapping]]\nkey = \"own:{id}\"\naccess = \"signed-in\"\n"
        ),
    );
    let url = url(&relay);
    let refused = |url: &str, channel: &str, parts: &[&str]| {
        let mut tail = Running::start(&["tail", "--url", url, channel]);
        tail.ends_with(1);
        let told = tail.errors();
        assert!(
            parts.iter().all(|part| told.contains(part)) && told.lines().count() == 1,
            "{told}"
        );
    };
    refused(&url, "nope", &["404", "nope: no mapping gives a channel of this name"]);
    refused(&url, "own:1", &["401", "own:1: "]);
    refused(&format!("{url}elsewhere"), "own:1", &["404"]);
    refused("http://127.0.0.1:1/", "own:1", &["cannot be connected to"]);
    refused("http://example.com/", "own:1", &["http over the internet", "https"]);
}

/// The certificate is checked against the system's trust store.
#[test]
fn over_tls() {
    let server = Server::start();
    redis!(server, "SET", "cart:42", "one");
    let authority = Authority::new("keyrelay test authority");
    let shown = authority.issue("here", &["127.0.0.1"]);
    let tls = format!(
        "tls = {{ certificate_file = \"{}\", key_file = \"{}\" }}",
        shown.certificate.display(),
        shown.key.display()
    );
    let relay = Relay::with(&server, &tls, &mapping("key = \"cart:{user}\""));
    let url = format!("https://{}", relay.address());
    let trusted = authority.file();
    let trusted = trusted.to_str().expect("a path in UTF-8");
    let tail = Running::with(&["tail", "--url", &url, "cart:42"], &[("SSL_CERT_FILE", trusted)]);
    tail.says(&["snapshot", "\"value\":\"one\""]);
    let other = Authority::new("another authority").file();
    let other = other.to_str().expect("a path in UTF-8");
    let mut tail = Running::with(&["tail", "--url", &url, "cart:42"], &[("SSL_CERT_FILE", other)]);
    tail.ends_with(1);
    assert!(tail.errors().contains("TLS failed"), "{}", tail.errors());
}
