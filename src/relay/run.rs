//! The relay's loop: it does what the mirror asks for, and tells it what came of it.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::channels::{Catalog, Table};
use super::entries::{Jitter, Now};
use super::intake::{Intake, Shared, Taken};
use super::mirror::Mirror;
use super::reads::Batch;
use super::rule::Rule;
use super::scan::Page;
use crate::hub::Appender;
use crate::mapping::RuleError;
use crate::upstream::reader::{self, ConnectError, ReadError, Reader, Reading, ScanPage};

/// Between two attempts to connect: from this, doubling, to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What the relay needs to know from the config.
#[derive(Debug)]
pub struct Options {
    /// All mappings, in the order of the config.
    pub rules: Vec<Rule>,
    /// The server to read from: the one that the feed hears.
    pub reader: reader::Options,
}

/// The relay before it runs.
#[derive(Debug)]
pub struct Relay {
    table: Arc<Table>,
    shared: Arc<Shared>,
    reader: reader::Options,
}

/// The three parts of a relay: what the hub asks for channels, what the feed talks to, and what reads and appends.
///
/// # Errors
/// Every rule whose channel template does not fit its key pattern; a checked config has none.
pub fn new(options: Options) -> Result<(Catalog, Intake, Relay), Vec<RuleError>> {
    let table = Arc::new(Table::new(options.rules)?);
    let shared = Arc::new(Shared::default());
    let catalog = Catalog { table: table.clone() };
    let intake = Intake::new(shared.clone(), table.clone());
    let reader = options.reader;
    Ok((catalog, intake, Relay { table, shared, reader }))
}

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A flight and what it brought.
type BatchDone = (u64, Vec<Result<Reading, ReadError>>);

/// A pass, a page of it, and how long that took.
type PageDone = (u64, Result<ScanPage, ReadError>, Duration);

/// What is under way.
struct Work {
    reader: Option<Arc<Reader>>,
    connecting: Option<Task<Result<Reader, ConnectError>>>,
    attempts: u32,
    /// Whether the log was told that the reader cannot connect.
    said: bool,
    reads: FuturesUnordered<Task<BatchDone>>,
    page: Option<Task<PageDone>>,
}

impl Relay {
    /// Mirrors until `stop`. It wants a thread of its own with a current-thread runtime: nothing else should delay it.
    pub async fn run(self, appender: Appender, stop: CancellationToken) {
        let seed = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        let hub = appender.hub().clone();
        let shared = self.shared.clone();
        let mut mirror = Mirror::new(self.table, self.shared, appender, seed, Now::read());
        let mut taken = Taken::default();
        let mut jitter = Jitter(!seed);
        let mut work = Work {
            reader: None,
            connecting: None,
            attempts: 0,
            said: false,
            reads: FuturesUnordered::new(),
            page: None,
        };
        loop {
            let now = Now::read();
            mirror.interest(hub.interest(), now);
            shared.take(&mut taken);
            mirror.take(&mut taken, now);
            mirror.tick(now);
            work.begin(&mut mirror, &self.reader, &mut jitter, now);
            mirror.commit();
            let wake = mirror.next_wake();
            tokio::select! {
                () = stop.cancelled() => return,
                () = hub.interested() => {}
                () = shared.notify.notified() => {}
                Some((flight, results)) = work.reads.next(), if !work.reads.is_empty() => {
                    mirror.replied(flight, results, Now::read());
                    // Before anything else is begun: subscribers see nothing of it until then.
                    mirror.commit();
                }
                (pass, page, took) = maybe(&mut work.page) => {
                    work.page = None;
                    mirror.scanned(pass, page, took, Now::read());
                }
                connected = maybe(&mut work.connecting) => {
                    work.connecting = None;
                    work.connected(&mut mirror, connected);
                }
                () = closed(work.reader.as_deref()) => {
                    tracing::debug!("the reader's connection is closed");
                    mirror.unlinked(Now::read());
                }
                () = sleep_until(wake) => {}
            }
        }
    }
}

impl Work {
    /// Begins what the mirror wants.
    fn begin(&mut self, mirror: &mut Mirror, options: &reader::Options, jitter: &mut Jitter, now: Now) {
        if !mirror.has_reader() && self.reader.take().is_some() {
            self.reads.clear();
            self.page = None;
        }
        if !mirror.wants_reader() {
            self.connecting = None;
            self.attempts = 0;
        } else if self.connecting.is_none() {
            let options = options.clone();
            let pause = match self.attempts {
                0 => Duration::ZERO,
                attempts => jitter.half_to_all(LONGEST_PAUSE.min(SHORTEST_PAUSE * 2_u32.pow(attempts.min(6)))),
            };
            self.attempts += 1;
            self.connecting = Some(Box::pin(async move {
                tokio::time::sleep(pause).await;
                Reader::connect(&options).await
            }));
        }
        let Some(reader) = &self.reader else { return };
        while let Some(Batch { flight, requests }) = mirror.next_batch(now) {
            let reader = reader.clone();
            self.reads
                .push(Box::pin(async move { (flight, reader.read(requests).await) }));
        }
        if self.page.is_none()
            && let Some(Page {
                pass,
                cursor,
                glob,
                count,
            }) = mirror.next_page(now)
        {
            let reader = reader.clone();
            self.page = Some(Box::pin(async move {
                let begun = Instant::now();
                let page = reader.scan(cursor, glob.as_deref(), count).await;
                (pass, page, begun.elapsed())
            }));
        }
    }

    fn connected(&mut self, mirror: &mut Mirror, connected: Result<Reader, ConnectError>) {
        match connected {
            Ok(reader) if mirror.linked(reader.run_id(), Now::read()) => {
                self.reader = Some(Arc::new(reader));
                self.said = false;
            }
            // Another process answers there than the one that is heard: one of the two connections is an old one.
            Ok(_) => tracing::debug!("the reader reached another server than the feed"),
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!(%error, "keys are heard but cannot be read: trying again");
                }
            }
        }
    }
}

/// The output of what is under way, or never.
async fn maybe<T>(task: &mut Option<Task<T>>) -> T {
    match task {
        Some(task) => task.await,
        None => pending().await,
    }
}

async fn closed(reader: Option<&Reader>) {
    match reader {
        Some(reader) => reader.closed().await,
        None => pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}
