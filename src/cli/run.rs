//! `keyrelay run`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{self, reload::Progress, reload::Reload};
use crate::config::{self, Config};
use crate::process::logging;
use crate::process::signals::Signal;
use crate::process::systemd::{Manager, State};

pub(super) const EXAMPLES: &str = "\
Example:
  keyrelay run keyrelay.toml

Exit codes:
  0    it was drained after a signal
  1    it could not start, or a part of it broke down; why is on standard error
  78   the config cannot be used
  130, 143  a second signal (SIGINT, SIGTERM) cut the drain short";

/// Runs what the config says until drained.
pub(super) fn run(named: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (path, config) = match super::load(named) {
        Ok(loaded) => loaded,
        Err(code) => {
            let status = State::Status("the config cannot be used; what is wrong with it is in the log");
            Manager::of_environment().notifier.tell(&[status]);
            return Ok(code);
        }
    };
    logging::start(&config.log)?;
    let manager = Manager::of_environment();
    tracing::info!(file = %path.display(), mappings = config.mappings.len(), "config");
    tell_origins(&config);
    tell_warnings(&config);
    let mut reload = Reload::new(move || {
        let environment = |name: &str| std::env::var(name).ok();
        let config = config::load(&path, &environment).map_err(|problems| problems.each())?;
        tell_warnings(&config);
        Ok(config)
    });
    let notifier = manager.notifier.clone();
    reload.told = Box::new(move |progress| {
        notifier.tell(&[match progress {
            Progress::Begun => State::Reloading,
            Progress::Ended => State::Ready,
        }]);
    });
    Ok(match app::run(config, manager, Some(reload), || {}) {
        Ok(cut_short) => ended(cut_short),
        Err(error) => {
            // Into the log, where whoever looks for the reason looks first.
            let error = format!("{error:#}");
            tracing::error!(error, "the relay ends: it cannot go on");
            ExitCode::FAILURE
        }
    })
}

/// The exit code of a relay that was drained, or cut short by a second signal.
pub(super) fn ended(cut_short: Option<Signal>) -> ExitCode {
    cut_short.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code()))
}

fn tell_warnings(config: &Config) {
    for warning in super::warnings(config) {
        tracing::warn!(warning, "config");
    }
}

fn tell_origins(config: &Config) {
    for origin in &config.origin {
        tracing::info!(option = origin.option, value = origin.value, from = %origin.from, "config value");
    }
    tracing::info!("options that are not named have their defaults");
}
