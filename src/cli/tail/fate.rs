//! What becomes of a key event or a published message: which mappings take it, or why none does.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::Serialize;

use crate::hub::Mode;
use crate::keyspace::EventName;
use crate::mapping::{MappingId, Mappings, Scratch, Verdict};
use crate::pattern::Subject;
use crate::relay::Rule;

/// Mappings of which it is told why they do not take something: those that look most like it. `keyrelay explain` tells it
/// of all.
const NEAREST: usize = 3;

/// What becomes of something.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Fate {
    /// These mappings take it.
    Taken {
        /// In their order.
        taken: Vec<Taken>,
    },
    /// None does.
    Not {
        /// Why, of those that look most like it.
        not_taken: Vec<Not>,
        /// How many more mappings there are.
        others: usize,
    },
    /// It is none of the keys that are relayed, whatever the mappings say.
    Never {
        /// Why.
        why: String,
    },
}

/// A mapping that takes something.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Taken {
    /// `file:line`.
    mapping: String,
    /// Its pattern.
    pattern: String,
    channel: String,
    /// Nobody may read the channel, for want of `access`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
}

/// A mapping that does not take something.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Not {
    mapping: String,
    pattern: String,
    why: String,
}

/// Knows the mappings.
pub(super) struct Judge {
    mappings: Mappings,
    rules: Vec<Arc<Rule>>,
    db: u32,
    scratch: Scratch,
}

impl Judge {
    /// Of the mappings of a config, whose keys are in this database.
    pub fn new(mappings: Mappings, rules: Vec<Arc<Rule>>, db: u32) -> Judge {
        Judge {
            mappings,
            rules,
            db,
            scratch: Scratch::default(),
        }
    }

    /// What becomes of a key event; one without a name is of client tracking.
    pub fn of_key(&mut self, db: u32, key: &[u8], event: Option<&EventName>) -> Fate {
        if db != self.db {
            let own = self.db;
            let why = format!("it is in database {db}, and `url` of [upstream] names database {own}");
            return Fate::Never { why };
        }
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        self.mappings.each(key, &mut self.scratch, |mapping, channel, _| {
            let rule = &self.rules[mapping.0 as usize];
            match takes(rule, event) {
                Ok(()) => taken.push(Taken::new(rule, channel)),
                Err(why) => refused.push((mapping, why)),
            }
        });
        if !taken.is_empty() {
            return Fate::Taken { taken };
        }
        let why = |mapping: MappingId| {
            let refused = refused.iter().find(|(refused, _)| *refused == mapping);
            refused.map_or_else(
                || no(self.mappings.verdict_of_key(mapping, key)),
                |(_, why)| why.clone(),
            )
        };
        // One that takes the key and not the event is nearer than any that does not take the key.
        let first = |mapping: MappingId| refused.iter().any(|(refused, _)| *refused == mapping);
        self.none(Subject::Keys, key, first, why)
    }

    /// What becomes of a message that is published.
    pub fn of_message(&mut self, topic: &[u8], message: &[u8]) -> Fate {
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        self.mappings
            .each_published(topic, message, &mut self.scratch, |mapping, routed| match routed {
                Ok(channel) => taken.push(Taken::new(&self.rules[mapping.0 as usize], channel)),
                Err(why) => refused.push((mapping, format!("this message has no channel: {why}"))),
            });
        if !taken.is_empty() {
            return Fate::Taken { taken };
        }
        let why = |mapping: MappingId| {
            let refused = refused.iter().find(|(refused, _)| *refused == mapping);
            refused.map_or_else(|| "it takes other topics".into(), |(_, why)| why.clone())
        };
        let first = |mapping: MappingId| refused.iter().any(|(refused, _)| *refused == mapping);
        self.none(Subject::Topics, topic, first, why)
    }

    fn none(
        &self,
        subject: Subject,
        name: &[u8],
        first: impl Fn(MappingId) -> bool,
        why: impl Fn(MappingId) -> String,
    ) -> Fate {
        let rules = self.rules.iter().map(|rule| &**rule);
        let of_subject = rules.filter(|rule| rule.subject == subject);
        let mut near: Vec<(Reverse<(bool, usize)>, &Rule)> = of_subject
            .map(|rule| (Reverse((first(rule.id), alike(name, rule))), rule))
            .collect();
        if near.is_empty() {
            let why = "no mapping takes keys".to_owned();
            return Fate::Never { why };
        }
        // Stable: of those that are equally near, the first.
        near.sort_by_key(|(nearness, _)| *nearness);
        let others = near.len().saturating_sub(NEAREST);
        near.truncate(NEAREST);
        let not = |(_, rule): (_, &Rule)| Not {
            mapping: place(rule),
            pattern: rule.pattern.to_string(),
            why: why(rule.id),
        };
        let not_taken = near.into_iter().map(not).collect();
        Fate::Not { not_taken, others }
    }
}

