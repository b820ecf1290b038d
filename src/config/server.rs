//! `[server]`: addresses and path checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::compile::{Bounds, Compiler, Name};
use super::diagnostics::Problem;
use super::file;
use super::limits::Limits;
use super::origin::{From, Origin};
use super::reader::Written;
use super::room::Room;
use crate::server::{Address, Options, Places};
use crate::{access, fanout, hub};

/// Loopback only, so that nothing is open to a network before somebody says so.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7400);
/// Under the idle limits of common proxies (nginx and Fly: 60 s; some mobile networks: 30 s), even 20 % late.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Long enough for a phone that passes through a tunnel, short enough that what it pins is let go.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Fly kills a Machine 5 s after it asked for the end.
const DRAIN: Duration = Duration::from_secs(4);
/// Bounds what strangers can make by asking for names; an empty log is about 1 KiB, so this is about 100 MB.
const MAX_CHANNELS: usize = 100_000;
/// `sun_path` has 108 bytes, the last one a NUL (unix(7)).
const UNIX_PATH: usize = 107;

const HEARTBEAT_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::from_secs(1)..=Duration::from_secs(600),
    why: "more often than each second burdens every client, and proxies cut what was silent for minutes",
};
const WRITE_TIMEOUT_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::from_secs(1)..=Duration::from_secs(3600),
    why: "a client on a bad network may well pause for a second, and one that stalls pins memory until then",
};
const DRAIN_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::ZERO..=Duration::from_secs(600),
    why: "the process waits this long for its clients when it is asked to end",
};
const MAX_CHANNELS_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=100_000_000,
    why: "each channel costs memory, and without any there is nothing to serve",
};

fn name(option: &'static str) -> Name {
    Name {
        section: "server",
        option,
    }
}

