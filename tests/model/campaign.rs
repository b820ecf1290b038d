//! Many schedules at once, and what came of all of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keyrelay::switches::Switch;

use super::rng::Rng;
use super::run::{Outcome, run};
use super::schedule::Schedule;
use super::stand::{Kind, Stand};

/// How many schedules are usually under way at once on each of [`THREADS`]: most of a schedule is waiting.
pub const STANDS: usize = 6;

/// Threads that write and subscribe.
const THREADS: usize = 2;

/// A stand serves this many schedules, so that nothing of a relay depends on how long it has been there.
const SCHEDULES_PER_STAND: usize = 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct Order {
    /// The first seed; the others are made from it.
    pub seed: u64,
    pub off: Option<Switch>,
    /// Biased towards what shows that `off` is off.
    pub focus: bool,
    /// With schedules that take more than ten seconds.
    pub patient: bool,
    pub until: Option<Instant>,
    pub count: Option<u64>,
    pub stop_at_failure: bool,
    /// On stands of this kind alone.
    pub only: Option<Kind>,
    /// Schedules under way at once on each of [`THREADS`].
    pub stands: usize,
}

/// What came of it.
#[derive(Default)]
pub struct Tally {
    pub schedules: u64,
    pub writes: u64,
    pub faults: u64,
    pub subscribers: u64,
    pub resumes: u64,
    pub heard: u64,
    pub slowest_rest: Duration,
    pub rests: Duration,
    pub untimed: u64,
    /// Schedules after which two nodes differed for good: there is no last write that wins on both.
    pub apart: u64,
    /// By kind of stand.
    pub kinds: BTreeMap<Kind, u64>,
    pub failures: Vec<(Schedule, Outcome)>,
    pub took: Duration,
}

impl Tally {
    pub fn line(&self) -> String {
        let schedules = self.schedules.max(1);
        format!(
            "{} schedules in {:.0} s ({:.1}/s), {} failed; {} writes, {} faults, {} subscribers, {} resumes, {} messages; at rest after {:.0} ms on average, {:.1} s at most; {} untimed; {:?}, {} left apart",
            self.schedules,
            self.took.as_secs_f64(),
            self.schedules as f64 / self.took.as_secs_f64().max(0.001),
            self.failures.len(),
            self.writes,
            self.faults,
            self.subscribers,
            self.resumes,
            self.heard,
            self.rests.as_secs_f64() * 1000.0 / schedules as f64,
            self.slowest_rest.as_secs_f64(),
            self.untimed,
            self.kinds,
            self.apart,
        )
    }

    fn add(&mut self, schedule: Schedule, outcome: Outcome) {
        self.schedules += 1;
        self.writes += outcome.writes;
        self.faults += outcome.faults as u64;
        self.subscribers += outcome.subscribers as u64;
        self.resumes += outcome.resumes;
        self.heard += outcome.heard as u64;
        self.slowest_rest = self.slowest_rest.max(outcome.rest);
        self.rests += outcome.rest;
        self.apart += u64::from(outcome.apart);
        *self.kinds.entry(schedule.kind).or_default() += 1;
        self.untimed += u64::from(outcome.untimed);
        if !outcome.wrong.is_empty() {
            self.failures.push((schedule, outcome));
        }
    }
}

/// What a reader of a failure sees.
pub fn failure(schedule: &Schedule, outcome: &Outcome) -> String {
    let wrong = outcome.wrong.iter().take(12).map(|what| format!("  {what}\n"));
    format!(
        "schedule {} fails (the test itself was up to {} ms late):\n{}{}{}again: KEYRELAY_MODEL_SEED={} cargo test --test model converges\n",
        schedule.name(),
        outcome.lag.as_millis(),
        wrong.collect::<String>(),
        schedule.describe(),
        outcome.report,
        schedule.name(),
    )
}

/// Runs schedules until the order's end; `stop` ends it before, and what was under way then counts for nothing.
pub fn campaign(order: &Order, stop: &(dyn Fn() -> bool + Sync), each: &(dyn Fn(&Schedule, &Outcome) + Sync)) -> Tally {
    let begun = Instant::now();
    let tally = Mutex::new(Tally::default());
    let (next, begun_so_far, turns) = (AtomicU64::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    let focus = order.off.filter(|_| order.focus);
    let seeds = |n: u64| Rng(order.seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).next();
    let over = || {
        let failed = order.stop_at_failure && !tally.lock().unwrap().failures.is_empty();
        failed || stop() || order.until.is_some_and(|until| Instant::now() >= until)
    };
    let lane = || async {
        let mut stand: Option<(Stand, usize)> = None;
        while !over() {
            stand = stand.filter(|(_, served)| *served < SCHEDULES_PER_STAND);
            let kind = match &stand {
                Some((stand, _)) => stand.kind,
                None => order
                    .only
                    .unwrap_or_else(|| Kind::in_turn(turns.fetch_add(1, Ordering::Relaxed), focus)),
            };
            let mut drawn = std::iter::repeat_with(|| seeds(next.fetch_add(1, Ordering::Relaxed)));
            let seed = drawn
                .find(|seed| kind == Kind::of(*seed, focus))
                .expect("there are seeds of every kind");
            let schedule = Schedule::new(seed, focus, order.patient);
            let (on, served) = match stand.take() {
                Some(standing) => standing,
                None => (Stand::start(kind, order.off).await, 0),
            };
            if !on.tidy().await {
                // The servers do not come together any more.
                continue;
            }
            let n = begun_so_far.fetch_add(1, Ordering::Relaxed);
            if order.count.is_some_and(|count| n >= count) {
                break;
            }
            let outcome = run(&schedule, &on).await;
            if stop() {
                break;
            }
            // What is wrong may stay wrong.
            stand = outcome.wrong.is_empty().then_some((on, served + 1));
            each(&schedule, &outcome);
            tally.lock().unwrap().add(schedule, outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(join_all((0..order.stands).map(|_| lane())));
            });
        }
    });
    let mut tally = tally.into_inner().unwrap();
    tally.took = begun.elapsed();
    tally
}
