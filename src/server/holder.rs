//! What one client may read, by what it has shown: its credentials, verified no earlier than they are needed.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use hyper::header::HeaderValue;
use tokio::sync::OnceCell;

use super::credentials::Credentials;
use super::origin::Verdict;
use super::terms::Terms;
use super::visitor::Visitor;
use crate::access::{Claims, Deadline, Failure, Signed};
use crate::hub::{Access, Way};
use crate::limits::{Limit, Limits, Network, Permit, Subject};

/// A client with its credentials. A WebSocket keeps it as long as it lives: of what its head held everything is in it once at
/// most, but for the token of its header, and `docs/limits.md` counts it so. What most clients do not have is boxed.
#[derive(Debug)]
pub struct Holder {
    /// By what it is judged.
    terms: Arc<Terms>,
    visitor: Visitor,
    /// The page that has sent its request, if it is one of another origin.
    page: Option<Box<Page>>,
    /// None if it has shown nothing.
    shown: Option<Box<Shown>>,
}

/// What a client has shown, and what has come of it.
#[derive(Debug, Default)]
struct Shown {
    credentials: Credentials,
    /// Verified at the first look, and kept once it counts; what does not count now may do so later.
    token: OnceCell<Claims>,
    signed: Vec<Signed>,
    /// Whom the app has named.
    named: OnceLock<Option<Subject>>,
    /// The place that its subject holds by it.
    place: Mutex<Option<Permit>>,
}

/// For those who have shown nothing: nothing ever comes of it.
static NOTHING: LazyLock<Shown> = LazyLock::new(Shown::default);

/// A page of another origin than the server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its origin, as its browser says it.
    pub origin: HeaderValue,
    /// Why it may read.
    pub verdict: Verdict,
}

/// What a client hears that must show anew what it has shown, for what is asked of it is another thing now.
pub const CHANGED: Failure = Failure::Unavailable("the config was just loaded again");

/// Why a channel is not open to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// A mapping opens it to nobody.
    Nobody,
    /// The credential that would be needed does not count.
    Failure(Failure),
    /// The credential counts, and does not cover it.
    NotCovered,
}

/// Until when a channel may be read; never the end if `None`.
pub type Expiry = Option<SystemTime>;

impl Holder {
    /// A client with these credentials, who comes from there.
    ///
    /// # Errors
    /// If a signed name does not count: it names a channel, and which is not known then.
    pub fn new(
        terms: Arc<Terms>,
        credentials: Credentials,
        visitor: Visitor,
        page: Option<Page>,
        now: SystemTime,
    ) -> Result<Holder, Failure> {
        let signed = credentials.signed.iter();
        let signed = signed
            .map(|text| terms.verifier.signed(text, now))
            .collect::<Result<_, _>>()?;
        let has_shown = credentials != Credentials::default();
        let shown = has_shown.then(|| Shown {
            credentials,
            signed,
            ..Shown::default()
        });
        Ok(Holder {
            terms,
            visitor,
            page: page.map(Box::new),
            shown: shown.map(Box::new),
        })
    }

    /// The same client by these terms, showing this token in place of all that it has shown but for signed names.
    ///
    /// # Errors
    /// See [`Holder::by`].
    pub fn renewed(&self, token: String, terms: Arc<Terms>) -> Result<Holder, Failure> {
        let credentials = Credentials {
            signed: self.shown().credentials.signed.clone(),
            ..Credentials::of_token(token)
        };
        self.showing(credentials, terms)
    }

    /// The same client by other terms; none if it is by these already.
    ///
    /// # Errors
    /// If a signed name does not count any more, or what it has shown need not be what a request would show now.
    pub fn by(&self, terms: Arc<Terms>) -> Result<Option<Holder>, Failure> {
        if Arc::ptr_eq(&terms, &self.terms) {
            return Ok(None);
        }
        if terms.places != self.terms.places && self.shown().credentials.is_personal() {
            return Err(CHANGED);
        }
        self.showing(self.shown().credentials.clone(), terms).map(Some)
    }

