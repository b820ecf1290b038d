//! The URL of a server, `redis://…`, `rediss://…` or `redis+unix://…`, or of several.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::upstream::{Address, Topology};
use parts::{database, decode, tcp, userinfo};

mod parts;
mod several;

/// The port that servers take when nobody says otherwise.
const PORT: u16 = 6379;

/// What stands before `://`, and what it says.
struct Scheme {
    name: &'static str,
    form: Form,
    /// Whether the connection is encrypted.
    tls: bool,
}

/// What follows a scheme.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A host and its port.
    Host,
    /// The path of a Unix socket.
    Socket,
    /// Sentinels, and the name of the primary.
    Sentinel,
    /// Nodes of a cluster.
    Cluster,
}

const SCHEMES: [Scheme; 7] = [
    Scheme {
        name: "redis",
        form: Form::Host,
        tls: false,
    },
    Scheme {
        name: "rediss",
        form: Form::Host,
        tls: true,
    },
    Scheme {
        name: "redis+unix",
        form: Form::Socket,
        tls: false,
    },
    Scheme {
        name: "redis-sentinel",
        form: Form::Sentinel,
        tls: false,
    },
    Scheme {
        name: "rediss-sentinel",
        form: Form::Sentinel,
        tls: true,
    },
    Scheme {
        name: "redis-cluster",
        form: Form::Cluster,
        tls: false,
    },
    Scheme {
        name: "rediss-cluster",
        form: Form::Cluster,
        tls: true,
    },
];

/// Schemes that other programs take for what has another name here.
const ALIASES: [(&str, &str); 7] = [
    ("unix", "redis+unix"),
    ("redis+socket", "redis+unix"),
    ("redis-socket", "redis+unix"),
    ("redis+ssl", "rediss"),
    ("redis+tls", "rediss"),
    ("redis+sentinel", "redis-sentinel"),
    ("redis+cluster", "redis-cluster"),
];

/// What a URL looks like, for messages.
const EXAMPLES: &str = "write url = \"redis://127.0.0.1:6379/0\", \"rediss://:PASSWORD@host\" for TLS, or \
    \"redis+unix:///run/redis/redis.sock?db=0\"";

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// Where the server is; of several it does not count.
    pub(crate) address: Address,
    pub(crate) topology: Topology,
    /// Whether the connection is encrypted.
    pub(crate) tls: bool,
    pub(crate) db: u32,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

/// What is wrong with a URL; nothing of it is repeated, for it may hold a password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UrlError {
    /// The bytes of the text that are wrong.
    pub(crate) at: Range<usize>,
    pub(crate) label: String,
    pub(crate) why: Option<&'static str>,
    pub(crate) instead: String,
}

impl Default for Url {
    /// A server beside keyrelay, as its packages install it.
    fn default() -> Url {
        Url {
            address: Address::Tcp {
                host: "127.0.0.1".into(),
                port: PORT,
            },
            topology: Topology::Server,
            tls: false,
            db: 0,
            username: None,
            password: None,
        }
    }
}

impl fmt::Display for Url {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match (&self.topology, &self.address) {
            (Topology::Server, Address::Tcp { .. }) => Form::Host,
            (Topology::Server, Address::Unix(_)) => Form::Socket,
            (Topology::Sentinel(_), _) => Form::Sentinel,
            (Topology::Cluster(_), _) => Form::Cluster,
        };
        let scheme = SCHEMES
            .iter()
            .find(|scheme| scheme.form == form && scheme.tls == self.tls);
        write!(f, "{}://", scheme.map_or("redis", |scheme| scheme.name))?;
        if self.username.is_some() || self.password.is_some() {
            let password = if self.password.is_some() { ":(secret)" } else { "" };
            write!(f, "{}{password}@", self.username.as_deref().unwrap_or_default())?;
        }
        match (&self.topology, &self.address) {
            (Topology::Server, Address::Unix(_)) => write!(f, "{}?db={}", self.address, self.db),
            (Topology::Server, Address::Tcp { .. }) => write!(f, "{}/{}", self.address, self.db),
            (Topology::Sentinel(sentinels), _) => {
                write!(f, "{}/{}?db={}", list(&sentinels.addresses), sentinels.name, self.db)
            }
            (Topology::Cluster(seeds), _) => f.write_str(&list(seeds)),
        }
    }
}

fn list(addresses: &[Address]) -> String {
    let addresses: Vec<String> = addresses.iter().map(Address::to_string).collect();
    addresses.join(",")
}

