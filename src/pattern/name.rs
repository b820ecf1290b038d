//! Channel names: bytes as text, with `%`, control bytes and bytes that are not UTF-8 percent-encoded.
//!
//! Every byte string has exactly one name, and every name at most one byte string: `%41` for `A` or `%0a` for `%0A` is
//! no name at all. So a name can be compared as it is.

use std::borrow::Cow;

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Appends the name of `bytes`.
pub fn encode(bytes: &[u8], name: &mut String) {
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.bytes().position(is_encoded) {
            name.push_str(&rest[..at]);
            push_encoded(rest.as_bytes()[at], name);
            rest = &rest[at + 1..];
        }
        name.push_str(rest);
        chunk.invalid().iter().for_each(|&byte| push_encoded(byte, name));
    }
}

/// The bytes that have this name; `None` for a text that is no name.
pub fn decode(name: &str) -> Option<Cow<'_, [u8]>> {
    if !name.bytes().any(is_encoded) {
        return Some(Cow::Borrowed(name.as_bytes()));
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let [high, low, after @ ..] = after else { return None };
            bytes.push(digit(*high)? << 4 | digit(*low)?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    let mut canonical = String::with_capacity(name.len());
    encode(&bytes, &mut canonical);
    (canonical == name).then_some(Cow::Owned(bytes))
}

fn is_encoded(byte: u8) -> bool {
    byte == b'%' || byte.is_ascii_control()
}

fn push_encoded(byte: u8, name: &mut String) {
    name.push('%');
    name.push(char::from(DIGITS[usize::from(byte >> 4)]));
    name.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn digit(byte: u8) -> Option<u8> {
    let value = DIGITS.iter().position(|&digit| digit == byte)?;
    u8::try_from(value).ok()
}
