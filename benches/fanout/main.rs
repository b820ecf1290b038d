//! What one delivery costs the relay, and what an idle connection holds, beside a floor in the same run.
//!
//! The floor is a process of its own that does nothing but what no relay of keys can do without: it hears of each change,
//! gets the value, and sends the same bytes to each subscriber, all from one bare epoll loop. It checks nothing, keeps
//! nothing and survives nothing. What the relay costs above it is all that keyrelay adds.
//!
//! Runs of both alternate, and the median counts, of the ratio that of neighbouring runs, because no two seconds of a
//! machine are alike. Where there are two processors, the process that is measured has one for itself.
//!
//! `cargo bench --bench fanout`; it takes about three minutes and needs redis-server, valkey-server or keydb-server.

#![expect(clippy::print_stdout, reason = "what it has to say is a table")]

mod floor;
mod load;
mod process;

use std::time::Duration;

use load::{Clients, Writer};
use process::{Server, Subject};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Runs of each case and each process.
const ROUNDS: usize = 5;

/// How long one run is measured.
const RUN: Duration = Duration::from_secs(2);

/// Idle connections, if so many files may be open.
const IDLE: usize = 10_000;

/// How many subscribe to what, and how often something happens.
struct Case {
    name: &'static str,
    clients: usize,
    channels: usize,
    /// Messages a second, over all channels.
    rate: u32,
}

const CASES: [Case; 2] = [
    Case {
        name: "1,000 on one channel",
        clients: 1_000,
        channels: 1,
        rate: 50,
    },
    Case {
        name: "1,000 on 100 channels",
        clients: 1_000,
        channels: 100,
        rate: 2_000,
    },
];

/// How the clients are spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Sse,
    WebSocket,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Transport::Sse => "SSE",
            Transport::WebSocket => "WebSocket",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Default)]
struct Run {
    /// Processor time for one delivery, in µs.
    each: f64,
    /// The part of it that goes into reading the keys.
    reading: f64,
    bytes: f64,
    /// The share of messages that were not delivered, because a newer value was there first.
    skipped: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, floor, server, transport] = &arguments[..]
        && floor == "floor"
    {
        let transports = [Transport::Sse, Transport::WebSocket];
        let transport = transports.into_iter().find(|known| known.name() == transport);
        return floor::run(server.parse().expect("an address"), transport.expect("a transport"));
    }
    // `cargo test --benches` only wants to know that it starts.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let files = raise_files();
    process::pin_load();
    let server = Server::start();
    println!("{ROUNDS} runs of {RUN:?} each, floor and relay in turn; median (least - most)");
    println!(
        "`reading` is the part of the relay that is paid for each message, however many receive it: hearing of it, and its value\n"
    );
    println!(
        "µs a delivery                   |        floor        |        relay        | reading | ratio | bytes each | skipped"
    );
    for case in &CASES {
        for transport in [Transport::Sse, Transport::WebSocket] {
            compare(case, transport, &server);
        }
    }
    println!("\nbytes an idle connection (resident memory of the process)");
    let clients = IDLE.min(files.saturating_sub(1_000) as usize);
    for transport in [Transport::Sse, Transport::WebSocket] {
        let floor = idle(&Subject::floor(&server, transport), &server, transport, clients);
        let relay = idle(&Subject::relay(&server), &server, transport, clients);
        println!(
            "{clients:>6} {:<9} | floor {floor:>6} | relay {relay:>6}",
            transport.name()
        );
    }
}

fn compare(case: &Case, transport: Transport, server: &Server) {
    let (mut floor, mut relay) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(run(case, transport, &Subject::floor(server, transport), server));
        relay.push(run(case, transport, &Subject::relay(server), server));
    }
    // Of neighbours in time: the machine's mood is in both.
    let mut ratios: Vec<f64> = relay
        .iter()
        .zip(&floor)
        .map(|(relay, floor)| relay.each / floor.each)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let column = |runs: &mut Vec<Run>| {
        runs.sort_by(|a, b| a.each.total_cmp(&b.each));
        let (least, median, most) = (runs[0].each, runs[runs.len() / 2].each, runs[runs.len() - 1].each);
        format!("{median:>5.2} ({least:>5.2} - {most:>5.2})")
    };
    let (floor_text, relay_text) = (column(&mut floor), column(&mut relay));
    let middle = relay[relay.len() / 2];
    println!(
        "{:<21} {:<9} | {floor_text} | {relay_text} | {:>7.2} | {:>5.2} | {:>4.0} : {:<3.0} | {:>5.1} %",
        case.name,
        transport.name(),
        middle.reading,
        ratios[ratios.len() / 2],
        floor[floor.len() / 2].bytes,
        middle.bytes,
        100.0 * middle.skipped,
    );
}

/// Lets messages flow for a while.
fn run(case: &Case, transport: Transport, subject: &Subject, server: &Server) -> Run {
    let mut writer = Writer::new(server, case.channels);
    let mut clients = Clients::connect(subject.address, case.clients, case.channels, transport);
    clients.until_all_have_one(&mut writer);
    clients.flow(&mut writer, case.rate, RUN / 4);
    clients.quiet();
    clients.reset();
    let before = subject.processor_time();
    let written = clients.flow(&mut writer, case.rate, RUN);
    clients.quiet();
    let after = subject.processor_time();
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / clients.deliveries() as f64;
    let due = written as f64 * (case.clients / case.channels) as f64;
    Run {
        each: each(after.0 - before.0),
        reading: each(after.1 - before.1),
        bytes: clients.bytes() as f64 / clients.deliveries() as f64,
        skipped: 1.0 - clients.deliveries() as f64 / due,
    }
}

/// What one more connection adds to the memory of the process.
fn idle(subject: &Subject, server: &Server, transport: Transport, clients: usize) -> u64 {
    let mut writer = Writer::new(server, 1);
    // What the first connections need once and for all is not counted.
    let mut first = Clients::connect(subject.address, 100, 1, transport);
    first.until_all_have_one(&mut writer);
    let before = subject.resident();
    let mut rest = Clients::connect(subject.address, clients, 1, transport);
    rest.until_all_have_one(&mut writer);
    rest.quiet();
    subject.resident().saturating_sub(before) / clients as u64
}

/// Allows as many open files as this process may have; its children inherit that.
fn raise_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    limit.maximum.unwrap_or(1 << 20)
}
