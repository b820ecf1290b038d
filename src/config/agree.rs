//! Mappings against each other: those that can give the same channel must mean the same by it.

use super::compile::Compiler;
use super::diagnostics::{At, Problem};
use super::mapping::Compiled;
use super::units;
use crate::hub::{Mode, Retention};

impl Compiler<'_> {
    /// Reports every pair of mappings that would make one channel mean two things.
    pub(crate) fn agreement(&mut self, mappings: &[Compiled]) {
        // Only mappings of different meaning can disagree, and a config seldom has more than a few meanings: of each
        // pair of those, every mapping of one is held against every mapping of the other.
        let mut meanings: Vec<Vec<&Compiled>> = Vec::new();
        for mapping in mappings {
            match meanings
                .iter_mut()
                .find(|others| difference(others[0], mapping).is_none())
            {
                Some(others) => others.push(mapping),
                None => meanings.push(vec![mapping]),
            }
        }
        for (position, some) in meanings.iter().enumerate() {
            for others in &meanings[position + 1..] {
                for one in some {
                    // One example is enough: the mapping would else be named once for each of the others.
                    if let Some(other) = others.iter().find(|other| one.bound.overlaps(&other.bound)) {
                        self.disagree(one, other);
                    }
                }
            }
        }
        self.twice(mappings);
    }

    fn disagree(&mut self, one: &Compiled, other: &Compiled) {
        let (first, second) = if one.rule.id < other.rule.id {
            (one, other)
        } else {
            (other, one)
        };
        let Some(difference) = difference(first, second) else {
            return;
        };
        let Difference { option, at, said, why } = difference;
        self.problems.add(
            Problem::new(
                at[1],
                "two mappings make one channel mean different things",
                format!("here `{option}` {}", said[1]),
            )
            .and(at[0], format!("here `{option}` {}", said[0]))
            .and(second.channel, "… can be this one, too")
            .and(first.channel, "a channel of this name …")
            .why(why)
            .instead(format!(
                "give both the same `{option}`, or give them channels that differ"
            )),
        );
    }

    /// The same key and channel in two mappings: each change would be sent twice.
    fn twice(&mut self, mappings: &[Compiled]) {
        let mut seen = std::collections::HashMap::new();
        for mapping in mappings {
            let same: &mut Vec<&Compiled> = seen
                .entry((
                    mapping.rule.subject,
                    mapping.rule.pattern.to_string(),
                    mapping.rule.channel.to_string(),
                ))
                .or_default();
            let twin = same
                .iter()
                .find(|first| share_events(first, mapping) && difference(first, mapping).is_none());
            if let Some(first) = twin {
                self.problems.add(
                    Problem::new(
                        mapping.pattern.at,
                        "the same mapping twice",
                        "the same keys to the same channel …",
                    )
                    .and(first.pattern.at, "… as here")
                    .why("every change would be sent twice")
                    .instead("leave one out, or give it a channel of its own"),
                );
            }
            same.push(mapping);
        }
    }
}

fn share_events(one: &Compiled, other: &Compiled) -> bool {
    match (&one.rule.on, &other.rule.on) {
        (Some(one), Some(other)) => one
            .iter()
            .any(|event| other.iter().any(|other| event.as_str() == other.as_str())),
        _ => true,
    }
}

fn kept(retain: &Retention) -> String {
    let Retention { messages, bytes, age } = retain;
    format!(
        "keeps {messages} messages, {}, {}",
        units::show_size(*bytes as u64),
        units::show_duration(*age)
    )
}

struct Difference {
    option: &'static str,
    at: [At; 2],
    said: [String; 2],
    why: &'static str,
}

/// What two mappings of one channel would disagree about.
fn difference(one: &Compiled, other: &Compiled) -> Option<Difference> {
    let (a, b) = (&one.rule, &other.rule);
    if a.mode != b.mode {
        let word = |mode: Mode| {
            if mode == Mode::State {
                "is \"state\""
            } else {
                "is \"events\""
            }
            .to_owned()
        };
        return Some(Difference {
            option: "mode",
            at: [one.mode, other.mode],
            said: [word(a.mode), word(b.mode)],
            why: "a channel is either the current value of its keys or a sequence of happenings, as that of `subscribe` \
                  always is, never both",
        });
    }
    if a.event_name != b.event_name {
        let word = |name: &Option<std::sync::Arc<str>>| {
            name.as_ref()
                .map_or_else(|| "is not set".to_owned(), |name| format!("is \"{name}\""))
        };
        return Some(Difference {
            option: "event_name",
            at: [one.event_name, other.event_name],
            said: [word(&a.event_name), word(&b.event_name)],
            why: "clients listen to a channel under one event name, and would miss what comes under another",
        });
    }
    if a.mode == Mode::Events && a.retain != b.retain {
        return Some(Difference {
            option: "retain",
            at: [one.retain, other.retain],
            said: [kept(&a.retain), kept(&b.retain)],
            why: "a channel has one log, and it can be kept in one way only",
        });
    }
    if a.snapshot != b.snapshot {
        let word = |snapshot: bool| format!("is {snapshot}");
        return Some(Difference {
            option: "snapshot",
            at: [one.snapshot, other.snapshot],
            said: [word(a.snapshot), word(b.snapshot)],
            why: "a new subscriber of a channel is either sent its current state or not",
        });
    }
    None
}
