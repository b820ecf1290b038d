//! The sweep: one pass over all slots of a session's channels.

use crate::hub::{Body, Cursor, LogView, Mode, Name};

use super::{Phase, Place, Rendition, Session, Start, Step, WINDOW};

/// How often a sweep waits for the watermark at one value, before a channel is announced. A value that is renewed all the time may never
/// be found at rest: it must not keep the others waiting, and comes right behind `ready` then.
const WAITS: u8 = 64;

/// How far a sweep has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// The watermark at its start: the base of every channel when it ends.
    head: u64,
    /// The channel it is in.
    place: u32,
    /// The slot it comes to next.
    slot: u32,
    /// Whether it has sent anything.
    sent: bool,
    /// How often it may still wait for the next value.
    waits: u8,
}

/// What a sweep comes to.
#[derive(Debug)]
pub(super) enum Swept {
    /// Something to send.
    Step(Step),
    /// A value that the watermark has not reached yet, and that `ready` must not come before.
    Wait,
    /// Its end.
    End,
}

impl Sweep {
    fn next_place(&mut self) {
        (self.place, self.slot) = (self.place + 1, 0);
    }
}

impl Session {
    /// Starts a sweep up to this watermark. `false` if no channel can be swept yet.
    pub(super) fn begin_sweep(&mut self, watermark: u64) -> bool {
        self.remove_gone();
        self.swept = watermark;
        if self.channels.iter().any(|place| place.is_cut_above(watermark)) {
            // What is not visible yet has pushed out what was: only when it is there can all be told.
            return false;
        }
        for place in &mut self.channels {
            place.begin(watermark, &mut self.outbox);
        }
        let any = self.channels.iter().any(|place| place.joined);
        if any {
            let sent = !self.outbox.is_empty();
            self.phase = Phase::Sweep(Sweep {
                head: watermark,
                place: 0,
                slot: 0,
                sent,
                waits: WAITS,
            });
        }
        any
    }

    /// The next step of the sweep.
    pub(super) fn sweep(&mut self, watermark: u64) -> Swept {
        let Phase::Sweep(sweep) = &mut self.phase else {
            return Swept::End;
        };
        while let Some(place) = self.channels.get_mut(sweep.place as usize) {
            let Some(log) = place.log().filter(|_| place.joined).cloned() else {
                sweep.next_place();
                continue;
            };
            if log.channel.mode == Mode::Events {
                // Happenings are not renewed, so nothing above the head needs to be taken early. Behind those that were
                // dropped meanwhile it does not go on: what is missing must be told first.
                let view = log.view();
                let found = view.next(place.base, sweep.head).filter(|_| !place.has_lost(&view));
                drop(view);
                let Some(found) = found else {
                    sweep.next_place();
                    continue;
                };
                place.base = found.message.sequence;
                if place.tell(&found.message) {
                    sweep.sent = true;
                    return Swept::Step(Step::Message {
                        message: found.message,
                        rendition: Rendition::Catchup,
                    });
                }
                continue;
            }
            // Before `ready` every value must have been sent, so one above the watermark may not be passed by: its
            // predecessor is gone.
            let upto = if place.announced { watermark } else { u64::MAX };
            let found = log.view().slot(sweep.slot, place.base, upto);
            let Some((slot, message)) = found.and_then(|found| Some((found.slot?, found.message))) else {
                sweep.next_place();
                self.visited.visit(sweep.place, 0, watermark);
                continue;
            };
            let above = message.sequence > watermark;
            if above && sweep.waits > 0 {
                sweep.waits -= 1;
                return Swept::Wait;
            }
            let known = place.marked && self.marks.covers(sweep.place, slot, message.sequence);
            sweep.slot = slot + 1;
            sweep.waits = WAITS;
            self.visited.visit(sweep.place, sweep.slot, watermark);
            if !above && !known {
                sweep.sent = true;
                let rendition = if place.base == 0 {
                    Rendition::Snapshot
                } else {
                    Rendition::Catchup
                };
                return Swept::Step(Step::Message { message, rendition });
            }
        }
        Swept::End
    }

    /// The sweep is through: its head is everybody's base now.
    pub(super) fn end_sweep(&mut self, watermark: u64) {
        let Phase::Sweep(Sweep { head, sent, .. }) = self.phase else {
            return;
        };
        self.marks = std::mem::take(&mut self.visited);
        self.marks.settle(head);
        self.cursor = head;
        self.phase = Phase::Rest;
        let (mut pending, mut waiting, mut lost) = (0, false, false);
        for place in &mut self.channels {
            let Some(log) = place.log().cloned() else { continue };
            let view = log.view();
            place.marked = place.joined;
            if place.joined && place.has_lost(&view) {
                // Deletions may have been dropped before the sweep came to them: it is found out when the next begins.
                lost = true;
            } else if place.joined {
                place.base = head;
            }
            // What stands above the head is told by what comes next, in its order.
            let status = view.status(head);
            if let Some(status) = status.filter(|status| matches!(status.body, Body::Fresh { .. }))
                && place.tell(status)
            {
                self.outbox.push(Step::Message {
                    message: status.clone(),
                    rendition: Rendition::Catchup,
                });
            }
            // Of what was ended it is not to be said that it is there.
            waiting |= view.ended().is_some();
            waiting |= !place.joined || (!place.announced && (place.told_stale.is_some() || view.stale().is_some()));
            pending += view.pending(head, watermark);
        }
        if lost {
            self.swept = 0;
            return;
        }
        if waiting {
            return;
        }
        self.announce(head, sent);
        if pending <= WINDOW {
            self.phase = Phase::Ordered;
        } else {
            self.swept = 0;
        }
    }

