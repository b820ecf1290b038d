//! A value rendered to the bytes of a change.
//!
//! A [`Renderer`] is built once per mapping. A value that was read goes through it in two steps: [`Renderer::project`]
//! leaves of it what the mapping may send, and from then on nothing else is known of it; what remains is compared
//! ([`Renderer::fingerprint`]) and, if it differs from what was sent last, rendered ([`Renderer::render`]).

mod decode;
mod describe;
mod fields;
mod fingerprint;
mod json;
mod raw;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::hub::Payload;
use crate::keyspace::{EventName, Size, Value};
use fields::Fields;
pub use fingerprint::Fingerprint;
use template::Templates;
pub use template::{RESERVED, TemplateError};

/// What a mapping says about its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The form of the payload.
    pub format: Format,
    /// Whether text is looked into before it is sent.
    pub decode: Decode,
    /// Of a hash or of a decoded JSON object, only these are sent; all if `None`.
    pub fields: Option<Vec<String>>,
    /// Whether the time at which the key expires is part of the payload.
    pub expires: bool,
    /// Whether the time at which a change was heard of is part of the payload.
    pub heard: bool,
    /// Largest value that is sent, in bytes as [`Value::size_in_bytes`] counts them.
    pub max_value: u64,
}

/// The form of a payload. Templates are given as text and compiled by [`Renderer::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object with channel, key and value.
    Json,
    /// The bytes of a string, as they are.
    Raw {
        /// What to send when the key is gone; without it nothing is.
        absent: Option<String>,
        /// What to send when a client must forget all it knows of the channel.
        on_reset: Option<String>,
    },
    /// HTML made by a template.
    Template {
        /// What to send when the key has a value.
        change: String,
        /// What to send when the key is gone; without it nothing is.
        absent: Option<String>,
        /// What to send when a client must forget all it knows of the channel.
        on_reset: Option<String>,
    },
}

/// Whether text in a value is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decode {
    /// Text stays text.
    None,
    /// Strings, hash fields, list items and stream fields that are JSON become JSON; what is not stays text.
    Json,
}

/// A value with only that left in it which its mapping may send, in the one order of its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Projected {
    value: Value,
    /// Whether the mapping names fields and the value has none to choose from: such a value is never sent.
    has_no_fields: bool,
}

impl Projected {
    /// What is left where no key is.
    pub fn absent() -> Projected {
        Projected {
            value: Value::Absent,
            has_no_fields: false,
        }
    }

    /// What is left of the value.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// One change of one key, as one mapping sees it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Name of the channel it goes to.
    pub channel: &'a str,
    /// The key that changed.
    pub key: &'a [u8],
    /// What the mapping's pattern captured from the key.
    pub captures: &'a [(Arc<str>, Bytes)],
    /// What the key holds now.
    pub value: &'a Projected,
    /// The last event, if it was one that led to the read.
    pub event: Option<&'a EventName>,
    /// When that event, or the published message, was heard, in microseconds since 1970; sent only if the mapping says so.
    pub heard_at: Option<u64>,
    /// When the key expires, in milliseconds since 1970; sent only if the mapping says so.
    pub expires_at: Option<u64>,
}

/// Why a change has no payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// Nothing is wrong: the mapping does not say what to send for a key that is gone.
    #[error("the key is gone and the mapping has no `absent` template")]
    AbsentWithoutTemplate,
    /// `format = "raw"` and the key holds something else than a string.
    #[error("`format = \"raw\"` sends strings only, and the key holds another type")]
    NotAString,
    /// `format = "raw"` and the string is not text.
    #[error("`format = \"raw\"` sends text only, and the string is not UTF-8")]
    NotText,
    /// The mapping names fields, and the value has none to choose from.
    #[error("the mapping has `fields`, and the value is neither a hash nor a JSON object")]
    NoFields,
    /// The value is over `max_value`, and the format has no way to say so.
    #[error(
        "the value is over `max_value`, or over what `log_bytes` leaves room to read, which only `format = \"json\"` can tell a client"
    )]
    TooLarge,
    /// The template failed. No part of the value is named.
    #[error("`{which}`, line {line}: {what}")]
    Template {
        /// The option that holds the template.
        which: &'static str,
        /// Line of the template, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

impl Unsendable {
    /// One word for a counter.
    pub fn reason(&self) -> &'static str {
        match self {
            Unsendable::AbsentWithoutTemplate => "absent",
            Unsendable::NotAString => "not_a_string",
            Unsendable::NotText => "not_text",
            Unsendable::NoFields => "no_fields",
            Unsendable::TooLarge => "too_large",
            Unsendable::Template { .. } => "template",
        }
    }
}

