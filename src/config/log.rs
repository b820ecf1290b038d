//! `[log]`: the filter and the form of the log.

use super::compile::{Compiler, Name};
use super::diagnostics::Problem;
use super::file;
use super::reader::Written;
use super::words;
use crate::process::logging::{self, Format, Options};

/// What is worth reading on an ordinary day: start, stop, and what was lost.
const LEVEL: &str = "info";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Compiler<'_> {
    pub(crate) fn log(&mut self, file: &file::Log) -> Options {
        let name = |option| Name { section: "log", option };
        let level = match &file.level {
            Some(written) => self.level(name("level"), written),
            None => LEVEL.to_owned(),
        };
        let format = self.word(
            name("format"),
            file.format.as_ref(),
            Format::Auto,
            &[
                ("auto", Format::Auto),
                ("human", Format::Human),
                ("journal", Format::Journal),
                ("json", Format::Json),
            ],
        );
        Options { level, format }
    }

    /// A level, or several as `module=level`, separated by commas.
    fn level(&mut self, name: Name, written: &Written<String>) -> String {
        let mut start = 0;
        for directive in written.value.split(',') {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            let end = start + directive.len();
            if !LEVELS.contains(&level.trim()) {
                let at = written.part(end - level.len()..end);
                let problem = Problem::new(at, "not a level of the log", "not a level")
                    .why("the levels are off, error, warn, info, debug and trace; more than info also names keys");
                self.problems.add(match words::nearest(level.trim(), LEVELS) {
                    Some(word) => problem.instead(format!("did you mean \"{word}\"?")),
                    None => {
                        problem.instead("write \"info\", or a level for one part: \"info,keyrelay::upstream=debug\"")
                    }
                });
                return LEVEL.to_owned();
            }
            start = end + 1;
        }
        if let Err(error) = logging::filter(&written.value) {
            self.problems.add(
                Problem::new(written.at, "not a filter of the log", error.to_string())
                    .why("a filter is a level, or several as `module=level`, separated by commas")
                    .instead("write \"info\", or a level for one part: \"info,keyrelay::upstream=debug\""),
            );
            return LEVEL.to_owned();
        }
        if written.value != LEVEL {
            self.note(name, written, format!("\"{}\"", written.value));
        }
        written.value.clone()
    }
}
