//! A scripted world around the mirror: a server of a few keys, whose replies come when the test says so.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::channels::{Catalog, Table};
use super::entries::Now;
use super::intake::{Intake, MAX_DIRTY, Shared};
use super::limits::Limits;
use super::mirror::Mirror;
use super::node::Owners;
use super::reads::{BATCH_BYTES, Batch};
use super::revise::Revision;
use super::rule::Rule;
use super::scan::Page;
use super::taken::Taken;
use crate::hub::{self, Body, Hub, Mode, Retention, Subscription, Way};
use crate::keyspace::{EventName, Value};
use crate::mapping::MappingId;
use crate::pattern::{KeyPattern, Subject};
use crate::payload::{Decode, Format, Options, Renderer};
use crate::upstream::feed::{Cause, KeyEvent, Listener, LostReason};
use crate::upstream::reader::{Cursor, ReadError, ReadErrorKind, Reading, ScanPage};
use crate::upstream::topology::Ears;
use crate::upstream::topology::slots::{self, Slots};
use crate::upstream::{Address, Endpoint, NodeId, ServerInfo};

mod expiry;
mod happenings;
mod limits;
mod losses;
mod model;
mod nodes;
mod passes;
mod published;
mod refusals;
mod reports;
mod revisions;
mod silent;
mod state;
mod verify;

/// What a batch of reads is answered with.
type Answers = Vec<Result<Reading, ReadError>>;

/// The only node.
const NODE: NodeId = NodeId::FIRST;

const LINGER: Duration = Duration::from_secs(30);

/// One mapping; `mode` is state unless the channel begins with `log`. What begins with `pub` is a topic.
pub(super) fn rule(id: u32, key: &str, channel: &str) -> Rule {
    let pattern = KeyPattern::parse(key).unwrap();
    let subject = match key.starts_with("pub") {
        true => Subject::Topics,
        false => Subject::Keys,
    };
    let options = Options {
        format: Format::Json,
        decode: Decode::None,
        fields: None,
        expires: false,
        heard: false,
        max_value: 1000,
    };
    Rule {
        id: MappingId(id),
        payload: Renderer::new(options, pattern.captures()).unwrap(),
        subject,
        pattern,
        channel: crate::pattern::ChannelTemplate::parse(channel).unwrap(),
        access: vec![Way::Public],
        mode: if channel.starts_with("log") {
            Mode::Events
        } else {
            Mode::State
        },
        on: None,
        event_name: None,
        linger: LINGER,
        snapshot: true,
        retain: Retention {
            messages: 4,
            bytes: 1 << 20,
            age: Duration::from_secs(60),
        },
        max_value: 1000,
        min_interval: Duration::ZERO,
        poll: None,
        expires: false,
        file: Arc::from(Path::new("test.toml")),
        line: 1,
    }
}

/// Where a node is; its host is its number.
fn endpoint(node: NodeId) -> Endpoint {
    Endpoint {
        address: Address::Tcp {
            host: node.0.to_string(),
            port: 6379,
        },
        tls: None,
        db: 0,
        username: None,
        password: None,
        client_name: "keyrelay".into(),
    }
}

struct World {
    hub: Arc<Hub>,
    catalog: Catalog,
    mirror: Mirror,
    shared: Arc<Shared>,
    intake: Intake,
    now: Now,
    /// What the server holds.
    keys: BTreeMap<&'static str, (Value, Option<Duration>)>,
    run_id: &'static str,
    /// Which keys are whose in truth; the mirror may not have heard of it yet.
    owners: Owners,
    /// Reads that wait for their answers, with what the server held when they began.
    reads: VecDeque<(NodeId, u64, Answers)>,
    /// Pages that wait for their answers.
    pages: VecDeque<(NodeId, Page)>,
    /// Keys in the order in which they were read.
    asked: Vec<String>,
    /// Those that were thought to be gone.
    thought_gone: Vec<String>,
    /// Pages asked for.
    scanned: usize,
    /// Every read fails with this.
    broken: Option<ReadErrorKind>,
    /// A key that may not be read.
    denied: Option<&'static str>,
}

fn text(value: &'static str) -> Value {
    Value::String(Bytes::from_static(value.as_bytes()))
}

fn error(kind: ReadErrorKind) -> ReadError {
    ReadError {
        kind,
        message: "scripted".into(),
    }
}

impl World {
    /// A world whose server is heard and read, with some mappings.
    fn new(mappings: &[(&str, &str)]) -> World {
        let mut world = World::away(mappings);
        world.up();
        world
    }

