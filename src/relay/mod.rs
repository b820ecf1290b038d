//! The mirror: what is known of the keys behind active channels.
//!
//! A key event says only that a key may have changed. The feed's thread ([`Intake`]) sorts out the keys of channels that
//! somebody listens to; the relay's thread ([`Relay`]) reads them, compares what it read with what was sent last, and
//! appends what differs to the channels' logs.
//!
//! * `channels`: which channels there can be
//! * `backlog`: what an events channel may keep waiting
//! * `intake`, `taken`: where the feed's thread hands over, and what
//! * `entries`: what is known of one key and of one log
//! * `node`: the upstream nodes, and which keys are whose
//! * `moves`: keys that become another node's
//! * `mirror`: the tables of keys and logs
//! * `interest`: when a log becomes active, is whole, and goes
//! * `reads`, `values`: from keys to batches of reads, and what becomes of what was read
//! * `refusal`: when the server gives no values
//! * `scan`: channels that must be enumerated
//! * `happenings`: events channels
//! * `delivery`: what goes out, for whoever develops an app
//! * `resync`: losses and their repair
//! * `limits`: what the mirror may hold
//! * `deadlines`: when keys expire
//! * `timers`: what else is to be done later
//! * `poll`: keys whose changes are silent
//! * `verify`: a second look at what nothing else noticed
//! * `revise`: other mappings while it runs
//! * `needs`: what all that asks of the server
//! * `stats`: what is counted, and what is true of the nodes
//! * [`gaps`]: the last gaps
//! * `report`: what operators are told of the mirror
//! * `run`: the loop that does the I/O

mod backlog;
mod channels;
mod deadlines;
mod delivery;
mod entries;
pub mod gaps;
mod happenings;
mod intake;
mod interest;
mod limits;
mod mirror;
mod moves;
mod needs;
mod node;
mod poll;
mod reads;
mod refusal;
mod report;
mod resync;
mod revise;
mod rule;
mod run;
mod scan;
pub mod stats;
mod taken;
mod timers;
mod values;
mod verify;

#[cfg(test)]
mod tests;

pub use channels::Catalog;
pub use intake::{Intake, MAX_DIRTY};
pub use limits::Limits;
pub use needs::needs;
pub use revise::{ReviseError, Reviser, Revision};
pub use rule::Rule;
pub use run::{Options, Relay, new};
pub use stats::Stats;
