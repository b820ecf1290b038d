//! One connection while it hears: events, answers and the clock, in the order in which they come.

use std::{collections::VecDeque, convert::Infallible};

use redis_protocol::resp3::types::OwnedFrame;
use smallvec::SmallVec;
use tokio::{select, sync::watch, time::Instant};
use tracing::{info, warn};

use super::{
    Cause, End, KeyEvent, Listener, LostReason, Notifications, Options, Plan,
    change::Change,
    pulse::{Beat, Pulse, SILENCE},
    start,
    watch::{Connection, FOR_OTHERS, Finding, Question, Watch},
};
use crate::{
    alarm::Alarm,
    keyspace::flags,
    switches::{self, Switch},
    upstream::{
        Subscriptions,
        link::{Link, LinkError, answer},
        wire::Frame,
    },
};

/// What the server was asked; it answers everything in order.
#[derive(Debug)]
pub(super) enum Asked {
    Ping,
    /// Of the listener, who wants to know when it is answered.
    Question(u64),
    Watch(Question),
    /// To subscribe to so many names that are not confirmed yet.
    Subscribe(usize),
    /// To unsubscribe from so many names that are not confirmed yet.
    Unsubscribe(usize),
    /// To track further keys.
    Track,
    /// To send the events that were missing from its setting, which was `before`.
    Set {
        before: String,
        value: String,
    },
}

/// A connection that is subscribed to everything.
pub(super) struct Ear<'a> {
    pub(super) options: &'a Options,
    /// What is heard.
    pub(super) subscriptions: Subscriptions,
    /// How that comes to be another thing.
    pub(super) change: Change,
    link: Link,
    pub(super) asked: VecDeque<Asked>,
    watch: Watch,
    /// What the first look found, to be told once the listener knows of the connection.
    first: Vec<Finding>,
    /// The listener was told that the server does not send all key events.
    unheard: bool,
    /// Settings that the server must be told, with what they were.
    to_set: Option<(String, String)>,
}

