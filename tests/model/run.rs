//! One schedule, from its first connection to rest and the verdict.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{RwLock, watch};
use tokio::time::{sleep, sleep_until};

use super::content::{self, Content};
use super::faults::Span;
use super::oracle;
use super::picture::Picture;
use super::redis::Redis;
use super::schedule::Schedule;
use super::stand::{Kind, Stand};
use super::subscriber::Subscriber;
use super::witness::Witness;
use super::writes::Write;
use crate::harness::Reply;

/// How long after the last fault, write and script every picture must be right. The window of a narrow connection may open
/// without a word, and then the kernel finds out by probes 0.2, 0.4, 0.8, 1.6 and 3.2 s apart.
const REST: Duration = Duration::from_secs(10);

/// How long subscribers may take to be ready at first: the relays may have to find out that the server is back.
const BEGIN: Duration = Duration::from_secs(15);

/// Between two looks at the pictures, and how old what was read of the server may be.
const LOOK: Duration = Duration::from_millis(20);
const REREAD: Duration = Duration::from_millis(250);

/// What happened so shortly before the end, as a late expiry, may still be under way.
const UNDER_WAY: Duration = Duration::from_millis(250);

/// A step that somebody waits for, as a relay's start, is many turns of the processor, each as late as this program's own
/// turns at worst.
const TURNS: u32 = 20;

/// With this program itself so late, everything else is, too.
const TOO_BUSY: Duration = Duration::from_millis(100);

/// Fewer writes than this make no schedule.
const WRITES: u64 = 200;

/// What a schedule is run with.
pub struct Run<'a> {
    pub stand: &'a Stand,
    pub spans: RefCell<Vec<Span>>,
    /// Taken for writing by whoever needs the writers to stop for a moment.
    pub writing: RwLock<()>,
    /// When key events, after they were switched off, were on again.
    pub events_on: Cell<Option<Instant>>,
    pub writes: RefCell<Vec<Written>>,
    wrong: RefCell<BTreeSet<String>>,
    /// How often databases were swapped: KeyDB leaves connections at the database that they had.
    pub swaps: Cell<u32>,
    /// When the database was emptied.
    pub flushes: RefCell<Vec<Instant>>,
    /// How late this very program was at most: on a machine that is too busy, nothing else can be in time either.
    pub lag: Cell<Duration>,
}

/// A write that the server has taken.
#[derive(Clone, Debug)]
pub struct Written {
    pub at: Instant,
    pub key: usize,
    /// None: the key is gone, or not sure to stay.
    pub stamp: Option<u64>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub wrong: Vec<String>,
    pub writes: u64,
    pub faults: usize,
    pub subscribers: usize,
    pub resumes: u64,
    pub heard: usize,
    /// From the end of everything until all pictures were right.
    pub rest: Duration,
    /// How late the test itself was at most.
    pub lag: Duration,
    /// The machine was too busy to say of anything that it was late.
    pub untimed: bool,
    /// Nodes that both take writes have ended up with different values.
    pub apart: bool,
    /// What a reader of a failure needs.
    pub report: String,
}

