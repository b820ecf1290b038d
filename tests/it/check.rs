//! `check --connect`: what it finds out about a server and its user, and what it says to do.

use std::process::{Command, Output};

use tempfile::TempDir;

use crate::harness::{Client, Cluster, PROGRAM, Relay, Reply, Server, Sse, TlsServer, eventually, mapping};
use crate::redis;

/// A check, done.
struct Checked {
    code: Option<i32>,
    text: String,
}

impl Checked {
    /// The line of a subject, with its verdict in front.
    #[track_caller]
    fn line(&self, subject: &str) -> &str {
        let column = format!(" {subject} ");
        let mut lines = self.text.lines().skip_while(|line| !line.contains("the server:"));
        let line = lines.find(|line| line.get(12..).is_some_and(|rest| rest.starts_with(&column)));
        line.unwrap_or_else(|| panic!("nothing of {subject} in\n{}", self.text))
            .trim()
    }

    /// What to do about a subject.
    #[track_caller]
    fn remedy(&self, subject: &str) -> &str {
        let mut lines = self.text.lines().skip_while(|line| line.trim() != self.line(subject));
        let remedy = lines.nth(1).and_then(|line| line.trim().strip_prefix("-> "));
        remedy.unwrap_or_else(|| panic!("nothing to do about {subject} in\n{}", self.text))
    }

    #[track_caller]
    fn says(&self, subject: &str, verdict: &str, words: &[&str]) -> &Checked {
        let line = self.line(subject);
        assert!(line.starts_with(verdict), "{line}");
        for word in words {
            assert!(self.text.contains(word), "`{word}` is not in\n{}", self.text);
        }
        self
    }
}

const MAPPING: &str = "key = \"cart:{user}\"\nchannel = \"carts\"";

/// Checks a config of these lines of `[upstream]` and one mapping.
fn check(upstream: &str, arguments: &[&str]) -> Checked {
    check_mappings(upstream, &mapping(MAPPING), arguments)
}

fn check_mappings(upstream: &str, mappings: &str, arguments: &[&str]) -> Checked {
    let dir: TempDir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("keyrelay.toml");
    std::fs::write(&file, format!("[upstream]\n{upstream}\n{mappings}")).expect("the directory can be written to");
    let output: Output = Command::new(PROGRAM)
        .args(["check", "--connect"])
        .args(arguments)
        .arg(&file)
        .env_remove("REDIS_URL")
        .output()
        .expect("the command runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Checked {
        code: output.status.code(),
        text: String::from_utf8(output.stdout).expect("text"),
    }
}

fn upstream(server: &Server) -> String {
    format!("url = \"{}\"", server.url())
}

/// The words of a command line, as a shell takes them apart.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_with(String::new);
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_with(String::new).push(c),
        }
    }
    words.extend(word);
    words
}

/// Does what a remedy says, which begins with `redis-cli -p PORT`.
#[track_caller]
fn follow(server: &Server, remedy: &str) {
    let line = remedy.split("; then").next().unwrap_or(remedy);
    let line = line.split(", and write it").next().unwrap_or(line);
    let start = format!("redis-cli -p {} ", server.address().port());
    let words = words(
        line.strip_prefix(&start)
            .unwrap_or_else(|| panic!("no command: {remedy}")),
    );
    let words: Vec<&dyn AsRef<[u8]>> = words.iter().map(|word| word as &dyn AsRef<[u8]>).collect();
    server.run(&words);
}

#[test]
fn where_no_keys_are_mapped_no_key_events_are_missed() {
    let server = Server::start();
    let checked = check_mappings(&upstream(&server), &mapping("subscribe = \"news\""), &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    checked.says("source", "ok", &["published messages by 1 channel"]);
    assert!(!checked.text.contains("keyspace"), "{}", checked.text);
}

#[test]
fn a_server_with_everything_is_ok() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "KEA");
    let checked = check(&upstream(&server), &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    checked
        .says("reachable", "ok", &[&format!("{} accepts", server.address())])
        .says("login", "ok", &["user default", "RESP3"])
        .says("role", "ok", &["primary"])
        .says("rights", "ok", &[])
        .says("source", "ok", &["1 pattern"])
        .says("notifications", "ok", &["which is enough"])
        .says("output buffer", "ok", &["32 MiB", "8 MiB for 60 s"])
        .says("events", "unknown", &["--canary KEY"]);
    let info = redis!(server, "INFO").text();
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .unwrap();
    let product = if info.contains("mvcc_depth") { "KeyDB" } else { "Redis" };
    checked.says("server", "ok", &[&format!("{product} {version}")]);
}

