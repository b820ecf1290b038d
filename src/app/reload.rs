//! Reads the config again while the relay runs, and has it take effect.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::config::reload::{Changes, Fate, diff};
use crate::hub::Mode;
use crate::mapping::MappingId;
use crate::pattern::Subject;
use crate::process::logging;
use crate::relay::{self, Reviser, Revision, Rule};
use crate::server::Live;
use crate::tally::Reloads;
use crate::upstream::Source;
use crate::upstream::feed::Plan;

/// Most mappings that are named in a line of the log.
const NAMED: usize = 20;

/// Reads the config, or says what is wrong with it, problem by problem.
pub type Load = dyn Fn() -> Result<Config, Vec<String>> + Send + Sync;

/// Hears how reloads go, in order.
pub type Told = dyn Fn(Progress) + Send + Sync;

/// How a relay comes to another config while it runs: at SIGHUP, and whenever `asked` is told so.
pub struct Reload {
    /// Reads the config again; called on a thread that may block.
    pub load: Arc<Load>,
    /// Whoever sends here has the config read again. Of several askings in a row the last one counts.
    pub asked: watch::Sender<()>,
    /// Is told when a reload begins and when it has ended, applied or refused; called on the main thread.
    pub told: Box<Told>,
    /// How reloads ended.
    pub counts: Arc<Reloads>,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The config is about to be read.
    Begun,
    /// What could be applied holds; or nothing, if it was refused.
    Ended,
}

/// What runs, and how it is given another config.
pub(super) struct Running {
    /// The config that holds: of what takes a restart, the one that it was started with.
    pub config: Config,
    /// The id of the next mapping that is new.
    pub next: u32,
    /// What is heard of the server.
    pub plans: watch::Sender<Plan>,
    pub reviser: Reviser,
    pub live: Live,
}

impl Reload {
    /// Reads the config with `load`; nobody is told. The one that holds now was just read.
    pub fn new(load: impl Fn() -> Result<Config, Vec<String>> + Send + Sync + 'static) -> Reload {
        let reload = Reload {
            load: Arc::new(load),
            asked: watch::Sender::new(()),
            told: Box::new(|_| {}),
            counts: Arc::default(),
        };
        reload.held();
        reload
    }

    /// Reads the config whenever that is asked for, one time after the other. `files`: told each time, before the config
    /// is read. Never returns.
    pub(super) async fn follow(&self, mut running: Running, files: watch::Sender<()>) {
        let mut asked = self.asked.subscribe();
        while asked.changed().await.is_ok() {
            (self.told)(Progress::Begun);
            files.send_replace(());
            self.again(&mut running).await;
            (self.told)(Progress::Ended);
        }
        // Its sender lives in `self`.
        pending().await
    }

