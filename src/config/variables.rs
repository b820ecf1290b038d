//! `${VAR}` and `${VAR:-default}` in the strings of a config.

use std::ops::Range;

/// Looks up a variable of the environment; tests give their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A text with its variables put in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// The variables whose values were put in, in their order; a default that was used names none.
    pub(crate) used: Vec<String>,
    /// Whether the text is other than it was written.
    pub(crate) changed: bool,
}

/// Why a `${…}` has no value; `at` are bytes of the text as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VariableError {
    pub(crate) at: Range<usize>,
    pub(crate) kind: VariableErrorKind,
}

/// What is wrong with a `${…}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VariableErrorKind {
    /// The environment has no such variable and no default is given.
    Unset(String),
    /// The name is not one that a variable can have.
    Name(String),
    /// The closing brace is missing.
    Open,
}

/// Puts the variables in; `$${` stands for `${`. A variable that is set but empty takes its default, as in a shell.
/// What a variable holds is taken as it is and not expanded again.
pub(crate) fn expand(text: &str, environment: Environment<'_>) -> Result<Expanded, Vec<VariableError>> {
    let mut out = Expanded {
        text: String::with_capacity(text.len()),
        used: Vec::new(),
        changed: false,
    };
    let mut errors = Vec::new();
    let mut rest = 0;
    while let Some(found) = text[rest..].find("${").map(|position| rest + position) {
        out.changed = true;
        if found > rest && text.as_bytes()[found - 1] == b'$' {
            out.text.push_str(&text[rest..found - 1]);
            out.text.push_str("${");
            rest = found + 2;
            continue;
        }
        out.text.push_str(&text[rest..found]);
        let Some(length) = text[found..].find('}') else {
            errors.push(VariableError {
                at: found..text.len(),
                kind: VariableErrorKind::Open,
            });
            return Err(errors);
        };
        let at = found..found + length + 1;
        let inner = &text[found + 2..found + length];
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        rest = at.end;
        if !is_name(name) {
            errors.push(VariableError {
                at,
                kind: VariableErrorKind::Name(name.into()),
            });
            continue;
        }
        match (environment(name), default) {
            (Some(value), _) if !value.is_empty() => {
                out.text.push_str(&value);
                out.used.push(name.into());
            }
            (_, Some(default)) => out.text.push_str(default),
            (Some(_), None) => out.used.push(name.into()),
            (None, None) => errors.push(VariableError {
                at,
                kind: VariableErrorKind::Unset(name.into()),
            }),
        }
    }
    out.text.push_str(&text[rest..]);
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db".into()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${HOST}".into()),
            _ => None,
        }
    }

    fn ok(text: &str) -> String {
        expand(text, &environment).unwrap().text
    }

    #[test]
    fn values_defaults_and_escapes() {
        assert_eq!(ok("redis://${HOST}:${P:-6379}/0"), "redis://db:6379/0");
        assert_eq!(ok("${EMPTY:-x}${EMPTY}"), "x");
        assert_eq!(ok("a$${HOST}b"), "a${HOST}b");
        assert_eq!(ok("$$${HOST}"), "$${HOST}");
        assert_eq!(ok("costs $5 {name}"), "costs $5 {name}");
        assert_eq!(ok("${TRICKY}"), "${HOST}");
        assert_eq!(ok("${A:-}"), "");
        assert_eq!(expand("${HOST}", &environment).unwrap().used, ["HOST"]);
        assert!(!expand("plain", &environment).unwrap().changed);
    }

    #[test]
    fn every_error_has_its_place() {
        let errors = expand("${A}-${HOST}-${1B}", &environment).unwrap_err();
        assert_eq!(
            errors[0],
            VariableError {
                at: 0..4,
                kind: VariableErrorKind::Unset("A".into())
            }
        );
        assert_eq!(
            errors[1],
            VariableError {
                at: 13..18,
                kind: VariableErrorKind::Name("1B".into())
            }
        );
        assert_eq!(
            expand("é${A", &environment).unwrap_err()[0].kind,
            VariableErrorKind::Open
        );
    }
}
