//! The walk: what is new goes to every subscriber that is up to date, in the order of sequences.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use crate::hub::{Body, Ended, Message};
use crate::session::Ending;
use crate::switches::{self, Switch};

use super::Transport;
use super::codec;
use super::conn::{Phase, Sent};
use super::core::{Core, SLICE, client, enqueue};

/// Most subscribers looked at in a slice, with or without a send.
const VISITS: usize = 16 * SLICE;

/// Everything that was appended in the logs of this shard between two watermarks. It is walked to its end before the next
/// begins, so that whoever is live after a turn has everything up to its watermark.
#[derive(Debug)]
pub(super) struct Turn {
    watermark: u64,
    entries: Vec<Entry>,
    /// The entry that is being walked.
    at: usize,
    /// Subscribers of its log before this place were not visited yet. The walk goes backwards: those who come meanwhile
    /// are added behind it, and one that fills the place of another was visited already, or is visited twice, which
    /// its cursor makes harmless.
    before: usize,
    /// Whether the entry was handed to anybody.
    handed: bool,
}

#[derive(Debug)]
struct Entry {
    log: u64,
    news: News,
}

#[derive(Debug)]
enum News {
    /// To be sent.
    Message(Arc<Message>),
    /// Nothing to send, but those who wait for the log may find that they need to wait no longer.
    Nudge,
    /// The log no longer has everything that is new, or it was stale meanwhile: its subscribers must look for themselves
    /// what they have missed.
    Lost,
    /// The log was closed although it had subscribers: they end with it.
    Ended(Ended),
}

impl News {
    fn sequence(&self) -> u64 {
        match self {
            News::Message(message) => message.sequence,
            News::Nudge | News::Lost | News::Ended(_) => 0,
        }
    }
}

/// How long ago that was; nothing where the clock was set back.
fn since(heard: NonZeroU64) -> Duration {
    let heard = UNIX_EPOCH + Duration::from_micros(heard.get());
    heard.elapsed().unwrap_or_default()
}

impl Core {
    /// Goes on with the turn, or begins one; `true` if there is more to walk.
    pub fn walk(&mut self) -> bool {
        let (mut sends, mut visits) = (0, 0);
        while sends < SLICE && visits < VISITS {
            if self.turn.is_none() && !self.begin_turn() {
                return false;
            }
            self.walk_entry(&mut sends, &mut visits);
        }
        true
    }

    /// Gathers what the grown logs have up to the watermark; `false` if that is nothing.
    fn begin_turn(&mut self) -> bool {
        let (walked, watermark) = (self.books.walked, self.watermark);
        let mut grown = std::mem::take(&mut self.grown);
        grown.sort_unstable_by_key(|log| log.id);
        grown.dedup_by_key(|log| log.id);
        let mut entries = Vec::with_capacity(grown.len());
        for log in &grown {
            let view = log.view();
            let before = entries.len();
            if let Some(ended) = view.ended() {
                entries.push(Entry {
                    log: log.id,
                    news: News::Ended(ended),
                });
                continue;
            }
            if view.complete_from() > walked || view.passed(walked, watermark).is_some() {
                entries.push(Entry {
                    log: log.id,
                    news: News::Lost,
                });
                continue;
            }
            let upto = if switches::off(Switch::Watermark) {
                u64::MAX
            } else {
                watermark
            };
            view.since(walked, upto, |message| {
                entries.push(Entry {
                    log: log.id,
                    news: News::Message(message.clone()),
                });
            });
            if entries.len() == before {
                entries.push(Entry {
                    log: log.id,
                    news: News::Nudge,
                });
            }
        }
        if entries.is_empty() {
            self.books.walked = watermark;
            return false;
        }
        if !switches::off(Switch::LowestFirst) {
            entries.sort_by_key(|entry| entry.news.sequence());
        }
        self.turn = Some(Turn {
            watermark,
            entries,
            at: 0,
            before: usize::MAX,
            handed: false,
        });
        true
    }

    fn walk_entry(&mut self, sends: &mut usize, visits: &mut usize) {
        let Some(turn) = &mut self.turn else { return };
        let Some(entry) = turn.entries.get(turn.at) else {
            self.books.walked = turn.watermark;
            self.turn = None;
            return;
        };
        let list = self.subscribers.get_mut(entry.log);
        let tokens = list.map(|list| &mut list.tokens);
        let mut nobody = Vec::new();
        let tokens = tokens.unwrap_or(&mut nobody);
        let mut gone = Vec::new();
        // That of the subscriber before, as nearly all of them have the same transport.
        let mut encoded: Option<(Transport, Cow<'_, Bytes>)> = None;
        turn.before = turn.before.min(tokens.len());
        while turn.before > 0 && *sends < SLICE && *visits < VISITS {
            turn.before -= 1;
            *visits += 1;
            let token = tokens[turn.before];
            let Some(conn) = client(&mut self.clients, token) else {
                tokens.swap_remove(turn.before);
                continue;
            };
            if let News::Ended(ended) = entry.news {
                *sends += 1;
                gone.push((token, Some(ended)));
                continue;
            }
            if conn.phase != Phase::Open || conn.blocked {
                continue;
            }
            if !conn.session.is_live() {
                enqueue(conn, &mut self.ready);
                continue;
            }
            let message = match &entry.news {
                News::Message(message) => message,
                News::Nudge | News::Ended(_) => continue,
                News::Lost => {
                    conn.session.fall_behind(self.books.walked);
                    enqueue(conn, &mut self.ready);
                    continue;
                }
            };
            if conn.session.cursor() >= message.sequence {
                continue;
            }
            let told = matches!(message.body, Body::Stale { .. } | Body::Fresh { .. });
            if told && !conn.session.tell(message) {
                continue;
            }
            *sends += 1;
            encoded.take_if(|(transport, _)| *transport != conn.transport);
            let (_, frame) =
                encoded.get_or_insert_with(|| (conn.transport, codec::live(conn.transport, message, self.epoch)));
            let sent = match told {
                // It counts as told, so it must be sent.
                true => conn.send(frame, &mut self.books),
                false => conn.send_live(frame, &mut self.books),
            };
            match sent {
                Sent::Whole => conn.session.sent(message.sequence),
                Sent::Part => {
                    conn.session.sent(message.sequence);
                    conn.session.fall_behind(self.books.walked);
                }
                Sent::Nothing => {
                    conn.session.fall_behind(self.books.walked);
                    continue;
                }
                Sent::Gone => {
                    gone.push((token, None));
                    continue;
                }
            }
            self.books.messages += 1;
            turn.handed = true;
        }
        if turn.before == 0 {
            let handed = std::mem::take(&mut turn.handed);
            if let (true, News::Message(message)) = (handed, &entry.news) {
                self.books.took.extend(message.heard.map(since));
            }
            turn.at += 1;
            turn.before = usize::MAX;
        }
        for (token, ended) in gone {
            match ended {
                Some(ended) => self.end(token, ended.into()),
                None => self.close(token, Ending::Gone),
            }
        }
    }
}
