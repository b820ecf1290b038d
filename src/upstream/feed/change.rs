//! Another plan on a connection that holds: what is new is subscribed to first, what is not needed is let go after.
//!
//! Of an event that names of both plans bring, the server sends one message for each. So that it is told once, only one
//! plan counts at a time: the old one until all that is new is confirmed, and from that point of the stream on the new one.

use std::future::pending;

use redis_protocol::resp3::types::OwnedFrame;
use tokio::{
    select,
    sync::watch,
    time::{Duration, Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    End, Listener, LostReason, Notifications, Options, Plan,
    listen::{Asked, Ear},
    start::{NAMES_PER_COMMAND, tracking},
};
use crate::upstream::Subscriptions;
use crate::upstream::link::push_name;

/// What the server has refused is asked for again this often: somebody may have given the right to it.
const AGAIN: Duration = Duration::from_secs(10);

/// How far a connection is on the way to another plan.
#[derive(Debug)]
pub(super) struct Change {
    plans: watch::Receiver<Plan>,
    /// The plan that is heard.
    number: u64,
    /// Whether the server's setting of notifications is seen to on this connection.
    setting: bool,
    phase: Phase,
    /// What to unsubscribe from now.
    leaving: Option<Subscriptions>,
    /// When what was refused is asked for again.
    again: Option<Instant>,
    /// Whether the log was told of that.
    said: bool,
}

#[derive(Debug)]
enum Phase {
    Rest,
    /// What is new was asked for, and is not confirmed.
    Adding(Box<Adding>),
    /// What is not needed any more may still come.
    Leaving,
}

#[derive(Debug)]
struct Adding {
    plan: Plan,
    new: Subscriptions,
    /// What the server says against it.
    refused: Option<String>,
}

impl Options {
    /// What of a plan this feed hears.
    pub(super) fn part_of(&self, plan: &Plan) -> Plan {
        match self.topics {
            true => plan.clone(),
            false => Plan {
                number: plan.number,
                subscriptions: plan.subscriptions.of_keys(),
            },
        }
    }
}

impl Change {
    /// For a connection that hears this plan.
    pub fn new(plan: &Plan, plans: watch::Receiver<Plan>, setting: bool) -> Change {
        Change {
            plans,
            number: plan.number,
            setting,
            phase: Phase::Rest,
            leaving: None,
            again: None,
            said: false,
        }
    }

    /// Whether the server may send by names of two plans.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Rest)
    }

    /// The next plan, once it may be begun with.
    pub async fn next(&mut self) -> Plan {
        if self.is_under_way() {
            return pending().await;
        }
        let again = self.again;
        let again = async {
            match again {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        select! {
            changed = self.plans.changed() => match changed {
                Ok(()) => self.said = false,
                // Who would have another plan has gone.
                Err(_) => return pending().await,
            },
            () = again => {}
        }
        self.plans.borrow_and_update().clone()
    }
}

impl Ear<'_> {
    /// The plan that is heard.
    pub fn plan(&self) -> u64 {
        self.change.number
    }

    /// Asks for what is new in a plan.
    pub(super) async fn begin_change(&mut self, plan: &Plan, listener: &mut impl Listener) -> Result<(), End> {
        self.change.again = None;
        let mut plan = self.options.part_of(plan);
        let unseen = !self.change.setting && self.options.notifications != Notifications::Assume;
        let new = plan.subscriptions.beyond(&self.subscriptions);
        if unseen && plan.subscriptions.hears_keys() || !plan.subscriptions.track_too(&self.subscriptions) {
            return Err(End::Lost(LostReason::Reload));
        }
        if !new.tracked().is_empty() {
            self.ask(Asked::Track, &tracking(new.tracked())).await?;
        }
        self.ask_for("SUBSCRIBE", new.channels(), Asked::Subscribe).await?;
        self.ask_for("PSUBSCRIBE", new.patterns(), Asked::Subscribe).await?;
        self.change.phase = Phase::Adding(Box::new(Adding {
            plan,
            new,
            refused: None,
        }));
        self.change_on(listener);
        Ok(())
    }

    /// Unsubscribes from what is not needed any more.
    pub(super) async fn leave(&mut self) -> Result<(), End> {
        let Some(leaving) = self.change.leaving.take() else {
            return Ok(());
        };
        self.ask_for("UNSUBSCRIBE", leaving.channels(), Asked::Unsubscribe)
            .await?;
        self.ask_for("PUNSUBSCRIBE", leaving.patterns(), Asked::Unsubscribe)
            .await
    }

    async fn ask_for(&mut self, command: &str, names: &[Vec<u8>], asked: fn(usize) -> Asked) -> Result<(), End> {
        for names in names.chunks(NAMES_PER_COMMAND) {
            let mut words = vec![command.as_bytes()];
            words.extend(names.iter().map(Vec::as_slice));
            self.ask(asked(names.len()), &words).await?;
        }
        Ok(())
    }

    /// A push that is no message: perhaps one more name is confirmed.
    pub(super) fn pushed(&mut self, push: &OwnedFrame, listener: &mut impl Listener) {
        let left = match (push_name(push), self.asked.front_mut()) {
            (Some(b"subscribe" | b"psubscribe"), Some(Asked::Subscribe(left))) => left,
            (Some(b"unsubscribe" | b"punsubscribe"), Some(Asked::Unsubscribe(left))) => left,
            _ => return,
        };
        *left -= 1;
        if *left == 0 {
            self.asked.pop_front();
            self.change_on(listener);
        }
    }

    /// The answer to what is confirmed by pushes alone, unless it is refused; or to the request to track more.
    pub(super) fn change_answered(
        &mut self,
        asked: &Asked,
        answer: Result<OwnedFrame, String>,
        listener: &mut impl Listener,
    ) {
        if let Phase::Adding(adding) = &mut self.change.phase {
            match answer {
                Err(message) => adding.refused = Some(message),
                // Whatever becomes of the rest, they are tracked from now on.
                Ok(_) if matches!(asked, Asked::Track) => {
                    self.subscriptions.track_too(&adding.plan.subscriptions);
                }
                Ok(_) => {}
            }
        }
        self.change_on(listener);
    }

    /// Goes on with a change where all that was asked for is answered.
    fn change_on(&mut self, listener: &mut impl Listener) {
        let is_of_change = |asked: &Asked| matches!(asked, Asked::Subscribe(_) | Asked::Unsubscribe(_) | Asked::Track);
        if self.change.leaving.is_some() || self.asked.iter().any(is_of_change) {
            return;
        }
        let address = &self.options.endpoint.address;
        let adding = match std::mem::replace(&mut self.change.phase, Phase::Rest) {
            Phase::Rest | Phase::Leaving => return,
            Phase::Adding(adding) => adding,
        };
        let leaving = match adding.refused {
            None => {
                let Plan { number, subscriptions } = adding.plan;
                let leaving = self.subscriptions.beyond(&subscriptions);
                self.subscriptions = subscriptions;
                self.change.number = number;
                info!(%address, plan = number, "upstream is heard by another plan");
                listener.hears(number);
                leaving
            }
            Some(error) => {
                self.change.again = Some(Instant::now() + AGAIN);
                if !std::mem::replace(&mut self.change.said, true) {
                    warn!(
                        %address,
                        error,
                        "the server refuses what the new mappings need: their channels wait, all others go on; give keyrelay's \
                         user the right (`keyrelay check --connect` says which) or take the mappings out again"
                    );
                }
                adding.new
            }
        };
        if !leaving.channels().is_empty() || !leaving.patterns().is_empty() {
            self.change.leaving = Some(leaving);
            self.change.phase = Phase::Leaving;
        }
    }
}
