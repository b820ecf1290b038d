//! The ways to a server: sockets, IPv6, and a user with the least rights.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use serde_json::{Value, json};

use crate::harness::{Client, Cluster, Data, Relay, Reply, Sentinel, Server, Sse, eventually, mapping};
use crate::redis;

const MAPPING: &str = "key = \"cart:{id}\"\nchannel = \"carts\"";

/// Values and changes come, by feed and reader.
#[track_caller]
fn relays(server: &Server, upstream: &str) {
    redis!(server, "SET", "cart:1", "one");
    let relay = Relay::reaching(upstream, "", &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["carts"]);
    client.ready();
    client.sees("carts", "cart:1", "one");
    redis!(server, "SET", "cart:1", "two");
    client.sees("carts", "cart:1", "two");
}

#[test]
fn over_a_unix_socket() {
    let server = Server::start();
    let socket = server.socket();
    relays(&server, &format!("url = \"redis+unix://{}\"", socket.display()));
    // All that keyrelay connected to was the socket.
    let clients = redis!(server, "CLIENT", "LIST").text();
    let other = |line: &&str| line.contains("name=keyrelay") && !line.contains("server.sock");
    assert_eq!(clients.lines().find(other), None);
}

/// Nothing but an IPv6 address leads there, whoever says where the servers are.
mod over_ipv6_only {
    use super::*;

    const HOST: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn to_a_server() {
        let server = Server::at(HOST, "");
        let url = server.url();
        assert!(url.starts_with("redis://[::1]:"), "{url}");
        relays(&server, &format!("url = \"{url}\""));
    }

    #[test]
    fn to_the_primary_that_sentinels_name() {
        let sentinel = Sentinel::start_at(HOST);
        relays(&sentinel.servers[0], &format!("url = \"{}\"", sentinel.url()));
    }

    #[test]
    fn to_the_nodes_of_a_cluster() {
        let cluster = Cluster::start_at(HOST, 0);
        let keys: Vec<String> = (0..3).flat_map(|primary| cluster.keys("cart:", primary, 1)).collect();
        for key in &keys {
            cluster.run(&["SET", key, "one"]);
        }
        let relay = Relay::reaching(&format!("url = \"{}\"", cluster.url()), "", &mapping(MAPPING));
        let mut client = Sse::open(&relay, &["carts"]);
        client.ready();
        for key in &keys {
            client.sees("carts", key, "one");
            cluster.run(&["SET", key, "two"]);
            client.sees("carts", key, "two");
        }
    }
}

/// Whichever address of a name the server is at, it is found there: what refuses is passed over.
#[test]
fn at_any_address_of_a_name() {
    let known = ("localhost", 0).to_socket_addrs().expect("localhost is known");
    let known: Vec<IpAddr> = known.map(|address| address.ip()).collect();
    let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for host in hosts {
        if !known.contains(&host) {
            eprintln!("NOT TESTED: on this machine localhost is {known:?}, and not {host}");
            continue;
        }
        let server = Server::at(host, "");
        relays(
            &server,
            &format!("url = \"redis://localhost:{}/0\"", server.address().port()),
        );
    }
}

#[test]
fn another_database() {
    let server = Server::start();
    redis!(server, "SELECT", "5");
    relays(&server, &format!("url = \"redis://{}/5\"", server.address()));
}

/// The line in docs/upstream.md, as it stands there.
fn documented_line() -> Vec<String> {
    let text = include_str!("../../docs/upstream.md");
    let line = text.lines().find(|line| line.starts_with("ACL SETUSER keyrelay "));
    let line = line.expect("the document shows the line").replace("PASSWORD", "sesame");
    line.split(' ').map(str::to_owned).collect()
}

/// A server that lets keyrelay do what the documented line says and nothing else, and that sends all key events.
fn guarded() -> Server {
    let server = Server::with_config("notify-keyspace-events KEA");
    let line = documented_line();
    let words: Vec<&dyn AsRef<[u8]>> = line.iter().map(|word| word as &dyn AsRef<[u8]>).collect();
    assert_eq!(server.run(&words), Reply::Status("OK".into()));
    server
}

/// What the server refused, in the words of its log.
fn refused(server: &Server) -> Vec<Reply> {
    match redis!(server, "ACL", "LOG") {
        Reply::Array(entries) => entries,
        other => panic!("ACL LOG gives a list, not {other:?}"),
    }
}

