//! What is heard of the server follows the mappings, on the connection that is there.

use serde_json::{Value, json};

use super::{RETAIN, ended, events, keys, undisturbed};
use crate::harness::{Client, Cluster, Relay, Reply, Server, Sse, eventually, mapping, track};
use crate::{both, redis};

fn patterns(server: &Server) -> i64 {
    match redis!(server, "PUBSUB", "NUMPAT") {
        Reply::Integer(count) => count,
        other => panic!("{other:?}"),
    }
}

/// How often keyrelay has subscribed by a new connection.
fn reconnects(relay: &Relay) -> f64 {
    relay.metric("keyrelay_upstream_reconnects_total")
}

both! {
    /// The next message that is published after `ready` is heard.
    fn a_topic_that_comes<C>() {
        let server = Server::start();
        let mut relay = Relay::start(&server, &keys("k"));
        let topics = mapping("subscribe = \"news:{topic}\"") + &mapping("subscribe = \"single\"");
        relay.reload(&(keys("k") + &topics));
        let mut client = C::open(&relay, &["news:a", "single"]);
        client.ready();
        redis!(server, "PUBLISH", "news:a", "one");
        redis!(server, "PUBLISH", "single", "two");
        client.until("both", |memory| memory.messages.len() == 2);
        let values: Vec<Value> = client.memory().messages.iter().map(|message| message.value().clone()).collect();
        assert_eq!(values, [json!("one"), json!("two")]);
        relay.reload(&keys("k"));
        ended(&mut client);
        eventually("nobody subscribes to it", || (patterns(&server) == 1).then_some(()));
        assert_eq!(redis!(server, "PUBSUB", "CHANNELS", "single"), Reply::Array(Vec::new()));
        assert_eq!(reconnects(&relay), 0.0);
    }

    /// So many patterns that one for all takes their place, and back: nothing is told twice, and nothing is missed.
    fn one_pattern_for_all_and_back<C>() {
        let server = Server::start();
        let few = events("log") + &mapping(&format!("subscribe = \"news:{{topic}}\"\n{RETAIN}"));
        let many: String = (0..12).map(|n| keys(&format!("k{n}"))).collect();
        let topics: String = (0..12).map(|n| mapping(&format!("subscribe = \"news:{n}:{{x...}}\""))).collect();
        let mut relay = Relay::start(&server, &few);
        let mut client = C::open(&relay, &["log:1", "news:a"]);
        client.ready();
        let mut resp = server.connect();
        let mut sent = 0;
        let mut send = |times: usize| {
            for _ in 0..times {
                sent += 1;
                let text = sent.to_string();
                resp.command(&[b"SET", b"log:1", text.as_bytes()]).unwrap();
                resp.command(&[b"PUBLISH", b"news:a", text.as_bytes()]).unwrap();
            }
            sent
        };
        for round in 0..20 {
            let mappings = match round % 2 {
                0 => format!("{few}{many}{topics}"),
                _ => few.clone(),
            };
            // Written all the while, so that some of it falls between the two plans.
            std::thread::scope(|scope| {
                let writing = scope.spawn(|| send(200));
                relay.reload(&mappings);
                writing.join().unwrap();
            });
        }
        let sent = send(1);
        client.until("all of both", |memory| memory.messages.len() >= 2 * sent);
        let told = client.memory().values_of("news:a");
        let wrong = told.iter().zip(1..).find(|(value, n)| value.as_str() != Some(&n.to_string()));
        assert_eq!((wrong, told.len()), (None, sent), "each once, and in order");
        assert_eq!(client.memory().values_of("log:1").len(), sent);
        undisturbed(&client);
        assert_eq!(reconnects(&relay), 0.0);
    }
}

