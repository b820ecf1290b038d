//! keyrelay: change a key, see it in every browser.
//!
//! ```text
//! KeyDB ──feed──▶ mapping ──▶ relay (mirror) ──▶ hub (channel logs) ──▶ fanout (sessions: sse · ws) ──▶ browser
//!   ▲                            │   ▲               │     ▲
//!   └────── read the value ──────┘   └── interest ───┘     └── server (hyper reads every request) ── access: may this client read this channel?
//! ```
//!
//! Left and right meet only in `hub`: nothing to its right names a key, a mapping or a server command, nothing to
//! its left names a session or HTTP. In the order data flows:
//!
//! * [`pattern`]: the one grammar of key patterns and channel templates
//! * `keyspace`: key events, values, notification flags
//! * `tally`: counts that several layers keep
//! * `turns`: whether loops still turn
//! * `limits`: how much clients may take, and who has how much
//! * `pem_files`: certificates and keys in files
//! * `upstream`: the feed of key events and published messages, and the reader of values
//! * [`mapping`]: key or message to channels, channel to keys
//! * `payload`: a value rendered to the bytes of a change
//! * `relay`: the mirror of the keys behind active channels
//! * `hub`: channels, their logs, and the order of everything
//! * `session`: what a client gets next
//! * `transport`: the bytes of a message in SSE and WebSocket
//! * `fanout`: the shards that own the clients' sockets
//! * `access`: may this client read this channel?
//! * `server`: listeners, HTTP requests, hand-over to a shard
//! * `admin`: health, metrics and status, for operators
//! * `config`: the file as written, and what it means
//! * `process`: signals, logging, systemd
//! * `cli`: the commands
//! * `app`: builds everything from a config and runs until drained
//! * [`switches`]: what tests may put out of order
//! * `fuzzing`: what fuzzing feeds, compiled for it alone

pub mod access;
pub mod admin;
pub mod alarm;
pub mod app;
pub mod bell;
pub mod cli;
pub mod config;
pub mod fanout;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hub;
pub mod keyspace;
pub mod limits;
pub mod mapping;
pub mod pattern;
pub mod payload;
pub mod pem_files;
pub mod process;
pub mod relay;
pub mod server;
pub mod session;
pub mod switches;
pub mod tally;
pub mod transport;
pub mod turns;
pub mod upstream;
