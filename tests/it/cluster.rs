//! A cluster: a feed for each primary, whichever servers these are.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Client, Cluster, Data, Memory, PROGRAM, Relay, Reply, Server, Sse, eventually, mapping};
use crate::redis;

/// A channel of keys on all nodes, and one for each key.
const MAPPINGS: [&str; 2] = [
    "key = \"v:{id}\"\nchannel = \"v\"",
    "key = \"v:{id}\"\nchannel = \"one:{id}\"",
];

fn relay(cluster: &Cluster) -> Relay {
    Relay::at(&cluster.url(), "", &MAPPINGS.map(mapping).join("\n"))
}

/// Feeds of the relay that hear this server.
fn feeds(server: &Server) -> usize {
    let list = redis!(server, "CLIENT", "LIST").text();
    let heard = |line: &&str| line.contains(" name=keyrelay ") && !line.contains(" psub=0 ");
    list.lines().filter(heard).count()
}

#[track_caller]
fn until_heard(server: &Server, count: usize) {
    eventually("the feeds are where they should be", || {
        (feeds(server) == count).then_some(())
    });
}

/// Whether what was said last is that nothing is behind. A `stale` may be said twice before, for another reason.
fn is_calm(memory: &Memory) -> bool {
    let mut said = memory.controls.iter().rev().map(|(kind, _)| kind.as_str());
    said.find(|kind| ["stale", "fresh"].contains(kind)) != Some("stale")
}

/// What was told after so many messages, sorted.
fn told(client: &Sse, before: usize) -> Vec<(String, Value)> {
    let news = client.memory().messages[before..].iter();
    let mut news: Vec<_> = news.map(|message| (message.key(), message.value().clone())).collect();
    news.sort_by(|a, b| a.0.cmp(&b.0));
    news
}

#[test]
fn all_primaries_are_heard_and_read() {
    let cluster = Cluster::start(1);
    let keys: Vec<String> = (0..3).flat_map(|primary| cluster.keys("v:", primary, 4)).collect();
    for key in &keys {
        cluster.run(&["SET", key, "before"]);
    }
    let relay = relay(&cluster);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    assert_eq!(client.memory().state.len(), keys.len());
    for key in &keys {
        cluster.run(&["SET", key, "after"]);
        client.sees("v", key, "after");
    }
    for node in &cluster.nodes[..3] {
        until_heard(node, 1);
    }
    assert_eq!(
        feeds(&cluster.nodes[3]),
        0,
        "a replica says nothing that its primary does not"
    );
    let gone = &keys[5];
    cluster.run(&["DEL", gone]);
    client.misses("v", gone);
    // A flush of one node leaves the others alone.
    redis!(cluster.nodes[2], "FLUSHALL");
    for key in &keys[8..] {
        client.misses("v", key);
    }
    assert_eq!(client.memory().state.len(), 7);
    assert!(client.memory().count("stale") == 0);
}

#[test]
fn a_primary_dies_and_comes_back_as_a_replica() {
    let mut cluster = Cluster::start(1);
    let [a, b] = [0, 1].map(|primary| cluster.keys("v:", primary, 3));
    for key in a.iter().chain(&b) {
        cluster.run(&["SET", key, "old"]);
    }
    redis!(cluster.nodes[0], "WAIT", "1", "10000");
    let relay = relay(&cluster);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    let mut other = Sse::open(&relay, &[b[0].replace("v:", "one:").as_str()]);
    other.ready();
    let before = client.memory().messages.len();
    cluster.nodes[0].kill();
    client.control("stale");
    cluster.run(&["SET", &b[0], "meanwhile"]);
    client.sees("v", &b[0], "meanwhile");
    eventually("the replica takes over", || {
        cluster.try_run(&["SET", &a[0], "new"]).ok()?;
        cluster.try_run(&["DEL", &a[1]]).ok()
    });
    client.control("fresh");
    client.sees("v", &a[0], "new");
    client.misses("v", &a[1]);
    let mut expected = vec![
        (a[0].clone(), json!("new")),
        (a[1].clone(), Value::Null),
        (b[0].clone(), json!("meanwhile")),
    ];
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(told(&client, before), expected, "what differs and nothing else");
    until_heard(&cluster.nodes[3], 1);
    cluster.nodes[0].restart(Data::Kept);
    cluster.until_whole();
    cluster.run(&["SET", &a[2], "again"]);
    client.sees("v", &a[2], "again");
    assert_eq!(feeds(&cluster.nodes[0]), 0, "it is a replica now");
    assert!(is_calm(client.memory()));
    assert_eq!(other.memory().count("stale"), 0, "nothing happened to its node");
}

