//! One line for each event, where machines read them: an error may tell over several what to run.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether standard error leads to systemd's journal: it says which device and inode it has given us for that (systemd.exec(5),
/// `$JOURNAL_STREAM`), which standard error no longer is where somebody has redirected it.
pub fn is_read_by_the_journal() -> bool {
    let Some(told) = std::env::var("JOURNAL_STREAM").ok() else {
        return false;
    };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else {
        return false;
    };
    let metadata = File::from(stderr).metadata();
    metadata.is_ok_and(|metadata| told == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Writes events to standard error.
#[derive(Clone, Copy, Debug)]
pub enum Lines {
    /// As they are: a person sees where an event begins.
    AsTheyAre,
    /// Each on one line.
    Folded,
    /// Each on one line, behind its priority (`<4>`).
    WithPriority,
}

/// Writes one event.
#[derive(Debug)]
pub struct Line {
    /// What stands before it; nothing folds it if `None`.
    prefix: Option<&'static str>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        let prefix = match self {
            Lines::AsTheyAre => None,
            Lines::Folded | Lines::WithPriority => Some(""),
        };
        Line { prefix }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        match self {
            Lines::AsTheyAre | Lines::Folded => self.make_writer(),
            Lines::WithPriority => Line {
                prefix: Some(priority(metadata.level())),
            },
        }
    }
}

impl Write for Line {
    /// Takes an event as a whole, as the formatter gives it: so lines of several threads stay apart.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match self.prefix {
            None => io::stderr().write_all(text)?,
            Some(prefix) => io::stderr().write_all(&fold(prefix, text))?,
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// One line of several, what indents them being left out.
fn fold(prefix: &str, text: &[u8]) -> Vec<u8> {
    let mut line = prefix.as_bytes().to_vec();
    let parts = text.split(|byte| matches!(byte, b'\n' | b'\r'));
    for (at, part) in parts
        .map(<[u8]>::trim_ascii_end)
        .filter(|part| !part.is_empty())
        .enumerate()
    {
        match at {
            0 => line.extend_from_slice(part),
            _ => {
                line.push(b' ');
                line.extend_from_slice(part.trim_ascii_start());
            }
        }
    }
    line.push(b'\n');
    line
}

/// The priorities of syslog(3).
fn priority(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_become_one() {
        for (text, line) in [
            ("one\n", "<4>one\n"),
            ("  INFO one\n", "<4>  INFO one\n"),
            (
                "is off. Run\n\n    redis-cli CONFIG SET\n\nas a user\r\n",
                "<4>is off. Run redis-cli CONFIG SET as a user\n",
            ),
            ("", "<4>\n"),
        ] {
            assert_eq!(String::from_utf8(fold("<4>", text.as_bytes())).unwrap(), line);
        }
    }
}
