//! The parts that URLs of servers are made of.

use std::net::Ipv6Addr;
use std::ops::Range;

use percent_encoding::percent_decode_str;

use super::{EXAMPLES, UrlError, wrong};
use crate::upstream::Address;

/// `host[:port]`, an IPv6 address in brackets; `default` is the port that is not written.
pub(super) fn tcp(text: &str, range: Range<usize>, default: u16) -> Result<Address, UrlError> {
    let written = &text[range.clone()];
    let (host, port) = match written.rsplit_once(':') {
        Some((host, port)) if !written.ends_with(']') => (host, Some(port)),
        _ => (written, None),
    };
    let port = match port {
        None => default,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => {
                let at = range.end - port.len()..range.end;
                return Err(wrong(
                    at,
                    "the port is not a number from 1 to 65535",
                    "write the port as in redis://host:6379, and a `/` in a password as %2F",
                ));
            }
        },
    };
    let at = range.start..range.start + host.len();
    if host.is_empty() {
        return Err(wrong(range, "no host", EXAMPLES));
    }
    if let Some(inner) = host.strip_prefix('[') {
        return match inner
            .strip_suffix(']')
            .filter(|inner| inner.parse::<Ipv6Addr>().is_ok())
        {
            Some(inner) => Ok(Address::Tcp {
                host: inner.into(),
                port,
            }),
            None => Err(wrong(at, "not an IPv6 address", "write redis://[::1]:6379")),
        };
    }
    if host.contains(':') {
        return Err(wrong(
            at,
            "an IPv6 address without brackets",
            "write redis://[::1]:6379",
        ));
    }
    if !host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    {
        return Err(wrong(
            at,
            "not the name of a host",
            "names hold letters, digits, `.` and `-`",
        ));
    }
    Ok(Address::Tcp {
        host: host.into(),
        port,
    })
}

/// `user[:password]`, either of which may be empty.
pub(super) fn userinfo(text: &str, range: Range<usize>) -> Result<(Option<String>, Option<String>), UrlError> {
    let (name, password) = match text[range.clone()].find(':') {
        Some(colon) => (
            range.start..range.start + colon,
            Some(range.start + colon + 1..range.end),
        ),
        None => (range, None),
    };
    let name = decode(text, name)?;
    let password = password.map(|password| decode(text, password)).transpose()?;
    Ok((
        (!name.is_empty()).then_some(name),
        password.filter(|password| !password.is_empty()),
    ))
}

/// What stands in the URL, its `%` sequences decoded.
pub(super) fn decode(text: &str, range: Range<usize>) -> Result<String, UrlError> {
    match percent_decode_str(&text[range.clone()]).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(wrong(
            range,
            "not UTF-8 once decoded",
            "encode special characters as % and the two hexadecimal digits of each of their UTF-8 bytes",
        )),
    }
}

/// The number of a database.
pub(super) fn database(text: &str, at: Range<usize>) -> Result<u32, UrlError> {
    text.parse().map_err(|_| {
        wrong(
            at,
            "not the number of a database",
            "databases are numbered from 0: redis://host:6379/0",
        )
    })
}