impl Taken {
    fn new(rule: &Rule, channel: &str) -> Taken {
        Taken {
            mapping: place(rule),
            pattern: rule.pattern.to_string(),
            channel: channel.to_owned(),
            closed: rule.access.is_empty(),
        }
    }
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fate::Taken { taken } => {
                for (at, each) in taken.iter().enumerate() {
                    let Taken {
                        mapping,
                        pattern,
                        channel,
                        closed,
                    } = each;
                    let between = if at == 0 { "" } else { "; " };
                    write!(f, "{between}{mapping} {pattern} -> {channel}")?;
                    if *closed {
                        f.write_str(" (nobody may read it: it has no `access`)")?;
                    }
                }
                Ok(())
            }
            Fate::Not { not_taken, others } => {
                f.write_str("not taken: ")?;
                for (at, Not { mapping, pattern, why }) in not_taken.iter().enumerate() {
                    let between = if at == 0 { "" } else { "; " };
                    write!(f, "{between}{mapping} {pattern}: {why}")?;
                }
                match others {
                    0 => Ok(()),
                    1 => f.write_str("; nor does 1 other mapping"),
                    others => write!(f, "; nor do {others} other mappings"),
                }
            }
            Fate::Never { why } => write!(f, "not taken: {why}"),
        }
    }
}

/// Whether a mapping that takes the key takes the event too, or why not.
fn takes(rule: &Rule, event: Option<&EventName>) -> Result<(), String> {
    match (rule.mode, &rule.on, event) {
        (Mode::State, ..) | (Mode::Events, None, Some(_)) => Ok(()),
        (Mode::Events, Some(on), Some(event)) if on.contains(event) => Ok(()),
        (Mode::Events, Some(on), Some(_)) => {
            let names: Vec<&str> = on.iter().map(EventName::as_str).collect();
            Err(format!("`on` names only {}", names.join(", ")))
        }
        (Mode::Events, _, None) => Err("an events channel needs the name of what happened".into()),
    }
}

fn no(verdict: Option<Verdict>) -> String {
    match verdict {
        Some(Verdict::No(why)) => why,
        Some(Verdict::Name { .. } | Verdict::Channel { .. }) => "it takes the key".into(),
        None => "it is not there".into(),
    }
}

/// With how many bytes of the mapping's pattern the name begins.
fn alike(name: &[u8], rule: &Rule) -> usize {
    let pattern = rule.pattern.to_string();
    name.iter().zip(pattern.as_bytes()).take_while(|(a, b)| a == b).count()
}

fn place(rule: &Rule) -> String {
    format!("{}:{}", rule.file.display(), rule.line)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn judge(text: &str) -> Judge {
        let config = config::compile(Path::new("k.toml"), text.to_owned(), &|_| None);
        let config = config
            .map_err(|problems| problems.render(Path::new("k.toml"), false))
            .unwrap();
        let mappings = crate::cli::explain::index(&config.mappings).unwrap();
        Judge::new(mappings, config.mappings, config.upstream.endpoint.db)
    }

    fn key(judge: &mut Judge, key: &str, event: &str) -> String {
        judge
            .of_key(0, key.as_bytes(), Some(&EventName::from_bytes(event.as_bytes())))
            .to_string()
    }

    const MAPPINGS: &str = "
[[mapping]]
key = \"cart:{user}\"
access = \"public\"
[[mapping]]
key = \"order:{id}\"
channel = \"orders\"
mode = \"events\"
on = [\"set\", \"del\"]
access = \"public\"
[[mapping]]
key = \"cart:{user}\"
channel = \"all-carts:{user}\"
[[mapping]]
subscribe = \"news\"
channel = \"news:{json.topic}\"
access = \"public\"
[[mapping]]
key = \"car\"
access = \"public\"
";

    #[test]
    fn a_key_is_taken_by_all_that_take_it() {
        let mut judge = judge(MAPPINGS);
        assert_eq!(
            key(&mut judge, "cart:42", "set"),
            "k.toml:2 cart:{user} -> cart:42; k.toml:11 cart:{user} -> all-carts:42 (nobody may read it: it has no `access`)"
        );
        assert_eq!(key(&mut judge, "order:7", "del"), "k.toml:5 order:{id} -> orders");
    }

    #[test]
    fn of_the_nearest_mappings_it_is_told_why_not() {
        let mut judge = judge(MAPPINGS);
        assert_eq!(
            key(&mut judge, "cart:42:x", "set"),
            "not taken: k.toml:2 cart:{user}: `{user}` cannot take `42:x` because of the `:`; k.toml:11 cart:{user}: `{user}` \
             cannot take `42:x` because of the `:`; k.toml:18 car: it takes only `car`; nor does 1 other mapping"
        );
        let told = key(&mut judge, "order:7", "expire");
        assert!(
            told.starts_with("not taken: k.toml:5 order:{id}: `on` names only set, del; "),
            "{told}"
        );
        let told = judge.of_key(3, b"cart:42", None).to_string();
        assert_eq!(
            told,
            "not taken: it is in database 3, and `url` of [upstream] names database 0"
        );
    }

    #[test]
    fn a_message_is_routed_or_not() {
        let mut judge = judge(MAPPINGS);
        let told = judge.of_message(b"news", b"{\"topic\":\"rain\"}").to_string();
        assert_eq!(told, "k.toml:14 news -> news:rain");
        let told = judge.of_message(b"news", b"rain").to_string();
        assert!(
            told.starts_with("not taken: k.toml:14 news: this message has no channel: "),
            "{told}"
        );
    }

    #[test]
    fn without_a_mapping_that_is_what_is_told() {
        assert_eq!(
            key(&mut judge(""), "cart:42", "set"),
            "not taken: no mapping takes keys"
        );
    }
}
