//! What one delivery costs, of processor time.

use std::time::Duration;

use crate::Transport;
use crate::bench::{Bench, Plan, Sample};
use crate::floor;
use crate::load::{Audience, Clients};
use crate::machine::Cores;
use crate::process::{Setup, Subject};
use crate::report::{Most, Spec};
use crate::writer::Writer;

/// Runs of each case: the ratio of so many neighbours says more than the same time in one piece.
const RUNS: usize = 12;

/// How long one run is.
const RUN: Duration = Duration::from_millis(700);

/// How long messages flow before the first one.
const WARM_UP: Duration = Duration::from_millis(500);

/// With one thread for the clients.
const ONE_SHARD: Most = Most::Ratio(1.15);

/// With two, which share the processors with the server and the clients.
const TWO_SHARDS: Most = Most::Ratio(1.3);

/// How many subscribe to what, and how often something happens.
struct Case {
    name: &'static str,
    clients: usize,
    channels: usize,
    /// Channels of one client.
    each: usize,
    /// Messages a second, over all channels.
    rate: u32,
    cores: Cores,
}

const STEADY: Case = Case {
    name: "steady",
    clients: 1_000,
    channels: 1,
    each: 1,
    rate: 50,
    cores: Cores::One,
};

const CHAN100: Case = Case {
    name: "chan100",
    channels: 100,
    rate: 2_000,
    ..STEADY
};

const CASES: [Case; 5] = [
    STEADY,
    CHAN100,
    Case {
        name: "wide",
        each: 8,
        // As many deliveries a second as the last one.
        rate: 250,
        ..CHAN100
    },
    Case {
        name: "steady-two-shards",
        cores: Cores::All,
        ..STEADY
    },
    Case {
        name: "chan100-two-shards",
        cores: Cores::All,
        ..CHAN100
    },
];

/// Measures each of them in both transports.
pub fn run(bench: &mut Bench) {
    for case in &CASES {
        for transport in Transport::ALL {
            let name = format!("fanout/{}/{}", case.name, transport.name());
            if bench.wants(&name) {
                measure(bench, case, transport, name);
            }
        }
    }
}

fn measure(bench: &mut Bench, case: &Case, transport: Transport, name: String) {
    let two = case.cores == Cores::All;
    let most = if two { TWO_SHARDS } else { ONE_SHARD };
    let specs = [Spec::new(name, "µs a delivery", most)];
    let setup = Setup {
        cores: case.cores,
        floor: floor::Options {
            transport,
            two_threads: two,
            ..floor::Options::default()
        },
        ..Setup::default()
    };
    let mut plan = Plan::new(setup, RUNS);
    // A peer is asked for one channel, by Server-Sent Events, and has as many threads as it likes.
    plan.peers = transport == Transport::Sse && case.each == 1 && !two;
    let audience = Audience {
        transport,
        clients: case.clients,
        channels: case.channels,
        each: case.each,
    };
    let open = |subject: &Subject| {
        let mut writer = Writer::new(&subject.server, case.channels);
        let mut clients = Clients::connect(&subject.door, audience);
        clients.until_all_have_one(&mut writer);
        clients.flow(&mut writer, case.rate, WARM_UP);
        clients.quiet();
        (clients, writer)
    };
    let run = |subject: &Subject, (clients, writer): &mut (Clients, Writer)| {
        clients.reset();
        let before = subject.processor_time();
        let written = clients.flow(writer, case.rate, RUN);
        clients.quiet();
        let after = subject.processor_time();
        let deliveries = clients.deliveries().max(1) as f64;
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / deliveries;
        let skipped = 1.0 - deliveries / (written as f64 * audience.each_message());
        Sample {
            values: [each(after - before)],
            also: format!(
                "{:.0} bytes each, {:.1} % skipped",
                clients.bytes() as f64 / deliveries,
                100.0 * skipped
            ),
        }
    };
    bench.compare(&specs, &plan, open, run);
}
