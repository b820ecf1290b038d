//! What a feed tells its listener, whatever happens to the server and the connection.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keyrelay::pattern::KeyPattern;
use keyrelay::upstream::feed::{self, Cause, FatalError, KeyEvent, Listener, LostReason, Notifications};
use keyrelay::upstream::topology::Location;
use keyrelay::upstream::{Address, Endpoint, ServerInfo, Source, Subscriptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::endpoint;
use crate::harness::{Data, PATIENCE, Reply, Server, eventually};
use crate::redis;

/// What a listener was told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Up(ServerInfo),
    /// With its name; empty where there is none.
    Event(Vec<u8>, String),
    Published(Vec<u8>, Vec<u8>),
    Unheard,
    Flushed(Cause),
    Lost(LostReason),
    Late(bool),
    Behind(bool),
    ClockSet(i64),
}

struct Teller(Sender<Told>);

impl Teller {
    fn tell(&self, told: Told) {
        // A test that has seen enough hears no more.
        let _ = self.0.send(told);
    }
}

impl Listener for Teller {
    fn up(&mut self, server: &ServerInfo, _: &Endpoint) {
        self.tell(Told::Up(server.clone()));
    }

    fn events(&mut self, batch: &[KeyEvent<'_>]) {
        assert!(!batch.is_empty());
        for event in batch {
            let name = String::from_utf8(event.event.unwrap_or_default().to_vec()).expect("names are text");
            self.tell(Told::Event(event.key.to_vec(), name));
        }
    }

    fn published(&mut self, topic: &[u8], message: &[u8]) {
        self.tell(Told::Published(topic.to_vec(), message.to_vec()));
    }

    fn unheard(&mut self) {
        self.tell(Told::Unheard);
    }

    fn flushed(&mut self, cause: Cause) {
        self.tell(Told::Flushed(cause));
    }

    fn lost(&mut self, reason: &LostReason) {
        self.tell(Told::Lost(reason.clone()));
    }

    fn late(&mut self, late: bool) {
        self.tell(Told::Late(late));
    }

    fn behind(&mut self, behind: Option<Duration>) {
        self.tell(Told::Behind(behind.is_some()));
    }

    fn clock_set(&mut self, ahead_ms: i64) {
        self.tell(Told::ClockSet(ahead_ms));
    }
}

/// A feed on a thread of its own, stopped when dropped.
struct Feed {
    told: Receiver<Told>,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), FatalError>>>,
}

impl Feed {
    fn start(options: feed::Options, patterns: &[&str]) -> Feed {
        let patterns: Vec<_> = patterns.iter().map(|text| KeyPattern::parse(text).unwrap()).collect();
        let subscriptions = Subscriptions::plan(
            Source::Notifications,
            &patterns.iter().collect::<Vec<_>>(),
            &[],
            options.endpoint.db,
        );
        let (tell, told) = channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let (_plans, planned) = watch::channel(feed::Plan {
                number: 0,
                subscriptions,
            });
            runtime.block_on(feed::run(options, Location::Fixed, planned, Teller(tell), stopped))
        });
        Feed {
            told,
            stop,
            thread: Some(thread),
        }
    }

    #[track_caller]
    fn next(&self) -> Told {
        self.told
            .recv_timeout(PATIENCE)
            .expect("the listener is told something")
    }

    #[track_caller]
    fn up(&self) -> ServerInfo {
        match self.next() {
            Told::Up(server) => server,
            other => panic!("expected up, was told {other:?}"),
        }
    }

    #[track_caller]
    fn lost(&self) -> LostReason {
        match self.next() {
            Told::Lost(reason) => reason,
            other => panic!("expected lost, was told {other:?}"),
        }
    }

    /// Skips what is told of the outage until it is over.
    #[track_caller]
    fn back(&self) -> ServerInfo {
        loop {
            match self.next() {
                Told::Up(server) => return server,
                Told::Lost(_) => {}
                other => panic!("while away, was told {other:?}"),
            }
        }
    }

    /// Skips what is told of a server that does not do as it should, until `wanted`; no event before.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&Told) -> bool) {
        loop {
            match self.next() {
                told if wanted(&told) => return,
                Told::Flushed(_) | Told::Late(_) | Told::Behind(_) => {}
                told => panic!("before {what}, was told {told:?}"),
            }
        }
    }

    #[track_caller]
    fn event(&self, key: &[u8], name: &str) {
        assert_eq!(self.next(), Told::Event(key.to_vec(), name.to_owned()));
    }

    /// Waits for the end of a feed that gives up.
    fn end(mut self) -> Result<(), FatalError> {
        self.thread
            .take()
            .expect("it was not waited for")
            .join()
            .expect("the feed does not panic")
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                ended
                    .expect("the feed does not panic")
                    .expect("a stopped feed has no error");
            }
        }
    }
}

