//! What operators and their tools ask: whether it lives, whether it is ready, what it counts, how it stands.
//!
//! It has a listener of its own, so that none of this is ever open to those whom the public listener serves.
//!
//! * `desk`: answers requests, the dashboard's page among them
//! * `host`: by which names it may be asked
//! * `health`: `/livez` and `/readyz`
//! * `metrics`: `/metrics`
//! * `status`: `/status`, and the same in a line; `channels`: those it names; `process`: what it takes of the machine
//! * `streams`: the same, as channels for the dashboard

mod channels;
mod desk;
mod health;
mod host;
mod metrics;
mod process;
mod status;
mod streams;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::server::{Address, Listener, Side};
use crate::tally::Reloads;
use crate::{fanout, relay};

use desk::Desk;
use host::Reach;
use metrics::Metrics;
pub use status::line;
use streams::Streams;

/// What the admin listener needs to know from the config.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: Address,
}

/// Those who know what is asked for.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The channels.
    pub hub: Arc<Hub>,
    /// The clients.
    pub fanout: Arc<fanout::Stats>,
    /// The mirror and the upstream nodes.
    pub relay: Arc<relay::Stats>,
    /// How the reloads of the config ended.
    pub reloads: Arc<Reloads>,
    /// When the process began to serve.
    pub started: SystemTime,
    /// Cancelled when the drain begins.
    pub drain: CancellationToken,
}

/// Says on stdout where it listens (`admin http://127.0.0.1:7401`).
pub fn announce(listener: &Listener) {
    let mut stdout = io::stdout().lock();
    let line = match listener.address() {
        Address::Tcp(address) => format!("admin http://{address}"),
        address @ Address::Unix(_) => format!("admin {address}"),
    };
    // A closed stdout is no reason not to serve.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Answers until it is dropped, in a drain too; streams are served as `fanout` says and end in the drain, and `ended` is
/// cancelled when the last has.
///
/// # Errors
/// If connections cannot be accepted, or the system grants no shard.
pub async fn run(
    listener: Listener,
    sources: Sources,
    fanout: fanout::Options,
    ended: CancellationToken,
) -> io::Result<()> {
    let drained = CancellationToken::new();
    let (hub, streams) = Streams::new(sources.clone(), getrandom::u64()?);
    let side = Side {
        front: Arc::new(Desk {
            metrics: Metrics::new(sources.clone()),
            reach: Reach::of(listener.address()),
            sources,
        }),
        listener,
        hub,
        fanout,
        drain: drained.clone(),
        ended,
    };
    tokio::select! {
        biased;
        served = side.run() => served,
        () = streams.run(drained) => Ok(()),
    }
}
