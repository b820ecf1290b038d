//! How the cost of a delivery and its latency grow with everything that can grow.

use std::time::Duration;

use super::latency::{percentile, waits};
use crate::Transport;
use crate::bench::{Bench, Plan, Sample};
use crate::load::{Audience, Clients};
use crate::plot::{self, Curve, Panel};
use crate::process::{Setup, Subject};
use crate::report::{Figure, Most, Spec};
use crate::writer::{SIZE, Writer};

/// Runs of each point.
const RUNS: usize = 4;

/// How long a run is.
const RUN: Duration = Duration::from_millis(1_500);

/// Deliveries a second at most, so that neither the relay nor the clients are at their limits.
const DELIVERIES: f64 = 15_000.0;

/// Messages a second at most, unless their rate is what grows.
const RATE: f64 = 200.0;

/// Bytes that are delivered a second, at most.
const BYTES: f64 = 5e7;

/// Files that are open besides connections.
const OTHER_FILES: usize = 1_000;

/// More than the defaults allow.
const ROOM: &str = "max_channels = 200_000\n[limits]\nconnections = 100_000\n";

/// A point of a curve.
#[derive(Clone, Copy)]
struct Point {
    clients: usize,
    channels: usize,
    mappings: usize,
    size: usize,
    /// Messages a second; as many as seem right if it is not said.
    rate: Option<u32>,
}

/// From where each axis goes.
const MIDDLE: Point = Point {
    clients: 100,
    channels: 1,
    mappings: 1,
    size: SIZE,
    rate: None,
};

/// Something that grows.
struct Axis {
    name: &'static str,
    /// Under its curves.
    says: &'static str,
    values: &'static [usize],
    point: fn(usize) -> Point,
}

const AXES: [Axis; 5] = [
    Axis {
        name: "subscribers",
        says: "subscribers of one channel",
        values: &[1, 10, 100, 1_000, 10_000, 50_000],
        point: |clients| Point { clients, ..MIDDLE },
    },
    Axis {
        name: "channels",
        says: "channels of 1,000 subscribers",
        values: &[1, 10, 100, 1_000, 10_000, 100_000],
        point: |channels| Point {
            clients: 1_000,
            channels,
            ..MIDDLE
        },
    },
    Axis {
        name: "mappings",
        says: "mappings",
        values: &[10, 100, 1_000, 10_000],
        point: |mappings| Point { mappings, ..MIDDLE },
    },
    Axis {
        name: "rate",
        says: "messages a second, to 3 subscribers",
        values: &[10, 100, 1_000, 5_000],
        point: |rate| Point {
            clients: 3,
            rate: Some(rate as u32),
            ..MIDDLE
        },
    },
    Axis {
        name: "size",
        says: "bytes of a value, to 100 subscribers",
        values: &[21, 200, 2_000, 20_000, 100_000],
        point: |size| Point { size, ..MIDDLE },
    },
];

/// Measures each axis, and draws it if that is wanted.
pub fn run(bench: &mut Bench) {
    for axis in &AXES {
        let of_axis = format!("growth/{}", axis.name);
        for &value in axis.values {
            let name = format!("{of_axis}/{value}");
            let point = (axis.point)(value);
            if !bench.wants(&name) {
                continue;
            }
            // Each process has so many, and each run clients of its own.
            if bench.files < point.clients + OTHER_FILES {
                bench
                    .report
                    .skip(&name, "too few files may be open; root may raise that");
                continue;
            }
            measure(bench, &name, point);
        }
        if let Some(folder) = &bench.plots {
            draw(axis, &bench.report.figures, &folder.join(format!("{}.svg", axis.name)));
        }
    }
}

impl Point {
    fn audience(self) -> Audience {
        Audience {
            // Who has more channels than clients has several of each.
            each: (self.channels / self.clients).max(1),
            ..Audience::new(Transport::Sse, self.clients, self.channels)
        }
    }

    fn rate(self) -> u32 {
        let each = self.audience().each_message();
        let most = RATE.min(DELIVERIES / each).min(BYTES / each / self.size as f64);
        self.rate.unwrap_or(most as u32).max(1)
    }
}

fn measure(bench: &mut Bench, name: &str, point: Point) {
    let specs = [
        Spec::new(format!("{name}/cost"), "µs a delivery", Most::Anything),
        Spec::new(format!("{name}/latency"), "µs to the last, p50", Most::Anything),
    ];
    let mut setup = Setup {
        server: ROOM.to_owned(),
        ..Setup::default()
    };
    for number in 1..point.mappings {
        let mapping = format!("[[mapping]]\nkey = \"m{number:04}:{{id}}\"\naccess = \"public\"\n");
        setup.mappings.push_str(&mapping);
    }
    let (audience, rate) = (point.audience(), point.rate());
    // How many receive a message, where all channels have as many; else nobody asks when the last one had it.
    let receivers = audience.each_message().round() as usize;
    let run = |subject: &Subject, (): &mut ()| {
        // Only for this run: there would be too few files for those of all processes.
        let mut writer = Writer::of_size(&subject.server, point.channels, point.size);
        let mut clients = Clients::connect(&subject.door, audience);
        clients.until_all_have_one(&mut writer);
        clients.flow(&mut writer, rate, RUN / 4);
        clients.quiet();
        clients.reset();
        clients.note();
        let before = subject.processor_time();
        let written = clients.flow(&mut writer, rate, RUN);
        clients.quiet();
        let spent = subject.processor_time() - before;
        let deliveries = clients.deliveries().max(1) as f64;
        let skipped = 1.0 - deliveries / (written as f64 * audience.each_message());
        Sample {
            values: [
                spent.as_secs_f64() * 1e6 / deliveries,
                percentile(&waits(&mut clients, receivers), 50),
            ],
            also: format!("{rate} messages/s, {:.1} % skipped", 100.0 * skipped),
        }
    };
    bench.compare(&specs, &Plan::new(setup, RUNS), |_| (), run);
}

/// Draws what was measured of an axis, if there is enough for a line.
fn draw(axis: &Axis, figures: &[Figure], file: &std::path::Path) {
    let panel = |what: &str, title: &str| {
        let of = |value: &usize| {
            let name = format!("growth/{}/{value}/{what}", axis.name);
            let figure = figures.iter().find(|figure| figure.name == name)?;
            Some((*value as f64, figure.floor?, figure.relay))
        };
        let points: Vec<(f64, f64, f64)> = axis.values.iter().filter_map(of).collect();
        let floor = points.iter().map(|&(value, floor, _)| (value, floor)).collect();
        let relay = points.iter().map(|&(value, _, relay)| (value, relay)).collect();
        Panel {
            title: title.to_owned(),
            across: axis.says.to_owned(),
            curves: vec![
                Curve {
                    name: "floor",
                    colour: "#d97706",
                    points: floor,
                },
                Curve {
                    name: "keyrelay",
                    colour: "#3b82f6",
                    points: relay,
                },
            ],
        }
    };
    let panels = [
        panel("cost", "processor time of a delivery, µs"),
        panel("latency", "until the last one has it, µs, p50"),
    ];
    if panels.iter().all(|panel| panel.curves[0].points.len() > 1) {
        plot::write(file, &panels).expect("the folder can be written to");
    }
}
