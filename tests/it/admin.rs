//! What operators are told: whether it lives, whether it is ready, what it counts.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Client, Data, PROGRAM, Relay, Server, Sse, Ws, eventually, http, mapping};
use crate::redis;

const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";

fn become_ready(relay: &Relay) {
    eventually("the relay is ready", || relay.ready().then_some(()));
}

/// Ready means heard, readable and current; what is wrong is said in a line, with the reason.
#[test]
fn readiness_follows_the_server() {
    let mut server = Server::away();
    let relay = Relay::start(&server, &mapping(MAPPING));
    eventually("the reason is told", || {
        relay.readiness().contains("is not heard: unreachable: ").then_some(())
    });
    assert_eq!(relay.ask("/readyz").status(), 503);
    assert_eq!(relay.ask("/livez").status(), 200);
    server.restart(Data::Lost);
    become_ready(&relay);
    let verbose = relay.ask("/readyz?verbose").text();
    assert_eq!(verbose.lines().count(), 4, "{verbose}");
    assert!(verbose.lines().all(|line| line.starts_with("[+] ")), "{verbose}");
    server.kill();
    eventually("the loss is told", || {
        let told = relay.readiness();
        let line = told.lines().find(|line| line.contains("is not heard: "))?;
        line.contains(", since ").then_some(())
    });
    server.restart(Data::Kept);
    become_ready(&relay);
    assert_eq!(relay.metric("keyrelay_upstream_reconnects_total"), 1.0);
    assert_eq!(relay.metric("keyrelay_gaps_total{reason=\"upstream-lost\"}"), 1.0);
}

/// A server that stands still is told of before it is given up.
#[test]
fn a_late_server_is_not_ready() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    become_ready(&relay);
    server.freeze();
    eventually("it is late", || {
        relay.readiness().contains("upstream-late").then_some(())
    });
    server.thaw();
    become_ready(&relay);
    assert_eq!(relay.metric("keyrelay_upstream_late_total"), 1.0);
    assert_eq!(relay.metric("keyrelay_gaps_total"), 0.0);
}

/// In a drain the answer is no, so that nobody is sent here any more, and there is an answer.
#[test]
fn draining_is_not_ready() {
    let server = Server::start();
    let mut relay = Relay::with(&server, "drain = \"20s\"", &mapping(MAPPING));
    become_ready(&relay);
    // Holds the drain open: its ending stays in its own buffers.
    let mut client = Sse::narrow(&relay, &["v"]);
    client.ready();
    let pad = "x".repeat(256 << 10);
    for n in 0..60 {
        redis!(server, "SET", format!("v:{n}"), &pad);
    }
    eventually("the client holds it up", || {
        (relay.metric("keyrelay_pinned_bytes") > 0.0).then_some(())
    });
    relay.signal(Signal::TERM);
    eventually("the drain is told", || (!relay.ready()).then_some(()));
    assert_eq!(
        relay.readiness(),
        "[-] keyrelay takes no clients: drain: it goes down in order\n"
    );
    assert_eq!(relay.ask("/livez").status(), 200);
    relay.signal(Signal::TERM);
    relay.wait();
}

/// What has happened is counted.
#[test]
fn counts_follow_what_happens() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let mappings = [mapping(MAPPING), mapping("key = \"w:{id}\"")].concat();
    let relay = Relay::start(&server, &mappings);
    let mut sse = Sse::open(&relay, &["v"]);
    let mut ws = Ws::open(&relay, &["v"]);
    sse.ready();
    ws.ready();
    redis!(server, "SET", "v:2", "two");
    sse.sees("v", "v:2", "two");
    ws.sees("v", "v:2", "two");
    redis!(server, "SET", "w:nobody", "x");
    eventually("both events are heard", || {
        (relay.metric("keyrelay_key_events_total") == 2.0).then_some(())
    });
    assert_eq!(relay.metric("keyrelay_key_events_mapped_total"), 1.0);
    assert_eq!(relay.metric("keyrelay_keys"), 2.0);
    assert_eq!(relay.metric("keyrelay_channels"), 1.0);
    assert_eq!(relay.metric("keyrelay_stale_channels"), 0.0);
    assert_eq!(relay.metric("keyrelay_connections{transport=\"sse\"}"), 1.0);
    assert_eq!(relay.metric("keyrelay_connections"), 2.0);
    assert!(relay.metric("keyrelay_messages_sent_total") >= 4.0);
    assert!(relay.metric("keyrelay_reads_total") >= 2.0);
    assert_eq!(relay.metric("keyrelay_resync_duration_seconds_count"), 0.0);
    redis!(server, "FLUSHALL");
    sse.misses("v", "v:1");
    eventually("the resync is counted", || {
        (relay.metric("keyrelay_resync_duration_seconds_count") == 1.0).then_some(())
    });
    assert_eq!(relay.metric("keyrelay_resync_differences_total"), 2.0);
}

/// Stale channels are counted while they are.
#[test]
fn stale_channels_are_counted() {
    let mut server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    let mut client = Sse::open(&relay, &["v:1", "v:2"]);
    client.ready();
    server.kill();
    eventually("both are stale", || {
        (relay.metric("keyrelay_stale_channels") == 2.0).then_some(())
    });
    // One that goes away stale is not counted for ever.
    drop(client);
    server.restart(Data::Lost);
    eventually("none is", || {
        (relay.metric("keyrelay_stale_channels") == 0.0).then_some(())
    });
}

