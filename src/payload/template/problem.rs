//! What can be wrong with a template, told before it is used.

use std::ops::Range;
use std::sync::Arc;

use minijinja::{Error, ErrorKind};

use super::{ON_RESET, RESERVED};

/// A template that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{which}`, line {line}: {what}: {why}; {instead}")]
pub struct TemplateError {
    /// The option that holds it: `template`, `absent` or `on_reset`.
    pub which: &'static str,
    /// Line of the template, from 1.
    pub line: usize,
    /// Bytes of the template that are wrong; none of them if it is the name of a capture that is.
    pub at: Range<usize>,
    /// What is wrong.
    pub what: String,
    /// Why it is.
    pub why: String,
    /// What to write instead.
    pub instead: String,
}

fn detail(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

pub(super) fn bad_syntax(which: &'static str, source: &str, error: &Error) -> TemplateError {
    TemplateError {
        which,
        line: error.line().unwrap_or(1),
        at: range_of(source, error),
        what: "the template cannot be read".to_owned(),
        why: detail(error),
        instead: "write `{{ variable }}`, `{% if … %}…{% endif %}` or `{% for … %}…{% endfor %}`".to_owned(),
    }
}

/// A filter, test or template that does not exist; `None` for any other error.
pub(super) fn missing(which: &'static str, source: &str, error: &Error) -> Option<TemplateError> {
    let (what, instead) = match error.kind() {
        ErrorKind::UnknownFilter => ("unknown filter", "use one that minijinja has built in"),
        ErrorKind::UnknownTest => ("unknown test", "use one that minijinja has built in"),
        ErrorKind::TemplateNotFound | ErrorKind::BadInclude => (
            "there is no other template to include, import or extend",
            "write all of it here",
        ),
        _ => return None,
    };
    Some(TemplateError {
        which,
        line: error.line().unwrap_or(1),
        at: range_of(source, error),
        what: what.to_owned(),
        why: detail(error),
        instead: instead.to_owned(),
    })
}

pub(super) fn hides_a_variable(which: &'static str, capture: &str) -> TemplateError {
    TemplateError {
        which,
        line: 1,
        at: 0..0,
        what: format!("the capture `{{{capture}}}` of the key hides the variable `{capture}`"),
        why: format!("every template has the variables {}", listed(&RESERVED)),
        instead: "give the capture another name".to_owned(),
    }
}

pub(super) fn unknown_variable(which: &'static str, source: &str, name: &str, captures: &[Arc<str>]) -> TemplateError {
    let known = match which {
        ON_RESET => "`channel` alone, because a channel may have many keys".to_owned(),
        _ => {
            let captures = captures.iter().map(|name| &**name);
            listed(&RESERVED.into_iter().chain(captures).collect::<Vec<_>>())
        }
    };
    let at = place_of(source, name);
    TemplateError {
        which,
        line: line_of(source, at.start),
        at,
        what: format!("there is no variable `{name}`"),
        why: format!("this template has {known}"),
        instead: "name one of these, or capture it in the pattern".to_owned(),
    }
}

pub(super) fn no_expiry(which: &'static str, source: &str) -> TemplateError {
    let at = place_of(source, "expires_at");
    TemplateError {
        which,
        line: line_of(source, at.start),
        at,
        what: "`expires_at` is used, but the mapping does not send it".to_owned(),
        why: "a change of the expiry alone is no change unless the mapping says so".to_owned(),
        instead: "set `expires = true` in this mapping".to_owned(),
    }
}

pub(super) fn not_heard(which: &'static str, source: &str) -> TemplateError {
    let at = place_of(source, "heard_at");
    TemplateError {
        which,
        line: line_of(source, at.start),
        at,
        what: "`heard_at` is used, but the mapping does not send it".to_owned(),
        why: "a time in every change makes it longer, and few look at it".to_owned(),
        instead: "set `heard = true` in this mapping".to_owned(),
    }
}

fn listed(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The bytes an error speaks of; the whole line if it does not say.
fn range_of(source: &str, error: &Error) -> Range<usize> {
    let known = error
        .range()
        .filter(|range| source.get(range.clone()).is_some_and(|text| !text.is_empty()));
    known.unwrap_or_else(|| {
        let line = error.line().unwrap_or(1).saturating_sub(1);
        let start = source.split_inclusive('\n').take(line).map(str::len).sum();
        let length = source[start..].lines().next().map_or(0, str::len);
        start..start + length
    })
}

/// Where a variable is named first: as a whole word within a tag.
fn place_of(source: &str, name: &str) -> Range<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let found = source.match_indices(name).map(|(at, _)| at).find(|&at| {
        let (before, after) = (&source[..at], &source[at + name.len()..]);
        let opened = before.rfind("{{").max(before.rfind("{%"));
        let closed = before.rfind("}}").max(before.rfind("%}"));
        let whole = !before.ends_with(part_of_name) && !after.starts_with(|c| part_of_name(c) && c != '.');
        whole && opened.is_some() && opened > closed
    });
    found.map_or(0..source.len(), |at| at..at + name.len())
}

fn line_of(source: &str, at: usize) -> usize {
    1 + source[..at].matches('\n').count()
}
