//! Every way in which the feed's connection can fail is noticed, said and repaired.

use serde_json::{Value, json};

use crate::harness::{Client, Cut, FEED, Proxy, Relay, Server, Side, mapping, names};
use crate::{both, redis};

/// One channel of all keys `v:*`.
const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";

/// A relay that reaches its server through a proxy.
struct Setup<C> {
    server: Server,
    proxy: Proxy,
    _relay: Relay,
    client: C,
}

impl<C: Client> Setup<C> {
    /// With three keys, which the client knows.
    #[track_caller]
    fn new() -> Setup<C> {
        let server = Server::start();
        redis!(server, "MSET", "v:1", "one", "v:2", "two", "v:3", "three");
        let proxy = Proxy::start(server.address());
        let relay = Relay::at(&proxy.url(), "", &mapping(MAPPING));
        let mut client = C::open(&relay, &["v"]);
        client.ready();
        assert_eq!((proxy.made(Side::Feed), proxy.made(Side::Reader)), (1, 1));
        Setup {
            server,
            proxy,
            _relay: relay,
            client,
        }
    }

    /// A value, a deletion and a new key of which no event is heard.
    fn write_unheard(&self) {
        redis!(self.server, "SET", "v:1", "new");
        redis!(self.server, "DEL", "v:2");
        redis!(self.server, "SET", "v:4", "four");
    }

    /// Hears `stale`, of this reason at last, then what [`write_unheard`](Setup::write_unheard) did and nothing else,
    /// then `fresh`; and what is changed then is heard live.
    #[track_caller]
    fn hears_the_repair(mut self, reason: &str) {
        let client = &mut self.client;
        client.until("fresh", |memory| memory.count("fresh") > 0);
        let memory = client.memory();
        let kinds: Vec<&str> = memory.controls.iter().map(|(kind, _)| kind.as_str()).collect();
        assert!(kinds.starts_with(&["ready", "stale"]), "{kinds:?}");
        let (_, fresh) = memory.controls.last().unwrap();
        assert_eq!(
            (names(&fresh["channels"]), fresh["reason"].as_str()),
            (vec!["v"], Some(reason))
        );
        let mut told: Vec<_> = memory.messages[3..]
            .iter()
            .map(|each| (each.key(), each.value().clone()))
            .collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [("v:1", json!("new")), ("v:2", Value::Null), ("v:4", json!("four"))];
        assert_eq!(
            told,
            expected.map(|(key, value)| (key.to_owned(), value)),
            "what differs and nothing else"
        );
        assert!(memory.messages[3..].iter().all(|each| each.json.get("event").is_none()));
        redis!(self.server, "SET", "v:3", "live");
        client.sees("v", "v:3", "live");
        assert_eq!(client.memory().messages.last().unwrap().json["event"], "set");
    }
}

/// The feed's connection is cut in one way and cannot be made again until events were lost.
fn cut_and_kept_away<C: Client>(how: Cut) {
    let mut setup = Setup::<C>::new();
    setup.proxy.refuse(FEED, true);
    setup.proxy.cut(FEED, how);
    let stale = setup.client.control("stale");
    assert_eq!(stale["reason"], "upstream-lost");
    setup.write_unheard();
    setup.proxy.refuse(FEED, false);
    setup.hears_the_repair("upstream-lost");
}

both! {
    fn a_reset_feed<C>() {
        cut_and_kept_away::<C>(Cut::Reset);
    }

    fn a_closed_feed<C>() {
        cut_and_kept_away::<C>(Cut::Close);
    }
}
