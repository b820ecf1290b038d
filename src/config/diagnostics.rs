//! What is wrong with a config: every problem with its place, its reason and what to write instead.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::hidden::hide_secrets;

/// A stretch of one of the files that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// Position of the file in [`Problems`].
    pub(crate) source: usize,
    /// First byte.
    pub(crate) start: usize,
    /// First byte behind it.
    pub(crate) end: usize,
}

impl At {
    pub(crate) fn new(source: usize, span: Range<usize>) -> At {
        At {
            source,
            start: span.start,
            end: span.end,
        }
    }
}

/// A file as it was read, be it a config or a template.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// As named on the command line or in the config, relative paths being relative to where keyrelay was started.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: Arc<str>,
    /// Where its newlines are, in their order.
    newlines: Vec<usize>,
}

impl Source {
    pub(crate) fn new(path: PathBuf, text: String) -> Source {
        let newlines = memchr::memchr_iter(b'\n', text.as_bytes()).collect();
        Source {
            path,
            text: text.into(),
            newlines,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    title: String,
    /// The place it is about, and further places that explain it; empty when no file is concerned.
    labels: Vec<(At, String)>,
    /// What a problem outside of every file is about, e.g. the name of a variable.
    elsewhere: Option<String>,
    why: Vec<String>,
    instead: Vec<String>,
}

impl Problem {
    /// A problem at a place; `label` stands under the caret.
    pub(crate) fn new(at: At, title: impl Into<String>, label: impl Into<String>) -> Problem {
        Problem {
            title: title.into(),
            labels: vec![(at, label.into())],
            elsewhere: None,
            why: Vec::new(),
            instead: Vec::new(),
        }
    }

    /// A problem that no line of a file shows.
    pub(crate) fn elsewhere(place: impl Into<String>, title: impl Into<String>) -> Problem {
        Problem {
            title: title.into(),
            labels: Vec::new(),
            elsewhere: Some(place.into()),
            why: Vec::new(),
            instead: Vec::new(),
        }
    }

    /// Points to a further place.
    pub(crate) fn and(mut self, at: At, label: impl Into<String>) -> Problem {
        self.labels.push((at, label.into()));
        self
    }

    /// Says why it is refused.
    pub(crate) fn why(mut self, text: impl Into<String>) -> Problem {
        self.why.push(text.into());
        self
    }

    /// Says what to write instead.
    pub(crate) fn instead(mut self, text: impl Into<String>) -> Problem {
        self.instead.push(text.into());
        self
    }

    fn order(&self) -> (usize, usize) {
        self.labels
            .first()
            .map_or((usize::MAX, 0), |(at, _)| (at.source, at.start))
    }
}

/// All that is wrong with a config, with the files it is about.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    pub(crate) sources: Vec<Source>,
    /// Other paths that the config names, and folders in which files were looked for.
    pub(crate) others: Vec<PathBuf>,
    list: Vec<Problem>,
}

impl Problems {
    pub(crate) fn add(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// Forgets all that is wrong so far.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Whether a problem is about just this place.
    pub(crate) fn concern(&self, at: At) -> bool {
        let about = |problem: &Problem| problem.labels.first().is_some_and(|(place, _)| *place == at);
        self.list.iter().any(about)
    }

    pub(crate) fn contains(&self, problem: &Problem) -> bool {
        self.list.contains(problem)
    }

    /// The line that a place begins in, the first being 1.
    pub(crate) fn line(&self, at: At) -> usize {
        1 + self.sources[at.source]
            .newlines
            .partition_point(|newline| *newline < at.start)
    }

    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems in the order of the files, as a compiler would show them, with a last line that counts them.
    /// The files that it depends on, and the folders in which files are looked for.
    pub fn files(&self) -> Vec<PathBuf> {
        let sources = self.sources.iter().map(|source| source.path.clone());
        let mut files: Vec<PathBuf> = sources.chain(self.others.iter().cloned()).collect();
        files.sort();
        files.dedup();
        files
    }

    /// `path` is the file that was asked for; secrets in the lines shown are hidden.
    pub fn render(&self, path: &Path, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in self.rendered(&renderer) {
            out.push_str(&problem);
            out.push_str("\n\n");
        }
        let problems = if self.list.len() == 1 { "problem" } else { "problems" };
        out.push_str(&format!("{}: {} {problems}\n", path.display(), self.list.len()));
        out
    }

    /// Each problem by itself, in the order of the files; secrets in the lines shown are hidden.
    pub fn each(&self) -> Vec<String> {
        self.rendered(&Renderer::plain())
    }

    fn rendered(&self, renderer: &Renderer) -> Vec<String> {
        let texts: Vec<String> = self.sources.iter().map(|source| hide_secrets(&source.text)).collect();
        let mut list: Vec<&Problem> = self.list.iter().collect();
        list.sort_by_key(|problem| problem.order());
        let render = |problem| renderer.render(&[self.group(problem, &texts)]);
        list.into_iter().map(render).collect()
    }

    fn group<'a>(&'a self, problem: &'a Problem, texts: &'a [String]) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(problem.title.as_str()));
        let mut sources: Vec<usize> = Vec::new();
        for (at, _) in &problem.labels {
            if !sources.contains(&at.source) {
                sources.push(at.source);
            }
        }
        for source in sources {
            let mut snippet = Snippet::source(texts[source].as_str()).path(self.sources[source].path.to_string_lossy());
            for (position, (at, label)) in problem.labels.iter().enumerate() {
                if at.source == source {
                    let kind = if position == 0 {
                        AnnotationKind::Primary
                    } else {
                        AnnotationKind::Context
                    };
                    let span = visible(&texts[source], at.start..at.end);
                    snippet = snippet.annotation(kind.span(span).label(label.as_str()));
                }
            }
            group = group.element(snippet);
        }
        if let Some(place) = &problem.elsewhere {
            group = group.element(Origin::path(Cow::Borrowed(place.as_str())));
        }
        group = group.elements(problem.why.iter().map(|text| Level::NOTE.message(text.as_str())));
        group.elements(problem.instead.iter().map(|text| Level::HELP.message(text.as_str())))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.sources.first().map_or(Path::new("config"), |source| &source.path);
        f.write_str(&self.render(path, false))
    }
}

