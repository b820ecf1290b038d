//! What another config changes while the relay runs, and what only at its next start.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Config;
use crate::pattern::Subject;
use crate::relay::Rule;

#[cfg(test)]
mod tests;

/// What tells one config from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What each mapping of the new config is, in their order.
    pub mappings: Vec<Fate>,
    /// The places of those mappings of the old config that the new one has not got in any form.
    pub gone: Vec<usize>,
    /// Options that take effect at once, as `access.jwt`.
    pub live: Vec<&'static str>,
    /// Options that take effect at the next start, as `server.listen`.
    pub restart: Vec<&'static str>,
}

/// What a mapping of the new config is to the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The same as the one at this place of the old config; it may have moved in the file.
    Same(usize),
    /// The same to clients: only how long its channels are kept warm, or how often its keys are read, is another thing.
    Adjusted(usize),
    /// It takes the same keys or topics to the same channels as the one at this place of the old config.
    Changed {
        /// The place.
        before: usize,
        /// Whether it is only another question who may read the channels.
        access: bool,
    },
    /// A new one.
    New,
}

/// When a new value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Live,
    Restart,
}

use Effect::{Live, Restart};

/// An option, or several that make up one value, as the config means it.
type Value = (&'static str, Effect, fn(&Config, &Config) -> bool);

/// A value that stands in one field of the config.
macro_rules! field {
    ($option:literal, $effect:expr, $($field:ident).+) => {
        ($option, $effect, |a, b| a.$($field).+ == b.$($field).+)
    };
}

/// Every value beside the mappings, and whether two configs have the same.
const VALUES: [Value; 44] = [
    // Sockets cannot be moved under those who are connected.
    field!("server.listen", Restart, server.listen),
    field!("server.path", Restart, server.path),
    field!("server.origins", Live, server.origins),
    ("server.proxies", Live, |a, b| {
        let proxies = |config: &Config| (config.server.visitors.proxies.clone(), config.server.visitors.unix);
        proxies(a) == proxies(b)
    }),
    field!("server.client_address", Live, server.visitors.told),
    field!("server.heartbeat", Restart, fanout.heartbeat),
    field!("server.write_timeout", Restart, fanout.write_timeout),
    field!("server.drain", Restart, fanout.drain),
    field!("server.max_channels", Restart, hub.max_channels),
    // What is in the files is another matter: they are loaded again whenever they change.
    field!("server.tls", Restart, server.tls),
    // What is allowed for has been reserved, told as the most memory, and given to those who are connected.
    field!("limits.connections", Restart, server.limits.connections),
    field!(
        "limits.connections_per_address",
        Restart,
        server.limits.connections_per_address
    ),
    field!(
        "limits.connections_per_subject",
        Restart,
        server.limits.connections_per_subject
    ),
    field!("limits.connects_per_second", Restart, server.limits.connects.per_second),
    field!("limits.connects_burst", Restart, server.limits.connects.burst),
    field!("limits.channels_per_connection", Restart, fanout.bounds.channels),
    field!("limits.messages_per_second", Restart, fanout.bounds.messages.per_second),
    field!("limits.messages_burst", Restart, fanout.bounds.messages.burst),
    field!("limits.message_size", Restart, fanout.bounds.message_size),
    field!("limits.head_size", Restart, server.head.size),
    field!("limits.head_timeout", Restart, server.head.timeout),
    field!("limits.lifetime", Restart, fanout.bounds.lifetime),
    field!("limits.channels_per_address", Restart, hub.channels_per_maker),
    field!("limits.subscriptions", Restart, hub.subscriptions),
    field!("limits.keys", Restart, mirror.keys),
    field!("limits.keys_per_channel", Restart, mirror.keys_per_channel),
    field!("limits.log_bytes", Restart, hub.log_bytes),
    field!("limits.pinned", Restart, fanout.pinned),
    field!("limits.scan_share", Restart, mirror.scan_share),
    field!("admin.listen", Restart, admin.listen),
    field!("log.level", Live, log.level),
    field!("log.format", Restart, log.format),
    // Another server has other values, and what is known of the one before would be wrong.
    ("upstream.url", Restart, |a, b| {
        let place = |config: &Config| {
            let endpoint = &config.upstream.endpoint;
            (endpoint.address.clone(), endpoint.db, config.upstream.topology.clone())
        };
        place(a) == place(b)
    }),
    field!("upstream.username", Restart, upstream.endpoint.username),
    field!("upstream.password", Restart, upstream.endpoint.password),
    field!("upstream.tls", Restart, upstream.endpoint.tls),
    field!("upstream.source", Restart, upstream.source),
    // By client tracking they are not asked for at all.
    ("upstream.notifications", Restart, |a, b| {
        let asked = |config: &Config| (config.upstream.source, config.upstream.notifications);
        asked(a).0 != asked(b).0 || asked(a) == asked(b)
    }),
    field!("upstream.verify", Restart, upstream.verify),
    field!("access.cookie", Live, server.places.cookie),
    field!("access.token_parameter", Live, server.places.parameter),
    field!("access.ask", Live, server.access.ask),
    field!("access.jwt", Live, server.access.jwt),
    field!("access.signed", Live, server.access.signed),
];

/// What is to be done about the changes from one config to another.
pub fn diff(old: &Config, new: &Config) -> Changes {
    let of = |wanted: Effect| {
        let differing = VALUES
            .iter()
            .filter(|(_, effect, same)| *effect == wanted && !same(old, new));
        differing.map(|(option, ..)| *option).collect()
    };
    let (mappings, gone) = fates(&old.mappings, &new.mappings);
    Changes {
        mappings,
        gone,
        live: of(Live),
        restart: of(Restart),
    }
}

impl Changes {
    /// Whether nothing is another thing.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty() && self.keeps_mappings()
    }

    /// Whether every mapping is what it was, in the same order.
    pub fn keeps_mappings(&self) -> bool {
        let same = self
            .mappings
            .iter()
            .enumerate()
            .all(|(place, fate)| *fate == Fate::Same(place));
        same && self.gone.is_empty()
    }

    /// Whether credentials may count that did not, or the other way around.
    pub fn judges_anew(&self) -> bool {
        let judges = |option: &&str| option.starts_with("access.") || *option == "server.origins";
        self.live.iter().any(judges)
    }
}

