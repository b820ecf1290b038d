//! The choice of fields: of a hash or a JSON object, only those that the mapping names.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::decode;
use super::json::write_string;

/// The names of the fields that are sent.
#[derive(Debug)]
pub(super) struct Fields {
    /// Sorted, each once.
    names: Vec<String>,
    /// The same, as a reader wants them.
    bytes: Arc<[Bytes]>,
}

impl Fields {
    pub(super) fn new(mut names: Vec<String>) -> Fields {
        names.sort_unstable();
        names.dedup();
        let bytes = names.iter().cloned().map(Bytes::from).collect();
        Fields { names, bytes }
    }

    /// The names as bytes, sorted.
    pub(super) fn as_bytes(&self) -> &Arc<[Bytes]> {
        &self.bytes
    }

    /// The names, sorted.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The pairs of a hash that are sent.
    pub(super) fn of_hash(&self, mut pairs: Vec<(Bytes, Bytes)>) -> Vec<(Bytes, Bytes)> {
        pairs.retain(|(name, _)| self.position(name).is_some());
        pairs
    }

    /// The JSON object in the text with only the named members in it, sorted by name; `None` if there is no object in
    /// the text. Of a member that comes twice the last one counts, as in every browser.
    pub(super) fn of_text(&self, text: &[u8]) -> Option<Bytes> {
        let text = decode::json(text)?;
        let members = serde_json::Deserializer::from_str(text)
            .deserialize_map(Members(self))
            .ok()?;
        let mut out = Vec::with_capacity(text.len().min(256));
        out.push(b'{');
        for (name, member) in self.names.iter().zip(members) {
            let Some(member) = member else { continue };
            if out.len() > 1 {
                out.push(b',');
            }
            write_string(&mut out, name);
            out.push(b':');
            decode::write_compact(&mut out, member.get());
        }
        out.push(b'}');
        Some(out.into())
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.names.binary_search_by(|known| known.as_bytes().cmp(name)).ok()
    }
}

/// Picks the named members out of an object, each as it was written.
struct Members<'f>(&'f Fields);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = vec![None; self.0.names.len()];
        while let Some(position) = map.next_key_seed(Name(self.0))? {
            match position {
                Some(position) => members[position] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// Finds a member's name among those that are sent.
struct Name<'f>(&'f Fields);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.position(name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(names: &[&str], text: &str) -> Option<String> {
        let fields = Fields::new(names.iter().map(|name| name.to_string()).collect());
        let bytes = fields.of_text(text.as_bytes())?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn only_the_named_members_stay_as_they_were_written() {
        let object = r#" {"c": 3, "total": 1.50, "secret": {"b": 1}, "items": [ 1, {"a": null} ]} "#;
        assert_eq!(
            of_text(&["total", "items", "gone"], object).unwrap(),
            r#"{"items":[1,{"a":null}],"total":1.50}"#
        );
        assert_eq!(
            of_text(&["b"], object).unwrap(),
            "{}",
            "a member of a member is not meant"
        );
    }

    #[test]
    fn the_last_of_two_members_counts_and_names_are_compared_unescaped() {
        assert_eq!(of_text(&["a"], r#"{"a":1,"\u0061":2}"#).unwrap(), r#"{"a":2}"#);
        assert_eq!(of_text(&["a\"b"], r#"{"a\"b":1}"#).unwrap(), r#"{"a\"b":1}"#);
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for text in ["[1]", "1", "null", "\"a\"", "text", "", "{"] {
            assert_eq!(of_text(&["a"], text), None, "{text}");
        }
    }
}
