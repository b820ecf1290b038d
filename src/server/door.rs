//! Who is let in: at the listener where the client is the peer itself, at each request where a listed proxy names it.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use hyper::HeaderMap;

use super::io::Io;
use super::listen::Accepted;
use super::proxy_protocol::{self, Origin};
use super::terms::Live;
use super::visitor::{ClientAddress, Visitor, Visitors};
use crate::limits::{Limit, Limits, Permits};

/// Lets connections in.
#[derive(Clone, Debug)]
pub struct Door {
    limits: Arc<Limits>,
    live: Live,
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Arrival {
    /// Its socket.
    pub stream: Accepted,
    /// Who is at its other end.
    pub caller: Caller,
}

/// Who is at the other end of a connection, and what it holds.
#[derive(Debug)]
pub struct Caller {
    door: Door,
    peer: Visitor,
    /// Who speaks for whom, as it was when this came.
    visitors: Arc<Visitors>,
    /// Whether its word about others counts.
    is_believed: bool,
    refused: Option<Limit>,
    permits: Permits,
    has_asked: Cell<bool>,
}

/// Who makes a request, and what it holds for as long as it is served.
#[derive(Debug, Default)]
pub struct Guest {
    /// Who it is.
    pub visitor: Visitor,
    /// The limit that keeps it from being served.
    pub refused: Option<Limit>,
    /// Whether its connection takes no further request.
    pub is_last: bool,
    /// What it holds beside what its connection does; a stream keeps it as long as it lives.
    pub permits: Box<Permits>,
}

impl Door {
    pub fn new(limits: Arc<Limits>, live: Live) -> Door {
        Door { limits, live }
    }

    /// Lets a connection in, if only to tell it that there is no place for it; nothing if not even that can be done.
    pub fn admit(&self, stream: Accepted) -> Option<Arrival> {
        let caller = self.caller(Visitor::peer(stream.peer()))?;
        Some(Arrival { stream, caller })
    }

    fn caller(&self, peer: Visitor) -> Option<Caller> {
        let visitors = self.live.terms().visitors.clone();
        let mut caller = Caller {
            door: self.clone(),
            peer,
            is_believed: visitors.believe(peer),
            visitors,
            refused: None,
            permits: Permits::default(),
            has_asked: Cell::new(false),
        };
        caller.identify(peer)?;
        if caller.refused.is_none() {
            match self.limits.connection() {
                Ok(permit) => caller.permits.connection = Some(permit),
                Err(limit) => caller.refuse(limit)?,
            }
        }
        Some(caller)
    }
}

impl Caller {
    /// Whether a header of the PROXY protocol comes before the first request.
    pub fn is_announced(&self) -> bool {
        self.is_believed && self.visitors.told == ClientAddress::ProxyProtocol
    }

    /// Takes that header off the connection. Nothing if the client that it names is not let in.
    ///
    /// # Errors
    /// If there is none.
    pub async fn announce(&mut self, io: &mut Io) -> io::Result<Option<()>> {
        let origin = proxy_protocol::read(io).await?;
        self.is_believed = false;
        Ok(match origin {
            Origin::Client(address) if self.refused.is_none() => self.identify(Visitor::told(address)),
            Origin::Client(_) => Some(()),
            Origin::Proxy => {
                self.peer.is_own = false;
                Some(())
            }
        })
    }

    /// Who it is, as far as the connection tells.
    pub fn peer(&self) -> Visitor {
        self.peer
    }

    /// Whether it is here only to be told that there is no place for it.
    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Who makes the request with these headers.
    pub fn guest(&self, headers: &HeaderMap) -> Guest {
        self.guest_of(headers, false)
    }

    /// Who makes the request with these headers, while others of the same connection are served. Beyond the first each takes
    /// places as a connection does: a stream is one, whatever carries it.
    pub fn guest_beside(&self, headers: &HeaderMap) -> Guest {
        self.guest_of(headers, true)
    }

    fn guest_of(&self, headers: &HeaderMap, has_others: bool) -> Guest {
        let asked_before = self.has_asked.replace(true);
        if self.is_refused() {
            return Guest {
                visitor: self.peer,
                refused: self.refused,
                is_last: true,
                permits: Box::default(),
            };
        }
        let limits = &self.door.limits;
        // A listed proxy speaks for many, so that it is itself not counted.
        let named = self.is_believed.then(|| self.visitors.named(headers)).flatten();
        let place = match (named, self.peer.counted()) {
            (
                Some(Visitor {
                    address: Some(address), ..
                }),
                _,
            ) => limits.address(address).map(Some).map_err(|refused| refused.limit),
            (None, Some(address)) if asked_before && !self.is_believed => match has_others {
                true => limits.address(address).map(Some).map_err(|refused| refused.limit),
                false => limits.again(address).map(|()| None),
            },
            _ => Ok(None),
        };
        let place = place.and_then(|permit| match asked_before && has_others {
            true => Ok((permit, Some(limits.connection()?))),
            false => Ok((permit, None)),
        });
        let mut guest = Guest {
            visitor: named.unwrap_or(self.peer),
            ..Guest::default()
        };
        match place {
            Ok((address, connection)) => {
                guest.permits.address = address;
                guest.permits.connection = connection;
            }
            Err(limit) => guest.refused = Some(limit),
        }
        guest
    }

    /// What the connection holds.
    pub fn into_permits(self) -> Permits {
        self.permits
    }

