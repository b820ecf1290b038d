//! The relay as a whole: the real executable in front of a real server, seen through its clients.

#![allow(
    clippy::unwrap_used,
    reason = "a test that finds nothing where something must be has failed"
)]

mod harness;

/// What operators are told.
mod access;
mod admin;
/// Whole answers over HTTP/2.
mod answers_http2;
/// Those who mean harm: strangers, what stands in keys, and the server.
mod attack;
/// What the relay asks of the server.
mod burden;
/// What holds over TLS and HTTP/2 as well.
mod carried;
/// `check --connect`: what it finds out about a server and its user.
mod check;
/// The commands: what they print and how they end.
mod cli;
/// Every primary of a cluster, whatever becomes of its slots.
mod cluster;
/// What a client gets for each kind of value, payload and mapping.
mod delivery;
/// `run --dev`: what it opens, follows and logs.
mod dev;
/// A cursor that is brought to another process.
mod elsewhere;
/// Events mode: what happened, in order, and never a silent hole.
mod events;
/// Keys that expire are told at their deadline.
mod expiry;
/// A hot key starves nobody.
mod fairness;
/// Every way in which connections, the server and the relay itself can fail.
mod faults;
/// `healthcheck`: what it asks, where, and for how long.
mod healthcheck;
/// The URLs: answers, refusals, and who may ask from where.
mod http;
/// What clients may take, and what the machine does not have enough of.
mod limits;
/// TLS at the public listener.
mod listener_tls;
/// What the log says of faults.
mod logs;
/// Ten thousand idle subscribers.
mod many;
/// The most memory that a config allows.
mod memory;
/// The metrics, and what is written of them.
mod metrics;
/// The mirror by itself: feed, relay and hub.
mod mirror;
/// A relay that has a single core.
mod one_core;
/// The manual pages, and what completes the commands in a shell.
mod pages;
/// Patterns without captures mean what the server means by them.
mod patterns;
/// Keys that are polled because no server tells of their changes.
mod poll;
/// HTTP/2 without TLS.
mod prior_knowledge;
/// The proxy that the tests of faults use.
mod proxy;
/// Messages of Pub/Sub channels.
mod published;
/// The ways to a server: sockets, IPv6, and a user with the least rights.
mod reach;
/// The README, typed as it says.
mod readme;
/// Another config while the relay runs.
mod reload;
/// Replicas that are behind, and nodes that all take writes.
mod replicas;
/// Coming back with a cursor.
mod resume;
/// Rights that are taken away while the relay runs, and given back.
mod rights;
/// What the relay may hold for its channels.
mod room;
/// What Ruby's own libraries mint.
mod ruby;
/// The primary that sentinels name.
mod sentinel;
/// The orderly end of the process.
mod shutdown;
/// Changes of which no event tells.
mod silent_changes;
/// A client that does not read.
mod slow_client;
/// What clients are told of a state that may be behind.
mod stale;
/// Snapshot, `ready`, then changes, with no hole between them.
mod subscribe;
/// What systemd and keyrelay tell each other.
mod systemd;
/// `tail`: key events, deliveries, and a running relay.
mod tail;
/// TLS to the server: who is trusted, and what is said when nobody is.
mod tls;
/// What only client tracking does.
mod tracking;
/// The feed of key events and the reader of values, by themselves.
mod upstream;
/// The server goes away and comes back.
mod upstream_loss;
/// The second look, for what nothing else noticed.
mod verify;
/// The dashboard's streams.
mod watching;
/// What only WebSocket has.
mod web_socket;
/// What becomes of it when a mechanism is switched off.
mod without;