/// Renders the changes of one mapping.
#[derive(Debug)]
pub struct Renderer {
    form: Form,
    fields: Option<Fields>,
    /// What it was made of.
    options: Options,
}

/// By what they were made of; patterns with other captures may make another thing of it.
impl PartialEq for Renderer {
    fn eq(&self, other: &Renderer) -> bool {
        self.options == other.options
    }
}

#[derive(Debug)]
enum Form {
    Json,
    Raw(Templates),
    Template(Templates),
}

impl Renderer {
    /// Compiles the templates of a mapping whose pattern has these captures.
    ///
    /// # Errors
    /// All that is wrong with the templates: bad syntax, variables that do not exist, captures that hide one that does.
    pub fn new(options: Options, captures: &[Arc<str>]) -> Result<Renderer, Vec<TemplateError>> {
        let max_value = options.max_value;
        let sent = template::Sent {
            expires: options.expires,
            heard: options.heard,
        };
        let templates = |change, absent: &Option<String>, on_reset: &Option<String>| {
            Templates::compile(change, absent.clone(), on_reset.clone(), captures, sent, max_value)
        };
        let form = match &options.format {
            Format::Json => Form::Json,
            Format::Raw { absent, on_reset } => Form::Raw(templates(None, absent, on_reset)?),
            Format::Template {
                change,
                absent,
                on_reset,
            } => Form::Template(templates(Some(change.clone()), absent, on_reset)?),
        };
        Ok(Renderer {
            form,
            fields: options.fields.clone().map(Fields::new),
            options,
        })
    }

    /// The names of the fields that this mapping sends, if it does not send all: of a hash nothing else need be read.
    pub fn fields(&self) -> Option<&Arc<[Bytes]>> {
        self.fields.as_ref().map(Fields::as_bytes)
    }

    /// Leaves of a value that was read what this mapping may send.
    ///
    /// What is over the mapping's `max_value` becomes [`Value::TooLarge`], even if it was read for another mapping.
    pub fn project(&self, value: Value) -> Projected {
        // A string is limited as it was read: the reader does not know what is inside.
        let whole_is_judged = !matches!(value, Value::Hash(_));
        let value = if whole_is_judged { self.limited(value) } else { value };
        let chosen = match &self.fields {
            Some(fields) => self.choose(fields, value),
            None => Ok(value),
        };
        let (value, has_no_fields) = match chosen {
            Ok(value) => (self.limited(value), false),
            Err(value) => (value, true),
        };
        let mut projected = Projected { value, has_no_fields };
        projected.value.sort();
        projected
    }

    /// The value with the named fields alone, or the whole value if it has none to choose from. A value that says
    /// nothing needs no choice.
    fn choose(&self, fields: &Fields, value: Value) -> Result<Value, Value> {
        match value {
            Value::Hash(pairs) => Ok(Value::Hash(fields.of_hash(pairs))),
            Value::String(text) if self.options.decode == Decode::Json => match fields.of_text(&text) {
                Some(object) => Ok(Value::String(object)),
                None => Err(Value::String(text)),
            },
            Value::Absent | Value::TooLarge(_) => Ok(value),
            value => Err(value),
        }
    }

    fn limited(&self, value: Value) -> Value {
        let size = value.size_in_bytes() as u64;
        if size <= self.options.max_value {
            value
        } else {
            Value::TooLarge(Size::Bytes(size))
        }
    }

    /// What tells this value from another. It depends on nothing but the value: neither on format nor `decode`.
    pub fn fingerprint(&self, value: &Projected) -> Fingerprint {
        Fingerprint::of(&value.value)
    }

    /// Renders one change.
    ///
    /// # Errors
    /// If the mapping cannot send this value; see [`Unsendable`].
    pub fn render(&self, change: &Change<'_>) -> Result<Payload, Unsendable> {
        let change = &Change {
            expires_at: change.expires_at.filter(|_| self.options.expires),
            heard_at: change.heard_at.filter(|_| self.options.heard),
            ..*change
        };
        if change.value.has_no_fields {
            return Err(Unsendable::NoFields);
        }
        match &self.form {
            Form::Json => Ok(json::render(change, self.options.decode)),
            Form::Raw(templates) => raw::render(change, templates),
            Form::Template(templates) => templates.render(change, self.options.decode),
        }
    }

    /// What clears a client's view of the channel before it is told anew, if the mapping says so.
    ///
    /// # Errors
    /// [`Unsendable::Template`], if the template fails.
    pub fn on_reset(&self, channel: &str) -> Result<Option<Bytes>, Unsendable> {
        match &self.form {
            Form::Json => Ok(None),
            Form::Raw(templates) | Form::Template(templates) => templates.on_reset(channel),
        }
    }
}