/// Every kind of mapping works with the documented rights, and nothing else is ever asked for.
#[test]
fn the_documented_rights_are_enough_for_every_kind_of_mapping() {
    let server = guarded();
    let upstream = format!("url = \"redis://keyrelay:sesame@{}/0\"", server.address());
    let kinds: [(&str, &str, Value); 6] = [
        ("channel = \"cart:{id}\"", "cart:1", json!("text")),
        ("channel = \"carts\"", "carts", json!("text")),
        (
            "channel = \"carts\"\nfields = [\"name\"]",
            "carts",
            json!({"name": "ada"}),
        ),
        (
            "channel = \"carts\"\ndecode = \"json\"\nexpires = true",
            "carts",
            json!({"a": 1}),
        ),
        ("channel = \"carts\"\nsnapshot = false", "carts", json!("text")),
        ("channel = \"carts\"\nmode = \"events\"", "carts", json!("text")),
    ];
    for (lines, channel, value) in kinds {
        let relay = Relay::reaching(&upstream, "", &mapping(&format!("key = \"cart:{{id}}\"\n{lines}")));
        let mut client = Sse::open(&relay, &[channel]);
        client.ready();
        match &value {
            Value::Object(fields) if fields.contains_key("name") => {
                drop(redis!(server, "HSET", "cart:1", "name", "ada", "age", "36"));
            }
            Value::Object(_) => drop(redis!(server, "SET", "cart:1", "{\"a\":1}", "EX", "100")),
            _ => drop(redis!(server, "SET", "cart:1", "text")),
        }
        client.sees(channel, "cart:1", value);
        redis!(server, "FLUSHALL");
        if !lines.contains("events") {
            client.misses(channel, "cart:1");
        }
        checked(&relay);
    }
    assert_eq!(refused(&server), [], "nothing else was asked for");
}

#[test]
fn the_documented_rights_are_enough_for_every_type() {
    let server = guarded();
    let upstream = format!("url = \"redis://keyrelay:sesame@{}/0\"", server.address());
    let relay = Relay::reaching(&upstream, "", &mapping(MAPPING));
    redis!(server, "RPUSH", "cart:list", "a", "b");
    redis!(server, "SADD", "cart:set", "a");
    redis!(server, "ZADD", "cart:zset", "1", "a");
    redis!(server, "XADD", "cart:stream", "1-0", "f", "v");
    redis!(server, "HSET", "cart:hash", "f", "v");
    let mut client = Sse::open(&relay, &["carts"]);
    client.ready();
    redis!(server, "RPUSH", "cart:list", "c");
    client.sees("carts", "cart:list", json!(["a", "b", "c"]));
    client.sees("carts", "cart:set", json!(["a"]));
    client.sees("carts", "cart:zset", json!([{"member": "a", "score": 1}]));
    client.sees("carts", "cart:stream", json!([{"id": "1-0", "fields": {"f": "v"}}]));
    client.sees("carts", "cart:hash", json!({"f": "v"}));
    checked(&relay);
    assert_eq!(refused(&server), [], "nothing else was asked for");
}

/// The checks at the start found nothing.
#[track_caller]
fn checked(relay: &Relay) {
    let line = relay.checked();
    assert!(line.contains("\"problems\":0,\"warnings\":0"), "{}", relay.log());
}

/// A server that is away at the start is checked when it comes.
#[test]
fn who_comes_late_is_checked_then() {
    let mut server = Server::away();
    let relay = Relay::start(&server, &mapping(MAPPING));
    eventually("the log says that the server is away", || {
        relay.log().contains("upstream lost").then_some(())
    });
    assert!(!relay.log().contains("upstream check"), "{}", relay.log());
    server.restart(Data::Lost);
    checked(&relay);
}

#[test]
fn a_right_that_is_missing_is_said_at_the_start() {
    let server = guarded();
    redis!(server, "ACL", "SETUSER", "keyrelay", "-hgetall", "-client");
    let upstream = format!("url = \"redis://keyrelay:sesame@{}/0\"", server.address());
    let relay = Relay::reaching(&upstream, "", &mapping(MAPPING));
    let line = eventually("the log says what is missing", || {
        let log = relay.log();
        let line = log.lines().find(|line| line.contains("\"subject\":\"rights\""))?;
        Some(line.to_owned())
    });
    assert!(line.contains("WARN"), "{line}");
    assert!(
        line.contains("ACL SETUSER keyrelay") && line.contains("+hgetall"),
        "{line}"
    );
    assert!(!line.contains("sesame"), "{line}");
}