    /// The same before the feed first hears.
    fn away(mappings: &[(&str, &str)]) -> World {
        let rules = (0..).zip(mappings).map(|(id, (key, channel))| rule(id, key, channel));
        World::of(rules.collect())
    }

    fn of(rules: Vec<Rule>) -> World {
        World::verifying(rules, None)
    }

    fn verifying(rules: Vec<Rule>, verify: Option<Duration>) -> World {
        World::limited(rules, verify, hub::Options::channels(1000), Limits::NONE)
    }

    fn limited(rules: Vec<Rule>, verify: Option<Duration>, options: hub::Options, limits: Limits) -> World {
        let stats = Arc::<super::Stats>::default();
        let table = Arc::new(Table::new(rules.into_iter().map(Arc::new).collect(), &stats).unwrap());
        let shared = Arc::new(Shared::new(table.clone(), stats));
        let catalog = Catalog::new(table.clone());
        let (hub, appender) = Hub::new(options, 1, catalog.clone());
        let intake = Intake::new(shared.clone(), MAX_DIRTY);
        let now = Now {
            mono: Instant::now(),
            wall: SystemTime::now(),
        };
        let mirror = Mirror::new(table, shared.clone(), appender, verify, limits, 7, now);
        World {
            hub,
            catalog,
            mirror,
            shared,
            intake,
            now,
            keys: BTreeMap::new(),
            run_id: "one",
            owners: Owners::One,
            reads: VecDeque::new(),
            pages: VecDeque::new(),
            asked: Vec::new(),
            thought_gone: Vec::new(),
            scanned: 0,
            broken: None,
            denied: None,
        }
    }

    /// Goes by other mappings, which are heard at once. Gives how many channels were ended.
    fn revise(&mut self, rules: Vec<Rule>) -> usize {
        let plan = self.mirror.nodes[NODE].plan;
        self.revise_by(rules, plan)
    }

    /// The same where what is new is heard by this plan only.
    fn revise_by(&mut self, rules: Vec<Rule>, plan: u64) -> usize {
        let revision = Revision {
            rules: rules.into_iter().map(Arc::new).collect(),
            plan,
            judge_again: false,
            also: Box::new(|| {}),
        };
        let ended = self.mirror.revise(&self.catalog, revision, self.now);
        self.step();
        ended.unwrap()
    }

    fn up(&mut self) {
        self.node_up(NODE);
    }

    fn node_up(&mut self, node: NodeId) {
        let server = ServerInfo {
            run_id: self.run_id.into(),
            version: "7".into(),
        };
        self.intake.ear(node).up(&server, &endpoint(node));
        self.step();
    }

    /// Spreads the slots over so many nodes.
    fn share_out(&mut self, nodes: u16) {
        self.own((0..slots::COUNT).map(|slot| NodeId(slot % nodes)).collect());
        if let Owners::Many(slots) = &self.owners {
            self.intake.slots(slots.clone());
        }
        self.step();
    }

    /// The slots are on these nodes from now on; nobody has heard of it yet.
    fn own(&mut self, slots: Slots) {
        self.owners = Owners::Many(slots);
    }

    fn lost(&mut self) {
        self.intake.lost(&LostReason::Closed);
        self.step();
    }

    /// The server's own side of a write: no event.
    fn hold(&mut self, key: &'static str, value: &'static str) {
        self.keys.insert(key, (text(value), None));
    }

    fn event(&mut self, key: &str, event: &str) {
        self.intake.events(&[KeyEvent {
            key: key.as_bytes(),
            event: Some(event.as_bytes()),
        }]);
    }

    fn set(&mut self, key: &'static str, value: &'static str) {
        self.hold(key, value);
        self.event(key, "set");
        self.step();
    }

    fn del(&mut self, key: &'static str) {
        self.keys.remove(key);
        self.event(key, "del");
        self.step();
    }

    fn subscribe(&mut self, name: &str) -> Client {
        let subscription = self.hub.subscribe(name, true).unwrap();
        self.step();
        Client { subscription, after: 0 }
    }

    /// What the loop does between two waits.
    fn step(&mut self) {
        let mut taken = Taken::default();
        self.mirror.interest(self.hub.interest(), self.now);
        self.shared.take(&mut taken);
        self.mirror.take(&mut taken, self.now);
        self.mirror.tick(self.now);
        for node in self.mirror.nodes.ids() {
            self.ask(node);
        }
        self.mirror.commit();
    }