    async fn again(&self, running: &mut Running) {
        let load = self.load.clone();
        let loaded = spawn_blocking(move || load()).await;
        let applied = match loaded {
            Ok(Ok(config)) => running.apply(config).await,
            Ok(Err(problems)) => {
                for problem in &problems {
                    tracing::error!(%problem, "config problem");
                }
                Err(format!("problems: {}", problems.len()))
            }
            Err(error) => Err(error.to_string()),
        };
        match applied {
            Ok(()) => {
                self.counts.applied.fetch_add(1, Ordering::Relaxed);
                self.held();
            }
            Err(why) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    why,
                    "config refused: the one before goes on; put it right and reload again"
                );
            }
        }
    }

    /// The config holds from now on.
    fn held(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.counts.last.store(since.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Running {
    /// Has a config take effect, as far as that is possible now, and says what has not.
    async fn apply(&mut self, mut new: Config) -> Result<(), String> {
        let mut changes = diff(&self.config, &new);
        if changes.is_empty() {
            tracing::info!(mappings = new.mappings.len(), "config read again: nothing has changed");
            return Ok(());
        }
        if let Some(rule) = self.unheard(&new) {
            tracing::warn!(
                mapping = %place(rule),
                "mappings wait for a restart: this one has mode = \"events\", and upstream.source is still \"tracking\""
            );
            changes = Changes {
                mappings: (0..self.config.mappings.len()).map(Fate::Same).collect(),
                gone: Vec::new(),
                ..changes
            };
            new.mappings = self.config.mappings.clone();
        }
        let mut next = self.next;
        for (rule, fate) in new.mappings.iter_mut().zip(&changes.mappings) {
            let id = match fate {
                Fate::Same(before) | Fate::Adjusted(before) => self.config.mappings[*before].id,
                Fate::Changed { .. } | Fate::New => {
                    next += 1;
                    MappingId(next - 1)
                }
            };
            if rule.id != id
                && let Some(rule) = Arc::get_mut(rule)
            {
                rule.id = id;
            }
        }
        let plan = self.plan(&new.mappings);
        let terms = changes.live.iter().any(|option| *option != "log.level");
        let terms = terms.then(|| self.live.terms().next(&new.server));
        let live = self.live.clone();
        let revision = Revision {
            rules: new.mappings.clone(),
            plan: plan.number,
            judge_again: changes.judges_anew(),
            also: Box::new(move || {
                if let Some(terms) = terms {
                    live.put(terms);
                }
            }),
        };
        let ended = self.reviser.revise(revision).await.map_err(|error| error.to_string())?;
        // Only now: what new mappings need is not missed by channels that are opened before it is heard.
        self.plans.send_if_modified(|known| {
            let modified = *known != plan;
            *known = plan;
            modified
        });
        self.next = next;
        if changes.live.contains(&"log.level")
            && let Err(error) = logging::set_level(&new.log.level)
        {
            tracing::warn!(%error, "the level of the log stays what it was");
        }
        tell(&changes, &self.config, &new, ended);
        let Config {
            server, mappings, log, ..
        } = new;
        self.config.mappings = mappings;
        self.config.log.level = log.level;
        let own = &mut self.config.server;
        (own.origins, own.visitors) = (server.origins, server.visitors);
        (own.places, own.access) = (server.places, server.access);
        Ok(())
    }

    /// The first mapping whose events could not be heard as it is listened now.
    fn unheard<'c>(&self, new: &'c Config) -> Option<&'c Rule> {
        let tracking = self.config.upstream.source == Source::Tracking;
        let of_events = |rule: &&Arc<Rule>| rule.subject == Subject::Keys && rule.mode == Mode::Events;
        let first = new.mappings.iter().find(of_events).filter(|_| tracking);
        first.map(|rule| &**rule)
    }

    /// What is to be heard for these mappings: the plan that holds if it is that already.
    fn plan(&self, rules: &[Arc<Rule>]) -> Plan {
        let upstream = &self.config.upstream;
        let (source, db) = (upstream.source, upstream.endpoint.db);
        let needs = relay::needs(rules, source, &upstream.topology, db, upstream.notifications);
        let known = self.plans.borrow();
        let new = known.subscriptions != needs.subscriptions;
        Plan {
            number: known.number + u64::from(new),
            subscriptions: needs.subscriptions,
        }
    }
}

/// Says what has changed, and what has not though it was to.
fn tell(changes: &Changes, old: &Config, new: &Config, ended: usize) {
    let (mut came, mut changed, mut access, mut adjusted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (rule, fate) in new.mappings.iter().zip(&changes.mappings) {
        match fate {
            Fate::Same(_) => continue,
            Fate::Adjusted(_) => &mut adjusted,
            Fate::Changed { access: true, .. } => &mut access,
            Fate::Changed { access: false, .. } => &mut changed,
            Fate::New => &mut came,
        }
        .push(&**rule);
    }
    let gone: Vec<&Rule> = changes.gone.iter().map(|place| &*old.mappings[*place]).collect();
    for (what, rules) in [
        ("came", came),
        ("gone", gone),
        ("changed", changed),
        ("open to others", access),
        ("adjusted", adjusted),
    ] {
        if !rules.is_empty() {
            tracing::info!(
                what,
                count = rules.len(),
                mappings = named(&rules),
                "mappings of the config"
            );
        }
    }
    for option in &changes.live {
        tracing::info!(option, "config value applied");
    }
    for option in &changes.restart {
        tracing::warn!(
            option,
            "config value not applied: it takes effect when keyrelay is started again"
        );
    }
    tracing::info!(
        mappings = new.mappings.len(),
        channels_ended = ended,
        restart = changes.restart.len(),
        "config reloaded"
    );
}

fn named(rules: &[&Rule]) -> String {
    let mut names: Vec<String> = rules.iter().take(NAMED).map(|rule| place(rule)).collect();
    if rules.len() > NAMED {
        names.push(format!("and {} more", rules.len() - NAMED));
    }
    names.join(", ")
}

fn place(rule: &Rule) -> String {
    format!("{}:{}", rule.file.display(), rule.line)
}
