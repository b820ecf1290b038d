//! What one client gets next, decided once for all transports.
//!
//! A session is a list of channels with a place in each. It is *live* when everything up to the shard's watermark was
//! sent: then the shard's walk hands it each new message in the order of sequences, with ids. Otherwise it *sweeps*
//! (`sweep`): slot by slot in a fixed order, each at its newest value, without ids. Snapshot, catch-up after a resume,
//! reset and conflation of a slow client are all that one sweep, from different bases; so none of them can starve a key,
//! and none needs memory that grows with what the client missed.

mod ending;
mod marks;
mod sweep;

use std::sync::Arc;

use crate::hub::{Body, Channel, Cursor, Found, Log, Message, Name, Payload, Reason, Subscription, set_of};

use crate::switches::{self, Switch};

pub use ending::Ending;
use marks::Marks;
use sweep::{Sweep, Swept};

/// With at most this many messages before it, a session takes them one by one in order; with more it sweeps again.
const WINDOW: usize = 64;

/// What to send next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A message of a log, be it a change, `stale`, `fresh` or `gap`.
    Message {
        /// The message.
        message: Arc<Message>,
        /// In which form.
        rendition: Rendition,
    },
    /// What clears the channel's list in clients that hear no control events; like a change, without id.
    OnReset {
        /// The channel that was reset.
        channel: Arc<Channel>,
        /// What to send.
        payload: Payload,
    },
    /// The channels are complete; live messages follow.
    Ready {
        /// The channels that this is said of, each with the number of its values.
        channels: Vec<(Name, usize)>,
        /// Where to resume with the session's list of channels.
        cursor: Cursor,
        /// The number by which the client asked for them.
        reference: Option<u64>,
    },
    /// What the client knows of the channel is void; its state follows.
    Reset {
        /// The channel.
        channel: Name,
        /// Why, in one word.
        reason: &'static str,
    },
    /// Happenings of the channel are missing before those that follow.
    Gap {
        /// The channel.
        channel: Name,
        /// Why, in one word.
        reason: &'static str,
    },
}

/// In which form a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendition {
    /// With its id: everything before it was sent.
    Live,
    /// Without id.
    Catchup,
    /// Without id, and as the state rather than a change.
    Snapshot,
}

/// From where a channel is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The client knows nothing: the current state, or what happens from now on.
    New,
    /// The client has everything up to this sequence, if the log still knows it.
    Resume(u64),
    /// The client came with a cursor that is not known here.
    Unknown,
}

impl Start {
    /// Judges the cursor that came with a list of channels of this [`set_of`]. `kept`: the client itself keeps cursor and
    /// list together (a browser that reconnects sends back the same URL), so the cursor need not name the set.
    pub fn judge(cursor: Option<&str>, epoch: u64, set: u64, kept: bool) -> Start {
        let Some(text) = cursor else { return Start::New };
        let known = Cursor::parse(text).filter(|cursor| {
            let process = cursor.epoch == epoch || switches::off(Switch::Epoch);
            let list = cursor.set.map_or(kept, |given| given == set) || switches::off(Switch::Set);
            process && list
        });
        known.map_or(Start::Unknown, |cursor| Start::Resume(cursor.sequence))
    }
}

/// One client's channels and how far it is in them.
#[derive(Debug)]
pub struct Session {
    epoch: u64,
    /// An index holds while a sweep goes on: what is unsubscribed then stays as an empty place until its end.
    channels: Vec<Place>,
    phase: Phase,
    /// Live or in order: everything up to here was sent, on every channel.
    cursor: u64,
    /// The watermark at the start of the newest sweep; without progress there is nothing to sweep again.
    swept: u64,
    /// What the last sweep sent above the base that it gave.
    marks: Marks,
    /// What the sweep that goes on has visited.
    visited: Marks,
    /// Decided but not yet taken; empty but at the seams of a sweep and when the list has shrunk.
    outbox: Vec<Step>,
    /// A `ready` is due at the end of the sweep, though no channel is new, with this number.
    owed: Option<Option<u64>>,
}

#[derive(Debug)]
enum Phase {
    /// Nothing to do until the watermark moves.
    Rest,
    /// On its way through the slots.
    Sweep(Sweep),
    /// Complete up to the cursor; takes what is left in order, with ids.
    Ordered,
    /// As ordered, with nothing left at the last look.
    Live,
}

/// One channel of a session.
#[derive(Debug)]
struct Place {
    /// `None` once unsubscribed.
    subscription: Option<Subscription>,
    start: Start,
    /// Everything of this channel up to here was sent; 0 = nothing. Holds unless ordered or live.
    base: u64,
    /// The log was filled and the start judged.
    joined: bool,
    /// The sweep that left the marks visited it, and what that sweep sent holds.
    marked: bool,
    /// The reason of the last `stale` that was sent, until `fresh` is.
    told_stale: Option<Reason>,
    /// Was in a `ready`.
    announced: bool,
    /// The number by which the client asked.
    reference: Option<u64>,
}

