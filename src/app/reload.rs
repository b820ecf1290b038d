//! Reads the config again while the relay runs.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::tally::Reloads;

/// Reads the config, or says what is wrong with it, problem by problem.
pub type Load = dyn Fn() -> Result<Config, Vec<String>> + Send + Sync;

/// Hears how reloads go, in order.
pub type Told = dyn Fn(Progress) + Send + Sync;

/// How a relay comes to another config while it runs: at SIGHUP, and whenever `asked` is told so.
pub struct Reload {
    /// Reads the config again; called on a thread that may block.
    pub load: Arc<Load>,
    /// Whoever sends here has the config read again. Of several askings in a row the last one counts.
    pub asked: watch::Sender<()>,
    /// Is told when a reload begins and when it has ended, applied or refused; called on the main thread.
    pub told: Box<Told>,
    /// How reloads ended.
    pub counts: Arc<Reloads>,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The config is about to be read.
    Begun,
    /// What could be applied holds; or nothing, if it was refused.
    Ended,
}

impl Reload {
    /// Reads the config with `load`; nobody is told.
    pub fn new(load: impl Fn() -> Result<Config, Vec<String>> + Send + Sync + 'static) -> Reload {
        Reload {
            load: Arc::new(load),
            asked: watch::Sender::new(()),
            told: Box::new(|_| {}),
            counts: Arc::default(),
        }
    }

    /// Reads the config whenever that is asked for, one time after the other. `files`: told each time, before the config
    /// is read. Never returns.
    pub(super) async fn follow(&self, files: watch::Sender<()>) {
        let mut asked = self.asked.subscribe();
        while asked.changed().await.is_ok() {
            (self.told)(Progress::Begun);
            files.send_replace(());
            self.again().await;
            (self.told)(Progress::Ended);
        }
        // Its sender lives in `self`.
        pending().await
    }

    async fn again(&self) {
        let load = self.load.clone();
        match spawn_blocking(move || load()).await {
            Ok(Ok(_config)) => {
                self.counts.applied.fetch_add(1, Ordering::Relaxed);
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.counts.last.store(since.as_millis() as u64, Ordering::Relaxed);
            }
            Ok(Err(problems)) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                for problem in &problems {
                    tracing::error!("{problem}");
                }
                tracing::error!(
                    problems = problems.len(),
                    "config refused: the one before goes on; put it right and reload again"
                );
            }
            Err(error) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "config not read: the one before goes on");
            }
        }
    }
}
