//! What a dashboard sees: the status as streams of the admin listener, which are like those of clients and counted as none.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Client, Data, Memory, Relay, Server, Sse, Ws, eventually, mapping};
use crate::redis;

const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";
const ALL: [&str; 3] = ["status", "channels", "gaps"];

/// The member of the status that was told last.
fn told<'a>(memory: &'a Memory, member: &str) -> &'a Value {
    memory.value("status", member).unwrap_or(&Value::Null)
}

/// First a whole picture, the same as `/status`, then what changes and nothing else.
#[test]
fn a_dashboard_sees_the_status_and_what_changes() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    eventually("the relay is ready", || relay.ready().then_some(()));
    let mut watch = Sse::watch(&relay, &ALL, None);
    watch.ready();
    let memory = watch.memory();
    let status = relay.ask("/status").json();
    for (name, value) in status.as_object().expect("an object") {
        match name.as_str() {
            // These have channels of their own, and these change all the time.
            "gaps" | "channels" | "traffic" | "process" => {}
            _ => assert_eq!(told(memory, name), value, "{name}"),
        }
    }
    assert_eq!(told(memory, "channels")["active"], json!(0));
    let mut sse = Sse::open(&relay, &["v"]);
    let mut ws = Ws::open(&relay, &["v"]);
    sse.ready();
    ws.ready();
    redis!(server, "SET", "v:1", "one");
    sse.sees("v", "v:1", "one");
    ws.sees("v", "v:1", "one");
    redis!(server, "SET", "other", "x");
    let row =
        json!({"name": "v", "mode": "state", "subscribers": 2, "entries": 1, "behind": 0, "lag": 0, "stale": null});
    watch.until("the channel with its subscribers", |memory| {
        memory.value("channels", "v") == Some(&row)
    });
    watch.until("sessions by transport, and what they were sent", |memory| {
        told(memory, "connections") == &json!({"sse": 1, "websocket": 1})
            && told(memory, "traffic")["messages_sent"].as_u64() >= Some(2)
            && told(memory, "traffic")["key_events_mapped"] == json!(1)
    });
    drop((sse, ws));
    watch.until("they have gone, each for a reason", |memory| {
        told(memory, "sessions")["ended"]["gone"] == json!(2)
    });
    // A channel without a subscriber is not named any more.
    watch.until("nobody listens", |memory| memory.value("channels", "v").is_none());
    // What did not change was told once.
    assert_eq!(watch.memory().values_of("version").len(), 1);
    assert_eq!(watch.memory().values_of("upstream").len(), 1);
}

/// Its own streams are no sessions, and no channels of clients.
#[test]
fn dashboards_are_counted_nowhere() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut watch = Sse::watch(&relay, &ALL, None);
    watch.ready();
    for metric in [
        "keyrelay_connections",
        "keyrelay_channels",
        "keyrelay_subscriptions",
        "keyrelay_sessions_opened_total",
        "keyrelay_messages_sent_total",
    ] {
        assert_eq!(relay.metric(metric), 0.0, "{metric}");
    }
    let sessions = |status: &Value| status["connections"].clone();
    assert_eq!(
        sessions(&relay.ask("/status").json()),
        json!({"sse": 0, "websocket": 0})
    );
}

/// Who comes back with a cursor is sent what changed since; one that is not known begins anew.
#[test]
fn a_dashboard_resumes() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    eventually("the relay is ready", || relay.ready().then_some(()));
    let mut watch = Sse::watch(&relay, &ALL, None);
    watch.ready();
    let cursor = watch.cursor().expect("a cursor");
    drop(watch);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    let mut again = Sse::watch(&relay, &ALL, Some(&cursor));
    again.until("what changed", |memory| {
        told(memory, "connections") == &json!({"sse": 1, "websocket": 0})
    });
    assert_eq!(again.memory().count("reset"), 0);
    assert_eq!(
        again.memory().values_of("version"),
        Vec::<Value>::new(),
        "what did not change is not sent"
    );
    let mut strange = Sse::watch(&relay, &ALL, Some("0123456789abcdef-7"));
    strange.ready();
    assert_eq!(strange.memory().count("reset"), 3);
    assert!(told(strange.memory(), "version").is_string());
}

/// The log of gaps fills while it is watched: one begins when the server goes, and ends when all was read again.
#[test]
fn gaps_are_told_as_they_begin_and_end() {
    let mut server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.sees("v", "v:1", "one");
    let mut watch = Sse::watch(&relay, &ALL, None);
    watch.ready();
    assert_eq!(watch.memory().value("gaps", "1"), None);
    server.kill();
    let address = server.address().to_string();
    watch.until("the gap goes on", |memory| {
        memory.value("gaps", "1").is_some_and(|gap| {
            gap["took"].is_null() && gap["reason"] == json!("upstream-lost") && gap["detail"].is_string()
        })
    });
    watch.until("the node is not heard, and the channel is stale", |memory| {
        let heard = &told(memory, "upstream")[0]["heard"];
        let stale = memory.value("channels", "v").map(|row| &row["stale"]["reason"]);
        heard["ok"] == json!(false) && heard["reason"].is_string() && stale == Some(&json!("upstream-lost"))
    });
    assert_eq!(told(watch.memory(), "ready"), &json!(false));
    server.restart(Data::Lost);
    watch.until("the gap has ended", |memory| {
        memory
            .value("gaps", "1")
            .is_some_and(|gap| gap["took"].as_u64() > Some(0))
    });
    let gap = watch.memory().value("gaps", "1").expect("it is there");
    assert_eq!(
        (&gap["differences"], &gap["address"]),
        (&json!(1), &json!(address)),
        "{gap}"
    );
    watch.until("all is well", |memory| told(memory, "ready") == &json!(true));
    // Of two that ended together both know it.
    redis!(server, "FLUSHALL");
    watch.until("the next gap has come and gone", |memory| {
        memory
            .value("gaps", "2")
            .is_some_and(|gap| gap["reason"] == json!("upstream-flushed") && gap["took"].is_u64())
    });
}

