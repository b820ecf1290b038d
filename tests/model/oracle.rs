//! What must be true of every subscriber: its picture at rest, what it was told, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::content::{Content, same};
use super::keys::{KEYS, is_events};
use super::picture::{Picture, Seen};
use super::run::Run;

/// While nothing is wrong, a key that changed is seen again within this: reading takes milliseconds, the rest is for a machine that
/// runs dozens of servers at once.
const CALM: Duration = Duration::from_secs(2);

/// Whatever is wrong, a key that changed is seen again within this, or its channel is said to be stale: a server that does not
/// answer is noticed after 2 s at most 2 s late.
const ALWAYS: Duration = Duration::from_secs(5);

/// A fault is over for this long before it counts as calm: the time to connect again and to read everything.
const AFTERMATH: Duration = Duration::from_millis(1500);

/// How exactly the time of an expiry is known: it is measured twice, on busy machines.
const SAME_EXPIRY: u64 = 250;

/// What differs between a picture and what the server holds.
pub fn differences(picture: &Picture, content: &BTreeMap<usize, Content>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (channel, status) in &picture.channels {
        if !status.ready || status.stale {
            wrong.push(format!(
                "{channel}: ready is {}, stale is {}",
                status.ready, status.stale
            ));
        }
        if is_events(channel) {
            continue;
        }
        let mut extra: Vec<&String> = status.values.keys().collect();
        for (at, key) in KEYS.iter().enumerate().filter(|(_, key)| key.state.contains(channel)) {
            extra.retain(|name| **name != key.name);
            match (content.get(&at), status.values.get(&key.name)) {
                (None, None) => {}
                (Some(held), Some(shown)) => {
                    if !same(&held.value, &shown["value"]) {
                        wrong.push(format!(
                            "{channel}: {:?} is {} and shown as {}",
                            key.name,
                            short(&held.value),
                            short(&shown["value"])
                        ));
                    }
                    let (is, told) = (held.expires_at, shown["expires_at"].as_u64());
                    let right = match (is, told) {
                        (Some(is), Some(told)) => is.abs_diff(told) < SAME_EXPIRY,
                        (None, None) => true,
                        _ => false,
                    };
                    if key.expires && !right {
                        wrong.push(format!(
                            "{channel}: {:?} expires at {is:?} and is told to at {told:?}",
                            key.name
                        ));
                    }
                }
                (Some(held), None) => wrong.push(format!(
                    "{channel}: {:?} is {} and not shown",
                    key.name,
                    short(&held.value)
                )),
                (None, Some(shown)) => wrong.push(format!(
                    "{channel}: {:?} is gone and shown as {}",
                    key.name,
                    short(&shown["value"])
                )),
            }
        }
        wrong.extend(
            extra
                .iter()
                .map(|name| format!("{channel}: {name:?} is shown and none of its keys")),
        );
    }
    wrong
}

fn short(value: &serde_json::Value) -> String {
    let mut text = value.to_string();
    if text.len() > 120 {
        let end = (0..=120).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Known losses that a page was told nothing of.
pub fn silences(run: &Run<'_>, moves: &[(Instant, usize)], picture: &Picture, end: Instant) -> Vec<String> {
    let mut wrong = Vec::new();
    for span in run.spans.borrow().iter() {
        let Some((relays, at)) = span.loss else { continue };
        let relay = moves.iter().rfind(|(since, _)| *since <= at).map(|(_, relay)| *relay);
        if !relay.is_some_and(|relay| relays[relay]) {
            continue;
        }
        for (channel, status) in &picture.channels {
            // What was complete just before the loss may be so by what was read after it.
            let shown = status
                .announced
                .is_some_and(|since| since + Duration::from_millis(50) < at);
            let told = status.told.iter().any(|told| *told >= at) || status.stale_at(at);
            if shown && !told {
                let ago = end.saturating_duration_since(at).as_millis();
                wrong.push(format!("{channel}: a loss {ago} ms before the end was never told"));
            }
        }
    }
    wrong
}

/// Changes that were seen too late.
pub fn delays(run: &Run<'_>, moves: &[(Instant, usize)], picture: &Picture, end: Instant) -> Vec<String> {
    let spans = run.spans.borrow();
    let lag = run.lag.get() * 4;
    let calm = CALM + lag;
    let mut wrong = Vec::new();
    for (channel, status) in &picture.channels {
        if is_events(channel) {
            continue;
        }
        for (since, until) in status.truths(end) {
            let relay = moves
                .iter()
                .rfind(|(moved, _)| *moved <= since)
                .map_or(0, |(_, relay)| *relay);
            for written in run.writes.borrow().iter().filter(|written| written.at >= since) {
                let key = &KEYS[written.key];
                if written.at + calm > until || !key.state.contains(channel) {
                    continue;
                }
                let disturbed = spans.iter().any(|span| {
                    span.relays[relay] && span.from < written.at + calm && written.at < span.to + AFTERMATH
                });
                let bound = if disturbed { ALWAYS + lag } else { calm };
                if written.at + bound > until {
                    continue;
                }
                let newer = |seen: &&Seen| {
                    seen.key == key.name && seen.stamp.is_none_or(|stamp| stamp >= written.stamp || stamp == 0)
                };
                let seen = status.seen.iter().filter(newer).any(|seen| {
                    let gone = seen.stamp.is_none();
                    seen.at <= written.at + bound && (!gone || seen.at >= written.at)
                });
                if !seen {
                    wrong.push(format!(
                        "{channel}: #{} of {:?} was not seen within {bound:?}",
                        written.stamp, key.name
                    ));
                }
            }
        }
    }
    wrong.truncate(5);
    wrong
}