impl Session {
    /// A session without channels, in the process of this epoch.
    pub fn new(epoch: u64) -> Session {
        Session {
            epoch,
            channels: Vec::new(),
            phase: Phase::Rest,
            cursor: 0,
            swept: 0,
            marks: Marks::default(),
            visited: Marks::default(),
            outbox: Vec::new(),
            owed: None,
        }
    }

    /// Makes room for so many further channels, and no more than that: most sessions have one for all their life.
    pub fn reserve(&mut self, channels: usize) {
        self.channels.reserve_exact(channels);
    }

    /// Adds a channel; one that is there already stays as it is and is announced again with the new number. `walked`:
    /// everything up to here is known to have been sent to live sessions; a new events channel begins there.
    pub fn subscribe(&mut self, subscription: Subscription, start: Start, walked: u64, reference: Option<u64>) {
        self.fall_behind(walked);
        self.swept = 0;
        let id = subscription.log().id;
        if let Some(place) = self
            .channels
            .iter_mut()
            .find(|place| place.log().is_some_and(|log| log.id == id))
        {
            place.announced = false;
            place.reference = reference;
            return;
        }
        self.channels.push(Place {
            subscription: Some(subscription),
            start,
            base: walked,
            joined: false,
            marked: false,
            told_stale: None,
            announced: false,
            reference,
        });
    }

    /// Takes a channel out and gives its log, or `None` where it is not subscribed.
    pub fn unsubscribe(&mut self, name: &str) -> Option<Arc<Log>> {
        let named = |place: &&mut Place| place.log().is_some_and(|log| &*log.channel.name == name);
        let log = self.channels.iter_mut().find(named)?.subscription.take()?.log().clone();
        if !matches!(self.phase, Phase::Sweep(_)) {
            self.remove_gone();
            // Whoever rests may have waited for this channel alone, and not every watermark moves.
            self.swept = 0;
        }
        let set = self.set();
        for step in &mut self.outbox {
            if let Step::Ready { channels, cursor, .. } = step {
                channels.retain(|(channel, _)| **channel != *name);
                cursor.set = Some(set);
            }
        }
        Some(log)
    }

    /// The list has shrunk at the client's wish: it is owed a `ready` with the cursor of what is left, without which it
    /// could not resume. `walked`: the watermark of the last finished walk, up to which a live session has everything.
    pub fn announce_rest(&mut self, walked: u64, reference: Option<u64>) {
        match self.phase {
            Phase::Live => self.cursor = self.cursor.max(walked),
            Phase::Ordered => {}
            // Of no channels there is no sweep at whose end it could be said.
            Phase::Rest if self.channels.is_empty() => self.cursor = self.cursor.max(walked),
            Phase::Rest | Phase::Sweep(_) => {
                self.owed = Some(reference);
                return;
            }
        }
        // Until it is taken no message may pass it.
        self.phase = Phase::Ordered;
        let ready = self.ready(self.cursor, reference);
        self.outbox.push(ready);
    }

    /// `ready` for the whole list. It implies that the channels it names are fresh, so those that are not go unnamed.
    fn ready(&self, sequence: u64, reference: Option<u64>) -> Step {
        let fresh = self.channels.iter().filter(|place| place.told_stale.is_none());
        let channels = fresh
            .filter_map(Place::log)
            .map(|log| (log.channel.name.clone(), log.view().len()));
        Step::Ready {
            channels: channels.collect(),
            cursor: Cursor {
                epoch: self.epoch,
                sequence,
                set: Some(self.set()),
            },
            reference,
        }
    }

    fn remove_gone(&mut self) {
        for place in (0..self.channels.len()).rev() {
            if self.channels[place].subscription.is_none() {
                self.channels.remove(place);
                self.marks.remove(place as u32);
            }
        }
    }

    /// Whether a `ready` is due that the client has asked for.
    pub fn owes_answer(&self) -> bool {
        let asked = |place: &Place| place.subscription.is_some() && !place.announced;
        !self.outbox.is_empty() || self.owed.is_some() || self.channels.iter().any(asked)
    }

    /// The logs of its channels.
    pub fn logs(&self) -> impl Iterator<Item = &Arc<Log>> {
        self.channels.iter().filter_map(Place::log)
    }

    /// The logs of its channels in which something stands, up to the watermark, that was not sent.
    pub fn behind(&self, watermark: u64) -> impl Iterator<Item = &Arc<Log>> {
        let is_swept = matches!(self.phase, Phase::Rest | Phase::Sweep(_));
        let unsent = move |place: &&Place| {
            let from = if is_swept { place.base } else { self.cursor };
            place
                .log()
                .is_some_and(|log| log.view().next(from, watermark).is_some())
        };
        self.channels.iter().filter(unsent).filter_map(Place::log)
    }

