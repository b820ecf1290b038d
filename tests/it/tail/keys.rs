//! Every key event, and what becomes of it.

use std::io::{BufRead, BufReader};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::config;
use crate::harness::{Cluster, Data, Reply, Running, Server, Written, eventually, mapping};
use crate::redis;

const SETTING: &str = "notify-keyspace-events";

fn mappings() -> String {
    [
        mapping("key = \"cart:{user}\""),
        mapping("key = \"order:{id}\"\nchannel = \"orders\"\nmode = \"events\"\non = [\"del\"]"),
        mapping("subscribe = \"news\"\nchannel = \"news:{json.topic}\""),
        "[[mapping]]\nkey = \"own:{id}\"\n".to_owned(),
    ]
    .concat()
}

fn setting(server: &Server) -> String {
    format!("{:?}", redis!(server, "CONFIG", "GET", SETTING))
}

/// Why does nothing come? Each answer that there is.
#[test]
fn each_event_has_its_mappings_or_a_reason() {
    let server = Server::start();
    let written = config(&server, "", &mappings());
    let mut tail = Running::start(&["tail", "--config", &written.file()]);
    tail.says(&["connected to", &server.address().to_string()]);
    redis!(server, "SET", "cart:42", "a secret value");
    tail.says(&["set ", " cart:42 ", "keyrelay.toml:4 cart:{user} -> cart:42"]);
    redis!(server, "SET", "cart:42:x", "a secret value");
    tail.says(&[
        "cart:42:x",
        "not taken",
        "`{user}` cannot take `42:x` because of the `:`",
    ]);
    redis!(server, "SET", "order:1", "a secret value");
    tail.says(&["set ", "order:1", "not taken", "`on` names only del"]);
    redis!(server, "DEL", "order:1");
    tail.says(&["del ", "order:1", "order:{id} -> orders"]);
    redis!(server, "SET", "own:1", "a secret value");
    tail.says(&["own:{id} -> own:1", "nobody may read it: it has no `access`"]);
    redis!(
        server,
        "PUBLISH",
        "news",
        "{\"topic\":\"rain\",\"text\":\"a secret value\"}"
    );
    tail.says(&["(message)", "news -> news:rain"]);
    redis!(server, "PUBLISH", "news", "a secret value");
    tail.says(&["(message)", "not taken", "this message has no channel"]);
    let mut other = server.connect();
    other.command(&[b"SELECT", b"3"]).expect("there are 16 databases");
    other
        .command(&[b"SET", b"cart:42", b"a secret value"])
        .expect("it can be set");
    tail.says(&[
        "cart:42",
        "not taken",
        "it is in database 3, and `url` of [upstream] names database 0",
    ]);
    tail.signal(Signal::INT);
    tail.ends_with(0);
    let all = tail.lines().join("\n") + &tail.errors();
    assert!(!all.contains("secret value"), "{all}");
}

/// Whatever bytes a key has, a terminal shows them and obeys none.
#[test]
fn a_key_cannot_trouble_a_terminal() {
    let server = Server::start();
    let written = config(&server, "", &mappings());
    let tail = Running::start(&["tail", "--config", &written.file()]);
    tail.says(&["connected to"]);
    let hostile = b"cart:\x1b[2J\x07\xff\n\xc2\x9b31m\xe2\x80\xae";
    redis!(server, "SET", hostile, "x");
    redis!(server, "SET", "cart:last", "x");
    tail.says(&["cart:last"]);
    let line = tail.says(&["2J"]);
    assert!(line.contains(r"cart:\u{1b}[2J\u{7}\xff\n\u{9b}31m\u{202e}"), "{line}");
    let plain = |char: char| !char.is_control() && char != '\u{202e}';
    assert!(
        tail.lines().iter().all(|line| line.chars().all(plain)),
        "{:?}",
        tail.lines()
    );
}

