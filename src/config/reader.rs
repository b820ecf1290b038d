//! Walks the tables of a TOML document and takes options out of them, each with its place; what does not fit is reported.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{At, Problem, Problems};
use super::mistakes::{self, Kind};
use super::variables::{self, Environment};
use super::words::Section;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Written<T> {
    pub(crate) value: T,
    pub(crate) at: At,
    /// The variables of the environment that it was made from.
    pub(crate) variables: Vec<String>,
    /// Where the first byte of a text stands in the file, when the file holds it byte for byte.
    pub(crate) verbatim: Option<usize>,
}

impl<T> Written<T> {
    /// The place of some bytes of a text; of the whole value where escapes or variables hide them.
    pub(crate) fn part(&self, range: Range<usize>) -> At {
        match self.verbatim {
            Some(start) => At::new(self.at.source, start + range.start..start + range.end),
            None => self.at,
        }
    }

    pub(crate) fn map<U>(&self, value: U) -> Written<U> {
        Written {
            value,
            at: self.at,
            variables: self.variables.clone(),
            verbatim: None,
        }
    }
}

/// A list and where it was written.
pub(crate) type List = Written<Vec<Written<String>>>;

/// What reading needs to know of its surroundings.
pub(crate) struct Reader<'a> {
    pub(crate) source: usize,
    pub(crate) text: Arc<str>,
    pub(crate) environment: Environment<'a>,
    pub(crate) problems: &'a mut Problems,
}

/// A table of the document whose options are being taken.
pub(crate) struct Table<'t, 'i> {
    pub(crate) section: Section,
    pub(crate) at: At,
    entries: &'t DeTable<'i>,
}

impl<'t, 'i> Table<'t, 'i> {
    /// Begins with a table: what is not an option of its section is reported.
    pub(crate) fn new(
        reader: &mut Reader<'_>,
        section: Section,
        span: Range<usize>,
        entries: &'t DeTable<'i>,
    ) -> Table<'t, 'i> {
        for (key, value) in entries {
            let name: &str = key.get_ref();
            if !section.options().contains(&name) {
                let at = At::new(reader.source, key.span());
                let is_section = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
                reader.problems.add(mistakes::unknown(section, name, is_section, at));
            }
        }
        Table {
            section,
            at: At::new(reader.source, span),
            entries,
        }
    }

    fn get(&self, option: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        debug_assert!(
            self.section.options().contains(&option),
            "{option} is not in the list of options"
        );
        self.entries.get(option)
    }

    /// Where the name of an option stands.
    pub(crate) fn name_at(&self, option: &str) -> Option<At> {
        self.entries
            .get_key_value(option)
            .map(|(key, _)| At::new(self.at.source, key.span()))
    }

    pub(crate) fn text(&self, reader: &mut Reader<'_>, option: &str) -> Option<Written<String>> {
        reader.text_of(self.get(option)?, option, Kind::Text)
    }

    /// A text that is a duration.
    pub(crate) fn duration(&self, reader: &mut Reader<'_>, option: &str) -> Option<Written<String>> {
        reader.text_of(self.get(option)?, option, Kind::Duration)
    }

    /// A text that is a size.
    pub(crate) fn size(&self, reader: &mut Reader<'_>, option: &str) -> Option<Written<String>> {
        reader.text_of(self.get(option)?, option, Kind::Size)
    }

    pub(crate) fn flag(&self, reader: &mut Reader<'_>, option: &str) -> Option<Written<bool>> {
        let value = self.get(option)?;
        if let Some(flag) = value.get_ref().as_bool() {
            return Some(reader.written(value, flag));
        }
        let text = reader.variable_text(value, option, Kind::Flag)?;
        match text.value.parse() {
            Ok(flag) => Some(text.map(flag)),
            Err(_) => reader.wrong_type(value, option, Kind::Flag),
        }
    }

