//! What systemd and a service tell each other: the protocols of `sd_notify(3)`, `sd_watchdog_enabled(3)` and
//! `sd_listen_fds(3)`.
//!
//! * `notify`: the service says how it stands
//! * `watchdog`: the service shows that it has not hung
//! * `sockets`: systemd hands over sockets that are listened at

use std::sync::Arc;

mod notify;
mod sockets;
mod watchdog;

pub use notify::{Notifier, State};
pub use sockets::{HandOverError, Handed};
pub use watchdog::{Verdict, Watchdog};

/// What a service manager wants to know of this process, and what it gave to it.
#[derive(Debug)]
pub struct Manager {
    /// Tells it how the process stands.
    pub notifier: Arc<Notifier>,
    /// What it wants to be shown again and again, if it does.
    pub watchdog: Option<Watchdog>,
    /// The sockets that it hands over.
    pub sockets: Result<Vec<Handed>, HandOverError>,
}

impl Manager {
    /// There is none.
    pub fn none() -> Manager {
        Manager {
            notifier: Arc::default(),
            watchdog: None,
            sockets: Ok(Vec::new()),
        }
    }

    /// The one that the environment tells of. To be called once, and before the process has further threads.
    pub fn of_environment() -> Manager {
        let own = std::process::id();
        let variable = |name| std::env::var(name).ok();
        let socket = std::env::var_os("NOTIFY_SOCKET");
        let notifier = Notifier::new(socket.as_deref()).unwrap_or_else(|error| {
            let socket = socket.unwrap_or_default();
            tracing::warn!(%error, socket = %socket.display(), "the service manager cannot be told how it stands: NOTIFY_SOCKET is of no use");
            Notifier::default()
        });
        let (usec, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        Manager {
            notifier: Arc::new(notifier),
            watchdog: Watchdog::new(usec.as_deref(), pid.as_deref(), own),
            sockets: sockets::handed_over(own),
        }
    }
}
