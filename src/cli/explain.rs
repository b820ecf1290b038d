//! `keyrelay explain`: what the mappings make of a key, a published message or a channel.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;

use super::shown::shown;
use crate::config::Config;
use crate::hub::{Mode, Way};
use crate::mapping::{self, Explanation, KeySet, Mappings, Verdict};
use crate::pattern::{ChannelTemplate, Subject};
use crate::relay::Rule;

/// What is to be explained.
pub(super) enum Asked {
    /// What becomes of a key.
    Key(OsString),
    /// What becomes of a message that is published on a topic.
    Published { topic: OsString, message: OsString },
    /// What is behind a channel.
    Channel(String),
}

/// Explains what the mappings make of it.
pub(super) fn explain(asked: &Asked, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (_, config) = match super::load(file) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let mappings = index(&config.mappings)?;
    let verdicts = match asked {
        Asked::Key(key) => mappings.explain_key(key.as_bytes()),
        Asked::Published { topic, message } => mappings.explain_published(topic.as_bytes(), message.as_bytes()),
        Asked::Channel(channel) => mappings.explain_channel(channel),
    };
    super::print(&report(&config, asked, &verdicts)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The mappings of a config with their index.
pub(super) fn index(rules: &[Arc<Rule>]) -> anyhow::Result<Mappings> {
    let rules = rules.iter();
    let rules = rules.map(|rule| mapping::Rule {
        subject: rule.subject,
        pattern: rule.pattern.clone(),
        channel: rule.channel.clone(),
    });
    Mappings::new(rules.collect())
        .map_err(|errors| {
            errors
                .into_iter()
                .next()
                .map_or_else(|| anyhow::anyhow!("no reason"), Into::into)
        })
        .context("the mappings do not fit together")
}

fn report(config: &Config, asked: &Asked, verdicts: &[Explanation]) -> Result<String, std::fmt::Error> {
    let (does, asked, nobody) = match asked {
        Asked::Key(key) => ("takes", format!("the key {}", shown(key.as_bytes())), "hears of it"),
        Asked::Published { topic, .. } => (
            "takes",
            format!("what is published on {}", shown(topic.as_bytes())),
            "hears of it",
        ),
        Asked::Channel(channel) => ("can give", format!("the channel {channel}"), "can subscribe to it"),
    };
    let taken = verdicts
        .iter()
        .filter(|explanation| !matches!(explanation.verdict, Verdict::No(_)))
        .count();
    let mut out = String::new();
    match taken {
        0 => writeln!(out, "no mapping {does} {asked}: nobody {nobody}")?,
        1 => writeln!(out, "1 mapping {does} {asked}")?,
        many => writeln!(out, "{many} mappings {} {asked}", does.trim_end_matches('s'))?,
    }
    for explanation in verdicts {
        let Some(rule) = config.mappings.get(explanation.mapping.0 as usize) else {
            continue;
        };
        let (captures, place) = match &explanation.verdict {
            Verdict::No(_) => continue,
            Verdict::Name { captures, channel } => match channel {
                Ok(channel) => (captures, format!("channel   {channel}")),
                Err(why) => (captures, format!("channel   none for this message: {why}")),
            },
            Verdict::Channel {
                captures,
                keys: KeySet::One(key),
            } => (captures, format!("key       {}", shown(key))),
            Verdict::Channel {
                captures,
                keys: KeySet::Matching(glob),
            } => (captures, format!("keys      those that match {}", shown(glob))),
            Verdict::Channel {
                captures,
                keys: KeySet::Published(glob),
            } => (captures, format!("messages  published on what matches {}", shown(glob))),
        };
        writeln!(out, "\n{}", title(rule))?;
        write_captures(&mut out, captures)?;
        writeln!(out, "  {place}")?;
        write_rule(&mut out, rule)?;
    }
    let mut others = verdicts.iter().filter_map(|explanation| match &explanation.verdict {
        Verdict::No(why) => Some((config.mappings.get(explanation.mapping.0 as usize)?, why)),
        _ => None,
    });
    if let Some(first) = others.next() {
        writeln!(
            out,
            "\n{}",
            if taken == 0 {
                "Why not:"
            } else {
                "Why the others do not:"
            }
        )?;
        for (rule, why) in std::iter::once(first).chain(others) {
            writeln!(out, "\n{}\n  {why}", title(rule))?;
        }
    }
    Ok(out)
}

fn title(rule: &Rule) -> String {
    let Rule {
        file,
        line,
        subject,
        pattern,
        channel,
        ..
    } = rule;
    let option = match subject {
        Subject::Keys => "key",
        Subject::Topics => "subscribe",
    };
    format!(
        "{}:{line}  {option} = \"{pattern}\", channel = \"{channel}\"",
        file.display()
    )
}

fn write_captures(out: &mut String, captures: &[(Arc<str>, Bytes)]) -> std::fmt::Result {
    for (position, (name, value)) in captures.iter().enumerate() {
        let label = if position == 0 { "captures" } else { "" };
        writeln!(out, "  {label:<8}  {name} = {}", shown(value))?;
    }
    Ok(())
}

/// Who may read the channels of a mapping, in words.
fn readers(ways: &[Way<ChannelTemplate>]) -> String {
    let said = ways.iter().map(|way| match way {
        Way::Public => "everyone".to_owned(),
        Way::SignedIn => "any token".to_owned(),
        Way::Listed => "a token that lists the channel".to_owned(),
        Way::Claims(claims) => {
            let claims: Vec<String> = claims
                .iter()
                .map(|(claim, text)| format!("{claim} = \"{text}\""))
                .collect();
            format!("a token with {}", claims.join(" and "))
        }
    });
    match ways {
        [] => "nobody: it has no `access`".to_owned(),
        _ => said.collect::<Vec<_>>().join(", or "),
    }
}

fn write_rule(out: &mut String, rule: &Rule) -> std::fmt::Result {
    writeln!(out, "  access    {}", readers(&rule.access))?;
    match (rule.mode, &rule.on) {
        (Mode::State, _) if rule.snapshot => {
            writeln!(out, "  mode      state: the current values first, then changes")?
        }
        (Mode::State, _) => writeln!(out, "  mode      state: changes only")?,
        (Mode::Events, None) if rule.subject == Subject::Topics => {
            writeln!(out, "  mode      events: every message")?;
        }
        (Mode::Events, None) => writeln!(out, "  mode      events: every event")?,
        (Mode::Events, Some(on)) => {
            let names: Vec<&str> = on.iter().map(|event| event.as_str()).collect();
            writeln!(out, "  mode      events: only {}", names.join(", "))?;
        }
    }
    if let Some(name) = &rule.event_name {
        writeln!(out, "  event     {name}")?;
    }
    writeln!(out, "  payload   {}", rule.payload)
}
