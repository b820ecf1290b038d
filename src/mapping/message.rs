//! The fields of a published JSON message that are part of its channel's name.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::pattern::Field;

/// Why a published message has no channel. No part of the message is named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// A field of it is needed, and it has none.
    #[error("it is not a JSON object, and its channel is named after a field of it")]
    NotAnObject,
    /// The field is not there, or is no text, number or boolean.
    #[error("it has no text, number or boolean in `{0}`, after which its channel is named")]
    NoField(String),
    /// The field's value cannot be a part of a name.
    #[error("its `{0}` is empty, or has a `:` in it and is not written `{{{0}...}}` in `channel`")]
    NotAName(String),
}

/// Every [`Unroutable::reason`].
pub const UNROUTABLE: [&str; 3] = ["not_an_object", "no_field", "not_a_name"];

impl Unroutable {
    /// One word for a counter.
    pub fn reason(&self) -> &'static str {
        match self {
            Unroutable::NotAnObject => "not_an_object",
            Unroutable::NoField(_) => "no_field",
            Unroutable::NotAName(_) => "not_a_name",
        }
    }
}

/// Puts the values of `fields` into `values`, in their order; numbers as they are written in the message.
pub(super) fn fields(message: &[u8], fields: &[Field], values: &mut Vec<String>) -> Result<(), Unroutable> {
    values.clear();
    if fields.is_empty() {
        return Ok(());
    }
    let message = std::str::from_utf8(message).map_err(|_| Unroutable::NotAnObject)?;
    for field in fields {
        let mut path = field.path();
        let outermost = path.next().unwrap_or_default();
        let mut found = member(message, outermost).ok_or(Unroutable::NotAnObject)?;
        for name in path {
            found = found.and_then(|object| member(object.get(), name)).flatten();
        }
        let value = found.and_then(|value| scalar(value.get()));
        let value = value.ok_or_else(|| Unroutable::NoField(field.to_string()))?;
        if !field.takes(&value) {
            return Err(Unroutable::NotAName(field.to_string()));
        }
        values.push(value);
    }
    Ok(())
}

/// The member of this name, if there is one; `None` if the text is no JSON object.
fn member<'t>(text: &'t str, name: &str) -> Option<Option<&'t RawValue>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = json.deserialize_map(Member(name)).ok()?;
    json.end().ok()?;
    Some(found)
}

/// A value as a part of a name; `None` for one that has parts itself, and for null.
fn scalar(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(json.to_owned()),
    }
}

/// Picks one member out of an object, the last one of its name, as every browser does.
struct Member<'n>(&'n str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(same) = map.next_key_seed(Same(self.0))? {
            if same {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a member's name, its escapes resolved.
struct Same<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Same<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Same<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}