/// Reads `redis[s]://[user[:password]@]host[:port][/db]` or `redis+unix://[user[:password]@]/path[?db=N]`, or what is read
/// in [`several`].
pub(crate) fn parse(text: &str) -> Result<Url, UrlError> {
    let Some(scheme_end) = text.find("://") else {
        let label = if text.is_empty() { "empty" } else { "no scheme" };
        // What might hold a password is not repeated.
        let meant = format!("redis://{text}");
        return Err(match parse(&meant) {
            Ok(_) if !text.contains('@') => wrong(0..text.len(), label, format!("write url = \"{meant}\"")),
            _ => wrong(0..text.len(), label, EXAMPLES),
        });
    };
    let scheme = scheme(text, scheme_end)?;
    let rest = scheme_end + 3;
    let authority_end = text[rest..].find(['/', '?', '#']).map_or(text.len(), |end| rest + end);
    // The last `@` before the path: what people put into a password unencoded is often an `@`.
    let (user, host) = match text[rest..authority_end].rfind('@') {
        Some(at) => (Some(rest..rest + at), rest + at + 1),
        None => (None, rest),
    };
    let (username, password) = match user {
        Some(range) => userinfo(text, range)?,
        None => (None, None),
    };
    let url = Url {
        tls: scheme.tls,
        username,
        password,
        ..Url::default()
    };
    Ok(match scheme.form {
        Form::Socket => {
            let (address, db) = socket(text, host)?;
            Url { address, db, ..url }
        }
        Form::Host => Url {
            address: tcp(text, host..authority_end, PORT)?,
            db: database_of_path(text, authority_end, scheme)?,
            ..url
        },
        Form::Sentinel => {
            let (topology, db) = several::sentinel(text, host..authority_end)?;
            Url { topology, db, ..url }
        }
        Form::Cluster => Url {
            topology: several::cluster(text, host..authority_end)?,
            ..url
        },
    })
}

/// The scheme that ends at `end`.
fn scheme(text: &str, end: usize) -> Result<&'static Scheme, UrlError> {
    let written = text[..end].to_ascii_lowercase();
    let find = |name: &str| SCHEMES.iter().find(|scheme| scheme.name == name);
    if let Some(scheme) = find(&written) {
        return Ok(scheme);
    }
    if let Some((_, name)) = ALIASES.iter().find(|(alias, _)| *alias == written) {
        return Err(wrong(
            0..end,
            "not what this is called here",
            match find(name).map(|scheme| scheme.form) {
                Some(Form::Socket) => format!("write \"{name}:///path/to/socket?db=0\""),
                Some(Form::Sentinel) => format!("write \"{name}://host:26379/NAME\""),
                _ => format!("write \"{name}://host:6379/0\""),
            },
        ));
    }
    let known: Vec<String> = SCHEMES.iter().map(|scheme| format!("{}://", scheme.name)).collect();
    let known = known.join(", ");
    Err(wrong(
        0..end,
        format!("not one of the schemes that keyrelay knows: {known}"),
        EXAMPLES,
    ))
}

/// `/path[?db=N]`, from `start` on.
fn socket(text: &str, start: usize) -> Result<(Address, u32), UrlError> {
    let (path, query) = match text[start..].split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&text[start..], None),
    };
    let end = start + path.len();
    if !path.starts_with('/') || path.len() < 2 {
        return Err(wrong(
            start..end,
            "not the absolute path of a socket",
            "write \"redis+unix:///run/redis/redis.sock\", with three slashes",
        ));
    }
    let db = match query {
        None => 0,
        Some(query) => {
            let at = end + 1..text.len();
            let number = query.strip_prefix("db=").ok_or_else(|| {
                let label = "not a parameter that keyrelay knows";
                wrong(at.clone(), label, "write ?db=N, or nothing")
            })?;
            database(number, at)?
        }
    };
    Ok((Address::Unix(PathBuf::from(decode(text, start..end)?)), db))
}

/// `[/db]`, from `start` on, where the host has ended.
fn database_of_path(text: &str, start: usize, scheme: &Scheme) -> Result<u32, UrlError> {
    match &text[start..] {
        "" | "/" => Ok(0),
        tail if tail.starts_with('/') => database(&tail[1..], start + 1..text.len()),
        _ => Err(wrong(
            start..text.len(),
            "not a parameter that keyrelay knows",
            format!(
                "write {}://host:port/DB, and a `?` or `#` of a password as %3F or %23",
                scheme.name
            ),
        )),
    }
}

fn wrong(at: Range<usize>, label: impl Into<String>, instead: impl Into<String>) -> UrlError {
    UrlError {
        at,
        label: label.into(),
        why: None,
        instead: instead.into(),
    }
}

#[cfg(test)]
mod tests;
