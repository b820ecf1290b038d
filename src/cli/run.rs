//! `keyrelay run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::sync::watch;

use super::dev;
use crate::app::{self, reload::Progress, reload::Reload};
use crate::config::{self, Config};
use crate::process::logging;
use crate::process::signals::Signal;
use crate::process::systemd::{Manager, State};

pub(super) const EXAMPLES: &str = "\
Examples:
  keyrelay run keyrelay.toml
  keyrelay run --dev

Exit codes:
  0    it was drained after a signal
  1    it could not start, or a part of it broke down; why is on standard error
  78   the config cannot be used
  130, 143  a second signal (SIGINT, SIGTERM) cut the drain short";

/// Runs what the config says until drained.
pub(super) fn run(named: Option<PathBuf>, dev: bool) -> anyhow::Result<ExitCode> {
    let (path, mut config) = match super::load(named) {
        Ok(loaded) => loaded,
        Err(code) => {
            let status = State::Status("the config cannot be used; what is wrong with it is in the log");
            Manager::of_environment().notifier.tell(&[status]);
            return Ok(code);
        }
    };
    if dev {
        dev::apply(&mut config);
    }
    logging::start(&config.log)?;
    let manager = Manager::of_environment();
    tracing::info!(file = %path.display(), mappings = config.mappings.len(), "config");
    tell_origins(&config);
    tell_warnings(&config);
    if dev {
        dev::warn(&config);
    }
    let mut reload = reload(path, dev, config.files.clone())?;
    let notifier = manager.notifier.clone();
    reload.told = Box::new(move |progress| {
        notifier.tell(&[match progress {
            Progress::Begun => State::Reloading,
            Progress::Ended => State::Ready,
        }]);
    });
    Ok(match app::run(config, manager, reload) {
        Ok(cut_short) => ended(cut_short),
        Err(error) => {
            // Into the log, where whoever looks for the reason looks first.
            let error = format!("{error:#}");
            tracing::error!(%error, "the relay ends: it cannot go on");
            ExitCode::FAILURE
        }
    })
}

/// How the config is read again; under `--dev` also when one of its files is saved.
fn reload(path: PathBuf, dev: bool, files: Vec<PathBuf>) -> anyhow::Result<Reload> {
    if !dev {
        return Ok(Reload::new(move || again(&path).map_err(|(problems, _)| problems)));
    }
    let (followed, files) = watch::channel(files);
    let reload = Reload::new(move || {
        let (loaded, files) = match again(&path) {
            Ok(mut config) => {
                dev::apply(&mut config);
                let files = config.files.clone();
                (Ok(config), files)
            }
            Err((problems, files)) => (Err(problems), files),
        };
        followed.send_replace(files);
        loaded
    });
    dev::follow(files, reload.asked.clone())?;
    Ok(reload)
}

/// Reads the config again; or gives what is wrong with it, and the files that this hangs on.
fn again(path: &Path) -> Result<Config, (Vec<String>, Vec<PathBuf>)> {
    let config = config::load(path, &|name| std::env::var(name).ok());
    let config = config.map_err(|problems| (problems.each(), problems.files()))?;
    tell_warnings(&config);
    Ok(config)
}

/// The exit code of a relay that was drained, or cut short by a second signal.
pub(super) fn ended(cut_short: Option<Signal>) -> ExitCode {
    cut_short.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code()))
}

fn tell_warnings(config: &Config) {
    if config.mappings.is_empty() {
        let warning =
            "no mapping: nothing is open to anyone; write a [[mapping]] with its `key` and `access` into the config";
        tracing::warn!(warning, "config");
    }
    for warning in super::warnings(config) {
        tracing::warn!(%warning, "config warning");
    }
    if let Some(note) = super::open_to_others(config) {
        tracing::info!(%note, "config note");
    }
}

fn tell_origins(config: &Config) {
    for origin in &config.origin {
        tracing::info!(option = origin.option, value = origin.value, from = %origin.from, "config value");
    }
    tracing::info!("options that are not named have their defaults");
}
