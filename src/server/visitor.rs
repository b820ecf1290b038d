//! Whom a request comes from: the peer of the connection, or whoever a listed proxy says it speaks for.

use std::fmt;
use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use ipnet::IpNet;

use crate::hub::Maker;

const FLY_CLIENT_IP: HeaderName = HeaderName::from_static("fly-client-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who speaks for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visitors {
    /// The proxies that are believed, by their addresses.
    pub proxies: Vec<IpNet>,
    /// Whether whoever connects over a Unix socket is believed.
    pub unix: bool,
    /// How they name the client.
    pub told: ClientAddress,
}

/// How the client's address is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAddress {
    /// It is the peer's.
    #[default]
    Peer,
    /// A listed proxy writes it into the header `Fly-Client-IP`.
    FlyClientIp,
    /// A listed proxy appends it to the header `X-Forwarded-For`.
    ForwardedFor,
    /// A listed proxy begins the connection with a PROXY header, of version 1 or 2.
    ProxyProtocol,
}

/// Whom a connection or a request comes from, as far as that can be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visitor {
    /// Nothing is known of who connects over a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether it is one client's address, so that the limits by address hold: a proxy named it, or it is one of the open
    /// internet. Behind any other there may be a proxy, all of whose clients would count as one.
    pub is_own: bool,
}

impl Visitor {
    /// Who connects, without anybody's word for it; `None` over a Unix socket.
    pub fn peer(address: Option<IpAddr>) -> Visitor {
        let address = address.map(|address| address.to_canonical());
        Visitor {
            address,
            is_own: address.is_some_and(is_of_the_internet),
        }
    }

    /// Whom a listed proxy named.
    pub fn told(address: IpAddr) -> Visitor {
        Visitor {
            address: Some(address.to_canonical()),
            is_own: true,
        }
    }

    /// The address by which it is limited, if it is.
    pub fn counted(self) -> Option<IpAddr> {
        self.address.filter(|_| self.is_own)
    }
}

impl From<Visitor> for Maker {
    /// Whom channels are put down to: addresses of one /64 of IPv6 are one.
    fn from(visitor: Visitor) -> Maker {
        match visitor.counted() {
            None => Maker::NOBODY,
            // Beside the networks of IPv6, of which none in use begins with 32 zeros.
            Some(IpAddr::V4(address)) => Maker(1 << 32 | u64::from(address.to_bits())),
            Some(IpAddr::V6(address)) => Maker(((address.to_bits() >> 64) as u64).max(1)),
        }
    }
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

impl Visitors {
    /// Whether this peer's word counts.
    pub fn believe(&self, peer: Visitor) -> bool {
        match (self.told, peer.address) {
            (ClientAddress::Peer, _) => false,
            (_, None) => self.unix,
            (_, Some(address)) => self.lists(address),
        }
    }

    /// Whom a believed peer names in a request with these headers. Nothing if it names nobody, or what it says cannot be
    /// read: then a stranger may have said it.
    pub fn named(&self, headers: &HeaderMap) -> Option<Visitor> {
        let address = match self.told {
            ClientAddress::Peer | ClientAddress::ProxyProtocol => None,
            ClientAddress::FlyClientIp => {
                let mut lines = headers.get_all(FLY_CLIENT_IP).iter();
                let only = lines.next().filter(|_| lines.next().is_none())?;
                only.to_str().ok()?.trim().parse().ok()
            }
            ClientAddress::ForwardedFor => self.forwarded(headers),
        };
        address.map(Visitor::told)
    }

    /// The last address that is not a listed proxy's: each proxy appends whom it heard the request from, and what stands
    /// before the first word of a stranger is the stranger's.
    fn forwarded(&self, headers: &HeaderMap) -> Option<IpAddr> {
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            for part in line.to_str().ok()?.rsplit(',') {
                let address = address(part.trim())?.to_canonical();
                if !self.lists(address) {
                    return Some(address);
                }
            }
        }
        None
    }

    fn lists(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&address))
    }
}

