//! The URL of a server: `redis://…` and `redis+unix://…`.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::upstream::Address;

/// The port that servers take when nobody says otherwise.
const PORT: u16 = 6379;
/// Schemes of later releases, and what they will mean.
const PLANNED: [(&str, &str); 3] = [
    ("rediss", "TLS to the server is planned for a later release"),
    (
        "redis-sentinel",
        "finding the primary through Sentinel is planned for a later release",
    ),
    ("redis-cluster", "following a cluster is planned for a later release"),
];
/// What a URL looks like, for messages.
const EXAMPLES: &str = "write url = \"redis://127.0.0.1:6379/0\", \"redis://:PASSWORD@host\" or \"redis+unix:///run/redis/redis.sock?db=0\"";

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) address: Address,
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
            db: 0,
            username: None,
            password: None,
        }
    }
}

impl fmt::Display for Url {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self.address, Address::Unix(_)) {
            "redis+unix://"
        } else {
            "redis://"
        })?;
        if self.username.is_some() || self.password.is_some() {
            let password = if self.password.is_some() { ":(secret)" } else { "" };
            write!(f, "{}{password}@", self.username.as_deref().unwrap_or_default())?;
        }
        match &self.address {
            Address::Unix(_) => write!(f, "{}?db={}", self.address, self.db),
            Address::Tcp { .. } => write!(f, "{}/{}", self.address, self.db),
        }
    }
}

/// Reads `redis://[user[:password]@]host[:port][/db]` or `redis+unix://[user[:password]@]/path[?db=N]`.
pub(crate) fn parse(text: &str) -> Result<Url, UrlError> {
    let wrong = |at: Range<usize>, label: &str, instead: &str| UrlError {
        at,
        label: label.into(),
        why: None,
        instead: instead.into(),
    };
    let Some(scheme_end) = text.find("://") else {
        let label = if text.is_empty() { "empty" } else { "no scheme" };
        // What might hold a password is not repeated.
        let meant = format!("redis://{text}");
        return Err(match parse(&meant) {
            Ok(_) if !text.contains('@') => wrong(0..text.len(), label, &format!("write url = \"{meant}\"")),
            _ => wrong(0..text.len(), label, EXAMPLES),
        });
    };
    let scheme = text[..scheme_end].to_ascii_lowercase();
    let unix = match scheme.as_str() {
        "redis" => false,
        "redis+unix" => true,
        "unix" | "redis+socket" | "redis-socket" => {
            return Err(wrong(
                0..scheme_end,
                "not the scheme of a Unix socket here",
                "write \"redis+unix:///path/to/socket?db=0\"",
            ));
        }
        _ => {
            let planned = PLANNED.iter().find(|(name, _)| *name == scheme);
            let label = if planned.is_some() {
                "not in this release"
            } else {
                "a scheme that keyrelay does not know"
            };
            let why = planned.map(|(_, what)| *what);
            return Err(UrlError {
                at: 0..scheme_end,
                label: label.into(),
                why,
                instead: EXAMPLES.into(),
            });
        }
    };
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
    if unix {
        let (path, query) = match text[host..].split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&text[host..], None),
        };
        if !path.starts_with('/') || path.len() < 2 {
            return Err(wrong(
                host..host + path.len(),
                "not the absolute path of a socket",
                "write \"redis+unix:///run/redis/redis.sock\", with three slashes",
            ));
        }
        let db = match query {
            None => 0,
            Some(query) => {
                let at = host + path.len() + 1..text.len();
                let number = query.strip_prefix("db=").ok_or_else(|| {
                    wrong(
                        at.clone(),
                        "not a parameter that keyrelay knows",
                        "write ?db=N, or nothing",
                    )
                })?;
                database(number, at)?
            }
        };
        let path = decode(text, host..host + path.len())?;
        return Ok(Url {
            address: Address::Unix(PathBuf::from(path)),
            db,
            username,
            password,
        });
    }
    let address = tcp(text, host..authority_end)?;
    let db = match &text[authority_end..] {
        "" | "/" => 0,
        tail if tail.starts_with('/') => database(&tail[1..], authority_end + 1..text.len())?,
        _ => {
            return Err(wrong(
                authority_end..text.len(),
                "not a parameter that keyrelay knows",
                "write redis://host:port/DB, and a `?` or `#` of a password as %3F or %23",
            ));
        }
    };
    Ok(Url {
        address,
        db,
        username,
        password,
    })
}

