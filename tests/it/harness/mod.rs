//! What the tests stand on: a real server, the real relay, and clients that remember what a page would.

#![allow(dead_code, reason = "each test program uses its part of it")]
#![allow(unused_imports, reason = "each test program uses its part of it")]

mod client;
mod cluster;
mod command;
mod eventually;
pub mod frames;
pub mod http;
mod http2;
mod proxy;
mod relay;
mod replication;
mod resp;
mod sentinel;
mod server;
mod sse;
mod stream;
mod tls;
pub mod tokens;
mod way;
mod ws;

pub use client::{Client, End, Event, Memory, Message, names};
pub use cluster::{Cluster, own_all_slots};
pub use command::{Running, Written};
pub use eventually::{PATIENCE, eventually};
pub use http2::{Body, Http2};
pub use proxy::{BOTH, Cut, Drip, FEED, Place, Proxy, READER, Side};
pub use relay::{PROGRAM, Relay, mapping};
pub use replication::{active_nodes, follow, join, linked, mesh, prompt_server, replicate, split};
pub use resp::{Reply, Resp};
pub use sentinel::{Sentinel, info};
pub use server::{Data, Server, debug_allowed, server_version};
pub use sse::{Sse, target};
pub use stream::Stream;
pub use tls::{Authority, Certificate, TlsServer, client_config};
pub use way::{Way, is_tracking, over, over_with, track};
pub use ws::{PROTOCOL, Ws};
