//! Clients that are judged again, because whose credentials count is another question than when they were let in.

use std::collections::VecDeque;

use tokio::sync::watch;

use super::asking::Said;
use super::conn::{Phase, Token};
use super::core::{Core, client};
use super::{Refusal, Renewed};
use crate::session::Ending;

/// Most that are judged in a slice: each may cost the check of a signature, and the others get their turn in between.
const JUDGED: usize = 8;

/// Most whose judgement is waited for, as where the app is asked: it is asked by many shards, and by those who come meanwhile.
const WAITING: usize = 16;

/// Who is to be judged again.
#[derive(Debug)]
pub(super) struct Judging {
    /// The hub's revision before which no verdict counts.
    pub verdicts: watch::Receiver<u64>,
    /// To be judged; who has gone since, or was judged, is passed over.
    queue: VecDeque<Token>,
    /// Judgements that are waited for.
    waiting: usize,
}

impl Judging {
    pub fn new(verdicts: watch::Receiver<u64>) -> Judging {
        Judging {
            verdicts,
            queue: VecDeque::new(),
            waiting: 0,
        }
    }

    /// A judgement has come that was waited for.
    pub fn ended(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }
}

impl Core {
    /// Has all clients judged again whose verdict does not count any more.
    pub fn judge_all(&mut self) {
        let tokens: Vec<Token> = self.clients.iter().map(|(_, conn)| conn.token).collect();
        tokens.into_iter().for_each(|token| self.judge_if_due(token));
    }

    /// Has a client judged again if its verdict does not count any more. One that waits for its gate comes here again.
    pub fn judge_if_due(&mut self, token: Token) {
        if self.is_due(token) {
            self.judging.queue.push_back(token);
        }
    }

    fn is_due(&mut self, token: Token) -> bool {
        let since = *self.judging.verdicts.borrow();
        client(&mut self.clients, token)
            .is_some_and(|conn| conn.phase == Phase::Open && conn.gate.is_some() && conn.judged < since && !conn.asking)
    }

    /// Judges some of those who are to be judged; `true` if there are more, and room for them.
    pub fn judge_some(&mut self) -> bool {
        for _ in 0..JUDGED {
            if self.judging.waiting >= WAITING {
                return false;
            }
            let Some(token) = self.judging.queue.pop_front() else {
                return false;
            };
            if !self.is_due(token) {
                continue;
            }
            let Some(conn) = client(&mut self.clients, token) else {
                continue;
            };
            let Some(gate) = &conn.gate else { continue };
            let names = conn.session.logs().map(|log| log.channel.name.clone()).collect();
            let asked = gate.again(names);
            // Counted at once: the answer may be there already, and is taken off then.
            self.judging.waiting += 1;
            self.ask(token, None, asked, Said::Judged);
        }
        !self.judging.queue.is_empty()
    }

    /// A client was judged again: nothing changes for one that still may read all its channels.
    pub fn judged(&mut self, token: Token, result: Result<Renewed, Vec<Refusal>>) {
        let Some(conn) = client(&mut self.clients, token) else {
            return;
        };
        match result {
            Ok(Renewed { expires, gate, judged }) => {
                let before = std::mem::replace(&mut conn.expires, u32::MAX);
                (conn.gate, conn.judged) = (Some(gate), judged);
                if let Some(at) = expires {
                    conn.expire(at, &mut self.books);
                }
                // Who was told of the end that it has still is not told again.
                conn.announce |= conn.wants_word && conn.expires > before.saturating_add(1);
            }
            Err(refusals) => {
                let unavailable = refusals.iter().any(|refusal| refusal.reason == "unavailable");
                self.end(
                    token,
                    match unavailable {
                        true => Ending::Unavailable,
                        false => Ending::Reload,
                    },
                );
            }
        }
    }
}
