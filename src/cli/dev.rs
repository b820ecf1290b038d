//! What `run --dev` adds to a config.

use std::path::PathBuf;
use std::thread;

use anyhow::Context;
use tokio::select;
use tokio::sync::watch;

use crate::config::Config;
use crate::process::watch::Watch;
use crate::server::Address;

/// Where development servers serve their pages from, at whatever port they found free.
const ORIGINS: [&str; 6] = [
    "http://localhost:*",
    "https://localhost:*",
    "http://127.0.0.1:*",
    "https://127.0.0.1:*",
    "http://[::1]:*",
    "https://[::1]:*",
];

/// What logs each delivery.
const DELIVERIES: &str = ",keyrelay::delivery=debug";

/// Changes a config for development.
pub(super) fn apply(config: &mut Config) {
    let origins = ORIGINS.iter().map(|origin| (*origin).to_owned());
    config.server.origins.extend(origins);
    config.log.level.push_str(DELIVERIES);
}

/// Says in the log that this is no way to run for others.
pub(super) fn warn(config: &Config) {
    tracing::warn!("for development only: pages of every port of localhost may connect, and the log names keys");
    let exposed = config.server.listen.iter().filter_map(|address| match address {
        Address::Tcp(address) if !address.ip().is_loopback() => Some(address),
        Address::Tcp(_) | Address::Unix(_) => None,
    });
    for address in exposed {
        tracing::warn!(
            %address,
            "others than this machine may reach the development relay: listen at 127.0.0.1, unless this is a container whose \
             port is published to this machine alone"
        );
    }
}

/// Has `asked` told whenever one of the files was saved, on a thread of its own; of other files once they are sent.
pub(super) fn follow(mut files: watch::Receiver<Vec<PathBuf>>, asked: watch::Sender<()>) -> anyhow::Result<()> {
    let mut watch = Watch::new(files.borrow_and_update().clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let following = async move {
        loop {
            select! {
                () = watch.changed() => {
                    asked.send_replace(());
                }
                sent = files.changed() => match sent {
                    Ok(()) => watch.follow(files.borrow_and_update().clone()),
                    // The relay has ended.
                    Err(_) => return,
                },
            }
        }
    };
    thread::Builder::new()
        .name("watch".into())
        .spawn(move || runtime.block_on(following))
        .context("cannot start the thread that follows the config")?;
    Ok(())
}
