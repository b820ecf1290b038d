//! One connected client before the gate: what it asks for, and that it is judged again.

use std::sync::Arc;

use super::gate::{Denial, Gate, Grant, Refused, no_room};
use super::holder::{CHANGED, Holder};
use crate::access::{Deadline, Failure};
use crate::fanout::{self, Asked, Opened, Renewed};
use crate::hub::Name;

/// One connected client before the gate.
#[derive(Clone, Debug)]
pub struct Visit {
    gate: Gate,
    holder: Arc<Holder>,
}

impl Visit {
    /// For a client that was let in.
    pub fn new(gate: Gate, holder: Arc<Holder>) -> Visit {
        Visit { gate, holder }
    }

    /// For a client that was let in, if another config may have it judged again.
    pub fn of(gate: &Gate, grant: &Grant) -> Option<Visit> {
        let may_be_judged = !grant.is_public || grant.holder.is_of_a_page();
        may_be_judged.then(|| Visit::new(gate.clone(), grant.holder.clone()))
    }

    async fn open(self, names: Vec<String>, cursor: Option<String>) -> Result<Opened, Vec<fanout::Refusal>> {
        let opened = self.gate.open(&self.holder, &names, true, Deadline::from_now());
        let grant = opened.await.map_err(|refused| refusals(refused, &names))?;
        let start = self.gate.start(&names, false, None, cursor.as_deref());
        let channels = grant.subscriptions.into_iter();
        let channels = channels.map(|subscription| (subscription, start));
        Ok(Opened {
            channels: channels.collect(),
            expires: grant.expires,
            judged: grant.judged,
        })
    }

    async fn renew(self, token: String, names: Vec<Name>) -> Result<Renewed, Vec<fanout::Refusal>> {
        let deadline = Deadline::from_now();
        let judged = self.gate.hub().revision();
        let refused = |failure: Failure| {
            if let Some(unsaid) = self.gate.refusals.say() {
                let address = self.holder.visitor();
                tracing::info!(%address, reason = failure.word(), unsaid, "renewal refused");
            }
            vec![of_token(&failure)]
        };
        let holder = self.holder.renewed(token, self.gate.terms()).map_err(refused)?;
        // A token that is good for nothing yet is told so, not taken on trust.
        holder.plain_names(deadline).await.map_err(refused)?;
        self.move_to(holder, &names, judged, deadline).await
    }

    async fn again(self, names: Vec<Name>) -> Result<Renewed, Vec<fanout::Refusal>> {
        let judged = self.gate.hub().revision();
        match self.holder.by(self.gate.terms()) {
            Ok(Some(holder)) => self.move_to(holder, &names, judged, Deadline::from_now()).await,
            Ok(None) => {
                let verdict = self.gate.judge_all(&self.holder, &names, Deadline::from_now()).await;
                let expires = verdict.map_err(|refused| refusals(refused, &names))?;
                Ok(Renewed {
                    expires,
                    gate: Arc::new(self),
                    judged,
                })
            }
            Err(CHANGED) => Err(vec![fanout::Refusal {
                channel: None,
                reason: "reload",
                what: CHANGED.to_string(),
            }]),
            Err(failure) => Err(vec![of_token(&failure)]),
        }
    }

    /// Lets the client go on as this holder, if it may read all its channels as that.
    async fn move_to(
        self,
        holder: Holder,
        names: &[Name],
        judged: u64,
        deadline: Deadline,
    ) -> Result<Renewed, Vec<fanout::Refusal>> {
        let verdict = self.gate.judge_all(&holder, names, deadline).await;
        let expires = verdict.map_err(|refused| refusals(refused, names))?;
        let moved = holder.move_place(&self.holder, self.gate.limits());
        moved.map_err(|_| refusals(Refused::TooMany, names))?;
        let visit = Visit::new(self.gate, Arc::new(holder));
        Ok(Renewed {
            expires,
            gate: Arc::new(visit),
            judged,
        })
    }
}

impl fanout::Gate for Visit {
    fn open(&self, names: Vec<String>, cursor: Option<String>) -> Asked<Opened> {
        Box::pin(self.clone().open(names, cursor))
    }

    fn renew(&self, token: String, names: Vec<Name>) -> Asked<Renewed> {
        Box::pin(self.clone().renew(token, names))
    }

    fn again(&self, names: Vec<Name>) -> Asked<Renewed> {
        Box::pin(self.clone().again(names))
    }
}

fn of_token(failure: &Failure) -> fanout::Refusal {
    fanout::Refusal {
        channel: None,
        reason: failure.word(),
        what: failure.to_string(),
    }
}

fn refusals(refused: Refused, names: &[impl AsRef<str>]) -> Vec<fanout::Refusal> {
    let each = |reason: &'static str, what: String| {
        let refusal = |name: &str| fanout::Refusal {
            channel: Some(name.to_owned()),
            reason,
            what: what.clone(),
        };
        names.iter().map(AsRef::as_ref).map(refusal).collect()
    };
    match refused {
        Refused::ForGood(denied) => {
            let refusal = |(name, denial): (String, Denial)| fanout::Refusal {
                channel: Some(name),
                reason: denial.word(),
                what: denial.to_string(),
            };
            denied.into_iter().map(refusal).collect()
        }
        Refused::Full(limit) => each("full", no_room(limit).to_owned()),
        Refused::Unavailable(failure) => each(failure.word(), failure.to_string()),
        Refused::TooMany => vec![fanout::Refusal {
            channel: None,
            reason: "too-many",
            what: "the subject of your token has too many connections: come back later".to_owned(),
        }],
    }
}
