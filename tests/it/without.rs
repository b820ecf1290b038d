//! With a mechanism switched off, what the tests of faults expect does not come: clients go on with what is not true.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    BOTH, Client, Cluster, Cut, Data, FEED, Memory, Place, Proxy, READER, Relay, Reply, Server, Side, Sse, Ws,
    debug_allowed, eventually, follow, linked, mapping, own_all_slots, prompt_server, replicate,
};
use crate::redis;

const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";

/// A relay without some mechanisms that reaches its server through a proxy, and a client of it.
struct Setup {
    server: Server,
    proxy: Proxy,
    relay: Relay,
    client: Sse,
}

impl Setup {
    /// With two keys, which the client knows.
    #[track_caller]
    fn without(mechanisms: &str) -> Setup {
        Setup::of(Server::with_config(debug_allowed()), mechanisms)
    }

    #[track_caller]
    fn of(server: Server, mechanisms: &str) -> Setup {
        redis!(server, "MSET", "v:1", "one", "v:2", "two");
        Setup::beside(server, mechanisms)
    }

    /// Beside a server that has these keys.
    #[track_caller]
    fn beside(server: Server, mechanisms: &str) -> Setup {
        let proxy = Proxy::start(server.address());
        let upstream = format!("url = \"{}\"", proxy.url());
        let relay = Relay::without(mechanisms, &upstream, "", &mapping(MAPPING));
        let mut client = Sse::open(&relay, &["v"]);
        client.ready();
        client.sees("v", "v:2", "two");
        Setup {
            server,
            proxy,
            relay,
            client,
        }
    }

    /// A value, a deletion and a new key.
    fn write(&self) {
        redis!(self.server, "SET", "v:1", "new");
        redis!(self.server, "DEL", "v:2");
        redis!(self.server, "SET", "v:4", "four");
    }

    #[track_caller]
    fn hears(&mut self, kind: &str, reason: &str) {
        self.client.until(kind, |memory| {
            let last = memory.controls.last();
            last.is_some_and(|(last, data)| last == kind && data["reason"] == reason)
        });
    }

    /// So many reads failed, at least one of them for this reason.
    #[track_caller]
    fn was_refused(&self, kind: &str, reads: f64) {
        let kind = format!("keyrelay_read_errors_total{{kind=\"{kind}\"}}");
        eventually("the reads were refused", || {
            let [this, all] = [&kind, "keyrelay_read_errors_total"].map(|series| self.relay.metric(series));
            (this >= 1.0 && all >= reads).then_some(())
        });
    }

    #[track_caller]
    fn answers_again(&self) {
        let mut connection = self.server.connect();
        eventually("the server answers again", || {
            let answer = connection.command(&[b"GET", b"v:1"]).unwrap();
            (!matches!(answer, Reply::Error(_))).then_some(())
        });
    }

    /// A later change is told, so all that was to be told has been.
    #[track_caller]
    fn is_live(&mut self) {
        redis!(self.server, "SET", "v:marker", "after");
        self.client.sees("v", "v:marker", "after");
    }

    /// All that was to be told has been; yet the client has what was at the beginning.
    #[track_caller]
    fn has_missed_it(&mut self) {
        self.is_live();
        self.has_what_was();
    }

    #[track_caller]
    fn has_what_was(&self) {
        let memory = self.client.memory();
        let value = |key| memory.value("v", key).and_then(|value| value.as_str());
        assert_eq!(
            ["v:1", "v:2", "v:4"].map(value),
            [Some("one"), Some("two"), None],
            "it was noticed all the same"
        );
    }
}

