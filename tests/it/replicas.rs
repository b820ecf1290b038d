//! Replicas that may be behind, and KeyDB nodes that all take writes and merge after a split.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{
    BOTH, Client, Cut, Data, Memory, Proxy, Relay, Reply, Server, Sse, active_nodes, eventually, follow, join, linked,
    mapping, mesh, names, prompt_server, replicate, split,
};
use crate::{both, redis};

fn mappings() -> String {
    [
        "key = \"v:{id}\"\nchannel = \"v\"",
        "key = \"e:{id}\"\nchannel = \"e\"\nmode = \"events\"",
    ]
    .map(mapping)
    .concat()
}

/// A primary, its replica, and a relay beside the replica with a client that knows the two keys.
struct Pair<C> {
    primary: Server,
    replica: Server,
    /// What the replica takes for its primary.
    proxy: Proxy,
    relay: Relay,
    client: C,
}

impl<C: Client> Pair<C> {
    #[track_caller]
    fn start() -> Pair<C> {
        Pair::without("")
    }

    #[track_caller]
    fn without(mechanism: &str) -> Pair<C> {
        let primary = prompt_server("");
        redis!(primary, "MSET", "v:1", "one", "v:2", "two");
        let replica = prompt_server("");
        let proxy = Proxy::start(primary.address());
        replicate(&replica, proxy.address());
        // Every read is the test's own.
        let upstream = format!("url = \"{}\"\nverify = \"off\"", replica.url());
        let relay = Relay::without(mechanism, &upstream, "", &mappings());
        let mut client = C::open(&relay, &["v", "e"]);
        client.ready();
        client.sees("v", "v:2", "two");
        Pair {
            primary,
            replica,
            proxy,
            relay,
            client,
        }
    }
}

/// Everything told since message number `before`, by key.
fn told<C: Client>(client: &C, before: usize) -> Vec<(String, Value)> {
    let messages = &client.memory().messages[before..];
    let mut told: Vec<_> = messages.iter().map(|each| (each.key(), each.value().clone())).collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    told
}