/// An address, in brackets and with a port where proxies write it so.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Whether it is an address that a single machine or customer has in the whole internet.
fn is_of_the_internet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            // RFC 6598: between a carrier and its customers, and within clusters and private networks of all kinds.
            let shared = address.octets()[0] == 100 && address.octets()[1] & 0b1100_0000 == 64;
            !(address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_unspecified()
                || shared)
        }
        IpAddr::V6(address) => {
            !(address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_unique_local()
                || address.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn visitors(told: ClientAddress) -> Visitors {
        Visitors {
            proxies: vec!["127.0.0.1/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
            unix: true,
            told,
        }
    }

    fn named(told: ClientAddress, headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        visitors(told).named(&map).map(|visitor| visitor.to_string())
    }

    #[test]
    fn only_listed_peers_are_believed() {
        let peer = |text: &str| Visitor::peer(Some(text.parse().unwrap()));
        let visitors = visitors(ClientAddress::ForwardedFor);
        for listed in ["127.0.0.1", "::ffff:127.0.0.1", "10.255.0.1"] {
            assert!(visitors.believe(peer(listed)), "{listed}");
        }
        for stranger in ["127.0.0.2", "11.0.0.1", "::1", "2001:db8::1"] {
            assert!(!visitors.believe(peer(stranger)), "{stranger}");
        }
        assert!(visitors.believe(Visitor::peer(None)));
        let none = Visitors::default();
        assert!(!none.believe(peer("127.0.0.1")) && !none.believe(Visitor::peer(None)));
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_clients() {
        let forwarded = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            named(ClientAddress::ForwardedFor, &lines)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(forwarded(&["203.0.113.9"]), some("203.0.113.9"));
        assert_eq!(forwarded(&["1.2.3.4, 203.0.113.9 ,10.0.0.1"]), some("203.0.113.9"));
        assert_eq!(forwarded(&["203.0.113.9", "10.0.0.1,127.0.0.1"]), some("203.0.113.9"));
        assert_eq!(forwarded(&["1.2.3.4", "203.0.113.9"]), some("203.0.113.9"));
        assert_eq!(forwarded(&["garbage, 203.0.113.9"]), some("203.0.113.9"));
        assert_eq!(forwarded(&["203.0.113.9:4711"]), some("203.0.113.9"));
        assert_eq!(forwarded(&["[2001:db8::9]:4711"]), some("2001:db8::9"));
        assert_eq!(forwarded(&["[2001:db8::9]"]), some("2001:db8::9"));
        assert_eq!(forwarded(&["::ffff:203.0.113.9"]), some("203.0.113.9"));
        for nobody in [
            &[][..],
            &[""],
            &["unknown"],
            &["203.0.113.9, _hidden"],
            &["203.0.113.9,"],
        ] {
            assert_eq!(forwarded(nobody), None, "{nobody:?}");
        }
        assert_eq!(forwarded(&["10.0.0.1, 127.0.0.1"]), None, "proxies alone");
    }

    #[test]
    fn only_the_header_that_the_proxy_writes_is_read() {
        let both = [("fly-client-ip", "203.0.113.1"), ("x-forwarded-for", "203.0.113.2")];
        assert_eq!(named(ClientAddress::FlyClientIp, &both).as_deref(), Some("203.0.113.1"));
        assert_eq!(
            named(ClientAddress::ForwardedFor, &both).as_deref(),
            Some("203.0.113.2")
        );
        assert_eq!(named(ClientAddress::ProxyProtocol, &both), None);
        assert_eq!(named(ClientAddress::Peer, &both), None);
        let twice = [("fly-client-ip", "203.0.113.1"), ("fly-client-ip", "203.0.113.2")];
        assert_eq!(named(ClientAddress::FlyClientIp, &twice), None);
    }

    #[test]
    fn behind_addresses_that_are_not_of_the_internet_may_be_a_proxy() {
        let counted = |text: &str| Visitor::peer(Some(text.parse().unwrap())).counted().is_some();
        for own in ["203.0.113.1", "100.128.0.1", "2001:db8::1", "::ffff:203.0.113.1"] {
            assert!(counted(own), "{own}");
        }
        for shared in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!counted(shared), "{shared}");
        }
        assert_eq!(Visitor::peer(None).counted(), None);
        assert!(Visitor::told("10.1.2.3".parse().unwrap()).counted().is_some());
    }

    proptest! {
        /// Whatever strangers sent, what the last proxy appended is what counts.
        #[test]
        fn a_stranger_cannot_name_itself(before in "[ -~]{0,60}", lines in 0..3_usize) {
            let mut map = HeaderMap::new();
            for _ in 0..lines {
                map.append("x-forwarded-for", before.parse().unwrap());
            }
            let last = format!("{before}, 203.0.113.9");
            map.append("x-forwarded-for", last.parse().unwrap());
            let named = visitors(ClientAddress::ForwardedFor).named(&map);
            prop_assert_eq!(named.unwrap().to_string(), "203.0.113.9");
        }
    }
}
