//! The convergence test: random schedules of writes, faults and subscribers, after each of which every picture must be
//! right, and nothing on the way to it wrong.
//!
//! `KEYRELAY_MODEL_SEED=… cargo test --test model converges` does one schedule again, `KEYRELAY_MODEL_SECONDS` says how
//! long to go on with new ones, and `make chaos` does not stop by itself.

#![allow(
    clippy::unwrap_used,
    reason = "a test that finds nothing where something must be has failed"
)]

#[path = "../it/harness/mod.rs"]
mod harness;

/// How faults are done.
mod act;
/// Many schedules at once.
mod campaign;
/// Which faults a schedule has.
mod choose;
/// What the server holds.
mod content;
/// What may be done to connections, servers and relays.
mod faults;
/// Keys, channels, mappings.
mod keys;
/// What must be true of every subscriber.
mod oracle;
/// What a page would show.
mod picture;
/// A connection to the server.
mod redis;
/// Random numbers.
mod rng;
/// One schedule.
mod run;
/// What will be done in a schedule.
mod schedule;
/// Servers, relays, proxies.
mod stand;
/// What one subscriber does.
mod subscriber;
/// A subscriber's connection.
mod wire;
/// What the server itself says happened.
mod witness;
/// What writers write.
mod writes;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyrelay::switches::Switch;

use campaign::{Order, STANDS, campaign, failure};
use schedule::Schedule;
use stand::Stand;

/// How long new schedules are tried where nobody says how long.
const SECONDS: u64 = 20;

/// One test at a time: each of them keeps the machine busy.
static TURN: Mutex<()> = Mutex::new(());

/// Where seeds and outcomes of long runs are added to.
const SEEDS: &str = "chaos/seeds.txt";

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not understood")),
    )
}

/// A seed as failures print it, with the mechanism that it is after, if any.
struct Seed(u64, Option<Switch>);

impl std::str::FromStr for Seed {
    type Err = ();

    fn from_str(text: &str) -> Result<Seed, ()> {
        let (seed, focus) = text
            .split_once(':')
            .map_or((text, None), |(seed, focus)| (seed, Some(focus)));
        let focus = match focus {
            Some(focus) => Some(Switch::NAMED.iter().find(|(name, _)| *name == focus).ok_or(())?.1),
            None => None,
        };
        Ok(Seed(u64::from_str_radix(seed, 16).map_err(drop)?, focus))
    }
}

#[test]
fn converges() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Seed(seed, focus)) = variable("KEYRELAY_MODEL_SEED") {
        let schedule = Schedule::new(seed, focus, true);
        eprintln!("{}", schedule.describe());
        let outcome = alone(&schedule);
        assert!(outcome.wrong.is_empty(), "{}", failure(&schedule, &outcome));
        return;
    }
    let seconds = variable("KEYRELAY_MODEL_SECONDS").unwrap_or(SECONDS);
    let order = Order {
        seed: rand_seed(),
        off: None,
        only: variable("KEYRELAY_MODEL_KIND"),
        focus: false,
        patient: seconds > SECONDS,
        until: Some(Instant::now() + Duration::from_secs(seconds)),
        count: None,
        stop_at_failure: false,
        stands: STANDS,
    };
    let tally = campaign(&order, &|| false, &|schedule, outcome| {
        if !outcome.wrong.is_empty() {
            eprintln!("{}", failure(schedule, outcome));
        }
    });
    let line = format!("model: {}", tally.line());
    println!("{line}");
    let said = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/model.txt");
    std::fs::write(said, format!("{line}\n")).expect("the count can be written down");
    assert!(tally.failures.is_empty(), "{line}");
    assert!(tally.schedules > 0, "not one schedule was run");
}

/// Runs one schedule on a stand of its own, on which everything is in order.
fn alone(schedule: &Schedule) -> run::Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stand = Stand::start(schedule.kind, None).await;
        assert!(
            stand.tidy().await,
            "servers that were just started do not come together"
        );
        run::run(schedule, &stand).await
    })
}

