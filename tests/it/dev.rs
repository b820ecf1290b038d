//! `keyrelay run --dev`: what it opens, follows and logs.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::http::request;
use crate::harness::{Running, Server, Written, eventually, mapping};
use crate::redis;

fn config(server: &Server, mappings: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[upstream]\nurl = \"{}\"\n{mappings}",
        server.url()
    )
}

fn address(relay: &Running) -> SocketAddr {
    let line = relay.says(&["listening http://"]);
    let (_, address) = line.split_once("http://").expect("a URL");
    address.trim_end_matches('/').parse().expect("an address")
}

fn start(server: &Server, mappings: &str) -> (Written, Running, SocketAddr) {
    let written = Written::new(&config(server, mappings));
    let relay = Running::start(&["run", "--dev", &written.file()]);
    let address = address(&relay);
    (written, relay, address)
}

fn opens(relay: SocketAddr, channel: &str) -> bool {
    request(relay, "GET", &format!("/channels/{channel}"), &[]).status() == 200
}

/// Of every port, and under each of its names; of nobody else. Without --dev it is nobody.
#[test]
fn pages_of_localhost_may_connect() {
    let server = Server::start();
    let (written, relay, address) = start(&server, &mapping("key = \"v:{id}\""));
    let status = |address, origin: &str| request(address, "GET", "/channels/v:1", &[("Origin", origin)]).status();
    for origin in [
        "http://localhost",
        "http://localhost:5173",
        "https://localhost:8443",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
    ] {
        assert_eq!(status(address, origin), 200, "{origin}");
    }
    for origin in ["http://example.com", "http://localhost.example.com:5173", "null"] {
        assert_eq!(status(address, origin), 403, "{origin}");
    }
    relay.complains("for development only");
    let production = Running::start(&["run", &written.file()]);
    let address = self::address(&production);
    assert_eq!(status(address, "http://localhost:5173"), 403);
    assert!(!production.errors().contains("for development only"));
}

/// The config, a file that it includes, one that comes to be there, and a template; a broken one is told and changes nothing.
#[test]
fn what_is_saved_counts() {
    let server = Server::start();
    for key in ["v:1", "w:1", "x:1"] {
        redis!(server, "SET", key, "x");
    }
    let include =
        |mappings: &str| config(&server, mappings).replacen("[server]", "include = [\"conf.d/*.toml\"]\n[server]", 1);
    let written = Written::new(&include(&mapping("key = \"v:{id}\"")));
    std::fs::create_dir(written.path("conf.d")).expect("a folder");
    let relay = Running::start(&["run", "--dev", &written.file()]);
    let address = address(&relay);
    assert!(opens(address, "v:1") && !opens(address, "w:1"));
    let saved = |what: &str, channel: &str| eventually(what, || opens(address, channel).then_some(()));
    written.write("conf.d/more.toml", &mapping("key = \"w:{id}\""));
    saved("a new file counts", "w:1");
    written.write("conf.d/more.toml", &mapping("key = \"x:{id}\""));
    saved("a file that is included counts", "x:1");
    eventually("what is no longer there does not count", || {
        (!opens(address, "w:1")).then_some(())
    });
    written.write("keyrelay.toml", "[[mapping]]\nkye = \"v:{id}\"\n");
    relay.complains("kye");
    assert!(opens(address, "x:1") && opens(address, "v:1"));
    // As an editor saves: another file takes its place.
    let html = "key = \"v:{id}\"\nformat = \"template\"\ntemplate_file = \"row.html\"";
    written.write("row.html", "<b>{{ value }}</b>");
    written.write("next", &include(&mapping(html)));
    std::fs::rename(written.path("next"), written.path("keyrelay.toml")).expect("it can be renamed");
    let shows = |text: &str| {
        eventually(text, || {
            let shown = request(address, "GET", "/channels/v:1", &[]).text();
            shown.contains(text).then_some(())
        });
    };
    shows("<b>x</b>");
    written.write("row.html", "<i>{{ value }}</i>");
    shows("<i>x</i>");
    // Still for development.
    let page = request(address, "GET", "/channels/v:1", &[("Origin", "http://localhost:5173")]);
    assert_eq!(page.status(), 200);
}

/// A line for each change, with the key and without the value; none without --dev.
#[test]
fn deliveries_are_logged_by_key() {
    let server = Server::start();
    let events = "key = \"order:{id}\"\nchannel = \"orders\"\nmode = \"events\"";
    let published = "subscribe = \"news\"\nchannel = \"news\"";
    let mappings = [mapping("key = \"v:{id}\""), mapping(events), mapping(published)].concat();
    redis!(server, "SET", "v:1", "there before");
    let (written, relay, address) = start(&server, &mappings);
    let production = Running::start(&["run", &written.file()]);
    let open = |address: SocketAddr| {
        let url = format!("http://{address}");
        ["v:1", "orders", "news"].map(|channel| {
            let tail = Running::start(&["tail", "--url", &url, channel]);
            tail.says(&["-- ready"]);
            tail
        })
    };
    let clients = [open(address), open(self::address(&production))];
    redis!(server, "SET", "v:1", "a secret value");
    for tail in clients.iter().map(|clients| &clients[0]) {
        tail.says(&["a secret value"]);
    }
    redis!(server, "SET", "v:2", "nobody listens to it");
    redis!(server, "SET", "order:7", "a secret value");
    redis!(server, "PUBLISH", "news", "a secret value");
    redis!(server, "DEL", "v:1");
    for tail in clients.iter().map(|clients| &clients[0]) {
        tail.says(&["\"value\":null"]);
    }
    for tail in clients.iter().map(|clients| &clients[2]) {
        tail.says(&["a secret value"]);
    }
    relay.complains("\"absent\":true");
    let lines: Vec<Value> = relay
        .errors()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["message"] == "delivery")
        .collect();
    let told: Vec<[&str; 3]> = lines
        .iter()
        .map(|line| ["key", "channel", "event"].map(|field| line[field].as_str().unwrap_or_default()))
        .collect();
    let mut expected = [
        ["v:1", "v:1", "set"],
        ["order:7", "orders", "set"],
        ["news", "news", ""],
        ["v:1", "v:1", "del"],
    ];
    let mut sorted = told.clone();
    sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    assert!(lines.iter().all(|line| line["subscribers"] == 1), "{lines:?}");
    assert!(!relay.errors().contains("a secret value"));
    assert!(!production.errors().contains("order:7") && !production.errors().contains("delivery"));
}

/// Who listens where others reach it is told what that means.
#[test]
fn an_address_that_others_reach() {
    let server = Server::start();
    let text = config(&server, "").replacen("127.0.0.1:0", "0.0.0.0:0", 1);
    let written = Written::new(&text);
    let relay = Running::start(&["run", "--dev", &written.file()]);
    relay.complains("others than this machine may reach the development relay");
    let (_written, relay, _) = start(&server, "");
    relay.complains("upstream checked");
    assert!(!relay.errors().contains("others than this machine"));
}
