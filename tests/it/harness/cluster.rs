//! A cluster: primaries that share the slots, and replicas.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::ops::Range;

use super::eventually::eventually;
use super::resp::{Reply, Resp};
use super::server::{Data, Server};
use crate::redis;

const SLOTS: usize = 16_384;

/// A cluster of at least three primaries. Those come first in `nodes`, then the replicas.
pub struct Cluster {
    pub nodes: Vec<Server>,
    primaries: usize,
}

impl Cluster {
    /// Starts three primaries with a third of the slots each, and a replica of each of the first so many.
    #[track_caller]
    pub fn start(replicas: usize) -> Cluster {
        Cluster::start_at(Ipv4Addr::LOCALHOST.into(), replicas)
    }

    /// The same, all of them at this address of the machine and at no other.
    #[track_caller]
    pub fn start_at(host: IpAddr, replicas: usize) -> Cluster {
        let cluster = Cluster {
            nodes: (0..3 + replicas).map(|_| node(host)).collect(),
            primaries: 3,
        };
        for (at, node) in cluster.nodes.iter().enumerate() {
            redis!(node, "CLUSTER", "SET-CONFIG-EPOCH", (at + 1).to_string());
        }
        for (at, node) in cluster.nodes[..3].iter().enumerate() {
            slots(node, "ADDSLOTS", SLOTS * at / 3..SLOTS * (at + 1) / 3);
        }
        for at in 1..cluster.nodes.len() {
            cluster.meet(at);
        }
        for at in 0..replicas {
            cluster.follow(3 + at, at);
        }
        cluster.until_whole();
        cluster
    }

    /// Adds a primary without slots; gives its place in `nodes`.
    #[track_caller]
    pub fn add(&mut self) -> usize {
        let at = self.nodes.len();
        let host = self.nodes[0].address().ip();
        self.nodes.push(node(host));
        self.meet(at);
        self.until_whole();
        at
    }

    #[track_caller]
    fn meet(&self, at: usize) {
        let first = self.nodes[0].address();
        let node = &self.nodes[at];
        redis!(
            node,
            "CLUSTER",
            "MEET",
            first.ip().to_string(),
            first.port().to_string()
        );
    }

    #[track_caller]
    fn follow(&self, replica: usize, primary: usize) {
        let id = self.id(primary);
        eventually("the replica knows its primary", || {
            let knows = redis!(self.nodes[replica], "CLUSTER", "NODES").text().contains(&id);
            knows.then_some(())
        });
        redis!(self.nodes[replica], "CLUSTER", "REPLICATE", id);
    }

    /// Waits until every node knows all others and that all slots are served.
    #[track_caller]
    pub fn until_whole(&self) {
        for node in &self.nodes {
            eventually("the cluster is whole", || {
                let info = redis!(node, "CLUSTER", "INFO").text();
                let says = |line: &str| info.lines().any(|each| each == line);
                let all = says(&format!("cluster_known_nodes:{}", self.nodes.len()));
                let nodes = redis!(node, "CLUSTER", "NODES").text();
                let calm = !nodes.contains("fail") && !nodes.contains("handshake");
                (all && calm && says("cluster_state:ok")).then_some(())
            });
        }
        for replica in self
            .nodes
            .iter()
            .filter(|node| super::sentinel::info(node, "role").is_some_and(|role| role == "slave"))
        {
            eventually("the replica follows", || {
                super::sentinel::info(replica, "master_link_status").filter(|status| status == "up")
            });
        }
    }

    /// The URL for the config.
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes[..self.primaries]
            .iter()
            .map(|node| node.address().to_string())
            .collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// The name of a node in the cluster.
    #[track_caller]
    pub fn id(&self, node: usize) -> String {
        redis!(self.nodes[node], "CLUSTER", "MYID").text()
    }

    #[track_caller]
    pub fn slot(&self, key: &str) -> u16 {
        let node = self.nodes.iter().find(|node| node.runs()).expect("a node runs");
        match redis!(node, "CLUSTER", "KEYSLOT", key) {
            Reply::Integer(slot) => slot as u16,
            other => panic!("{other:?}"),
        }
    }

