//! The feed: key events, published messages and the flush signal of one server, in order, and every way of losing them
//! turned into a gap.
//!
//! It runs on whatever current-thread runtime the caller gives it, best on a thread of its own: an event must be taken
//! from the socket before the server's output buffer for us is full (32 MB by default), whatever else goes on.

use std::{
    fmt,
    future::{Future, pending},
    time::Duration,
};

use tokio::{
    select,
    sync::watch::Receiver,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Address, Endpoint, Subscriptions, info::ServerInfo, link::Link, tls, topology::Location};

mod backoff;
mod change;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod listen;
pub(super) mod look;
mod pulse;
pub(super) mod start;
mod watch;

/// How often a server is asked whether it has loaded its data.
const LOADING_INTERVAL: Duration = Duration::from_millis(100);

/// A connection that held for this long was a success: the next outage begins with the shortest delay again.
const SETTLED: Duration = Duration::from_secs(5);

/// What a feed connects to, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub endpoint: Endpoint,
    /// What to do about the server's `notify-keyspace-events`, while key events are heard at all.
    pub notifications: Notifications,
    /// Whether it hears what is published, too: in a cluster one of the nodes is enough.
    pub topics: bool,
    /// Whether what an operator must change ends the feed if it is found at the start, instead of being waited for.
    pub strict: bool,
}

/// What is to be heard, and its number: a later plan has a greater one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which one it is.
    pub number: u64,
    /// What to subscribe to and which keys to track.
    pub subscriptions: Subscriptions,
}

/// How the server comes to send key events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifications {
    /// Add what is missing to the server's setting.
    Ensure,
    /// Refuse to start when something is missing.
    Require,
    /// Do not ask; for servers that refuse CONFIG, and where keys are tracked instead.
    Assume,
}

/// One key event; both parts are bytes as the server sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEvent<'a> {
    /// The key that may have changed.
    pub key: &'a [u8],
    /// What is said to have happened to it; client tracking does not say.
    pub event: Option<&'a [u8]>,
}

/// Hears what a feed has to say, in the order in which the server said it.
///
/// Called on the feed's thread, which does nothing else meanwhile. A feed that is stopped says nothing more.
pub trait Listener: Send + 'static {
    /// Every subscription is confirmed and the server's data is loaded: from here on no event is missed. What changed
    /// before, since the last `lost` or ever, was not heard. `at` is where this very server was reached: of a name one of
    /// its addresses, of several servers the one that was found.
    fn up(&mut self, server: &ServerInfo, at: &Endpoint);

    /// From here on, while the connection holds, all is heard that the plan of this number asks for, and what only earlier
    /// ones ask for is not. Said after each `up`.
    fn hears(&mut self, _plan: u64) {}

    /// Key events; only between `up` and `lost`.
    fn events(&mut self, batch: &[KeyEvent<'_>]);

    /// A message was published on a topic that is subscribed to; only between `up` and `lost`.
    fn published(&mut self, topic: &[u8], message: &[u8]);

    /// Keys may have changed without an event each, though the connection is there.
    fn flushed(&mut self, cause: Cause);

    /// The server does not send all key events any more, until `flushed` with [`Cause::Unheard`] or `lost`.
    fn unheard(&mut self);

    /// Events may be missed from now on, until `up`. Called again while away when the reason becomes another.
    fn lost(&mut self, reason: &LostReason);

    /// With true: the server has not answered for 2 s. With false: it has, and nothing was lost meanwhile.
    /// A late connection may also end in `lost`, without a `late(false)` before it.
    fn late(&mut self, late: bool);

    /// With a time: the server is a replica whose link to its primary is down for so long, so it may be behind, whatever
    /// it says. With none: the link is up again, and what was missed has come or was told by `flushed` before.
    fn behind(&mut self, behind: Option<Duration>);

    /// What the server is, soon after each `up` and whenever that changes.
    fn role(&mut self, _role: Role) {}

    /// The server's clock was set ahead by so many milliseconds, or back if they are negative: keys expire earlier or
    /// later than they were said to.
    fn clock_set(&mut self, _ahead_ms: i64) {}

    /// Waits until somebody wants to know when all that the server has said by now was told; a number to be said back.
    /// Asked for again and again, and dropped meanwhile.
    fn asked(&mut self) -> impl Future<Output = u64> + Send {
        pending()
    }

    /// The server has answered the question of this number, and all that it had said before was told. A question is lost
    /// with its connection.
    fn answered(&mut self, _number: u64) {}
}

/// What a server is to those whose data it takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes, and nobody's data.
    Primary,
    /// It has what its primary has, and is behind while the link is down.
    Replica,
    /// It takes writes of its own and those of its peers, so it is behind nobody.
    ActiveReplica {
        /// The peers to which its links are down.
        peers_down: Vec<Address>,
    },
}

