//! The bytes that the relay sends, made by the floor.

use std::fmt::Write;

use crate::Transport;

/// What cursors of the floor begin with.
const EPOCH: &str = "0123456789abcdef";

/// A sign of life for a client of Server-Sent Events, and for a WebSocket.
pub fn heartbeat(transport: Transport) -> &'static [u8] {
    match transport {
        Transport::Sse => b"3\r\n:\n\n\r\n",
        Transport::WebSocket => b"\x89\x00",
    }
}

/// What a stream begins with.
pub fn head(transport: Transport) -> Vec<u8> {
    match transport {
        Transport::Sse => {
            let mut head =
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store, no-transform\r\n\
                x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n"
                    .to_vec();
            head.extend_from_slice(&chunk(": keyrelay\nretry: 2000\n\n"));
            head
        }
        Transport::WebSocket => b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            .to_vec(),
    }
}

/// A value that was there before the client.
pub fn snapshot(channel: usize, value: &str, transport: Transport) -> Vec<u8> {
    let payload = format!(r#"{{"channel":"bench:{channel}","key":"bench:{channel}","value":"{value}"}}"#);
    match transport {
        Transport::Sse => chunk(&format!("data: {payload}\n\n")),
        Transport::WebSocket => text(&format!(
            r#"{{"type":"message","channel":"bench:{channel}","data":{payload}}}"#
        )),
    }
}

/// A value that has come.
pub fn message(channel: usize, sequence: u64, value: &str, transport: Transport) -> Vec<u8> {
    let payload = format!(r#"{{"channel":"bench:{channel}","key":"bench:{channel}","value":"{value}","event":"set"}}"#);
    let id = format!("{EPOCH}-{sequence}");
    match transport {
        Transport::Sse => chunk(&format!("id: {id}\ndata: {payload}\n\n")),
        Transport::WebSocket => text(&format!(
            r#"{{"type":"message","channel":"bench:{channel}","id":"{id}","data":{payload}}}"#
        )),
    }
}

/// Says that what was due has been sent.
pub fn ready(channels: &[usize], sequence: u64, transport: Transport) -> Vec<u8> {
    let mut counts = String::new();
    for channel in channels {
        let comma = if counts.is_empty() { "" } else { "," };
        write!(counts, r#"{comma}"bench:{channel}":1"#).expect("a String takes all");
    }
    let id = format!("{EPOCH}-{sequence}");
    let members = format!(r#""channels":{{{counts}}},"cursor":"{id}-{EPOCH}","set":"{EPOCH}""#);
    match transport {
        Transport::Sse => chunk(&format!("id: {id}\nevent: keyrelay.ready\ndata: {{{members}}}\n\n")),
        Transport::WebSocket => text(&format!(r#"{{"type":"ready",{members}}}"#)),
    }
}

/// A chunk of an HTTP/1.1 body.
fn chunk(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// A text frame of a WebSocket (RFC 6455 §5.2).
fn text(message: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match message.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(message.as_bytes());
    frame
}
