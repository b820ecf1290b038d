//! The header by which a proxy that passes TCP on names the client: the PROXY protocol, versions 1 and 2
//! (haproxy.org/download/3.0/doc/proxy-protocol.txt).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt;

use super::io::Io;

/// Longest line of version 1, its end included (§2.1).
const MAX_LINE: usize = 107;

/// Longest header of version 2. The addresses take 216 bytes at most; what follows them, as the client's certificate or
/// the id of a cloud's endpoint, is passed over.
const MAX_BINARY: usize = 4_096;

/// How a header of version 2 begins (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the addresses of version 2.
const FIXED: usize = 16;

/// Who is at the other end of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This client.
    Client(IpAddr),
    /// The proxy itself, as when it looks whether we live, or somebody of whom it knows no address.
    Proxy,
}

/// What came is no header of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header of the PROXY protocol")]
pub struct Malformed;

/// Reads the header that a connection begins with, and nothing beyond it.
///
/// # Errors
/// If it is malformed, or the connection ends before its end.
pub async fn read(io: &mut Io) -> io::Result<Origin> {
    let mut header = Vec::new();
    let mut ahead = [0; 512];
    loop {
        // Looked at before it is taken: behind the header may stand anything.
        let seen = io.peek(&mut ahead).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = header.len();
        header.extend_from_slice(&ahead[..seen]);
        let parsed = parse(&header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let taken = parsed.map_or(seen, |(_, length)| length - before);
        io.read_exact(&mut ahead[..taken]).await?;
        if let Some((origin, _)) = parsed {
            return Ok(origin);
        }
    }
}

/// The header at the beginning of these bytes, and its length; nothing if more bytes are needed to know.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    const WORD: &[u8] = b"PROXY ";
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        return binary(bytes);
    }
    if !begins(WORD) {
        return Err(Malformed);
    }
    let line = &bytes[..bytes.len().min(MAX_LINE)];
    match memchr::memchr(b'\n', line) {
        Some(end) => {
            let text = line[..end].strip_suffix(b"\r").ok_or(Malformed)?;
            let text = std::str::from_utf8(&text[WORD.len()..]).map_err(|_| Malformed)?;
            Ok(Some((words(text)?, end + 1)))
        }
        None if line.len() == MAX_LINE => Err(Malformed),
        None => Ok(None),
    }
}

/// What stands behind `PROXY ` in a line of version 1.
fn words(text: &str) -> Result<Origin, Malformed> {
    // What follows is to be ignored (§2.1).
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Origin::Proxy);
    }
    let words: Vec<&str> = text.split(' ').collect();
    let [family, from, to, from_port, to_port] = words[..] else {
        return Err(Malformed);
    };
    let ports = [from_port, to_port].into_iter().all(is_port);
    let address = match family {
        "TCP4" => both::<Ipv4Addr>(from, to).map(IpAddr::V4),
        "TCP6" => both::<Ipv6Addr>(from, to).map(IpAddr::V6),
        _ => None,
    };
    address.filter(|_| ports).map(Origin::Client).ok_or(Malformed)
}

/// The first of two addresses, if both are.
fn both<A: std::str::FromStr>(from: &str, to: &str) -> Option<A> {
    to.parse::<A>().ok()?;
    from.parse().ok()
}

fn is_port(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

/// A header of version 2, whose signature is there as far as it has come.
fn binary(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        // Version and command can be judged before the rest of it is there.
        return match bytes.get(SIGNATURE.len()) {
            Some(0x20 | 0x21) | None => Ok(None),
            Some(_) => Err(Malformed),
        };
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > MAX_BINARY {
        return Err(Malformed);
    }
    // How many bytes the addresses of this family take, and whether they are of the internet.
    let addresses = match fixed[13] {
        // Not known, and Unix sockets.
        0x00 => 0,
        0x31 | 0x32 => 216,
        0x11 => 12,
        0x21 => 36,
        // Clients over UDP do not come here.
        _ => return Err(Malformed),
    };
    let local = match fixed[12] {
        // The addresses are to be ignored, whatever they are.
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    if !local && length < addresses {
        return Err(Malformed);
    }
    let Some(rest) = rest.get(..length) else {
        return Ok(None);
    };
    let origin = match (local, fixed[13]) {
        (false, 0x11) => rest.first_chunk().map(|octets: &[u8; 4]| IpAddr::from(*octets)),
        (false, 0x21) => rest.first_chunk().map(|octets: &[u8; 16]| IpAddr::from(*octets)),
        _ => None,
    };
    let origin = origin.map_or(Origin::Proxy, Origin::Client);
    Ok(Some((origin, FIXED + length)))
}

#[cfg(test)]
mod tests;