    /// What the loop asks of a node.
    fn ask(&mut self, node: NodeId) {
        if !self.mirror.has_reader(node) {
            self.reads.retain(|read| read.0 != node);
            self.pages.retain(|page| page.0 != node);
        }
        if self.mirror.wants_reader(node).is_some() {
            self.mirror.linked(node, self.run_id, self.now);
        }
        while let Some(Batch { flight, requests }) = self.mirror.next_batch(node, self.now) {
            let mut results = Vec::new();
            for request in requests {
                let key = String::from_utf8(request.key.to_vec()).unwrap();
                let held = self.keys.get(key.as_str()).cloned();
                if request.probably_gone {
                    self.thought_gone.push(key.clone());
                }
                let (value, ttl) = held.unwrap_or((Value::Absent, None));
                results.push(match self.broken {
                    Some(kind) => Err(error(kind)),
                    None if self.denied == Some(key.as_str()) => Err(error(ReadErrorKind::NoPermission)),
                    None if self.owners.of(key.as_bytes()) != node => Err(error(ReadErrorKind::Other)),
                    None => Ok(Reading { value, ttl }),
                });
                self.asked.push(key);
            }
            self.reads.push_back((node, flight, results));
        }
        while let Some(page) = self.mirror.next_page(node, self.now) {
            self.scanned += 1;
            self.pages.push_back((node, page));
        }
    }

    /// Lets the oldest batch of reads be answered.
    fn answer(&mut self) {
        let (node, flight, results) = self.reads.pop_front().expect("a read is in flight");
        self.mirror.replied(node, flight, results, self.now);
        self.step();
    }

    /// Answers a page with all keys of the node.
    fn answer_page(&mut self) {
        let (node, page) = self.pages.pop_front().expect("a page is on its way");
        let keys = self.keys.keys().map(|key| key.as_bytes());
        let own = keys.filter(|key| self.owners.of(key) == node);
        let keys = own.map(Bytes::from_static).collect();
        let page_of = ScanPage { next: None, keys };
        self.mirror
            .scanned(node, page.pass, Ok(page_of), Duration::from_millis(1), self.now);
        self.step();
    }

    /// Answers everything until nothing is asked any more.
    fn run(&mut self) {
        loop {
            self.pass(2);
            if self.reads.is_empty() && self.pages.is_empty() {
                return;
            }
            if !self.reads.is_empty() {
                self.answer();
            }
            if !self.pages.is_empty() {
                self.answer_page();
            }
        }
    }

    /// Time passes.
    fn pass(&mut self, milliseconds: u64) {
        let time = Duration::from_millis(milliseconds);
        self.now = Now {
            mono: self.now.mono + time,
            wall: self.now.wall + time,
        };
        self.step();
    }

    fn asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }
}

/// A subscriber that remembers how far it has come.
struct Client {
    subscription: Subscription,
    after: u64,
}

impl Client {
    /// What is new: `key=value`, with `!event` if one is named, or a word.
    fn news(&mut self, world: &World) -> Vec<String> {
        let mut news = Vec::new();
        let watermark = world.hub.watermark();
        self.subscription.log().view().since(self.after, watermark, |message| {
            news.push(match &message.body {
                Body::Change(payload) => {
                    let json: serde_json::Value = serde_json::from_slice(&payload.live).unwrap();
                    let value = json["value"].as_str().unwrap_or("-");
                    let event = json["event"].as_str().map(|event| format!("!{event}"));
                    format!("{}={value}{}", json["key"].as_str().unwrap(), event.unwrap_or_default())
                }
                Body::Stale { reason, .. } => format!("stale {}", reason.0),
                Body::Fresh { reason, .. } => format!("fresh {}", reason.0),
                Body::Gap { reason, missed } => format!("gap {} {missed:?}", reason.0),
                Body::Void => "void".into(),
            });
        });
        self.after = watermark;
        news
    }

    /// The values alone of what is new, as they are sent.
    fn values(&mut self, world: &World) -> Vec<String> {
        let values = self.members(world, "value");
        values.iter().map(serde_json::Value::to_string).collect()
    }

    /// One member of what is new, null where it is not there.
    fn members(&mut self, world: &World, name: &str) -> Vec<serde_json::Value> {
        let mut members = Vec::new();
        let watermark = world.hub.watermark();
        self.subscription.log().view().since(self.after, watermark, |message| {
            if let Body::Change(payload) = &message.body {
                let json: serde_json::Value = serde_json::from_slice(&payload.live).unwrap();
                members.push(json[name].clone());
            }
        });
        self.after = watermark;
        members
    }

    fn is_filled(&self, world: &World) -> bool {
        self.subscription.log().view().is_filled(world.hub.watermark())
    }
}