/// A frozen primary's connections stay open; what counts is what the others say.
#[test]
fn a_primary_freezes() {
    let cluster = Cluster::start(1);
    let a = cluster.keys("v:", 0, 2);
    cluster.run(&["SET", &a[0], "old"]);
    redis!(cluster.nodes[0], "WAIT", "1", "10000");
    let relay = relay(&cluster);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    cluster.nodes[0].freeze();
    until_heard(&cluster.nodes[3], 1);
    redis!(cluster.nodes[3], "SET", a[0], "new");
    client.sees("v", &a[0], "new");
    client.until("fresh", |memory| memory.count("stale") > 0 && is_calm(memory));
    cluster.nodes[0].thaw();
    cluster.until_whole();
    redis!(cluster.nodes[3], "SET", a[0], "newer");
    client.sees("v", &a[0], "newer");
    assert_eq!(feeds(&cluster.nodes[0]), 0);
    assert_eq!(
        client.memory().values_of(&a[0]),
        ["old", "new", "newer"].map(|value| json!(value))
    );
}

/// The old primary is reachable all the time.
#[test]
fn a_failover_that_somebody_asked_for() {
    let cluster = Cluster::start(1);
    let a = cluster.keys("v:", 0, 2);
    cluster.run(&["SET", &a[0], "old"]);
    let relay = relay(&cluster);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    redis!(cluster.nodes[3], "CLUSTER", "FAILOVER");
    until_heard(&cluster.nodes[3], 1);
    until_heard(&cluster.nodes[0], 0);
    cluster.run(&["SET", &a[0], "new"]);
    cluster.run(&["SET", &a[1], "another"]);
    client.sees("v", &a[0], "new");
    client.sees("v", &a[1], "another");
    client.until("fresh", is_calm);
    assert_eq!(client.memory().messages.len(), 3, "{:?}", client.memory().messages);
}

/// Keys are written before, while and after they are moved, and some are not there yet.
#[test]
fn a_slot_is_moved() {
    let cluster = Cluster::start(0);
    let tagged = |name: &str| format!("v:{name}{{moved}}");
    let keys = ["a", "b", "c", "d"].map(tagged);
    let from = usize::from(cluster.slot(&keys[0])) * 3 / 16_384;
    let to = (from + 1) % 3;
    move_slot(&cluster, &keys, from, to, &tagged("late"));
}

/// As above, to a node that had nothing before.
#[test]
fn a_node_is_added() {
    let mut cluster = Cluster::start(0);
    let added = cluster.add();
    let tagged = |name: &str| format!("v:{name}{{added}}");
    let keys = ["a", "b", "c", "d"].map(tagged);
    let from = usize::from(cluster.slot(&keys[0])) * 3 / 16_384;
    move_slot(&cluster, &keys, from, added, &tagged("late"));
}

fn move_slot(cluster: &Cluster, keys: &[String; 4], from: usize, to: usize, late: &str) {
    let slot = cluster.slot(&keys[0]);
    for key in &keys[..3] {
        cluster.run(&["SET", key, "old"]);
    }
    let relay = relay(cluster);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    until_heard(&cluster.nodes[to], 1);
    cluster.begin_to_move(slot, from, to);
    cluster.move_key(&keys[0], from, to);
    // It is where nobody looks for it yet, as is one that is new.
    cluster.run(&["SET", &keys[0], "moved"]);
    client.sees("v", &keys[0], "moved");
    cluster.run(&["RPUSH", &keys[3], "new"]);
    client.sees("v", &keys[3], json!(["new"]));
    cluster.run(&["SET", &keys[1], "waits"]);
    client.sees("v", &keys[1], "waits");
    assert!(
        is_calm(client.memory()) && client.memory().count("stale") == 0,
        "nothing is behind"
    );
    cluster.end_move(slot, from, to);
    cluster.run(&["SET", &keys[2], "arrived"]);
    client.sees("v", &keys[2], "arrived");
    cluster.run(&["DEL", &keys[1]]);
    client.misses("v", &keys[1]);
    cluster.run(&["SET", late, "late"]);
    client.sees("v", late, "late");
    client.until("fresh", is_calm);
    for (key, expected) in [(&keys[0], vec!["old", "moved"]), (&keys[2], vec!["old", "arrived"])] {
        let values = client.memory().values_of(key);
        assert_eq!(
            values,
            expected.into_iter().map(|value| json!(value)).collect::<Vec<_>>()
        );
    }
}

