//! Builds everything from a config, and runs until drained.
//!
//! One thread hears key events (the feed), one reads values and appends them (the relay), one for each core serves clients,
//! and one answers operators; this one waits for signals and deals out connections. With a core of its own the feed keeps
//! up with a burst while the relay is busy. Where there are but two, the threads of clients have them both, and passing every
//! change from feed to relay would only cost: then these two share a thread, and on a single core that of the clients.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::{oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::fanout::Stats;
use crate::hub::Hub;
use crate::process::files;
use crate::process::signals::{Hangups, Signal, Signals};
use crate::process::systemd::{Manager, Notifier, Watchdog};
use crate::server::{Beside, Live, Server, Terms, Work};
use crate::switches::{self, Switch};
use crate::upstream::feed::{self, FatalError, Plan};
use crate::upstream::topology::{self, Doubt};
use crate::upstream::{NodeId, reader};
use crate::{admin, limits, relay};
use listeners::Listeners;
use reload::{Reload, Running};

mod checks;
mod listeners;
pub mod reload;
mod supervised;

/// How long the upstream side may take to let go of its connections at the end; nothing is lost if it does not.
const GOODBYE: Duration = Duration::from_millis(500);

/// Most keys that wait to be taken where a test switched off that many may: one burst has more.
const FEW_DIRTY: usize = 20;

/// Descriptors beside those of clients that are served: of clients that are told there is no place, of operators, of the
/// servers behind, and of the process itself.
const OTHERS: usize = limits::TOLD + 256;

/// Runs until a signal asks to end and every stream was ended, or the drain time has passed. A second signal ends it at
/// once, and is what is returned then. `manager` is told how it stands. `reload`: how the config is read again, at SIGHUP too.
///
/// # Errors
/// If it cannot listen, if the server's notifications are refused, or if a part breaks down; it is drained then too.
pub fn run(config: Config, manager: Manager, reload: Reload) -> anyhow::Result<Option<Signal>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Manager {
        notifier,
        watchdog,
        sockets,
    } = manager;
    let listeners = sockets.map_err(anyhow::Error::from);
    let listeners = listeners.and_then(|sockets| listeners::open(&config, sockets));
    let done = listeners.and_then(|listeners| runtime.block_on(serve(config, listeners, &notifier, watchdog, reload)));
    if let Err(error) = &done {
        supervised::failed(&notifier, error);
    }
    done
}

