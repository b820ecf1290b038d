//! The relay's loop: it does what the mirror asks for, and tells it what came of it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::{self, select_all};
use tokio::sync::mpsc;
use tokio::task::coop::consume_budget;
use tokio_util::sync::CancellationToken;

use super::channels::{Catalog, Table};
use super::entries::{Jitter, Now};
use super::intake::{Intake, Shared};
use super::limits::Limits;
use super::mirror::Mirror;
use super::reads::Batch;
use super::resync::LOST;
use super::revise::{Ordered, Reviser};
use super::rule::Rule;
use super::stats::Stats;
use super::taken::Taken;
use crate::alarm::Alarm;
use crate::hub::Appender;
use crate::mapping::RuleError;
use crate::switches::Switch;
use crate::turns::{IDLE, Turns};
use crate::upstream::reader::{self, ConnectError, ReadError, ReadErrorKind, Reader, Reading, Told};
use crate::upstream::topology::Doubt;
use crate::upstream::{Address, Endpoint, NodeId};

/// Between two attempts to connect: from this, doubling, to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A connection that held for this long was a success: the next loss begins with no pause at all. One that did not, as
/// of a server that lets us in and then goes away, is not the server's absence: it is tried again sooner than
/// clients would be told of that.
const SETTLED: Duration = Duration::from_secs(1);
const BRIEF_PAUSE: Duration = Duration::from_millis(500);

/// What the relay needs to know from the config.
#[derive(Debug)]
pub struct Options {
    /// All mappings, in the order of the config.
    pub rules: Vec<Arc<Rule>>,
    /// How long a round of reads may take, see [`reader::TIMEOUT`].
    pub timeout: Duration,
    /// How long a round of second looks at all mirrored keys takes; `None` if there are none.
    pub verify: Option<Duration>,
    /// Told when a server says that it has not got the keys which it is asked for.
    pub doubt: Doubt,
    /// Most keys that may have changed and wait to be taken, see [`MAX_DIRTY`](super::MAX_DIRTY); beyond that all are read
    /// again.
    pub max_dirty: usize,
    /// What it may hold, and what it may ask of the server.
    pub limits: Limits,
    /// Counts the turns of its loop.
    pub turns: Arc<Turns>,
}

/// The relay before it runs.
#[derive(Debug)]
pub struct Relay {
    table: Arc<Table>,
    catalog: Catalog,
    reviser: Reviser,
    ordered: mpsc::Receiver<Ordered>,
    shared: Arc<Shared>,
    timeout: Duration,
    verify: Option<Duration>,
    doubt: Doubt,
    limits: Limits,
    turns: Arc<Turns>,
}

/// The three parts of a relay: what the hub asks for channels, what the feed of the first node talks to, and what reads
/// and appends.
///
/// # Errors
/// Every rule whose channel template does not fit its key pattern; a checked config has none.
pub fn new(options: Options) -> Result<(Catalog, Intake, Relay), Vec<RuleError>> {
    let stats = Arc::new(Stats::default());
    let table = Arc::new(Table::new(options.rules, &stats)?);
    let shared = Arc::new(Shared::new(table.clone(), stats));
    let catalog = Catalog::new(table.clone());
    let intake = Intake::new(shared.clone(), options.max_dirty);
    let (reviser, ordered) = Reviser::new();
    let relay = Relay {
        table,
        catalog: catalog.clone(),
        reviser,
        ordered,
        shared,
        timeout: options.timeout,
        verify: options.verify,
        doubt: options.doubt,
        limits: options.limits,
        turns: options.turns,
    };
    Ok((catalog, intake, relay))
}

/// The ways to the values of all nodes.
struct Links {
    timeout: Duration,
    /// Of the replies of one reader.
    memory: u64,
    each: Vec<Link>,
    /// Which is looked at first: each in its turn, else a busy one would keep the others waiting.
    first: usize,
}

/// What came over a link.
enum Done {
    Told(Told),
    /// Of an attempt to connect.
    Connected(Result<Box<Reader>, ConnectError>),
}

