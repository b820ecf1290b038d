//! What will be done in one schedule, all of it made from a seed before anything begins.

use std::time::Duration;

use keyrelay::switches::Switch;

use super::choose::{Patience, choose};
use super::faults::Fault;
use super::keys::{KEYS, is_events};
use super::rng::Rng;
use super::stand::Kind;
use super::wire::Transport;
use super::writes::{Write, Writer};

/// Writers of each schedule; each owns its share of the keys.
const WRITERS: usize = 3;

/// Writes of each writer: together more than two hundred.
const WRITES: usize = 75;

pub struct Schedule {
    pub seed: u64,
    /// What it is to be run on.
    pub kind: Kind,
    pub focus: Option<Switch>,
    pub length: Duration,
    pub writers: Vec<Vec<(Duration, Write)>>,
    pub faults: Vec<(Duration, Fault)>,
    pub subscribers: Vec<Script>,
}

/// What one subscriber does.
#[derive(Clone, Debug)]
pub struct Script {
    pub transport: Transport,
    pub relay: usize,
    pub channels: Vec<String>,
    pub narrow: bool,
    pub acts: Vec<(Duration, Act)>,
}

#[derive(Clone, Debug)]
pub enum Act {
    /// Goes away and comes back with its cursor, or as a page that knows nothing; to the other relay perhaps.
    Drop { away: Duration, other: bool, forget: bool },
    /// Comes back with its cursor, but for another list.
    Change(Vec<String>),
    /// Reads nothing for a while.
    Stall(Duration),
    /// Reads slowly for a while.
    Crawl(Duration),
    /// Adds a channel on the connection that it has (WebSocket).
    Add(String),
    /// Takes a channel out (WebSocket).
    Remove(String),
}

impl Schedule {
    /// The schedule of a seed. `focus`: with more of what shows that this mechanism is missing. `patient`: now and then something
    /// that takes more than ten seconds.
    pub fn new(seed: u64, focus: Option<Switch>, patient: bool) -> Schedule {
        let kind = Kind::of(seed, focus);
        let mut rng = Rng(seed);
        let long = patient && focus.is_none() && rng.percent(2);
        let fat = focus.is_none() && rng.percent(8);
        let length = match (long, focus) {
            (true, _) => rng.ms(13_000..14_000),
            (false, None) if rng.percent(10) => rng.ms(2_500..3_500),
            (false, _) => rng.ms(700..1_500),
        };
        let mut own = rng.fork();
        let writers = (0..WRITERS).map(|n| writes(&mut own, n, length, fat, focus)).collect();
        let mut own = rng.fork();
        let patience = match (long, patient) {
            (true, _) => Patience::Long,
            (false, true) => Patience::Some,
            (false, false) => Patience::Short,
        };
        let faults = choose(&mut own, kind, length, patience, focus);
        let mut own = rng.fork();
        let count = own.between(8..12) as usize;
        let mut subscribers: Vec<Script> = (0..count).map(|_| script(&mut own, length, fat, focus)).collect();
        if !subscribers
            .iter()
            .any(|script| script.acts.iter().any(|(_, act)| act.resumes()))
        {
            let act = Act::Drop {
                away: Duration::from_millis(50),
                other: false,
                forget: false,
            };
            subscribers[0].acts.push((length, act));
        }
        Schedule {
            seed,
            kind,
            focus,
            length,
            writers,
            faults,
            subscribers,
        }
    }

    /// What does this schedule again.
    pub fn name(&self) -> String {
        let focus = Switch::NAMED.iter().find(|(_, switch)| Some(*switch) == self.focus);
        let focus = focus.map(|(name, _)| format!(":{name}")).unwrap_or_default();
        format!("{:016x}{focus}", self.seed)
    }

    /// Faults and subscribers, a line each.
    pub fn describe(&self) -> String {
        let mut text = format!("  {:?}, {} ms, {WRITERS} writers\n", self.kind, self.length.as_millis());
        for (at, fault) in &self.faults {
            text.push_str(&format!("  {:>5} ms {fault:?}\n", at.as_millis()));
        }
        for (n, script) in self.subscribers.iter().enumerate() {
            text.push_str(&format!("  subscriber {n}: {script:?}\n"));
        }
        text
    }
}

impl Act {
    fn resumes(&self) -> bool {
        matches!(self, Act::Drop { forget: false, .. } | Act::Change(_))
    }
}