/// A gap that nobody listened through ends as well.
#[test]
fn a_gap_without_channels_ends() {
    let mut server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    eventually("the relay is ready", || relay.ready().then_some(()));
    server.kill();
    eventually("the gap is told", || {
        relay.ask("/status").json()["gaps"][0]["took"].is_null().then_some(())
    });
    server.restart(Data::Kept);
    let gap = eventually("it has ended", || {
        let gap = relay.ask("/status").json()["gaps"][0].clone();
        gap["took"].is_u64().then_some(gap)
    });
    assert_eq!((&gap["differences"], &gap["number"]), (&json!(0), &json!(1)), "{gap}");
}

/// A client that takes nothing shows as such: its channel lags, and for how long.
#[test]
fn slow_clients_show() {
    let server = Server::start();
    // It is not to be ended, however slow the machine is.
    let relay = Relay::with(&server, "write_timeout = \"10m\"", &mapping(MAPPING));
    let mut slow = Sse::narrow(&relay, &["v"]);
    slow.ready();
    let mut watch = Sse::watch(&relay, &ALL, None);
    watch.ready();
    let pad = "x".repeat(256 << 10);
    for n in 0..60 {
        redis!(server, "SET", format!("v:{n}"), &pad);
    }
    watch.until("it is behind, for a second and more", |memory| {
        let row = memory.value("channels", "v");
        row.is_some_and(|row| row["behind"] == json!(1) && row["lag"].as_u64() > Some(1_000))
    });
    watch.until("it is counted", |memory| {
        let slow = told(memory, "slow_clients");
        let sum = &told(memory, "channels")["behind"];
        slow["blocked"] == json!(1) && slow["pinned_bytes"].as_u64() > Some(0) && sum == &json!(1)
    });
    assert_eq!(relay.metric("keyrelay_blocked_connections"), 1.0);
    // It takes all, and is behind no more.
    for n in 0..60 {
        slow.sees("v", &format!("v:{n}"), pad.as_str());
    }
    watch.until("nobody is behind", |memory| {
        let row = memory.value("channels", "v");
        let behind = row.is_some_and(|row| (&row["behind"], &row["lag"]) == (&json!(0), &json!(0)));
        behind && told(memory, "slow_clients")["blocked"] == json!(0)
    });
    assert_eq!(relay.metric("keyrelay_blocked_connections"), 0.0);
}

/// Eight may watch; the ninth is told to come back, and who only asks a question is answered all the same.
#[test]
fn dashboards_take_no_place_from_probes() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut watching: Vec<Sse> = (0..8).map(|_| Sse::watch(&relay, &ALL, None)).collect();
    watching.iter_mut().for_each(Sse::ready);
    let mut ninth = Sse::watch(&relay, &ALL, None);
    ninth.closed();
    let (_, end) = ninth.memory().controls.last().expect("a last word");
    assert_eq!((&end["reason"], &end["reconnect"]), (&json!("overload"), &json!(true)));
    for target in ["/livez", "/metrics", "/status", "/"] {
        assert_eq!(relay.ask(target).status(), 200, "{target}");
    }
    drop(watching.pop());
    eventually("there is a place again", || {
        let mut watch = Sse::watch(&relay, &ALL, None);
        watch.poll(crate::harness::PATIENCE);
        let refused = watch.memory().controls.iter().any(|(kind, _)| kind == "end");
        (!refused).then_some(())
    });
}

/// In a drain whoever watches is shown so, and is ended like all others.
#[test]
fn a_drain_ends_dashboards() {
    let server = Server::start();
    let mut relay = Relay::start(&server, &mapping(MAPPING));
    let mut watch = Sse::watch(&relay, &ALL, None);
    watch.ready();
    relay.signal(Signal::TERM);
    watch.closed();
    assert_eq!(told(watch.memory(), "draining"), &json!(true));
    let (kind, end) = watch.memory().controls.last().expect("a last word");
    assert_eq!((kind.as_str(), &end["reason"]), ("end", &json!("drain")));
    let (status, _) = relay.wait();
    assert!(status.success(), "{status}");
}

/// What is not a stream of the status is not there, and what a client may do elsewhere it may not do here.
#[test]
fn nothing_else_is_served_there() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    for (target, status) in [
        ("/events?channel=v", 404),
        ("/events", 400),
        ("/channels/status", 404),
        ("/ws?channel=status", 404),
        ("/dashboard.html", 404),
    ] {
        assert_eq!(relay.ask(target).status(), status, "{target}");
    }
    let stray = relay.ask("/events?channel=status&channel=v").json();
    let error = stray["error"].as_str().unwrap_or_default();
    assert!(
        error.contains("status, channels, gaps") && error.contains("[server]"),
        "{error}"
    );
}