fn options(server: &Server) -> feed::Options {
    feed::Options {
        endpoint: endpoint(server),
        notifications: Notifications::Ensure,
        topics: true,
        strict: true,
    }
}

fn flags(server: &Server) -> String {
    match redis!(server, "CONFIG", "GET", "notify-keyspace-events") {
        Reply::Array(pair) => pair[1].text(),
        other => panic!("CONFIG GET gives a pair, not {other:?}"),
    }
}

/// Ends the connections of all feeds, and says how many.
fn kill_feeds(server: &Server) -> usize {
    let clients = redis!(server, "CLIENT", "LIST").text();
    let feeds = clients.lines().filter(|line| line.contains("name=keyrelay-test"));
    let ids = feeds.filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    ids.map(|id| redis!(server, "CLIENT", "KILL", "ID", id)).count()
}

#[test]
fn events_come_in_order_whatever_the_bytes_of_the_key() {
    let server = Server::start();
    let feed = Feed::start(options(&server), &["one", "cart:{user}", r"odd\*{rest...}"]);
    let up = feed.up();
    assert_eq!(up.run_id.len(), 40);
    assert!(up.version.contains('.'), "{up:?}");
    let binary = b"cart:\xff\x00\r\n$3\r\nset";
    redis!(server, "SET", "cart:1", "a");
    redis!(server, "SET", binary, "b");
    redis!(server, "SET", "elsewhere", "c");
    redis!(server, "SET", "one", "d");
    redis!(server, "SET", "one-more", "e");
    redis!(server, "HSET", "odd*x", "f", "v");
    redis!(server, "SET", "oddities", "g");
    redis!(server, "DEL", "cart:1");
    redis!(server, "PEXPIRE", binary, "1");
    feed.event(b"cart:1", "set");
    feed.event(binary, "set");
    feed.event(b"one", "set");
    feed.event(b"odd*x", "hset");
    feed.event(b"cart:1", "del");
    feed.event(binary, "expire");
    // A look at it makes the server notice that it has expired.
    eventually("the key is gone", || {
        (redis!(server, "EXISTS", binary) == Reply::Integer(0)).then_some(())
    });
    feed.event(binary, "expired");
}

#[test]
fn only_the_chosen_database_is_heard() {
    let server = Server::start();
    let mut options = options(&server);
    options.endpoint.db = 3;
    let feed = Feed::start(options, &["{any...}"]);
    feed.up();
    redis!(server, "SET", "a", "in 0");
    redis!(server, "SELECT", "3");
    redis!(server, "SET", "b", "in 3");
    feed.event(b"b", "set");
}

#[test]
fn a_burst_is_heard_to_the_last_event() {
    const BURST: usize = 50_000;
    let server = Server::start();
    let feed = Feed::start(options(&server), &["k:{n}"]);
    feed.up();
    let mut writer = server.connect();
    let writing = thread::spawn(move || {
        for n in 0..BURST {
            writer.send(&[b"SET", format!("k:{n}").as_bytes(), b"v"]).unwrap();
            if n % 1000 == 999 {
                (0..1000).for_each(|_| assert_eq!(writer.receive().unwrap(), Reply::Status("OK".into())));
            }
        }
    });
    for n in 0..BURST {
        feed.event(format!("k:{n}").as_bytes(), "set");
    }
    writing.join().unwrap();
}

#[test]
fn a_flush_is_told_in_order_with_the_events() {
    let server = Server::start();
    let feed = Feed::start(options(&server), &["{any...}"]);
    feed.up();
    for flush in ["FLUSHALL", "FLUSHDB"] {
        redis!(server, "SET", "before", "1");
        redis!(server, flush);
        redis!(server, "SET", "after", "1");
        feed.event(b"before", "set");
        assert_eq!(feed.next(), Told::Flushed(Cause::Signal));
        feed.event(b"after", "set");
    }
}