/// Keys are tracked one prefix more; a prefix that covers others takes a new connection, and that is told.
#[test]
fn tracked_prefixes() {
    track();
    let server = Server::start();
    let mut relay = Relay::start(&server, &keys("a:b"));
    let mut client = Sse::open(&relay, &["a:b:1"]);
    client.ready();
    relay.reload(&(keys("a:b") + &keys("c")));
    let mut other = Sse::open(&relay, &["c:1"]);
    other.ready();
    redis!(server, "SET", "c:1", "x");
    other.sees("c:1", "c:1", "x");
    undisturbed(&client);
    assert_eq!(reconnects(&relay), 0.0);
    relay.reload(&(keys("a:b") + &mapping("key = \"a:{rest...}\"\nchannel = \"all\"")));
    ended(&mut other);
    let mut all = Sse::open(&relay, &["all"]);
    all.ready();
    client.control("fresh");
    assert_eq!(reconnects(&relay), 1.0);
    redis!(server, "SET", "a:b:1", "y");
    redis!(server, "SET", "a:c", "z");
    client.sees("a:b:1", "a:b:1", "y");
    all.sees("all", "a:b:1", "y");
    all.sees("all", "a:c", "z");
    assert_eq!(client.memory().count("end"), 0);
}

/// A relay that heard no keys comes to hear some.
#[test]
fn the_first_key_mapping() {
    let server = Server::start();
    let news = mapping("subscribe = \"news\"");
    let mut relay = Relay::start(&server, &news);
    let mut client = Sse::open(&relay, &["news"]);
    client.ready();
    redis!(server, "SET", "k:1", "a");
    relay.reload(&(news + &keys("k")));
    let mut state = Sse::open(&relay, &["k:1"]);
    state.sees("k:1", "k:1", "a");
    state.ready();
    redis!(server, "SET", "k:1", "b");
    state.sees("k:1", "k:1", "b");
    redis!(server, "PUBLISH", "news", "x");
    client.until("the message", |memory| memory.messages.len() == 1);
    // The server's setting had to be seen to, on another connection: what was published meanwhile is missing, and that is told.
    assert_eq!(client.memory().count("gap"), 1);
    assert_eq!(client.memory().count("end"), 0);
}

/// What the server refuses keeps nobody else waiting, and is asked for again.
#[test]
fn what_the_server_refuses() {
    let server = Server::start();
    server.grant("reset resetchannels on >secret ~* +@all &__keyspace@0__:k:*");
    let url = format!("redis://relay:secret@{}", server.address());
    let mut relay = Relay::at(&url, "", &keys("k"));
    let mut client = Sse::open(&relay, &["k:1"]);
    client.ready();
    relay.reload(&(keys("k") + &keys("other") + &mapping("subscribe = \"news\"")));
    eventually("the refusal is told", || {
        relay.log().contains("refuses what the new mappings need").then_some(())
    });
    let mut waits = Sse::open(&relay, &["news"]);
    redis!(server, "SET", "k:1", "a");
    client.sees("k:1", "k:1", "a");
    let mut later = Sse::open(&relay, &["k:2"]);
    later.ready();
    assert_eq!(waits.memory().count("ready"), 0);
    server.grant("allchannels");
    waits.ready();
    redis!(server, "PUBLISH", "news", "x");
    waits.until("the message", |memory| memory.messages.len() == 1);
    undisturbed(&client);
}

/// Each node of a cluster is asked for what is new.
#[test]
fn in_a_cluster() {
    let cluster = Cluster::start(0);
    let mut relay = Relay::at(&cluster.url(), "", &keys("stays"));
    let mut stays = Sse::open(&relay, &["stays:1"]);
    stays.ready();
    let topic = mapping("subscribe = \"news\"");
    relay.reload(&(keys("stays") + &keys("comes") + &topic));
    let names: Vec<String> = (0..30).map(|n| format!("comes:{n}")).collect();
    let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    wanted.push("news");
    let mut client = Sse::open(&relay, &wanted);
    client.ready();
    for name in &names {
        cluster.run(&["SET", name, "a"]);
    }
    for name in &names {
        client.sees(name, name, "a");
    }
    undisturbed(&stays);
}
