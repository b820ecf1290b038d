//! How long it takes from the write of a key to the last byte at the client.
//!
//! Writer and clients are one process, so that both read the same clock. It shares its processor with the server, and what
//! is measured has one for itself: without that, whether two of them happen to be on one processor decides about the
//! result.

use std::time::Duration;

use crate::Transport;
use crate::bench::{Bench, Plan, Sample};
use crate::load::{Audience, Clients};
use crate::process::{Setup, Subject};
use crate::report::{Most, Spec};
use crate::writer::Writer;

/// Runs of each case.
const RUNS: usize = 8;

/// How many wait for a message, and how many are written a second.
struct Case {
    name: &'static str,
    clients: usize,
    rate: u32,
    run: Duration,
    p50: Most,
    p99: Most,
}

const CASES: [Case; 2] = [
    Case {
        name: "one",
        clients: 1,
        rate: 1_000,
        run: Duration::from_millis(1_200),
        p50: Most::Above(60.0),
        p99: Most::Ratio(3.0),
    },
    Case {
        name: "last-of-1000",
        clients: 1_000,
        rate: 50,
        run: Duration::from_secs(2),
        p50: Most::Ratio(1.3),
        p99: Most::Ratio(1.3),
    },
];

/// Measures each of them over Server-Sent Events: what differs in WebSocket are a few bytes.
pub fn run(bench: &mut Bench) {
    for case in &CASES {
        let name = format!("latency/{}", case.name);
        if bench.wants(&name) {
            measure(bench, case, &name);
        }
    }
}

fn measure(bench: &mut Bench, case: &Case, name: &str) {
    let specs = [
        Spec::new(format!("{name}/p50"), "µs", case.p50),
        Spec::new(format!("{name}/p99"), "µs", case.p99),
    ];
    let open = |subject: &Subject| {
        let mut writer = Writer::new(&subject.server, 1);
        let audience = Audience::new(Transport::Sse, case.clients, 1);
        let mut clients = Clients::connect(&subject.door, audience);
        clients.until_all_have_one(&mut writer);
        clients.flow(&mut writer, case.rate, case.run / 4);
        clients.quiet();
        (clients, writer)
    };
    let run = |_: &Subject, (clients, writer): &mut (Clients, Writer)| {
        clients.note();
        let written = clients.flow(writer, case.rate, case.run);
        clients.quiet();
        let took = waits(clients, case.clients);
        Sample {
            values: [percentile(&took, 50), percentile(&took, 99)],
            also: format!("{} of {written} messages came to all", took.len()),
        }
    };
    bench.compare(&specs, &Plan::new(Setup::default(), RUNS), open, run);
}

/// For each noted message that came to all of so many clients: µs from its write until the last of them had it; sorted.
pub fn waits(clients: &mut Clients, all: usize) -> Vec<f64> {
    let noted = clients.noted();
    let whole = noted.iter().filter(|(_, seen)| seen.clients == all);
    let mut waits: Vec<f64> = whole
        .map(|(written, seen)| (seen.last - written) as f64 / 1e3)
        .collect();
    waits.sort_by(f64::total_cmp);
    waits
}

/// The value that so many percent of the sorted ones do not exceed.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    *sorted.get(at).expect("some message came to all")
}
