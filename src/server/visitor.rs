//! Whom a request comes from: the peer of the connection, or whoever a listed proxy says it speaks for.

use ipnet::IpNet;

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
