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

/// Many schedules at once.
mod campaign;
/// What the server holds.
mod content;
/// What is done to connections, server and relays.
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
/// Server, relays, proxies.
mod stand;
/// What one subscriber does.
mod subscriber;
/// A subscriber's connection.
mod wire;
/// What the server itself says happened.
mod witness;
/// What writers write.
mod writes;

use std::time::{Duration, Instant};

use keyrelay::switches::Switch;

use campaign::{Order, campaign, failure};
use schedule::Schedule;
use stand::Stand;

/// How long new schedules are tried where nobody says how long.
const SECONDS: u64 = 20;

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
    if let Some(Seed(seed, focus)) = variable("KEYRELAY_MODEL_SEED") {
        let schedule = Schedule::new(seed, focus, true);
        eprintln!("{}", schedule.describe());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let outcome = runtime.block_on(async {
            let stand = Stand::start(None).await;
            stand.tidy().await;
            run::run(&schedule, &stand).await
        });
        assert!(outcome.wrong.is_empty(), "{}", failure(&schedule, &outcome));
        return;
    }
    let seconds = variable("KEYRELAY_MODEL_SECONDS").unwrap_or(SECONDS);
    let order = Order {
        seed: rand_seed(),
        off: None,
        focus: false,
        patient: seconds > SECONDS,
        until: Some(Instant::now() + Duration::from_secs(seconds)),
        count: None,
        stop_at_failure: false,
    };
    let tally = campaign(&order, &|| false, &|schedule, outcome| {
        if !outcome.wrong.is_empty() {
            eprintln!("{}", failure(schedule, outcome));
        }
    });
    let line = format!("model: {}", tally.line());
    println!("{line}");
    assert!(tally.failures.is_empty(), "{line}");
    assert!(tally.schedules > 0, "not one schedule was run");
}

fn rand_seed() -> u64 {
    getrandom::u64().expect("there are random numbers")
}
