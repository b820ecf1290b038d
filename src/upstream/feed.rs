//! The feed: key events, published messages and the flush signal of one server, in order, and every way of losing them
//! turned into a gap.
//!
//! It runs on whatever current-thread runtime the caller gives it, best on a thread of its own: an event must be taken
//! from the socket before the server's output buffer for us is full (32 MB by default), whatever else goes on.

use std::{
    convert::Infallible,
    future::{Future, pending},
    time::Duration,
};

use redis_protocol::resp3::types::OwnedFrame;

use smallvec::SmallVec;
use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::pulse::{Beat, Pulse, SILENCE};
use super::{
    Endpoint, Subscriptions,
    info::ServerInfo,
    link::{Link, LinkError},
    tls,
    wire::{self, Frame},
};
use crate::switches::{self, Switch};

mod backoff;
mod pulse;
pub(super) mod start;

/// How often a server is asked whether it has loaded its data.
const LOADING_INTERVAL: Duration = Duration::from_millis(100);

/// A connection that held for this long was a success: the next outage begins with the shortest delay again.
const SETTLED: Duration = Duration::from_secs(5);

/// What a feed connects to, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub endpoint: Endpoint,
    /// What to do about the server's `notify-keyspace-events`.
    pub notifications: Notifications,
}

/// How the server comes to send key events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifications {
    /// Add what is missing to the server's setting.
    Ensure,
    /// Refuse to start when something is missing.
    Require,
    /// Do not ask; for servers that refuse CONFIG.
    Assume,
}

/// One key event; both parts are bytes as the server sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEvent<'a> {
    /// The key that may have changed.
    pub key: &'a [u8],
    /// What is said to have happened to it.
    pub event: &'a [u8],
}

