//! Listeners, HTTP requests, and the hand-over of a stream's socket to a shard.
//!
//! One accept loop a listener deals connections out to the threads, one for each core. A thread's connections are read by
//! hyper; once a request for a stream was checked, its socket leaves hyper before any answer and goes to the thread's
//! shard. So hyper does what it is good at (reading strangers' heads), and an idle stream costs none of its buffers. Over
//! TLS a pipe stands for the socket, and over HTTP/2 for the body that hyper sends: the shard does not see the difference.

mod accept;
mod answer;
mod connection;
mod credentials;
mod door;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod handshake;
mod holder;
mod http2;
mod io;
mod listen;
mod origin;
mod proxy_protocol;
mod query;
mod refusals;
mod refuse;
mod request;
mod route;
mod secured;
mod side;
mod snapshot;
mod terms;
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzzing needs the hub alone"))]
mod testing;
#[cfg(test)]
mod tests;
mod thread;
pub mod tls;
mod visit;
mod visitor;

use std::future::pending;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access;
use crate::fanout::{self, Stats};
use crate::hub::Hub;
use crate::limits::{self, Limits};
pub use answer::Answer;
pub use credentials::Places;
use door::Door;
use gate::Gate;
pub use gate::JUDGED_AT_ONCE;
pub use listen::{Accepted, ListenError, Listener};
use request::Desk;
pub use side::{Front, Side};
pub use snapshot::MAX_BODIES;
pub use terms::{Live, Terms};
use thread::Parts;
use tls::{Keeper, Tls};
pub use visitor::{ClientAddress, Visitors};

/// What a thread that serves clients carries besides.
pub type Beside = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Most threads: a log has one bit for each shard.
const MAX_THREADS: usize = 64;

/// What the threads may take beyond the drain to end themselves; then the process ends without them.
const GRACE: Duration = Duration::from_millis(200);

/// What the public listeners need to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; at least one.
    pub listen: Vec<Address>,
    /// Prefix of all public URLs: starts with `/`, has no `/` at its end, so the root is the empty string.
    pub path: String,
    /// Origins other than the server's own whose pages may connect, as browsers write them (`https://app.example.com`), or `*`.
    pub origins: Vec<String>,
    /// Where clients show their credentials.
    pub places: Places,
    /// Whose credentials count.
    pub access: access::Options,
    /// Who speaks for whom.
    pub visitors: Visitors,
    /// How a request may begin.
    pub head: Head,
    /// What clients may take together.
    pub limits: limits::Options,
    /// How the listeners at TCP addresses are encrypted; None: not at all. Unix sockets never are.
    pub tls: Option<Tls>,
}

/// What becomes another thing while clients are served.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Who is let in, and as whom.
    pub live: Live,
    /// What TCP connections are encrypted with; None: they are not.
    pub tls: Option<Arc<Keeper>>,
}

/// What the threads that serve clients work on.
pub struct Work {
    /// The channels.
    pub hub: Arc<Hub>,
    /// Counts what is done.
    pub stats: Arc<Stats>,
    /// With something to carry besides, one thread does everything, accepting included; what it carries ends with it.
    pub beside: Option<Beside>,
}

/// What the head of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its bytes; of the URL alone no more than 64 KiB can be parsed.
    pub size: usize,
    /// The time for all of it, which is also how long a connection may wait for its next request.
    pub timeout: Duration,
}

impl Default for Head {
    /// What counts where a config says nothing.
    fn default() -> Head {
        Head {
            // A thousand channels of usual length in the URL, which cannot be parsed if it is longer.
            size: 64 << 10,
            // Slow heads must not hold descriptors for long.
            timeout: Duration::from_secs(10),
        }
    }
}

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address; port 0 takes any free port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The public listeners, open and said to be.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    options: Options,
    tls: Option<Arc<Keeper>>,
}

impl Server {
    /// Serves at these listeners, which it takes in place of `options.listen`; says on stdout where that is (a line each:
    /// `listening http://127.0.0.1:7400`). Whoever connects from now on waits until it runs.
    ///
    /// # Errors
    /// If a file is of no use.
    pub fn open(listeners: Vec<Listener>, options: Options) -> anyhow::Result<Server> {
        let tls = options.tls.clone().map(Keeper::new).transpose();
        let tls = tls.context("`tls` of [server]")?.map(Arc::new);
        announce(&listeners, &options.path, tls.is_some());
        Ok(Server {
            listeners,
            options,
            tls,
        })
    }

