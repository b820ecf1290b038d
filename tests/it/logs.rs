//! What the log says of faults: a line when one begins, with the reason, one when it ends, and none between.

use crate::harness::{Client, Relay, Server, Sse, eventually, mapping};
use crate::redis;

/// How many lines of the log hold all of these.
fn lines(relay: &Relay, parts: &[&str]) -> usize {
    let log = relay.log();
    let lines = log.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
    lines.count()
}

/// Waits for a line that holds all of these.
#[track_caller]
fn says(relay: &Relay, parts: &[&str]) {
    eventually(&format!("a line with {parts:?}"), || {
        (lines(relay, parts) > 0).then_some(())
    });
}

/// Many channels fail for one reason: it is one fact.
#[test]
fn keys_that_cannot_be_read() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    let names: Vec<String> = (0..20).map(|id| format!("v:{id}")).collect();
    let mut client = Sse::open(&relay, &names.iter().map(String::as_str).collect::<Vec<_>>());
    client.ready();
    // It would warn, too.
    relay.checked();
    redis!(
        server,
        "ACL",
        "SETUSER",
        "default",
        "-get",
        "-strlen",
        "-mget",
        "-getrange"
    );
    for name in &names {
        redis!(server, "SET", name, "secret");
    }
    client.until("all are stale", |memory| memory.count("stale") == 20);
    redis!(server, "ACL", "SETUSER", "default", "+@all");
    client.until("all are fresh", |memory| memory.count("fresh") == 20);
    says(&relay, &["keys can be read again"]);
    assert_eq!(
        lines(&relay, &["WARN", "keys cannot be read", "no-permission", "NOPERM"]),
        1
    );
    assert_eq!(lines(&relay, &["keys can be read again"]), 1);
    assert_eq!(lines(&relay, &["WARN"]), 1);
    assert!(!relay.log().contains("secret") && !relay.log().contains("v:1"));
}

#[test]
fn a_server_that_does_not_answer() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    relay.checked();
    says(&relay, &["upstream connected"]);
    server.freeze();
    says(&relay, &["WARN", "upstream does not answer"]);
    server.thaw();
    says(&relay, &["upstream answers again"]);
    assert_eq!(lines(&relay, &["WARN"]), 1);
    assert_eq!(lines(&relay, &["upstream connected"]), 1, "it is the same connection");
}

/// Why a server is still away may be another reason than the one for which it was lost.
#[test]
fn no_room_for_another_client() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    relay.checked();
    redis!(server, "CONFIG", "SET", "maxclients", "1");
    redis!(server, "CLIENT", "KILL", "TYPE", "pubsub");
    says(&relay, &["upstream still away", "max number of clients"]);
    eventually("readiness says why", || {
        relay.readiness().contains("is not heard: refused: ").then_some(())
    });
    // Some more attempts fail meanwhile.
    let attempts = relay.metric("keyrelay_upstream_losses_total");
    assert!(attempts >= 2.0, "{attempts}");
    redis!(server, "CONFIG", "SET", "maxclients", "100");
    eventually("it is ready again", || relay.ready().then_some(()));
    assert_eq!(lines(&relay, &["upstream still away"]), 1);
    assert_eq!(lines(&relay, &["upstream lost"]), 1);
    assert_eq!(lines(&relay, &["upstream connected"]), 2);
}
