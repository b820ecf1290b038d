//! Asks the sentinels which server is the primary.
//!
//! All of them are asked all the time: after a failover one knows before the others, and whoever has the newest
//! configuration is believed.

use std::{collections::HashMap, convert::Infallible, fmt};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis_protocol::resp3::types::OwnedFrame;
use tokio::{sync::watch, time::Instant};

use super::{
    Doubt,
    asked::{self, Asked, MEMORY},
    location,
};
use crate::upstream::{
    Address, Endpoint,
    feed::look::text,
    link::{Link, LinkError},
};

/// Sentinels, and what they call the primary.
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// The name under which they watch the primary.
    pub name: String,
    /// Where they are; at least one.
    pub addresses: Vec<Address>,
    /// User of the sentinels' own ACL.
    pub username: Option<String>,
    /// Their own password, which need not be that of the servers.
    pub password: Option<String>,
}

impl fmt::Debug for Sentinels {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels")
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What one sentinel says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Opinion {
    primary: Address,
    /// Grows with each failover.
    epoch: u64,
}

/// Tells `found` where the primary is, for ever. `endpoint` says how servers are reached.
pub(super) async fn follow(
    sentinels: Sentinels,
    endpoint: Endpoint,
    found: watch::Sender<Option<Address>>,
) -> Infallible {
    let name = sentinels.name.as_str();
    let ask = |mut asked: Asked, first: bool| async move {
        if !first {
            // Servers that are not in a cluster never doubt.
            asked::pause(&Doubt::default()).await;
        }
        let opinion = asked.ask(async |link| opinion(link, name).await).await;
        (asked, opinion)
    };
    let mut asking: FuturesUnordered<_> = sentinels
        .addresses
        .iter()
        .map(|address| ask(Asked::new(sentinels.endpoint(address, &endpoint)), true))
        .collect();
    let mut opinions: HashMap<Address, (Instant, Opinion)> = HashMap::new();
    let mut troubles: HashMap<Address, String> = HashMap::new();
    loop {
        let Some((asked, opinion)) = asking.next().await else {
            // There is always one.
            std::future::pending::<()>().await;
            continue;
        };
        let sentinel = asked.endpoint.address.clone();
        match opinion {
            Ok(opinion) => {
                troubles.remove(&sentinel);
                opinions.insert(sentinel, (Instant::now(), opinion));
            }
            Err(error) => {
                let why = error.to_string();
                // Said once, unless it becomes another.
                if troubles.insert(sentinel.clone(), why.clone()).as_ref() != Some(&why) {
                    tracing::warn!(%sentinel, why, "a sentinel does not say where the primary is");
                }
            }
        }
        opinions.retain(|_, (since, _)| since.elapsed() < MEMORY);
        if let Some(primary) = believed(opinions.values().map(|(_, opinion)| opinion))
            && location::tell(&found, Some(primary.clone()))
        {
            tracing::info!(%primary, name, "the sentinels name a primary");
        }
        asking.push(ask(asked, false));
    }
}

/// Asks each sentinel once.
pub(super) async fn primary(sentinels: &Sentinels, endpoint: &Endpoint) -> Result<Address, String> {
    let mut opinions = Vec::new();
    let mut troubles = Vec::new();
    for address in &sentinels.addresses {
        let mut asked = Asked::new(sentinels.endpoint(address, endpoint));
        match asked.ask(async |link| opinion(link, &sentinels.name).await).await {
            Ok(opinion) => opinions.push(opinion),
            Err(error) => troubles.push(format!("{address}: {error}")),
        }
    }
    believed(opinions.iter()).cloned().ok_or_else(|| troubles.join("; "))
}

impl Sentinels {
    /// One of them; `server` says how servers are reached.
    fn endpoint(&self, address: &Address, server: &Endpoint) -> Endpoint {
        Endpoint {
            address: address.clone(),
            db: 0,
            username: self.username.clone(),
            password: self.password.clone(),
            ..server.clone()
        }
    }
}

/// What most of those say whose configuration is the newest.
fn believed<'a>(opinions: impl Iterator<Item = &'a Opinion>) -> Option<&'a Address> {
    let mut votes: HashMap<&Opinion, usize> = HashMap::new();
    for opinion in opinions {
        *votes.entry(opinion).or_default() += 1;
    }
    let newest = votes.into_iter().max_by_key(|(opinion, votes)| {
        // Among equals always the same.
        (opinion.epoch, *votes, opinion.primary.to_string())
    });
    newest.map(|(opinion, _)| &opinion.primary)
}

async fn opinion(link: &mut Link, name: &str) -> Result<Opinion, LinkError> {
    // During a failover this one knows first.
    let address = link
        .command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()])
        .await?;
    let primary = address_in(address, name)?;
    let fields = link.command(&[b"SENTINEL", b"MASTER", name.as_bytes()]).await?;
    let epoch = epoch_in(fields)?;
    Ok(Opinion { primary, epoch })
}

/// What is answered to `SENTINEL GET-MASTER-ADDR-BY-NAME`.
pub(super) fn address_in(reply: OwnedFrame, name: &str) -> Result<Address, LinkError> {
    let OwnedFrame::Array { data, .. } = reply else {
        return Err(LinkError::Unreachable(format!("it watches no primary named `{name}`")));
    };
    let [host, port] = <[_; 2]>::try_from(data).map_err(|_| not_understood())?.map(text);
    let port = port.and_then(|port| port.parse().ok());
    let (Some(host), Some(port)) = (host, port) else {
        return Err(not_understood());
    };
    Ok(Address::Tcp { host, port })
}

/// The age of the configuration in what is answered to `SENTINEL MASTER`.
pub(super) fn epoch_in(reply: OwnedFrame) -> Result<u64, LinkError> {
    let fields = match reply {
        OwnedFrame::Map { data, .. } => data.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        OwnedFrame::Array { data, .. } => data,
        _ => return Err(not_understood()),
    };
    let mut fields = fields.into_iter().map(text);
    loop {
        match (fields.next().flatten(), fields.next().flatten()) {
            (Some(name), Some(value)) if name == "config-epoch" => {
                return value.parse().map_err(|_| not_understood());
            }
            (None, None) => return Err(not_understood()),
            _ => {}
        }
    }
}

fn not_understood() -> LinkError {
    LinkError::Unexpected("SENTINEL".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_configuration_is_believed_and_among_equals_the_majority() {
        let of = |port, epoch| Opinion {
            primary: Address::Tcp { host: "h".into(), port },
            epoch,
        };
        let believed = |opinions: &[Opinion]| match believed(opinions.iter()) {
            Some(Address::Tcp { port, .. }) => *port,
            other => panic!("{other:?}"),
        };
        assert_eq!(believed(&[of(1, 3), of(1, 3), of(2, 4)]), 2);
        assert_eq!(believed(&[of(1, 3), of(2, 3), of(1, 3)]), 1);
        assert_eq!(super::believed([].iter()), None);
    }
}