both! {
    /// What is written on the primary is read from the replica, where an expiry is a `del`.
    fn a_replica_is_mirrored<C>() {
        let Pair { primary, replica, proxy, relay, client: mut c } = Pair::<C>::start();
        redis!(primary, "SET", "v:1", "new");
        c.sees("v", "v:1", "new");
        redis!(primary, "SET", "v:2", "short", "PX", "50");
        c.misses("v", "v:2");
        redis!(primary, "SET", "e:1", "short", "PX", "50");
        // A look makes the primary notice it, and only then the replica hears.
        eventually("it is gone", || (redis!(primary, "EXISTS", "e:1") == Reply::Integer(0)).then_some(()));
        let gone = |memory: &Memory| memory.messages.iter().any(|each| each.json["event"] == "del" && each.key() == "e:1");
        c.until("the happening has the replica's name", gone);
        assert_eq!(c.memory().count("stale"), 0);
        assert_eq!(relay.metric("keyrelay_resyncs_total"), 0.0);
        drop((replica, proxy));
    }

    /// The link is down: clients are told, and so are operators. What was missed comes over the old link, and nothing is
    /// read for it.
    fn a_partial_synchronization_costs_nothing<C>() {
        let mut pair = Pair::<C>::start();
        let reads = pair.relay.metric("keyrelay_reads_total");
        pair.proxy.refuse(BOTH, true);
        pair.proxy.cut(BOTH, Cut::Close);
        let stale = pair.client.control("stale");
        assert_eq!(stale["reason"], "upstream-behind");
        let readiness = pair.relay.readiness();
        assert!(readiness.contains("may be behind: upstream-behind: the link to its primary is down, since "), "{readiness}");
        assert_eq!(pair.relay.metric("keyrelay_upstream_current"), 0.0);
        let status = pair.relay.ask("/status").json();
        let node = &status["upstream"][0];
        assert_eq!((&node["role"], &node["current"]["ok"]), (&json!("replica"), &json!(false)));
        redis!(pair.primary, "SET", "v:1", "missed");
        redis!(pair.primary, "SET", "e:1", "missed");
        let mut late = C::open(&pair.relay, &["v"]);
        assert_eq!(late.control("stale")["reason"], "upstream-behind");
        late.sees("v", "v:1", "one");
        assert_eq!(late.memory().count("ready"), 0, "ready implies fresh");
        pair.proxy.refuse(BOTH, false);
        pair.client.until("fresh", |memory| memory.count("fresh") == memory.count("stale"));
        assert_eq!(pair.client.memory().value("v", "v:1"), Some(&json!("missed")));
        assert_eq!(pair.client.memory().value("e", "e:1"), Some(&json!("missed")));
        late.ready();
        assert_eq!(pair.client.memory().count("gap"), 0);
        assert_eq!(pair.relay.metric("keyrelay_resyncs_total"), 0.0);
        let reads = pair.relay.metric("keyrelay_reads_total") - reads;
        assert!(reads <= 3.0, "{reads} reads for two changes");
        eventually("it is ready", || pair.relay.ready().then_some(()));
    }

    /// All data comes anew: what differs is told, and nothing else; of happenings, that some are missing.
    fn a_full_synchronization<C>() {
        let mut pair = Pair::<C>::start();
        let other = prompt_server("");
        redis!(other, "MSET", "v:1", "one", "v:2", "changed", "v:3", "three", "e:1", "missed");
        let before = pair.client.memory().messages.len();
        follow(&pair.replica, other.address());
        pair.client.until("a gap", |memory| memory.count("gap") == 1);
        pair.client.sees("v", "v:3", "three");
        pair.client.until("fresh", |memory| memory.count("fresh") == memory.count("stale"));
        let expected = [("v:2", "changed"), ("v:3", "three")];
        assert_eq!(told(&pair.client, before), expected.map(|(key, value)| (key.to_owned(), json!(value))));
        let controls = &pair.client.memory().controls;
        let stale = |(kind, data): &(String, Value)| kind == "stale" && names(&data["channels"]).contains(&"v");
        assert!(controls.iter().any(stale), "values may have gone back: {controls:?}");
        let gap = controls.iter().find(|(kind, _)| kind == "gap").unwrap();
        assert_eq!(gap.1["reason"], "upstream-resynced");
        assert_eq!(names(&gap.1["channels"]), ["e"]);
        redis!(other, "SET", "v:1", "live");
        pair.client.sees("v", "v:1", "live");
        assert!(linked(&pair.replica));
    }

    /// The primary is replaced by one without data while it is away.
    fn the_primary_comes_back_empty<C>() {
        let mut pair = Pair::<C>::start();
        pair.primary.kill();
        assert_eq!(pair.client.control("stale")["reason"], "upstream-behind");
        assert_eq!(pair.client.memory().value("v", "v:1"), Some(&json!("one")), "the replica still has it");
        pair.primary.restart(Data::Lost);
        pair.client.misses("v", "v:1");
        pair.client.misses("v", "v:2");
        pair.client.until("fresh", |memory| memory.count("fresh") == memory.count("stale"));
    }
}

/// A replica becomes a primary: nothing is lost by that, and it is behind nobody.
#[test]
fn a_replica_is_promoted() {
    let mut pair = Pair::<Sse>::start();
    pair.primary.kill();
    assert_eq!(pair.client.control("stale")["reason"], "upstream-behind");
    redis!(pair.replica, "REPLICAOF", "NO", "ONE");
    pair.client
        .until("fresh", |memory| memory.count("fresh") == memory.count("stale"));
    redis!(pair.replica, "SET", "v:1", "own");
    pair.client.sees("v", "v:1", "own");
    assert_eq!(pair.relay.metric("keyrelay_resyncs_total"), 0.0);
}

/// Two nodes with a relay beside each, and a client that knows what both have.
fn relays(nodes: &[Server], mechanism: &str) -> Vec<(Relay, Sse)> {
    let relay = |node: &Server| {
        let upstream = format!("url = \"{}\"", node.url());
        let relay = Relay::without(mechanism, &upstream, "", &mappings());
        let mut client = Sse::open(&relay, &["v", "e"]);
        client.ready();
        (relay, client)
    };
    nodes.iter().map(relay).collect()
}