#[test]
fn lines_of_json() {
    let server = Server::start();
    let written = config(&server, "", &mappings());
    let tail = Running::start(&["tail", "--json", "--config", &written.file()]);
    tail.says(&["\"connected\""]);
    redis!(server, "SET", "cart:42", "x");
    redis!(server, "SET", b"cart\xff", "x");
    redis!(server, "PUBLISH", "news", "{\"topic\":\"rain\"}");
    tail.says(&["published"]);
    let parsed: Vec<Value> = tail
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let events: Vec<&Value> = parsed.iter().filter(|line| line["type"] == "event").collect();
    assert_eq!(events.len(), 2, "{parsed:?}");
    assert_eq!(
        (&events[0]["event"], &events[0]["key"], &events[0]["database"]),
        (&json!("set"), &json!("cart:42"), &json!(0))
    );
    let taken = &events[0]["taken"][0];
    assert!(
        taken["mapping"]
            .as_str()
            .is_some_and(|place| place.ends_with("keyrelay.toml:4")),
        "{taken}"
    );
    assert_eq!(taken["channel"], "cart:42");
    assert_eq!(events[1]["key"], json!({"base64": "Y2FydP8="}));
    assert_eq!(events[1]["not_taken"].as_array().map(Vec::len), Some(3));
    assert!(parsed.iter().all(|line| line["time"].is_string()));
}

/// What is not asked for does not even come from the server.
#[test]
fn one_pattern_of_keys() {
    let server = Server::start();
    let written = config(&server, "", &mappings());
    let tail = Running::start(&["tail", "--key", "cart:{user}", "--config", &written.file()]);
    tail.says(&["connected to"]);
    redis!(server, "SET", "order:1", "x");
    redis!(server, "SET", "cart:1:2", "x");
    redis!(server, "PUBLISH", "news", "x");
    redis!(server, "SET", "cart:42", "x");
    tail.says(&["cart:42"]);
    let events = tail.lines().into_iter().filter(|line| !line.contains(" -- "));
    assert_eq!(events.count(), 1, "{:?}", tail.lines());
    assert!(matches!(redis!(server, "PUBSUB", "NUMPAT"), Reply::Integer(1)));
    let told = redis!(server, "PUBLISH", "__keyspace@0__:order:1", "x");
    assert!(matches!(told, Reply::Integer(0)), "{told:?}");
}

/// A setting of the server is changed only as `run` changes it.
#[test]
fn the_servers_setting_is_changed_only_as_run_does() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", SETTING, "");
    let before = setting(&server);
    for (upstream, mappings) in [
        ("notifications = \"assume\"", mappings()),
        ("", mapping("subscribe = \"news\"\nchannel = \"news\"")),
    ] {
        let written = config(&server, upstream, &mappings);
        let tail = Running::start(&["tail", "--config", &written.file()]);
        tail.says(&["left as it is"]);
        tail.says(&["connected to"]);
        assert_eq!(setting(&server), before);
    }
    let written = config(&server, "notifications = \"require\"", &mappings());
    let mut tail = Running::start(&["tail", "--config", &written.file()]);
    tail.ends_with(1);
    assert!(
        tail.errors().contains("CONFIG SET notify-keyspace-events"),
        "{}",
        tail.errors()
    );
    tail.says(&["notify-keyspace-events must be set"]);
    assert_eq!(setting(&server), before);
    let written = config(&server, "", &mappings());
    let tail = Running::start(&["tail", "--config", &written.file()]);
    tail.says(&["is switched on, as `run` does"]);
    tail.says(&["connected to"]);
    assert_ne!(setting(&server), before);
    tail.complains("key events switched on");
}

#[test]
fn a_server_that_goes_and_comes_back() {
    let mut server = Server::start();
    let written = config(&server, "", &mappings());
    let tail = Running::start(&["tail", "--config", &written.file()]);
    tail.says(&["connected to"]);
    server.kill();
    tail.says(&["-- lost: "]);
    server.restart(Data::Lost);
    eventually("it is connected again", || {
        let lines = tail.lines();
        (lines.iter().filter(|line| line.contains("-- connected to")).count() == 2).then_some(())
    });
    redis!(server, "SET", "cart:42", "x");
    tail.says(&["cart:{user} -> cart:42"]);
}

