//! `keyrelay tail`: every key event of the server, and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::select;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fate::Judge;
use super::heard::{Heard, What, Word, writer};
use super::output::Output;
use crate::config::Config;
use crate::keyspace::EventName;
use crate::pattern::{KeyPattern, Subject};
use crate::process::logging;
use crate::relay;
use crate::upstream::feed::{self, Cause, KeyEvent, Listener, LostReason, Notifications, Plan};
use crate::upstream::topology::{self, Doubt, Ears, Slots, Topology};
use crate::upstream::{Endpoint, NodeId, ServerInfo, Subscriptions, plan};

/// The server's settings are changed as `run` would change them, and that is told as `run` tells it; what else the log says is
/// told here in other words.
const LOG: &str = "off,keyrelay::upstream::feed::start=info";

/// What something that waits takes beside its bytes, roughly.
const OVERHEAD: usize = 128;

/// Tells of every key event of the config's server, until nobody reads any more; of keys that `only` takes, if it is there.
pub(super) async fn tail(config: Config, only: Option<KeyPattern>, json: bool) -> anyhow::Result<()> {
    logging::start(&logging::Options {
        level: LOG.to_owned(),
        format: logging::Format::Human,
    })?;
    let upstream = config.upstream;
    let db = upstream.endpoint.db;
    let needs = relay::needs(
        &config.mappings,
        upstream.source,
        &upstream.topology,
        db,
        upstream.notifications,
    );
    let subscriptions = {
        let all = KeyPattern::parse("*").map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let topics = config.mappings.iter().filter(|rule| rule.subject == Subject::Topics);
        let topics: Vec<&KeyPattern> = topics.map(|rule| &rule.pattern).collect();
        let topics = if only.is_some() { &[] } else { &topics[..] };
        let keys = Subscriptions::plan(upstream.source, &[only.as_ref().unwrap_or(&all)], topics, db);
        match upstream.topology {
            // A cluster has no other databases.
            Topology::Cluster(_) => keys,
            Topology::Server | Topology::Sentinel(_) => keys.in_all_databases(),
        }
    };
    let judge = Judge::new(crate::cli::explain::index(&config.mappings)?, config.mappings, db);
    let output = Arc::new(Output::start(writer(judge, json))?);
    let ear = Ear {
        output: output.clone(),
        db,
        only: only.map(Arc::new),
        grant: {
            let names = subscriptions.patterns().iter();
            let rights: Vec<String> = names
                .map(|name| format!("'&{}'", String::from_utf8_lossy(name)))
                .collect();
            upstream.endpoint.grant(&rights.join(" ")).into()
        },
    };
    let place = upstream.topology.place(&upstream.endpoint);
    ear.say(Word::Connecting, format!("{place}, database {db}"));
    let tracked = !subscriptions.tracked().is_empty();
    ear.say(Word::Notifications, of_setting(needs.notifications, tracked).to_owned());
    // Under the name of a relay: by it whoever switches key events on sees that others listen, and gives them the time to
    // notice what they missed.
    let options = feed::Options {
        endpoint: upstream.endpoint,
        notifications: needs.notifications,
        topics: true,
        strict: true,
    };
    let stop = CancellationToken::new();
    let (_plans, plan) = watch::channel(Plan {
        number: 0,
        subscriptions,
    });
    let done = select! {
        ended = topology::run(upstream.topology, options, plan, ear, Doubt::default(), stop) => ended,
        () = output.closed() => Ok(()),
    };
    // What was said before a reason to end stands before it. Its other owners went with the feed.
    if let Some(output) = Arc::into_inner(output) {
        output.finish().await;
    }
    Ok(done?)
}

/// What is done about the server's setting.
fn of_setting(notifications: Notifications, tracked: bool) -> &'static str {
    match (notifications, tracked) {
        (_, true) => "not asked for: keys are tracked, which tells neither what happened nor in which database",
        (Notifications::Ensure, _) => "what is missing of notify-keyspace-events is switched on, as `run` does",
        (Notifications::Require, _) => {
            "notify-keyspace-events must be set: `notifications` of [upstream] is \"require\""
        }
        (Notifications::Assume, _) => {
            "notify-keyspace-events is left as it is, as `run` leaves it: if nothing comes, look at CONFIG GET \
             notify-keyspace-events"
        }
    }
}

/// Hears the feeds of all nodes.
#[derive(Clone)]
struct Ear {
    output: Arc<Output<Heard>>,
    db: u32,
    only: Option<Arc<KeyPattern>>,
    /// What gives the user the right to hear of keys that `run` need not hear of.
    grant: Arc<str>,
}

impl Ear {
    fn say(&self, word: Word, text: String) {
        self.tell(text.len(), || What::Said(word, text));
    }

    fn event(&self, db: u32, key: &[u8], event: Option<&[u8]>) {
        if self.only.as_ref().is_some_and(|only| !only.is_match(key)) {
            return;
        }
        self.tell(key.len(), || What::Event {
            db,
            key: Bytes::copy_from_slice(key),
            event: event.map(EventName::from_bytes),
        });
    }

    fn tell(&self, size: usize, what: impl FnOnce() -> What) {
        let at = SystemTime::now();
        self.output.offer(OVERHEAD + size, || Heard { at, what: what() });
    }
}

impl Ears for Ear {
    type Ear = Ear;

    fn ear(&self, _: NodeId) -> Ear {
        self.clone()
    }

    fn slots(&self, _: Slots) {}
}

impl Listener for Ear {
    fn up(&mut self, server: &ServerInfo, at: &Endpoint) {
        self.say(Word::Connected, format!("{}, version {}", at.address, server.version));
    }

    fn events(&mut self, batch: &[KeyEvent<'_>]) {
        for event in batch {
            self.event(self.db, event.key, event.event);
        }
    }

    fn published(&mut self, topic: &[u8], message: &[u8]) {
        if let Some((db, key)) = plan::key_event(topic) {
            return self.event(db, key, Some(message));
        }
        self.tell(topic.len() + message.len(), || What::Published {
            topic: Bytes::copy_from_slice(topic),
            message: Bytes::copy_from_slice(message),
        });
    }

    fn flushed(&mut self, cause: Cause) {
        self.say(Word::AllKeys, format!("may have changed: {cause}"));
    }

    fn unheard(&mut self) {
        let why = "key events: somebody has changed notify-keyspace-events; they are switched on again in a moment";
        self.say(Word::Unheard, why.to_owned());
    }

    fn lost(&mut self, reason: &LostReason) {
        let said = match reason {
            LostReason::Rights(why) => format!(
                "the user has not got the rights ({why}); if `run` connects, it is for the keys that no mapping takes: {}, or \
                 --key for some of them; trying again until it is",
                self.grant
            ),
            reason => format!("{reason}; trying again until it is back"),
        };
        self.say(Word::Lost, said);
    }

    fn late(&mut self, late: bool) {
        match late {
            true => self.say(Word::Late, "the server has not answered for 2 s".to_owned()),
            false => self.say(Word::Answers, "again, and nothing was lost".to_owned()),
        }
    }

    fn behind(&mut self, behind: Option<Duration>) {
        let said = match behind {
            Some(_) => "this replica may be: the link to its primary is down",
            None => "no longer: the link of this replica to its primary is up again",
        };
        self.say(Word::Behind, said.to_owned());
    }
}
