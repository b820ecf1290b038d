//! What events never tell: what the server says of itself once a second, compared with what it said before.
//!
//! Every question goes over the feed's own connection, so its answer stands in one stream with the events: an event
//! that is heard after it happened after it. What is asked costs the server some 0.2 ms each second.

use std::time::Duration;

use redis_protocol::resp3::types::OwnedFrame;
use tokio::time::Instant;

use super::{
    Cause, Role,
    look::{self, Counters, Links, Offset},
};
use crate::{
    keyspace::flags,
    switches::{self, Switch},
};

/// How often the server is asked: what changes in silence is noticed within this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a setting that was changed is left so: another keyrelay that would not see it in one of its own looks would not
/// know that it lost events.
pub(super) const FOR_OTHERS: Duration = INTERVAL.saturating_add(Duration::from_millis(500));

/// How long a question that was refused is not asked again: the server writes each refusal into its ACL LOG.
const REFUSED: Duration = Duration::from_secs(60);

/// What is asked, in this order: a link that was up when that was asked has its number in the answer to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Which process answers, and what time it is there.
    Server,
    /// Whether it is a replica, and whether the links to its primaries are up.
    Links,
    /// The numbers of those links: each full synchronization makes a new one, a partial one keeps its own.
    Primaries,
    /// How often databases were swapped or emptied.
    Counters,
    /// Which events it sends.
    Setting,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Keys may have changed.
    Changed(Cause),
    /// Another process answers than at the beginning of the connection.
    Replaced,
    /// The server is a replica, and its link to the primary is down for so long; None: it is up again.
    Behind(Option<Duration>),
    /// What the server is, or has become.
    Role(Role),
    /// The server's clock was set ahead by so many milliseconds, or back if they are negative.
    ClockSet(i64),
    /// The value of `notify-keyspace-events`, which lacks letters, or did in the last look.
    Setting(String),
    /// These were refused, with the server's words for the first of them.
    Refused(Vec<Question>, String),
    /// This one is answered again.
    Answered(Question),
}

/// What is known of a connection before the first look.
#[derive(Debug)]
pub(super) struct Connection {
    /// Which process it leads to.
    pub run_id: String,
    /// Its number there.
    pub id: u64,
    /// Whether the server signals that all keys have gone.
    pub signalled: bool,
    /// Whether to ask for its `notify-keyspace-events`.
    pub setting: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    run_id: String,
    signalled: bool,
    questions: Vec<Question>,
    /// When to look again.
    due: Instant,
    /// When the look under way was sent.
    sent: Instant,
    /// Questions of that look without an answer.
    open: usize,
    /// What the answers to it said so far.
    seen: Seen,
    /// What was refused, and when to ask again.
    refused: Vec<(Question, Instant)>,
    /// The highest number of a link to a primary; numbers of connections only grow.
    newest: u64,
    /// None before the first answer.
    counters: Option<Counters>,
    clock: Option<Offset>,
    behind: bool,
    /// Whether the last look found it behind no more for the first time.
    rejoined: bool,
    /// None before the first answer.
    role: Option<Role>,
    /// Whether the setting lacked letters in the last look.
    lacking: bool,
    /// Where this process's clock is taken to begin.
    origin: Instant,
}

/// What one look has shown; None what was not answered.
#[derive(Debug, Default)]
struct Seen {
    run_id: Option<String>,
    clock: Option<Offset>,
    links: Option<Links>,
    newest: Option<u64>,
    counters: Option<Counters>,
    setting: Option<String>,
    refused: Vec<Question>,
    words: String,
    answered: Vec<Question>,
}

impl Question {
    const ALL: [Question; 5] = [
        Question::Server,
        Question::Links,
        Question::Primaries,
        Question::Counters,
        Question::Setting,
    ];

    /// The command.
    pub fn words(self) -> &'static [&'static [u8]] {
        match self {
            Question::Server => &[b"INFO", b"server"],
            Question::Links => &[b"INFO", b"replication"],
            Question::Primaries => &[b"CLIENT", b"LIST", b"TYPE", b"master"],
            Question::Counters => &[b"INFO", b"commandstats"],
            Question::Setting => &[b"CONFIG", b"GET", b"notify-keyspace-events"],
        }
    }

    /// The right it takes, as `ACL SETUSER` has it.
    pub fn right(self) -> &'static str {
        match self {
            Question::Server | Question::Links | Question::Counters => "+info",
            Question::Primaries => "+client|list",
            Question::Setting => "+config|get",
        }
    }

    /// What is not noticed without an answer.
    pub fn shows(self) -> &'static str {
        match self {
            Question::Server => "a clock that is set",
            Question::Links => "a replica behind its primary",
            Question::Primaries => "a full synchronization",
            Question::Counters => "a swap of databases",
            Question::Setting => "that key events are switched off",
        }
    }
}

impl Watch {
    /// The first look is due at once.
    pub fn new(connection: Connection, now: Instant) -> Watch {
        let Connection {
            run_id,
            id,
            signalled,
            setting,
        } = connection;
        Watch {
            run_id,
            signalled,
            questions: Question::ALL
                .into_iter()
                .filter(|&question| setting || question != Question::Setting)
                .collect(),
            due: now,
            sent: now,
            open: 0,
            seen: Seen::default(),
            refused: Vec::new(),
            newest: id,
            counters: None,
            clock: None,
            behind: false,
            rejoined: false,
            role: None,
            lacking: false,
            origin: now,
        }
    }