impl Role {
    /// The role in one word.
    pub fn word(&self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::ActiveReplica { .. } => "active-replica",
        }
    }

    /// The peers to which links are down.
    pub fn peers_down(&self) -> &[Address] {
        match self {
            Role::Primary | Role::Replica => &[],
            Role::ActiveReplica { peers_down } => peers_down,
        }
    }
}

/// Why keys may have changed without an event each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server signals that a database, maybe another one of the same server, was emptied or loaded anew.
    Signal,
    /// The same signal by a replica: it may load its primary's data anew next, and that may be older.
    SignalOfReplica,
    /// A database was emptied; told by counters, where there is no signal.
    Flushed,
    /// Two databases changed places. On KeyDB the connections that chose one of them stay with its old keys.
    Swapped,
    /// The data of a primary was loaded, or that of a peer merged; the peer may have what was deleted here.
    FullSync,
    /// The server did not send all key events for a while; now it does.
    Unheard,
}

impl Cause {
    /// Whether there were happenings of which no event came. To empty a database is no happening of its keys.
    pub fn loses_events(self) -> bool {
        matches!(self, Cause::FullSync | Cause::Unheard)
    }

    /// Whether a key may have an older value now than before.
    pub fn may_go_back(self) -> bool {
        matches!(self, Cause::SignalOfReplica | Cause::Swapped | Cause::FullSync)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Signal | Cause::SignalOfReplica => "the server signals that all keys may have changed",
            Cause::Flushed => "a database was emptied",
            Cause::Swapped => "databases were swapped",
            Cause::FullSync => "a full synchronization",
            Cause::Unheard => "key events were switched off",
        })
    }
}

/// Why there is no connection that hears key events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// Nobody accepts a connection.
    #[error("cannot connect to {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// The system's words.
        why: String,
    },
    /// The two sides do not trust each other, or only one of them speaks TLS.
    #[error("no trusted connection to {address}: {why}")]
    Tls {
        /// Where.
        address: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The server's place was taken by another one.
    #[error("another server is the primary now")]
    Moved,
    /// The server is a replica, though it was said to be the primary.
    #[error("the server is a replica now")]
    Replica,
    /// The server closed the connection: it stopped, we were too slow for it, or somebody told it to.
    #[error("the server closed the connection")]
    Closed,
    /// The server closed the connection without a word: it goes down, or what answers there is no such server.
    #[error(
        "the server closed the connection without a word; if this is its TLS port, {}",
        tls::TLS_PORT
    )]
    Dumb,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server is reading its data and answers no reads yet.
    #[error("the server is loading its data")]
    Loading,
    /// Nothing came in time, not even the answer to a PING.
    #[error("the server has not said anything for {0:?}")]
    Silent(Duration),
    /// The user or password is wrong or missing.
    #[error("the server does not let us in ({0}): check the user and password of the upstream url")]
    Login(String),
    /// The user may not do what a feed must do.
    #[error("the user has not got the rights ({0}): `keyrelay check --connect` says what to run")]
    Rights(String),
    /// Other keys are to be tracked, or key events to be heard for the first time, which takes a connection of its own.
    #[error("the mappings of another config need another connection")]
    Reload,
    /// The server's setting was changed, and cannot be set right.
    #[error("{0}")]
    Notifications(String),
    /// The server refused something for another reason.
    #[error("the server refused {0}")]
    Refused(String),
    /// What came is not understood.
    #[error("{0}")]
    Protocol(String),
}

/// What will not get better by trying again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatalError {
    /// The server does not send key events and may not be told to, or cannot; says what to run.
    #[error("{0}")]
    Notifications(String),
}

/// Hears what the last of `plans` says and tells `listener`, through any number of connections, until `stop`. The server
/// is wherever `location` says; of the endpoint all else counts.
///
/// # Errors
/// Only before the first `up`, and only what an operator must change: see [`FatalError`].
pub async fn run(
    options: Options,
    location: Location,
    plans: Receiver<Plan>,
    mut listener: impl Listener,
    stop: CancellationToken,
) -> Result<(), FatalError> {
    let mut feed = Feed {
        options,
        plans,
        outage: None,
        said: Vec::new(),
        was_up: false,
    };
    select! {
        biased;
        () = stop.cancelled() => Ok(()),
        error = feed.run(location, &mut listener) => Err(error),
    }
}

impl LostReason {
    /// Every [`word`](LostReason::word).
    pub const WORDS: [&str; 14] = [
        "unreachable",
        "tls",
        "moved",
        "replica",
        "mute",
        "closed",
        "broken",
        "loading",
        "silent",
        "login",
        "rights",
        "events-off",
        "refused",
        "protocol",
    ];

