//! What may be done to connections, servers and relays, each fault with its end.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::run::Run;
use super::stand::Kind;
use crate::harness::{Cut, Drip, Place, Side};

/// One fault.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connections of one relay end.
    Cut {
        relay: usize,
        sides: &'static [Side],
        how: Cut,
    },
    /// One connection ends in the middle of an answer.
    CutWithin {
        relay: usize,
        side: &'static [Side],
        place: Place,
        how: Cut,
    },
    /// Connections end, and for a while no new one comes about: refused, or led nowhere.
    Away {
        relay: usize,
        sides: &'static [Side],
        swallowed: bool,
        lasts: Duration,
    },
    /// What the server sends is held back, or comes late, or a few bytes at a time.
    Slow {
        relay: usize,
        sides: &'static [Side],
        how: Slowness,
        lasts: Duration,
    },
    /// The server ends connections of a type.
    KillClients(&'static str),
    /// The server stands still.
    Freeze(Duration),
    /// The server is killed and started again.
    Restart {
        data: Remains,
        away: Duration,
    },
    /// More is published than the server's output buffer for a subscriber may hold.
    OutputBuffer,
    Flush(&'static str),
    /// Another database takes the place of this one.
    Swap,
    Reload,
    /// Nobody is told of key events any more, until a relay says that they are wanted.
    Unset,
    /// A right is taken from the user, and given back.
    Revoke {
        right: &'static str,
        back: &'static str,
        lasts: Duration,
    },
    /// A script keeps the server busy.
    Busy(Duration),
    /// Memory is at its limit.
    Memory {
        policy: &'static str,
        lasts: Duration,
    },
    /// No new client is let in, and the feed's connection ends.
    MaxClients {
        relay: usize,
        lasts: Duration,
    },
    /// The server itself lets nothing expire until it is asked.
    LazyExpiry,
    /// The relay is killed and started again.
    RelayRestart(usize),
    /// After a failover feed or reader of a relay leads to another server, and back again.
    Elsewhere {
        relay: usize,
        side: &'static [Side],
        lasts: Duration,
    },
    /// The link between servers is gone for a while. `masterdown`: the replica answers nothing meanwhile; `outrun`: more is
    /// written than is kept for who comes back.
    Apart {
        lasts: Duration,
        masterdown: bool,
        outrun: bool,
    },
    /// The replica's link is ended, and comes back at once.
    KillLink,
    /// All data comes to the replica anew.
    FullSync {
        promoted: bool,
        away: Duration,
    },
    /// The primary is killed and started again.
    PrimaryRestart {
        data: Remains,
        away: Duration,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Slowness {
    Held,
    Late(Duration),
    Drip(Drip),
}

/// What a server has when it is back.
#[derive(Clone, Copy, Debug)]
pub enum Remains {
    /// All it had.
    All,
    /// What it had some time before.
    Older,
    Nothing,
}

/// When a fault was there, and whom it concerned.
#[derive(Clone, Debug)]
pub struct Span {
    pub from: Instant,
    pub to: Instant,
    pub relays: [bool; 2],
    /// Events were certainly lost to these relays, from this moment on.
    pub loss: Option<([bool; 2], Instant)>,
    /// Keys may be gone by it that were just written.
    pub removes: bool,
    /// Nodes are apart in it, and go back when they are merged.
    pub parts: bool,
}

/// Two looks of the watch: nothing tells sooner that a peer's data was merged, or a replica had all its data anew.
const LOOKS: Duration = Duration::from_millis(2500);

/// Until it can be known that a connection leads nowhere: a feed takes ten seconds without a word and two for the PING, a
/// reader five.
const GIVEN_UP: Duration = Duration::from_secs(12);

impl Fault {
    /// Faults of one lane come one after the other, those of different lanes at the same time.
    pub fn lane(&self) -> usize {
        match self {
            Fault::Cut { relay, .. }
            | Fault::CutWithin { relay, .. }
            | Fault::Away { relay, .. }
            | Fault::Slow { relay, .. }
            | Fault::Elsewhere { relay, .. }
            | Fault::RelayRestart(relay) => *relay,
            _ => 2,
        }
    }

    fn removes(&self) -> bool {
        matches!(
            self,
            Fault::Flush(_)
                | Fault::Swap
                | Fault::Restart { .. }
                | Fault::PrimaryRestart { .. }
                | Fault::FullSync { .. }
                | Fault::Memory { .. }
        )
    }

    /// Does it, and undoes it.
    pub async fn happen(&self, run: &Run<'_>) {
        if let (Fault::Unset, Some(on)) = (self, run.events_on.get()) {
            // Who found them off may set them up to 1.5 s later, and the other relay saw nothing of it if they are off again.
            sleep_until((on + Duration::from_millis(1600)).into()).await;
        }
        let from = Instant::now();
        let loss = self.act(run).await;
        let relays = match self.lane() {
            2 => [true; 2],
            relay => [relay == 0, relay == 1],
        };
        let mut to = Instant::now();
        if matches!(
            self,
            Fault::Cut { how: Cut::Vanish, .. } | Fault::Away { swallowed: true, .. }
        ) {
            to += GIVEN_UP;
        }
        let parts = run.stand.kind == Kind::Pair && matches!(self, Fault::Apart { .. } | Fault::Restart { .. });
        if parts || matches!(self, Fault::FullSync { .. } | Fault::PrimaryRestart { .. }) {
            to += LOOKS;
        }
        run.spans.borrow_mut().push(Span {
            from,
            to,
            relays,
            loss,
            removes: self.removes() || parts,
            parts,
        });
    }
}
