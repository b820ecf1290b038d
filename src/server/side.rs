//! A listener beside the public ones: the streams of a hub of its own, and somebody else's answers to all other requests.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::http::request::Parts;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Head;
use super::accept::accept;
use super::answer::Answer;
use super::connection::{self, Site};
use super::door::Door;
use super::gate::Gate;
use super::listen::Listener;
use super::request::Desk;
use super::terms::Live;
use crate::fanout;
use crate::hub::Hub;
use crate::limits::{self, Limits};

/// Connections that are served at once while their requests are read; further ones wait. Probes and scrapers are few, and
/// must not take all descriptors. Those that have become streams do not count: the hub bounds them, and they keep nobody
/// from asking.
const MAX_CONNECTIONS: usize = 32;

/// No request here has a long head. Between two of a connection there is time for most intervals of scraping.
const HEAD: Head = Head {
    size: 16 << 10,
    timeout: Duration::from_secs(60),
};

/// An answer that is not taken within this time is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the requests that are for no stream.
pub trait Front: Debug + Send + Sync {
    /// The answer; `None` where the request is for the streams.
    fn answer<'a>(&'a self, request: &'a Parts) -> Pin<Box<dyn Future<Output = Option<Answer>> + 'a>>;
}

/// A listener beside the public ones. What its clients do is counted nowhere.
#[derive(Debug)]
pub struct Side {
    /// Where it listens.
    pub listener: Listener,
    /// Its channels. All that its catalog opens to everyone are open here.
    pub hub: Arc<Hub>,
    /// Answers all but `/events`.
    pub front: Arc<dyn Front>,
    /// How streams are served.
    pub fanout: fanout::Options,
    /// Ends the streams; the other requests are answered on.
    pub drain: CancellationToken,
    /// Cancelled here when the last stream has ended in the drain.
    pub ended: CancellationToken,
}

impl Side {
    /// Serves until it is dropped.
    ///
    /// # Errors
    /// If connections cannot be accepted, or the system grants no shard.
    pub async fn run(self) -> io::Result<()> {
        let Side {
            mut listener,
            hub,
            front,
            fanout,
            drain,
            ended,
        } = self;
        listener.limit_sends(WRITE_TIMEOUT)?;
        let limits = Limits::new(limits::Options::default(), Arc::default());
        let live = Live::default();
        let door = Door::new(limits.clone(), live.clone());
        let (channels, lifetime) = (fanout.bounds.channels, fanout.bounds.lifetime);
        let seed = getrandom::u64().unwrap_or_default();
        let (shard, handle) = fanout::shard(fanout, &hub, Arc::default(), seed)?;
        let site = Rc::new(Site {
            desk: Rc::new(Desk {
                path: String::new(),
                gate: Gate::new(hub, live, limits.clone()),
                limits,
                channels,
                drain: drain.clone(),
                front: Some(front),
            }),
            shard: handle.clone(),
            head: HEAD,
            write_timeout: WRITE_TIMEOUT,
            lifetime,
            tls: None,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        let (sender, mut incoming) = mpsc::channel(1);
        let admit = move |stream| door.admit(stream);
        let mut accepting = pin!(accept(listener, admit, vec![sender], CancellationToken::new()));
        let mut connections = FuturesUnordered::new();
        let (mut serving, mut is_serving) = (pin!(shard.run()), true);
        let (mut draining, mut is_draining) = (pin!(drain.cancelled()), false);
        loop {
            tokio::select! {
                biased;
                // What was appended before the drain is sent before it is heard of.
                () = &mut serving, if is_serving => {
                    is_serving = false;
                    ended.cancel();
                }
                () = &mut draining, if !is_draining => {
                    is_draining = true;
                    handle.drain();
                }
                failed = &mut accepting => return failed,
                Some(()) = connections.next(), if !connections.is_empty() => {}
                Some(arrival) = incoming.recv(), if connections.len() < MAX_CONNECTIONS => {
                    connections.push(connection::serve(arrival, site.clone()));
                }
            }
        }
    }
}