/// A relay that lacks less, at the same proxy: when it has noticed something, the other one had the time to.
fn witness(setup: &Setup, mechanisms: &str) -> (Relay, Sse) {
    let upstream = format!("url = \"{}\"\nverify = \"off\"", setup.proxy.url());
    let relay = Relay::without(mechanisms, &upstream, "", &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    (relay, client)
}

/// The connection is cut, and events are lost.
fn cut_without_resync(how: Cut) {
    let mut setup = Setup::without("resync");
    setup.proxy.refuse(FEED, true);
    setup.proxy.cut(FEED, how);
    setup.hears("stale", "upstream-lost");
    setup.write();
    setup.proxy.refuse(FEED, false);
    setup.hears("fresh", "upstream-lost");
    setup.has_missed_it();
}

#[test]
fn resync_after_a_feed_that_was_reset() {
    cut_without_resync(Cut::Reset);
}

#[test]
fn resync_after_a_feed_that_was_closed() {
    cut_without_resync(Cut::Close);
}

#[test]
fn resync_after_a_feed_that_was_half_open() {
    cut_without_resync(Cut::Vanish);
}

#[test]
fn resync_after_the_feed_was_killed_for_its_output_buffer() {
    let mut setup = Setup::without("resync");
    redis!(
        setup.server,
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "pubsub 64kb 0 0"
    );
    setup.proxy.hold(FEED, true);
    let burst = "for i = 1, 20000 do redis.call('SET', 'v:burst', i) end";
    eventually("the server has no subscriber any more", || {
        redis!(setup.server, "EVAL", burst, "0");
        let subscribers = redis!(setup.server, "CLIENT", "LIST", "TYPE", "pubsub").text();
        subscribers.is_empty().then_some(())
    });
    setup.write();
    setup.proxy.hold(FEED, false);
    setup.hears("fresh", "upstream-lost");
    setup.has_missed_it();
}

#[test]
fn resync_after_rights_were_taken_away_and_given_back() {
    let server = Server::start();
    redis!(server, "MSET", "v:1", "one", "v:2", "two");
    server.grant("resetchannels on >secret ~* &__keyspace@0__:v:* +@all");
    let upstream = format!("url = \"redis://relay:secret@{}/0\"", server.address());
    let proxy = Proxy::start(server.address());
    let relay = Relay::without("resync", &upstream, "", &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    let mut setup = Setup {
        server,
        proxy,
        relay,
        client,
    };
    setup.server.grant("resetchannels");
    setup.hears("stale", "no-permission");
    setup.write();
    setup.server.grant("&__keyspace@0__:v:*");
    setup.client.until("fresh", |memory| memory.count("fresh") > 0);
    setup.has_missed_it();
}

#[test]
fn resync_after_the_server_was_started_with_other_data() {
    for data in [Data::Kept, Data::Lost] {
        let mut setup = Setup::without("resync");
        redis!(setup.server, "SET", "v:1", "older");
        redis!(setup.server, "SET", "v:4", "older");
        setup.client.sees("v", "v:4", "older");
        setup.server.save();
        redis!(setup.server, "SET", "v:1", "one");
        redis!(setup.server, "DEL", "v:4");
        setup.client.misses("v", "v:4");
        setup.server.kill();
        setup.hears("stale", "upstream-lost");
        setup.server.restart(data);
        setup.hears("fresh", "upstream-lost");
        setup.has_missed_it();
    }
}

/// Each of the two would find it.
#[test]
fn resync_and_deadlines_when_a_key_expired_while_the_server_was_away() {
    let mut setup = Setup::without("resync,deadlines");
    let life = Duration::from_millis(2000);
    redis!(setup.server, "SET", "v:2", "otherwise");
    setup.client.sees("v", "v:2", "otherwise");
    let born = Instant::now();
    redis!(setup.server, "SET", "v:2", "two", "PX", life.as_millis().to_string());
    setup.client.sees("v", "v:2", "two");
    setup.server.save();
    setup.server.kill();
    setup.hears("stale", "upstream-lost");
    eventually("it has expired", || (born.elapsed() > life).then_some(()));
    setup.server.restart(Data::Kept);
    setup.hears("fresh", "upstream-lost");
    assert_eq!(redis!(setup.server, "EXISTS", "v:2"), Reply::Integer(0));
    setup.has_missed_it();
}

#[test]
fn the_flush_signal() {
    for flush in [&["FLUSHALL"][..], &["FLUSHDB"], &["DEBUG", "RELOAD"]] {
        let mut setup = Setup::without("flush-signal");
        let words: Vec<&dyn AsRef<[u8]>> = flush.iter().map(|word| word as &dyn AsRef<[u8]>).collect();
        setup.server.run(&words);
        setup.server.looked_at_twice();
        assert_eq!(setup.relay.metric("keyrelay_resyncs_total"), 0.0, "{flush:?}");
        setup.has_missed_it();
    }
}

/// Each of the two would find it.
#[test]
fn the_flush_signal_and_the_watch_when_a_replica_gets_all_data_anew() {
    let primary = prompt_server("");
    redis!(primary, "MSET", "v:1", "one", "v:2", "two");
    let replica = prompt_server("");
    replicate(&replica, primary.address());
    let mut setup = Setup::beside(replica, "flush-signal,silent-watch");
    let other = prompt_server("");
    redis!(other, "MSET", "v:1", "changed", "v:4", "four");
    follow(&setup.server, other.address());
    eventually("the replica has what the other had", || {
        (linked(&setup.server) && redis!(setup.server, "EXISTS", "v:4") == Reply::Integer(1)).then_some(())
    });
    setup.server.looked_at_twice();
    // Only its primary takes a marker.
    let replica = std::mem::replace(&mut setup.server, other);
    setup.has_missed_it();
    drop(replica);
}

#[test]
fn the_watch_when_a_replica_is_behind() {
    let primary = prompt_server("");
    redis!(primary, "MSET", "v:1", "one", "v:2", "two");
    let replica = prompt_server("replica-read-only no");
    let link = Proxy::start(primary.address());
    replicate(&replica, link.address());
    let mut setup = Setup::beside(replica, "silent-watch");
    link.refuse(BOTH, true);
    link.cut(BOTH, Cut::Close);
    eventually("the link is down", || (!linked(&setup.server)).then_some(()));
    redis!(primary, "SET", "v:1", "new");
    setup.server.looked_at_twice();
    setup.has_missed_it();
    assert_eq!(setup.client.memory().count("stale"), 0, "nobody was told");
    assert!(setup.relay.ready());
}

#[test]
fn the_watch_when_notifications_are_switched_off() {
    let mut setup = Setup::without("silent-watch");
    redis!(setup.server, "CONFIG", "SET", "notify-keyspace-events", "");
    setup.write();
    setup.server.looked_at_twice();
    redis!(setup.server, "CONFIG", "SET", "notify-keyspace-events", "KA");
    setup.has_missed_it();
}

/// What is written is heard only after the server was broken. A relay that lacks nothing goes on trying, says so, and has
/// it as soon as the server was mended.
#[track_caller]
fn refused_without_put_back(mut setup: Setup, kind: &str, break_it: impl FnOnce(&Setup), mend: impl FnOnce(&Setup)) {
    let (_relay, mut witness) = witness(&setup, "");
    setup.proxy.hold(FEED, true);
    setup.write();
    break_it(&setup);
    setup.proxy.hold(FEED, false);
    setup.was_refused(kind, 3.0);
    witness.until("stale", |memory| was_told(memory, kind));
    mend(&setup);
    witness.sees("v", "v:1", "new");
    witness.misses("v", "v:2");
    witness.sees("v", "v:4", "four");
    setup.has_missed_it();
    assert!(!was_told(setup.client.memory(), kind));
}

/// Whether it was told `stale` with this reason.
fn was_told(memory: &Memory, reason: &str) -> bool {
    let mut controls = memory.controls.iter();
    controls.any(|(control, data)| control == "stale" && data["reason"] == reason)
}

#[test]
fn put_back_when_a_read_is_denied() {
    let set = |setup: &Setup, rule: &str| {
        redis!(setup.server, "ACL", "SETUSER", "default", rule);
    };
    let setup = Setup::without("put-back");
    refused_without_put_back(
        setup,
        "no-permission",
        |setup| set(setup, "-pttl"),
        |setup| set(setup, "+pttl"),
    );
}

#[test]
fn put_back_when_the_server_is_busy() {
    let setup = Setup::without("put-back");
    let mut script = None;
    let busy = |setup: &Setup| script = Some(setup.server.keep_busy());
    refused_without_put_back(setup, "busy", busy, |setup| {
        redis!(setup.server, "SCRIPT", "KILL");
        setup.answers_again();
    });
}

/// The server reads its own data again, which the signal of that or a look would tell.
#[test]
fn put_back_when_the_server_is_loading() {
    let server = Server::with_config(debug_allowed());
    let fill = "for i = 1, 6000 do redis.call('SET', 'other:' .. i, 'x') end";
    redis!(server, "EVAL", fill, "0");
    let setup = Setup::of(server, "put-back,flush-signal,silent-watch");
    // Microseconds for each key, and bytes after which the server looks at its connections while it loads.
    redis!(setup.server, "CONFIG", "SET", "key-load-delay", "500");
    redis!(
        setup.server,
        "CONFIG",
        "SET",
        "loading-process-events-interval-bytes",
        "1024"
    );
    let mut reload = setup.server.connect();
    let mut other = setup.server.connect();
    let loading = |_: &Setup| {
        reload.send(&[b"DEBUG", b"RELOAD"]).unwrap();
        eventually("the server loads", || {
            matches!(other.command(&[b"GET", b"v:1"]).unwrap(), Reply::Error(_)).then_some(())
        });
    };
    refused_without_put_back(setup, "loading", loading, |setup| {
        setup.answers_again();
    });
}

/// A replica that is told not to answer while its primary is away.
#[test]
fn put_back_when_the_primary_is_away() {
    let primary = prompt_server("");
    redis!(primary, "MSET", "v:1", "one", "v:2", "two");
    let replica = prompt_server("replica-serve-stale-data no");
    let link = Proxy::start(primary.address());
    replicate(&replica, link.address());
    let mut setup = Setup::beside(replica, "put-back");
    let replica = std::mem::replace(&mut setup.server, primary);
    let mut reader = replica.connect();
    let away = |_: &Setup| {
        eventually("the replica has it", || {
            (redis!(replica, "EXISTS", "v:4") == Reply::Integer(1)).then_some(())
        });
        link.refuse(BOTH, true);
        link.cut(BOTH, Cut::Close);
        eventually("the replica refuses", || {
            matches!(reader.command(&[b"GET", b"v:1"]).unwrap(), Reply::Error(_)).then_some(())
        });
    };
    refused_without_put_back(setup, "master-down", away, |_| {
        link.refuse(BOTH, false);
        eventually("the link is up", || linked(&replica).then_some(()));
    });
}

/// A node of a cluster that has no owner for a slot. The client library closes the connection for that.
#[test]
fn put_back_when_the_cluster_is_down() {
    let server = Server::with_config("cluster-enabled yes");
    own_all_slots(&server, true);
    redis!(server, "SET", "v:1", "one");
    redis!(server, "SET", "v:2", "two");
    let setup = Setup::beside(server, "put-back");
    refused_without_put_back(
        setup,
        "cluster-down",
        |setup| own_all_slots(&setup.server, false),
        |setup| own_all_slots(&setup.server, true),
    );
}

#[test]
fn put_back_when_the_reader_is_cut_off_in_an_answer() {
    for how in [Cut::Reset, Cut::Close, Cut::Vanish] {
        let mut setup = Setup::without("put-back");
        let at = Place::Answer {
            command: "PTTL",
            nth: 1,
            bytes: 1,
        };
        setup.proxy.cut_at(READER, at, how);
        redis!(setup.server, "SET", "v:1", "new");
        eventually("another reader is there", || {
            (setup.proxy.made(Side::Reader) == 2).then_some(())
        });
        setup.has_missed_it();
    }
}

#[test]
fn deadlines_when_the_server_does_not_come_to_a_key() {
    let life = Duration::from_millis(500);
    let expiring = |mechanisms| {
        let mut setup = Setup::without(mechanisms);
        redis!(setup.server, "DEBUG", "SET-ACTIVE-EXPIRE", "0");
        let born = Instant::now();
        redis!(setup.server, "SET", "v:3", "short", "PX", life.as_millis().to_string());
        setup.client.sees("v", "v:3", "short");
        (setup, born)
    };
    let (mut with, _) = expiring("put-back");
    with.client.misses("v", "v:3");
    let (mut without, born) = expiring("deadlines");
    eventually("its time has come", || (born.elapsed() > 2 * life).then_some(()));
    without.has_missed_it();
    assert_eq!(without.client.memory().value("v", "v:3"), Some(&json!("short")));
}

/// A number of one process is taken for one of another, and what stands before it is never told.
#[test]
fn the_epoch_of_a_cursor() {
    let mut setup = Setup::without("epoch");
    let cursor = setup.client.cursor();
    let sequence = |cursor: &str| {
        cursor
            .split('-')
            .nth(1)
            .and_then(|sequence| sequence.parse::<u64>().ok())
    };
    let old = cursor.as_deref().and_then(sequence).expect("a cursor names a sequence");
    setup.relay.kill();
    redis!(setup.server, "SET", "v:1", "new");
    redis!(setup.server, "DEL", "v:2");
    setup.relay.restart();
    let mut witness = Sse::open(&setup.relay, &["v"]);
    witness.ready();
    for n in 0.. {
        redis!(setup.server, "SET", "v:marker", n.to_string());
        witness.sees("v", "v:marker", n.to_string());
        if witness.cursor().as_deref().and_then(sequence) > Some(old) {
            break;
        }
    }
    let mut back = Sse::resume(&setup.relay, &["v"], cursor);
    back.ready();
    assert_eq!(back.memory().count("reset"), 0);
    assert!(back.memory().messages.iter().all(|each| each.key() == "v:marker"));
}

/// A cursor of one channel is taken for one of two, and the second is never told.
#[test]
fn the_set_of_a_cursor() {
    let server = Server::start();
    redis!(server, "MSET", "v:1", "one", "w:1", "one");
    let mappings = [MAPPING, "key = \"w:{id}\"\nchannel = \"w\""].map(mapping).concat();
    let upstream = format!("url = \"{}\"", server.url());
    let relay = Relay::without("set", &upstream, "", &mappings);
    let mut witness = Ws::open(&relay, &["w"]);
    witness.ready();
    let mut page = Ws::open(&relay, &["v"]);
    page.ready();
    let cursor = page.cursor();
    let mut back = Ws::resume(&relay, &["v", "w"], cursor);
    back.ready();
    assert_eq!((back.memory().count("reset"), back.memory().state.len()), (0, 0));
}

/// Nobody is told anything, neither who was there nor who comes.
#[track_caller]
fn notices_nothing(setup: &mut Setup) {
    let mut late = Sse::open(&setup.relay, &["v"]);
    late.ready();
    while setup.client.poll(Duration::ZERO).is_some() {}
    for client in [&late, &setup.client] {
        assert_eq!(client.memory().count("stale"), 0, "it was noticed");
        assert_eq!(client.memory().state.len(), 2);
    }
    setup.has_what_was();
    assert!(setup.relay.ready());
}

#[test]
fn the_pulse_when_the_feed_is_half_open() {
    let mut setup = Setup::without("pulse");
    let (_relay, mut witness) = witness(&setup, "");
    setup.proxy.cut(FEED, Cut::Vanish);
    setup.write();
    witness.sees("v", "v:4", "four");
    witness.control("fresh");
    notices_nothing(&mut setup);
}

#[test]
fn the_pulse_when_the_server_is_frozen() {
    let mut setup = Setup::without("pulse");
    let (_relay, mut witness) = witness(&setup, "");
    setup.proxy.refuse(FEED, true);
    setup.server.freeze();
    assert_eq!(witness.control("stale")["reason"], "upstream-late");
    assert_eq!(witness.control("stale")["reason"], "upstream-lost");
    notices_nothing(&mut setup);
    setup.server.thaw();
}

/// The keys that are found by the rest of the pass are missing, and the client is told that it has all.
#[test]
fn a_pass_over_the_keys_that_begins_anew() {
    const MANY: usize = 3000;
    let server = Server::start();
    let fill = "for i = 1, ARGV[1] do redis.call('SET', 'v:' .. i, 'x') end";
    redis!(server, "EVAL", fill, "0", MANY.to_string());
    for how in [Cut::Reset, Cut::Close, Cut::Vanish] {
        let proxy = Proxy::start(server.address());
        let at = Place::Answer {
            command: "SCAN",
            nth: 7,
            bytes: 200,
        };
        proxy.cut_at(READER, at, how);
        let upstream = format!("url = \"{}\"", proxy.url());
        let relay = Relay::without("scan-again", &upstream, "", &mapping(MAPPING));
        let mut client = Sse::open(&relay, &["v"]);
        client.ready();
        redis!(server, "SET", "v:marker", format!("{how:?}"));
        client.sees("v", "v:marker", format!("{how:?}"));
        assert_eq!((proxy.is_to_be_cut(Side::Reader), proxy.made(Side::Reader)), (false, 2));
        let found = client.memory().state.len();
        assert!((1..MANY).contains(&found), "{found} of {MANY} keys");
    }
}

/// The values of a server that is not heard are told as those of the one that is.
#[test]
fn the_comparison_of_reader_and_feed_when_another_server_is_read() {
    let other = Server::start();
    redis!(other, "MSET", "v:1", "of the other", "v:2", "two");
    let mut setup = Setup::without("same-server");
    setup.proxy.lead(READER, other.address());
    setup.proxy.cut(READER, Cut::Close);
    redis!(setup.server, "SET", "v:1", "new");
    setup.client.sees("v", "v:1", "of the other");
    assert_eq!(setup.client.memory().count("stale"), 0);
    assert!(setup.relay.ready());
}

/// What the server had that is heard now is never told, and the client is told that it has all.
#[test]
fn the_comparison_of_reader_and_feed_when_another_server_is_heard() {
    let other = Server::start();
    redis!(other, "MSET", "v:1", "new", "v:4", "four");
    let mut setup = Setup::without("same-server");
    setup.proxy.refuse(FEED, true);
    setup.proxy.cut(FEED, Cut::Close);
    setup.hears("stale", "upstream-lost");
    setup.proxy.lead(FEED, other.address());
    setup.proxy.refuse(FEED, false);
    setup.hears("fresh", "upstream-lost");
    setup.has_what_was();
    assert!(setup.relay.ready());
}

/// Little may wait in both relays; only the one that reads all again comes to have all.
#[test]
fn the_resync_after_more_keys_than_may_wait() {
    const MANY: usize = 3000;
    let burst = "for i = 1, ARGV[1] do redis.call('SET', 'v:' .. i, ARGV[2]) end";
    let new = |memory: &Memory| memory.state.values().filter(|value| *value == "new").count();
    let server = Server::start();
    redis!(server, "EVAL", burst, "0", MANY.to_string(), "old");
    let mut setup = Setup::of(server, "room,overflow");
    let (other, mut witness) = witness(&setup, "room");
    redis!(setup.server, "EVAL", burst, "0", MANY.to_string(), "new");
    witness.until("all is new", |memory| new(memory) == MANY);
    // While the burst is being heard this may be forgotten as well.
    eventually("a later change is told", || {
        redis!(setup.server, "SET", "v:marker", "after");
        setup.client.poll(Duration::from_millis(50));
        setup.client.memory().value("v", "v:marker").map(drop)
    });
    assert!(new(setup.client.memory()) < MANY, "nothing was forgotten");
    let overflows = |relay: &Relay| relay.metric("keyrelay_gaps_total{reason=\"overflow\"}");
    assert_eq!((overflows(&other) > 0.0, overflows(&setup.relay)), (true, 0.0));
}

/// A relay without a mechanism that stands still while a cluster is changed, and its client, which was told that `marker`
/// was written where it is then.
#[track_caller]
fn cluster_without(
    mechanism: &str,
    cluster: &mut Cluster,
    marker: &str,
    change: impl FnOnce(&mut Cluster),
) -> (Relay, Sse) {
    let upstream = format!("url = \"{}\"", cluster.url());
    let mappings = [MAPPING, "key = \"v:{id}\"\nchannel = \"again\""].map(mapping).concat();
    let relay = Relay::without(mechanism, &upstream, "", &mappings);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    relay.freeze();
    change(cluster);
    relay.thaw();
    eventually("it is heard", || {
        cluster.run(&["SET", marker, "after"]);
        client.poll(Duration::from_millis(50));
        client.memory().value("v", marker).map(drop)
    });
    (relay, client)
}

#[test]
fn resync_after_a_replica_took_over() {
    let mut cluster = Cluster::start(1);
    let keys = cluster.keys("v:", 0, 2);
    cluster.run(&["SET", &keys[0], "old"]);
    let (relay, _) = cluster_without("resync", &mut cluster, &keys[1], |cluster| {
        redis!(cluster.nodes[0], "WAIT", "1", "10000");
        cluster.nodes[0].kill();
        eventually("the replica takes over", || {
            cluster.try_run(&["SET", &keys[0], "new"]).ok()
        });
    });
    let mut late = Sse::open(&relay, &["v"]);
    late.ready();
    assert_eq!(late.memory().value("v", &keys[0]), Some(&json!("old")));
}

#[test]
fn the_resync_of_slots_that_were_moved_to_a_new_node() {
    let mut cluster = Cluster::start(0);
    let [key, marker] = ["v:1{moved}", "v:2{moved}"];
    let slot = cluster.slot(key);
    let (relay, mut client) = cluster_without("moved", &mut cluster, marker, |cluster| {
        let (from, to) = (usize::from(slot) * 3 / 16_384, cluster.add());
        cluster.begin_to_move(slot, from, to);
        cluster.end_move(slot, from, to);
        cluster.run(&["SET", key, "new"]);
    });
    // A channel of the same keys that has to look for them: in the same pass as the other one would, or after it.
    let mut again = Sse::open(&relay, &["again"]);
    again.ready();
    assert_eq!(again.memory().value("again", key), Some(&json!("new")));
    while client.poll(Duration::ZERO).is_some() {}
    assert_eq!(client.memory().value("v", key), None);
}
