//! What a config means: each option checked, its default filled in, and where it came from noted.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostics::{At, Problem, Problems};
use super::origin::{From, Origin};
use super::reader::Written;
use super::units::{self, UnitError};
use super::variables::Environment;
use super::words;

/// The state of a compilation.
pub(crate) struct Compiler<'a> {
    pub(crate) environment: Environment<'a>,
    pub(crate) problems: &'a mut Problems,
    pub(crate) origin: Vec<Origin>,
}

/// How an option is called, in sentences and among the origins.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    /// `server`; empty for the options of a mapping, whose origins are not noted one by one.
    pub(crate) section: &'static str,
    pub(crate) option: &'static str,
}

/// A range that an option must lie in, and why.
pub(crate) struct Bounds<T> {
    pub(crate) range: RangeInclusive<T>,
    pub(crate) why: &'static str,
}

impl Compiler<'_> {
    /// Notes where a value came from.
    pub(crate) fn note<T>(&mut self, name: Name, written: &Written<T>, value: impl Into<String>) {
        if name.section.is_empty() {
            return;
        }
        let from = From::File {
            path: self.path_of(written.at).to_path_buf(),
            line: self.problems.line(written.at),
            variables: written.variables.clone(),
        };
        self.origin.push(Origin {
            option: format!("{}.{}", name.section, name.option),
            value: value.into(),
            from,
        });
    }

    pub(crate) fn path_of(&self, at: At) -> &Path {
        &self.problems.sources[at.source].path
    }

    /// A path as the file means it: relative to the file's own folder.
    pub(crate) fn resolve(&self, at: At, path: &str) -> PathBuf {
        match self.path_of(at).parent() {
            Some(folder) => folder.join(path),
            None => PathBuf::from(path),
        }
    }

    /// The same of a file that the config depends on.
    pub(crate) fn file(&mut self, at: At, path: &str) -> PathBuf {
        let path = self.resolve(at, path);
        self.problems.others.push(path.clone());
        path
    }

    pub(crate) fn duration(
        &mut self,
        name: Name,
        written: Option<&Written<String>>,
        default: Duration,
        bounds: &Bounds<Duration>,
    ) -> Duration {
        let show = |value: &Duration| units::show_duration(*value);
        self.quantity(name, "duration", written, default, bounds, units::duration, show)
    }

    /// A duration, or `"off"`.
    pub(crate) fn duration_or_off(
        &mut self,
        name: Name,
        written: Option<&Written<String>>,
        default: Option<Duration>,
        bounds: &Bounds<Duration>,
    ) -> Option<Duration> {
        if let Some(written) = written.filter(|written| written.value.trim() == "off") {
            if default.is_some() {
                self.note(name, written, "\"off\"");
            }
            return None;
        }
        // What is written is of interest if nothing was to be expected.
        let expected = default.unwrap_or(Duration::ZERO);
        let value = self.duration(name, written, expected, bounds);
        written.map_or(default, |_| Some(value).filter(|value| !value.is_zero()))
    }

    pub(crate) fn size(
        &mut self,
        name: Name,
        written: Option<&Written<String>>,
        default: u64,
        bounds: &Bounds<u64>,
    ) -> u64 {
        let show = |value: &u64| units::show_size(*value);
        self.quantity(name, "size", written, default, bounds, units::size, show)
    }

    /// A number with its unit, within its bounds; what is wrong is told and counts as the default.
    #[expect(
        clippy::too_many_arguments,
        reason = "what tells a duration from a size is all of it"
    )]
    fn quantity<V: PartialOrd>(
        &mut self,
        name: Name,
        unit: &str,
        written: Option<&Written<String>>,
        default: V,
        bounds: &Bounds<V>,
        parse: impl Fn(&str) -> Result<V, units::UnitError>,
        show: impl Fn(&V) -> String,
    ) -> V {
        let Some(written) = written else { return default };
        let value = match parse(&written.value) {
            Ok(value) => value,
            Err(error) => {
                self.unit(name.option, unit, written, error);
                return default;
            }
        };
        if !bounds.range.contains(&value) {
            let (least, most) = (show(bounds.range.start()), show(bounds.range.end()));
            self.outside(name.option, written, least, most, bounds.why);
            return default;
        }
        if value != default {
            self.note(name, written, format!("\"{}\"", show(&value)));
        }
        value
    }

    pub(crate) fn number(
        &mut self,
        name: Name,
        written: Option<&Written<i64>>,
        default: usize,
        bounds: &Bounds<usize>,
    ) -> usize {
        let Some(written) = written else { return default };
        match usize::try_from(written.value)
            .ok()
            .filter(|value| bounds.range.contains(value))
        {
            Some(value) => {
                if value != default {
                    self.note(name, written, value.to_string());
                }
                value
            }
            None => {
                let (least, most) = (bounds.range.start().to_string(), bounds.range.end().to_string());
                self.outside(name.option, written, least, most, bounds.why);
                default
            }
        }
    }

    pub(crate) fn flag(&mut self, name: Name, written: Option<&Written<bool>>, default: bool) -> bool {
        let Some(written) = written else { return default };
        if written.value != default {
            self.note(name, written, written.value.to_string());
        }
        written.value
    }

    /// One of some words, each with its meaning.
    pub(crate) fn word<T: Copy + PartialEq>(
        &mut self,
        name: Name,
        written: Option<&Written<String>>,
        default: T,
        words: &[(&'static str, T)],
    ) -> T {
        let Some(written) = written else { return default };
        if let Some((word, value)) = words.iter().find(|(word, _)| *word == written.value) {
            if *value != default {
                self.note(name, written, format!("\"{word}\""));
            }
            return *value;
        }
        let all = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let problem = Problem::new(
            written.at,
            format!("`{}` does not take this word", name.option),
            format!("not one of {all}"),
        );
        let problem = match words::nearest(&written.value, words.iter().map(|(word, _)| *word)) {
            Some(word) => problem.instead(format!("did you mean \"{word}\"?")),
            None => problem.instead(format!("write {} = {}", name.option, all.replace(", ", " or "))),
        };
        self.problems.add(problem);
        default
    }

    fn unit(&mut self, option: &str, kind: &str, written: &Written<String>, error: UnitError) {
        self.problems.add(
            Problem::new(written.at, format!("`{option}` is not a {kind}"), error.what)
                .why(match kind {
                    "duration" => "a duration is a whole number with one of the units ms, s, m, h, d",
                    _ => "a size is a whole number with one of the units B, KiB, MiB, GiB",
                })
                .instead(error.instead),
        );
    }

    fn outside<T>(&mut self, option: &str, written: &Written<T>, least: String, most: String, why: &str) {
        self.problems.add(
            Problem::new(
                written.at,
                format!("`{option}` is out of bounds"),
                format!("from {least} to {most}"),
            )
            .why(why)
            .instead(format!("write a value from {least} to {most}")),
        );
    }
}
