//! What must be true of every subscriber: its picture at rest, what it was told, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::content::{Content, same};
use super::faults::Span;
use super::keys::{KEYS, field_of, is_events};
use super::picture::{Picture, Seen};
use super::run::{Run, Written};
use super::stand::Kind;

/// While nothing is wrong, a key that changed is seen again within this: reading takes milliseconds, the rest is for a machine that
/// runs dozens of servers at once.
const CALM: Duration = Duration::from_secs(1);

/// Whatever is wrong, a key that changed is seen again within this, or its channel is said to be stale: a server that does not
/// answer is noticed after 2 s at most 2 s late.
const ALWAYS: Duration = Duration::from_secs(5);

/// That the database was emptied is told at once, by a signal; without it, it would be found within a second.
const PROMPT: Duration = Duration::from_millis(500);

/// What is made to expire may do so within this.
const SOON: Duration = Duration::from_millis(500);

/// A fault is over for this long before it counts as calm: the time to connect again and to read everything.
const AFTERMATH: Duration = Duration::from_millis(1500);

/// How exactly the time of an expiry is known: it is measured twice, on busy machines.
const SAME_EXPIRY: u64 = 250;

/// What differs between a picture and what is `held` by the server of the relay that told it.
pub fn differences<'a>(
    picture: &Picture,
    held: impl Fn(usize) -> &'a BTreeMap<usize, Content>,
    lag: Duration,
) -> Vec<String> {
    let (mut wrong, now) = (Vec::new(), Instant::now());
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
        let Some(relay) = status.relay_at(now) else { continue };
        let content = held(relay);
        let mut extra: Vec<&String> = status.values.keys().collect();
        for (at, key) in KEYS.iter().enumerate().filter(|(_, key)| key.state.contains(channel)) {
            extra.retain(|name| **name != key.name);
            let held = content.get(&at).and_then(|held| Some((held, held.shown_in(channel)?)));
            match (held, status.values.get(&key.name)) {
                (None, None) => {}
                (Some((held, value)), Some(shown)) => {
                    if !same(&value, &shown["value"]) {
                        wrong.push(format!(
                            "{channel}: {:?} is {} and shown as {}",
                            key.name,
                            short(&value),
                            short(&shown["value"])
                        ));
                    }
                    let (is, told) = (held.expires_at, shown["expires_at"].as_u64());
                    let right = match (is, told) {
                        (Some(is), Some(told)) => is.abs_diff(told) < SAME_EXPIRY + 8 * lag.as_millis() as u64,
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
                (Some((_, value)), None) => {
                    wrong.push(format!("{channel}: {:?} is {} and not shown", key.name, short(&value)))
                }
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

/// Older values after newer ones that no server had gone back to.
pub fn backs(run: &Run<'_>, picture: &Picture) -> Vec<String> {
    let spans = run.spans.borrow();
    // Of a replica that hears nothing, a key may expire that its primary has let live on.
    let replica = run.stand.kind == Kind::Replica;
    let by_itself = |at: Instant, same: bool| {
        let mut around = spans.iter().filter(|span| span.from < at && at < span.to + AFTERMATH);
        around.any(|span| span.parts || same && replica && span.relays == [true; 2])
    };
    let backs = picture.backs.iter().filter(|(at, same, _)| !by_itself(*at, *same));
    backs.map(|(_, _, back)| back.clone()).collect()
}

/// Known losses that a page was told nothing of.
pub fn silences(run: &Run<'_>, picture: &Picture, end: Instant) -> Vec<String> {
    let mut wrong = Vec::new();
    for span in run.spans.borrow().iter() {
        let Some((relays, at)) = span.loss else { continue };
        for (channel, status) in &picture.channels {
            if !status.relay_at(at).is_some_and(|relay| relays[relay]) {
                continue;
            }
            // What was complete just before the loss may be so by what was read after it.
            let shown = status
                .announced
                .is_some_and(|since| since + Duration::from_millis(50) + run.lag.get() * 4 < at);
            let told = status.told.iter().any(|told| *told >= at) || status.stale_at(at);
            if shown && !told {
                let ago = end.saturating_duration_since(at).as_millis();
                wrong.push(format!("{channel}: a loss {ago} ms before the end was never told"));
            }
        }
    }
    wrong
}

/// Emptied databases that were noticed too late.
pub fn late_flushes(run: &Run<'_>, picture: &Picture) -> Vec<String> {
    let prompt = PROMPT + run.lag.get() * 4;
    let mut wrong = Vec::new();
    for &flushed in run.flushes.borrow().iter() {
        for (channel, status) in &picture.channels {
            let Some(relay) = status.relay_at(flushed) else {
                continue;
            };
            let near =
                |span: &&Span| span.relays[relay] && span.from < flushed + prompt && flushed < span.to + AFTERMATH;
            // The flush is one itself.
            if run.spans.borrow().iter().filter(near).count() > 1 {
                continue;
            }
            let whole = |(since, until): &(Instant, Instant)| *since < flushed && flushed + prompt < *until;
            if !status.truths(flushed + prompt * 2).iter().any(whole) {
                continue;
            }
            for key in KEYS.iter().filter(|key| key.state.contains(channel)) {
                let (before, after): (Vec<&Seen>, Vec<&Seen>) = status
                    .seen
                    .iter()
                    .filter(|seen| seen.key == key.name)
                    .partition(|seen| seen.at < flushed);
                let was_there = before.last().is_some_and(|seen| seen.stamp.is_some());
                let gone = after.first().filter(|seen| seen.stamp.is_none() && !seen.by_event);
                if let (true, Some(gone)) = (was_there, gone.filter(|gone| gone.at > flushed + prompt)) {
                    let ms = (gone.at - flushed).as_millis();
                    wrong.push(format!(
                        "{channel}: {:?} was emptied away and told {ms} ms later",
                        key.name
                    ));
                }
            }
        }
    }
    wrong.truncate(5);
    wrong
}

/// Changes that were seen too late.
pub fn delays(run: &Run<'_>, picture: &Picture, start: Instant, end: Instant) -> Vec<String> {
    let (spans, writes) = (run.spans.borrow(), run.writes.borrow());
    let lag = run.lag.get() * 4;
    let calm = CALM + lag;
    let mut wrong = Vec::new();
    for (channel, status) in &picture.channels {
        // Of a type that is not shown, nothing may come.
        if is_events(channel) || field_of(channel).is_some() {
            continue;
        }
        for (since, until) in status.truths(end) {
            let Some(relay) = status.relay_at(since) else { continue };
            for written in writes.iter().filter(|written| written.at >= since) {
                let key = &KEYS[written.key];
                let Some(stamp) = written.stamp else { continue };
                if written.at + calm > until || !key.state.contains(channel) {
                    continue;
                }
                let near = |span: &Span| span.from < written.at + calm && written.at < span.to + AFTERMATH;
                let disturbed = spans.iter().any(|span| span.relays[relay] && near(span));
                let bound = if disturbed { ALWAYS + lag } else { calm };
                let removed = |other: &Written| {
                    let near = other.at + SOON > written.at && other.at < written.at + bound;
                    other.key == written.key && other.stamp.is_none() && near
                };
                let emptied = spans.iter().any(|span| span.removes && near(span));
                // What is gone before it was read is never seen.
                if written.at + bound > until || emptied || writes.iter().any(removed) {
                    continue;
                }
                let newer =
                    |seen: &&Seen| seen.key == key.name && seen.stamp.is_none_or(|newer| newer >= stamp || newer == 0);
                let seen = status.seen.iter().filter(newer).any(|seen| {
                    let gone = seen.stamp.is_none();
                    seen.at <= written.at + bound && (!gone || seen.at >= written.at)
                });
                if !seen {
                    let at = (written.at - start).as_millis();
                    wrong.push(format!(
                        "{channel}: #{stamp} of {:?}, written at {at} ms, was not seen within {bound:?}",
                        key.name
                    ));
                }
            }
        }
    }
    wrong.truncate(5);
    wrong
}
