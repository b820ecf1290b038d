//! Random schedules of writes, events, losses, replies in any order, subscribers and reloads: at rest every log shows the
//! server.

use std::collections::HashMap;

use super::super::entries::{KeyEntry, State};
use super::super::node::Node;
use super::*;

const KEYS: [&str; 8] = ["k:1", "k:2", "k:3", "m:1:a", "m:1:b", "m:2:a", "m:2:b", "m:2:c"];
const CHANNELS: [&str; 7] = ["k:1", "k:2", "k:3", "all", "room:1", "room:2", "room:3"];
const MAPPINGS: [(&str, &str); 3] = [
    ("k:{id}", "k:{id}"),
    ("k:{id}", "all"),
    ("m:{room}:{id}", "room:{room}"),
];

/// Whether the mappings send this key to this channel.
fn belongs(key: &str, channel: &str) -> bool {
    match key.strip_prefix("m:") {
        Some(rest) => channel.strip_prefix("room:") == rest.split(':').next(),
        None => key == channel || channel == "all",
    }
}

/// What the server has said and the feed has not yet heard.
enum Said {
    Event(&'static str, &'static str),
    Flush,
    /// What this plan asks for is confirmed.
    Hears(u64),
}

struct Subscriber {
    channel: &'static str,
    client: Client,
    picture: BTreeMap<String, String>,
    /// The newest version seen of each key: none older may follow.
    newest: HashMap<String, u64>,
}

struct Model {
    world: World,
    random: u64,
    version: u64,
    /// For each node what it has said, while it is heard.
    said: Vec<Option<VecDeque<Said>>>,
    /// Where the slots are that the mirror was not told of yet.
    moved: Option<Slots>,
    expiries: HashMap<&'static str, Instant>,
    /// The ids that the mappings have now, and the plan with which each came.
    mappings: [(u32, u64); 3],
    /// The greatest of both.
    last: (u32, u64),
    /// The plan that the feed of each node hears, or heard last.
    heard: Vec<u64>,
    subscribers: Vec<Subscriber>,
}