    /// Whether the server was a plain replica in the last look, or may have been.
    pub fn is_of_replica(&self) -> bool {
        self.role.as_ref().is_none_or(|role| *role == Role::Replica)
    }

    /// When to look again; None while a look is under way.
    pub fn next(&self) -> Option<Instant> {
        (self.open == 0).then_some(self.due)
    }

    /// Looks again no sooner than then.
    pub fn put_off(&mut self, until: Instant) {
        self.due = self.due.max(until);
    }

    /// The questions to ask now, if it is time. Each of them gets one answer, in this order.
    pub fn look(&mut self, now: Instant) -> Vec<Question> {
        if self.open > 0 || now < self.due {
            return Vec::new();
        }
        self.due = now + INTERVAL;
        self.sent = now;
        let waits = |question| {
            self.refused
                .iter()
                .any(|&(refused, until)| refused == question && now < until)
        };
        let asked: Vec<Question> = self
            .questions
            .iter()
            .copied()
            .filter(|&question| !waits(question))
            .collect();
        self.open = asked.len();
        asked
    }

    /// Takes an answer. With the last one of a look comes what it has found, in the order in which it must be told.
    pub fn take(&mut self, question: Question, answer: Result<OwnedFrame, String>, now: Instant) -> Vec<Finding> {
        match answer {
            Ok(reply) => self.see(question, reply, now),
            // It is busy, and not unwilling.
            Err(words)
                if ["BUSY", "LOADING", "MASTERDOWN"]
                    .iter()
                    .any(|code| words.starts_with(code)) => {}
            Err(words) => self.refuse(question, words, now),
        }
        self.open = self.open.saturating_sub(1);
        match self.open {
            0 => self.conclude(),
            _ => Vec::new(),
        }
    }

    fn see(&mut self, question: Question, reply: OwnedFrame, now: Instant) {
        let seen = &mut self.seen;
        if let Some(at) = self.refused.iter().position(|&(refused, _)| refused == question) {
            self.refused.swap_remove(at);
            seen.answered.push(question);
        }
        match question {
            Question::Setting => seen.setting = look::setting(reply),
            Question::Primaries => {
                let ids = look::text(reply).map(|list| look::newest(&list));
                seen.newest = ids.flatten();
            }
            Question::Server => {
                let Some(info) = look::info(reply) else { return };
                seen.run_id = info.get("run_id").map(str::to_owned);
                let time = info.get("server_time_usec").and_then(|time| time.parse().ok());
                let (sent, heard) = (self.sent - self.origin, now - self.origin);
                seen.clock = time.map(|time| Offset::new(time, sent, heard));
            }
            Question::Links => seen.links = look::info(reply).map(|info| Links::of(&info)),
            Question::Counters => seen.counters = look::info(reply).map(|info| Counters::of(&info)),
        }
    }

    fn refuse(&mut self, question: Question, words: String, now: Instant) {
        let until = now + REFUSED;
        match self.refused.iter_mut().find(|(refused, _)| *refused == question) {
            Some(again) => again.1 = until,
            None => {
                self.refused.push((question, until));
                if self.seen.refused.is_empty() {
                    self.seen.words = words;
                }
                self.seen.refused.push(question);
            }
        }
    }

    fn conclude(&mut self) -> Vec<Finding> {
        let seen = std::mem::take(&mut self.seen);
        let mut found = Vec::new();
        if seen.run_id.is_some_and(|run_id| run_id != self.run_id) {
            found.push(Finding::Replaced);
        }
        // A new link is there only once what came over it is loaded.
        if let Some(newest) = seen.newest.filter(|&newest| newest > self.newest) {
            self.newest = newest;
            found.push(Finding::Changed(Cause::FullSync));
        }
        if let Some(counters) = seen.counters {
            let before = self.counters.replace(counters);
            found.extend(
                before
                    .and_then(|before| counters.since(before, self.signalled))
                    .map(Finding::Changed),
            );
        }
        if let Some(links) = seen.links {
            let behind = links.behind.is_some();
            // What was missed comes over a link only after it is up.
            let catches_up = !behind && links.role == Role::Replica && self.behind && !self.rejoined;
            self.rejoined = catches_up;
            if !catches_up && behind != std::mem::replace(&mut self.behind, behind) {
                found.push(Finding::Behind(links.behind));
            }
            if self.role.as_ref() != Some(&links.role) {
                found.push(Finding::Role(links.role.clone()));
                self.role = Some(links.role);
            }
        }
        if let Some(now) = seen.clock {
            let set = self.clock.and_then(|before| now.set_since(before));
            found.extend(set.map(Finding::ClockSet));
            self.clock = Some(
                self.clock
                    .filter(|_| set.is_none())
                    .map_or(now, |before| before.agreed(now)),
            );
        }
        if let Some(setting) = seen.setting {
            let lacking = flags::missing(&setting).is_some();
            if lacking | std::mem::replace(&mut self.lacking, lacking) {
                found.push(Finding::Setting(setting));
            }
        }
        if switches::off(Switch::SilentWatch) {
            found.clear();
        }
        found.extend(seen.answered.into_iter().map(Finding::Answered));
        if !seen.refused.is_empty() {
            found.push(Finding::Refused(seen.refused, seen.words));
        }
        found
    }
}

#[cfg(test)]
mod tests;