/// A write in one region is told by the relays of all others, once by each.
#[test]
fn a_write_on_one_node_is_told_once_by_every_relay() {
    let Some(nodes) = mesh::<3>() else { return };
    let mut relays = relays(&nodes, "");
    for (at, node) in nodes.iter().enumerate() {
        for n in 0..20 {
            redis!(node, "SET", format!("v:{at}-{n}"), "value");
            redis!(node, "SET", format!("e:{at}-{n}"), "value");
        }
    }
    for (relay, client) in &mut relays {
        client.until("all is told", |memory| memory.messages.len() >= 120);
        let told: BTreeSet<String> = client.memory().messages.iter().map(|each| each.key()).collect();
        assert_eq!((told.len(), client.memory().messages.len()), (120, 120), "each once");
        assert_eq!(relay.metric("keyrelay_key_events_total"), 120.0);
        assert_eq!(relay.metric("keyrelay_resyncs_total"), 0.0);
    }
}

/// What is published on one node reaches subscribers on all others, once.
#[test]
fn a_message_published_on_one_node_is_told_once_by_every_relay() {
    let Some(nodes) = mesh::<3>() else { return };
    let rule = mapping("subscribe = \"news:*\"\nchannel = \"news\"\nformat = \"raw\"");
    let relays: Vec<Relay> = nodes.iter().map(|node| Relay::start(node, &rule)).collect();
    let mut clients: Vec<Sse> = relays.iter().map(|relay| Sse::open(relay, &["news"])).collect();
    clients.iter_mut().for_each(Sse::ready);
    for (at, node) in nodes.iter().enumerate() {
        redis!(node, "PUBLISH", "news:all", format!("from {at}"));
    }
    for relay in &relays {
        eventually("all is heard", || {
            (relay.metric("keyrelay_published_messages_total") >= 3.0).then_some(())
        });
        assert_eq!(relay.metric("keyrelay_published_messages_total"), 3.0, "each once");
    }
}

/// A node that has lost a peer has what its own clients write, and is not stale; that shows to operators.
#[test]
fn a_lost_peer_makes_nobody_stale() {
    let Some(nodes) = mesh::<2>() else { return };
    let mut relays = relays(&nodes, "");
    let [first, mut second] = nodes;
    second.kill();
    let (relay, client) = &mut relays[0];
    eventually("the loss is counted", || {
        (relay.metric("keyrelay_upstream_peers_down") == 1.0).then_some(())
    });
    let status = relay.ask("/status").json();
    let node = &status["upstream"][0];
    assert_eq!(node["role"], "active-replica");
    assert_eq!(node["peers_down"], json!([second.address().to_string()]));
    redis!(first, "SET", "v:1", "own");
    client.sees("v", "v:1", "own");
    assert_eq!(client.memory().count("stale"), 0);
    assert!(relay.ready());
    second.restart(Data::Lost);
    let nodes = [first, second];
    join(&nodes);
    eventually("it is back", || {
        (relay.metric("keyrelay_upstream_peers_down") == 0.0).then_some(())
    });
    assert_eq!(client.memory().count("stale"), 0);
}

/// Writes on both sides of a split; each side is told what the other wrote, though no event tells it.
#[test]
fn nodes_that_were_split_are_merged_on_both_sides() {
    let Some(nodes) = mesh::<2>() else { return };
    redis!(nodes[0], "SET", "v:both", "before");
    eventually("the peer has it", || {
        (redis!(nodes[1], "EXISTS", "v:both") == Reply::Integer(1)).then_some(())
    });
    let mut relays = relays(&nodes, "");
    split(&nodes);
    for (at, node) in nodes.iter().enumerate() {
        redis!(
            node,
            "MSET",
            format!("v:{at}"),
            format!("of {at}"),
            format!("e:{at}"),
            "x"
        );
    }
    redis!(nodes[1], "SET", "v:both", "after");
    join(&nodes);
    for (relay, client) in &mut relays {
        for (key, value) in [("v:0", "of 0"), ("v:1", "of 1"), ("v:both", "after")] {
            client.sees("v", key, value);
        }
        client.until("a gap", |memory| memory.count("gap") > 0);
        eventually("the repair is counted", || {
            (relay.metric("keyrelay_resyncs_total{reason=\"upstream-resynced\"}") >= 1.0).then_some(())
        });
    }
    redis!(nodes[0], "SET", "v:both", "live");
    for (_, client) in &mut relays {
        client.sees("v", "v:both", "live");
    }
}

/// More than this is forgotten for a peer that is away, and it must be sent everything.
const BACKLOG: &str = "repl-backlog-size 16kb\nrepl-timeout 3";