impl<'a> Ear<'a> {
    /// Takes the first look: what changes after it will be noticed.
    pub async fn new(
        options: &'a Options,
        plan: Plan,
        plans: watch::Receiver<Plan>,
        mut link: Link,
        connection: Connection,
    ) -> Result<Ear<'a>, LinkError> {
        let connection_setting = connection.setting;
        let mut watch = Watch::new(connection, Instant::now());
        let questions = watch.look(Instant::now());
        link.send_all(questions.iter().map(|question| question.words())).await?;
        let mut first = Vec::new();
        for question in questions {
            let answer = link.reply().await?;
            first = watch.take(question, answer, Instant::now());
        }
        // Everything is read after this anyway.
        first.retain(|finding| !matches!(finding, Finding::Changed(_)));
        Ok(Ear {
            options,
            change: Change::new(&plan, plans, connection_setting),
            subscriptions: plan.subscriptions,
            link,
            asked: VecDeque::new(),
            watch,
            first,
            unheard: false,
            to_set: None,
        })
    }

    /// Whether the server is reading its data; until it has, there is nothing to be read.
    pub async fn is_loading(&mut self) -> Result<bool, End> {
        start::is_loading(&mut self.link, &self.options.endpoint.address).await
    }

    /// Where the server was reached.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Hands on what the server says until the connection is lost.
    pub async fn listen(&mut self, listener: &mut impl Listener) -> Result<Infallible, End> {
        let mut pulse = Pulse::new(Instant::now());
        let mut alarm = Alarm::default();
        for finding in std::mem::take(&mut self.first) {
            self.found(finding, listener)?;
        }
        loop {
            // What came together with the last reply of the start is delivered before the first read.
            let pongs = self.deliver(listener)?;
            let now = Instant::now();
            match pulse.beat(now, pongs) {
                Beat::Wait => {}
                Beat::Ping => self.ask(Asked::Ping, &[b"PING"]).await?,
                Beat::Late(late) => {
                    let address = self.link.address();
                    match late {
                        true => warn!(%address, "upstream does not answer"),
                        false => info!(%address, "upstream answers again, nothing was lost"),
                    }
                    listener.late(late);
                }
                Beat::Lost => return Err(End::Lost(LostReason::Silent(SILENCE))),
            }
            self.leave().await?;
            if let Some((before, value)) = self.to_set.take() {
                let words: [&[u8]; 4] = [b"CONFIG", b"SET", start::SETTING.as_bytes(), value.as_bytes()];
                let asked = Asked::Set {
                    before,
                    value: value.clone(),
                };
                self.ask(asked, &words).await?;
            }
            let questions = self.watch.look(now);
            if !questions.is_empty() {
                self.asked.extend(questions.iter().copied().map(Asked::Watch));
                let words = questions.iter().map(|question| question.words());
                let sent = self.link.send_all(words).await;
                sent.map_err(|error| self.lost(error))?;
            }
            alarm.set(self.watch.next().into_iter().fold(pulse.next(), Instant::min));
            select! {
                // What is in the socket counts before what the clock says: it may be us who were late.
                biased;
                read = self.link.read() => {
                    read.map_err(|error| self.lost(error))?;
                    pulse.heard(Instant::now());
                }
                plan = self.change.next() => self.begin_change(&plan, listener).await?,
                number = listener.asked() => {
                    let text = number.to_string();
                    let words: [&[u8]; 2] = [b"PING", text.as_bytes()];
                    self.ask(Asked::Question(number), &words).await?;
                }
                () = alarm.gone_off() => {}
            }
        }
    }

    pub(super) async fn ask(&mut self, asked: Asked, words: &[&[u8]]) -> Result<(), End> {
        self.asked.push_back(asked);
        let sent = self.link.send_all([words]).await;
        sent.map_err(|error| self.lost(error))
    }

    /// Hands on all whole frames that were read; says how many of them answered a PING.
    fn deliver(&mut self, listener: &mut impl Listener) -> Result<usize, End> {
        let mut pongs = 0;
        loop {
            let answer = match self.deliver_to_the_next_reply(listener)? {
                Some(push @ OwnedFrame::Push { .. }) => {
                    self.pushed(&push, listener);
                    continue;
                }
                Some(reply) => answer(reply),
                None => return Ok(pongs),
            };
            match self.asked.pop_front() {
                Some(asked @ (Asked::Subscribe(_) | Asked::Unsubscribe(_) | Asked::Track)) => {
                    self.change_answered(&asked, answer, listener);
                }
                // An error is an answer, too.
                Some(Asked::Ping) => pongs += 1,
                Some(Asked::Question(number)) => listener.answered(number),
                Some(Asked::Watch(question)) => {
                    for finding in self.watch.take(question, answer, Instant::now()) {
                        self.found(finding, listener)?;
                    }
                }
                Some(Asked::Set { before, value }) => self.set(answer, &before, &value, listener)?,
                None => {
                    return Err(End::Lost(LostReason::Protocol(
                        "the server answers what it was not asked".into(),
                    )));
                }
            }
        }
    }

    /// Hands on whole frames up to a reply, or to a push that says nothing of keys; None if there is no more.
    fn deliver_to_the_next_reply(&mut self, listener: &mut impl Listener) -> Result<Option<OwnedFrame>, End> {
        let mut reply = None;
        let mut done = 0;
        let mut batch: SmallVec<[KeyEvent<'_>; 32]> = SmallVec::new();
        let (bytes, mut frames) = self.link.unparsed();
        let malformed = loop {
            let (frame, length) = match frames.next(&bytes[done..]) {
                Ok(Some(found)) => found,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            done += length;
            match frame {
                // Of two names that bring the same, only one counts at a time.
                Frame::Message { pattern, channel, .. }
                    if self.change.is_under_way() && !self.subscriptions.has(pattern, channel) => {}
                Frame::Message { channel, payload, .. } => match self.subscriptions.key_of(channel) {
                    Some(key) => batch.push(KeyEvent {
                        key,
                        event: Some(payload),
                    }),
                    None => {
                        tell(listener, &mut batch);
                        listener.published(channel, payload);
                    }
                },
                Frame::Flushed if switches::off(Switch::FlushSignal) => {}
                Frame::Flushed => {
                    tell(listener, &mut batch);
                    listener.flushed(match self.watch.is_of_replica() {
                        true => Cause::SignalOfReplica,
                        false => Cause::Signal,
                    });
                }
                Frame::Reply(frame) | Frame::Push(frame) => {
                    reply = Some(frame);
                    break None;
                }
                Frame::Invalidated(key) => batch.push(KeyEvent { key, event: None }),
            }
        };
        tell(listener, &mut batch);
        drop(batch);
        self.link.consume(done, frames);
        match malformed {
            Some(error) => Err(End::Lost(LostReason::Protocol(error.to_string()))),
            None => Ok(reply),
        }
    }

    /// Tells what a look has found.
    fn found(&mut self, finding: Finding, listener: &mut impl Listener) -> Result<(), End> {
        let address = &self.options.endpoint.address;
        match finding {
            Finding::Changed(cause) => {
                info!(%address, %cause, "keys may have changed without events: all are read again");
                listener.flushed(cause);
            }
            Finding::Replaced => {
                let why = "another process answers on the same connection".into();
                return Err(End::Lost(LostReason::Protocol(why)));
            }
            Finding::Behind(behind) => {
                match behind {
                    Some(since) => {
                        warn!(%address, ?since, "the replica's link to its primary is down: it may be behind")
                    }
                    None => info!(%address, "the replica's link to its primary is up again"),
                }
                listener.behind(behind);
            }
            Finding::Role(role) => {
                let peers_down = role.peers_down().len();
                info!(%address, role = role.word(), peers_down, "what the server is");
                listener.role(role);
            }
            Finding::ClockSet(ahead_ms) => {
                info!(%address, ahead_ms, "the server's clock was set: keys expire at other times");
                listener.clock_set(ahead_ms);
            }
            Finding::Setting(current) => match (flags::missing(&current), self.options.notifications) {
                (Some(value), Notifications::Ensure) if self.unheard => self.to_set = Some((current, value)),
                (Some(_), Notifications::Ensure) => {
                    warn!(%address, now = current, "key events were switched off: they are switched on again in a moment");
                    self.unheard = true;
                    listener.unheard();
                    // Others must see it too before it is set right.
                    self.watch.put_off(Instant::now() + FOR_OTHERS);
                }
                (Some(value), _) => return Err(start::missing(&self.options.endpoint, &current, &value)),
                (None, _) if self.unheard => {
                    info!(%address, now = current, "somebody else has switched key events on again");
                    self.heard_again(listener);
                }
                (None, _) => {}
            },
            Finding::Refused(questions, error) => {
                let mut rights: Vec<&str> = questions.iter().map(|question| question.right()).collect();
                rights.sort_unstable();
                rights.dedup();
                let unnoticed: Vec<&str> = questions.iter().map(|question| question.shows()).collect();
                warn!(
                    %address,
                    error,
                    unnoticed = unnoticed.join(", "),
                    mend = self.options.endpoint.grant(&rights.join(" ")),
                    "the server does not answer all that it is asked each second: some changes go unnoticed"
                );
            }
            Finding::Answered(question) => info!(%address, noticed = question.shows(), "the server answers again"),
        }
        Ok(())
    }

    /// What became of the events that were missing.
    fn set(
        &mut self,
        answer: Result<OwnedFrame, String>,
        before: &str,
        value: &str,
        listener: &mut impl Listener,
    ) -> Result<(), End> {
        let address = &self.options.endpoint.address;
        match answer {
            Ok(_) => {
                info!(%address, before, now = value, "key events are on again");
                self.heard_again(listener);
                Ok(())
            }
            Err(message) => Err(start::unchangeable(&self.options.endpoint, before, &message, value)),
        }
    }

    fn heard_again(&mut self, listener: &mut impl Listener) {
        self.unheard = false;
        listener.flushed(Cause::Unheard);
    }

    fn lost(&self, error: LinkError) -> End {
        End::Lost(start::reason(&self.options.endpoint.address, error))
    }
}

fn tell(listener: &mut impl Listener, batch: &mut SmallVec<[KeyEvent<'_>; 32]>) {
    if !batch.is_empty() {
        listener.events(batch);
        batch.clear();
    }
}
