//! What HTTP/2 costs: a thousand streams on one connection beside a thousand connections of HTTP/1.1, which are the base.

use std::time::Duration;

use crate::Transport;
use crate::bench::{Bench, Plan, Sample};
use crate::load::{Audience, Clients};
use crate::process::{Setup, Subject, Who};
use crate::report::{Most, Spec};
use crate::streams::{self, Streams};
use crate::writer::Writer;

/// Runs of each case.
const RUNS: usize = 6;

/// Streams, of one channel.
const STREAMS: usize = 1_000;

/// Messages a second, and for how long.
const RATE: u32 = 50;
const RUN: Duration = Duration::from_millis(700);

/// Streams beside one that is not read: fewer than any connection takes.
const BESIDE: usize = 50;

/// Messages that are written before anybody else comes: more than the window of a stream has room for.
const TOO_MANY: u32 = 1_000;

/// One that does not read is let live for longer than the case takes.
const PATIENT: &str = "write_timeout = \"10m\"\n";

const PATH: &str = "/events?channel=bench:0";

/// Who receives.
enum Audiences {
    Connections(Clients),
    Streams(Streams),
}

/// Measures streams that are all read, then those beside one that is not.
pub fn run(bench: &mut Bench) {
    let relay = Subject::start(&Who::Relay, &Setup::default());
    if !streams::are_spoken_at(relay.door.address) {
        return bench
            .report
            .skip("http2", "keyrelay does not speak it by prior knowledge");
    }
    drop(relay);
    if bench.wants("http2/steady") {
        steady(bench, "http2/steady");
    }
    if bench.wants("http2/beside-a-stalled-stream") {
        beside_a_stalled_stream(bench, "http2/beside-a-stalled-stream");
    }
}

fn steady(bench: &mut Bench, name: &str) {
    let specs = [
        Spec::new(name, "µs a delivery", Most::Anything),
        Spec::new(format!("{name}/open"), "µs a stream", Most::Anything),
        Spec::new(format!("{name}/connections"), "for 1,000 streams", Most::Value(1.0)),
    ];
    let open = |subject: &Subject| {
        let mut writer = Writer::new(&subject.server, 1);
        writer.write_next();
        // So that the channel is there, as it mostly is.
        let first = Clients::connect(&subject.door, Audience::new(Transport::Sse, 1, 1));
        let before = subject.processor_time();
        let audience = if subject.is_base {
            let mut clients = Clients::connect(&subject.door, Audience::new(Transport::Sse, STREAMS, 1));
            clients.quiet();
            Audiences::Connections(clients)
        } else {
            let mut streams = Streams::none();
            streams.open(subject.door.address, PATH, STREAMS);
            streams.quiet();
            Audiences::Streams(streams)
        };
        let opening = (subject.processor_time() - before).as_secs_f64() * 1e6 / STREAMS as f64;
        drop(first);
        (audience, writer, opening)
    };
    let run = |subject: &Subject, (audience, writer, opening): &mut (Audiences, Writer, f64)| {
        let (each, skipped) = audience.measure(subject, writer, STREAMS);
        Sample {
            values: [each, *opening, audience.connections() as f64],
            also: format!("the base is HTTP/1.1; {skipped:.1} % skipped"),
        }
    };
    bench.compare(&specs, &plan(), open, run);
}

fn beside_a_stalled_stream(bench: &mut Bench, name: &str) {
    let specs = [Spec::new(name, "µs a delivery", Most::Ratio(1.2))];
    let open = |subject: &Subject| {
        let mut writer = Writer::new(&subject.server, 1);
        let mut streams = Streams::none();
        if subject.is_base {
            // As many streams in both.
            streams.open(subject.door.address, PATH, 1);
        } else {
            streams.open_stalled(subject.door.address, PATH);
        }
        streams.flow(&mut writer, TOO_MANY, Duration::from_secs(1));
        streams.add(subject.door.address, PATH, BESIDE, true);
        streams.quiet();
        (Audiences::Streams(streams), writer)
    };
    let run = |subject: &Subject, (audience, writer): &mut (Audiences, Writer)| {
        let readers = if subject.is_base { BESIDE + 1 } else { BESIDE };
        let (each, skipped) = audience.measure(subject, writer, readers);
        Sample {
            values: [each],
            also: format!("the base has none that stalls; {skipped:.1} % skipped"),
        }
    };
    bench.compare(&specs, &plan(), open, run);
}

fn plan() -> Plan {
    let setup = Setup {
        server: PATIENT.to_owned(),
        ..Setup::default()
    };
    Plan::new(setup, RUNS).beside(Some(Who::Relay))
}

impl Audiences {
    /// µs of processor time for a delivery to so many readers, and how many percent of the messages did not come.
    fn measure(&mut self, subject: &Subject, writer: &mut Writer, readers: usize) -> (f64, f64) {
        self.reset();
        let before = subject.processor_time();
        let written = match self {
            Audiences::Connections(clients) => clients.flow(writer, RATE, RUN),
            Audiences::Streams(streams) => streams.flow(writer, RATE, RUN),
        };
        self.quiet();
        let spent = subject.processor_time() - before;
        let deliveries = self.deliveries().max(1) as f64;
        let due = written as f64 * readers as f64;
        (spent.as_secs_f64() * 1e6 / deliveries, 100.0 * (1.0 - deliveries / due))
    }

    fn reset(&mut self) {
        match self {
            Audiences::Connections(clients) => clients.reset(),
            Audiences::Streams(streams) => streams.reset(),
        }
    }

    fn quiet(&mut self) {
        match self {
            Audiences::Connections(clients) => clients.quiet(),
            Audiences::Streams(streams) => streams.quiet(),
        }
    }

    fn deliveries(&self) -> u64 {
        match self {
            Audiences::Connections(clients) => clients.deliveries(),
            Audiences::Streams(streams) => streams.deliveries(),
        }
    }

    /// How many connections all have together.
    fn connections(&self) -> usize {
        match self {
            Audiences::Connections(_) => STREAMS,
            Audiences::Streams(streams) => streams.connections(),
        }
    }
}
