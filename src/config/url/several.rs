//! URLs that name several servers: `redis-sentinel://…` and `redis-cluster://…`.

use std::ops::Range;

use super::parts::{database, decode, tcp};
use super::{PORT, UrlError, wrong};
use crate::upstream::{Address, Sentinels, Topology};

/// The port that sentinels take when nobody says otherwise.
const SENTINEL_PORT: u16 = 26379;

/// What a URL of Sentinel looks like, for messages.
const SENTINEL: &str = "write redis-sentinel://host:26379,host:26379/NAME, with the name under which the sentinels \
    watch the primary";

/// What a URL of a cluster looks like, for messages.
const CLUSTER: &str = "write redis-cluster://host:6379,host:6379";

/// `host[:port][,host[:port]…]/name[?db=N][&sentinelUsername=…][&sentinelPassword=…]`, where the hosts end at `path`.
pub(super) fn sentinel(text: &str, hosts: Range<usize>) -> Result<(Topology, u32), UrlError> {
    let path = hosts.end;
    let addresses = addresses(text, hosts, SENTINEL_PORT, SENTINEL)?;
    let query = text[path..].find('?').map_or(text.len(), |query| path + query);
    let name = match &text[path..query] {
        "" | "/" => return Err(wrong(path..query, "no name of a primary", SENTINEL)),
        name if name.starts_with('/') && !name[1..].contains('/') => decode(text, path + 1..query)?,
        _ => return Err(wrong(path..query, "not one name", SENTINEL)),
    };
    let mut sentinels = Sentinels {
        name,
        addresses,
        username: None,
        password: None,
    };
    let mut db = 0;
    let mut at = query + 1;
    for parameter in text
        .get(at..)
        .unwrap_or_default()
        .split('&')
        .filter(|parameter| !parameter.is_empty())
    {
        let start = at;
        at += parameter.len() + 1;
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value_at = start + key.len() + 1..start + parameter.len();
        match key {
            "db" => db = database(value, value_at)?,
            "sentinelUsername" => sentinels.username = Some(decode(text, value_at)?),
            "sentinelPassword" => sentinels.password = Some(decode(text, value_at)?),
            _ => {
                return Err(wrong(
                    start..start + key.len(),
                    "not a parameter that keyrelay knows",
                    "write ?db=N for the database, sentinelUsername=… and sentinelPassword=… for the sentinels' own login, \
                     and `&` between them",
                ));
            }
        }
    }
    if sentinels.username.is_some() && sentinels.password.is_none() {
        return Err(wrong(
            query..text.len(),
            "`sentinelUsername` without a password",
            "add &sentinelPassword=…, or leave `sentinelUsername` out",
        ));
    }
    Ok((Topology::Sentinel(sentinels), db))
}

/// `host[:port][,host[:port]…][/0]`, where the hosts end at `path`.
pub(super) fn cluster(text: &str, hosts: Range<usize>) -> Result<Topology, UrlError> {
    let path = hosts.end;
    let seeds = addresses(text, hosts, PORT, CLUSTER)?;
    match &text[path..] {
        "" | "/" | "/0" => Ok(Topology::Cluster(seeds)),
        tail if tail.starts_with('/') => Err(UrlError {
            why: Some("a cluster has database 0 and no other"),
            ..wrong(path + 1..text.len(), "not a database of a cluster", CLUSTER)
        }),
        _ => Err(wrong(path..text.len(), "not a parameter that keyrelay knows", CLUSTER)),
    }
}

fn addresses(text: &str, hosts: Range<usize>, port: u16, example: &str) -> Result<Vec<Address>, UrlError> {
    let mut start = hosts.start;
    let mut addresses = Vec::new();
    for host in text[hosts].split(',') {
        let end = start + host.len();
        let address = tcp(text, start..end, port).map_err(|error| UrlError {
            instead: example.into(),
            ..error
        });
        addresses.push(address?);
        start = end + 1;
    }
    Ok(addresses)
}
