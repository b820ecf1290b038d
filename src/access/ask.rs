//! Asks the app who may read what, by the credential that a client came with.

mod cache;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderValue, LOCATION};
use hyper::{Request, StatusCode};
use ring::hmac;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::claims::Claims;
use super::deadline::{Deadline, PATIENCE};
use super::failure::Failure;
use super::http::{Client, Url};
use super::members;
use super::shares::Shares;
use crate::limits::{Counts, Network};
use cache::Cache;

/// How much earlier a question ends than a decision that begins with it: whoever hears of its end and asks again at once must
/// not join one that is about to fail.
const GRACE: Duration = Duration::from_millis(200);
/// Questions under way at once: as many as an app server has threads and then some.
pub const IN_FLIGHT: usize = 64;
/// Questions under way and waiting. An app that cannot keep up does not do so by being asked more.
pub const MAX_OPEN: usize = 1_024;
/// Most questions of one address, under way and waiting. It is half of those that are under way at once, so that the others
/// find room however long those of one address take; and an office whose people all come back at once is through in seconds.
const MAX_PER_ADDRESS: usize = IN_FLIGHT / 2;
/// Largest answer: a thousand names of channels fit.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Largest answer as it is kept: a thousand patterns fit. An object or a pattern of a few bytes takes hundreds.
const MAX_KEPT: usize = 1024 * 1024;
/// Most bytes of answers: what is remembered, with two tables of 1 MiB, and what is on its way, as it came and as it is kept.
pub const MAX_HELD: usize = 2 * (cache::MAX_BYTES + 1024 * 1024) + IN_FLIGHT * (2 * MAX_ANSWER + MAX_KEPT);
/// The operator is told of failures this often.
const TELL: Duration = Duration::from_secs(10);

/// Where the app is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The app's own page for it.
    pub url: Url,
}

/// What a client came with, byte for byte. Clones share the bytes, so that whoever waits holds no more of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    /// The header `Authorization`.
    pub authorization: Option<HeaderValue>,
    /// The header `Cookie`.
    pub cookie: Option<HeaderValue>,
}

/// Asks, and remembers the answers for as long as they say.
pub(super) struct Asker {
    url: Url,
    client: Client,
    runtime: Handle,
    /// Makes the keys of the cache: what lies in memory is no credential, and who chooses his cannot choose their keys.
    secret: hmac::Key,
    permits: Semaphore,
    counts: Arc<Counts>,
    shared: Mutex<Shared>,
}

/// A question that was asked before is asked once: it is in `open` until its answer is in `cache`.
struct Shared {
    cache: Cache,
    open: HashMap<Question, watch::Receiver<Answer>>,
    shares: Shares,
    /// When the operator was last told of a failure, and how many there were since.
    told: Option<Instant>,
    untold: u64,
}

/// A credential and a set of channels. Sets of one credential are not put together into one question: whoever shares it, as all
/// do whose only cookie says that cookies are fine, would wait for what others ask for, and be refused along with it.
pub(super) type Question = [u8; 32];

/// What the app is sent.
#[derive(Serialize)]
struct Body<'a> {
    channels: &'a [String],
}

/// `None` until it came.
type Answer = Option<Result<Arc<Claims>, Failure>>;

/// Shows which of them came, and nothing of them.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("authorization", &self.authorization.is_some())
            .field("cookie", &self.cookie.is_some())
            .finish()
    }
}

impl Asker {
    /// Whether it asks where these say.
    pub(super) fn asks(&self, options: &Options) -> bool {
        self.url == options.url
    }