/// Hears what a feed has to say, in the order in which the server said it.
///
/// Called on the feed's thread, which does nothing else meanwhile. A feed that is stopped says nothing more.
pub trait Listener: Send + 'static {
    /// Every subscription is confirmed and the server's data is loaded: from here on no event is missed. What changed
    /// before, since the last `lost` or ever, was not heard. `at` is where this very server was reached: of a name one of
    /// its addresses, of several servers the one that was found.
    fn up(&mut self, server: &ServerInfo, at: &Endpoint);

    /// Key events; only between `up` and `lost`.
    fn events(&mut self, batch: &[KeyEvent<'_>]);

    /// A message was published on a topic that is subscribed to; only between `up` and `lost`.
    fn published(&mut self, topic: &[u8], message: &[u8]);

    /// The database, or another one of the same server, was emptied or loaded anew without events.
    fn flushed(&mut self);

    /// Events may be missed from now on, until `up`. Called again while away when the reason becomes another.
    fn lost(&mut self, reason: &LostReason);

    /// With true: the server has not answered for 2 s. With false: it has, and nothing was lost meanwhile.
    /// A late connection may also end in `lost`, without a `late(false)` before it.
    fn late(&mut self, late: bool);

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
    #[error("the user has not got the rights: {0}")]
    Rights(String),
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

/// Hears the events of `subscriptions` and tells `listener`, through any number of connections, until `stop`.
///
/// # Errors
/// Only before the first `up`, and only what an operator must change: see [`FatalError`].
pub async fn run(
    options: Options,
    subscriptions: Subscriptions,
    mut listener: impl Listener,
    stop: CancellationToken,
) -> Result<(), FatalError> {
    let mut feed = Feed {
        options,
        subscriptions,
        outage: None,
        was_up: false,
    };
    select! {
        biased;
        () = stop.cancelled() => Ok(()),
        error = feed.run(&mut listener) => Err(error),
    }
}

impl LostReason {
    /// The reason in one word.
    pub fn word(&self) -> &'static str {
        match self {
            LostReason::Unreachable { .. } => "unreachable",
            LostReason::Tls { .. } => "tls",
            LostReason::Dumb => "mute",
            LostReason::Closed => "closed",
            LostReason::Broken(_) => "broken",
            LostReason::Loading => "loading",
            LostReason::Silent(_) => "silent",
            LostReason::Login(_) => "login",
            LostReason::Rights(_) => "rights",
            LostReason::Notifications(_) => "notifications",
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
    subscriptions: Subscriptions,
    /// What the listener and the log were told last; None while up, and before the first attempt.
    outage: Option<LostReason>,
    was_up: bool,
}

/// Why one connection ended, or never came about.
enum End {
    Lost(LostReason),
    Fatal(FatalError),
}

impl Feed {
    async fn run(&mut self, listener: &mut impl Listener) -> FatalError {
        let mut attempt = 0;
        loop {
            let mut up_since = None;
            let end = self.connection(listener, &mut up_since).await;
            if up_since.is_some_and(|since: Instant| since.elapsed() >= SETTLED) {
                attempt = 0;
            }
            match end {
                End::Fatal(error) if !self.was_up => return error,
                End::Fatal(FatalError::Notifications(why)) => self.lost(listener, LostReason::Notifications(why)),
                End::Lost(reason) => self.lost(listener, reason),
            }
            sleep(backoff::delay(attempt, backoff::random())).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// One connection, from connecting to its end.
    async fn connection(&mut self, listener: &mut impl Listener, up_since: &mut Option<Instant>) -> End {
        let (mut link, server) = match start::start(&self.options, &self.subscriptions).await {
            Ok(started) => started,
            Err(end) => return end,
        };
        loop {
            match start::is_loading(&mut link, &self.options.endpoint.address).await {
                Ok(false) => break,
                Ok(true) => self.lost(listener, LostReason::Loading),
                Err(end) => return end,
            }
            sleep(LOADING_INTERVAL).await;
        }
        self.up(listener, &server, &link);
        *up_since = Some(Instant::now());
        match self.listen(&mut link, listener).await {
            Ok(never) => match never {},
            Err(reason) => End::Lost(reason),
        }
    }

    /// Hands on what the server says until the connection is lost.
    async fn listen(&self, link: &mut Link, listener: &mut impl Listener) -> Result<Infallible, LostReason> {
        let mut pulse = Pulse::new(Instant::now());
        loop {
            // What came together with the last reply of the start is delivered before the first read.
            let answers = self.deliver(link, listener)?;
            match pulse.beat(Instant::now(), answers) {
                Beat::Wait => {}
                Beat::Ping => link.send(&[b"PING"]).await.map_err(|error| self.reason(error))?,
                Beat::Late(late) => listener.late(late),
                Beat::Lost => return Err(LostReason::Silent(SILENCE)),
            }
            select! {
                // What is in the socket counts before what the clock says: it may be us who were late.
                biased;
                read = link.read() => {
                    read.map_err(|error| self.reason(error))?;
                    pulse.heard(Instant::now());
                }
                number = listener.asked() => {
                    let number = number.to_string();
                    link.send(&[b"PING", number.as_bytes()]).await.map_err(|error| self.reason(error))?;
                }
                () = sleep_until(pulse.next()) => {}
            }
        }
    }

    /// Hands on all whole frames that were read; says how many of them were replies, which only PINGs get.
    fn deliver(&self, link: &mut Link, listener: &mut impl Listener) -> Result<usize, LostReason> {
        let mut answers = 0;
        let mut done = 0;
        let mut batch: SmallVec<[KeyEvent<'_>; 32]> = SmallVec::new();
        let bytes = link.unparsed();
        let malformed = loop {
            let (frame, length) = match wire::parse(&bytes[done..]) {
                Ok(Some(found)) => found,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            done += length;
            match frame {
                Frame::Message { channel, payload } => match self.subscriptions.key_of(channel) {
                    Some(key) => batch.push(KeyEvent { key, event: payload }),
                    None => {
                        tell(listener, &mut batch);
                        listener.published(channel, payload);
                    }
                },
                Frame::Flushed if switches::off(Switch::FlushSignal) => {}
                Frame::Flushed => {
                    tell(listener, &mut batch);
                    listener.flushed();
                }
                Frame::Reply(reply) => {
                    answers += 1;
                    if let Some(number) = asked_for(&reply) {
                        tell(listener, &mut batch);
                        listener.answered(number);
                    }
                }
                // The tracked prefix has no keys, and confirmations were awaited before.
                Frame::Invalidated(_) | Frame::Push(_) => {}
            }
        };
        tell(listener, &mut batch);
        drop(batch);
        link.consume(done);
        match malformed {
            Some(error) => Err(LostReason::Protocol(error.to_string())),
            None => Ok(answers),
        }
    }

    fn reason(&self, error: LinkError) -> LostReason {
        start::reason(&self.options.endpoint.address, error)
    }

    fn up(&mut self, listener: &mut impl Listener, server: &ServerInfo, link: &Link) {
        let address = link.address();
        info!(%address, version = server.version, run_id = server.run_id, "upstream connected");
        self.outage = None;
        self.was_up = true;
        listener.up(server, &self.options.endpoint.reached(address.clone()));
    }

    /// Tells the listener and the log, but only once of the same reason.
    fn lost(&mut self, listener: &mut impl Listener, reason: LostReason) {
        let address = &self.options.endpoint.address;
        match &self.outage {
            Some(told) if *told == reason => return,
            Some(_) if reason.needs_help() => warn!(%address, %reason, "upstream is there, but not usable"),
            Some(_) => debug!(%address, %reason, "upstream still away"),
            None => warn!(%address, %reason, "upstream lost, trying again until it is back"),
        }
        listener.lost(&reason);
        self.outage = Some(reason);
    }
}

/// What number a PING was sent with that is answered by this.
fn asked_for(reply: &OwnedFrame) -> Option<u64> {
    match reply {
        OwnedFrame::BlobString { data, .. } => std::str::from_utf8(data).ok()?.parse().ok(),
        _ => None,
    }
}

fn tell(listener: &mut impl Listener, batch: &mut SmallVec<[KeyEvent<'_>; 32]>) {
    if !batch.is_empty() {
        listener.events(batch);
        batch.clear();
    }
}