/// What each new mapping is to the old ones, and which of those are gone. A config has no two mappings of the same keys to the
/// same channels, so by these a mapping is found again.
fn fates(old: &[Arc<Rule>], new: &[Arc<Rule>]) -> (Vec<Fate>, Vec<usize>) {
    let name = |rule: &Rule| {
        (
            rule.subject == Subject::Keys,
            rule.pattern.to_string(),
            rule.channel.to_string(),
        )
    };
    let mut left: BTreeMap<_, usize> = old.iter().map(|rule| name(rule)).zip(0..).collect();
    let fates = new.iter().map(|rule| match left.remove(&name(rule)) {
        None => Fate::New,
        Some(before) if same(&old[before], rule) => Fate::Same(before),
        Some(before) if same_but_for_its_pace(&old[before], rule) => Fate::Adjusted(before),
        Some(before) => Fate::Changed {
            before,
            access: same_but_for_access(&old[before], rule),
        },
    });
    let fates = fates.collect();
    let mut gone: Vec<usize> = left.into_values().collect();
    gone.sort_unstable();
    (fates, gone)
}

fn same(a: &Rule, b: &Rule) -> bool {
    let pace = |rule: &Rule| (rule.linger, rule.min_interval, rule.poll);
    pace(a) == pace(b) && same_but_for_its_pace(a, b)
}

fn same_but_for_its_pace(a: &Rule, b: &Rule) -> bool {
    a.access == b.access && same_but_for_access(a, b)
}

fn same_but_for_access(a: &Rule, b: &Rule) -> bool {
    let Rule {
        // Which one it is, and where.
        id: _,
        file: _,
        line: _,
        // What the callers look at.
        linger: _,
        min_interval: _,
        poll: _,
        access: _,
        subject: _,
        pattern: _,
        channel: _,
        mode,
        on,
        event_name,
        snapshot,
        retain,
        max_value,
        expires,
        payload,
    } = a;
    (a.subject, &a.pattern, &a.channel) == (b.subject, &b.pattern, &b.channel)
        && (mode, on, event_name) == (&b.mode, &b.on, &b.event_name)
        && (snapshot, retain, max_value, expires) == (&b.snapshot, &b.retain, &b.max_value, &b.expires)
        && *payload == b.payload
}
