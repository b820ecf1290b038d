//! Configs that are not applied, or not as a whole.

use serde_json::json;

use super::{keys, undisturbed};
use crate::harness::{Client, Relay, Server, Sse, eventually};
use crate::redis;

/// All its problems are told, each by itself, and nothing has changed.
#[test]
fn an_invalid_one() {
    let server = Server::start();
    let mut relay = Relay::start(&server, &keys("k"));
    let mut client = Sse::open(&relay, &["k:1"]);
    client.ready();
    let wrong = "[[mapping]]\nkey = \"other:{id}\"\nchanel = \"x\"\nlinger = \"soon\"\naccess = \"everyone\"\n";
    let log = relay.reload(wrong);
    assert!(log.contains("\"config refused: "), "{log}");
    let problems: Vec<&str> = log.lines().filter(|line| line.contains("keyrelay.toml:")).collect();
    assert_eq!(problems.len(), 3, "{log}");
    for problem in &problems {
        let line: serde_json::Value = serde_json::from_str(problem).expect("one event each");
        assert_eq!(line["level"], "ERROR");
    }
    for word in ["chanel", "soon", "everyone"] {
        assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {log}");
    }
    assert_eq!(relay.get("/events?channel=other:1").status(), 404);
    redis!(server, "SET", "k:1", "a");
    client.sees("k:1", "k:1", "a");
    undisturbed(&client);
    // Nor does a file that is not there.
    let log = relay.reload(
        "[[mapping]]\nkey = \"k:{id}\"\naccess = \"public\"\nformat = \"template\"\ntemplate_file = \"no.html\"\n",
    );
    assert!(log.contains("\"config refused: ") && log.contains("no.html"), "{log}");
    // What is put right is applied.
    let log = relay.reload(&keys("other"));
    assert!(log.contains("\"config reloaded\""), "{log}");
    assert_eq!(
        relay.get("/channels/other:1").json()["channels"],
        json!({"other:1": [{"channel": "other:1", "key": "other:1", "value": null}]})
    );
}

/// Both ends are counted, and since when the config holds is told from the start.
#[test]
fn how_it_ended_is_counted() {
    let server = Server::start();
    let mut relay = Relay::start(&server, &keys("k"));
    let counted =
        |relay: &Relay, result: &str| relay.metric(&format!("keyrelay_config_reloads_total{{result=\"{result}\"}}"));
    let since = |relay: &Relay| relay.metric("keyrelay_config_last_reload_success_timestamp_seconds");
    let started = since(&relay);
    // After 2020: it is a time, in seconds.
    assert!((1.6e9..1e11).contains(&started), "{started}");
    relay.reload("[[mapping]]\nchanel = \"x\"\n");
    assert_eq!((counted(&relay, "applied"), counted(&relay, "refused")), (0.0, 1.0));
    assert_eq!(since(&relay), started, "the config that holds is as old as before");
    relay.reload(&keys("other"));
    eventually("the reload is counted", || {
        (counted(&relay, "applied") == 1.0).then_some(())
    });
    eventually("the new one holds", || (since(&relay) > started).then_some(()));
    assert_eq!(counted(&relay, "refused"), 1.0);
}

/// Of a valid config what can be applied is, and the rest is named.
#[test]
fn what_takes_a_restart() {
    let server = Server::start();
    let mut relay = Relay::start(&server, &keys("a"));
    let more = "[limits]\nconnections = 7\n[log]\nformat = \"json\"\nlevel = \"info,keyrelay::hub=debug\"\n";
    let log = relay.reload_with("verify = \"7s\"", "heartbeat = \"7s\"", &(keys("b") + more));
    for option in [
        "server.heartbeat",
        "limits.connections",
        "log.format",
        "upstream.verify",
    ] {
        let line = format!(
            "\"config value not applied: it takes effect when keyrelay is started again\",\"option\":\"{option}\""
        );
        assert!(log.contains(&line), "{option}: {log}");
    }
    assert!(
        log.contains("\"config value applied\",\"option\":\"log.level\""),
        "{log}"
    );
    assert!(log.contains("\"restart\":4"), "{log}");
    assert_eq!(relay.get("/channels/b:1").status(), 200);
    // It is named for as long as it waits, and no longer.
    let log = relay.reload(&(keys("b") + more));
    assert_eq!(log.matches("not applied").count(), 4, "{log}");
    relay.restart();
    let log = relay.reloaded(|relay| relay.signal(rustix::process::Signal::HUP));
    assert!(log.contains("nothing has changed"), "{log}");
}

/// Mappings that cannot be heard before a restart: all of them stay as they are, and the rest is applied.
#[test]
fn mappings_that_wait_for_another_source() {
    let server = Server::start();
    let url = format!("url = \"{}\"\n", server.url());
    let mut relay = Relay::reaching(&format!("{url}source = \"tracking\""), "", &keys("k"));
    let mut client = Sse::open(&relay, &["k:1"]);
    client.ready();
    relay.set_upstream(&url);
    let log = relay.reload(&(super::events("log") + "[log]\nlevel = \"info,keyrelay::hub=debug\"\n"));
    assert!(log.contains("mappings wait for a restart"), "{log}");
    assert!(
        log.contains("\"option\":\"upstream.source\"") && log.contains("\"option\":\"log.level\""),
        "{log}"
    );
    assert_eq!(relay.get("/channels/log:1").status(), 404);
    redis!(server, "SET", "k:1", "a");
    client.sees("k:1", "k:1", "a");
    undisturbed(&client);
    relay.restart();
    assert_eq!(relay.get("/channels/log:1").status(), 200);
    assert_eq!(relay.get("/channels/k:1").status(), 404);
}

/// The level of the log is another one from then on.
#[test]
fn the_level_of_the_log() {
    let server = Server::start();
    let mut relay = Relay::start(&server, &keys("a"));
    let told = |relay: &Relay| {
        drop(Sse::open(relay, &["a:1"]));
        relay.log().contains("\"DEBUG\"")
    };
    assert!(!told(&relay));
    relay.reload(&(keys("a") + "[log]\nlevel = \"debug\"\n"));
    crate::harness::eventually("it is told in detail", || told(&relay).then_some(()));
}
