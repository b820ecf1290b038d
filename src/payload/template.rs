//! The payload `template`: HTML made from a change.
//!
//! Everything that comes out of a variable is HTML-escaped unless the template says `|safe`. What a template can cost
//! is bounded, in steps and in bytes, because values come from outside even where templates do not.

mod problem;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value as Variable, escape_formatter};

use super::json::{Score, last_of_each, name_in_base64};
use super::{Change, Decode, Unsendable, decode};
use crate::hub::{Payload, Snapshot, tight};
use crate::keyspace::Value;
pub use problem::TemplateError;

/// The variables of every template beside the captures; no capture may have such a name.
pub const RESERVED: [&str; 7] = ["channel", "event", "expires_at", "heard_at", "key", "snapshot", "value"];

/// Steps one rendering may take: enough for a list of some 50,000 items, and about 50 ms at the worst, in which nothing
/// else of the mirror moves.
const FUEL: u64 = 1_000_000;

/// Bytes of markup one rendering may make of a value that is at most `max_value`, where that is not more by itself
/// (escaping makes up to six bytes of one). A loop in a template could otherwise make terabytes.
const MAX_MARKUP: u64 = 16 * 1024 * 1024;
const MAX_MARKUP_PER_BYTE: u64 = 8;

const CHANGE: &str = "template";
const ABSENT: &str = "absent";
const ON_RESET: &str = "on_reset";

/// What a mapping sends only where it says so, and a template may name only then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// `expires_at`
    pub expires: bool,
    /// `heard_at`
    pub heard: bool,
}

/// The compiled templates of one mapping.
#[derive(Debug)]
pub(super) struct Templates {
    environment: Environment<'static>,
    /// Those of the three that the mapping has and that say something else in a snapshot.
    differ_in_snapshot: HashSet<&'static str>,
    max_markup: u64,
}

impl Templates {
    pub(super) fn compile(
        change: Option<String>,
        absent: Option<String>,
        on_reset: Option<String>,
        captures: &[Arc<str>],
        sent: Sent,
        max_value: u64,
    ) -> Result<Templates, Vec<TemplateError>> {
        let mut templates = Templates {
            environment: environment(),
            differ_in_snapshot: HashSet::new(),
            max_markup: MAX_MARKUP.max(max_value.saturating_mul(MAX_MARKUP_PER_BYTE)),
        };
        let given: Vec<_> = [(CHANGE, change), (ABSENT, absent), (ON_RESET, on_reset)]
            .into_iter()
            .filter_map(|(which, source)| Some((which, source?)))
            .collect();
        let mut errors = Vec::new();
        if let Some((which, _)) = given.first() {
            let hiding = captures.iter().filter(|name| RESERVED.contains(&&***name));
            errors.extend(hiding.map(|capture| problem::hides_a_variable(which, capture)));
        }
        for (which, source) in given {
            if let Err(error) = templates.environment.add_template_owned(which, source.clone()) {
                errors.push(problem::bad_syntax(which, &source, &error));
                continue;
            }
            let known = |name: &str| match which {
                ON_RESET => name == "channel",
                _ => RESERVED.contains(&name) || captures.iter().any(|capture| **capture == *name),
            };
            let used = templates.variables_of(which);
            let unknown = used.iter().filter(|name| !known(name) && !templates.is_global(name));
            errors.extend(unknown.map(|name| problem::unknown_variable(which, &source, name, captures)));
            let uses = |variable: &str| used.iter().any(|name| name == variable);
            if uses("expires_at") && !sent.expires {
                errors.push(problem::no_expiry(which, &source));
            }
            if uses("heard_at") && !sent.heard {
                errors.push(problem::not_heard(which, &source));
            }
            if ["event", "heard_at", "snapshot"].into_iter().any(uses) {
                templates.differ_in_snapshot.insert(which);
            }
            errors.extend(templates.try_out(which, &source));
        }
        if errors.is_empty() { Ok(templates) } else { Err(errors) }
    }

