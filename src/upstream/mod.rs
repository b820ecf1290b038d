//! The way to each server: the feed of its key events and the reader of its values.
//!
//! * `feed`: hears key events and the flush signal, in order, and turns every way of losing events into a gap
//! * `reader`: reads values and scans keys
//! * `topology`: where the servers are
//! * `plan`: what to subscribe to
//! * `probe`: whether a server and its user let us do all that
//! * `tls`: what makes a connection trusted
//! * `link`: a connection that sends commands and takes replies and pushes apart
//! * `wire`: the bytes of those
//! * `info`: the server's own account of itself

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub mod feed;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod info;
mod link;
pub mod plan;
pub mod probe;
pub mod reader;
pub mod tls;
pub mod topology;
pub mod wire;

pub use info::{Info, ServerInfo};
pub(crate) use link::{Link, LinkError};
pub use plan::{Source, Subscriptions};
pub use tls::Tls;
pub use topology::{Sentinels, Topology};

/// One server and one database of it, and who connects.
#[derive(Clone)]
pub struct Endpoint {
    /// Where the server listens.
    pub address: Address,
    /// How the connection is encrypted; None is not at all, as it always is over a Unix socket.
    pub tls: Option<Tls>,
    /// Number of the database, 0 being the first.
    pub db: u32,
    /// User of the server's ACL; None is its `default` user.
    pub username: Option<String>,
    /// Password of the user; None logs in as nobody.
    pub password: Option<String>,
    /// What `CLIENT LIST` shows on the server; without blanks.
    pub client_name: String,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A name or an IP address (an IPv6 one without brackets), resolved anew at each connect.
    Tcp {
        /// The name or IP address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Number of one of the upstream nodes: primaries that hold the keys together, each its part. Where there is but one
/// server it is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The one that is always there.
    pub const FIRST: NodeId = NodeId(0);
}

impl Endpoint {
    /// The same server at the very address where it was reached. What its certificate is of stays what it was.
    pub fn reached(&self, address: Address) -> Endpoint {
        let mut tls = self.tls.clone();
        if let (Some(tls), Address::Tcp { host, .. }) = (&mut tls, &self.address) {
            tls.server_name.get_or_insert_with(|| host.clone());
        }
        Endpoint {
            address,
            tls,
            ..self.clone()
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Debug for Endpoint {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("tls", &self.tls)
            .field("db", &self.db)
            .field("username", &self.username)
            .field("client_name", &self.client_name)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Address {
    /// As in a URL: `host:port`, `[::1]:6379`, or the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Endpoint {
    /// The `redis-cli` command that talks to this server, for messages that say what to run. It logs nobody in.
    pub(crate) fn command_line(&self) -> String {
        let mut line = match &self.address {
            Address::Tcp { host, port } if host == "127.0.0.1" || host == "localhost" => format!("redis-cli -p {port}"),
            Address::Tcp { host, port } => format!("redis-cli -h {host} -p {port}"),
            Address::Unix(path) => format!("redis-cli -s {}", path.display()),
        };
        let Some(tls) = &self.tls else { return line };
        line.push_str(" --tls");
        let mut add = |option: &str, file: &Path| line.push_str(&format!(" {option} {}", file.display()));
        if let Some(file) = &tls.ca_file {
            add("--cacert", file);
        }
        if let Some(identity) = &tls.identity {
            add("--cert", &identity.certificate_file);
            add("--key", &identity.key_file);
        }
        line
    }

    /// The command that gives whoever logs in here some more rights, for messages that say what to run.
    pub(crate) fn grant(&self, rights: &str) -> String {
        format!("ACL SETUSER {} {rights}", self.username.as_deref().unwrap_or("default"))
    }
}