    /// Serves until drained, by the terms of `live`. When `reload` tells so, files are read again that may have changed.
    ///
    /// # Errors
    /// If a thread cannot be started, or one breaks down.
    pub async fn run(
        self,
        live: Live,
        fanout: fanout::Options,
        work: Work,
        drain: CancellationToken,
        reload: watch::Receiver<()>,
    ) -> anyhow::Result<()> {
        let Server {
            listeners,
            options,
            tls,
        } = self;
        let kept = Kept { live, tls: tls.clone() };
        let keeping = async {
            match &tls {
                Some(tls) => tls.keep(reload).await,
                None => pending().await,
            }
        };
        tokio::select! {
            served = serve(listeners, options, kept, fanout, work, drain) => served,
            () = keeping => Ok(()),
        }
    }
}

/// Binds all addresses; none is left bound if one cannot be.
///
/// # Errors
/// If an address cannot be listened at; it says what to do.
pub fn bind(addresses: &[Address]) -> Result<Vec<Listener>, ListenError> {
    addresses.iter().map(Listener::bind).collect()
}

/// Scripts wait for these lines, so they are the same whatever the log looks like.
fn announce(listeners: &[Listener], path: &str, tls: bool) {
    let scheme = if tls { "https" } else { "http" };
    let mut stdout = std::io::stdout().lock();
    for listener in listeners {
        let line = match listener.address() {
            Address::Tcp(address) => format!("listening {scheme}://{address}{path}"),
            address @ Address::Unix(_) => format!("listening {address}"),
        };
        // A closed stdout is no reason not to serve.
        let _ = writeln!(stdout, "{line}");
    }
    let _ = stdout.flush();
}

/// Serves at these listeners until drained: then they are closed, every stream is ended, and this returns when all have
/// gone or [`fanout::Options::drain`] has passed. Of the options those count that `kept` does not hold.
///
/// # Errors
/// If a thread cannot be started, or one breaks down.
pub async fn serve(
    listeners: Vec<Listener>,
    options: Options,
    kept: Kept,
    fanout: fanout::Options,
    work: Work,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let Kept { live, tls } = kept;
    let Work { hub, stats, beside } = work;
    let (deadline, write_timeout) = (fanout.drain + GRACE, fanout.write_timeout);
    let limits = Limits::new(options.limits, stats.limited.clone());
    let door = Door::new(limits.clone(), live.clone());
    let parts = Parts {
        desk: Desk {
            path: options.path,
            gate: Gate::new(hub, live, limits.clone()),
            limits,
            channels: fanout.bounds.channels,
            drain: drain.clone(),
            front: None,
        },
        head: options.head,
        tls,
        fanout,
        stats: stats.clone(),
    };
    let alone = beside.is_some();
    let threads = match alone {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS)),
    };
    let (connections, queues): (Vec<_>, Vec<_>) = (0..threads).map(|_| thread::queue()).unzip();
    let mut carried: Vec<Beside> = beside.into_iter().collect();
    // Whichever way this returns, what it started ends.
    let guard = drain.clone().drop_guard();
    // Each says how many connections it cut off.
    let mut tasks: JoinSet<anyhow::Result<usize>> = JoinSet::new();
    for mut listener in listeners {
        listener
            .limit_sends(write_timeout)
            .context("cannot set up a listener")?;
        let door = door.clone();
        let admit = move |stream| door.admit(stream);
        let accepting = accept::accept(listener, admit, connections.clone(), drain.clone());
        let accepting = async { accepting.await.context("cannot accept connections").map(|()| 0) };
        if !alone {
            tasks.spawn(accepting);
            continue;
        }
        let (tell, told) = oneshot::channel();
        carried.push(Box::pin(async { drop(tell.send(accepting.await)) }));
        // Where the thread has ended before, it says itself why.
        tasks.spawn(async { told.await.unwrap_or(Ok(0)) });
    }
    drop(connections);
    for (number, queue) in queues.into_iter().enumerate() {
        let ended = thread::start(number, parts.clone(), queue, std::mem::take(&mut carried));
        let ended = ended.context("cannot start a thread to serve clients")?;
        tasks.spawn(async { ended.await.context("a thread that serves clients broke down") });
    }

    let began = async {
        drain.cancelled().await;
        Instant::now()
    };
    let began = began.shared();
    let all = async {
        let mut cut_off = 0;
        while let Some(result) = tasks.join_next().await {
            cut_off += result.context("a task of the server broke down")??;
        }
        let took = began.clone().await.elapsed();
        match (stats.sessions(), cut_off) {
            (0, 0) => tracing::info!(?took, "drained"),
            (streams, connections) => tracing::warn!(?took, streams, connections, "drained: these were cut off"),
        }
        anyhow::Ok(())
    };
    let late = async {
        began.clone().await;
        tokio::time::sleep(deadline).await;
    };
    let result = tokio::select! {
        biased;
        result = all => result,
        () = late => {
            tracing::warn!("threads did not end in time");
            Ok(())
        }
    };
    drop(guard);
    result
}