impl std::error::Error for Problems {}

/// A file that an option names and that cannot be read.
pub(crate) fn unreadable(option: &str, at: At, path: &str, error: &io::Error) -> Problem {
    let problem = Problem::new(at, format!("the file of `{option}` cannot be read"), reason(error));
    if Path::new(path).is_absolute() {
        problem.instead("check the path, and that keyrelay's user may read the file")
    } else {
        problem.instead("check the path: it is relative to the folder of the file that names it")
    }
}

/// The reason in words that do not differ between systems.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::IsADirectory => "this is a folder".into(),
        io::ErrorKind::InvalidData => "the file is not UTF-8 text".into(),
        _ => error.to_string(),
    }
}

/// The part of a span that fits on a screen: of a value over several lines, the first one. A place that is not between
/// two characters of the text would be a mistake of ours, and is moved rather than believed.
fn visible(text: &str, span: Range<usize>) -> Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (boundary(span.start), boundary(span.end));
    if start >= end {
        return start..start;
    }
    match text[start..end].find('\n') {
        Some(0) | None => start..end,
        Some(line) => start..start + line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stand_in_the_order_of_the_file() {
        let mut problems = Problems::default();
        problems
            .sources
            .push(Source::new("a.toml".into(), "one = 1\ntwo = 2\n".into()));
        problems.add(Problem::new(At::new(0, 8..11), "second", "here"));
        problems.add(
            Problem::new(At::new(0, 0..3), "first", "here")
                .why("because")
                .instead("write it so"),
        );
        let text = problems.render(Path::new("a.toml"), false);
        assert!(text.find("first") < text.find("second"), "{text}");
        assert!(text.ends_with("a.toml: 2 problems\n"), "{text}");
    }
}
