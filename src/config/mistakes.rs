//! What the walk over the tables can complain about: unknown options, wrong types, variables without a value.

use toml::de::DeValue;

use super::diagnostics::{At, Problem};
use super::variables::VariableErrorKind;
use super::words::{self, Section};

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// A text that nobody should read.
    Secret,
    Duration,
    Size,
    Flag,
    Number,
    Texts,
    /// One of the texts of a list.
    Item,
    Table,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text | Kind::Secret => "a text in quotes",
            Kind::Duration => "a duration in quotes",
            Kind::Size => "a size in quotes",
            Kind::Flag => "true or false, without quotes",
            Kind::Number => "a whole number, without quotes",
            Kind::Texts | Kind::Item => "a list of texts in quotes",
            Kind::Table => "a table",
        }
    }
}

/// A value of the wrong type. `written` is the value as it stands in the file.
pub(crate) fn wrong_type(at: At, value: &DeValue<'_>, written: &str, option: &str, kind: Kind) -> Problem {
    let found = match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let bare = written.trim_matches(['"', '\'']);
    // What was written, in the form that was meant, where that is certain; else an example.
    let meant = match (kind, value) {
        (Kind::Texts, DeValue::String(_)) if !written.contains('\n') => format!("[{written}]"),
        (Kind::Duration, DeValue::Integer(_)) => format!("\"{written}s\""),
        (Kind::Size, DeValue::Integer(_)) => format!("\"{written}B\""),
        (Kind::Flag, DeValue::String(_)) if bare.parse::<bool>().is_ok() => bare.to_owned(),
        (Kind::Number, DeValue::String(_)) if bare.parse::<i64>().is_ok() => bare.to_owned(),
        (Kind::Table, _) if option == "access" => "[access]".to_owned(),
        (Kind::Secret, _) => "\"${SECRET}\"".to_owned(),
        // The public listener takes several.
        (Kind::Text, _) if option == "listen" => "\"127.0.0.1:7401\"".to_owned(),
        _ => words::example(option).to_owned(),
    };
    let header = kind == Kind::Table && option != "retain" && option != "tls";
    let problem = Problem::new(at, format!("`{option}` has the wrong type"), format!("this is {found}"))
        .why(format!("`{option}` is {}", kind.name()));
    if header {
        problem.instead(format!("begin it with a line {meant}"))
    } else {
        problem.instead(format!("write {option} = {meant}"))
    }
}

/// A name that is not among the options of its section.
pub(crate) fn unknown(section: Section, name: &str, is_section: bool, at: At) -> Problem {
    let title = section.title();
    let (kind, place) = match section {
        Section::Top if is_section => ("section", String::new()),
        Section::Top => ("option", " at the top of the file".to_owned()),
        _ => ("option", format!(" in {title}")),
    };
    let near = words::nearest(name, section.options().iter().copied());
    let home = match section {
        // `access` of a mapping, and not the section.
        Section::Defaults if Section::Mapping.options().contains(&name) => Some(Section::Mapping),
        _ => section.home_of(name).filter(|home| *home != section),
    };
    if let (None, Some(home)) = (near, home) {
        let problem =
            Problem::new(at, format!("`{name}` is in the wrong place"), "belongs elsewhere").why(match section {
                Section::Top => {
                    "before the first section stand `include` and dotted names such as `upstream.url`".to_owned()
                }
                _ => format!("it is not an option of {title}"),
            });
        return match (section, home) {
            (Section::Defaults, Section::Mapping) => problem.instead("write it in each `[[mapping]]`"),
            (_, Section::Top) => problem.instead(format!("write {} before the first section", header(name))),
            _ => problem.instead(format!("write it in {}", home.title())),
        };
    }
    let problem = Problem::new(
        at,
        format!("unknown {kind} `{name}`{place}"),
        format!("no {kind} has this name"),
    )
    .why(format!(
        "what is not known is refused, so that a misspelt {kind} is not passed over in silence"
    ));
    match near {
        Some(word) if section == Section::Top => problem.instead(format!("did you mean {}?", header(word))),
        Some(word) => problem.instead(format!("did you mean `{word}`?")),
        None => {
            let all = section.options().iter();
            let all = all.map(|word| {
                if section == Section::Top {
                    header(word)
                } else {
                    format!("`{word}`")
                }
            });
            problem.instead(format!("there are {}", all.collect::<Vec<_>>().join(", ")))
        }
    }
}

fn header(word: &str) -> String {
    match word {
        "include" => "`include`".to_owned(),
        "mapping" => "`[[mapping]]`".to_owned(),
        _ => format!("`[{word}]`"),
    }
}

/// A `${…}` that has no value.
pub(crate) fn variable(kind: VariableErrorKind, at: At, option: &str) -> Problem {
    match kind {
        VariableErrorKind::Unset(name) => {
            let problem = Problem::new(at, format!("the variable `{name}` is not set"), "has no value")
                .why("an empty value in its place could mean something else than was meant")
                .instead(format!(
                    "set {name} in keyrelay's environment, or give a default: ${{{name}:-…}}"
                ));
            match option {
                // Here braces mean captures, and a dollar before them may have been meant as itself.
                "key" | "subscribe" | "channel" => {
                    problem.instead(format!("for a dollar and the capture {{{name}}}, write $${{{name}}}"))
                }
                _ => problem,
            }
        }
        VariableErrorKind::Name(name) => Problem::new(
            at,
            format!("`{name}` is not the name of a variable"),
            "between `${` and `}`",
        )
        .why("a name is made of letters, digits and `_` and does not begin with a digit")
        .instead("to write a `${` that stands for itself, double the dollar: `$${`"),
        VariableErrorKind::Open => Problem::new(at, "a `${` without its `}`", "begins here")
            .why("`${NAME}` stands for the value of a variable of the environment")
            .instead("close it, or write `$${` for a `${` that stands for itself"),
    }
}
