//! What the mappings ask of the server and its user.

use std::sync::Arc;

use super::rule::Rule;
use crate::hub::Mode;
use crate::pattern::{Filled, KeyPattern, Subject};
use crate::upstream::feed::Notifications;
use crate::upstream::probe::Needs;
use crate::upstream::{Source, Subscriptions, Topology};

/// What the relay of these rules is going to ask of each server of the topology.
pub fn needs(rules: &[Arc<Rule>], source: Source, topology: &Topology, db: u32, notifications: Notifications) -> Needs {
    let keys = || of(rules, Subject::Keys);
    let patterns = |subject| -> Vec<&KeyPattern> { of(rules, subject).map(|rule| &rule.pattern).collect() };
    let notifications = match keys().next() {
        Some(_) => notifications,
        // What is published comes without.
        None => Notifications::Assume,
    };
    Needs {
        subscriptions: Subscriptions::plan(source, &patterns(Subject::Keys), &patterns(Subject::Topics), db),
        notifications,
        cluster: matches!(topology, Topology::Cluster(_)),
        scans: keys().any(scans),
        fields: keys().any(|rule| rule.payload.fields().is_some()),
        patterns: keys().map(|rule| rule.pattern.clone()).collect(),
    }
}

fn of(rules: &[Arc<Rule>], subject: Subject) -> impl Iterator<Item = &Rule> {
    rules
        .iter()
        .map(|rule| &**rule)
        .filter(move |rule| rule.subject == subject)
}

/// Whether the name of a channel does not tell its keys, so that they must be looked for.
fn scans(rule: &Rule) -> bool {
    let told: Vec<_> = rule.channel.captures().collect();
    let known = |index: usize| told.contains(&&rule.pattern.names()[index]).then_some(b"".as_slice());
    rule.mode == Mode::State && matches!(rule.pattern.fill(known), Filled::Glob(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::tests::rule;

    #[test]
    fn keys_are_looked_for_where_the_channel_does_not_tell_them() {
        for (key, channel, looked_for) in [
            ("cart:{user}", "cart:{user}", false),
            ("news", "news", false),
            ("message:{room}:{id}", "room:{room}", true),
            ("cache:*", "cache", true),
        ] {
            assert_eq!(scans(&rule(0, key, channel)), looked_for, "{key}");
        }
    }
}