    /// Keys that begin with `prefix` and whose slots are among the third of this primary, at the start.
    #[track_caller]
    pub fn keys(&self, prefix: &str, primary: usize, count: usize) -> Vec<String> {
        let keys = (0..).map(|number| format!("{prefix}{number}"));
        let own = keys.filter(|key| usize::from(self.slot(key)) * 3 / SLOTS == primary);
        own.take(count).collect()
    }

    /// Runs a command on the node that has its key, which is its second word.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Reply {
        self.try_run(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Like [`run`](Cluster::run), where it may be that nobody has the key.
    pub fn try_run(&self, words: &[&str]) -> Result<Reply, String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut asking = false;
        let first = self.nodes.iter().find(|node| node.runs()).expect("a node runs");
        let mut address = first.address();
        for _ in 0..5 {
            let told = |error: std::io::Error| error.to_string();
            let mut node = Resp::connect(address).map_err(told)?;
            if std::mem::take(&mut asking) {
                node.command(&[b"ASKING"]).map_err(told)?;
            }
            match node.command(&words).map_err(told)? {
                Reply::Error(error) if error.starts_with("MOVED ") || error.starts_with("ASK ") => {
                    asking = error.starts_with("ASK ");
                    let (_, to) = error.rsplit_once(':').expect("a redirection names a port");
                    address.set_port(to.parse().expect("a port is a number"));
                }
                Reply::Error(error) => return Err(error),
                reply => return Ok(reply),
            }
        }
        Err("sent from node to node".to_owned())
    }

    /// Begins to move a slot.
    #[track_caller]
    pub fn begin_to_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        redis!(self.nodes[to], "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(from));
        redis!(self.nodes[from], "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(to));
    }

    /// Moves a key of a slot that is being moved.
    #[track_caller]
    pub fn move_key(&self, key: &str, from: usize, to: usize) {
        let to = self.nodes[to].address();
        redis!(
            self.nodes[from],
            "MIGRATE",
            to.ip().to_string(),
            to.port().to_string(),
            key,
            "0",
            "5000"
        );
    }

    /// Moves what is left of a slot, and says to all primaries that it was moved.
    #[track_caller]
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let number = slot.to_string();
        loop {
            let Reply::Array(keys) = redis!(self.nodes[from], "CLUSTER", "GETKEYSINSLOT", number, "100") else {
                panic!("CLUSTER GETKEYSINSLOT gives a list");
            };
            if keys.is_empty() {
                break;
            }
            for key in keys {
                self.move_key(&key.text(), from, to);
            }
        }
        for node in [to, from] {
            redis!(self.nodes[node], "CLUSTER", "SETSLOT", number, "NODE", self.id(to));
        }
    }
}

fn node(host: IpAddr) -> Server {
    loop {
        let mut server = Server::away_at(host);
        // The nodes talk to each other at a port that follows from the other.
        let bus = server.address().port() + 10_000;
        if TcpListener::bind((host, bus)).is_ok() {
            server.add_config("cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout 1000");
            server.restart(Data::Lost);
            return server;
        }
    }
}

/// Runs this subcommand of `CLUSTER` for these slots.
#[track_caller]
fn slots(node: &Server, subcommand: &str, slots: Range<usize>) {
    let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
    let mut words: Vec<&dyn AsRef<[u8]>> = vec![&"CLUSTER", &subcommand];
    words.extend(slots.iter().map(|slot| slot as &dyn AsRef<[u8]>));
    node.run(&words);
}

/// Gives all slots to a node that is the only one, or takes them from it, and waits until it is a cluster that is up, or down.
#[track_caller]
pub fn own_all_slots(node: &Server, owned: bool) {
    let (subcommand, state) = match owned {
        true => ("ADDSLOTS", "cluster_state:ok"),
        false => ("DELSLOTS", "cluster_state:fail"),
    };
    slots(node, subcommand, 0..SLOTS);
    eventually(state, || {
        redis!(node, "CLUSTER", "INFO").text().contains(state).then_some(())
    });
}
