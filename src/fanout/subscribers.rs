//! Who in this shard listens to which log.

use std::sync::Arc;

use foldhash::HashMap;

use crate::hub::Log;

use super::conn::Token;

/// The shard's subscribers by log. A log is told while it has any ([`crate::hub::LogView::set_shard`]).
#[derive(Debug)]
pub(super) struct Subscribers {
    shard: u32,
    lists: HashMap<u64, List>,
}

/// One log's subscribers in this shard.
#[derive(Debug)]
pub(super) struct List {
    log: Arc<Log>,
    /// Connected ones, and such as have gone and were not yet cleared away; new ones come at the end.
    pub tokens: Vec<Token>,
    /// How many are connected; never 0.
    live: usize,
}

/// More of those who have gone than of those connected, and than this, are cleared away.
const DEAD: usize = 64;

impl Subscribers {
    pub fn new(shard: u32) -> Subscribers {
        let lists = HashMap::default();
        Subscribers { shard, lists }
    }

    pub fn add(&mut self, log: &Arc<Log>, token: Token) {
        let list = self.lists.entry(log.id).or_insert_with(|| {
            log.view().set_shard(self.shard, true);
            List {
                log: log.clone(),
                tokens: Vec::new(),
                live: 0,
            }
        });
        list.tokens.push(token);
        list.live += 1;
    }

    pub fn get_mut(&mut self, log: u64) -> Option<&mut List> {
        self.lists.get_mut(&log)
    }

    /// A client has gone. Its entry stays until a walk finds it or there are too many of the kind: looking for it would
    /// make the end of ten thousand clients a matter of seconds.
    pub fn gone(&mut self, log: u64, connected: impl Fn(Token) -> bool) {
        let Some(list) = self.lists.get_mut(&log) else { return };
        list.live -= 1;
        if list.live == 0 {
            self.forget(log);
        } else if list.tokens.len() > 2 * list.live + DEAD {
            list.tokens.retain(|&token| connected(token));
            list.tokens.shrink_to(2 * list.live);
        }
    }

    /// A client that stays connected listens no longer.
    pub fn remove(&mut self, log: u64, token: Token) {
        let Some(list) = self.lists.get_mut(&log) else { return };
        let Some(at) = list.tokens.iter().position(|&other| other == token) else {
            return;
        };
        list.tokens.swap_remove(at);
        list.live -= 1;
        if list.live == 0 {
            self.forget(log);
        }
    }

    fn forget(&mut self, log: u64) {
        if let Some(list) = self.lists.remove(&log) {
            list.log.view().set_shard(self.shard, false);
        }
    }
}
