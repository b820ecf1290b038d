//! What tells one value from another in 16 bytes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use bytes::Bytes;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::keyspace::{Size, Value};

/// A keyed 128-bit hash of a value. Its keys are drawn once per process, so that nobody who writes values can make two
/// that pass for one; it means nothing outside the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

static KEYED: LazyLock<SipHasher13> = LazyLock::new(|| {
    let drawn = || RandomState::new().hash_one(());
    SipHasher13::new_with_keys(drawn(), drawn())
});

impl Fingerprint {
    /// The value must be sorted, as a projected one is.
    pub(super) fn of(value: &Value) -> Fingerprint {
        let mut hasher = *KEYED;
        write(&mut hasher, value);
        Fingerprint(hasher.finish128().as_u128())
    }
}

/// Writes the value so that no two write the same: its type, then every part with its length before it.
fn write(hasher: &mut impl Hasher, value: &Value) {
    match value {
        Value::Absent => hasher.write_u8(0),
        Value::String(text) => {
            hasher.write_u8(1);
            write_part(hasher, text);
        }
        Value::Hash(fields) => {
            hasher.write_u8(2);
            write_pairs(hasher, fields);
        }
        Value::List(items) => {
            hasher.write_u8(3);
            write_parts(hasher, items);
        }
        Value::Set(members) => {
            hasher.write_u8(4);
            write_parts(hasher, members);
        }
        Value::SortedSet(members) => {
            hasher.write_u8(5);
            hasher.write_usize(members.len());
            for (member, score) in members {
                write_part(hasher, member);
                // 0 and -0 are sent alike.
                hasher.write_u64(if *score == 0.0 { 0 } else { score.to_bits() });
            }
        }
        Value::Stream(entries) => {
            hasher.write_u8(6);
            hasher.write_usize(entries.len());
            for entry in entries {
                write_part(hasher, &entry.id);
                write_pairs(hasher, &entry.fields);
            }
        }
        // The size is all that is known; that it changed is worth telling.
        Value::TooLarge(Size::Bytes(size)) => {
            hasher.write_u8(7);
            hasher.write_u64(*size);
        }
        Value::TooLarge(Size::Elements(count)) => {
            hasher.write_u8(8);
            hasher.write_u64(*count);
        }
    }
}

fn write_pairs(hasher: &mut impl Hasher, pairs: &[(Bytes, Bytes)]) {
    hasher.write_usize(pairs.len());
    for (name, value) in pairs {
        write_part(hasher, name);
        write_part(hasher, value);
    }
}

fn write_parts(hasher: &mut impl Hasher, parts: &[Bytes]) {
    hasher.write_usize(parts.len());
    for part in parts {
        write_part(hasher, part);
    }
}

fn write_part(hasher: &mut impl Hasher, part: &[u8]) {
    hasher.write_usize(part.len());
    hasher.write(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn values_that_look_alike_differ() {
        let values = [
            Value::Absent,
            Value::String(b("")),
            Value::List(vec![]),
            Value::Set(vec![]),
            Value::Hash(vec![]),
            Value::List(vec![b("ab"), b("")]),
            Value::List(vec![b("a"), b("b")]),
            Value::Set(vec![b("a"), b("b")]),
            Value::Hash(vec![(b("a"), b("b"))]),
            Value::SortedSet(vec![(b("a"), 1.0)]),
            Value::SortedSet(vec![(b("a"), 2.0)]),
            Value::TooLarge(Size::Bytes(1)),
            Value::TooLarge(Size::Elements(1)),
        ];
        for (i, one) in values.iter().enumerate() {
            for (j, other) in values.iter().enumerate() {
                assert_eq!(
                    Fingerprint::of(one) == Fingerprint::of(other),
                    i == j,
                    "{one:?} {other:?}"
                );
            }
        }
    }
}
