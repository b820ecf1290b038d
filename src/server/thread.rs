//! One thread: the requests of its connections, and the shard that their streams go to.

use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;

use super::connection::{self, Site};
use super::door::Arrival;
use super::request::Desk;
use super::tls::Keeper;
use super::{Beside, Head};
use crate::fanout::{self, Stats, shard};

/// Connections that wait for their thread. More than the accept loop takes in a turn, and few enough that a thread which is
/// behind leaves the others to the other threads and then to the kernel's backlog.
const QUEUE: usize = 256;

/// What gives a thread connections, and what it takes them from.
pub fn queue() -> (mpsc::Sender<Arrival>, mpsc::Receiver<Arrival>) {
    mpsc::channel(QUEUE)
}

/// What a thread is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Answers requests; its token is what begins the drain.
    pub desk: Desk,
    /// How a request may begin.
    pub head: Head,
    /// What TCP connections are encrypted with, if they are.
    pub tls: Option<Arc<Keeper>>,
    /// For the shard.
    pub fanout: fanout::Options,
    /// Counts what all shards do.
    pub stats: Arc<Stats>,
}

/// Starts the thread of this number, which serves what comes from its queue. It ends by itself once drained, at most
/// [`fanout::Options::drain`] later, and with it whatever it carries `beside`. Then it tells how many connections were cut off
/// in that; an error means that it broke down.
pub fn start(
    number: usize,
    parts: Parts,
    incoming: mpsc::Receiver<Arrival>,
    beside: Vec<Beside>,
) -> std::io::Result<oneshot::Receiver<usize>> {
    let (tell, ended) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("shard-{number}"))
        .spawn(move || {
            // All in one set: what one of them tells another is done without a look at the sockets between.
            let tasks = LocalSet::new();
            let carried = TaskTracker::new();
            for task in beside {
                carried.spawn_local_on(task, &tasks);
            }
            let serving = tasks.spawn_local(serve(parts, incoming));
            match tasks
                .block_on(&runtime, serving)
                .unwrap_or_else(|error| Err(error.into()))
            {
                // Nobody listens only where the process ends anyway.
                Ok(cut_off) => drop(tell.send(cut_off)),
                Err(error) => tracing::error!(%error, "a thread that serves clients broke down"),
            }
        })?;
    Ok(ended)
}

async fn serve(parts: Parts, mut incoming: mpsc::Receiver<Arrival>) -> anyhow::Result<usize> {
    let Parts {
        desk,
        head,
        tls,
        fanout,
        stats,
    } = parts;
    let (write_timeout, lifetime, deadline) = (fanout.write_timeout, fanout.bounds.lifetime, fanout.drain);
    let drain = desk.drain.clone();
    // Spreads moments only; without randomness the shards have theirs together.
    let seed = getrandom::u64().unwrap_or_default();
    let (shard, handle) = shard(fanout, desk.gate.hub(), stats, seed)?;
    // All tasks of this thread begin with it; the drain waits for them.
    let tasks = TaskTracker::new();
    let site = Rc::new(Site {
        desk: Rc::new(desk),
        shard: handle.clone(),
        head,
        write_timeout,
        lifetime,
        tls,
        tasks: tasks.clone(),
        closing: drain.clone(),
    });
    let mut shard = tasks.spawn_local(shard.run());
    // Boxed, because what a task holds itself is moved about several times when it is spawned, and allocated aligned to 128
    // bytes: glibc does not use the room of one that has gone for the next, so each had left a hole of its size among what its
    // stream leaves behind.
    let begin = |arrival| drop(tasks.spawn_local(Box::pin(connection::serve(arrival, site.clone()))));
    loop {
        let arrival = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            result = &mut shard => {
                result?;
                anyhow::bail!("the shard ended before the drain");
            }
            arrival = incoming.recv() => arrival,
        };
        // The listeners are closed only in a drain, which is about to be seen.
        let Some(arrival) = arrival else {
            drain.cancelled().await;
            break;
        };
        begin(arrival);
    }
    handle.drain();
    tasks.close();
    let rest = async {
        // What was accepted is told to come back; the accept loops are about to end.
        while let Some(arrival) = incoming.recv().await {
            begin(arrival);
        }
        tasks.wait().await;
    };
    let _ = tokio::time::timeout(deadline, rest).await;
    // The shard is no connection; how many streams it still has, `Stats` says.
    Ok(tasks.len() - usize::from(!shard.is_finished()))
}
