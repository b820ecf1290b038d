//! A set of keys that is fetched in the background, and fetched again before it is old or when a token names a key that is
//! not in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderMap};
use hyper::{Request, StatusCode};
use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::Set;
use crate::access::http::{Client, Url};
use crate::access::key::Algorithm;

/// A hundred RSA keys with their certificates are smaller.
const MAX_SIZE: usize = 256 * 1024;

/// How often a set is fetched; tests are more impatient.
#[derive(Clone, Debug)]
pub(in crate::access) struct Pace {
    /// The oldest that a set gets.
    pub(super) max_age: Duration,
    /// `Cache-Control` cannot make us ask more often.
    pub(super) min_age: Duration,
    /// After a fetch no unknown `kid` brings about another one for this long: whoever makes up names must not make us ask.
    pub(super) cool_down: Duration,
    /// A fetch takes no longer.
    pub(super) patience: Duration,
    /// After a failed fetch: soon, since the app may be starting beside us …
    pub(super) first_retry: Duration,
    /// … and then ever more rarely.
    pub(super) last_retry: Duration,
}

impl Pace {
    /// Age, cool-down and patience are those of jose's `createRemoteJWKSet`, by which most tokens are checked.
    pub(in crate::access) const REAL: Pace = Pace {
        max_age: Duration::from_secs(600),
        min_age: Duration::from_secs(60),
        cool_down: Duration::from_secs(30),
        patience: Duration::from_secs(5),
        first_retry: Duration::from_secs(1),
        last_retry: Duration::from_secs(60),
    };
}

/// A set that is kept up to date. When the last clone is dropped, its fetching ends.
#[derive(Clone)]
pub(in crate::access) struct Fetched {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    cool_down: Duration,
}

/// What is known.
#[derive(Clone, Default)]
struct State {
    /// The last set that could be fetched.
    set: Option<Arc<Set>>,
    /// When the last fetch began.
    began: Option<Instant>,
    /// How many have ended.
    ended: u64,
    fetching: bool,
}

impl Fetched {
    /// Begins to fetch.
    pub(in crate::access) fn new(
        url: Url,
        algorithm: Option<Algorithm>,
        client: Client,
        pace: Pace,
        runtime: &Handle,
    ) -> Fetched {
        let (publish, state) = watch::channel(State {
            fetching: true,
            ..State::default()
        });
        let wanted = Arc::new(Notify::new());
        let fetched = Fetched {
            state,
            wanted: wanted.clone(),
            cool_down: pace.cool_down,
        };
        runtime.spawn(keep(url, algorithm, client, pace, publish, wanted));
        fetched
    }

    /// The set as it is, if there is one.
    pub(in crate::access) fn known(&self) -> Option<Arc<Set>> {
        self.state.borrow().set.clone()
    }

    /// The set as it is; waits for the first one while it is on its way, which is not longer than a fetch may take.
    pub(in crate::access) async fn set(&self) -> Option<Arc<Set>> {
        if let Some(set) = self.known() {
            return Some(set);
        }
        let mut state = self.state.clone();
        let arrived = state.wait_for(|state| state.set.is_some() || !state.fetching).await;
        arrived.ok()?.set.clone()
    }

    /// The set after it was fetched anew, because something was not in the one of before; `None` if it was fetched just
    /// now, or cannot be.
    pub(in crate::access) async fn fresher(&self) -> Option<Arc<Set>> {
        let (seen, fetching, recent) = {
            let state = self.state.borrow();
            let recent = state.began.is_some_and(|began| began.elapsed() < self.cool_down);
            (state.ended, state.fetching, recent)
        };
        if !fetching {
            if recent {
                return None;
            }
            self.wanted.notify_one();
        }
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| state.ended > seen).await;
        ended.ok()?.set.clone()
    }
}

/// Fetches until nobody wants it any more.
async fn keep(
    url: Url,
    algorithm: Option<Algorithm>,
    client: Client,
    pace: Pace,
    publish: watch::Sender<State>,
    wanted: Arc<Notify>,
) {
    let mut retry = pace.first_retry;
    let mut failing = false;
    loop {
        let began = Instant::now();
        publish.send_modify(|state| {
            state.fetching = true;
            state.began = Some(began);
        });
        let fetched = match timeout(pace.patience, fetch(&url, algorithm, &client)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("it did not answer within {:?}", pace.patience)),
        };
        let next = match &fetched {
            Ok((set, age)) => {
                tell(&url, set, failing);
                retry = pace.first_retry;
                began + age.unwrap_or(pace.max_age).clamp(pace.min_age, pace.max_age)
            }
            Err(why) => {
                let keeps = publish.borrow().set.is_some();
                tracing::warn!(%url, why, keeps_the_last = keeps, "the keys of tokens cannot be fetched (jwks_url)");
                let next = Instant::now() + retry;
                retry = (retry * 2).min(pace.last_retry);
                next
            }
        };
        failing = fetched.is_err();
        publish.send_modify(|state| {
            state.fetching = false;
            state.ended += 1;
            if let Ok((set, _)) = fetched {
                state.set = Some(Arc::new(set));
            }
        });
        loop {
            select! {
                () = sleep_until(next) => break,
                () = publish.closed() => return,
                // Of those who wanted it at the same time only one is served: the others see what it brings.
                () = wanted.notified() => if began.elapsed() >= pace.cool_down { break },
            }
        }
    }
}

async fn fetch(url: &Url, algorithm: Option<Algorithm>, client: &Client) -> Result<(Set, Option<Duration>), String> {
    let request = Request::get("/").header(ACCEPT, "application/jwk-set+json, application/json");
    let request = request
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let answer = client.send(url, request, MAX_SIZE).await;
    let (parts, body) = answer.map_err(|error| error.to_string())?;
    match parts.status {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            return Err(format!(
                "it redirects ({}): write the URL that it leads to",
                status.as_u16()
            ));
        }
        status => return Err(format!("its answer is {}", status.as_u16())),
    }
    let set = Set::parse(&body, algorithm)?;
    Ok((set, age(&parts.headers)))
}

/// How long the answer says that it counts.
fn age(headers: &HeaderMap) -> Option<Duration> {
    let control = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let directives = control.unwrap_or_default().split(',').map(str::trim);
    let ages = directives.filter_map(|directive| match directive.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("max-age") => value.trim_matches('"').parse().ok(),
        None if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") => Some(0),
        _ => None,
    });
    ages.min().map(Duration::from_secs)
}

fn tell(url: &Url, set: &Set, failed_before: bool) {
    for why in &set.passed_over {
        tracing::debug!(%url, why, "a key of the set is passed over (jwks_url)");
    }
    if set.is_empty() {
        // It is well formed, and says that nobody's signature counts: so be it.
        let why = set.passed_over.first().copied().unwrap_or("it is empty");
        tracing::warn!(%url, why, "no key of the set is of use: no token counts (jwks_url)");
    } else if failed_before {
        tracing::info!(%url, keys = set.len(), "the keys of tokens can be fetched again (jwks_url)");
    }
}
