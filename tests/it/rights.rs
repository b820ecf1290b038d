//! What the server lets keyrelay do no more is noticed, said with its reason, and repaired when it is allowed again.

use serde_json::{Value, json};

use crate::harness::{Client, Relay, Reply, Server, Sse, eventually, mapping};
use crate::{both, redis};

/// What a relay needs; the channel is literally the pattern that it subscribes to, for KeyDB demands that.
const ENOUGH: &str = "reset resetchannels on >secret ~* &__keyspace@0__:v:* -@all +hello +auth +ping +select +psubscribe \
                      +subscribe +info +config|get +config|set +client|setname +client|list +client|tracking +client|id \
                      +scan +pttl +type +get +getrange +strlen +hgetall +hlen +llen +lrange";

struct Setup<C> {
    server: Server,
    relay: Relay,
    client: C,
}

impl<C: Client> Setup<C> {
    /// With two keys, which the client knows, and these rights of the relay.
    #[track_caller]
    fn with(rights: &str) -> Setup<C> {
        let server = Server::start();
        server.grant(rights);
        redis!(server, "MSET", "v:1", "one", "v:2", "two");
        let upstream = format!("url = \"redis://relay:secret@{}/0\"", server.address());
        let relay = Relay::reaching(&upstream, "", &mapping("key = \"v:{id}\"\nchannel = \"v\""));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        client.sees("v", "v:2", "two");
        Setup { server, relay, client }
    }

    /// Hears `stale` with this reason at last, and finds it in the readiness.
    #[track_caller]
    fn is_stale(&mut self, reason: &str, readiness: &str) {
        self.client.until("stale", |memory| {
            memory
                .controls
                .iter()
                .any(|(kind, data)| kind == "stale" && data["reason"] == reason)
        });
        eventually("it is told to operators", || {
            self.relay.readiness().contains(readiness).then_some(())
        });
    }

    /// What happened meanwhile was told, and nothing else; then it is fresh and live.
    #[track_caller]
    fn is_repaired(&mut self) {
        self.client.until("fresh", |memory| memory.count("fresh") > 0);
        let told: Vec<(String, Value)> = self.client.memory().messages[2..]
            .iter()
            .map(|each| (each.key(), each.value().clone()))
            .collect();
        assert_eq!(told, [("v:1".to_owned(), json!("unheard"))]);
        redis!(self.server, "SET", "v:2", "live");
        self.client.sees("v", "v:2", "live");
        eventually("it is ready", || self.relay.ready().then_some(()));
    }
}

both! {
    /// The server ends the connection of who may not hear what it subscribed to.
    fn channels_are_taken_away<C>() {
        let mut setup = Setup::<C>::with(ENOUGH);
        setup.server.grant("resetchannels");
        redis!(setup.server, "SET", "v:1", "unheard");
        setup.is_stale("no-permission", "is not heard: rights: ");
        let log = eventually("it is logged", || Some(setup.relay.log()).filter(|log| log.contains("but not usable")));
        assert_eq!(log.matches("upstream is there, but not usable").count(), 1, "said once: {log}");
        assert!(log.contains("PSUBSCRIBE: NOPERM"), "{log}");
        setup.server.grant("&__keyspace@0__:v:*");
        setup.is_repaired();
    }

    fn the_user_is_deleted<C>() {
        let mut setup = Setup::<C>::with(ENOUGH);
        redis!(setup.server, "ACL", "DELUSER", "relay");
        redis!(setup.server, "SET", "v:1", "unheard");
        setup.is_stale("no-permission", "is not heard: login: ");
        setup.server.grant(ENOUGH);
        setup.is_repaired();
    }

    /// When the connection breaks, others have taken its place.
    fn the_server_has_too_many_clients<C>() {
        let mut setup = Setup::<C>::with(ENOUGH);
        let mut other = setup.server.connect();
        // Those that are there stay.
        redis!(setup.server, "CONFIG", "SET", "maxclients", "1");
        let clients = redis!(setup.server, "CLIENT", "LIST").text();
        for client in clients.lines().filter(|line| line.contains("name=keyrelay")) {
            let id = client.split(' ').next().and_then(|id| id.strip_prefix("id=")).unwrap();
            other.command(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]).unwrap();
        }
        redis!(setup.server, "SET", "v:1", "unheard");
        setup.is_stale("upstream-lost", "max number of clients reached");
        redis!(setup.server, "CONFIG", "SET", "maxclients", "1000");
        setup.is_repaired();
    }
}

/// A right that only the watch needs: what goes unnoticed is said once, with the line that mends it.
#[test]
fn the_watch_may_not_ask_everything() {
    let mut setup = Setup::<Sse>::with(&ENOUGH.replace("+client|list ", ""));
    let log = setup.relay.log();
    assert!(log.contains("ACL SETUSER relay +client|list"), "{log}");
    assert!(log.contains("a full synchronization"), "{log}");
    // The rest is asked as before.
    redis!(setup.server, "CONFIG", "SET", "notify-keyspace-events", "");
    redis!(setup.server, "SET", "v:1", "unheard");
    setup.client.sees("v", "v:1", "unheard");
    let said = "does not answer all that it is asked each second";
    assert_eq!(setup.relay.log().matches(said).count(), 1);
    let controls = &setup.client.memory().controls;
    let mut stale = controls.iter().filter(|(kind, _)| kind == "stale");
    assert!(stale.all(|(_, data)| data["reason"] == "events-off"), "{controls:?}");
}

/// Rights of the watch that are taken away while it runs.
#[test]
fn the_watch_may_ask_nothing_any_more() {
    let mut setup = Setup::<Sse>::with(ENOUGH);
    setup.server.grant("-info -client -config");
    eventually("it is said", || {
        let log = setup.relay.log();
        let mend = "ACL SETUSER relay +client|list +config|get +info";
        log.contains(mend).then_some(())
    });
    redis!(setup.server, "SET", "v:1", "heard");
    setup.client.sees("v", "v:1", "heard");
    assert_eq!(setup.client.memory().count("stale"), 0);
}

/// A server that is full refuses writes, and everything in a transaction; what is read of it is read as ever.
#[test]
fn the_server_is_full() {
    let mut setup = Setup::<Sse>::with(ENOUGH);
    redis!(setup.server, "RPUSH", "v:list", "a");
    setup.client.sees("v", "v:list", json!(["a"]));
    redis!(setup.server, "MULTI");
    redis!(setup.server, "RPUSH", "v:list", "b");
    redis!(setup.server, "CONFIG", "SET", "maxmemory", "1");
    assert!(matches!(redis!(setup.server, "EXEC"), Reply::Array(_)));
    setup.client.sees("v", "v:list", json!(["a", "b"]));
    let mut newcomer = Sse::open(&setup.relay, &["v"]);
    newcomer.ready();
    assert_eq!(newcomer.memory().value("v", "v:list"), Some(&json!(["a", "b"])));
    assert_eq!(setup.client.memory().count("stale"), 0);
}
