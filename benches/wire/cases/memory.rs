//! What an idle connection holds in the process that serves it, when the allocator has settled.

use crate::Transport;
use crate::bench::{Bench, Plan};
use crate::load::{Audience, Clients};
use crate::process::Subject;
use crate::report::{Most, Spec};
use crate::writer::Writer;

/// Runs, each with processes of its own: memory does not jitter.
const RUNS: usize = 2;

/// Idle connections, if so many files may be open.
const IDLE: usize = 10_000;

/// Connections before those that are counted: what the first ones need once and for all is not theirs.
const FIRST: usize = 100;

/// Files that are open besides connections.
const OTHER_FILES: usize = 1_000;

/// Bytes of one connection that are allowed.
const MOST: Most = Most::Value(1_024.0);

/// Measures connections of each transport.
pub fn run(bench: &mut Bench) {
    for transport in Transport::ALL {
        let name = format!("memory/idle/{}", transport.name());
        if !bench.wants(&name) {
            continue;
        }
        let clients = IDLE.min(bench.files.saturating_sub(OTHER_FILES));
        let plan = Plan::of(transport, RUNS);
        let specs = [Spec::new(name, "bytes a connection", MOST)];
        let open = |_: &Subject| ();
        bench.compare(&specs, &plan, open, |subject, ()| {
            [measure(subject, transport, clients)].into()
        });
    }
}

/// What one more connection adds to the memory of the process.
fn measure(subject: &Subject, transport: Transport, clients: usize) -> f64 {
    let mut writer = Writer::new(&subject.server, 1);
    let mut first = Clients::connect(&subject.door, Audience::new(transport, FIRST, 1));
    first.until_all_have_one(&mut writer);
    let before = subject.settled_memory();
    let mut rest = Clients::connect(&subject.door, Audience::new(transport, clients, 1));
    rest.until_all_have_one(&mut writer);
    rest.quiet();
    subject.settled_memory().saturating_sub(before) as f64 / clients as f64
}