impl Run<'_> {
    /// A number that no write has had, in no schedule: values of the one before may still be shown when this one begins.
    pub fn stamp(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        LAST.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the machine was so busy that nothing can be said of delays.
    pub fn is_untimed(&self) -> bool {
        self.lag.get() > TOO_BUSY
    }

    /// This time on a machine that is as busy as this one.
    fn at_most(&self, time: Duration) -> Duration {
        time + self.lag.get() * TURNS
    }

    pub fn fail(&self, what: String) {
        self.wrong.borrow_mut().insert(what);
    }

    async fn measure_lag(&self) {
        loop {
            let due = Instant::now() + LOOK;
            sleep_until(due.into()).await;
            self.lag.set(self.lag.get().max(due.elapsed()));
        }
    }

    /// Perhaps the write was done, perhaps a part of it.
    fn unsure(&self, write: &Write) {
        let (at, keys) = (Instant::now(), write.stamped.iter().chain(&write.touched));
        let mut all = self.writes.borrow_mut();
        all.extend(keys.map(|&key| Written { at, key, stamp: None }));
    }

    /// Writes what one writer has to write, each again until the server has taken it.
    async fn write(&self, start: Instant, writer: usize, writes: &[(Duration, Write)], taken: &Cell<u64>) {
        let server = self.stand.written(writer);
        let mut connection = None;
        let (mut before, mut swaps) = (0, 0);
        for (at, write) in writes {
            sleep_until((start + *at).into()).await;
            loop {
                let _writing = self.writing.read().await;
                if std::mem::replace(&mut swaps, self.swaps.get()) != swaps {
                    connection = None;
                }
                let redis = match &mut connection {
                    Some(redis) => redis,
                    none => match Redis::connect(server).await {
                        Ok(redis) => none.insert(redis),
                        Err(_) => {
                            sleep(Duration::from_millis(5)).await;
                            continue;
                        }
                    },
                };
                let stamp = self.stamp();
                let Ok(replies) = redis.pipeline(&write.commands(stamp, before)).await else {
                    connection = None;
                    self.unsure(write);
                    continue;
                };
                before = stamp;
                let error = replies.iter().find_map(first_error);
                match error {
                    None => {
                        taken.set(taken.get() + 1);
                        let (at, mut all) = (Instant::now(), self.writes.borrow_mut());
                        let stamped = |&key: &usize| Written {
                            at,
                            key,
                            stamp: Some(stamp),
                        };
                        all.extend(write.stamped.iter().map(stamped));
                        all.extend(write.touched.iter().map(|&key| Written { at, key, stamp: None }));
                    }
                    // The key is of another type than the schedule thought, or gone: nothing was changed.
                    Some(error) if error.starts_with("WRONGTYPE") || error.contains("no such key") => {
                        self.unsure(write);
                    }
                    Some(error) if passes(error) => {
                        if error.contains("max number of clients") {
                            connection = None;
                        }
                        sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                    Some(error) => self.fail(format!("the server says {error} to {:?}", write.commands)),
                }
                break;
            }
        }
    }
}

/// The first error in an answer, also of a command in a transaction.
fn first_error(reply: &Reply) -> Option<&String> {
    match reply {
        Reply::Error(error) => Some(error),
        Reply::Array(items) => items.iter().find_map(first_error),
        _ => None,
    }
}

/// Whether an error is that of a fault.
fn passes(error: &str) -> bool {
    let words = ["BUSY", "LOADING", "OOM", "NOPERM", "EXECABORT", "MISCONF", "MASTERDOWN"];
    let said = [
        "max number of clients",
        "can't run this command",
        "command not allowed",
        "Script killed",
    ];
    words.iter().any(|word| error.starts_with(word)) || said.iter().any(|words| error.contains(words))
}

/// Runs a schedule on a stand that nobody else uses.
pub async fn run(schedule: &Schedule, stand: &Stand) -> Outcome {
    let run = Run {
        stand,
        spans: RefCell::default(),
        writing: RwLock::new(()),
        events_on: Cell::default(),
        writes: RefCell::default(),
        wrong: RefCell::default(),
        swaps: Cell::default(),
        flushes: RefCell::default(),
        lag: Cell::default(),
    };
    let others = stand.mirrored(0) != stand.mirrored(1);
    let witnesses: Vec<Witness> = (0..=usize::from(others))
        .map(|relay| Witness::new(stand.mirrored(relay)))
        .collect();
    let subscribers: Vec<Subscriber<'_>> = schedule
        .subscribers
        .iter()
        .map(|script| Subscriber::new(script, &stand.relay_addresses))
        .collect();
    let (begin, begun) = watch::channel(None);
    let mut background: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + '_>>> = FuturesUnordered::new();
    for witness in &witnesses {
        background.push(Box::pin(witness.run()));
    }
    background.push(Box::pin(run.measure_lag()));
    for subscriber in &subscribers {
        background.push(Box::pin(subscriber.run(begun.clone())));
    }
    let taken = Cell::new(0);
    let rest = tokio::select! {
        // None of these ends.
        Some(()) = background.next() => unreachable!("a subscriber gave up"),
        rest = act(&run, schedule, &subscribers, &witnesses, &begin, &taken) => rest,
    };
    drop(background);
    let start = begin.borrow().unwrap_or_else(Instant::now);
    let mut wrong = run.wrong.take();
    if taken.get() < WRITES && wrong.is_empty() {
        wrong.insert(format!("only {} writes", taken.get()));
    }
    let mut report = String::new();
    for (n, subscriber) in subscribers.iter().enumerate() {
        let picture = subscriber.picture.borrow();
        let mut own: BTreeSet<String> = picture.wrong.clone();
        for (channel, why) in judge(&run, &witnesses, &picture, rest.at) {
            for witness in &witnesses {
                report.push_str(&witness.account(&channel, start));
            }
            own.insert(format!("{channel}: {why}"));
        }
        own.extend(oracle::backs(&run, &picture));
        own.extend(oracle::silences(&run, &picture, rest.at));
        if !run.is_untimed() {
            own.extend(oracle::late_flushes(&run, &picture));
        }
        // A narrow one may wait for the kernel, see `REST`.
        if !run.is_untimed() && !subscriber.is_narrow() {
            own.extend(oracle::delays(&run, &picture, start, rest.at));
        }
        own.extend(rest.wrong.get(&n).into_iter().flatten().cloned());
        if !own.is_empty() {
            let _ = write!(
                report,
                "    subscriber {n}, {}\n{}",
                subscriber.describe(),
                picture.trace(start)
            );
        }
        wrong.extend(own.into_iter().map(|what| format!("subscriber {n}: {what}")));
    }
    if !wrong.is_empty() {
        for span in run.spans.borrow().iter() {
            let ms = |at: Instant| at.saturating_duration_since(start).as_millis();
            let _ = writeln!(
                report,
                "    fault from {} to {} ms, {:?}, lost {:?}",
                ms(span.from),
                ms(span.to),
                span.relays,
                span.loss.map(|(relays, at)| (relays, ms(at)))
            );
        }
        let _ = writeln!(report, "{}", stand.logs());
    }
    Outcome {
        wrong: wrong.into_iter().collect(),
        writes: taken.get(),
        faults: schedule.faults.len(),
        subscribers: subscribers.len(),
        resumes: subscribers.iter().map(|each| each.resumes.get()).sum(),
        heard: subscribers.iter().map(|each| each.picture.borrow().heard).sum(),
        rest: rest.took,
        lag: run.lag.get(),
        untimed: run.is_untimed(),
        apart: rest.apart,
        report,
    }
}

/// How it ended.
struct Rest {
    at: Instant,
    took: Duration,
    /// What is wrong with the pictures, by subscriber.
    wrong: BTreeMap<usize, Vec<String>>,
    /// The nodes differ.
    apart: bool,
}

/// Begins when everybody is ready, does what the schedule says, waits for rest.
async fn act(
    run: &Run<'_>,
    schedule: &Schedule,
    subscribers: &[Subscriber<'_>],
    witnesses: &[Witness],
    begin: &watch::Sender<Option<Instant>>,
    taken: &Cell<u64>,
) -> Rest {
    let joined = Instant::now();
    while !(witnesses.iter().all(Witness::is_up) && subscribers.iter().all(Subscriber::is_ready)) {
        if joined.elapsed() > run.at_most(BEGIN) {
            let within = run.at_most(BEGIN);
            run.fail(format!("not all were ready within {within:?} from the beginning"));
            break;
        }
        sleep(Duration::from_millis(2)).await;
    }
    let start = Instant::now();
    begin.send_replace(Some(start));
    let writers = schedule.writers.iter().enumerate();
    let writers = join_all(writers.map(|(n, writes)| run.write(start, n, writes, taken)));
    let lanes = join_all((0..3).map(|lane| async move {
        for (at, fault) in schedule.faults.iter().filter(|(_, fault)| fault.lane() == lane) {
            sleep_until((start + *at).into()).await;
            fault.happen(run).await;
        }
    }));
    tokio::join!(writers, lanes);
    let last = run.spans.borrow().iter().map(|span| span.to).max();
    let scripts = schedule.subscribers.iter().flat_map(|script| script.acts.iter());
    let scripts = scripts.map(|(at, _)| start + *at).max();
    let end = [Some(Instant::now()), last, scripts]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or(start);
    rest(run, subscribers, witnesses, end).await
}

/// Waits until every picture is what its relay's server holds and all that happened was told, and stays so for a moment.
async fn rest(run: &Run<'_>, subscribers: &[Subscriber<'_>], witnesses: &[Witness], end: Instant) -> Rest {
    sleep_until(end.into()).await;
    let mut contents = Err(std::io::Error::other("not read yet"));
    let mut read_at = end;
    let mut right = false;
    loop {
        let was_right = right;
        // Values change no more but by expiring. What was right once may have been so by chance, and is looked at anew.
        if contents.is_err() || right || read_at.elapsed() > REREAD {
            read_at = Instant::now();
            contents = read(run.stand).await;
        }
        let (wrong, apart) = match &contents {
            Ok(contents) => {
                let mut wrong = differences(run.stand, subscribers, contents, run.lag.get());
                let apart = contents.windows(2).any(|two| !content::agree(&two[0], &two[1]));
                if apart && run.stand.kind == Kind::Replica {
                    let nobodys = wrong.entry(0).or_default();
                    nobodys.push("the replica has not what its primary has".into());
                }
                (wrong, apart)
            }
            Err(error) => (
                BTreeMap::from([(0, vec![format!("the server cannot be read: {error}")])]),
                false,
            ),
        };
        let now = Instant::now();
        let told = |subscriber: &Subscriber<'_>| judge(run, witnesses, &subscriber.picture.borrow(), now).is_empty();
        right = wrong.is_empty() && subscribers.iter().all(told);
        if right && was_right || now > end + run.at_most(REST) {
            return Rest {
                at: now,
                took: now.saturating_duration_since(end),
                wrong,
                apart,
            };
        }
        sleep(LOOK).await;
    }
}

/// What is wrong with the happenings that a page heard until `now`, by channel.
fn judge(run: &Run<'_>, witnesses: &[Witness], picture: &Picture, now: Instant) -> Vec<(String, String)> {
    let lag = run.lag.get() * 4;
    let of = |relay: usize| &witnesses[relay.min(witnesses.len() - 1)];
    Witness::judge([0, 1].map(of), &picture.items, now - UNDER_WAY - lag, lag)
}

/// What each of the servers holds.
async fn read(stand: &Stand) -> std::io::Result<Vec<BTreeMap<usize, Content>>> {
    let mut contents = Vec::new();
    for &address in stand.addresses() {
        let alone = stand.is_alone(address);
        contents.push(content::read(&mut Redis::connect(address).await?, alone).await?);
    }
    Ok(contents)
}

fn differences(
    stand: &Stand,
    subscribers: &[Subscriber<'_>],
    contents: &[BTreeMap<usize, Content>],
    lag: Duration,
) -> BTreeMap<usize, Vec<String>> {
    let each = subscribers.iter().enumerate().filter_map(|(n, subscriber)| {
        let held = |relay: usize| &contents[stand.number_mirrored(relay)];
        let mut wrong = oracle::differences(&subscriber.picture.borrow(), held, lag);
        if !subscriber.settled.get() {
            wrong.push("is not connected, or not through with its script".into());
        }
        (!wrong.is_empty()).then_some((n, wrong))
    });
    each.collect()
}
