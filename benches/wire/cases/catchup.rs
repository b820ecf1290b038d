//! What it costs to send clients what they have missed, and what one that does not read costs the others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::latency::{percentile, waits};
use crate::Transport;
use crate::bench::{Bench, Plan, Sample};
use crate::floor;
use crate::load::{Audience, Clients, PATIENCE};
use crate::process::{Door, Setup, Subject, Who};
use crate::report::{Figure, Most, Spec};
use crate::writer::{MARK, STAMP, Writer};

/// Runs of each case.
const RUNS: usize = 8;

/// Clients that come back at once, and their channels.
const CLIENTS: usize = 500;
const CHANNELS: usize = 10;

/// Messages of its channel that each of them has missed.
const BACKLOGS: [usize; 2] = [64, 512];

/// A tenth of what a `send` for each message costs.
const TENTH: Most = Most::Ratio(0.1);

/// Descriptors that may come and go besides those of clients.
const SPARE: usize = 2;

/// Who reads, beside the one who does not.
const READERS: usize = 1_000;

/// Messages a second for them, and for how long.
const RATE: u32 = 50;
const RUN: Duration = Duration::from_secs(1);

/// Messages that are written before anybody else comes: more than the sockets of one client have room for.
const TOO_MANY: usize = 5_000;

/// One that does not read is let live for longer than the case takes.
const PATIENT: &str = "write_timeout = \"10m\"\n";

/// Measures both.
pub fn run(bench: &mut Bench) {
    for backlog in BACKLOGS {
        let name = format!("catchup/events-{backlog}");
        if bench.wants(&name) {
            events(bench, backlog, name);
        }
    }
    if bench.wants("catchup/beside-a-stalled-one") {
        beside_a_stalled_one(bench, "catchup/beside-a-stalled-one");
    }
    if bench.wants("catchup/after-a-stall") {
        after_a_stall(bench, "catchup/after-a-stall");
    }
}

/// What is there before clients come back.
struct Missed {
    /// Those who have missed nothing, which keeps the channels open.
    _keepers: Clients,
    /// Where the others go on, for each channel.
    cursors: Vec<String>,
    descriptors: usize,
}

fn events(bench: &mut Bench, backlog: usize, name: String) {
    let specs = [
        Spec::new(&name, "µs a message", TENTH),
        Spec::new(format!("{name}/with-connecting"), "µs a message", Most::Anything),
    ];
    let setup = Setup {
        floor: floor::Options {
            backlog,
            ..floor::Options::default()
        },
        mappings: "[[mapping]]\nkey = \"bench:{n}\"\naccess = \"public\"\nmode = \"events\"\n\
                   retain = { messages = 1_024, bytes = \"16MiB\", age = \"10m\" }\n"
            .to_owned(),
        ..Setup::default()
    };
    let audience = Audience::new(Transport::Sse, CLIENTS, CHANNELS);
    let open = |subject: &Subject| {
        let mut keepers = Clients::connect(&subject.door, Audience::new(Transport::Sse, CHANNELS, CHANNELS));
        keepers.quiet();
        let cursors = (0..CHANNELS).map(|channel| cursor(&subject.door, channel)).collect();
        let mut writer = Writer::new(&subject.server, CHANNELS);
        for _ in 0..backlog {
            writer.write_all_channels();
        }
        keepers.until_marks(backlog as u32);
        subject.until_idle();
        Missed {
            _keepers: keepers,
            cursors,
            descriptors: subject.descriptors(),
        }
    };
    let run = |subject: &Subject, missed: &mut Missed| {
        let all = come(subject, audience, missed, Some(backlog as u32));
        let connecting = come(subject, audience, missed, None);
        let messages = (CLIENTS * backlog) as f64;
        let each = |spent: f64| spent * 1e6 / messages;
        Sample {
            values: [each(all - connecting), each(all)],
            also: format!("{:.0} µs to connect", connecting * 1e6 / CLIENTS as f64),
        }
    };
    bench.compare(&specs, &Plan::new(setup, RUNS), open, run);
}

/// Seconds of processor time until all clients have come and have got so many messages that they missed; without any, they
/// come without a cursor.
fn come(subject: &Subject, audience: Audience, missed: &Missed, messages: Option<u32>) -> f64 {
    let request = |client: usize| {
        let cursor = messages.map(|_| format!("&cursor={}", missed.cursors[client % CHANNELS]));
        audience.request(&subject.door, client, &cursor.unwrap_or_default())
    };
    let before = subject.processor_time();
    let mut clients = Clients::come(&subject.door, (0..CLIENTS).map(request));
    clients.until_marks(messages.unwrap_or(0));
    clients.quiet();
    let spent = subject.processor_time() - before;
    clients.cut();
    subject.until_descriptors(missed.descriptors + SPARE);
    spent.as_secs_f64()
}

