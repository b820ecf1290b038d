//! Judges credentials, on whichever thread they come.

use std::cell::LazyCell;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;

use super::ask::{self, Asker, Credential};
use super::claims::Claims;
use super::deadline::Deadline;
use super::failure::Failure;
use super::http::Client;
use super::jwks::{Fetched, Pace, Set};
use super::jwt::{self, Keys, Token};
use super::key::Algorithm;
use super::signed::{self, Signed};
use super::waiting::Waiting;
use crate::limits::{Counts, Network};

/// What a client hears while keys are not to be had.
const NO_KEYS: Failure = Failure::Unavailable("the keys of tokens could not be fetched");

/// Whose credentials count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Who makes tokens.
    pub jwt: Vec<jwt::Options>,
    /// Who signs names of channels.
    pub signed: Vec<signed::Options>,
    /// The app, if it is asked.
    pub ask: Option<ask::Options>,
}

/// Judges credentials. All clones are one.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

impl Default for Verifier {
    /// Knows nobody.
    fn default() -> Verifier {
        Verifier(Arc::new(Inner {
            jwt: Vec::new(),
            signed: Vec::new(),
            asker: None,
            waiting: Arc::new(Waiting::new(Arc::default())),
            background: None,
        }))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

struct Inner {
    jwt: Vec<Issuer>,
    signed: Vec<signed::Options>,
    asker: Option<Arc<Asker>>,
    waiting: Arc<Waiting>,
    /// What a verifier by other options begins with; none: it asks nobody, ever.
    background: Option<Background>,
}

/// What happens in the background, and where.
#[derive(Clone)]
struct Background {
    pace: Pace,
    counts: Arc<Counts>,
    runtime: Handle,
}

struct Issuer {
    options: jwt::Options,
    fetched: Option<(Fetched, Option<Algorithm>)>,
}

impl Verifier {
    /// Begins to fetch what keys are fetched. What happens in the background happens on this runtime, which must keep
    /// running; the callers may be on others. `counts`: where those are counted for whom there is no room.
    pub fn new(options: Options, counts: Arc<Counts>, runtime: Handle) -> Verifier {
        Verifier::at_pace(options, Pace::REAL, counts, runtime)
    }

    pub(super) fn at_pace(options: Options, pace: Pace, counts: Arc<Counts>, runtime: Handle) -> Verifier {
        let waiting = Arc::new(Waiting::new(counts.clone()));
        let background = Background { pace, counts, runtime };
        Verifier::of(options, background, waiting, None)
    }

    /// One that goes by other options. Sets of keys that both fetch are not fetched anew, and an app that both ask is not
    /// asked again for what it has answered.
    pub fn next(&self, options: Options) -> Verifier {
        match &self.0.background {
            Some(background) => Verifier::of(options, background.clone(), self.0.waiting.clone(), Some(&self.0)),
            None => self.clone(),
        }
    }

    fn of(options: Options, background: Background, waiting: Arc<Waiting>, before: Option<&Inner>) -> Verifier {
        let Background { pace, counts, runtime } = &background;
        // The system's trust store is not read for nothing.
        let client = LazyCell::new(Client::new);
        let fetched = |keys: &Keys| {
            let Keys::Fetched { url, algorithm } = keys else {
                return None;
            };
            let mut known = before.iter().flat_map(|before| &before.jwt);
            let known = known.find(|issuer| issuer.options.keys == *keys);
            let fetched = known.and_then(|issuer| issuer.fetched.clone());
            let fetch = || Fetched::new(url.clone(), *algorithm, client.clone(), pace.clone(), runtime);
            Some(fetched.unwrap_or_else(|| (fetch(), *algorithm)))
        };
        let issuer = |options: jwt::Options| Issuer {
            fetched: fetched(&options.keys),
            options,
        };
        let jwt = options.jwt.into_iter().map(issuer).collect();
        let asker = options.ask.map(|options| {
            let known = before.and_then(|before| before.asker.clone());
            let ask = || Asker::new(options.clone(), client.clone(), counts.clone(), runtime.clone());
            known.filter(|asker| asker.asks(&options)).unwrap_or_else(ask)
        });
        Verifier(Arc::new(Inner {
            jwt,
            signed: options.signed,
            asker,
            waiting,
            background: Some(background),
        }))
    }

    /// Whether any token can count.
    pub fn takes_tokens(&self) -> bool {
        !self.0.jwt.is_empty()
    }

    /// Whether the app is asked.
    pub fn asks(&self) -> bool {
        self.0.asker.is_some()
    }

    /// What a token says, if it counts. It waits for nothing unless keys are fetched from a URL, and then until the deadline,
    /// if there is a place to wait. `address`: that of the client, if clients are told apart.
    ///
    /// # Errors
    /// Why it does not count.
    pub async fn token(
        &self,
        text: &str,
        now: SystemTime,
        address: Option<Network>,
        deadline: Deadline,
    ) -> Result<Claims, Failure> {
        let token = Token::parse(text)?;
        let known = self.0.jwt.iter().filter_map(|issuer| match &issuer.options.keys {
            Keys::One(key) => Some((key, &issuer.options)),
            Keys::Fetched { .. } => None,
        });
        let closest = match token.verify(known, now) {
            Err(failure @ (Failure::Algorithm | Failure::Signature)) => failure,
            judged => return judged,
        };
        // A secret is never fetched, so a token that was signed with one brings nobody to wait.
        if token.algorithm.is_symmetric() || self.0.jwt.iter().all(|issuer| issuer.fetched.is_none()) {
            return Err(closest);
        }
        let judged = deadline.wait(self.fetched(&token, closest, now));
        let judged = self.0.waiting.wait(address, judged).await?;
        judged.unwrap_or(Err(NO_KEYS))
    }

    /// What a token says by the keys that are fetched; `closest` is why none of the others made it count.
    async fn fetched(&self, token: &Token<'_>, mut closest: Failure, now: SystemTime) -> Result<Claims, Failure> {
        let issuers = self.0.jwt.iter().filter_map(|issuer| {
            let (fetched, only) = issuer.fetched.as_ref()?;
            only.is_none_or(|only| only == token.algorithm)
                .then_some((issuer, fetched))
        });
        let mut issuers: Vec<(&Issuer, &Fetched)> = issuers.collect();
        // A set that is there and names the key decides, so that nobody is asked for the keys of another.
        let names = |(_, fetched): &(&Issuer, &Fetched)| {
            let kid = token.kid.as_deref();
            kid.is_some_and(|kid| fetched.known().is_some_and(|set| set.names(kid)))
        };
        if issuers.iter().any(names) {
            issuers.retain(names);
        }
        // All at the same time: one whose server hangs holds up none of the others.
        let judging = issuers
            .into_iter()
            .map(|(issuer, fetched)| issuer.token(fetched, token, now));
        let mut judging: FuturesUnordered<_> = judging.collect();
        while let Some(judged) = judging.next().await {
            match judged {
                // Another issuer may know it.
                Err(Failure::Algorithm) => {}
                Err(failure @ Failure::Signature) if closest == Failure::Algorithm => closest = failure,
                Err(Failure::Signature) => {}
                Err(
                    failure @ (Failure::Unavailable(_) | Failure::Audience | Failure::NoAudience | Failure::Issuer),
                ) => closest = failure,
                judged => return judged,
            }
        }
        Err(closest)
    }

    /// The channel that a signed name opens, if it counts.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn signed(&self, text: &str, now: SystemTime) -> Result<Signed, Failure> {
        signed::verify(&self.0.signed, text, now)
    }

    /// What the app says of a credential that asks for these channels, by the deadline, if there is a place to wait.
    /// `address`: that of the client, if clients are told apart; the questions of one are limited.
    ///
    /// # Errors
    /// If the app refuses it, does not answer as it should, or cannot be asked now.
    pub async fn ask(
        &self,
        credential: &Credential,
        channels: &[&str],
        address: Option<Network>,
        deadline: Deadline,
    ) -> Result<Arc<Claims>, Failure> {
        match &self.0.asker {
            Some(asker) => {
                let asked = asker.ask(credential, channels, address, deadline);
                self.0.waiting.wait(address, asked).await?
            }
            None => Err(Failure::Denied),
        }
    }
}

impl Issuer {
    async fn token(&self, fetched: &Fetched, token: &Token<'_>, now: SystemTime) -> Result<Claims, Failure> {
        let kid = token.kid.as_deref();
        let judge = |set: &Set| match token.verify(set.fitting(kid).map(|key| (key, &self.options)), now) {
            // Not for want of a key of this algorithm, but of this name.
            Err(Failure::Algorithm) if set.fitting(None).any(|key| key.algorithm() == token.algorithm) => {
                Err(Failure::Signature)
            }
            judged => judged,
        };
        let set = fetched.set().await.ok_or(NO_KEYS)?;
        let judged = judge(&set);
        // A key that is not in the set may have come since.
        match (&judged, kid) {
            (Err(Failure::Algorithm | Failure::Signature), Some(kid)) if !set.names(kid) => {
                let set = fetched.fresher().await.ok_or(Failure::Signature)?;
                judge(&set)
            }
            _ => judged,
        }
    }
}

#[cfg(test)]
mod tests;
