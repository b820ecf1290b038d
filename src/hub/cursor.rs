//! How far one subscriber has come in its list of channels, as text that a client keeps and sends back.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// `<epoch>-<sequence>`, with `-<set>` wherever it is not the browser itself that sends it back: 16 hex digits, a
/// decimal number, 16 hex digits. Only `[0-9a-f-]`, at most 54 bytes, so that it is a safe `Last-Event-ID` everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The process that gave it: 64 random bits.
    pub epoch: u64,
    /// Everything up to here was sent, on every channel of the list.
    pub sequence: u64,
    /// [`set_of`] the list of channels it was given for.
    pub set: Option<u64>,
}

impl Cursor {
    /// Reads a cursor; `None` for any text that [`fmt::Display`] would not have written.
    pub fn parse(text: &str) -> Option<Cursor> {
        let mut parts = text.split('-');
        let epoch = hex(parts.next()?)?;
        let digits = parts.next()?;
        let canonical = !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        let sequence = canonical.then(|| digits.parse().ok())??;
        let set = match parts.next() {
            Some(set) => Some(hex(set)?),
            None => None,
        };
        parts.next().is_none().then_some(Cursor { epoch, sequence, set })
    }

    /// Writes its text; without `fmt`, which takes ten times as long, as one stands in each message.
    pub fn write(&self, out: &mut Vec<u8>) {
        Cursor::write_hex(out, self.epoch);
        out.push(b'-');
        out.extend_from_slice(itoa::Buffer::new().format(self.sequence).as_bytes());
        if let Some(set) = self.set {
            out.push(b'-');
            Cursor::write_hex(out, set);
        }
    }

    /// Writes an epoch or a set: 16 hex digits.
    pub fn write_hex(out: &mut Vec<u8>, number: u64) {
        let digits: [u8; 16] = std::array::from_fn(|at| b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize % 16]);
        out.extend_from_slice(&digits);
    }
}

fn hex(text: &str) -> Option<u64> {
    let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(text, 16).ok())?
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// A hash of a list of channels that does not depend on its order. It is compared within one epoch only, so it need not
/// be the same in another process.
pub fn set_of<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    let mut hasher = DefaultHasher::new();
    names.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (epoch, sequence, set) in [(0, 0, None), (u64::MAX, u64::MAX, Some(u64::MAX)), (17, 42, Some(0))] {
            let cursor = Cursor { epoch, sequence, set };
            let text = cursor.to_string();
            assert_eq!(Cursor::parse(&text), Some(cursor));
            assert!(text.len() <= 54);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = Cursor {
            epoch: 1,
            sequence: 2,
            set: Some(3),
        }
        .to_string();
        for bad in [
            "",
            "-",
            "1-2",
            "000000000000000g-1",
            "0000000000000001-",
            "0000000000000001-01",
            "0000000000000001--1",
        ] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
        assert_eq!(Cursor::parse(&format!("{good}-")), None);
        assert_eq!(Cursor::parse(&good.to_uppercase().replace('1', "A")), None);
        assert_eq!(Cursor::parse("0000000000000001-99999999999999999999"), None);
    }

    #[test]
    fn a_set_does_not_know_the_order_but_the_names() {
        assert_eq!(set_of(["a", "b"]), set_of(["b", "a"]));
        assert_ne!(set_of(["a", "b"]), set_of(["ab"]));
        assert_ne!(set_of(["a"]), set_of(["a", "a"]));
    }
}