    fn showing(&self, credentials: Credentials, terms: Arc<Terms>) -> Result<Holder, Failure> {
        let is_let = |page: &Page| terms.origins.of_page(&page.origin) == page.verdict;
        if !self.page.as_deref().is_none_or(is_let) {
            return Err(CHANGED);
        }
        Holder::new(
            terms,
            credentials,
            self.visitor,
            self.page.as_deref().cloned(),
            SystemTime::now(),
        )
    }

    /// Whether a change of the terms may concern it though anybody may read its channels.
    pub fn is_of_a_page(&self) -> bool {
        self.page.is_some()
    }

    /// Whom it comes from.
    pub fn visitor(&self) -> Visitor {
        self.visitor
    }

    /// The channels whose names were signed.
    pub fn signed_names(&self) -> impl Iterator<Item = &str> {
        self.shown().signed.iter().map(|signed| &*signed.channel)
    }

    /// The channels that the token, or the app, lists by their names.
    ///
    /// # Errors
    /// If the credential does not count.
    pub async fn plain_names(&self, deadline: Deadline) -> Result<Vec<String>, Failure> {
        let names = |claims: &Claims| claims.plain_names().map(str::to_owned).collect();
        match self.claims(SystemTime::now(), deadline).await {
            Ok(claims) => Ok(names(claims)),
            Err(failure) if !self.can_ask() => Err(failure),
            Err(_) => self.ask(&[], deadline).await.map(|claims| names(&claims)),
        }
    }

    /// Judges channels, each given with who may read it: until when this client may, or why it may not. In the same order.
    pub async fn judge(
        &self,
        channels: &[(&str, Vec<Access>)],
        now: SystemTime,
        deadline: Deadline,
    ) -> Vec<Result<Expiry, Closed>> {
        let open = |claims: Option<&Claims>| {
            let judged = channels.iter().map(|(name, access)| meets(access, claims, name));
            judged.collect::<Vec<bool>>()
        };
        let mut found: Vec<Option<Expiry>> = open(None).into_iter().map(|open| open.then_some(None)).collect();
        for (place, (name, access)) in found.iter_mut().zip(channels) {
            let signed = self.shown().signed.iter().filter(|signed| signed.channel == *name);
            let lasting = signed
                .map(|signed| signed.expires)
                .max_by_key(|expires| later(*expires));
            let named = lasting.filter(|expires| expires.is_none_or(|at| at > now));
            if place.is_none() && named.is_some() && access.iter().all(|ways| !ways.is_empty()) {
                *place = named;
            }
        }
        let mut why = Closed::Failure(Failure::Missing);
        let missing = |found: &[Option<Expiry>]| found.iter().any(Option::is_none);
        // What a signed name opens has an end, and a token beside it may open it for longer.
        if found.iter().any(|place| *place != Some(None)) {
            match self.claims(now, deadline).await {
                Ok(claims) => {
                    why = Closed::NotCovered;
                    fill(&mut found, open(Some(claims)), claims.expires());
                }
                Err(failure) => why = Closed::Failure(failure),
            }
        }
        if missing(&found) && self.can_ask() {
            let names = channels.iter().zip(&found).filter(|(_, place)| place.is_none());
            let names: Vec<&str> = names.map(|((name, _), _)| *name).collect();
            match self.ask(&names, deadline).await {
                Ok(claims) => {
                    why = Closed::NotCovered;
                    fill(&mut found, open(Some(&claims)), claims.expires());
                    // A subject does not change while its credential is the same.
                    let _ = self.shown().named.set(subject(&claims));
                }
                // What the token's failure was is nothing to the app.
                Err(failure) => why = Closed::Failure(failure),
            }
        }
        let answers = found.into_iter().zip(channels).map(|(place, (_, access))| {
            let nobody = access.iter().any(Vec::is_empty);
            place.ok_or_else(|| if nobody { Closed::Nobody } else { why.clone() })
        });
        answers.collect()
    }

    /// Whom the credentials speak of, if any was needed and says so.
    fn subject(&self) -> Option<Subject> {
        let token = self.shown().token.get().and_then(subject);
        token.or_else(|| self.shown().named.get().cloned().flatten())
    }

