//! What it costs to open a stream, and how long it takes until thousands are back who all come at once.

use std::time::Instant;

use crate::Transport;
use crate::bench::{Bench, Plan, Sample};
use crate::load::{Audience, Clients, PATIENCE};
use crate::process::Subject;
use crate::report::{Most, Spec};
use crate::writer::Writer;

/// Runs of each case.
const RUNS: usize = 8;

/// Connections that are opened in one run.
const ACCEPTED: usize = 2_000;

/// Clients that come back at once, and their channels.
const STORM: usize = 5_000;
const STORM_CHANNELS: usize = 100;

/// Descriptors that may come and go besides those of clients.
const SPARE: usize = 2;

/// Measures each transport.
pub fn run(bench: &mut Bench) {
    for transport in Transport::ALL {
        let name = format!("connect/accept/{}", transport.name());
        if bench.wants(&name) {
            accept(bench, transport, name);
        }
    }
    for transport in Transport::ALL {
        let name = format!("connect/storm/{}", transport.name());
        if bench.wants(&name) {
            storm(bench, transport, name);
        }
    }
}

/// Processor time from the request to the opened stream, its snapshot included.
fn accept(bench: &mut Bench, transport: Transport, name: String) {
    let specs = [Spec::new(name, "µs a connection", Most::Ratio(2.0))];
    // One stays, so that the channel is open all the time.
    let open = |subject: &Subject| {
        let mut writer = Writer::new(&subject.server, 1);
        let mut first = Clients::connect(&subject.door, Audience::new(transport, 1, 1));
        first.until_all_have_one(&mut writer);
        (first, subject.descriptors())
    };
    let run = |subject: &Subject, (_, descriptors): &mut (Clients, usize)| {
        let before = subject.processor_time();
        let mut clients = Clients::connect(&subject.door, Audience::new(transport, ACCEPTED, 1));
        clients.quiet();
        let spent = subject.processor_time() - before;
        clients.cut();
        // What it costs to let them go is not part of the next run.
        subject.until_descriptors(*descriptors + SPARE);
        [spent.as_secs_f64() * 1e6 / ACCEPTED as f64].into()
    };
    bench.compare(&specs, &Plan::of(transport, RUNS), open, run);
}

/// All connections are cut, and all clients come back at once.
fn storm(bench: &mut Bench, transport: Transport, name: String) {
    let specs = [
        Spec::new(name.clone(), "ms until all are back", Most::Ratio(1.5)),
        Spec::new(format!("{name}/processor"), "µs a connection", Most::Anything),
    ];
    let audience = Audience::new(transport, STORM, STORM_CHANNELS);
    let open = |subject: &Subject| {
        let mut writer = Writer::new(&subject.server, STORM_CHANNELS);
        let mut clients = Clients::connect(&subject.door, audience);
        clients.until_all_have_one(&mut writer);
        Some(clients)
    };
    let run = |subject: &Subject, state: &mut Option<Clients>| {
        let before = (subject.processor_time(), subject.server.reads());
        let start = Instant::now();
        if let Some(clients) = state.take() {
            clients.cut();
        }
        let requests = (0..audience.clients).map(|client| audience.request(&subject.door, client, ""));
        let mut clients = Clients::storm(&subject.door, requests);
        let are_back = clients.until_back(&subject.door);
        // Who does not manage it is given the time after which it was given up.
        let took = if are_back { start.elapsed() } else { PATIENCE };
        clients.quiet();
        let spent = subject.processor_time() - before.0;
        let reads = (subject.server.reads() - before.1) as f64 / STORM_CHANNELS as f64;
        *state = Some(clients);
        Sample {
            values: [took.as_secs_f64() * 1e3, spent.as_secs_f64() * 1e6 / STORM as f64],
            also: format!("{reads:.2} reads a channel"),
        }
    };
    bench.compare(&specs, &Plan::of(transport, RUNS), open, run);
}
