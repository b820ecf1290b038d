//! `keyrelay explain`: what the mappings make of a key or a channel.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;

use crate::config::Config;
use crate::hub::Mode;
use crate::mapping::{self, Explanation, KeySet, Mappings, Verdict};
use crate::relay::Rule;

/// Explains a key or, if it is given, a channel.
pub(super) fn explain(
    key: Option<OsString>,
    channel: Option<String>,
    file: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let (_, config) = match super::load(file) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let mappings = index(&config)?;
    let (asked, verdicts) = match (&channel, &key) {
        (Some(channel), _) => (format!("the channel {channel}"), mappings.explain_channel(channel)),
        (None, key) => {
            let key = key.as_ref().map(|key| key.as_bytes()).unwrap_or_default();
            (format!("the key {}", shown(key)), mappings.explain_key(key))
        }
    };
    super::print(&report(&config, &asked, channel.is_some(), &verdicts)?)?;
    Ok(ExitCode::SUCCESS)
}

fn index(config: &Config) -> anyhow::Result<Mappings> {
    let rules = config.mappings.iter();
    let rules = rules.map(|rule| mapping::Rule {
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

fn report(config: &Config, asked: &str, is_channel: bool, verdicts: &[Explanation]) -> Result<String, std::fmt::Error> {
    let taken = verdicts
        .iter()
        .filter(|explanation| !matches!(explanation.verdict, Verdict::No(_)))
        .count();
    let mut out = String::new();
    let does = if is_channel { "can give" } else { "takes" };
    match taken {
        0 if is_channel => writeln!(out, "no mapping {does} {asked}: nobody can subscribe to it")?,
        0 => writeln!(out, "no mapping {does} {asked}: nobody hears of it")?,
        1 => writeln!(out, "1 mapping {does} {asked}")?,
        many => writeln!(out, "{many} mappings {} {asked}", does.trim_end_matches('s'))?,
    }
    for explanation in verdicts {
        let Some(rule) = config.mappings.get(explanation.mapping.0 as usize) else {
            continue;
        };
        let (captures, place) = match &explanation.verdict {
            Verdict::No(_) => continue,
            Verdict::Key { captures, channel } => (captures, format!("channel   {channel}")),
            Verdict::Channel {
                captures,
                keys: KeySet::One(key),
            } => (captures, format!("key       {}", shown(key))),
            Verdict::Channel {
                captures,
                keys: KeySet::Matching(glob),
            } => (captures, format!("keys      those that match {}", shown(glob))),
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
        pattern,
        channel,
        ..
    } = rule;
    format!(
        "{}:{line}  key = \"{pattern}\", channel = \"{channel}\"",
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

fn write_rule(out: &mut String, rule: &Rule) -> std::fmt::Result {
    match (rule.mode, &rule.on) {
        (Mode::State, _) if rule.snapshot => {
            writeln!(out, "  mode      state: the current values first, then changes")?
        }
        (Mode::State, _) => writeln!(out, "  mode      state: changes only")?,
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

/// Bytes as text, what is not text being escaped.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