/// Goes on until it is told to stop, by a signal or because `KEYRELAY_MODEL_SCHEDULES` were run. Each schedule becomes a line
/// of a file that is only ever added to; a failure's text stands beside it.
#[test]
#[ignore = "does not end by itself: make chaos"]
fn chaos() {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).expect("a signal can be caught");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let seeds = folder.join(SEEDS);
    std::fs::create_dir_all(seeds.parent().unwrap()).expect("a folder can be made");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&seeds)
        .expect("a file to add to");
    let server = harness::server_version();
    let order = Order {
        seed: rand_seed(),
        off: None,
        only: variable("KEYRELAY_MODEL_KIND"),
        focus: false,
        patient: true,
        until: None,
        count: variable("KEYRELAY_MODEL_SCHEDULES"),
        stop_at_failure: false,
        stands: variable("KEYRELAY_MODEL_STANDS").unwrap_or(STANDS),
    };
    let stopped = || stop.load(Ordering::Relaxed);
    let tally = campaign(&order, &stopped, &|schedule, outcome| {
        let (name, wrong) = (schedule.name(), outcome.wrong.first());
        let came = wrong.map_or_else(|| "right".into(), |wrong| format!("WRONG {wrong}"));
        let line = format!(
            "{name} {server} {} writes, {} ms to rest: {came}\n",
            outcome.writes,
            outcome.rest.as_millis()
        );
        (&file).write_all(line.as_bytes()).expect("the file can be added to");
        if wrong.is_some() {
            let text = failure(schedule, outcome);
            eprintln!("{text}");
            let _ = std::fs::write(seeds.with_file_name(format!("{name}.txt")), text);
        }
    });
    println!("chaos on {server}: {}", tally.line());
    let all = std::fs::read_to_string(&seeds).unwrap_or_default();
    let wrong = all.lines().filter(|line| line.contains(": WRONG ")).count();
    println!(
        "in all runs so far: {} schedules, {wrong} failed ({})",
        all.lines().count(),
        seeds.display()
    );
    assert!(tally.failures.is_empty(), "{} schedules failed", tally.failures.len());
}

fn rand_seed() -> u64 {
    getrandom::u64().expect("there are random numbers")
}

/// Whether something must be found wrong without it. What the others are for takes longer, more keys or more servers than a
/// schedule has: each has a test of its own in `tests/it/without.rs`.
#[cfg(debug_assertions)]
fn is_modelled(switch: Switch) -> bool {
    use Switch::{Moved, Overflow, Pulse, Room, SameServer, ScanAgain};
    !matches!(switch, Pulse | ScanAgain | SameServer | Overflow | Room | Moved)
}

/// With a mechanism out of order, the model must find something wrong. Only a build with debug assertions can switch one
/// off.
#[cfg(debug_assertions)]
#[test]
fn every_switch_is_caught() {
    /// By far enough where the mechanism is missing: most are caught by the first schedule or two.
    const SCHEDULES: u64 = 300;
    /// Threads and servers keep no exact times, and a busy machine makes controls late.
    const CONTROLS: usize = 3;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let only: Option<String> = variable("KEYRELAY_MODEL_SWITCH");
    let mut missed = Vec::new();
    for (name, switch) in Switch::NAMED.into_iter().filter(|(_, switch)| is_modelled(*switch)) {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let order = Order {
            seed: rand_seed(),
            off: Some(switch),
            only: None,
            focus: true,
            patient: false,
            until: None,
            count: Some(SCHEDULES),
            stop_at_failure: true,
            stands: 3,
        };
        let tally = campaign(&order, &|| false, &|_, _| {});
        let Some((schedule, outcome)) = tally.failures.first() else {
            missed.push(name);
            continue;
        };
        println!(
            "{name}: caught after {} schedules: {}",
            tally.schedules, outcome.wrong[0]
        );
        // It must be the mechanism that is missed. A control may be unlucky with its times.
        let mut controls = (0..CONTROLS).map(|_| alone(schedule));
        assert!(
            controls.any(|control| control.wrong.is_empty()),
            "{name}: wrong with it, too: {}",
            failure(schedule, outcome)
        );
    }
    assert!(
        missed.is_empty(),
        "nothing was wrong in {SCHEDULES} schedules each without {missed:?}"
    );
}