/// Writes more than the backlog holds, to keys of no mapping.
#[track_caller]
fn outrun_the_backlog(node: &Server) {
    let fill = "for i = 1, 2000 do redis.call('SET', 'other:' .. i % 10, string.rep('x', 100)) end";
    redis!(node, "EVAL", fill, "0");
}

/// The network between two nodes is gone, and comes back; which of them has to send all is theirs to find out.
#[test]
fn nodes_whose_link_was_cut_are_merged_on_both_sides() {
    let Some(nodes) = active_nodes::<2>(BACKLOG) else {
        return;
    };
    let proxies = nodes.each_ref().map(|node| Proxy::start(node.address()));
    for at in [0, 1] {
        follow(&nodes[at], proxies[1 - at].address());
    }
    for node in &nodes {
        eventually("the link is up", || linked(node).then_some(()));
    }
    let mut relays = relays(&nodes, "");
    for proxy in &proxies {
        proxy.refuse(BOTH, true);
        proxy.cut(BOTH, Cut::Close);
    }
    for node in &nodes {
        eventually("the link is down", || (!linked(node)).then_some(()));
    }
    for (at, node) in nodes.iter().enumerate() {
        redis!(node, "SET", format!("v:{at}"), format!("of {at}"));
        outrun_the_backlog(node);
    }
    redis!(nodes[1], "SET", "v:both", "after");
    for proxy in &proxies {
        proxy.refuse(BOTH, false);
    }
    for (_, client) in &mut relays {
        for (key, value) in [("v:0", "of 0"), ("v:1", "of 1"), ("v:both", "after")] {
            client.sees("v", key, value);
        }
        // Not for the peer that is away, but because its data may bring back what was deleted here.
        let mut stales = client.memory().controls.iter().filter(|(kind, _)| kind == "stale");
        assert!(
            stales.all(|(_, data)| data["reason"] == "upstream-resynced"),
            "{:?}",
            client.memory().controls
        );
    }
}

/// One node stands still until its peer has given it up; then each of them in turn has what the other wrote.
#[test]
fn a_node_that_stood_still_is_merged() {
    let Some(nodes) = active_nodes::<2>(BACKLOG) else {
        return;
    };
    join(&nodes);
    let mut relays = relays(&nodes, "");
    for (frozen, other) in [(0, 1), (1, 0)] {
        nodes[frozen].freeze();
        eventually("its peer has given it up", || (!linked(&nodes[other])).then_some(()));
        redis!(nodes[other], "SET", "v:1", format!("while {frozen} stood"));
        outrun_the_backlog(&nodes[other]);
        nodes[frozen].thaw();
        for (_, client) in &mut relays {
            client.sees("v", "v:1", format!("while {frozen} stood"));
        }
        for node in &nodes {
            eventually("the link is up", || linked(node).then_some(()));
        }
        redis!(nodes[frozen], "SET", "v:2", format!("after {frozen} stood"));
        for (_, client) in &mut relays {
            client.sees("v", "v:2", format!("after {frozen} stood"));
            client.until("fresh", |memory| memory.count("fresh") == memory.count("stale"));
        }
    }
}

/// With the watch off, the first of the tests above would wait in vain.
#[test]
fn without_the_watch_a_merge_is_not_noticed() {
    let Some(nodes) = mesh::<2>() else { return };
    let mut relays = relays(&nodes, "silent-watch");
    split(&nodes);
    redis!(nodes[0], "SET", "v:0", "of 0");
    redis!(nodes[1], "SET", "v:1", "of 1");
    join(&nodes);
    for (node, other) in [(0, 1), (1, 0)] {
        eventually("the node has it", || {
            (redis!(nodes[node], "EXISTS", format!("v:{other}")) == Reply::Integer(1)).then_some(())
        });
    }
    // One of them may be told by events of the other's merge; not both are.
    let mut unheard = 0;
    for (at, (relay, client)) in relays.iter_mut().enumerate() {
        redis!(nodes[at], "SET", "v:marker", "after");
        client.sees("v", "v:marker", "after");
        assert_eq!(relay.metric("keyrelay_resyncs_total"), 0.0);
        unheard += usize::from(client.memory().value("v", &format!("v:{}", 1 - at)).is_none());
    }
    assert!(unheard > 0, "nothing was left to notice");
}