    /// Says `ready` to whom it is owed: to those who asked, each with their number; after a catch-up or when the list has
    /// shrunk, to all.
    fn announce(&mut self, head: u64, caught_up: bool) {
        let cursor = Cursor {
            epoch: self.epoch,
            sequence: head,
            set: Some(self.set()),
        };
        let mut asked: Vec<Option<u64>> = Vec::new();
        for place in self
            .channels
            .iter()
            .filter(|place| !place.announced && place.subscription.is_some())
        {
            if !asked.contains(&place.reference) {
                asked.push(place.reference);
            }
        }
        let count = |place: &Place| {
            let log = place.log()?;
            Some((log.channel.name.clone(), log.view().len()))
        };
        for &reference in &asked {
            let of = |place: &&Place| !place.announced && place.reference == reference;
            let channels: Vec<(Name, usize)> = self.channels.iter().filter(of).filter_map(count).collect();
            self.outbox.push(Step::Ready {
                channels,
                cursor,
                reference,
            });
        }
        match self.owed.take() {
            Some(reference) => self.outbox.push(self.ready(head, reference)),
            None if asked.is_empty() && caught_up => self.outbox.push(self.ready(head, None)),
            None => {}
        }
        for place in &mut self.channels {
            place.announced = true;
        }
    }
}

impl Place {
    /// Looks at the log before a sweep: joins it once it is filled, and finds out whether the base still holds.
    fn begin(&mut self, watermark: u64, outbox: &mut Vec<Step>) {
        let Some(log) = self.log().cloned() else { return };
        let view = log.view();
        if let Some(status) = view
            .status(watermark)
            .filter(|status| matches!(status.body, Body::Stale { .. }))
            && self.tell(status)
        {
            outbox.push(Step::Message {
                message: status.clone(),
                rendition: Rendition::Catchup,
            });
        }
        let complete_from = view.complete_from();
        if self.joined {
            if self.has_lost(&view) {
                self.reset("too-far-behind", complete_from, outbox);
            }
            self.tell_passed(&view, watermark, outbox);
            return;
        }
        if !view.is_filled(watermark) {
            return;
        }
        self.joined = true;
        // Of a state that is not wanted, nothing but what changes after it was read.
        let from = match log.channel.mode {
            Mode::Events => Some(complete_from),
            Mode::State => (!log.channel.snapshot).then(|| view.filled_at().max(complete_from)),
        };
        match (self.start, from) {
            (Start::New, Some(from)) => self.base = self.base.max(from),
            (Start::New, None) => self.base = 0,
            (Start::Resume(cursor), _) if complete_from <= cursor && cursor <= watermark => self.base = cursor,
            (Start::Resume(_) | Start::Unknown, _) => self.reset("unknown-cursor", complete_from, outbox),
        }
        self.tell_passed(&view, watermark, outbox);
    }

    /// Tells of a `stale` that came and went behind the base; the `fresh` follows when the sweep is through.
    fn tell_passed(&mut self, view: &LogView, watermark: u64, outbox: &mut Vec<Step>) {
        if self.base > 0
            && self.told_stale.is_none()
            && let Some(stale) = view.passed(self.base, watermark)
            && self.tell(stale)
        {
            outbox.push(Step::Message {
                message: stale.clone(),
                rendition: Rendition::Catchup,
            });
        }
    }

    /// Whether the log no longer has all that stood after the base.
    fn has_lost(&self, view: &LogView) -> bool {
        self.base > 0 && self.base < view.complete_from()
    }

    /// Whether the log is complete only from above this watermark, though there is something of it to be sent.
    fn is_cut_above(&self, watermark: u64) -> bool {
        self.log().is_some_and(|log| {
            let view = log.view();
            (self.joined || view.is_filled(watermark)) && view.complete_from() > watermark
        })
    }

    /// What the client has is void: it gets all there is.
    fn reset(&mut self, reason: &'static str, complete_from: u64, outbox: &mut Vec<Step>) {
        let Some(log) = self.log().cloned() else { return };
        let channel = log.channel.name.clone();
        self.base = 0;
        self.marked = false;
        self.announced = false;
        if log.channel.mode == Mode::Events {
            // Not 0: a status that stands before what is retained would be taken for the place reached, and be lost again.
            self.base = complete_from;
            outbox.push(Step::Gap { channel, reason });
            return;
        }
        outbox.push(Step::Reset { channel, reason });
        for payload in &log.channel.on_reset {
            outbox.push(Step::OnReset {
                channel: log.channel.clone(),
                payload: payload.clone(),
            });
        }
    }
}
