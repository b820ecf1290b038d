//! The relay's loop: it does what the mirror asks for, and tells it what came of it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
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
use super::scan::Page;
use super::stats::Stats;
use super::taken::Taken;
use crate::hub::Appender;
use crate::mapping::RuleError;
use crate::switches::Switch;
use crate::turns::Turns;
use crate::upstream::reader::{self, ConnectError, ReadError, ReadErrorKind, Reader, Reading, ScanPage};
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

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What came of something that was under way.
enum Done {
    /// A flight, and what it brought.
    Batch(u64, Vec<Result<Reading, ReadError>>),
    /// A pass, a page of it, and how long that took.
    Page(u64, Result<ScanPage, ReadError>, Duration),
    /// The connection of this reader is closed.
    Closed(Arc<Reader>),
}

/// What is under way.
struct Work {
    timeout: Duration,
    /// Of the replies of one reader.
    memory: u64,
    links: Vec<Link>,
    tasks: FuturesUnordered<Task<(NodeId, Done)>>,
}

/// The way to the values of one node.
#[derive(Default)]
struct Link {
    /// With the moment since when it is connected.
    reader: Option<(Arc<Reader>, Instant)>,
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
    task: Task<Result<Reader, ConnectError>>,
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

    /// Mirrors until `stop`. It wants a thread of its own with a current-thread runtime: nothing else should delay it.
    pub async fn run(mut self, appender: Appender, stop: CancellationToken) {
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
        let mut work = Work {
            timeout: self.timeout,
            memory: self.limits.reading as u64,
            links: Vec::new(),
            tasks: FuturesUnordered::new(),
        };
        let mut idle = Turns::idle();
        // What is waited for in each turn is made once.
        let mut stopped = pin!(stop.cancelled());
        let mut timer = pin!(sleep_until(Instant::now().into()));
        let mut woken = None;
        loop {
            self.turns.next(Switch::RelayTurns);
            let now = Now::read();
            mirror.interest(hub.interest(), now);
            shared.take(&mut taken);
            mirror.take(&mut taken, now);
            mirror.tick(now);
            work.begin(&mut mirror, &mut jitter, now);
            mirror.commit();
            mirror.report(now);
            let wake = mirror.next_wake();
            if let Some(at) = wake.filter(|_| wake != woken) {
                timer.as_mut().reset(at.into());
            }
            woken = wake;
            tokio::select! {
                () = &mut stopped => return,
                () = hub.interested() => {}
                Some(ordered) = self.ordered.recv() => ordered.carry_out(&mut mirror, &self.catalog, Now::read()),
                () = shared.notify.notified() => {}
                Some((node, done)) = work.tasks.next(), if !work.tasks.is_empty() => match done {
                    Done::Batch(flight, results) => {
                        if results.iter().any(is_doubtful) {
                            self.doubt.cast();
                        }
                        mirror.replied(node, flight, results, Now::read());
                        // Before anything else is begun: subscribers see nothing of it until then.
                        mirror.commit();
                    }
                    Done::Page(pass, page, took) => mirror.scanned(node, pass, page, took, Now::read()),
                    Done::Closed(reader) if work.reads(node, &reader) => {
                        tracing::debug!(node = node.0, "the reader's connection is closed");
                        mirror.unlinked(node, Now::read());
                    }
                    Done::Closed(_) => {}
                },
                (node, connected) = connected(&mut work.links) => {
                    work.connected(node, &mut mirror, &shared.stats, connected);
                }
                () = &mut timer, if wake.is_some() => {}
                _ = idle.tick() => {}
            }
        }
    }
}

impl Work {
    /// Begins what the mirror wants.
    fn begin(&mut self, mirror: &mut Mirror, jitter: &mut Jitter, now: Now) {
        for node in mirror.nodes.ids() {
            let at = usize::from(node.0);
            if self.links.len() <= at {
                self.links.push(Link::default());
            }
            let link = &mut self.links[at];
            if !mirror.has_reader(node)
                && let Some((reader, since)) = link.reader.take()
            {
                reader.close();
                link.brief = now.mono.saturating_duration_since(since) < SETTLED;
                if !link.brief {
                    link.attempts = 0;
                }
            }
            link.connect(mirror.wants_reader(node), self.timeout, self.memory, jitter);
            let Some((reader, _)) = &link.reader else { continue };
            while let Some(Batch { flight, requests }) = mirror.next_batch(node, now) {
                let reader = reader.clone();
                self.tasks.push(Box::pin(async move {
                    (node, Done::Batch(flight, reader.read(requests).await))
                }));
            }
            if let Some(Page {
                pass,
                cursor,
                glob,
                count,
            }) = mirror.next_page(node, now)
            {
                let reader = reader.clone();
                self.tasks.push(Box::pin(async move {
                    let begun = Instant::now();
                    let page = reader.scan(cursor, glob.as_deref(), count).await;
                    (node, Done::Page(pass, page, begun.elapsed()))
                }));
            }
        }
    }

    /// Whether this is the node's reader, and not one that was given up.
    fn reads(&self, node: NodeId, reader: &Arc<Reader>) -> bool {
        let own = self
            .links
            .get(usize::from(node.0))
            .and_then(|link| link.reader.as_ref());
        own.is_some_and(|(own, _)| Arc::ptr_eq(own, reader))
    }

    fn connected(&mut self, node: NodeId, mirror: &mut Mirror, stats: &Stats, connected: Result<Reader, ConnectError>) {
        let link = &mut self.links[usize::from(node.0)];
        let address = link.connecting.take().map(|connecting| connecting.to.to_string());
        match connected {
            Ok(reader) if mirror.linked(node, reader.run_id(), Now::read()) => {
                let reader = Arc::new(reader);
                link.reader = Some((reader.clone(), Instant::now()));
                link.failed = false;
                if std::mem::take(&mut link.said) {
                    tracing::info!(address, "what is heard can be read again");
                }
                self.tasks.push(Box::pin(async move {
                    reader.closed().await;
                    (node, Done::Closed(reader))
                }));
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
                Reader::connect(&options).await
            }),
        });
    }
}

/// The node and the outcome of the first attempt to connect that has one.
async fn connected(links: &mut [Link]) -> (NodeId, Result<Reader, ConnectError>) {
    poll_fn(|context| {
        for (node, link) in (0..).zip(&mut *links) {
            if let Some(connecting) = &mut link.connecting
                && let Poll::Ready(connected) = connecting.task.as_mut().poll(context)
            {
                return Poll::Ready((NodeId(node), connected));
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether the server has not got what it was asked for.
fn is_doubtful(result: &Result<Reading, ReadError>) -> bool {
    let kind = result.as_ref().err().map(|error| error.kind);
    matches!(kind, Some(ReadErrorKind::Moved | ReadErrorKind::ClusterDown))
}