/// A user who may hear just what the mappings take is told what to ask for.
#[test]
fn a_user_with_the_rights_of_run() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", SETTING, "KA");
    redis!(
        server,
        "ACL",
        "SETUSER",
        "relay",
        "on",
        ">secret",
        "~*",
        "+@all",
        "resetchannels",
        "&__keyspace@0__:cart:*"
    );
    let url = format!("redis://relay:secret@{}/0", server.address());
    let written = Written::new(&format!(
        "[upstream]\nurl = \"{url}\"\n{}",
        mapping("key = \"cart:{user}\"")
    ));
    let tail = Running::start(&["tail", "--config", &written.file()]);
    let told = tail.says(&["-- lost: ", "NOPERM"]);
    let (_, rights) = told.split_once("ACL SETUSER relay '").expect("it says what to run");
    let (rights, _) = rights.split_once('\'').expect("it is quoted");
    redis!(server, "ACL", "SETUSER", "relay", rights);
    tail.says(&["-- connected to"]);
    redis!(server, "SET", "other", "x");
    tail.says(&["other", "not taken"]);
}

/// Of a cluster all primaries are heard.
#[test]
fn a_cluster() {
    let cluster = Cluster::start(0);
    let written = Written::new(&format!("[upstream]\nurl = \"{}\"\n{}\n", cluster.url(), mappings()));
    let tail = Running::start(&["tail", "--config", &written.file()]);
    eventually("all are connected", || {
        let connected = tail.lines().into_iter().filter(|line| line.contains("-- connected to"));
        (connected.count() == 3).then_some(())
    });
    for primary in 0..3 {
        let key = cluster.keys("cart:", primary, 1).remove(0);
        cluster.run(&["SET", &key, "x"]);
        tail.says(&[&format!("cart:{{user}} -> {key}")]);
    }
}

/// Tracking tells neither what happened nor where, and that is said.
#[test]
fn keys_that_are_tracked() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", SETTING, "");
    let before = setting(&server);
    let written = config(&server, "source = \"tracking\"", &mapping("key = \"cart:{user}\""));
    let tail = Running::start(&["tail", "--config", &written.file()]);
    tail.says(&["keys are tracked"]);
    tail.says(&["connected to"]);
    redis!(server, "SET", "cart:42", "x");
    tail.says(&["(changed)", "cart:{user} -> cart:42"]);
    redis!(server, "SET", "other", "x");
    tail.says(&["(changed)", "other", "not taken"]);
    assert_eq!(setting(&server), before);
}

/// Nobody reads: it goes on in bounded memory, the server is not held up, and what is missing is told.
#[test]
fn a_reader_that_stands_still_is_told_what_it_missed() {
    const EVENTS: usize = 60_000;
    let server = Server::start();
    let written = config(&server, "", &mapping("key = \"cart:{user}\""));
    let mut tail = Running::unread(&["tail", "--json", "--config", &written.file()], &[]);
    let mut lines = BufReader::new(tail.pipe()).lines().map(|line| line.expect("text"));
    lines.find(|line| line.contains("\"connected\"")).expect("it connects");
    let mut connection = server.connect();
    let long = "x".repeat(1000);
    for batch in 0..EVENTS / 1000 {
        for n in 0..1000 {
            let key = format!("cart:{long}{}", batch * 1000 + n);
            connection
                .send(&[b"SET", key.as_bytes(), b"x"])
                .expect("the server takes commands");
        }
        for _ in 0..1000 {
            connection.receive().expect("the server answers");
        }
    }
    redis!(server, "SET", "cart:last", "x");
    // Until the tail has heard all, it is a client with something in its output buffer.
    eventually("all was heard", || {
        let clients = redis!(server, "CLIENT", "LIST", "TYPE", "pubsub").text();
        (clients.contains("omem=0") && clients.contains(" obl=0 ")).then_some(())
    });
    let file = format!("/proc/{}/status", tail.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(file).expect("it runs");
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .expect("the kernel tells it");
    let peak: usize = peak
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .expect("a number");
    assert!(peak < 64 << 10, "{peak} KiB");
    let (mut seen, mut missed) = (0, 0);
    for line in lines {
        let line: Value = serde_json::from_str(&line).expect("JSON");
        match line["type"].as_str() {
            Some("event") => seen += 1,
            Some("missed") => missed += line["count"].as_u64().expect("a number") as usize,
            _ => panic!("{line}"),
        }
        if seen + missed == EVENTS + 1 {
            break;
        }
    }
    assert!(seen >= 4096 && missed > 0, "{seen} {missed}");
    // The last words of a pipe that is closed: nobody reads any more.
    redis!(server, "SET", "cart:1", "x");
    tail.ends_with(0);
}
