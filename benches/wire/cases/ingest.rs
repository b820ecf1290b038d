//! What it costs to hear of changes that nobody wants to see, with ten thousand mappings, as fast as the server can tell.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Transport;
use crate::bench::{Bench, Plan, Sample};
use crate::load::{Audience, Clients};
use crate::process::{Setup, Subject, Who};
use crate::report::{Most, Spec};
use crate::server::Server;
use crate::writer::{MARK, Writer};

/// Runs of each case.
const RUNS: usize = 6;

/// How long one run is.
const RUN: Duration = Duration::from_millis(1_500);

/// Mappings, each of its own prefix. They are more than the relay makes patterns of, so that it hears of all keys.
const MAPPINGS: usize = 10_000;

/// Keys that one command writes: each is an event of its own, and the server has little else to do for them.
const TOGETHER: usize = 100;

/// Connections that write at once, and commands that each sends before it waits for the answers.
const WRITERS: usize = 2;
const PIPELINED: usize = 8;

/// Writes a second of the key that has a subscriber.
const HOT: usize = 200_000;

/// The metric that counts what a connection cut by the server would show in.
const RECONNECTS: &str = "keyrelay_upstream_reconnects_total";

/// The metric that counts events that were heard.
const HEARD: &str = "keyrelay_key_events_total";

/// Measures events that no mapping takes, events of channels without subscribers, and one key that changes all the time.
pub fn run(bench: &mut Bench) {
    let unmapped = |who: &Who, number: usize| match who {
        // It hears of no others.
        Who::Floor => format!("bench:{number}"),
        _ => format!("other:{number}"),
    };
    let inactive = |who: &Who, number: usize| match who {
        Who::Floor => format!("bench:{number}"),
        _ => format!("m{:04}:{number}", number % MAPPINGS),
    };
    if bench.wants("ingest/unmapped") {
        flood(bench, "ingest/unmapped", 0.3, unmapped);
    }
    if bench.wants("ingest/inactive") {
        flood(bench, "ingest/inactive", 0.5, inactive);
    }
    if bench.wants("ingest/hot") {
        hot(bench, "ingest/hot");
    }
}

fn setup() -> Setup {
    let mut setup = Setup::default();
    for number in 0..MAPPINGS {
        let mapping = format!("[[mapping]]\nkey = \"m{number:04}:{{id}}\"\naccess = \"public\"\n");
        setup.mappings.push_str(&mapping);
    }
    setup
}

/// Writes at the highest rate, with nobody listening.
fn flood(bench: &mut Bench, name: &str, most: f64, key: impl Fn(&Who, usize) -> String) {
    let specs = [
        Spec::new(name, "µs user an event", Most::Value(most)),
        Spec::new(format!("{name}/lost-feeds"), "reconnects", Most::Value(0.0)),
    ];
    let open = |subject: &Subject| Flood::new(&subject.server, |number| key(&subject.who, number));
    let run = |subject: &Subject, flood: &mut Flood| {
        let before = (subject.user_time(), subject.metric(RECONNECTS), subject.metric(HEARD));
        let start = Instant::now();
        let mut events = 0;
        while start.elapsed() < RUN {
            events += flood.write();
        }
        let took = start.elapsed();
        subject.until_idle();
        let user = subject.user_time() - before.0;
        let late = start.elapsed() - took;
        let heard = subject.metric(HEARD) - before.2;
        Sample {
            values: [
                user.as_secs_f64() * 1e6 / events as f64,
                subject.metric(RECONNECTS) - before.1,
            ],
            also: format!(
                "{:.0} events/s, {:.0} % heard, done {} ms after the last",
                events as f64 / took.as_secs_f64(),
                100.0 * heard / events as f64,
                late.as_millis()
            ),
        }
    };
    bench.compare(&specs, &Plan::new(setup(), RUNS), open, run);
}

/// Writes one key with one subscriber all the time.
fn hot(bench: &mut Bench, name: &str) {
    let specs = [Spec::new(name, "reads/s", Most::Value(1_000.0))];
    let open = |subject: &Subject| {
        let mut clients = Clients::connect(&subject.door, Audience::new(Transport::Sse, 1, 1));
        clients.until_all_have_one(&mut Writer::new(&subject.server, 1));
        (clients, Flood::new(&subject.server, |_| "bench:0".to_owned()))
    };
    let run = |subject: &Subject, (clients, flood): &mut (Clients, Flood)| {
        clients.reset();
        let before = subject.server.reads();
        let start = Instant::now();
        let mut events = 0;
        while start.elapsed() < RUN {
            events += flood.write();
            let due = Duration::from_secs_f64(events as f64 / HOT as f64);
            clients.read(due.saturating_sub(start.elapsed()));
        }
        let seconds = start.elapsed().as_secs_f64();
        let reads = (subject.server.reads() - before) as f64 / seconds;
        clients.quiet();
        Sample {
            values: [reads],
            also: format!(
                "of {:.0} writes/s, {:.0} delivered",
                events as f64 / seconds,
                clients.deliveries() as f64 / seconds
            ),
        }
    };
    bench.compare(&specs, &Plan::new(setup(), RUNS).beside(None), open, run);
}

/// Writes many keys at once.
struct Flood {
    connections: Vec<TcpStream>,
    /// Each writes [`TOGETHER`] keys.
    commands: Vec<Vec<u8>>,
    next: usize,
}

impl Flood {
    /// Writes the keys of the numbers from 0 to 9,999 in turn, each time with another value than just before.
    fn new(server: &Server, key: impl Fn(usize) -> String) -> Flood {
        let connect = |_| TcpStream::connect(server.address).expect("the server");
        let command = |first: usize| {
            let mut command = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * TOGETHER);
            for number in first..first + TOGETHER {
                let (key, value) = (key(number), format!("{number}{}", MARK as char));
                command += &format!("${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len());
            }
            command.into_bytes()
        };
        Flood {
            connections: (0..WRITERS).map(connect).collect(),
            commands: (0..MAPPINGS).step_by(TOGETHER).map(command).collect(),
            next: 0,
        }
    }

    /// Writes, and waits until all is written; how many keys that were.
    fn write(&mut self) -> usize {
        for connection in &mut self.connections {
            for _ in 0..PIPELINED {
                let command = &self.commands[self.next % self.commands.len()];
                self.next += 1;
                connection.write_all(command).expect("the server takes commands");
            }
        }
        let mut answers = [0; PIPELINED * b"+OK\r\n".len()];
        for connection in &mut self.connections {
            connection.read_exact(&mut answers).expect("the server answers");
        }
        WRITERS * PIPELINED * TOGETHER
    }
}
