//! A primary and a replica that three sentinels watch.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use super::eventually::eventually;
use super::resp::Reply;
use super::server::Server;
use crate::redis;

/// What the sentinels call the primary.
pub const NAME: &str = "keys";

/// Sentinels and what they watch.
pub struct Sentinel {
    /// The first of them begins as the primary.
    pub servers: [Server; 2],
    pub sentinels: Vec<Server>,
}

impl Sentinel {
    /// Starts them and waits until they know each other.
    #[track_caller]
    pub fn start() -> Sentinel {
        Sentinel::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same, all of them at this address of the machine and at no other.
    #[track_caller]
    pub fn start_at(host: IpAddr) -> Sentinel {
        let primary = Server::at(host, "");
        let port = primary.address().port();
        let replica = Server::at(host, &format!("replicaof {host} {port}"));
        eventually("the replica follows", || {
            info(&replica, "master_link_status").filter(|status| status == "up")
        });
        let sentinel = || {
            let config = format!(
                "sentinel monitor {NAME} {host} {port} 2\n\
                 sentinel down-after-milliseconds {NAME} 1000\n\
                 sentinel failover-timeout {NAME} 3000"
            );
            Server::sentinel(host, &config)
        };
        let sentinel = Sentinel {
            servers: [primary, replica],
            sentinels: vec![sentinel(), sentinel(), sentinel()],
        };
        for each in &sentinel.sentinels {
            eventually("the sentinel knows all others", || {
                let known = field(each, "num-other-sentinels")? == "2" && field(each, "num-slaves")? == "1";
                known.then_some(())
            });
        }
        sentinel
    }

    /// The URL for the config.
    pub fn url(&self) -> String {
        let mut url = "redis-sentinel://".to_owned();
        for (at, sentinel) in self.sentinels.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(url, "{comma}{}", sentinel.address()).expect("a string takes all");
        }
        format!("{url}/{NAME}")
    }

    /// Waits until this server is the primary in its own eyes and in those of all sentinels.
    #[track_caller]
    pub fn until_primary(&self, server: usize) {
        let server = &self.servers[server];
        eventually("the server is the primary", || {
            info(server, "role").filter(|role| role == "master")
        });
        let port = server.address().port().to_string();
        // Whoever was connected before it became one was sent away.
        server.forget();
        for each in &self.sentinels {
            eventually("the sentinel names it", || {
                field(each, "port").filter(|named| *named == port)
            });
        }
    }
}

/// A line of `INFO replication`.
pub fn info(server: &Server, name: &str) -> Option<String> {
    // Servers send everybody away when they change their role.
    let info = server.connect().command(&[b"INFO", b"replication"]).ok()?.text();
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(line, _)| *line == name).map(|(_, value)| value.to_owned())
}

/// What a sentinel says of the primary.
fn field(sentinel: &Server, name: &str) -> Option<String> {
    let Reply::Array(fields) = redis!(sentinel, "SENTINEL", "MASTER", NAME) else {
        panic!("SENTINEL MASTER gives a list");
    };
    let mut pairs = fields.chunks_exact(2);
    pairs.find(|pair| pair[0].text() == name).map(|pair| pair[1].text())
}
