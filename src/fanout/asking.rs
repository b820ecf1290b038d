//! What clients ask their gates while they are connected: to open channels, to let another token count.
//!
//! Most answers are there at once. While one is waited for, its client is not heard any further, so that what it asks for is
//! done in the order in which it was asked; all others are served.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::stream::FuturesUnordered;

use crate::limits::Limit;
use crate::transport::ws;

use super::conn::{Phase, Token};
use super::core::{Core, client, enqueue};
use super::{Asked, Opened, Refusal, Renewed};

/// Answers that are waited for; each client waits for one at most.
pub(super) type Asking = FuturesUnordered<Pin<Box<dyn Future<Output = Answer>>>>;

/// What a gate has said, and to whom.
pub(super) struct Answer {
    token: Token,
    /// What the client called its request, as JSON.
    reference: Option<String>,
    said: Said,
}

pub(super) enum Said {
    /// To a request for channels, which the client gave this number.
    Opened(Result<Opened, Vec<Refusal>>, Option<u64>),
    Renewed(Result<Renewed, Vec<Refusal>>),
    /// That it is judged again.
    Judged(Result<Renewed, Vec<Refusal>>),
}

impl Core {
    /// Asks to open channels; `true` if the answer is the session's to give, now or later.
    pub fn ask_to_subscribe(
        &mut self,
        token: Token,
        names: Vec<String>,
        cursor: Option<String>,
        number: Option<u64>,
    ) -> bool {
        let Some(conn) = client(&mut self.clients, token) else {
            return false;
        };
        let reference = number.map(|number| number.to_string());
        let most = self.options.bounds.channels;
        if conn.session.logs().count() + names.len() > most {
            self.books.stats.limited.hit(Limit::ChannelsPerConnection, None);
            let what = format!("a connection may have {most} channels; unsubscribe from some, or open another");
            self.say(token, &ws::error_message(None, "too-many", &what, reference.as_deref()));
            return false;
        }
        let Some(gate) = &conn.gate else { return false };
        let asked = gate.open(names, cursor);
        self.ask(token, reference, asked, move |said| Said::Opened(said, number))
    }

    /// Asks to let another token count; `true` if the answer is waited for.
    pub fn ask_to_renew(&mut self, token: Token, shown: String, reference: Option<String>) -> bool {
        let Some(conn) = client(&mut self.clients, token) else {
            return false;
        };
        let Some(gate) = &conn.gate else { return false };
        let names = conn.session.logs().map(|log| log.channel.name.clone()).collect();
        let asked = gate.renew(shown, names);
        self.ask(token, reference, asked, Said::Renewed)
    }

    pub(super) fn ask<T: 'static>(
        &mut self,
        token: Token,
        reference: Option<String>,
        mut asked: Asked<T>,
        said: impl FnOnce(Result<T, Vec<Refusal>>) -> Said + 'static,
    ) -> bool {
        let answer = move |result| Answer {
            token,
            reference,
            said: said(result),
        };
        match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => self.answered(answer(result)),
            Poll::Pending => {
                if let Some(conn) = client(&mut self.clients, token) {
                    conn.asking = true;
                    self.asking.push(Box::pin(async move { answer(asked.await) }));
                }
                true
            }
        }
    }

    /// Does what a gate has said; `true` if there is more for the session to say.
    pub fn answered(&mut self, answer: Answer) -> bool {
        let Answer { token, reference, said } = answer;
        if let Said::Judged(_) = said {
            self.judging.ended();
        }
        // To one who has ended meanwhile nothing more is said.
        let Some(conn) = client(&mut self.clients, token).filter(|conn| conn.phase == Phase::Open) else {
            return false;
        };
        if std::mem::take(&mut conn.asking) {
            enqueue(conn, &mut self.ready);
        }
        match said {
            Said::Opened(Ok(opened), number) => {
                self.subscribe(token, opened, number);
                return true;
            }
            Said::Judged(result) => self.judged(token, result),
            Said::Renewed(Ok(Renewed { expires, gate, judged })) => {
                conn.expires = u32::MAX;
                // A token that was shown in a message comes back only if the page shows one again.
                (conn.gate, conn.renewable, conn.judged) = (Some(gate), false, judged);
                conn.announce = conn.wants_word;
                if let Some(at) = expires {
                    conn.expire(at, &mut self.books);
                }
                self.say(token, &ws::renewed_message(expires, reference.as_deref()));
            }
            Said::Opened(Err(refusals), _) | Said::Renewed(Err(refusals)) => {
                let mut frames = Vec::new();
                for Refusal { channel, reason, what } in &refusals {
                    let frame = ws::error_message(channel.as_deref(), reason, what, reference.as_deref());
                    frames.extend_from_slice(&frame);
                }
                self.say(token, &frames.into());
            }
        }
        self.judge_if_due(token);
        false
    }

    fn subscribe(&mut self, token: Token, opened: Opened, number: Option<u64>) {
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        conn.session.reserve(opened.channels.len());
        for (subscription, start) in opened.channels {
            let log = subscription.log();
            if conn.session.logs().all(|other| other.id != log.id) {
                self.subscribers.add(log, token);
            }
            conn.session.subscribe(subscription, start, self.books.walked, number);
        }
        conn.judged = conn.judged.min(opened.judged);
        if let Some(at) = opened.expires {
            conn.expire(at, &mut self.books);
        }
        self.take();
        self.end_if_ended(token);
        self.judge_if_due(token);
    }
}