    pub(crate) fn number(&self, reader: &mut Reader<'_>, option: &str) -> Option<Written<i64>> {
        let value = self.get(option)?;
        if let Some(number) = value.get_ref().as_integer() {
            let digits = number.as_str().replace('_', "");
            return match i64::from_str_radix(&digits, number.radix()) {
                Ok(number) => Some(reader.written(value, number)),
                Err(_) => reader.wrong_type(value, option, Kind::Number),
            };
        }
        let text = reader.variable_text(value, option, Kind::Number)?;
        match text.value.parse() {
            Ok(number) => Some(text.map(number)),
            Err(_) => reader.wrong_type(value, option, Kind::Number),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, reader: &mut Reader<'_>, option: &str) -> Option<List> {
        let value = self.get(option)?;
        let Some(array) = value.get_ref().as_array() else {
            return reader.wrong_type(value, option, Kind::Texts);
        };
        let items: Vec<_> = array
            .iter()
            .filter_map(|item| reader.text_of(item, option, Kind::Item))
            .collect();
        // Not a list without anything in it: what is in it was reported.
        let spoilt = items.is_empty() && !array.is_empty();
        (!spoilt).then(|| reader.written(value, items))
    }

    /// A value of any type, for options that take several.
    pub(crate) fn any(&self, option: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.get(option)
    }

    /// A table within this one.
    pub(crate) fn table(&self, reader: &mut Reader<'_>, option: &str, section: Section) -> Option<Table<'t, 'i>> {
        let value = self.get(option)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(reader, section, value.span(), table)),
            DeValue::Array(_) if self.section == Section::Top => {
                let at = At::new(reader.source, value.span());
                reader.problems.add(
                    Problem::new(at, format!("`{option}` is given as a list"), "one table is expected")
                        .why(format!("there is one `{option}`; only mappings may be many"))
                        .instead(format!("write [{option}] with single brackets, once")),
                );
                None
            }
            _ => reader.wrong_type(value, option, Kind::Table),
        }
    }

    /// The tables of a `[[section]]`.
    pub(crate) fn tables(&self, reader: &mut Reader<'_>, option: &str, section: Section) -> Vec<Table<'t, 'i>> {
        let Some(value) = self.get(option) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            let at = self.name_at(option).unwrap_or(self.at);
            reader.problems.add(
                Problem::new(
                    at,
                    format!("`{option}` is given as a single table"),
                    "a list of tables is expected",
                )
                .why(match section {
                    Section::Mapping => "there can be many mappings, so each one begins with double brackets",
                    _ => "there can be several, so each one begins with double brackets",
                })
                .instead(format!("write {}", section.title().trim_matches('`'))),
            );
            return Vec::new();
        };
        array
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::Table(table) => Some(Table::new(reader, section, item.span(), table)),
                _ => reader.wrong_type(item, option, Kind::Table),
            })
            .collect()
    }
}

impl Reader<'_> {
    pub(crate) fn written<T>(&self, value: &Spanned<DeValue<'_>>, inner: T) -> Written<T> {
        Written {
            value: inner,
            at: At::new(self.source, value.span()),
            variables: Vec::new(),
            verbatim: None,
        }
    }

    /// A text with its variables put in.
    pub(crate) fn text_of(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        option: &str,
        kind: Kind,
    ) -> Option<Written<String>> {
        let Some(text) = value.get_ref().as_str() else {
            return self.wrong_type(value, option, kind);
        };
        let span = value.span();
        let verbatim = verbatim(&self.text, span.clone(), text);
        match variables::expand(text, self.environment) {
            Ok(expanded) => Some(Written {
                value: expanded.text,
                at: At::new(self.source, span),
                variables: expanded.used,
                verbatim: verbatim.filter(|_| !expanded.changed),
            }),
            Err(errors) => {
                for error in errors {
                    let at = verbatim.map_or(span.clone(), |start| start + error.at.start..start + error.at.end);
                    // The `key` of signed names is not that of a mapping.
                    let option = if kind == Kind::Secret { "secret" } else { option };
                    self.problems
                        .add(mistakes::variable(error.kind, At::new(self.source, at), option));
                }
                None
            }
        }
    }

    /// A text that is only there to carry a variable, since those stand in quotes whatever they hold.
    fn variable_text(&mut self, value: &Spanned<DeValue<'_>>, option: &str, kind: Kind) -> Option<Written<String>> {
        match value.get_ref().as_str() {
            Some(text) if text.contains("${") => self.text_of(value, option, kind),
            _ => self.wrong_type(value, option, kind),
        }
    }

    /// Reports that a value has the wrong type.
    pub(crate) fn wrong_type<T>(&mut self, value: &Spanned<DeValue<'_>>, option: &str, kind: Kind) -> Option<T> {
        let at = At::new(self.source, value.span());
        let written = self.text.get(value.span()).unwrap_or_default();
        self.problems
            .add(mistakes::wrong_type(at, value.get_ref(), written, option, kind));
        None
    }
}

/// Where a text begins in the file, if it stands there byte for byte between its quotes.
fn verbatim(file: &str, span: Range<usize>, text: &str) -> Option<usize> {
    let written = file.get(span.clone())?;
    let (start, inner) = ["\"\"\"", "'''", "\"", "'"].iter().find_map(|quote| {
        let inner = written.strip_prefix(quote)?.strip_suffix(quote)?;
        // TOML drops a newline that follows the opening quotes of a text of several lines.
        let newline = match quote.len() {
            3 if inner.starts_with("\r\n") => 2,
            3 if inner.starts_with('\n') => 1,
            _ => 0,
        };
        Some((span.start + quote.len() + newline, &inner[newline..]))
    })?;
    (inner == text).then_some(start)
}
