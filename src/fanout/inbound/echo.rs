//! Test only (feature `echo`): every message is sent back, so that a suite of protocol tests can be run against what
//! reads and writes the frames of real clients.

use bytes::Bytes;

use super::Heard;

/// The message in a frame of its own.
pub(super) fn of(heard: &Heard) -> Option<Bytes> {
    let (opcode, message) = match heard {
        Heard::Text(text) => (1, text.as_bytes()),
        Heard::Binary(bytes) => (2, &bytes[..]),
        _ => return None,
    };
    let mut frame = vec![0x80 | opcode];
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
    frame.extend_from_slice(message);
    Some(frame.into())
}