#[test]
fn a_full_resync_is_a_flush_and_a_loading_server_is_not_up() {
    let primary = Server::start();
    redis!(primary, "CONFIG", "SET", "repl-diskless-sync", "no");
    let mut writer = primary.connect();
    for n in 0..4000 {
        writer.command(&[b"SET", format!("k:{n}").as_bytes(), b"v"]).unwrap();
    }
    let replica = Server::start();
    // Microseconds for each key, and bytes after which the server looks at its connections while it loads.
    redis!(replica, "CONFIG", "SET", "key-load-delay", "500");
    redis!(
        replica,
        "CONFIG",
        "SET",
        "loading-process-events-interval-bytes",
        "1024"
    );
    let before = Feed::start(options(&replica), &["{any...}"]);
    before.up();
    redis!(replica, "REPLICAOF", "127.0.0.1", primary.address().port().to_string());
    eventually("the replica loads", || {
        redis!(replica, "INFO", "persistence")
            .text()
            .contains("\nloading:1")
            .then_some(())
    });
    let during = Feed::start(options(&replica), &["{any...}"]);
    assert_eq!(during.lost(), LostReason::Loading);
    during.up();
    assert!(redis!(replica, "INFO", "persistence").text().contains("\nloading:0"));
    before.until("the signal", |told| *told == Told::Flushed(Cause::Signal));
    before.until("the full synchronization", |told| {
        *told == Told::Flushed(Cause::FullSync)
    });
    redis!(primary, "SET", "after", "1");
    for feed in [before, during] {
        feed.until("an event", |told| *told == Told::Event(b"after".into(), "set".into()));
    }
}

#[test]
fn a_killed_server_is_lost_and_its_successor_is_up() {
    let mut server = Server::start();
    let feed = Feed::start(options(&server), &["{any...}"]);
    let first = feed.up();
    server.kill();
    assert!(matches!(feed.lost(), LostReason::Closed | LostReason::Broken(_)));
    let LostReason::Unreachable { address, .. } = feed.lost() else {
        panic!("nobody listens")
    };
    assert_eq!(address, server.address().to_string());
    server.restart(Data::Lost);
    let second = feed.back();
    assert_ne!(first.run_id, second.run_id);
    redis!(server, "SET", "a", "1");
    feed.event(b"a", "set");
}

#[test]
fn a_server_that_is_away_at_first_is_found_when_it_comes() {
    let mut server = Server::away();
    let feed = Feed::start(options(&server), &["{any...}"]);
    assert!(matches!(feed.lost(), LostReason::Unreachable { .. }));
    server.restart(Data::Lost);
    feed.back();
    redis!(server, "SET", "a", "1");
    feed.event(b"a", "set");
}

#[test]
fn a_killed_connection_is_lost_and_made_anew() {
    let server = Server::start();
    let feed = Feed::start(options(&server), &["{any...}"]);
    let run_id = feed.up().run_id;
    for round in 0..3 {
        assert_eq!(kill_feeds(&server), 1);
        assert!(matches!(feed.lost(), LostReason::Closed | LostReason::Broken(_)));
        assert_eq!(feed.back().run_id, run_id);
        redis!(server, "SET", "a", round.to_string());
        feed.event(b"a", "set");
    }
}

#[test]
fn a_frozen_server_is_late_and_loses_nothing() {
    let server = Server::start();
    let feed = Feed::start(options(&server), &["{any...}"]);
    feed.up();
    server.freeze();
    assert_eq!(feed.next(), Told::Late(true));
    server.thaw();
    assert_eq!(feed.next(), Told::Late(false));
    redis!(server, "SET", "a", "1");
    feed.event(b"a", "set");
}

#[test]
fn a_server_that_stays_frozen_is_lost() {
    let server = Server::start();
    let feed = Feed::start(options(&server), &["{any...}"]);
    feed.up();
    server.freeze();
    assert_eq!(feed.next(), Told::Late(true));
    assert!(matches!(feed.lost(), LostReason::Silent(_)));
    server.thaw();
    feed.back();
}

#[test]
fn nothing_wanted_is_a_connection_all_the_same() {
    let server = Server::start();
    let feed = Feed::start(options(&server), &[]);
    feed.up();
    redis!(server, "SET", "a", "1");
    redis!(server, "FLUSHALL");
    assert_eq!(feed.next(), Told::Flushed(Cause::Signal));
}

#[test]
fn thousands_of_keys_are_subscribed_by_name() {
    let server = Server::start();
    let keys: Vec<String> = (0..3500).map(|n| format!("key-{n}")).collect();
    let feed = Feed::start(options(&server), &keys.iter().map(String::as_str).collect::<Vec<_>>());
    feed.up();
    redis!(server, "SET", "key-3500", "1");
    redis!(server, "SET", "key-3499", "1");
    redis!(server, "SET", "key-0", "1");
    feed.event(b"key-3499", "set");
    feed.event(b"key-0", "set");
}