    pub(super) fn new(options: Options, client: Client, counts: Arc<Counts>, runtime: Handle) -> Arc<Asker> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new());
        Arc::new(Asker {
            url: options.url,
            client,
            runtime,
            secret: secret.expect("the system gives random numbers"),
            permits: Semaphore::new(IN_FLIGHT),
            counts,
            shared: Mutex::new(Shared {
                cache: Cache::default(),
                open: HashMap::new(),
                shares: Shares::of(MAX_PER_ADDRESS),
                told: None,
                untold: 0,
            }),
        })
    }

    /// What the app says of a credential that asks for these channels, by the deadline. Its answer may come later than that:
    /// then it is there when the client comes back. `address`: whose share of the questions this is, if clients are told
    /// apart.
    pub(super) async fn ask(
        self: &Arc<Self>,
        credential: &Credential,
        channels: &[&str],
        address: Option<Network>,
        deadline: Deadline,
    ) -> Result<Arc<Claims>, Failure> {
        if *credential == Credential::default() {
            return Err(Failure::Missing);
        }
        let mut names = channels.to_vec();
        names.sort_unstable();
        names.dedup();
        let question = self.question(credential, &names);
        let mut answer = match self.look(question, address, deadline) {
            Look::Known(claims) => return Ok(claims),
            Look::Asked(answer) => answer,
            Look::New(sender, answer) => {
                let channels = names.into_iter().map(str::to_owned).collect();
                let asking = self
                    .clone()
                    .answer(question, address, credential.clone(), channels, sender);
                self.runtime.spawn(asking);
                answer
            }
            Look::TooLate => return Err(LATE),
            Look::TooManyOfAddress => {
                self.count_refused();
                return Err(CROWDED);
            }
            Look::TooMany => {
                self.count_refused();
                return Err(self.failed("too many questions wait for the app: it does not keep up"));
            }
        };
        match deadline.wait(answer.wait_for(Option::is_some)).await {
            Some(Ok(answer)) => answer.clone().unwrap_or(Err(LATE)),
            // Nobody asks any more, as while the process ends.
            Some(Err(_)) | None => Err(LATE),
        }
    }

    fn question(&self, credential: &Credential, channels: &[&str]) -> Question {
        let mut context = hmac::Context::with_key(&self.secret);
        let mut add = |part: Option<&[u8]>| {
            // Lengths keep apart what would run together.
            context.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            context.update(part.unwrap_or_default());
        };
        add(credential.authorization.as_ref().map(HeaderValue::as_bytes));
        add(credential.cookie.as_ref().map(HeaderValue::as_bytes));
        for channel in channels {
            add(Some(channel.as_bytes()));
        }
        let tag = context.sign();
        tag.as_ref().try_into().expect("HMAC-SHA256 makes 32 bytes")
    }

    fn look(&self, question: Question, address: Option<Network>, deadline: Deadline) -> Look {
        let mut shared = self.shared();
        if let Some(claims) = shared.cache.get(&question, SystemTime::now()) {
            return Look::Known(claims);
        }
        if let Some(answer) = shared.open.get(&question) {
            return Look::Asked(answer.clone());
        }
        if deadline.is_over() {
            return Look::TooLate;
        }
        if shared.open.len() >= MAX_OPEN {
            return Look::TooMany;
        }
        if !shared.shares.take(address) {
            return Look::TooManyOfAddress;
        }
        let (sender, answer) = watch::channel(None);
        shared.open.insert(question, answer.clone());
        Look::New(sender, answer)
    }

    /// Asks, remembers, and tells those who wait.
    async fn answer(
        self: Arc<Self>,
        question: Question,
        address: Option<Network>,
        credential: Credential,
        channels: Vec<String>,
        sender: watch::Sender<Answer>,
    ) {
        // Its own end: who began it may have had less time left, and others have joined since.
        let asked = Deadline::from_now().before(GRACE).wait(async {
            let _permit = self.permits.acquire().await;
            self.exchange(&credential, &channels).await
        });
        let answer = match asked.await {
            Some(Ok(Some(claims))) => Ok(Arc::new(claims)),
            Some(Ok(None)) => Err(Failure::Denied),
            Some(Err(why)) => Err(self.failed(&why)),
            None => Err(self.failed(&format!("it did not answer within {:?}", PATIENCE - GRACE))),
        };
        {
            let mut shared = self.shared();
            if let Ok(claims) = &answer {
                shared.cache.put(question, claims.clone());
            }
            shared.open.remove(&question);
            shared.shares.give_back(address);
        }
        sender.send_replace(Some(answer));
    }

    /// What the app says; `None`: it does not know the credential; else what it should mend.
    async fn exchange(&self, credential: &Credential, channels: &[String]) -> Result<Option<Claims>, String> {
        let mut request = Request::post("/")
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json");
        for (name, value) in [(AUTHORIZATION, &credential.authorization), (COOKIE, &credential.cookie)] {
            if let Some(value) = value {
                let mut value = value.clone();
                value.set_sensitive(true);
                request = request.header(name, value);
            }
        }
        let body = serde_json::to_vec(&Body { channels }).map_err(|error| error.to_string())?;
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        let answer = self.client.send(&self.url, request, MAX_ANSWER).await;
        let (parts, body) = answer.map_err(|error| error.to_string())?;
        match parts.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
            // To the same page over TLS: that is the app's doing, whoever asks.
            status if status.is_redirection() && self.url.moves_to_tls(parts.headers.get(LOCATION)) => {
                return Err(
                    "it redirects to https: let it answer this path over http (Rails: `ssl_options`, or \
                            `assume_ssl`)"
                        .into(),
                );
            }
            // To the page where one signs in.
            status if status.is_redirection() => return Ok(None),
            status => {
                return Err(format!(
                    "its answer is {}: let it answer 200 with claims, or 401 or 403",
                    status.as_u16()
                ));
            }
        }
        let members = members::parse(&body)
            .ok_or("its answer is not a JSON object: let it answer {\"exp\":…,\"sub\":…,\"channels\":[…]}")?;
        match Claims::answering(members, channels, SystemTime::now()) {
            Ok(claims) if claims.size() > MAX_KEPT => {
                Err("its answer lists more than 1 MiB once read: let it list less".into())
            }
            Ok(claims) => Ok(Some(claims)),
            Err(Failure::NoExpiry) => Err("its answer has no `exp`: let it say until when it counts".into()),
            Err(Failure::Expired(_)) => {
                Err("the `exp` of its answer is over: let it lie ahead, and compare clocks".into())
            }
            Err(failure) => Err(format!("its answer is of no use: {failure}")),
        }
    }

    fn count_refused(&self) {
        self.counts.refused_questions.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the operator what to mend, now and then, and the client that it must wait.
    fn failed(&self, why: &str) -> Failure {
        let others = {
            let mut shared = self.shared();
            if shared.told.is_some_and(|told| told.elapsed() < TELL) {
                shared.untold += 1;
                return LATE;
            }
            shared.told = Some(Instant::now());
            std::mem::take(&mut shared.untold)
        };
        tracing::warn!(url = %self.url, why, others_since = others, "the app cannot be asked who may read (access.ask)");
        LATE
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        // Nothing that could panic happens under it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a question stands.
enum Look {
    Known(Arc<Claims>),
    Asked(watch::Receiver<Answer>),
    New(watch::Sender<Answer>, watch::Receiver<Answer>),
    TooLate,
    TooMany,
    TooManyOfAddress,
}

/// What a client is told whose address asks too much. The operator has nothing to mend.
const CROWDED: Failure = Failure::Unavailable("too many clients of this address are being asked about");

/// All that a client learns of it.
const LATE: Failure = Failure::Unavailable("the app did not answer as it should");