fn tcp(text: &str, range: Range<usize>) -> Result<Address, UrlError> {
    let wrong = |at: Range<usize>, label: &str, instead: &str| {
        Err(UrlError {
            at,
            label: label.into(),
            why: None,
            instead: instead.into(),
        })
    };
    let written = &text[range.clone()];
    let (host, port) = match written.rsplit_once(':') {
        Some((host, port)) if !written.ends_with(']') => (host, Some(port)),
        _ => (written, None),
    };
    let port = match port {
        None => PORT,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => {
                let at = range.end - port.len()..range.end;
                return wrong(
                    at,
                    "the port is not a number from 1 to 65535",
                    "write the port as in redis://host:6379, and a `/` in a password as %2F",
                );
            }
        },
    };
    let at = range.start..range.start + host.len();
    if host.is_empty() {
        return wrong(range, "no host", EXAMPLES);
    }
    if let Some(inner) = host.strip_prefix('[') {
        return match inner
            .strip_suffix(']')
            .filter(|inner| inner.parse::<Ipv6Addr>().is_ok())
        {
            Some(inner) => Ok(Address::Tcp {
                host: inner.into(),
                port,
            }),
            None => wrong(at, "not an IPv6 address", "write redis://[::1]:6379"),
        };
    }
    if host.contains(':') {
        return wrong(at, "an IPv6 address without brackets", "write redis://[::1]:6379");
    }
    if !host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    {
        return wrong(at, "not the name of a host", "names hold letters, digits, `.` and `-`");
    }
    Ok(Address::Tcp {
        host: host.into(),
        port,
    })
}

fn userinfo(text: &str, range: Range<usize>) -> Result<(Option<String>, Option<String>), UrlError> {
    let (name, password) = match text[range.clone()].find(':') {
        Some(colon) => (
            range.start..range.start + colon,
            Some(range.start + colon + 1..range.end),
        ),
        None => (range, None),
    };
    let name = decode(text, name)?;
    let password = password.map(|password| decode(text, password)).transpose()?;
    Ok((
        (!name.is_empty()).then_some(name),
        password.filter(|password| !password.is_empty()),
    ))
}

fn decode(text: &str, range: Range<usize>) -> Result<String, UrlError> {
    match percent_decode_str(&text[range.clone()]).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(UrlError {
            at: range,
            label: "not UTF-8 once decoded".into(),
            why: None,
            instead: "encode special characters as % and the two hexadecimal digits of each of their UTF-8 bytes"
                .into(),
        }),
    }
}

fn database(text: &str, at: Range<usize>) -> Result<u32, UrlError> {
    text.parse().map_err(|_| UrlError {
        at,
        label: "not the number of a database".into(),
        why: None,
        instead: "databases are numbered from 0: redis://host:6379/0".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn urls_are_understood() {
        let url = parse("redis://127.0.0.1:6379/0").unwrap();
        assert_eq!(
            url,
            Url {
                address: tcp("127.0.0.1", 6379),
                db: 0,
                username: None,
                password: None
            }
        );
        let url = parse("redis://app:p%40ss@db.internal/3").unwrap();
        assert_eq!(url.address, tcp("db.internal", 6379));
        assert_eq!(
            (url.username.as_deref(), url.password.as_deref(), url.db),
            (Some("app"), Some("p@ss"), 3)
        );
        let url = parse("redis://:a@b@[::1]:7000").unwrap();
        assert_eq!((url.address, url.password.as_deref()), (tcp("::1", 7000), Some("a@b")));
        let url = parse("redis+unix:///run/redis/my%20redis.sock?db=2").unwrap();
        assert_eq!(
            (url.address, url.db),
            (Address::Unix("/run/redis/my redis.sock".into()), 2)
        );
        assert_eq!(
            parse("redis+unix://:secret@/run/r.sock").unwrap().password.as_deref(),
            Some("secret")
        );
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (text, at) in [
            ("127.0.0.1:6379", "127.0.0.1:6379"),
            ("http://host", "http"),
            ("rediss://host", "rediss"),
            ("redis://", ""),
            ("redis://host:99999", "99999"),
            ("redis://host:0", "0"),
            ("redis://::1:6379", "::1"),
            ("redis://[::1:6379", "[::1"),
            ("redis://a b/0", "a b"),
            ("redis://host/one", "one"),
            ("redis://host?db=1", "?db=1"),
            ("redis+unix://run/redis.sock", "run/redis.sock"),
            ("redis+unix:///r.sock?database=1", "database=1"),
            ("redis://:%ff@host", "%ff"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(&text[error.at.clone()], at, "{error:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = parse("redis://app:hush@host:1/2").unwrap();
        assert_eq!(url.to_string(), "redis://app:(secret)@host:1/2");
        assert_eq!(parse(&Url::default().to_string()), Ok(Url::default()));
    }
}