    /// The connection is this client's alone, which counts for it from now on. Nothing if it is not to be answered.
    fn identify(&mut self, client: Visitor) -> Option<()> {
        self.peer = client;
        let Some(address) = client.counted().filter(|_| !self.is_believed) else {
            return Some(());
        };
        match self.door.limits.address(address) {
            Ok(permit) => self.permits.address = Some(permit),
            Err(refused) if refused.flood => return None,
            Err(refused) => self.refuse(refused.limit)?,
        }
        Some(())
    }

    /// Keeps the connection only until it was told so, beside all limits.
    fn refuse(&mut self, limit: Limit) -> Option<()> {
        self.permits = Permits {
            connection: Some(self.door.limits.told()?),
            ..Permits::default()
        };
        self.refused = Some(limit);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Options, Rate, TOLD};

    fn door(options: Options) -> Door {
        Door::new(Limits::new(options, Arc::default()), Live::default())
    }

    fn knock(door: &Door, address: &str) -> Option<Caller> {
        door.caller(Visitor::peer(Some(address.parse().unwrap())))
    }

    fn refused(caller: Option<Caller>) -> Option<Limit> {
        caller.expect("it is told").guest(&HeaderMap::new()).refused
    }

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second, burst }
    }

    #[test]
    fn an_address_of_the_internet_has_its_own_places() {
        let door = door(Options {
            connections_per_address: 1,
            ..Options::default()
        });
        let first = knock(&door, "203.0.113.1");
        assert_eq!(refused(knock(&door, "203.0.113.1")), Some(Limit::ConnectionsPerAddress));
        assert_eq!(refused(knock(&door, "203.0.113.2")), None);
        drop(first);
        assert_eq!(refused(knock(&door, "203.0.113.1")), None);
        for many in ["127.0.0.1", "10.0.0.1", "fd00::1"] {
            let held = [knock(&door, many), knock(&door, many)];
            assert_eq!(refused(knock(&door, many)), None, "{many}");
            drop(held);
        }
    }

    #[test]
    fn who_is_refused_takes_no_place_and_asks_for_nothing_more() {
        let door = door(Options {
            connections: 1,
            connections_per_address: 1,
            ..Options::default()
        });
        let first = knock(&door, "203.0.113.1").unwrap();
        assert!(!first.is_refused() && !first.guest(&HeaderMap::new()).is_last);
        let second = knock(&door, "203.0.113.1").unwrap();
        assert!(second.is_refused() && second.guest(&HeaderMap::new()).is_last);
        // Neither the place of the address nor that of the relay is taken by who is only told so.
        drop(first);
        assert_eq!(refused(knock(&door, "203.0.113.1")), None);
        let _third = knock(&door, "203.0.113.1").unwrap();
        assert_eq!(refused(knock(&door, "203.0.113.2")), Some(Limit::Connections));
        drop(_third);
        assert_eq!(refused(knock(&door, "203.0.113.2")), None, "its address was given back");
    }

    #[test]
    fn few_are_told_and_the_others_are_closed() {
        let door = door(Options {
            connections: 1,
            ..Options::default()
        });
        let _first = knock(&door, "10.0.0.1");
        let told: Vec<Caller> = (0..TOLD).map(|_| knock(&door, "10.0.0.1").unwrap()).collect();
        assert!(told.iter().all(Caller::is_refused));
        assert!(knock(&door, "10.0.0.1").is_none());
        drop(told);
        assert!(knock(&door, "10.0.0.1").is_some());
    }

    #[test]
    fn a_flood_is_closed() {
        let door = door(Options {
            connects: rate(1, 2),
            ..Options::default()
        });
        let knocks: Vec<_> = (0..6)
            .map(|_| knock(&door, "203.0.113.1").map(|it| it.is_refused()))
            .collect();
        assert_eq!(knocks, [Some(false), Some(false), Some(true), Some(true), None, None]);
        assert!(knock(&door, "203.0.113.2").is_some());
    }

    #[test]
    fn requests_beside_each_other_take_places_as_connections_do() {
        let door = door(Options {
            connections: 4,
            connections_per_address: 3,
            ..Options::default()
        });
        let caller = knock(&door, "203.0.113.1").unwrap();
        let ask = || caller.guest_beside(&HeaderMap::new());
        let [first, second, third] = [ask(), ask(), ask()];
        assert_eq!([&first, &second, &third].map(|guest| guest.refused), [None; 3]);
        assert_eq!(ask().refused, Some(Limit::ConnectionsPerAddress));
        let other = knock(&door, "203.0.113.2").unwrap();
        assert!(!other.is_refused() && other.guest_beside(&HeaderMap::new()).refused.is_none());
        assert_eq!(other.guest_beside(&HeaderMap::new()).refused, Some(Limit::Connections));
        // The first has the place of the connection itself.
        drop(first);
        assert_eq!(ask().refused, Some(Limit::ConnectionsPerAddress));
        drop(second);
        assert_eq!(ask().refused, None);
    }

    #[test]
    fn requests_beyond_the_first_count_as_connects() {
        let door = door(Options {
            connects: rate(1, 2),
            ..Options::default()
        });
        let caller = knock(&door, "203.0.113.1").unwrap();
        let asked: Vec<_> = (0..3).map(|_| caller.guest(&HeaderMap::new()).refused).collect();
        assert_eq!(asked, [None, None, Some(Limit::ConnectsPerSecond)]);
    }
}
