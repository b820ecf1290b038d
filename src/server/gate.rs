//! The one place that decides which channels a client may open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::credentials::Credentials;
use super::holder::{CHANGED, Closed, Expiry, Holder, Page, is_public};
use super::query::{QueryError, check_name};
use super::refusals::Refusals;
use super::terms::{Live, Terms};
use super::visitor::Visitor;
use crate::access::{Deadline, Failure};
use crate::hub::{Hub, Limit, Name, SubscribeError, Subscription, set_of};
use crate::limits::Limits;
use crate::session::Start;

/// About as many bytes of refused names stand in a line of the log: enough for any list that is meant, and no stranger
/// fills a disk with a thousand long ones.
const LOGGED: usize = 1024;

/// As many bytes of names are judged at a time where a session is renewed: as a message has by default. A session may have
/// gathered more of them than one who waits may hold.
pub const JUDGED_AT_ONCE: usize = 64 * 1024;

/// Opens channels, all of a list or none of it.
#[derive(Clone, Debug)]
pub struct Gate {
    hub: Arc<Hub>,
    live: Live,
    limits: Arc<Limits>,
    /// What is logged of those who are not let in.
    pub refusals: Arc<Refusals>,
}

/// Channels that were opened.
#[derive(Debug)]
pub struct Grant {
    /// The hold on each, in the order of the names.
    pub subscriptions: Vec<Subscription>,
    /// Until when the client may read all of them.
    pub expires: Expiry,
    /// The client, as it was judged.
    pub holder: Arc<Holder>,
    /// By which revision of the hub it was.
    pub judged: u64,
    /// Whether anybody may read them, whatever he shows.
    pub is_public: bool,
}

/// Why a list of channels was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Some may not be opened, by this client or by anyone: each of them with why.
    ForGood(BTreeMap<String, Denial>),
    /// There is no room now, for this reason.
    Full(Limit),
    /// Whether they may be opened cannot be found out now.
    Unavailable(Failure),
    /// The subject of the client's token has all that it may have.
    TooMany,
}

/// Why one channel may not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody may: it does not exist.
    #[error("no mapping gives a channel of this name")]
    Unknown,
    /// No channel can have this name.
    #[error(transparent)]
    Name(#[from] QueryError),
    /// Nobody may.
    #[error("this channel is open to nobody: a mapping that gives it has no `access`")]
    Closed,
    /// What the client has shown does not count.
    #[error(transparent)]
    Credential(Failure),
    /// What the client has shown counts, and not for this channel.
    #[error("what this client has shown does not cover this channel")]
    NotCovered,
}

impl Denial {
    /// The reason as a fixed word.
    pub fn word(&self) -> &'static str {
        match self {
            Denial::Unknown => "unknown",
            Denial::Name(_) => "invalid",
            Denial::Closed => "closed",
            Denial::Credential(failure) => failure.word(),
            Denial::NotCovered => "not-covered",
        }
    }
}

impl From<Closed> for Denial {
    fn from(closed: Closed) -> Denial {
        match closed {
            Closed::Nobody => Denial::Closed,
            Closed::Failure(failure) => Denial::Credential(failure),
            Closed::NotCovered => Denial::NotCovered,
        }
    }
}