impl Model {
    /// A schedule with so many nodes.
    fn new(seed: u64, nodes: u16) -> Model {
        let mut model = Model {
            world: World::away(&MAPPINGS),
            random: seed,
            version: 0,
            said: (0..nodes).map(|_| None).collect(),
            moved: None,
            expiries: HashMap::new(),
            mappings: [(0, 0), (1, 0), (2, 0)],
            last: (2, 0),
            heard: vec![0; nodes.into()],
            subscribers: Vec::new(),
        };
        if nodes > 1 {
            model.world.share_out(nodes);
        }
        model
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) as usize) % limit
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.below(KEYS.len())]
    }

    /// Changes a key, without a word.
    fn change(&mut self, key: &'static str) -> &'static str {
        self.expiries.remove(key);
        if self.below(4) == 0 {
            self.world.keys.remove(key);
            return "del";
        }
        self.version += 1;
        let value = Value::String(Bytes::from(self.version.to_string()));
        self.world.keys.insert(key, (value, None));
        if self.below(4) == 0 {
            let after = Duration::from_millis(self.below(200) as u64);
            self.expiries.insert(key, self.world.now.mono + after);
        }
        "set"
    }

    /// Lets keys expire, also without a word, and tells the others how long they have.
    fn expire(&mut self) {
        let now = self.world.now.mono;
        for (key, at) in &self.expiries {
            if *at <= now {
                self.world.keys.remove(key);
            } else if let Some(held) = self.world.keys.get_mut(key) {
                held.1 = Some(*at - now);
            }
        }
        self.expiries.retain(|_, at| *at > now);
    }

    /// Any node.
    fn node(&mut self) -> usize {
        self.below(self.said.len())
    }

    /// The server says something to whoever hears it.
    fn say(&mut self, node: usize, said: Said) {
        if let Some(queue) = &mut self.said[node] {
            queue.push_back(said);
        }
    }

    fn say_event(&mut self, key: &'static str, event: &'static str) {
        let owner = self.world.owners.of(key.as_bytes());
        self.say(usize::from(owner.0), Said::Event(key, event));
    }

    /// The feed of a node hears the first thing that was said.
    fn hear(&mut self, node: usize) {
        match self.said[node].as_mut().and_then(VecDeque::pop_front) {
            // The server sends what is subscribed to.
            Some(Said::Event(key, event)) if self.is_heard(node, key) => self.world.event(key, event),
            Some(Said::Event(..)) => {}
            Some(Said::Hears(plan)) => {
                self.heard[node] = plan;
                self.world.intake.ear(NodeId(node as u16)).hears(plan);
            }
            Some(Said::Flush) => self.world.intake.ear(NodeId(node as u16)).flushed(Cause::Signal),
            None => {}
        }
    }

    /// The feed of a node hears again.
    fn up(&mut self, node: usize) {
        self.said[node] = Some(VecDeque::new());
        self.world.node_up(NodeId(node as u16));
        self.heard[node] = self.last.1;
        self.world.intake.ear(NodeId(node as u16)).hears(self.last.1);
    }

    /// Whether a node's feed hears of any mapping that takes this key.
    fn is_heard(&self, node: usize, key: &str) -> bool {
        let takes = |pattern: &str| key.starts_with(&pattern[..2]);
        let mut mappings = MAPPINGS.iter().zip(self.mappings);
        mappings.any(|((pattern, _), (_, plan))| takes(pattern) && plan <= self.heard[node])
    }

    /// Other mappings: one of them is a new one, though it looks like the one before, and all stand in another order. What it
    /// needs is heard by another plan, or already.
    fn reload(&mut self) {
        let (which, turn) = (self.below(2 * MAPPINGS.len()), self.below(MAPPINGS.len()));
        if let Some(mapping) = self.mappings.get_mut(which) {
            self.last.0 += 1;
            *mapping = (self.last.0, mapping.1);
        }
        if which < MAPPINGS.len() && self.below(2) == 0 {
            self.last.1 += 1;
            self.mappings[which].1 = self.last.1;
        }
        let linger = Duration::from_secs(self.below(60) as u64);
        let rules = MAPPINGS
            .iter()
            .zip(self.mappings)
            .map(|((key, channel), (id, _))| Rule {
                linger,
                ..rule(id, key, channel)
            });
        let mut rules: Vec<Rule> = rules.collect();
        rules.rotate_left(turn);
        self.world.revise_by(rules, self.last.1);
        for node in 0..self.said.len() {
            self.say(node, Said::Hears(self.last.1));
        }
        let is_open = |subscriber: &Subscriber| subscriber.client.subscription.log().view().ended().is_none();
        self.subscribers.retain(is_open);
        // Who was ended comes back.
        while self.subscribers.len() < 3 {
            self.subscribe();
        }
    }

    /// Changes keys of a node without events.
    fn change_unheard(&mut self, node: usize) {
        for _ in 0..3 {
            let key = self.key();
            if usize::from(self.world.owners.of(key.as_bytes()).0) == node {
                self.change(key);
            }
        }
    }

    /// Slots move; their keys say so like any that go and come.
    fn move_slots(&mut self) {
        self.tell_slots();
        let seed = self.below(1000) as u16;
        let nodes = self.said.len() as u16;
        let slots: Slots = (0..slots::COUNT)
            .map(|slot| NodeId((slot % 7 * seed) % nodes))
            .collect();
        let held: Vec<&'static str> = self.world.keys.keys().copied().collect();
        for key in &held {
            self.say_event(key, "del");
        }
        self.world.own(slots.clone());
        for key in &held {
            self.say_event(key, "restore");
        }
        self.moved = Some(slots);
    }

    /// The mirror is told where the slots are.
    fn tell_slots(&mut self) {
        if let Some(slots) = self.moved.take() {
            self.world.intake.slots(slots);
        }
    }

    /// Answers any read in flight, or fails it.
    fn reply(&mut self) {
        if self.world.reads.is_empty() {
            return;
        }
        let at = self.below(self.world.reads.len());
        let (node, flight, mut results) = self.world.reads.remove(at).unwrap();
        if self.below(6) == 0 {
            let kinds = [
                ReadErrorKind::NoPermission,
                ReadErrorKind::Loading,
                ReadErrorKind::Timeout,
            ];
            let kind = kinds[self.below(kinds.len())];
            let from = self.below(results.len());
            for result in &mut results[from..] {
                *result = Err(error(kind));
            }
        }
        self.world.mirror.replied(node, flight, results, self.world.now);
    }

    fn subscribe(&mut self) {
        let channel = CHANNELS[self.below(CHANNELS.len())];
        let client = self.world.subscribe(channel);
        self.subscribers.push(Subscriber {
            channel,
            client,
            picture: BTreeMap::new(),
            newest: HashMap::new(),
        });
    }

    fn act(&mut self) {
        match self.below(40) {
            0..10 => {
                let key = self.key();
                let event = self.change(key);
                self.say_event(key, event);
            }
            10..20 => {
                let node = self.node();
                self.hear(node);
            }
            20..27 => self.reply(),
            27 if !self.world.pages.is_empty() => self.world.answer_page(),
            29..32 if self.subscribers.len() < 6 => self.subscribe(),
            32 if !self.subscribers.is_empty() => {
                let at = self.below(self.subscribers.len());
                self.subscribers.swap_remove(at);
            }
            34 => {
                let node = self.node();
                self.change_unheard(node);
                self.say(node, Said::Flush);
            }
            35 => {
                let node = self.node();
                if self.said[node].take().is_some() {
                    self.world.intake.ear(NodeId(node as u16)).lost(&LostReason::Closed);
                    self.world.step();
                }
                self.change_unheard(node);
            }
            36 => {
                let node = self.node();
                if self.said[node].is_none() {
                    // All nodes of a world have the same.
                    if self.said.len() == 1 {
                        self.world.run_id = ["one", "two"][self.below(2)];
                    }
                    self.up(node);
                }
            }
            37 if self.below(4) == 0 => {
                let node = NodeId(self.node() as u16);
                self.world.mirror.unlinked(node, self.world.now);
            }
            38 => {
                let node = self.node();
                let late = self.below(2) == 0 && self.said[node].is_some();
                self.world.intake.ear(NodeId(node as u16)).late(late);
            }
            28 if self.said.len() > 1 && self.below(4) == 0 => self.move_slots(),
            33 => self.tell_slots(),
            39 if self.below(8) == 0 => self.world.pass(31_000),
            39 => self.reload(),
            _ => {
                let time = self.below(30) as u64;
                self.world.pass(time);
            }
        }
        self.expire();
        self.world.step();
        self.look();
    }

    /// Every subscriber takes what is new.
    fn look(&mut self) {
        for subscriber in &mut self.subscribers {
            for news in subscriber.client.news(&self.world) {
                let Some((key, value)) = news.split_once('=') else {
                    continue;
                };
                let value = value.split('!').next().unwrap();
                assert!(
                    belongs(key, subscriber.channel),
                    "{key} is not of {}",
                    subscriber.channel
                );
                if value == "-" {
                    subscriber.picture.remove(key);
                    continue;
                }
                let version: u64 = value.parse().unwrap();
                let newest = subscriber.newest.entry(key.into()).or_default();
                assert!(version >= *newest, "{key} went back from {newest} to {version}");
                *newest = version;
                subscriber.picture.insert(key.into(), value.into());
            }
        }
    }

    /// Calms everything down.
    fn rest(&mut self) {
        self.tell_slots();
        for node in 0..self.said.len() {
            if self.said[node].is_none() {
                self.up(node);
            }
            while self.said[node].as_ref().is_some_and(|said| !said.is_empty()) {
                self.hear(node);
            }
            self.world.intake.ear(NodeId(node as u16)).late(false);
        }
        for _ in 0..100 {
            self.expire();
            self.world.pass(50);
            while !self.world.reads.is_empty() {
                self.world.answer();
            }
            while !self.world.pages.is_empty() {
                self.world.answer_page();
            }
        }
        self.look();
    }

    fn check(&self) {
        for subscriber in &self.subscribers {
            let expected: BTreeMap<String, String> = (self.world.keys.iter())
                .filter(|(key, _)| belongs(key, subscriber.channel))
                .map(|(key, (value, _))| match value {
                    Value::String(value) => (key.to_string(), String::from_utf8(value.to_vec()).unwrap()),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(subscriber.picture, expected, "channel {}", subscriber.channel);
            let view = subscriber.client.subscription.log().view();
            assert!(
                view.is_filled(self.world.hub.watermark()),
                "channel {}",
                subscriber.channel
            );
            assert!(view.stale().is_none(), "channel {}", subscriber.channel);
            assert_eq!(view.len(), expected.len(), "channel {}", subscriber.channel);
        }
        let mirror = &self.world.mirror;
        let idle = |node: &Node| node.flights.is_empty() && node.queue.is_empty();
        assert!(mirror.nodes.iter().all(idle));
        for log in mirror.logs.values().filter(|log| log.lingering.is_none()) {
            assert!(log.is_whole() && log.failing == 0, "{log:?}");
        }
        let shown = |entry: &KeyEntry| entry.uses.iter().any(|each| each.last.is_some());
        let outdated = |log: &u64| mirror.logs[log].parts.iter().any(|part| part.outdated);
        let outdated = |entry: &KeyEntry| entry.uses.iter().any(|each| outdated(&each.log));
        for entry in mirror.keys.values() {
            let kept = shown(entry) || entry.state == State::Deferred || outdated(entry);
            assert!(kept, "no slot shows this, and nobody will read it: {entry:?}");
        }
    }
}

/// Plays as many schedules as `KEYRELAY_SCHEDULES` says, 300 if it says nothing.
#[test]
fn at_rest_every_log_shows_the_server() {
    let schedules: u64 = std::env::var("KEYRELAY_SCHEDULES").map_or(300, |text| text.parse().unwrap());
    for seed in 0..schedules {
        let played = std::panic::catch_unwind(|| {
            // Every other schedule has several nodes.
            let mut model = Model::new(seed, if seed % 2 == 0 { 1 } else { 3 });
            for _ in 0..3 {
                for _ in 0..200 {
                    model.act();
                }
                model.rest();
                model.check();
            }
        });
        assert!(played.is_ok(), "the schedule of seed {seed} failed");
    }
}