/// The way to the values of one node.
#[derive(Default)]
struct Link {
    /// With the moment since when it is connected.
    reader: Option<(Box<Reader>, Instant)>,
    connecting: Option<Connecting>,
    attempts: u32,
    /// Whether the last connection was made and held for less than [`SETTLED`].
    brief: bool,
    /// Whether the last attempt failed.
    failed: bool,
    /// Whether the log was told that the reader cannot connect.
    said: bool,
}

/// An attempt to connect.
struct Connecting {
    to: Address,
    task: Pin<Box<dyn Future<Output = Result<Box<Reader>, ConnectError>> + Send>>,
}

/// What the loop is told now and then. One stream that looks only at what has come costs a turn less than two that are looked at
/// each time.
enum Seldom {
    Stop,
    Ordered(Ordered),
}

impl Relay {
    /// What it and the feed's ear count.
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

    /// Gives it other mappings while it runs.
    pub fn reviser(&self) -> Reviser {
        self.reviser.clone()
    }

    /// Mirrors until `stop`. It wants a thread of its own with a current-thread runtime, where there are cores enough: nothing
    /// else should delay it.
    pub async fn run(self, appender: Appender, stop: CancellationToken) {
        let seed = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        let hub = appender.hub().clone();
        let shared = self.shared.clone();
        let mut mirror = Mirror::new(
            self.table,
            self.shared,
            appender,
            self.verify,
            self.limits,
            seed,
            Now::read(),
        );
        let mut taken = Taken::default();
        let mut jitter = Jitter(!seed);
        let mut links = Links {
            timeout: self.timeout,
            memory: self.limits.reading as u64,
            each: Vec::new(),
            first: 0,
        };
        let orders = stream::unfold(self.ordered, async |mut ordered| Some((ordered.recv().await?, ordered)));
        let mut seldom = select_all([
            stream::once(stop.cancelled_owned()).map(|()| Seldom::Stop).boxed(),
            orders.map(Seldom::Ordered).boxed(),
        ]);
        let mut alarm = Alarm::default();
        loop {
            self.turns.next(Switch::RelayTurns);
            let now = Now::read();
            mirror.interest(hub.interest(), now);
            shared.take(&mut taken);
            mirror.take(&mut taken, now);
            mirror.tick(now);
            links.begin(&mut mirror, &mut jitter, now);
            mirror.commit();
            mirror.report(now);
            let idle = now.mono + IDLE;
            // However much there is to do, the feed gets its turn where it shares the thread.
            consume_budget().await;
            alarm.set(mirror.next_wake().map_or(idle, |at| at.min(idle)).into());
            tokio::select! {
                // Whatever rings, each turn looks at all of it; what stands before the bells is told here alone.
                biased;
                Some(seldom) = seldom.next() => match seldom {
                    Seldom::Stop => return,
                    Seldom::Ordered(ordered) => ordered.carry_out(&mut mirror, &self.catalog, Now::read()),
                },
                (node, done) = poll_fn(|context| links.poll(context)) => match done {
                    Done::Told(Told::Read(flight, results)) => {
                        if results.iter().any(is_doubtful) {
                            self.doubt.cast();
                        }
                        mirror.replied(node, flight, results, Now::read());
                        // Before anything else is begun: subscribers see nothing of it until then.
                        mirror.commit();
                    }
                    Done::Told(Told::Page(pass, page, took)) => mirror.scanned(node, pass, page, took, Now::read()),
                    // Told again and again, until the next turn lets the reader go.
                    Done::Told(Told::Closed) => {
                        tracing::debug!(node = node.0, "the reader's connection is closed");
                        mirror.unlinked(node, Now::read());
                    }
                    Done::Connected(connected) => links.connected(node, &mut mirror, &shared.stats, connected),
                },
                () = shared.bell.rung() => {}
                () = hub.interested().rung() => {}
                () = alarm.gone_off() => {}
            }
        }
    }
}