impl Compiler<'_> {
    pub(crate) fn server(
        &mut self,
        file: &file::Server,
        limits: Limits,
        room: &Room,
        places: Places,
        access: access::Options,
    ) -> (Options, fanout::Options, hub::Options) {
        let listen = match &file.listen {
            Some(list) => self.listen(list),
            None => vec![Address::Tcp(self.port().unwrap_or(LISTEN))],
        };
        let path = file.path.as_ref().map(|path| self.path(path)).unwrap_or_default();
        let ambient = places.cookie.is_some() || places.asks;
        let origins = file
            .origins
            .as_ref()
            .map(|list| self.origins(list, ambient))
            .unwrap_or_default();
        let visitors = self.visitors(file);
        let heartbeat = self.duration(name("heartbeat"), file.heartbeat.as_ref(), HEARTBEAT, &HEARTBEAT_BOUNDS);
        let write_timeout = self.duration(
            name("write_timeout"),
            file.write_timeout.as_ref(),
            WRITE_TIMEOUT,
            &WRITE_TIMEOUT_BOUNDS,
        );
        let drain = self.duration(name("drain"), file.drain.as_ref(), DRAIN, &DRAIN_BOUNDS);
        let max_channels = self.number(
            name("max_channels"),
            file.max_channels.as_ref(),
            MAX_CHANNELS,
            &MAX_CHANNELS_BOUNDS,
        );
        let tls = file.tls.as_ref().and_then(|file| self.server_tls(file, &listen));
        (
            Options {
                listen,
                path,
                origins,
                places,
                access,
                visitors,
                head: limits.head,
                limits: limits.shared,
                tls,
            },
            fanout::Options {
                heartbeat,
                write_timeout,
                drain,
                bounds: limits.stream,
                pinned: room.pinned,
            },
            room.hub(max_channels),
        )
    }

    /// Where `PORT` says to listen: platforms that set it expect the port on every address of the machine.
    fn port(&mut self) -> Option<SocketAddr> {
        let text = (self.environment)("PORT").filter(|text| !text.is_empty())?;
        let Ok(port) = text.parse::<u16>() else {
            self.problems.add(
                Problem::elsewhere("the environment variable PORT", "`PORT` is not a port")
                    .why("it counts because the file has no `listen`; a port is a number from 0 to 65535")
                    .instead("write listen = [\"127.0.0.1:7400\"] under [server], or set PORT to a number"),
            );
            return None;
        };
        let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        self.origin.push(Origin {
            option: "server.listen".into(),
            value: format!("[\"{address}\"]"),
            from: From::Environment("PORT"),
        });
        Some(address)
    }

    fn listen(&mut self, list: &Written<Vec<Written<String>>>) -> Vec<Address> {
        if list.value.is_empty() {
            self.problems.add(
                Problem::new(list.at, "`listen` is empty", "no address")
                    .why("nobody could connect")
                    .instead("write listen = [\"127.0.0.1:7400\"]"),
            );
        }
        let mut found: Vec<(Address, &Written<String>)> = Vec::new();
        for written in &list.value {
            match self.address(written, LISTEN.port()) {
                Ok(address) => match found
                    .iter()
                    .find(|(other, _)| *other == address && !takes_any_port(other))
                {
                    Some((_, first)) => self.problems.add(
                        Problem::new(written.at, "the same address twice", "again here")
                            .and(first.at, "first here")
                            .why("an address can be taken only once")
                            .instead("leave one out"),
                    ),
                    None => found.push((address, written)),
                },
                Err(problem) => self.problems.add(problem),
            }
        }
        let addresses: Vec<Address> = found.into_iter().map(|(address, _)| address).collect();
        if addresses != [Address::Tcp(LISTEN)] {
            let shown = list
                .value
                .iter()
                .map(|written| format!("\"{}\"", written.value))
                .collect::<Vec<_>>()
                .join(", ");
            let variables = list
                .value
                .iter()
                .flat_map(|written| written.variables.clone())
                .collect();
            let written = Written {
                value: (),
                at: list.at,
                variables,
                verbatim: None,
            };
            self.note(name("listen"), &written, format!("[{shown}]"));
        }
        addresses
    }

    /// `usual` is the port to advise.
    pub(super) fn address(&self, written: &Written<String>, usual: u16) -> Result<Address, Problem> {
        let text = written.value.as_str();
        let wrong = |label: &str| Problem::new(written.at, "not an address to listen at", label);
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///run/x` is how URLs are written; the extra slashes name the same file.
            let path = self.resolve(written.at, path.strip_prefix("//").unwrap_or(path));
            let length = path.as_os_str().len();
            return if path.file_name().is_none() {
                Err(wrong("no file is named").instead("write \"unix:/run/keyrelay/relay.sock\""))
            } else if length > UNIX_PATH {
                Err(wrong(&format!("{length} bytes"))
                    .why(format!(
                        "the system takes at most {UNIX_PATH} bytes as the path of a socket"
                    ))
                    .instead("choose a shorter path, e.g. below /run"))
            } else {
                Ok(Address::Unix(path))
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Address::Tcp(address));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        Err(if text.contains("://") {
            wrong("a URL")
                .why("the address alone is needed")
                .instead(format!("write \"127.0.0.1:{usual}\""))
        } else if text.starts_with('/') {
            wrong("a path").instead(format!("for a Unix socket write \"unix:{text}\""))
        } else if let Ok(port) = text.parse::<u16>() {
            wrong("a port alone").instead(format!(
                "write \"127.0.0.1:{port}\" for this machine only, \"[::]:{port}\" for every address"
            ))
        } else if host.parse::<Ipv6Addr>().is_ok() && port.len() > 2 && port.parse::<u16>().is_ok() {
            wrong("an IPv6 address without brackets").instead(format!("write \"[{host}]:{port}\""))
        } else if text.parse::<IpAddr>().is_ok() {
            let address = if text.contains(':') {
                format!("[{text}]")
            } else {
                text.to_owned()
            };
            wrong("no port").instead(format!("write \"{address}:{usual}\""))
        } else if host.is_empty() || host == "*" {
            let port = port.parse().unwrap_or(usual);
            wrong("no address").instead(format!(
                "write \"127.0.0.1:{port}\" for this machine only, \"[::]:{port}\" for every address"
            ))
        } else if port.parse::<u16>().is_err() {
            wrong("the port is not a number from 0 to 65535").instead(format!("write \"127.0.0.1:{usual}\""))
        } else {
            wrong("a host name")
                .why("a name can stand for several addresses, and which one is listened at must be certain")
                .instead(format!("write the address, e.g. \"127.0.0.1:{port}\""))
        })
    }

    fn path(&mut self, written: &Written<String>) -> String {
        let path = written.value.trim_end_matches('/');
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()+,;=:@".contains(&byte);
        let wrong = if !written.value.starts_with('/') {
            Some((
                "does not begin with `/`",
                format!("write \"/{}\"", path.trim_start_matches('/')),
            ))
        } else if let Some(bad) = path.chars().find(|c| !c.is_ascii() || !allowed(*c as u8)) {
            let label = if bad == '?' || bad == '#' {
                "more than a path"
            } else {
                "a character that URLs do not hold"
            };
            Some((label, "use letters, digits and `-._~` between the slashes".to_owned()))
        } else if path
            .split('/')
            .skip(1)
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            Some((
                "an empty, `.` or `..` part",
                "write it without, e.g. \"/keyrelay\"".to_owned(),
            ))
        } else {
            None
        };
        if let Some((label, instead)) = wrong {
            self.problems.add(
                Problem::new(written.at, "`path` is not the prefix of a URL's path", label)
                    .why("browsers ask for this prefix followed by /events, /ws or /channels")
                    .instead(instead),
            );
            return String::new();
        }
        if !path.is_empty() {
            self.note(name("path"), written, format!("\"{path}\""));
        }
        path.to_owned()
    }
}

pub(super) fn takes_any_port(address: &Address) -> bool {
    matches!(address, Address::Tcp(address) if address.port() == 0)
}