    /// The variables a template names, sorted.
    fn variables_of(&self, which: &str) -> Vec<String> {
        let template = self.environment.get_template(which);
        let mut names: Vec<_> = template
            .into_iter()
            .flat_map(|it| it.undeclared_variables(false))
            .collect();
        names.sort_unstable();
        names
    }

    fn is_global(&self, name: &str) -> bool {
        self.environment.globals().any(|(global, _)| global == name)
    }

    /// Renders once with nothing in any variable, to find the filters, tests and templates that do not exist: they are
    /// looked up only then. Any other failure says nothing, because the variables are not those of a real change.
    fn try_out(&self, which: &'static str, source: &str) -> Option<TemplateError> {
        let mut environment = self.environment.clone();
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        let template = environment.get_template(which);
        let rendered = template.and_then(|it| it.render_captured_to((), self.markup()).map(drop));
        problem::missing(which, source, &rendered.err()?)
    }

    /// Renders a change of a key that has a value.
    pub(super) fn render(&self, change: &Change<'_>, decode: Decode) -> Result<Payload, Unsendable> {
        match change.value.value() {
            Value::Absent => self.render_absent(change),
            Value::TooLarge(_) => Err(Unsendable::TooLarge),
            value => self.payload(CHANGE, change, variable_of(value, decode)),
        }
    }

    /// Renders the end of a key.
    pub(super) fn render_absent(&self, change: &Change<'_>) -> Result<Payload, Unsendable> {
        if self.environment.get_template(ABSENT).is_err() {
            return Err(Unsendable::AbsentWithoutTemplate);
        }
        self.payload(ABSENT, change, Variable::from(()))
    }

    pub(super) fn on_reset(&self, channel: &str) -> Result<Option<Bytes>, Unsendable> {
        if self.environment.get_template(ON_RESET).is_err() {
            return Ok(None);
        }
        self.run(ON_RESET, Variable::from_pairs([("channel", channel)]))
            .map(Some)
    }

    fn payload(&self, which: &'static str, change: &Change<'_>, value: Variable) -> Result<Payload, Unsendable> {
        let mut variables: BTreeMap<Arc<str>, Variable> = change
            .captures
            .iter()
            .map(|(name, bytes)| (name.clone(), text(bytes)))
            .collect();
        variables.insert("channel".into(), change.channel.into());
        variables.insert("key".into(), text(change.key));
        variables.insert("value".into(), value);
        variables.insert("expires_at".into(), change.expires_at.into());
        variables.insert(
            "event".into(),
            change.event.map(|event| event.as_str().to_owned()).into(),
        );
        variables.insert("heard_at".into(), change.heard_at.map(|at| at as f64 / 1000.0).into());
        variables.insert("snapshot".into(), false.into());
        let live = self.run(which, variables.clone().into())?;
        let mut snapshot = Snapshot::Same;
        if self.differ_in_snapshot.contains(which) {
            variables.insert("event".into(), ().into());
            variables.insert("heard_at".into(), ().into());
            variables.insert("snapshot".into(), true.into());
            let other = self.run(which, variables.into())?;
            if other != live {
                snapshot = Snapshot::Other(other);
            }
        }
        Ok(Payload {
            live,
            snapshot,
            json: false,
            absent: which == ABSENT,
        })
    }

    fn markup(&self) -> Markup {
        Markup {
            bytes: Vec::new(),
            max: self.max_markup,
            full: false,
        }
    }

