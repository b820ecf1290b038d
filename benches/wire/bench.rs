//! How processes are compared: started beside each other, measured in turn.

use std::path::PathBuf;

use super::floor;
use super::process::{Peer, Setup, Subject, Who};
use super::report::{Figure, Report, Spec};
use crate::Transport;

/// How often all processes of a case are started anew: where their memory lies is another matter of luck each time.
const SEATINGS: usize = 2;

/// How processes of a case are compared.
#[derive(Clone, Debug)]
pub struct Plan {
    pub setup: Setup,
    /// How often each is measured.
    pub runs: usize,
    /// What the relay is compared with: mostly the floor, else the relay itself in other circumstances.
    pub base: Option<Who>,
    /// Whether peers are.
    pub peers: bool,
}

impl Plan {
    /// Relay and floor, so often.
    pub fn new(setup: Setup, runs: usize) -> Plan {
        Plan {
            setup,
            runs,
            base: Some(Who::Floor),
            peers: false,
        }
    }

    /// Relay, floor and peers with nothing but clients of this transport; a peer knows Server-Sent Events alone.
    pub fn of(transport: Transport, runs: usize) -> Plan {
        let setup = Setup {
            floor: floor::Options {
                transport,
                ..floor::Options::default()
            },
            ..Setup::default()
        };
        Plan {
            peers: transport == Transport::Sse,
            ..Plan::new(setup, runs)
        }
    }

    /// The relay beside this, or alone.
    pub fn beside(self, base: Option<Who>) -> Plan {
        Plan { base, ..self }
    }
}

/// What one run has shown: a value for each figure of the case.
#[derive(Clone, Debug)]
pub struct Sample<const N: usize> {
    pub values: [f64; N],
    /// What is worth a remark.
    pub also: String,
}

impl<const N: usize> From<[f64; N]> for Sample<N> {
    fn from(values: [f64; N]) -> Sample<N> {
        Sample {
            values,
            also: String::new(),
        }
    }
}

/// What all cases share.
pub struct Bench {
    pub report: Report,
    pub peers: Vec<Peer>,
    /// What names of cases that are wanted begin with; all are if there is none.
    pub names: Vec<String>,
    /// Where pictures go, if any are wanted.
    pub plots: Option<PathBuf>,
    /// How many files a process may have open.
    pub files: usize,
}

impl Bench {
    /// Whether the case of this name is to be measured.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }

    /// Measures base, relay and peers in turn: `open` prepares each after its start, `run` measures it once.
    ///
    /// All are there at the same time, each behind a server of its own, and only the one that is measured has anything to
    /// do. So runs that are compared are a second apart.
    pub fn compare<S, const N: usize>(
        &mut self,
        specs: &[Spec; N],
        plan: &Plan,
        open: impl Fn(&Subject) -> S,
        run: impl Fn(&Subject, &mut S) -> Sample<N>,
    ) {
        let mut all: Vec<Who> = plan.base.iter().cloned().collect();
        let bases = all.len();
        all.push(Who::Relay);
        if plan.peers {
            all.extend(self.peers.iter().cloned().map(Who::Peer));
        }
        let mut samples: Vec<Vec<Sample<N>>> = vec![Vec::new(); all.len()];
        let seatings = SEATINGS.min(plan.runs);
        for seating in 0..seatings {
            let mut seats: Vec<(Subject, S)> = all
                .iter()
                .enumerate()
                .map(|(number, who)| {
                    let mut subject = Subject::start(who, &plan.setup);
                    subject.is_base = number < bases;
                    let state = open(&subject);
                    (subject, state)
                })
                .collect();
            let until = plan.runs * (seating + 1) / seatings;
            while samples[0].len() < until {
                for ((subject, state), samples) in seats.iter_mut().zip(&mut samples) {
                    samples.push(run(subject, state));
                }
            }
        }
        let (base, others) = samples.split_at(bases);
        for (number, spec) in specs.iter().enumerate() {
            for (who, samples) in all[bases..].iter().zip(others) {
                let mut base = base.iter().flatten().map(|sample| sample.values[number]);
                let runs = samples
                    .iter()
                    .map(|sample| (base.next(), sample.values[number]))
                    .collect();
                let name = match who {
                    Who::Peer(peer) => &peer.name,
                    _ => "keyrelay",
                };
                let also = if number == 0 { middle(samples) } else { String::new() };
                self.report.add(Figure::new(spec, name, runs, also));
            }
        }
    }
}

/// The remark of the sample in the middle.
fn middle<const N: usize>(samples: &[Sample<N>]) -> String {
    let mut sorted: Vec<&Sample<N>> = samples.iter().collect();
    sorted.sort_by(|a, b| a.values[0].total_cmp(&b.values[0]));
    sorted[sorted.len() / 2].also.clone()
}