/// The cluster tells every node what is published on one; subscribers hear it once, also after the node that is listened
/// to has gone.
#[test]
fn what_is_published_is_heard_once() {
    let mut cluster = Cluster::start(1);
    let relay = Relay::at(
        &cluster.url(),
        "",
        &mapping("subscribe = \"news:{topic}\"\nchannel = \"{topic}\""),
    );
    let mut client = Sse::open(&relay, &["one"]);
    client.ready();
    for (at, node) in cluster.nodes.iter().enumerate() {
        redis!(node, "PUBLISH", "news:one", at.to_string());
    }
    client.until("all messages", |memory| memory.messages.len() >= 4);
    let listened = |node: &Server| {
        let Reply::Integer(patterns) = redis!(node, "PUBSUB", "NUMPAT") else {
            panic!("PUBSUB NUMPAT gives a number");
        };
        patterns > 0
    };
    // At the start it is tried on each whether it may be listened to.
    let heard = eventually("one node is listened to", || {
        let heard: Vec<usize> = (0..4).filter(|at| listened(&cluster.nodes[*at])).collect();
        (heard.len() == 1).then_some(heard)
    });
    // Only the first has a replica; another one cannot be missed.
    if heard[0] == 0 {
        cluster.nodes[0].kill();
        client.control("stale");
        client.control("fresh");
        assert_eq!(client.memory().count("gap"), 1);
        assert!(listened(&cluster.nodes[3]));
    }
    redis!(cluster.nodes[1], "PUBLISH", "news:one", "end");
    client.until("the last message", |memory| {
        memory.messages.last().is_some_and(|message| message.value() == "end")
    });
    let mut values: Vec<String> = client
        .memory()
        .messages
        .iter()
        .map(|message| message.value().to_string())
        .collect();
    values.sort();
    assert_eq!(values, ["\"0\"", "\"1\"", "\"2\"", "\"3\"", "\"end\""]);
}

/// A writer does not wait for the slot to have moved: what comes last is what is seen.
#[test]
fn a_slot_is_moved_there_and_back_while_it_is_written_to() {
    let cluster = Cluster::start(0);
    let keys: Vec<String> = (0..20).map(|number| format!("v:{number}{{busy}}")).collect();
    let slot = cluster.slot(&keys[0]);
    let home = usize::from(slot) * 3 / 16_384;
    let away = (home + 1) % 3;
    let relay = relay(&cluster);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    let done = AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut value = 0_u64;
            while !done.load(Ordering::Relaxed) {
                value += 1;
                for key in &keys {
                    // A slot on its way may be nobody's for a moment.
                    let _ = cluster.try_run(&["SET", key, &value.to_string()]);
                }
            }
            value
        });
        for (from, to) in [(home, away), (away, home), (home, away)] {
            cluster.begin_to_move(slot, from, to);
            for key in &keys[..10] {
                cluster.move_key(key, from, to);
            }
            cluster.end_move(slot, from, to);
        }
        done.store(true, Ordering::Relaxed);
        writer.join().expect("the writer ends")
    });
    cluster.run(&["DEL", &keys[0]]);
    for key in &keys[1..] {
        cluster.run(&["SET", key, &(last + 1).to_string()]);
    }
    for key in &keys[1..] {
        client.sees("v", key, (last + 1).to_string());
    }
    client.misses("v", &keys[0]);
    client.until("fresh", is_calm);
    for key in &keys {
        let values = client.memory().values_of(key);
        let numbers: Vec<u64> = values.iter().filter_map(|value| value.as_str()?.parse().ok()).collect();
        assert!(numbers.is_sorted(), "{key} went back: {numbers:?}");
    }
}

/// Every server that is found is tried.
#[test]
fn the_check_tries_all_primaries() {
    let cluster = Cluster::start(0);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("keyrelay.toml");
    let url = format!("redis-cluster://{}", cluster.nodes[0].address());
    std::fs::write(&file, format!("[upstream]\nurl = \"{url}\"\n{}", mapping(MAPPINGS[0]))).unwrap();
    let output = std::process::Command::new(PROGRAM)
        .args(["check", "--connect"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("only its own keys"), "{text}");
    for node in &cluster.nodes {
        assert!(text.contains(&format!("the server at {}:", node.address())), "{text}");
    }
}