    fn run(&self, which: &'static str, variables: Variable) -> Result<Bytes, Unsendable> {
        let mut markup = self.markup();
        let template = self.environment.get_template(which);
        let rendered = template.and_then(|it| it.render_captured_to(variables, &mut markup).map(drop));
        match rendered {
            Ok(()) => Ok(tight(markup.bytes, 0)),
            Err(error) => Err(Unsendable::Template {
                which,
                line: error.line().unwrap_or(1),
                what: if markup.full {
                    format!("the template made more than {} bytes of markup", self.max_markup)
                } else {
                    what_failed(&error)
                },
            }),
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    // A misspelt name is an error, not an empty place in a page; `{% if value.x %}` and `|default` still ask.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(|out, state, value| match value.kind() {
        // A page has no use for the word `None`.
        ValueKind::None => Ok(()),
        // As JSON writes them: the engine's own `True` would be no boolean in an attribute or a script.
        ValueKind::Bool => Ok(write!(out, "{}", value.is_true())?),
        _ => escape_formatter(out, state, value),
    });
    // Only so are the failing expressions known.
    environment.set_debug(true);
    environment
}

/// Takes markup up to a limit.
struct Markup {
    bytes: Vec<u8>,
    max: u64,
    full: bool,
}

impl io::Write for Markup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.max {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The value in the shapes that the JSON payload has.
fn variable_of(value: &Value, decode: Decode) -> Variable {
    match value {
        Value::Absent | Value::TooLarge(_) => ().into(),
        Value::String(text) => item(text, decode),
        Value::Hash(fields) => object(fields.iter(), decode),
        Value::List(items) => items.iter().map(|bytes| item(bytes, decode)).collect(),
        Value::Set(members) => members.iter().map(|bytes| text(bytes)).collect(),
        Value::SortedSet(members) => members
            .iter()
            .map(|(member, score)| Variable::from_pairs([("member", text(member)), ("score", number(*score))]))
            .collect(),
        Value::Stream(entries) => entries
            .iter()
            .map(|entry| {
                let fields = object(last_of_each(&entry.fields).into_iter(), decode);
                Variable::from_pairs([("id", text(&entry.id)), ("fields", fields)])
            })
            .collect(),
    }
}

fn object<'a>(pairs: impl Iterator<Item = &'a (Bytes, Bytes)>, decode: Decode) -> Variable {
    Variable::from_pairs(pairs.map(|(name, value)| {
        let name = name_in_base64(name).unwrap_or_else(|| String::from_utf8_lossy(name).into_owned());
        (name, item(value, decode))
    }))
}

fn item(bytes: &[u8], decode: Decode) -> Variable {
    let decoded = match decode {
        Decode::None => None,
        // What is JSON and yet cannot be held, as 1e999 or half a surrogate pair, stays text.
        Decode::Json => decode::json(bytes).and_then(|json| serde_json::from_str(json).ok()),
    };
    decoded.map_or_else(|| text(bytes), decoded_variable)
}

/// No deeper than [`decode::json`] lets pass.
fn decoded_variable(json: serde_json::Value) -> Variable {
    match json {
        serde_json::Value::Null => ().into(),
        serde_json::Value::Bool(bool) => bool.into(),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => signed.into(),
            (None, Some(unsigned)) => unsigned.into(),
            (None, None) => number.as_f64().into(),
        },
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Array(items) => items.into_iter().map(decoded_variable).collect(),
        serde_json::Value::Object(members) => Variable::from_pairs(
            members
                .into_iter()
                .map(|(name, member)| (name, decoded_variable(member))),
        ),
    }
}

/// Text, or `{base64: "…"}` for bytes that are not UTF-8: printed, it is still another text for every other key.
fn text(bytes: &[u8]) -> Variable {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => Variable::from_pairs([("base64", STANDARD.encode(bytes))]),
    }
}

fn number(score: f64) -> Variable {
    match Score::of(score) {
        Score::Whole(whole) => whole.into(),
        Score::Fraction(fraction) => fraction.into(),
        Score::Name(name) => name.into(),
    }
}

/// What failed while rendering, by the template's own text: an error's detail may quote the value.
fn what_failed(error: &Error) -> String {
    let expression = error
        .template_source()
        .zip(error.range())
        .and_then(|(source, range)| source.get(range));
    match expression {
        Some(expression) => format!("{}: `{expression}`", error.kind()),
        None => error.kind().to_string(),
    }
}