    /// The reason in one word.
    pub fn word(&self) -> &'static str {
        match self {
            LostReason::Unreachable { .. } => "unreachable",
            LostReason::Tls { .. } => "tls",
            LostReason::Moved => "moved",
            LostReason::Replica => "replica",
            LostReason::Dumb => "mute",
            LostReason::Closed => "closed",
            LostReason::Broken(_) => "broken",
            LostReason::Loading => "loading",
            LostReason::Silent(_) => "silent",
            LostReason::Login(_) => "login",
            LostReason::Rights(_) => "rights",
            LostReason::Reload => "reload",
            LostReason::Notifications(_) => "events-off",
            LostReason::Refused(_) => "refused",
            LostReason::Protocol(_) => "protocol",
        }
    }

    /// Whether it takes a person to mend it.
    fn needs_help(&self) -> bool {
        matches!(
            self,
            LostReason::Tls { .. } | LostReason::Login(_) | LostReason::Rights(_) | LostReason::Notifications(_)
        )
    }
}

struct Feed {
    options: Options,
    plans: Receiver<Plan>,
    /// What the listener was told last; None while up, and before the first attempt.
    outage: Option<LostReason>,
    /// The reasons that the log was told since the feed was lost.
    said: Vec<&'static str>,
    was_up: bool,
}

/// Why one connection ended, or never came about.
enum End {
    Lost(LostReason),
    Fatal(FatalError),
}

impl Feed {
    async fn run(&mut self, mut location: Location, listener: &mut impl Listener) -> FatalError {
        let mut attempt = 0;
        let endpoint = self.options.endpoint.clone();
        loop {
            self.options.endpoint = location.find(&endpoint).await;
            let mut up_since = None;
            let primary = location.is_of_primary();
            let end = select! {
                biased;
                end = self.connection(primary, listener, &mut up_since) => end,
                () = location.moved() => {
                    self.lost(listener, LostReason::Moved);
                    attempt = 0;
                    continue;
                }
            };
            if up_since.is_some_and(|since: Instant| since.elapsed() >= SETTLED) {
                attempt = 0;
            }
            match end {
                End::Fatal(error) if self.options.strict && !self.was_up => return error,
                End::Lost(LostReason::Reload) => {
                    self.lost(listener, LostReason::Reload);
                    attempt = 0;
                    continue;
                }
                End::Fatal(FatalError::Notifications(why)) => self.lost(listener, LostReason::Notifications(why)),
                End::Lost(reason) => self.lost(listener, reason),
            }
            select! {
                () = sleep(backoff::delay(attempt, backoff::random())) => attempt = attempt.saturating_add(1),
                () = location.moved() => attempt = 0,
            }
        }
    }

    /// One connection, from connecting to its end. It must lead to a `primary` if the server was said to be one.
    async fn connection(&mut self, primary: bool, listener: &mut impl Listener, up_since: &mut Option<Instant>) -> End {
        let (options, plans) = (self.options.clone(), self.plans.clone());
        let (mut ear, server) = match start::start(&options, plans, primary).await {
            Ok(started) => started,
            Err(end) => return end,
        };
        loop {
            match ear.is_loading().await {
                Ok(false) => break,
                Ok(true) => self.lost(listener, LostReason::Loading),
                Err(end) => return end,
            }
            sleep(LOADING_INTERVAL).await;
        }
        self.up(listener, &server, ear.link());
        listener.hears(ear.plan());
        *up_since = Some(Instant::now());
        match ear.listen(listener).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    fn up(&mut self, listener: &mut impl Listener, server: &ServerInfo, link: &Link) {
        let address = link.address();
        info!(%address, version = server.version, run_id = server.run_id, "upstream connected");
        self.outage = None;
        self.said.clear();
        self.was_up = true;
        listener.up(server, &self.options.endpoint.reached(address.clone()));
    }

    /// Tells the listener of each new reason, and the log once of each kind: while a server comes back it may close
    /// connections, refuse them and load its data in turns.
    fn lost(&mut self, listener: &mut impl Listener, reason: LostReason) {
        let address = &self.options.endpoint.address;
        if self.outage.as_ref() == Some(&reason) {
            return;
        }
        let new = !self.said.contains(&reason.word());
        match self.outage {
            None => warn!(%address, %reason, "upstream lost, trying again until it is back"),
            Some(_) if new && reason.needs_help() => warn!(%address, %reason, "upstream is there, but not usable"),
            Some(_) if new => info!(%address, %reason, "upstream still away, for another reason"),
            Some(_) => debug!(%address, %reason, "upstream still away"),
        }
        if new {
            self.said.push(reason.word());
        }
        listener.lost(&reason);
        self.outage = Some(reason);
    }
}