    /// Takes a place for a stream of its subject, unless it has one or none is needed.
    ///
    /// # Errors
    /// If the subject has all it may have.
    pub fn take_place(&self, limits: &Arc<Limits>) -> Result<(), Limit> {
        let mut place = self.place();
        if let (None, Some(subject)) = (&*place, self.subject()) {
            *place = Some(limits.subject(subject)?);
        }
        Ok(())
    }

    /// Takes over the place of who it was before; another subject needs one of its own.
    ///
    /// # Errors
    /// If the other subject has all it may have.
    pub fn move_place(&self, before: &Holder, limits: &Arc<Limits>) -> Result<(), Limit> {
        if self.subject() != before.subject() {
            return self.take_place(limits);
        }
        *self.place() = before.give_place();
        Ok(())
    }

    /// Gives the place away that it holds.
    pub fn give_place(&self) -> Option<Permit> {
        self.place().take()
    }

    /// Whether it holds a place.
    pub fn has_place(&self) -> bool {
        self.place().is_some()
    }

    fn place(&self) -> MutexGuard<'_, Option<Permit>> {
        self.shown().place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what it has shown may count again, once it has expired.
    pub fn is_renewable(&self) -> bool {
        self.shown().credentials.ambient || self.can_ask()
    }

    fn shown(&self) -> &Shown {
        self.shown.as_deref().unwrap_or(&NOTHING)
    }

    async fn claims(&self, now: SystemTime, deadline: Deadline) -> Result<&Claims, Failure> {
        let Some(text) = self
            .shown()
            .credentials
            .token
            .as_ref()
            .filter(|_| self.terms.verifier.takes_tokens())
        else {
            return Err(match self.shown().credentials.untrusted {
                true => Failure::Untrusted,
                false => Failure::Missing,
            });
        };
        let address = self.address();
        let verify = || self.terms.verifier.token(text, now, address, deadline);
        let claims = self.shown().token.get_or_try_init(verify).await?;
        // It may have been verified a while ago.
        match now.duration_since(claims.expires()) {
            Ok(since) => Err(Failure::Expired(since)),
            Err(_) => Ok(claims),
        }
    }

    fn can_ask(&self) -> bool {
        self.terms.verifier.asks() && self.shown().credentials.for_app.is_some()
    }

    async fn ask(&self, channels: &[&str], deadline: Deadline) -> Result<Arc<Claims>, Failure> {
        let credential = self.shown().credentials.for_app.as_deref().cloned().unwrap_or_default();
        let verifier = &self.terms.verifier;
        verifier.ask(&credential, channels, self.address(), deadline).await
    }

    fn address(&self) -> Option<Network> {
        self.visitor.counted().map(Network::of)
    }
}

fn subject(claims: &Claims) -> Option<Subject> {
    let name = claims.subject()?;
    let issuer = claims.issuer().map(str::to_owned);
    Some(Subject { issuer, name })
}

/// Notes what these claims have opened, beside what else did: the later end counts.
fn fill(found: &mut [Option<Expiry>], open: Vec<bool>, expires: SystemTime) {
    for (place, open) in found.iter_mut().zip(open) {
        if open && place.is_none_or(|until| later(until) < later(Some(expires))) {
            *place = Some(Some(expires));
        }
    }
}

/// Orders expiries, the one that never comes last.
fn later(expires: Expiry) -> (bool, Expiry) {
    (expires.is_none(), expires)
}

/// Whether anybody may read these channels, each given with who may.
pub fn is_public(channels: &[(&str, Vec<Access>)]) -> bool {
    channels.iter().all(|(name, access)| meets(access, None, name))
}

/// Whether every mapping of the channel allows whoever has these claims.
fn meets(access: &[Access], claims: Option<&Claims>, channel: &str) -> bool {
    access.iter().all(|ways| {
        ways.iter().any(|way| match way {
            Way::Public => true,
            Way::SignedIn => claims.is_some(),
            Way::Listed => claims.is_some_and(|claims| claims.lists(channel)),
            Way::Claims(wanted) => {
                let holds = |claims: &Claims| wanted.iter().all(|(claim, text)| claims.holds(claim, text));
                !wanted.is_empty() && claims.is_some_and(holds)
            }
        })
    })
}