/// Why channels were refused, each reason once.
fn reasons(denied: &BTreeMap<String, Denial>) -> String {
    let words: BTreeSet<&str> = denied.values().map(Denial::word).collect();
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// What is refused and why, for one line of the log: `"secret" (unknown), "b\nc" (unknown)`.
fn listed(denied: &BTreeMap<String, Denial>) -> String {
    let mut line = String::new();
    for (name, denial) in denied {
        if line.len() >= LOGGED {
            line.push_str(", …");
            break;
        }
        let separator = if line.is_empty() { "" } else { ", " };
        let end = (0..=name.len().min(LOGGED))
            .rfind(|&at| name.is_char_boundary(at))
            .unwrap_or(0);
        let cut = if end < name.len() { "…" } else { "" };
        // Quoted as Rust does it, so that no name can break the line or pass for another field.
        line.push_str(&format!("{separator}{:?}{cut} ({})", &name[..end], denial.word()));
    }
    line
}

impl Gate {
    /// A gate to the hub's channels, by the terms of now.
    pub fn new(hub: Arc<Hub>, live: Live, limits: Arc<Limits>) -> Gate {
        Gate {
            hub,
            live,
            limits,
            refusals: Arc::default(),
        }
    }

    /// The hub behind it.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// What clients may take together.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// By what clients are let in now.
    pub fn terms(&self) -> Arc<Terms> {
        self.live.terms()
    }

    /// The client that shows these credentials by these terms, from this page, and comes from there.
    ///
    /// # Errors
    /// If a signed name does not count; it is logged here.
    pub fn holder(
        &self,
        terms: Arc<Terms>,
        credentials: Credentials,
        visitor: Visitor,
        page: Option<Page>,
    ) -> Result<Holder, Failure> {
        let holder = Holder::new(terms, credentials, visitor, page, SystemTime::now());
        holder.inspect_err(|failure| {
            if let Some(unsaid) = self.refusals.say() {
                tracing::info!(address = %visitor, reason = failure.word(), unsaid, "signed name refused");
            }
        })
    }

    /// Logs that what a client may read cannot be found out now.
    pub fn log_unavailable(&self, visitor: Visitor, failure: &Failure) {
        if let Some(unsaid) = self.refusals.say() {
            let reason = failure.word();
            tracing::info!(address = %visitor, reason, %failure, unsaid, "channels refused for now");
        }
    }

    /// Judges the channels for a client: whether it may read all of them, and until when. A refusal is logged here, once.
    /// Every way to a channel leads through here.
    async fn judge(&self, holder: &Holder, names: &[impl AsRef<str>], deadline: Deadline) -> Result<Judged, Refused> {
        let mut denied = BTreeMap::new();
        let mut asked = Vec::new();
        for name in names.iter().map(AsRef::as_ref) {
            match check_name(name).map(|()| self.hub.access(name)) {
                Ok(Some(access)) => asked.push((name, access)),
                Ok(None) => drop(denied.insert(name.to_owned(), Denial::Unknown)),
                Err(error) => drop(denied.insert(name.to_owned(), Denial::Name(error))),
            }
        }
        let mut until: Expiry = None;
        let judged = holder.judge(&asked, SystemTime::now(), deadline).await;
        for ((name, _), judged) in asked.iter().zip(judged) {
            match judged {
                Ok(expiry) => until = until.into_iter().chain(expiry).min(),
                Err(Closed::Failure(failure @ Failure::Unavailable(_))) => {
                    self.log_unavailable(holder.visitor(), &failure);
                    return Err(Refused::Unavailable(failure));
                }
                Err(closed) => drop(denied.insert((*name).to_owned(), closed.into())),
            }
        }
        if denied.is_empty() {
            return Ok(Judged {
                until,
                is_public: is_public(&asked),
            });
        }
        if let Some(unsaid) = self.refusals.say() {
            // Names are for `debug`: with the default template a channel is called as its key is.
            let (address, reasons) = (holder.visitor(), reasons(&denied));
            tracing::info!(%address, count = denied.len(), reasons, unsaid, "channels refused");
            tracing::debug!(channels = %listed(&denied), "the channels that were refused");
        }
        Err(Refused::ForGood(denied))
    }

    /// Opens the channels for a client that stays (`lingers`) or for one that only looks, and says until when it may read
    /// them.
    ///
    /// While it is judged, and until its channels are open, both the channels and the terms may become other ones. Then all of
    /// it is done again, whatever came of it, so that a verdict never opens a channel that it was not about: either nothing had
    /// changed when the channels were open, and a change that comes now ends what it concerns; or they are dropped unread.
    pub async fn open(
        &self,
        holder: &Arc<Holder>,
        names: &[String],
        lingers: bool,
        deadline: Deadline,
    ) -> Result<Grant, Refused> {
        let mut judged_as = holder.clone();
        loop {
            let judged = self.hub.revision();
            match judged_as.by(self.terms()) {
                Ok(None) => {}
                Ok(Some(anew)) => judged_as = Arc::new(anew),
                Err(failure) => {
                    self.log_unavailable(holder.visitor(), &failure);
                    return Err(Refused::Unavailable(CHANGED));
                }
            }
            let opened = self.attempt(&judged_as, names, deadline).await;
            if self.hub.revision() != judged {
                continue;
            }
            let (Judged { until, is_public }, subscriptions) = opened?;
            // Who only looks has left again before it counts. Of who is turned away nothing lingers.
            if lingers {
                if !holder.has_place() {
                    judged_as.take_place(&self.limits).map_err(|_| Refused::TooMany)?;
                }
                subscriptions.iter().for_each(Subscription::linger);
            }
            return Ok(Grant {
                subscriptions,
                expires: until,
                holder: judged_as,
                judged,
                is_public,
            });
        }
    }

    async fn attempt(
        &self,
        holder: &Holder,
        names: &[String],
        deadline: Deadline,
    ) -> Result<(Judged, Vec<Subscription>), Refused> {
        let verdict = self.judge(holder, names, deadline).await?;
        let mut opened = Vec::new();
        for name in names {
            match self.hub.subscribe_for(holder.visitor().into(), name) {
                Ok(subscription) => opened.push(subscription),
                Err(SubscribeError::Full(limit)) => {
                    if let Some(unsaid) = self.refusals.say() {
                        let limit = limit.option();
                        tracing::info!(
                            address = %holder.visitor(),
                            limit,
                            unsaid,
                            "channels refused for now: a limit is reached, see docs/limits.md"
                        );
                    }
                    return Err(Refused::Full(limit));
                }
                // It was known a moment ago.
                Err(SubscribeError::Unknown) => {
                    return Err(Refused::ForGood([(name.clone(), Denial::Unknown)].into()));
                }
            }
        }
        Ok((verdict, opened))
    }

    /// Judges all the channels of a session for a client.
    pub(super) async fn judge_all(
        &self,
        holder: &Holder,
        names: &[Name],
        deadline: Deadline,
    ) -> Result<Expiry, Refused> {
        let (mut expires, mut denied) = (Expiry::None, BTreeMap::new());
        for part in parts(names) {
            match self.judge(holder, part, deadline).await {
                Ok(Judged { until, .. }) => expires = expires.into_iter().chain(until).min(),
                Err(Refused::ForGood(more)) => denied.extend(more),
                Err(refused) => return Err(refused),
            }
        }
        match denied.is_empty() {
            true => Ok(expires),
            false => Err(Refused::ForGood(denied)),
        }
    }

    /// Where a client begins that asks for these channels: `header` is `Last-Event-ID`, which wins where it is not empty;
    /// `parameter` is the cursor in the URL or in a message.
    ///
    /// A browser sends the header back to the very URL that the id came from, so the header needs no set of channels, if
    /// the URL names them (`named`). Nothing of the kind holds for the parameter.
    pub fn start(&self, names: &[String], named: bool, header: Option<&[u8]>, parameter: Option<&str>) -> Start {
        let (epoch, set) = (self.hub.epoch, set_of(names.iter().map(String::as_str)));
        match header.filter(|value| !value.is_empty()) {
            // What is not text is no cursor, as the empty text is none.
            Some(value) => Start::judge(Some(std::str::from_utf8(value).unwrap_or_default()), epoch, set, named),
            None => Start::judge(parameter.filter(|text| !text.is_empty()), epoch, set, false),
        }
    }
}

/// What was made of channels that a client may read.
#[derive(Clone, Copy, Debug)]
struct Judged {
    until: Expiry,
    is_public: bool,
}

/// What a client is told that finds no room.
pub fn no_room(limit: Limit) -> &'static str {
    match limit {
        Limit::Channels | Limit::Subscriptions | Limit::Keys | Limit::LogBytes => {
            "there is no room for more channels now: come back later"
        }
        Limit::ChannelsPerAddress => "your address has too many channels: come back later",
        Limit::KeysPerChannel => "the channel has more keys than may be sent: come back later",
    }
}

/// The names in lists of no more than [`JUDGED_AT_ONCE`] bytes.
fn parts(names: &[Name]) -> impl Iterator<Item = &[Name]> {
    let mut bytes = 0;
    names.chunk_by(move |before, next| {
        bytes += before.len();
        let fits = bytes + next.len() <= JUDGED_AT_ONCE;
        bytes = if fits { bytes } else { 0 };
        fits
    })
}

#[cfg(test)]
mod tests;
