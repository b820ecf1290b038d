//! The log on standard error: for people on a terminal, as JSON lines for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

/// Libraries that write what clients send, tokens among it, into their finest log; nothing of them is ever logged.
const INDISCREET: [&str; 2] = ["tungstenite", "h2"];

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
    /// `Human` if standard error is a terminal, else `Json`.
    Auto,
    /// A line of text for each event.
    Human,
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

/// Starts logging for the whole process.
///
/// # Errors
/// If `options.level` is not a filter, or if it was called before.
pub fn start(options: &Options) -> Result<(), LoggingError> {
    let filter = filter(&options.level)?;
    let discreet = INDISCREET.map(|library| (library, LevelFilter::OFF));
    // The more precise target of a filter counts, so what names a module of theirs must go.
    let filter: Targets = filter
        .iter()
        .filter(|(target, _)| !INDISCREET.iter().any(|library| target.starts_with(library)))
        .map(|(target, level)| (target.to_owned(), level))
        .chain(discreet.map(|(library, level)| (library.to_owned(), level)))
        .collect::<Targets>()
        .with_default(filter.default_level().unwrap_or(LevelFilter::OFF));
    let terminal = io::stderr().is_terminal();
    let human = match options.format {
        Format::Auto => terminal,
        Format::Human => true,
        Format::Json => false,
    };
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = if human {
        layer.with_ansi(terminal).boxed()
    } else {
        // One flat object a line is what log collectors index without being told how.
        layer
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()?;
    Ok(())
}