/// Neither keys nor settings are written, and the missing flags are named.
#[test]
fn looking_changes_nothing() {
    let server = Server::start();
    let checked = check(&upstream(&server), &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    checked.says("notifications", "warning", &["is \"\", and must be \"Kg$lshzxet\""]);
    assert_eq!(
        redis!(server, "CONFIG", "GET", "notify-keyspace-events"),
        Reply::Array(vec![Reply::Bulk("notify-keyspace-events".into()), Reply::Bulk(vec![])])
    );
    assert_eq!(redis!(server, "DBSIZE"), Reply::Integer(0));
    let stats = redis!(server, "INFO", "commandstats").text();
    assert!(!stats.contains("cmdstat_set:"), "{stats}");
    follow(&server, checked.remedy("notifications"));
    check(&upstream(&server), &[]).says("notifications", "ok", &[]);
    let required = format!("{}\nnotifications = \"require\"", upstream(&server));
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "E");
    let checked = check(&required, &[]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    checked.says("notifications", "problem", &["must be \"KEg$lshzxet\""]);
}

#[test]
fn a_canary_proves_that_events_come() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "KEA");
    let canary = |key: &str| check(&upstream(&server), &["--canary", key]);
    canary("cart:canary").says("events", "ok", &["cart:canary was written"]);
    assert_eq!(redis!(server, "DBSIZE"), Reply::Integer(0), "it is removed again");
    canary("elsewhere").says("events", "unknown", &["no mapping takes the key"]);
    redis!(server, "SET", "cart:1", "mine");
    canary("cart:1").says("events", "unknown", &["is there already"]);
    assert_eq!(redis!(server, "GET", "cart:1").text(), "mine");
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "");
    let assumed = format!("{}\nnotifications = \"assume\"", upstream(&server));
    let checked = check(&assumed, &["--canary", "cart:canary"]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    checked.says("events", "problem", &["none came"]);
}

/// Following what is said leads to a user with whom everything works.
#[test]
fn missing_rights_are_said_with_the_line_that_gives_them() {
    let server = Server::start();
    server.grant("reset resetchannels on >hush -@all +hello");
    let upstream = format!("url = \"redis://relay:hush@{}/0\"", server.address());
    let mappings = [
        mapping(MAPPING),
        mapping("key = \"user:{id}\"\nfields = [\"name\"]"),
        mapping("key = \"news\""),
    ]
    .concat();
    let mut rounds = 0;
    let checked = loop {
        let checked = check_mappings(&upstream, &mappings, &[]);
        if checked.line("rights").starts_with("ok") {
            break checked;
        }
        assert_eq!(checked.code, Some(1));
        rounds += 1;
        assert!(rounds < 4, "{}", checked.text);
        follow(&server, checked.remedy("rights"));
    };
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    assert!(!checked.text.contains("hush"), "a secret is shown");
    let lines = format!("{upstream}\nusername = \"relay\"\npassword = \"hush\"").replace("relay:hush@", "");
    let relay = Relay::reaching(&lines, "", &mappings);
    redis!(server, "SET", "cart:1", "one");
    redis!(server, "HSET", "user:1", "name", "ada", "age", "36");
    redis!(server, "RPUSH", "news", "first");
    let mut client = Sse::open(&relay, &["carts", "user:1", "news"]);
    client.ready();
    redis!(server, "RPUSH", "news", "second");
    client.sees("news", "news", serde_json::json!(["first", "second"]));
    client.sees("carts", "cart:1", "one");
    client.sees("user:1", "user:1", serde_json::json!({"name": "ada"}));
}