fn writes(rng: &mut Rng, n: usize, length: Duration, fat: bool, focus: Option<Switch>) -> Vec<(Duration, Write)> {
    let mut writer = Writer::new((n..KEYS.len()).step_by(WRITERS).collect(), fat);
    let mut at: Vec<Duration> = (0..WRITES + rng.index(40)).map(|_| moment(rng, length)).collect();
    // Two of the same millisecond are one behind the other.
    at.sort_unstable();
    let mut writes = Vec::new();
    for at in at {
        let write = match focus {
            Some(Switch::Watermark | Switch::LowestFirst) if rng.percent(60) => writer.burst(rng),
            _ => writer.any(rng),
        };
        writes.push((at, write));
        if focus == Some(Switch::ReadAgain) {
            // The same key at once again: the first is being read when the second comes.
            let key = rng.index(64);
            writes.extend([1, 2, 4].map(|later| (at + Duration::from_millis(later), writer.plain(key))));
        }
    }
    if rng.percent(15) {
        // A key that never rests.
        let key = rng.index(64);
        for ms in (0..length.as_millis() as u64).step_by(5) {
            writes.push((Duration::from_millis(ms), writer.plain(key)));
        }
    }
    writes.sort_by_key(|(at, _)| *at);
    writes
}

fn moment(rng: &mut Rng, length: Duration) -> Duration {
    Duration::from_micros(rng.between(0..length.as_micros() as u64))
}

fn script(rng: &mut Rng, length: Duration, fat: bool, focus: Option<Switch>) -> Script {
    let transport = rng.pick(&[Transport::Sse, Transport::Ws]);
    let mut channels = list(rng, focus);
    let narrow = fat && rng.percent(60) || rng.percent(20);
    let relay = if rng.percent(70) { 0 } else { 1 };
    let mut acts = Vec::new();
    let first = channels.clone();
    for _ in 0..rng.between(0..4) {
        let at = moment(rng, length);
        acts.push((at, act(rng, transport, &mut channels, focus)));
    }
    // In the order of the lists that they make.
    let mut moments: Vec<Duration> = acts.iter().map(|(at, _)| *at).collect();
    moments.sort_unstable();
    acts.iter_mut().zip(moments).for_each(|(act, at)| act.0 = at);
    Script {
        transport,
        relay,
        channels: first,
        narrow,
        acts,
    }
}

fn list(rng: &mut Rng, focus: Option<Switch>) -> Vec<String> {
    let mut all: Vec<&String> = KEYS
        .iter()
        .flat_map(|key| key.state.iter().chain(&key.events))
        .collect();
    all.sort_unstable();
    all.dedup();
    let many = matches!(focus, Some(Switch::Watermark | Switch::LowestFirst));
    let count = match rng.between(0..10) {
        _ if many => rng.between(20..30),
        0..=3 => 1,
        4..=6 => 2,
        7..=8 => rng.between(3..6),
        _ => rng.between(8..20),
    };
    let mut channels = Vec::new();
    while channels.len() < count as usize {
        let channel = channel(rng, &all);
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    channels
}

fn channel(rng: &mut Rng, all: &[&String]) -> String {
    let many: Vec<&String> = all
        .iter()
        .copied()
        .filter(|name| !name.contains(':') || name.starts_with("room:") || is_events(name))
        .collect();
    let from = if rng.percent(50) { &many } else { all };
    rng.pick(from).clone()
}

fn act(rng: &mut Rng, transport: Transport, channels: &mut Vec<String>, focus: Option<Switch>) -> Act {
    let other = |rng: &mut Rng| match focus {
        Some(Switch::Epoch) => rng.percent(90),
        Some(_) => false,
        None => rng.percent(30),
    };
    let away = match focus {
        Some(Switch::CompleteFrom) => rng.ms(200..500),
        _ => rng.pick(&[5, 30, 100, 300, 600].map(Duration::from_millis)),
    };
    let change = if focus == Some(Switch::Set) { 60 } else { 10 };
    match rng.weighted(&[(50, 0), (change, 1), (12, 2), (12, 3), (10, 4), (6, 5)]) {
        1 => {
            let mut list = list(rng, focus);
            // Something of the old list is in the new one, or there would be nothing to get wrong.
            if !list.contains(&channels[0]) {
                list.push(channels[0].clone());
            }
            channels.clone_from(&list);
            Act::Change(list)
        }
        2 => Act::Stall(rng.ms(50..500)),
        3 => Act::Crawl(rng.ms(50..500)),
        4 if transport == Transport::Ws => {
            let mut new = list(rng, focus);
            new.retain(|name| !channels.contains(name));
            match new.pop() {
                Some(new) => {
                    channels.push(new.clone());
                    Act::Add(new)
                }
                None => Act::Stall(away),
            }
        }
        5 if transport == Transport::Ws && channels.len() > 1 => {
            let place = rng.index(channels.len());
            Act::Remove(channels.remove(place))
        }
        _ => Act::Drop {
            away,
            other: other(rng),
            forget: focus.is_none() && rng.percent(15),
        },
    }
}
