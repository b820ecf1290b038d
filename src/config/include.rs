//! `include`: the files that a config is made of.

use std::fs;
use std::path::{Path, PathBuf};

use super::compile::Compiler;
use super::diagnostics::{At, Problem, Source, reason, unreadable};
use super::file::{self, File};
use super::reader::{List, Written};
use super::words::Section;

impl Compiler<'_> {
    /// Reads the files that `list` names and those that they include, in their order, and adds their mappings.
    /// `above` are the files that led here.
    pub(crate) fn include(
        &mut self,
        list: &List,
        above: &mut Vec<PathBuf>,
        seen: &mut Vec<(PathBuf, At)>,
        into: &mut File,
    ) {
        for written in &list.value {
            for path in self.matching(written) {
                self.include_file(&path, written, above, seen, into);
            }
        }
    }

    fn include_file(
        &mut self,
        path: &Path,
        written: &Written<String>,
        above: &mut Vec<PathBuf>,
        seen: &mut Vec<(PathBuf, At)>,
        into: &mut File,
    ) {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let shown = path.to_string_lossy();
                let problem = unreadable("include", written.at, &written.value, &error);
                self.problems.add(if shown == written.value {
                    problem
                } else {
                    problem.why(format!("the file is {shown}"))
                });
                return;
            }
        };
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if above.contains(&real) {
            self.problems.add(
                Problem::new(
                    written.at,
                    "a file includes itself",
                    "leads back to a file that leads here",
                )
                .why(format!("{} would be read without an end", path.display()))
                .instead("take it out of this list"),
            );
            return;
        }
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == real) {
            self.problems.add(
                Problem::new(
                    written.at,
                    format!("{} is included twice", path.display()),
                    "again here",
                )
                .and(*first, "first here")
                .why("each of its mappings would count twice")
                .instead("leave one out, or narrow the pattern"),
            );
            return;
        }
        seen.push((real.clone(), written.at));
        let source = self.problems.sources.len();
        self.problems.sources.push(Source::new(path.to_path_buf(), text));
        let Some(file) = file::parse(source, self.environment, self.problems) else {
            return;
        };
        for (section, at) in &file.sections {
            if !matches!(section, Section::Top | Section::Mapping) {
                self.problems.add(
                    Problem::new(
                        *at,
                        format!("{} in an included file", section.title()),
                        "belongs in the main file",
                    )
                    .why("an included file holds mappings only, so that the rest stands in one place")
                    .instead("move it to the file that is given on the command line"),
                );
            }
        }
        into.mappings.extend(file.mappings);
        if let Some(list) = &file.include {
            above.push(real);
            self.include(list, above, seen, into);
            above.pop();
        }
    }

    /// The files that a pattern names, sorted. A name without wildcards is itself, whether it is there or not.
    fn matching(&mut self, written: &Written<String>) -> Vec<PathBuf> {
        let path = self.file(written.at, &written.value);
        let is_pattern = |text: &str| text.contains(['*', '?']);
        if !is_pattern(&written.value) {
            return vec![path];
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return vec![path];
        };
        if is_pattern(&folder.to_string_lossy()) {
            self.problems.add(
                Problem::new(
                    written.at,
                    "a wildcard in the name of a folder",
                    "only the last part may hold `*` or `?`",
                )
                .why("which files are read should be seen at a glance")
                .instead("name each folder, e.g. include = [\"shop/*.toml\", \"chat/*.toml\"]"),
            );
            return Vec::new();
        }
        let searched = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        // A file may come to be there.
        self.problems.others.push(searched.to_path_buf());
        let entries = match fs::read_dir(searched) {
            Ok(entries) => entries,
            Err(error) => {
                let label = format!("the folder: {}", reason(&error));
                self.problems.add(
                    Problem::new(written.at, "the folder of `include` cannot be read", label)
                        .instead("check the path: it is relative to the folder of the file that names it"),
                );
                return Vec::new();
            }
        };
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // As in a shell, what editors and package managers hide is not meant.
            .filter(|file| !file.starts_with('.') && wildcard(name.as_bytes(), file.as_bytes()))
            .map(|file| folder.join(file))
            .collect();
        found.sort();
        found
    }
}

/// Whether a file's name fits a pattern of `*` and `?`.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => wildcard(rest, name) || (!name.is_empty() && wildcard(pattern, &name[1..])),
        (Some((b'?', pattern)), Some((_, name))) => wildcard(pattern, name),
        (Some((a, pattern)), Some((b, name))) => a == b && wildcard(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::wildcard;

    #[test]
    fn wildcards() {
        for (pattern, name, fits) in [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml~", false),
            ("a?c*", "abc", true),
            ("a?c*", "ac", false),
            ("**", "", true),
            ("?", "", false),
        ] {
            assert_eq!(wildcard(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}