#[test]
fn what_cannot_be_reached_is_a_problem() {
    let away = Server::away();
    let checked = check(&upstream(&away), &[]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    checked.says("reachable", "problem", &["nobody accepts", &away.address().to_string()]);
    let checked = check("url = \"redis://no-such-host.invalid\"", &[]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    checked.says("reachable", "problem", &["no-such-host.invalid is not found"]);
    let checked = check("url = \"redis+unix:///nowhere/redis.sock\"", &[]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    assert!(checked.text.contains("/nowhere/redis.sock"), "{}", checked.text);
}

#[test]
fn a_wrong_password_is_a_problem() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "requirepass", "sesame");
    let with = |password: &str| check(&format!("{}\npassword = \"{password}\"", upstream(&server)), &[]);
    let checked = with("wrong-one");
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    checked.says("login", "problem", &["user and password"]);
    assert!(!checked.text.contains("wrong-one"), "a secret is shown");
    let checked = check(&upstream(&server), &[]);
    checked.says("login", "problem", &["NOAUTH"]);
    let checked = with("sesame");
    assert_eq!(checked.code, Some(0), "{}", checked.text);
}

#[test]
fn a_server_without_config_is_said_how_to_go_on_with() {
    let server = Server::with_config("rename-command CONFIG \"\"\nnotify-keyspace-events KEA");
    let checked = check(&upstream(&server), &[]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    checked.says("notifications", "problem", &["notifications = \"assume\""]);
    let assumed = format!("{}\nnotifications = \"assume\"", upstream(&server));
    let checked = check(&assumed, &["--canary", "cart:canary"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    checked
        .says("notifications", "unknown", &[])
        .says("output buffer", "unknown", &[])
        .says("events", "ok", &["cart:canary was written"]);
}

#[test]
fn a_low_output_buffer_is_warned_of() {
    let server = Server::with_config("client-output-buffer-limit pubsub 1mb 512kb 10");
    let checked = check(&upstream(&server), &[]);
    checked.says("output buffer", "warning", &["1 MiB"]);
    follow(&server, checked.remedy("output buffer"));
    check(&upstream(&server), &[]).says("output buffer", "ok", &["32 MiB"]);
}

#[test]
fn replicas_and_their_links_are_told() {
    let mut primary = Server::start();
    let port = primary.address().port();
    let replica = Server::with_config(&format!("replicaof 127.0.0.1 {port}"));
    let linked = |up: bool| {
        eventually("the link is as it should be", || {
            let info = redis!(replica, "INFO", "replication").text();
            (info.contains("master_link_status:up") == up).then_some(())
        });
    };
    linked(true);
    check(&upstream(&replica), &[]).says("role", "ok", &[&format!("replica; the link to 127.0.0.1:{port} is up")]);
    check(&upstream(&primary), &[]).says("role", "ok", &["primary, with 1 replica"]);
    primary.kill();
    linked(false);
    let checked = check(&upstream(&replica), &[]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    checked.says("role", "problem", &["is down, so it falls behind"]);
}

#[test]
fn an_active_node_is_told() {
    let first = Server::start();
    if !redis!(first, "INFO").text().contains("mvcc_depth") {
        eprintln!("skipped: active replication is KeyDB's");
        return;
    }
    let port = first.address().port();
    let node = Server::with_config(&format!(
        "active-replica yes\nmulti-master yes\nreplicaof 127.0.0.1 {port}"
    ));
    eventually("the link is up", || {
        let info = redis!(node, "INFO", "replication").text();
        info.contains("master_link_status:up").then_some(())
    });
    check(&upstream(&node), &[]).says(
        "role",
        "ok",
        &[&format!("active node; the link to 127.0.0.1:{port} is up")],
    );
}

#[test]
fn tls_and_sockets_are_checked_too() {
    let tls = TlsServer::start();
    let checked = check(&tls.upstream(&tls.authority.file()), &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    checked.says("tls", "ok", &["trusted, by"]);
    checked.says("notifications", "warning", &["--tls --cacert"]);
    let checked = check(&format!("url = \"rediss://{}\"", tls.address()), &[]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    checked.says("tls", "problem", &["ca_file"]);
    let socket = tls.server.socket();
    let checked = check(&format!("url = \"redis+unix://{}\"", socket.display()), &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    checked.says("reachable", "ok", &["at the socket"]);
}

/// With client tracking nothing is asked of the server's settings, and a user who may not see them will do.
#[test]
fn tracking_needs_no_setting() {
    let server = Server::start();
    let rule = "reset resetchannels on >secret ~cart:* &keyrelay:idle -@all +ping +info +client|id +client|setname \
                +client|list +client|tracking +select +subscribe +psubscribe +@read +set +del +scan +time";
    server.grant(rule);
    let upstream = format!(
        "url = \"redis://relay:secret@{}/0\"\nsource = \"tracking\"",
        server.address()
    );
    let checked = check(&upstream, &["--canary", "cart:canary"]);
    checked.says("source", "ok", &["client tracking of keys by 1 prefix"]);
    checked.says("events", "ok", &["cart:canary was written, and heard of"]);
    assert!(!checked.text.contains("notify-keyspace-events"), "{}", checked.text);
}

/// Each primary of a cluster is tried; one that is taken for a single server is warned of.
#[test]
fn a_cluster_is_checked_node_by_node() {
    let cluster = Cluster::start(0);
    let checked = check(&format!("url = \"{}\"", cluster.url()), &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    assert_eq!(checked.text.matches("the server at").count(), 3, "{}", checked.text);
    assert_eq!(
        checked.text.matches(", a node of a cluster\n").count(),
        3,
        "{}",
        checked.text
    );
    let checked = check(&upstream(&cluster.nodes[0]), &[]);
    checked.says("server", "warning", &["redis-cluster://"]);
}
