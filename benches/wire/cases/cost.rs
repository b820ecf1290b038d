//! What one delivery costs in numbers that do not jitter: instructions in user mode, and system calls.
//!
//! A tool watches the process, which is slowed down by it many times over. So each message is waited for before the next
//! one is written, and what start and end cost goes out of the account by taking the difference of two runs.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Transport;
use crate::bench::Bench;
use crate::floor;
use crate::load::{Audience, Clients};
use crate::process::{Setup, Subject, Tool, Who};
use crate::report::{Figure, Most, Spec};
use crate::writer::Writer;

/// Subscribers of one channel.
const CLIENTS: usize = 100;

/// Subscribers of a run that tells what a message costs, whoever receives it, from what a delivery does.
const FEW: usize = 10;

/// Between two messages: a key is read once a millisecond at most, and what is done to wait for that would be counted.
const PAUSE: Duration = Duration::from_millis(2);

/// Messages of the shorter run; the longer one has twice as many.
const MESSAGES: u64 = 200;

/// Measures what there are tools for.
pub fn run(bench: &mut Bench) {
    for transport in Transport::ALL {
        let name = format!("cost/instructions/{}", transport.name());
        let spec = Spec::new(&name, "instr. a delivery", Most::Value(400.0));
        if bench.wants(&name) && is_there(bench, "valgrind", &name) {
            let [few, relay] = [FEW, CLIENTS].map(|clients| slope(&Who::Relay, Tool::Callgrind, transport, clients));
            let each = (relay - few) / (CLIENTS - FEW) as f64;
            let message = relay - each * CLIENTS as f64;
            let also =
                format!("of them {each:.0} for the delivery, {message:.0} for each message, however many get it");
            add(bench, &spec, None, relay, also);
        }
        let name = format!("cost/calls/{}", transport.name());
        let spec = Spec::new(&name, "calls a delivery", Most::Above(0.05));
        if bench.wants(&name) && is_there(bench, "strace", &name) {
            let count = |who| slope(&who, Tool::Strace, transport, CLIENTS);
            let (floor, relay) = (count(Who::Floor), count(Who::Relay));
            add(bench, &spec, Some(floor), relay, String::new());
        }
    }
}

fn is_there(bench: &Bench, tool: &str, name: &str) -> bool {
    let mut command = Command::new(tool);
    command.arg("--version").stdout(Stdio::null());
    let is_there = command.status().is_ok_and(|status| status.success());
    if !is_there {
        bench.report.skip(name, &format!("{tool} is not installed"));
    }
    is_there
}

/// Adds a figure of what a message to [`CLIENTS`] costs.
fn add(bench: &mut Bench, spec: &Spec, floor: Option<f64>, relay: f64, also: String) {
    let each = |message: f64| message / CLIENTS as f64;
    let runs = vec![(floor.map(each), each(relay))];
    bench.report.add(Figure::new(spec, "keyrelay", runs, also));
}

/// What a message to so many clients adds to what the tool counts.
fn slope(who: &Who, tool: Tool, transport: Transport, clients: usize) -> f64 {
    let [few, many] = [MESSAGES, 2 * MESSAGES].map(|messages| count(who, tool, transport, clients, messages));
    (many - few) as f64 / MESSAGES as f64
}

fn count(who: &Who, tool: Tool, transport: Transport, clients: usize, messages: u64) -> i64 {
    let setup = Setup {
        floor: floor::Options {
            transport,
            ..floor::Options::default()
        },
        tool: Some(tool),
        ..Setup::default()
    };
    let subject = Subject::start(who, &setup);
    let mut writer = Writer::new(&subject.server, 1);
    let mut audience = Clients::connect(&subject.door, Audience::new(transport, clients, 1));
    audience.until_all_have_one(&mut writer);
    audience.reset();
    for message in 1..=messages {
        writer.write_next();
        let is_there = audience.until_deliveries(message * clients as u64);
        assert!(is_there, "a message is lost");
        audience.read(PAUSE);
    }
    let text = subject.counted();
    total(tool, &text).unwrap_or_else(|| panic!("{tool:?} wrote no total:\n{text}"))
}

/// The sum in what the tool wrote.
fn total(tool: Tool, text: &str) -> Option<i64> {
    let number = match tool {
        Tool::Callgrind => text.lines().find_map(|line| line.strip_prefix("totals: "))?,
        // % time, seconds, µs a call, calls, …
        Tool::Strace => {
            let line = text.lines().find(|line| line.ends_with(" total"))?;
            line.split_whitespace().nth(3)?
        }
    };
    number.trim().parse().ok()
}
