//! `[[mapping]]` as it was written, with what it shares with `[defaults]`.

use toml::Spanned;
use toml::de::DeValue;

use super::super::diagnostics::{At, Problem};
use super::super::mistakes::Kind;
use super::super::reader::{List, Reader, Table, Written};
use super::super::words::Section;

/// `[[mapping]]`
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The header.
    pub(crate) at: At,
    pub(crate) key: Option<Written<String>>,
    pub(crate) subscribe: Option<Written<String>>,
    pub(crate) channel: Option<Written<String>>,
    pub(crate) access: Option<Written<WrittenAccess>>,
    /// Whether `key` or `subscribe` is there, if perhaps with a value that could not be read, so that it is not reported
    /// as missing as well.
    pub(crate) has_pattern: bool,
    pub(crate) options: MappingOptions,
}

/// `access` as it was written.
#[derive(Debug)]
pub(crate) enum WrittenAccess {
    /// A word.
    Word(String),
    /// Claims that a token must have, all of them.
    Claims(Vec<Claim>),
    /// Several of these.
    AnyOf(Vec<Written<WrittenAccess>>),
    /// Nothing that could be any of them; already reported.
    Wrong,
}

/// `sub = "{user}"`
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) name: String,
    pub(crate) text: Written<String>,
}

/// What a mapping and `[defaults]` have in common.
#[derive(Debug, Default)]
pub(crate) struct MappingOptions {
    pub(crate) mode: Option<Written<String>>,
    pub(crate) on: Option<List>,
    pub(crate) event_name: Option<Written<String>>,
    pub(crate) linger: Option<Written<String>>,
    pub(crate) snapshot: Option<Written<bool>>,
    pub(crate) retain: Option<Retain>,
    pub(crate) max_value: Option<Written<String>>,
    pub(crate) min_interval: Option<Written<String>>,
    pub(crate) poll: Option<Written<String>>,
    pub(crate) expires: Option<Written<bool>>,
    pub(crate) heard: Option<Written<bool>>,
    pub(crate) fields: Option<List>,
    pub(crate) decode: Option<Written<String>>,
    pub(crate) format: Option<Written<String>>,
    pub(crate) template: Option<Written<String>>,
    pub(crate) template_file: Option<Written<String>>,
    pub(crate) absent: Option<Written<String>>,
    pub(crate) on_reset: Option<Written<String>>,
}

/// `retain = { … }`
#[derive(Debug)]
pub(crate) struct Retain {
    pub(crate) at: At,
    pub(crate) messages: Option<Written<i64>>,
    pub(crate) bytes: Option<Written<String>>,
    pub(crate) age: Option<Written<String>>,
}

pub(super) fn mapping(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Mapping {
    Mapping {
        at: table.at,
        key: table.text(reader, "key"),
        subscribe: table.text(reader, "subscribe"),
        channel: table.text(reader, "channel"),
        access: table.any("access").map(|value| access_of(reader, value)),
        has_pattern: table.any("key").or(table.any("subscribe")).is_some(),
        options: options(reader, table),
    }
}

pub(super) fn options(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> MappingOptions {
    MappingOptions {
        mode: table.text(reader, "mode"),
        on: table.texts(reader, "on"),
        event_name: table.text(reader, "event_name"),
        linger: table.duration(reader, "linger"),
        snapshot: table.flag(reader, "snapshot"),
        retain: table.table(reader, "retain", Section::Retain).map(|retain| Retain {
            at: retain.at,
            messages: retain.number(reader, "messages"),
            bytes: retain.size(reader, "bytes"),
            age: retain.duration(reader, "age"),
        }),
        max_value: table.size(reader, "max_value"),
        min_interval: table.duration(reader, "min_interval"),
        poll: table.duration(reader, "poll"),
        expires: table.flag(reader, "expires"),
        heard: table.flag(reader, "heard"),
        fields: table.texts(reader, "fields"),
        decode: table.text(reader, "decode"),
        format: table.text(reader, "format"),
        template: table.text(reader, "template"),
        template_file: table.text(reader, "template_file"),
        absent: table.text(reader, "absent"),
        on_reset: table.text(reader, "on_reset"),
    }
}

fn access_of(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Written<WrittenAccess> {
    match value.get_ref() {
        DeValue::Array(list) => {
            let list = list.iter().map(|item| access_of(reader, item)).collect();
            reader.written(value, WrittenAccess::AnyOf(list))
        }
        DeValue::Table(claims) => {
            let claims: Vec<Option<Claim>> = claims
                .iter()
                .map(|(name, text)| claim(reader, name.get_ref(), text))
                .collect();
            // A table without what could not be read would ask for less than was written.
            match claims.into_iter().collect() {
                Some(claims) => reader.written(value, WrittenAccess::Claims(claims)),
                None => reader.written(value, WrittenAccess::Wrong),
            }
        }
        _ => match reader.text_of(value, "access", Kind::Text) {
            Some(text) => text.map(WrittenAccess::Word(text.value.clone())),
            None => reader.written(value, WrittenAccess::Wrong),
        },
    }
}

/// Claims are compared as text, so numbers, `true` and `false` may be written as they are.
fn claim(reader: &mut Reader<'_>, name: &str, value: &Spanned<DeValue<'_>>) -> Option<Claim> {
    let text = match value.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => reader.written(value, number.as_str().replace('_', "")),
        DeValue::Boolean(flag) => reader.written(value, flag.to_string()),
        DeValue::String(_) => reader.text_of(value, name, Kind::Text)?,
        _ => {
            let at = At::new(reader.source, value.span());
            let problem = Problem::new(
                at,
                format!("what the claim `{name}` must hold is no text"),
                "one text is expected",
            );
            reader.problems.add(
                problem
                    .why("a claim is compared as text, and a claim that is a list must contain it")
                    .instead(format!("write {name} = \"{{capture}}\" or {name} = \"admin\"; of several ways in, make a list: [{{ … }}, {{ … }}]")),
            );
            return None;
        }
    };
    Some(Claim {
        name: name.to_owned(),
        text,
    })
}
