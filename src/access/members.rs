//! The members of a JSON object, none of them twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Reads an object. One that has a member twice is refused, because who checks it and who uses it might each take another
/// one (RFC 7515 §4, RFC 7519 §4).
pub(super) fn parse(json: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice::<Members>(json).ok().map(|members| members.0)
}

struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Map<String, Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member twice"));
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_without_repetition_is_read() {
        assert_eq!(parse(br#"{"a":1,"b":{"c":[]}}"#).unwrap().len(), 2);
        for wrong in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"a":1,"b":2,"\u0061":3}"#,
            b"[]",
            b"\"a\"",
            b"{}{}",
            b"",
            b"{\"a\":\xff}",
        ] {
            assert_eq!(parse(wrong), None, "{}", wrong.escape_ascii());
        }
        // Deeper than any payload: serde_json gives up, it does not exhaust the stack.
        assert_eq!(parse(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()), None);
    }
}
