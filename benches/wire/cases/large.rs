//! A quarter of a million idle connections on one machine.

use std::time::{Duration, Instant};

use crate::Transport;
use crate::bench::{Bench, Plan, Sample};
use crate::floor;
use crate::load::{Audience, Clients, PATIENCE};
use crate::process::{Setup, Subject};
use crate::report::{Most, Spec};
use crate::writer::Writer;

use super::LARGE;

/// Connections.
const CLIENTS: usize = 250_000;

/// Files that are open besides them.
const OTHER_FILES: usize = 1_000;

/// Descriptors that may come and go besides those of clients.
const SPARE: usize = 2;

/// How long they are held: each is sent four heartbeats.
const HELD: Duration = Duration::from_secs(60);

/// A million, in the unit of the table's descriptors.
const MILLION: f64 = 1e6;

/// Holds connections of Server-Sent Events, and serves all by one write.
pub fn run(bench: &mut Bench) {
    let clients = CLIENTS.min(bench.files.saturating_sub(OTHER_FILES));
    if clients < CLIENTS {
        let why = format!(
            "with {CLIENTS} connections, as no more than {} files may be open (raise the hard limit); {clients} instead",
            bench.files
        );
        bench.report.skip(LARGE, &why);
    }
    let name = |what: &str| format!("{LARGE}/{what}");
    let specs = [
        Spec::new(name("held"), "µs a connection·minute", Most::Ratio(1.3)),
        Spec::new(name("write-to-last"), "ms", Most::Ratio(1.3)),
        Spec::new(name("memory"), "MB for a million", Most::Anything),
        Spec::new(name("descriptors"), "for a million", Most::Anything),
    ];
    let setup = Setup {
        floor: floor::Options {
            heartbeat: true,
            ..floor::Options::default()
        },
        server: "[limits]\nconnections = 300_000\n".to_owned(),
        ..Setup::default()
    };
    // The connections of one are cut before those of the next are made: together they would take the kernel twice the memory.
    let open = |_: &Subject| ();
    bench.compare(&specs, &Plan::new(setup, 1), open, |subject, ()| {
        measure(subject, clients)
    });
}

fn measure(subject: &Subject, count: usize) -> Sample<4> {
    let mut writer = Writer::new(&subject.server, 1);
    let mut first = Clients::connect(&subject.door, Audience::new(Transport::Sse, 100, 1));
    first.until_all_have_one(&mut writer);
    let (idle_memory, idle) = (subject.settled_memory(), subject.descriptors());
    let mut clients = Clients::connect(&subject.door, Audience::new(Transport::Sse, count, 1));
    clients.quiet();
    let memory = (subject.settled_memory() - idle_memory) as f64 / count as f64;
    let descriptors = (subject.descriptors() - idle) as f64 / count as f64;
    let before = subject.processor_time();
    clients.read(HELD);
    let held = subject.processor_time() - before;
    clients.reset();
    let start = Instant::now();
    writer.write_next();
    let is_served = clients.until_deliveries(count as u64);
    let took = if is_served { start.elapsed() } else { PATIENCE };
    clients.cut();
    subject.until_descriptors(idle + SPARE);
    let minutes = HELD.as_secs_f64() / 60.0;
    Sample {
        values: [
            held.as_secs_f64() * 1e6 / minutes / count as f64,
            took.as_secs_f64() * 1e3,
            // Bytes of one are megabytes of a million.
            memory,
            descriptors * MILLION,
        ],
        also: format!("{count} connections"),
    }
}