/// Where a client of this channel goes on that has seen all there is.
fn cursor(door: &Door, channel: usize) -> String {
    let mut socket = TcpStream::connect(door.address).expect("a listener");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let audience = Audience::new(Transport::Sse, 1, channel + 1);
    let request = audience.request(door, channel, "");
    socket.write_all(request.as_bytes()).expect("room for a request");
    let (mut text, mut part) = (String::new(), [0; 4096]);
    loop {
        let size = socket.read(&mut part).expect("it says when it is ready");
        assert!(size > 0, "it ended before it was ready: {text}");
        text += &String::from_utf8_lossy(&part[..size]);
        let cursor = text
            .split_once("\"cursor\":\"")
            .and_then(|(_, rest)| rest.split_once('"'));
        if let Some((cursor, _)) = cursor {
            return cursor.to_owned();
        }
    }
}

/// A client that does not read.
struct Stalled {
    socket: TcpStream,
}

impl Stalled {
    /// Connects, and lets so much be written that its sockets are full.
    fn new(subject: &Subject) -> Stalled {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // The kernel's least: it would take several MB else.
        socket.set_recv_buffer_size(4096).expect("a socket");
        socket.connect(&subject.door.address.into()).expect("a listener");
        let mut socket = TcpStream::from(socket);
        let request = Audience::new(Transport::Sse, 1, 1).request(&subject.door, 0, "");
        socket.write_all(request.as_bytes()).expect("room for a request");
        let mut first = [0; 16];
        socket.read_exact(&mut first).expect("it is answered");
        let mut writer = Writer::new(&subject.server, 1);
        for _ in 0..TOO_MANY {
            writer.write_next();
        }
        subject.until_idle();
        Stalled { socket }
    }

    /// Reads until a value comes that was written after this; false if none comes.
    fn gets_what_is_newer(&mut self, than: u64) -> bool {
        self.socket.set_read_timeout(Some(PATIENCE / 10)).expect("a socket");
        let (mut bytes, mut part) = (Vec::new(), [0; 64 * 1024]);
        while let Ok(size @ 1..) = self.socket.read(&mut part) {
            bytes.extend_from_slice(&part[..size]);
            let Some(mark) = memchr::memrchr(MARK, &bytes) else {
                continue;
            };
            let stamp = std::str::from_utf8(&bytes[mark - STAMP..mark]);
            if stamp.is_ok_and(|digits| digits.parse::<u64>().is_ok_and(|written| written >= than)) {
                return true;
            }
        }
        false
    }
}

/// What a thousand readers notice of one who does not read: the base is the relay without that one.
fn beside_a_stalled_one(bench: &mut Bench, name: &str) {
    let specs = [
        Spec::new(name, "µs a delivery", Most::Ratio(1.1)),
        Spec::new(format!("{name}/p99"), "µs to the last", Most::Ratio(1.1)),
    ];
    let setup = Setup {
        server: PATIENT.to_owned(),
        ..Setup::default()
    };
    let open = |subject: &Subject| {
        let stalled = (!subject.is_base).then(|| Stalled::new(subject));
        let mut writer = Writer::new(&subject.server, 1);
        let mut clients = Clients::connect(&subject.door, Audience::new(Transport::Sse, READERS, 1));
        clients.until_all_have_one(&mut writer);
        (clients, writer, stalled)
    };
    let run = |subject: &Subject, (clients, writer, _): &mut (Clients, Writer, Option<Stalled>)| {
        clients.reset();
        clients.note();
        let before = subject.processor_time();
        clients.flow(writer, RATE, RUN);
        clients.quiet();
        let spent = subject.processor_time() - before;
        let took = waits(clients, READERS);
        let each = spent.as_secs_f64() * 1e6 / clients.deliveries() as f64;
        [each, percentile(&took, 99)].into()
    };
    let plan = Plan::new(setup, RUNS).beside(Some(Who::Relay));
    bench.compare(&specs, &plan, open, run);
}

/// Whether a client that reads again gets what was written last.
fn after_a_stall(bench: &mut Bench, name: &str) {
    let setup = Setup {
        server: PATIENT.to_owned(),
        ..Setup::default()
    };
    let subject = Subject::start(&Who::Relay, &setup);
    let mut stalled = Stalled::new(&subject);
    let before = crate::machine::now();
    Writer::new(&subject.server, 1).write_next();
    let start = Instant::now();
    let is_there = stalled.gets_what_is_newer(before);
    let also = format!(
        "after {TOO_MANY} unread ones, within {} ms",
        start.elapsed().as_millis()
    );
    let spec = Spec::new(name, "values behind", Most::Value(0.0));
    bench.report.add(Figure::new(
        &spec,
        "keyrelay",
        vec![(None, if is_there { 0.0 } else { 1.0 })],
        also,
    ));
}
