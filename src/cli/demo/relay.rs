//! The relay of one region: this program, started once more.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// Longer than the relay's own drain (`drain` of [server], 4 s unless set).
const PATIENCE: Duration = Duration::from_secs(6);

/// A running relay; it is killed when this is dropped.
pub struct Relay {
    child: Child,
    /// What it prints. Their end is its end.
    lines: Lines<BufReader<pipe::Receiver>>,
    /// Where clients connect, e.g. `http://127.0.0.1:7400`.
    pub address: String,
    /// Where operators ask.
    pub admin: String,
}

impl Relay {
    /// Starts it with this config, whose variables have these values, and waits until it listens.
    pub async fn start<const N: usize>(config: &Path, variables: [(&str, String); N]) -> anyhow::Result<Relay> {
        let mut child = Command::new(std::env::current_exe().context("cannot find the program itself")?)
            .arg("run")
            .arg(config)
            .envs(variables)
            // A group of its own: Ctrl-C is for the demo, which ends the relays in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a relay")?;
        let stdout = child
            .stdout
            .take()
            .map(OwnedFd::from)
            .context("a relay has no output")?;
        let lines = BufReader::new(pipe::Receiver::from_owned_fd(stdout)?).lines();
        let mut relay = Relay {
            child,
            lines,
            address: String::new(),
            admin: String::new(),
        };
        while let Some(line) = relay.lines.next_line().await? {
            match line.split_once(' ') {
                Some(("admin", address)) => relay.admin = address.to_owned(),
                Some(("listening", address)) => {
                    relay.address = address.to_owned();
                    return Ok(relay);
                }
                _ => {}
            }
        }
        // It has said why.
        bail!("a relay ended at once: {}", relay.child.wait()?)
    }

    /// Waits until it has ended, which it should not by itself.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        while self.lines.next_line().await?.is_some() {}
        self.child.wait()
    }

    /// Lets it drain, and waits until it has ended.
    pub async fn end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            // Its number may be another process's by now.
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        // Whatever it did not manage by then ends with it.
        let _ = timeout(PATIENCE, self.ended()).await;
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