    /// Whether it stands at the shard's watermark, so that the walk may hand it messages directly.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Why it is to be ended, if one of its channels was.
    pub fn ended(&self) -> Option<Ending> {
        self.logs().find_map(|log| log.view().ended()).map(Ending::from)
    }

    /// If live: everything up to here was sent.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The walk has handed over this message; live sessions only, in the order of sequences.
    pub fn sent(&mut self, sequence: u64) {
        self.cursor = sequence;
    }

    /// Whether a message that the walk is about to hand over is to be sent: of `stale` and `fresh` only what is news to
    /// this client, which is noted as told.
    pub fn tell(&mut self, message: &Message) -> bool {
        let of = |place: &&mut Place| {
            place
                .log()
                .is_some_and(|log| Arc::ptr_eq(&log.channel, &message.channel))
        };
        self.channels
            .iter_mut()
            .find(of)
            .is_some_and(|place| place.tell(message))
    }

    /// The client could not take all that was due: from now on it is served by sweeps. `walked`: the watermark of the
    /// last finished walk, up to which a live session has everything.
    pub fn fall_behind(&mut self, walked: u64) {
        let base = match self.phase {
            Phase::Live => self.cursor.max(walked),
            Phase::Ordered => self.cursor,
            Phase::Rest | Phase::Sweep(_) => return,
        };
        self.cursor = base;
        for place in self.channels.iter_mut().filter(|place| place.joined) {
            place.base = base;
        }
        self.phase = Phase::Rest;
        self.swept = 0;
    }

    /// What to send next; `None` when there is nothing up to this watermark. A session that is live afterwards stands at
    /// the watermark. The watermark never goes back.
    pub fn next(&mut self, watermark: u64) -> Option<Step> {
        loop {
            if !self.outbox.is_empty() {
                let step = self.outbox.remove(0);
                if self.outbox.is_empty() {
                    // It is empty for almost all of a session's life.
                    self.outbox = Vec::new();
                }
                return Some(step);
            }
            match &mut self.phase {
                Phase::Rest if watermark <= self.swept => return None,
                Phase::Rest => {
                    if !self.begin_sweep(watermark) && self.outbox.is_empty() {
                        return None;
                    }
                }
                Phase::Sweep(_) => match self.sweep(watermark) {
                    Swept::Step(step) => return Some(step),
                    Swept::Wait => return None,
                    Swept::End => self.end_sweep(watermark),
                },
                Phase::Live | Phase::Ordered => {
                    self.phase = Phase::Ordered;
                    match self.in_order(watermark) {
                        Some(step) => return Some(step),
                        None if matches!(self.phase, Phase::Ordered) => {
                            self.cursor = self.cursor.max(watermark);
                            self.marks.clear();
                            self.phase = Phase::Live;
                            return None;
                        }
                        None => {}
                    }
                }
            }
        }
    }

    /// The message with the lowest unsent sequence over all channels; `None` also when it had to fall behind.
    fn in_order(&mut self, watermark: u64) -> Option<Step> {
        let watermark = if switches::off(Switch::Watermark) {
            u64::MAX
        } else {
            watermark
        };
        loop {
            let mut lowest: Option<(usize, Found)> = None;
            let mut lost = false;
            for (at, place) in self.channels.iter().enumerate() {
                let Some(log) = place.log() else { continue };
                let view = log.view();
                lost |= !place.joined || view.complete_from() > self.cursor;
                // It comes before values that were appended before it.
                lost |= place.told_stale.is_none() && view.passed(self.cursor, watermark).is_some();
                let upto = lowest
                    .as_ref()
                    .map_or(watermark, |(_, found)| found.message.sequence - 1);
                if let Some(found) = view.next(self.cursor, upto) {
                    lowest = Some((at, found));
                    if switches::off(Switch::LowestFirst) {
                        break;
                    }
                }
            }
            if lost {
                self.fall_behind(0);
                return None;
            }
            let (at, found) = lowest?;
            self.cursor = found.message.sequence;
            let known = found
                .slot
                .is_some_and(|slot| self.marks.covers(at as u32, slot, self.cursor));
            if !known && self.channels[at].tell(&found.message) {
                return Some(Step::Message {
                    message: found.message,
                    rendition: Rendition::Live,
                });
            }
        }
    }

    fn set(&self) -> u64 {
        set_of(self.logs().map(|log| &*log.channel.name))
    }
}

impl Place {
    fn log(&self) -> Option<&Arc<Log>> {
        self.subscription.as_ref().map(Subscription::log)
    }

    /// Whether a message is to be sent here; of `stale` and `fresh` only what is news.
    fn tell(&mut self, message: &Message) -> bool {
        match message.body {
            Body::Stale { reason, .. } => self.told_stale.replace(reason) != Some(reason),
            Body::Fresh { .. } => self.told_stale.take().is_some(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