async fn serve(
    config: Config,
    Listeners { public, admin }: Listeners,
    notifier: &Notifier,
    watchdog: Option<Watchdog>,
    reload: Reload,
) -> anyhow::Result<Option<Signal>> {
    switches::check().map_err(anyhow::Error::msg)?;
    let signals = Signals::catch().context("cannot catch signals")?;
    let hangups = Hangups::catch().context("cannot catch signals")?;
    let mut served = config.server.clone();
    served.limits.connections = room_for(served.limits.connections);
    let upstream = config.upstream.clone();
    let (topology, endpoint) = (upstream.topology.clone(), upstream.endpoint.clone());
    let needs = relay::needs(
        &config.mappings,
        upstream.source,
        &topology,
        endpoint.db,
        upstream.notifications,
    );
    admin::announce(&admin);
    let stats = Arc::new(Stats::default());
    let loops = stats.loops.clone();
    let doubt = Doubt::default();
    let (catalog, intake, relay) = relay::new(relay::Options {
        rules: config.mappings.clone(),
        timeout: reader::TIMEOUT,
        verify: upstream.verify,
        doubt: doubt.clone(),
        max_dirty: match switches::off(Switch::Room) {
            // Of more no channel could be whole anyway.
            false => relay::MAX_DIRTY.min(config.mirror.keys),
            true => FEW_DIRTY,
        },
        limits: config.mirror,
        turns: loops.add("relay"),
    })
    .map_err(|errors| anyhow::anyhow!("mappings that a checked config does not have: {errors:?}"))?;
    let epoch = getrandom::u64().context("no random numbers to be had")?;
    let (hub, appender) = Hub::new(config.hub.clone(), epoch, catalog);

    let relayed = relay.stats();
    relayed.node(NodeId::FIRST, |node| {
        node.address = upstream.topology.place(&upstream.endpoint);
    });
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    // Whichever way this returns, the threads end.
    let _guard = stop.clone().drop_guard();
    let reviser = relay.reviser();
    let relaying = apart(relay.run(appender, stop.clone()));
    let relaying: Pin<Box<dyn Future<Output = ()> + Send>> = if cores() > 2 {
        let relay = start("relay", || relaying)?;
        // It fails only if the thread breaks down, and that is an end too.
        Box::pin(async { drop(relay.await) })
    } else {
        Box::pin(relaying)
    };
    let (plans, planned) = watch::channel(Plan {
        number: 0,
        subscriptions: needs.subscriptions.clone(),
    });
    let hearing = {
        let stop = stop.clone();
        let options = feed::Options {
            endpoint: upstream.endpoint,
            notifications: upstream.notifications,
            topics: true,
            strict: true,
        };
        let turns = loops.add("feed");
        move || async move {
            select! {
                ended = apart(topology::run(upstream.topology, options, planned, intake, doubt, stop)) => ended,
                () = relaying => Ok(()),
                never = turns.keep(Switch::FeedTurns) => match never {},
            }
        }
    };
    let (mut feed, beside) = if cores() > 1 {
        (start("feed", hearing)?, None)
    } else {
        let (ended, end) = oneshot::channel();
        let heard: Beside = Box::pin(async move { drop(ended.send(hearing().await)) });
        (end, Some(heard))
    };
    let mut signals = pin!(signals.follow(drain.clone()));
    let checks = async {
        checks::tell(&topology, &endpoint, &needs).await;
        pending::<Infallible>().await
    };
    let mut checks = pin!(checks);
    let sources = admin::Sources {
        hub: hub.clone(),
        fanout: stats.clone(),
        relay: relayed,
        reloads: reload.counts.clone(),
        started: SystemTime::now(),
        drain: drain.clone(),
    };
    // Those who watch are told of the drain as well.
    let watched = CancellationToken::new();
    let watching = start("admin", {
        let (sources, fanout) = (sources.clone(), config.fanout.clone());
        let (watched, stop) = (watched.clone(), stop.clone());
        move || async move {
            select! {
                served = admin::run(admin, sources, fanout, watched) => served,
                () = stop.cancelled() => Ok(()),
            }
        }
    })?;
    let drain_time = config.fanout.drain;
    let mut supervised = pin!(supervised::follow(notifier, watchdog, &sources, &loops, drain_time));
    let (files, certificates) = watch::channel(());
    let terms = Terms::new(&served, stats.limited.clone(), Handle::current());
    let live = Live::new(terms);
    let fanout = config.fanout.clone();
    let running = Running {
        next: config.mappings.len() as u32,
        config,
        plans,
        reviser,
        live: live.clone(),
    };
    let reloading = async {
        let hearing = hangups.follow(reload.asked.clone());
        tokio::join!(hearing, reload.follow(running, files));
    };
    let server = Server::open(public, served)?;
    let work = Work { hub, stats, beside };
    let serving = async {
        server.run(live, fanout, work, drain.clone(), certificates).await?;
        watched.cancelled().await;
        Ok(())
    };
    let mut server = pin!(async {
        select! {
            served = serving => served,
            () = reloading => Ok(()),
            failed = watching => match failed {
                Ok(failed) => failed.context("cannot accept admin connections"),
                Err(_) => Err(anyhow::anyhow!("the thread that answers operators broke down")),
            },
        }
    });

    let failed = select! {
        biased;
        signal = &mut signals => return Ok(Some(signal)),
        // Before the server, which has ended at once where nobody is connected.
        never = &mut supervised => match never {},
        served = &mut server => {
            served?;
            stop.cancel();
            // They are in the middle of a read at most, and keep nothing that would be missed. On a single core they have ended.
            if !feed.is_terminated() {
                let _ = timeout(GOODBYE, feed).await;
            }
            return Ok(None);
        }
        never = &mut checks => match never {},
        failed = failed(&mut feed, &drain) => failed,
    };
    tracing::info!("draining: a part of the relay cannot go on");
    drain.cancel();
    select! {
        biased;
        _ = &mut signals => {}
        never = &mut supervised => match never {},
        _ = &mut server => {}
    }
    Err(failed)
}

/// Why the feed or the relay cannot go on. Where they share a thread the end of one is that of both. On a single core they end
/// with the thread that serves clients, which is no failure.
async fn failed(feed: &mut oneshot::Receiver<Result<(), FatalError>>, drain: &CancellationToken) -> anyhow::Error {
    match feed.await {
        Ok(Err(FatalError::Notifications(why))) => anyhow::anyhow!(why),
        Err(_) if drain.is_cancelled() => pending().await,
        Ok(Ok(())) | Err(_) => anyhow::anyhow!("the feed or the relay broke down"),
    }
}

/// For how many of these connections there are descriptors; the others would keep even the admin listener from answering.
fn room_for(connections: usize) -> usize {
    let wanted = connections.saturating_add(OTHERS);
    let room = usize::try_from(files::make_room(wanted as u64)).unwrap_or(usize::MAX);
    if room >= wanted {
        return connections;
    }
    let fitting = room.saturating_sub(OTHERS).max(1);
    // Nobody asked for the default: what fits is as good, and is no fault.
    match connections == limits::Options::default().connections {
        true => tracing::info!(
            fitting,
            open_files = room,
            "as many connections are allowed as files may be open"
        ),
        false => tracing::warn!(
            connections,
            fitting,
            open_files = room,
            wanted,
            "the system does not let the process open enough files for `connections` of [limits]: raise LimitNOFILE \
             (ulimit -Hn) to what is wanted, or lower `connections`"
        ),
    }
    fitting
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// Lets a future be a task of its thread, woken for itself alone. It ends when this is dropped.
async fn apart<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    match AbortOnDropHandle::new(spawn_local(future)).await {
        Ok(output) => output,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Runs a future on a thread of its own. The receiver fails if the thread breaks down.
fn start<F: Future + 'static>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<oneshot::Receiver<F::Output>>
where
    F::Output: Send + 'static,
{
    let (ended, end) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            // What it sets apart becomes a task of this set.
            let done = LocalSet::new().block_on(&runtime, apart(make()));
            // Nobody waits any more after a second signal.
            let _ = ended.send(done);
        })
        .with_context(|| format!("cannot start the thread of the {name}"))?;
    Ok(end)
}
