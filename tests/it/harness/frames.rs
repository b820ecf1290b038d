//! Frames of HTTP/2 by hand (RFC 9113 §4.1): what no client would send.

use std::net::TcpStream;

use super::http;
use super::relay::Relay;
use super::stream::Stream;
use super::tls::client_config;

pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const CONTINUATION: u8 = 9;

/// Flags of HEADERS.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Opens a connection on which HTTP/2 was agreed upon, and nothing was said yet.
#[track_caller]
pub fn connect(relay: &Relay) -> Stream {
    let stream: TcpStream = http::connect(relay.address(), None);
    Stream::encrypted(stream, client_config(relay.authority(), "h2", None))
}

/// What a client begins with: it asks for nothing special.
pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..]].concat()
}

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of `GET target`, each as a literal or by its number in the static table (RFC 7541 appendix A).
pub fn get(target: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    [&[0x82, 0x87, 0x04][..], &text(target), &[0x01], &text("relay.test")].concat()
}

/// A head that has begun.
pub fn begun() -> Vec<u8> {
    [preface(), frame(HEADERS, END_STREAM, 1, &get("/channels/v:1")[..2])].concat()
}