impl Links {
    /// Begins what the mirror wants.
    fn begin(&mut self, mirror: &mut Mirror, jitter: &mut Jitter, now: Now) {
        for node in mirror.nodes.ids() {
            let at = usize::from(node.0);
            if self.each.len() <= at {
                self.each.push(Link::default());
            }
            let link = &mut self.each[at];
            if !mirror.has_reader(node)
                && let Some((_, since)) = link.reader.take()
            {
                link.brief = now.mono.saturating_duration_since(since) < SETTLED;
                if !link.brief {
                    link.attempts = 0;
                }
            }
            link.connect(mirror.wants_reader(node), self.timeout, self.memory, jitter);
            let Some((reader, _)) = &mut link.reader else { continue };
            while let Some(Batch { flight, requests }) = mirror.next_batch(node, now) {
                reader.read(flight, requests);
            }
            if let Some(page) = mirror.next_page(node, now) {
                reader.scan(page.pass, &page.cursor, page.glob.as_deref(), page.count);
            }
        }
    }

    /// Ready when something has come over one of them.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(NodeId, Done)> {
        let (before, after) = self.each.split_at_mut(self.first);
        let rest = (0..).zip(before);
        for (node, link) in (self.first as u16..).zip(after).chain(rest) {
            let done = match (&mut link.reader, &mut link.connecting) {
                (Some((reader, _)), _) => reader.poll(context).map(Done::Told),
                (None, Some(connecting)) => connecting.task.as_mut().poll(context).map(Done::Connected),
                (None, None) => Poll::Pending,
            };
            if let Poll::Ready(done) = done {
                self.first = usize::from(node) + 1;
                return Poll::Ready((NodeId(node), done));
            }
        }
        Poll::Pending
    }

    fn connected(
        &mut self,
        node: NodeId,
        mirror: &mut Mirror,
        stats: &Stats,
        connected: Result<Box<Reader>, ConnectError>,
    ) {
        let link = &mut self.each[usize::from(node.0)];
        let address = link.connecting.take().map(|connecting| connecting.to.to_string());
        match connected {
            Ok(reader) if mirror.linked(node, reader.run_id(), Now::read()) => {
                link.reader = Some((reader, Instant::now()));
                link.failed = false;
                if std::mem::take(&mut link.said) {
                    tracing::info!(address, "what is heard can be read again");
                }
            }
            // Another process answers there than the one that is heard: one of the two connections is an old one.
            Ok(_) => {
                if !std::mem::replace(&mut link.said, true) {
                    tracing::warn!(address, "another server is read than is heard: trying again");
                }
            }
            Err(error) => {
                link.brief = false;
                let since = SystemTime::now();
                stats.node(node, |node| node.readable.fail(LOST.0, error.to_string(), since));
                // A server that went away is lost to the feed at the same time, which tells of it: only who fails again is still
                // heard.
                if std::mem::replace(&mut link.failed, true) && !std::mem::replace(&mut link.said, true) {
                    tracing::warn!(address, %error, "keys are heard but cannot be read: trying again");
                }
            }
        }
    }
}

impl Link {
    /// Connects to where a reader is wanted, if it is.
    fn connect(&mut self, wanted: Option<&Endpoint>, timeout: Duration, memory: u64, jitter: &mut Jitter) {
        let Some(wanted) = wanted else {
            self.connecting = None;
            self.failed = false;
            if self.reader.is_none() {
                // The feed is away, and knows when to come back.
                self.attempts = 0;
            }
            return;
        };
        if self
            .connecting
            .as_ref()
            .is_some_and(|connecting| connecting.to == wanted.address)
        {
            return;
        }
        let longest = if self.brief { BRIEF_PAUSE } else { LONGEST_PAUSE };
        let pause = match self.attempts {
            0 => Duration::ZERO,
            attempts => jitter.half_to_all(longest.min(SHORTEST_PAUSE * 2_u32.pow(attempts.min(6)))),
        };
        self.attempts += 1;
        let options = reader::Options {
            endpoint: wanted.clone(),
            timeout,
            memory,
        };
        self.connecting = Some(Connecting {
            to: wanted.address.clone(),
            task: Box::pin(async move {
                tokio::time::sleep(pause).await;
                Reader::connect(&options).await.map(Box::new)
            }),
        });
    }
}

/// Whether the server has not got what it was asked for.
fn is_doubtful(result: &Result<Reading, ReadError>) -> bool {
    let kind = result.as_ref().err().map(|error| error.kind);
    matches!(kind, Some(ReadErrorKind::Moved | ReadErrorKind::ClusterDown))
}