#[test]
fn the_status_tells_how_it_stands() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    become_ready(&relay);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    let status = relay.ask("/status").json();
    assert_eq!(status["ready"], json!(true));
    assert_eq!(status["draining"], json!(false));
    let channels = &status["channels"];
    let sum = ["active", "subscribed", "subscriptions", "stale", "behind"].map(|name| &channels[name]);
    assert_eq!(sum, [&json!(1), &json!(1), &json!(1), &json!(0), &json!(0)]);
    let row =
        json!({"name": "v", "mode": "state", "subscribers": 1, "entries": 0, "behind": 0, "lag": 0, "stale": null});
    assert_eq!(channels["top"], json!([row]));
    assert_eq!(status["connections"], json!({"sse": 1, "websocket": 0}));
    assert_eq!(status["sessions"]["opened"], json!({"sse": 1, "websocket": 0}));
    let node = &status["upstream"][0];
    assert_eq!(node["heard"]["ok"], json!(true));
    assert_eq!((&node["role"], &node["peers_down"]), (&json!("primary"), &json!([])));
    assert!(
        node["heard"]["since"].is_u64() && node["version"].is_string() && node["run_id"].is_string(),
        "{node}"
    );
    assert!(
        server.url().contains(node["address"].as_str().expect("an address")),
        "{node}"
    );
}

/// None of it is where clients are.
#[test]
fn the_public_listener_tells_nothing() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    for url in ["/", "/livez", "/readyz", "/metrics", "/status", "/dashboard.js"] {
        assert_eq!(http::get(relay.address(), url).status(), 404, "{url}");
    }
}

/// A relay whose operators could not ask it anything does not start: they would ask another one.
#[test]
fn a_taken_address_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("keyrelay.toml");
    let text = format!("[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"{address}\"\n");
    std::fs::write(&file, text).expect("the directory can be written to");
    let output = std::process::Command::new(PROGRAM)
        .arg("run")
        .arg(&file)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains(&address.to_string()) && told.contains("[admin]"),
        "{told}"
    );
}

/// Whoever asks in the name of a stranger is told nothing, whatever page it may be; and no page is let in that is not here.
#[test]
fn strangers_are_told_nothing() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let stream = "/events?channel=status";
    for target in ["/", "/status", "/metrics", stream] {
        let headers = [("Host", "evil.example:7401")];
        let answer = http::request(relay.admin(), "GET", target, &headers);
        assert_eq!(answer.status(), 403, "{target}");
    }
    let answer = relay.ask_as(stream, &[("Origin", "http://evil.example")]);
    assert_eq!(answer.status(), 403);
    for target in ["/", "/status"] {
        let answer = relay.ask_as(target, &[("Origin", "http://evil.example")]);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{target}");
        assert_eq!(
            answer.header("cross-origin-resource-policy"),
            Some("same-origin"),
            "{target}"
        );
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{target}");
    }
}

/// The members that `docs/operations.md` types: of each interface, its name and whether it may be missing.
fn documented_members() -> BTreeMap<String, Vec<(String, bool)>> {
    let text = include_str!("../../docs/operations.md");
    let (_, block) = text.split_once("```ts\n").expect("the types are there");
    let (block, _) = block.split_once("```").expect("they end");
    let mut members: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    let mut path = Vec::new();
    for line in block
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default().trim())
    {
        if let Some(name) = line.strip_prefix("interface ") {
            path = vec![name.split(' ').next().unwrap_or_default().to_owned()];
            let inline = line
                .split_once('{')
                .map(|(_, rest)| rest.trim_end_matches('}'))
                .unwrap_or_default();
            members.insert(path[0].clone(), inline.split(';').filter_map(member).collect());
        } else if line.starts_with('}') {
            path.pop();
        } else if let Some((name, optional)) = member(line) {
            let entry = members.entry(path.join(".")).or_default();
            entry.push((name.clone(), optional));
            if line.ends_with('{') {
                path.push(name);
            }
        }
    }
    members
}

/// `name?: …` of an interface.
fn member(text: &str) -> Option<(String, bool)> {
    let (name, _) = text.split_once(':')?;
    let (name, optional) = name
        .trim()
        .strip_suffix('?')
        .map_or((name.trim(), false), |name| (name, true));
    Some((name.to_owned(), optional))
}

/// `/status` has the members that are documented, and no others.
#[test]
fn the_documented_status_is_the_real_one() {
    let mut server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    become_ready(&relay);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    // There is a gap, and something is not well.
    server.kill();
    let status = eventually(
        "the channel is stale, the gap is there, and it is neither heard nor read",
        || {
            let status = relay.ask("/status").json();
            let told = status["channels"]["top"][0]["stale"].is_object() && status["gaps"][0].is_object();
            let problems = status["problems"].as_array().map_or(0, Vec::len);
            (told && problems == 2).then_some(status)
        },
    );
    let documented = documented_members();
    let mut seen = BTreeSet::new();
    let mut check = |name: &str, value: &Value| {
        let wanted = &documented[name];
        let object = value.as_object().unwrap_or_else(|| panic!("{name}: {value}"));
        let known: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        for member in object.keys() {
            assert!(known.contains(member.as_str()), "{member} of {name} is not documented");
        }
        for (member, _) in wanted.iter().filter(|(_, optional)| !optional) {
            assert!(object.contains_key(member), "{name} has no {member}: {value}");
        }
        seen.insert(name.to_owned());
    };
    check("Status", &status);
    for part in [
        "traffic",
        "mirror",
        "channels",
        "sessions",
        "slow_clients",
        "config",
        "process",
    ] {
        check(&format!("Status.{part}"), &status[part]);
    }
    check("Node", &status["upstream"][0]);
    check("State", &status["upstream"][0]["heard"]);
    check("Channel", &status["channels"]["top"][0]);
    check("Gap", &status["gaps"][0]);
    assert_eq!(
        seen,
        documented.keys().cloned().collect(),
        "all that is documented was looked at"
    );
    assert_eq!(status["gaps"][0]["reason"], json!("upstream-lost"));
}
