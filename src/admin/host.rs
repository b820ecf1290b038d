//! By which name a request came here, and whether a page of a stranger may stand behind it.

use std::net::IpAddr;

use crate::server::Address;

/// Who may reach the listener.
///
/// A stranger's page can have its own name lead to any address that its visitor's browser can reach (DNS rebinding), and is
/// then of the same origin as what listens there. It cannot change the name, and the browser writes it into `Host`. So what
/// is asked for by an address, or as `localhost`, is no stranger's page; by any other name it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only programs of this machine that can open a file: no browser does.
    Socket,
    /// Programs of this machine, browsers among them. Nothing there needs another name.
    Loopback,
    /// Other machines, whose probes and scrapers may know it by a name.
    Network,
}

impl Reach {
    /// Of a listener at this address.
    pub fn of(address: &Address) -> Reach {
        match address {
            Address::Unix(_) => Reach::Socket,
            Address::Tcp(address) if address.ip().to_canonical().is_loopback() => Reach::Loopback,
            Address::Tcp(_) => Reach::Network,
        }
    }

    /// Whether a request with this `Host` is answered; `for_machines`: it is for what probes and scrapers ask, where there
    /// are numbers and no names of channels.
    pub fn admits(self, host: Option<&str>, for_machines: bool) -> bool {
        match self {
            Reach::Socket => true,
            Reach::Network if for_machines => true,
            // Browsers always send it.
            Reach::Loopback | Reach::Network => host.is_none_or(is_own),
        }
    }
}

/// Whether no stranger can have this name lead elsewhere: it is an address, or reserved for this machine (RFC 6761 §6.3).
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    if inner.unwrap_or(name).parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_nobody_elses() {
        for own in [
            "127.0.0.1",
            "127.0.0.1:7401",
            "[::1]:7401",
            "[::1]",
            "10.0.0.1:9091",
            "localhost",
            "LocalHost:7401",
            "localhost.:7401",
            "relay.localhost:1",
        ] {
            assert!(is_own(own), "{own}");
        }
        for strange in [
            "",
            ":7401",
            "evil.example",
            "evil.example:7401",
            "127.0.0.1.evil.example:7401",
            "localhost.evil.example",
            "notlocalhost:7401",
            "127.0.0.1:7401:80",
            "127.0.0.1@evil.example",
        ] {
            assert!(!is_own(strange), "{strange}");
        }
    }

    #[test]
    fn names_are_for_machines_on_the_network_only() {
        let reach = |text: &str| Reach::of(&Address::Tcp(text.parse().unwrap()));
        assert_eq!(reach("127.0.0.1:1"), Reach::Loopback);
        assert_eq!(reach("[::1]:1"), Reach::Loopback);
        assert_eq!(reach("[::ffff:127.0.0.1]:1"), Reach::Loopback);
        assert_eq!(reach("0.0.0.0:1"), Reach::Network);
        let name = Some("relay.internal:9091");
        assert!(Reach::Network.admits(name, true) && !Reach::Network.admits(name, false));
        assert!(!Reach::Loopback.admits(name, true) && Reach::Loopback.admits(None, false));
        assert!(Reach::Socket.admits(name, false));
    }
}
