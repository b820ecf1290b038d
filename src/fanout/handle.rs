//! How a shard is given clients and told to end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::Client;
use super::conn::Token;
use crate::bell::Bell;

/// A shard's door, for the tasks of its own thread.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Not yet adopted. Each has a connection of its own, so their number is bounded where connections are accepted; the
    /// shard empties this whenever it runs.
    incoming: RefCell<VecDeque<Client>>,
    /// Piped clients of which there are news, each once.
    rings: RefCell<VecDeque<Token>>,
    draining: Cell<bool>,
    bell: Bell,
}

impl Handle {
    pub(super) fn new() -> Handle {
        Handle { shared: Rc::default() }
    }

    /// Gives a client to the shard. In a drain it is sent its head and the ending.
    pub fn adopt(&self, client: Client) {
        self.shared.incoming.borrow_mut().push_back(client);
        self.shared.bell.ring();
    }

    /// Begins the orderly end: every client is told, spread over a part of [`super::Options::drain`], and [`super::Shard::run`]
    /// returns when all have gone or that time has passed.
    pub fn drain(&self) {
        self.shared.draining.set(true);
        self.shared.bell.ring();
    }

    /// There are news of a piped client.
    pub(super) fn ring(&self, token: Token) {
        self.shared.rings.borrow_mut().push_back(token);
        self.shared.bell.ring();
    }

    pub(super) fn next_ring(&self) -> Option<Token> {
        self.shared.rings.borrow_mut().pop_front()
    }

    pub(super) fn next(&self) -> Option<Client> {
        self.shared.incoming.borrow_mut().pop_front()
    }

    pub(super) fn has_next(&self) -> bool {
        !self.shared.incoming.borrow().is_empty() || !self.shared.rings.borrow().is_empty()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.shared.draining.get()
    }

    /// Rings when there is something of all this.
    pub(super) fn bell(&self) -> &Bell {
        &self.shared.bell
    }
}
