//! The log on standard error: for people on a terminal, for the journal, as JSON lines for other machines.

mod line;

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

use line::Lines;

/// Libraries that write what clients send, tokens among it, into their finest log; nothing of them is ever logged.
const INDISCREET: [&str; 2] = ["tungstenite", "h2"];

/// The filter of the process.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A level (`info`), or levels of single modules too (`info,keyrelay::upstream=debug`).
    pub level: String,
    /// The form of the lines.
    pub format: Format,
}

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Human` if standard error is a terminal, `Journal` if the journal reads it, else `Json`.
    Auto,
    /// A line of text for each event.
    Human,
    /// The same for systemd's journal, which has times of its own: without one, and with a priority before it, so that
    /// `journalctl --priority` finds it (sd-daemon(3)).
    Journal,
    /// A JSON object on a line for each event.
    Json,
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is none.
    #[error("the level of the log is not understood: {0}")]
    Level(#[from] ParseError),
    /// The process logs already.
    #[error("logging was started before")]
    Again(#[from] TryInitError),
}

/// The filter that a level, or levels of single modules, stands for.
///
/// # Errors
/// If it is none.
pub fn filter(level: &str) -> Result<Targets, ParseError> {
    level.parse()
}

/// Sets what is logged from now on.
///
/// # Errors
/// If the level is no filter. Before [`start`] it does nothing.
pub fn set_level(level: &str) -> Result<(), ParseError> {
    let filter = discreet(&filter(level)?);
    if let Some(handle) = FILTER.get() {
        // It fails only where the subscriber is gone, which it never is.
        let _ = handle.reload(filter);
    }
    Ok(())
}

/// Colours are for people: not for files and pipes, nor for those who asked for none (no-color.org).
pub fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The filter without what is never logged.
fn discreet(filter: &Targets) -> Targets {
    let discreet = INDISCREET.map(|library| (library, LevelFilter::OFF));
    // The more precise target of a filter counts, so what names a module of theirs must go.
    filter
        .iter()
        .filter(|(target, _)| !INDISCREET.iter().any(|library| target.starts_with(library)))
        .map(|(target, level)| (target.to_owned(), level))
        .chain(discreet.map(|(library, level)| (library.to_owned(), level)))
        .collect::<Targets>()
        .with_default(filter.default_level().unwrap_or(LevelFilter::OFF))
}

/// Starts logging for the whole process.
///
/// # Errors
/// If `options.level` is not a filter, or if it was called before.
pub fn start(options: &Options) -> Result<(), LoggingError> {
    let (filter, handle) = reload::Layer::new(discreet(&filter(&options.level)?));
    let terminal = io::stderr().is_terminal();
    let format = match options.format {
        Format::Auto if terminal => Format::Human,
        Format::Auto if line::is_read_by_the_journal() => Format::Journal,
        Format::Auto => Format::Json,
        format => format,
    };
    let layer = fmt::layer();
    let layer = match format {
        Format::Human | Format::Auto => {
            let lines = if terminal { Lines::AsTheyAre } else { Lines::Folded };
            layer.with_ansi(colours()).with_writer(lines).boxed()
        }
        Format::Journal => {
            let lines = layer.with_ansi(false).without_time();
            lines.with_writer(Lines::WithPriority).boxed()
        }
        // One flat object a line is what log collectors index without being told how.
        Format::Json => layer
            .with_writer(io::stderr)
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()?;
    // Nobody has set it before: only one start succeeds.
    let _ = FILTER.set(handle);
    Ok(())
}