#[test]
fn ensure_adds_the_missing_letters_and_takes_none_away() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "Elm");
    let feed = Feed::start(options(&server), &["{any...}"]);
    feed.up();
    let now = flags(&server);
    for letter in "KElm".chars() {
        assert!(now.contains(letter), "{letter} of {now}");
    }
    redis!(server, "SADD", "a", "1");
    feed.event(b"a", "sadd");
}

#[test]
fn require_refuses_with_the_command_to_run() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "El");
    let feed = Feed::start(
        feed::Options {
            notifications: Notifications::Require,
            ..options(&server)
        },
        &["{any...}"],
    );
    let error = feed.end().unwrap_err().to_string();
    let command = format!(
        "redis-cli -p {} CONFIG SET notify-keyspace-events 'KEg$lshzxet'",
        server.address().port()
    );
    assert!(error.contains(&command), "{error}");
    assert!(error.contains("notifications = \"assume\""), "{error}");
    let mut now: Vec<char> = flags(&server).chars().collect();
    now.sort_unstable();
    assert_eq!(now, ['E', 'l'], "nothing was changed");
}

#[test]
fn require_starts_when_nothing_is_missing_and_loses_when_something_is_later() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "KA");
    let feed = Feed::start(
        feed::Options {
            notifications: Notifications::Require,
            ..options(&server)
        },
        &["{any...}"],
    );
    feed.up();
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "");
    kill_feeds(&server);
    assert!(matches!(feed.lost(), LostReason::Closed | LostReason::Broken(_)));
    assert!(matches!(feed.lost(), LostReason::Notifications(_)), "it goes on trying");
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "KA");
    feed.back();
}

#[test]
fn ensure_that_is_not_allowed_to_says_what_to_run() {
    let server = Server::start();
    server.grant("reset on >secret ~* allchannels +@all -config");
    let mut options = options(&server);
    options.endpoint.username = Some("relay".into());
    options.endpoint.password = Some("secret".into());
    let error = Feed::start(options.clone(), &["{any...}"])
        .end()
        .unwrap_err()
        .to_string();
    assert!(error.contains("CONFIG SET notify-keyspace-events 'KEA'"), "{error}");
    assert!(error.contains("NOPERM"), "{error}");
    assert!(error.contains("notifications = \"assume\""), "{error}");

    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "KA");
    options.notifications = Notifications::Assume;
    let feed = Feed::start(options, &["{any...}"]);
    feed.up();
    redis!(server, "SET", "a", "1");
    feed.event(b"a", "set");
}

#[test]
fn a_wrong_password_or_right_is_a_reason_and_not_the_end() {
    let server = Server::start();
    server.grant("reset on >other ~* allchannels +@all -psubscribe");
    let mut options = options(&server);
    options.endpoint.username = Some("relay".into());
    options.endpoint.password = Some("secret".into());
    let feed = Feed::start(options, &["{any...}"]);
    let LostReason::Login(words) = feed.lost() else {
        panic!("the password is wrong")
    };
    assert!(words.contains("WRONGPASS"), "{words}");
    server.grant(">secret");
    let LostReason::Rights(words) = feed.lost() else {
        panic!("the right is missing")
    };
    assert!(words.contains("PSUBSCRIBE"), "{words}");
    server.grant("+psubscribe");
    feed.back();
}

#[test]
fn the_least_rights_are_enough() {
    let server = Server::start();
    let rule = "reset resetchannels on >secret ~app:* &__keyspace@0__:app:* -@all +hello +auth +ping +select \
                +psubscribe +subscribe +punsubscribe +unsubscribe +info +config|get +client|setname +client|list \
                +client|tracking";
    server.grant(rule);
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "KA");
    let mut options = options(&server);
    options.endpoint.username = Some("relay".into());
    options.endpoint.password = Some("secret".into());
    let feed = Feed::start(options, &["app:{rest...}"]);
    feed.up();
    redis!(server, "SET", "app:a", "1");
    feed.event(b"app:a", "set");
}

#[test]
fn a_name_is_resolved() {
    let server = Server::start();
    let mut options = options(&server);
    options.endpoint.address = Address::Tcp {
        host: "localhost".into(),
        port: server.address().port(),
    };
    // The server has no IPv6 address: if that comes first, the second must be tried.
    Feed::start(options, &["{any...}"]).up();
}

#[test]
fn a_unix_socket_does_as_well() {
    let server = Server::start();
    let mut options = options(&server);
    options.endpoint.address = Address::Unix(server.socket());
    let feed = Feed::start(options, &["{any...}"]);
    feed.up();
    redis!(server, "SET", "a", "1");
    feed.event(b"a", "set");
}
