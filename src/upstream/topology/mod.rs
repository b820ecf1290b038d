//! Where the servers are: at one address, wherever sentinels find the primary, or at every primary of a cluster.
//!
//! Each node has a feed of its own. What is found may change at any time: then the feed of that node closes its
//! connection, which is a gap, and connects to where its server is now.
//!
//! * `sentinel`: asks the sentinels
//! * `cluster`: asks the nodes of a cluster, and shares the slots out
//! * `nodes`: what a node of a cluster says of all of them
//! * `asked`: a server that is asked again and again
//! * `location`: what a feed is told of it
//! * `slots`: which node a key is on

use std::sync::Arc;

use tokio::{
    select,
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    Address, Endpoint, NodeId,
    feed::{self, FatalError, Listener, Plan},
};

mod asked;
mod cluster;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod location;
mod nodes;
mod sentinel;
pub mod slots;

pub use location::Location;
pub use sentinel::Sentinels;
pub use slots::Slots;

/// How the servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server, at the address of the endpoint.
    Server,
    /// The primary that sentinels name.
    Sentinel(Sentinels),
    /// All primaries of a cluster, some nodes of which are at these addresses.
    Cluster(Vec<Address>),
}

impl Topology {
    /// The servers that have the keys now, each with the login of `endpoint`.
    ///
    /// # Errors
    /// Why nobody tells, in a sentence for each who was asked.
    pub async fn servers(&self, endpoint: &Endpoint) -> Result<Vec<Endpoint>, String> {
        let addresses = match self {
            Topology::Server => vec![endpoint.address.clone()],
            Topology::Sentinel(sentinels) => vec![sentinel::primary(sentinels, endpoint).await?],
            Topology::Cluster(seeds) => cluster::primaries(seeds, endpoint).await?,
        };
        let at = |address| Endpoint {
            address,
            ..endpoint.clone()
        };
        Ok(addresses.into_iter().map(at).collect())
    }

    /// Where the keys are looked for, in words.
    pub fn place(&self, endpoint: &Endpoint) -> String {
        match self {
            Topology::Server => endpoint.address.to_string(),
            Topology::Sentinel(sentinels) => {
                format!("the primary `{}` of {}", sentinels.name, list(&sentinels.addresses))
            }
            Topology::Cluster(seeds) => format!("the cluster of {}", list(seeds)),
        }
    }
}

/// Hears all that the feeds of all nodes have to say. Everything is called on the feeds' thread.
pub trait Ears: Send + 'static {
    /// Hears the feed of one node.
    type Ear: Listener;

    /// The ear for the feed of a node.
    fn ear(&self, node: NodeId) -> Self::Ear;

    /// Which node has which slots from now on.
    fn slots(&self, slots: Slots);
}

/// Says that what is known of the servers may be old: a server answered that a key is elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Doubt(Arc<Notify>);

impl Doubt {
    /// Asks the servers at once.
    pub fn cast(&self) {
        self.0.notify_waiters();
    }

    async fn is_cast(&self) {
        self.0.notified().await;
    }
}

/// Hears what the last of `plans` says of all nodes and tells `ears`, whatever becomes of the servers, until `stop`. Of an endpoint whose
/// servers must be found, the address does not count.
///
/// # Errors
/// What an operator must change, see [`FatalError`]; not of nodes that are found later.
pub async fn run(
    topology: Topology,
    options: feed::Options,
    plans: watch::Receiver<Plan>,
    ears: impl Ears,
    doubt: Doubt,
    stop: CancellationToken,
) -> Result<(), FatalError> {
    let first = ears.ear(NodeId::FIRST);
    match topology {
        Topology::Server => feed::run(options, Location::Fixed, plans, first, stop).await,
        Topology::Sentinel(sentinels) => {
            let (found, location) = location::found();
            select! {
                never = sentinel::follow(sentinels, options.endpoint.clone(), found) => match never {},
                ended = feed::run(options, location, plans, first, stop) => ended,
            }
        }
        Topology::Cluster(seeds) => cluster::follow(seeds, options, plans, ears, doubt, stop).await,
    }
}

fn list(addresses: &[Address]) -> String {
    let addresses: Vec<String> = addresses.iter().map(Address::to_string).collect();
    addresses.join(", ")
}
