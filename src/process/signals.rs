//! SIGTERM, SIGINT and SIGHUP, as events of the runtime.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: a supervisor.
    Terminate,
}

impl Signal {
    /// What a process that this signal ended exits with by custom: 128 and the signal's number.
    pub fn exit_code(self) -> u8 {
        let number = match self {
            Signal::Interrupt => SIGINT,
            Signal::Terminate => SIGTERM,
        };
        128 + number as u8
    }
}

/// Catches the signals from its making to the end of the process; they no longer end it by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: UnixStream,
    terminate: UnixStream,
}

impl Signals {
    /// Begins to catch; needs a runtime with I/O.
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: register(SIGINT)?,
            terminate: register(SIGTERM)?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        // A handler writes one byte for each signal. The other end lives in the handler, so that the pipe never ends.
        let (mut a, mut b) = ([0], [0]);
        tokio::select! {
            _ = self.interrupt.read_exact(&mut a) => Signal::Interrupt,
            _ = self.terminate.read_exact(&mut b) => Signal::Terminate,
        }
    }

    /// Cancels `drain` at the first signal and returns at the second, which means: end at once.
    pub async fn follow(mut self, drain: CancellationToken) -> Signal {
        let signal = self.next().await;
        tracing::info!(?signal, "draining; a second signal ends at once");
        drain.cancel();
        self.next().await
    }
}

/// Catches SIGHUP, by which a daemon is told to read its files again; it no longer ends the process.
#[derive(Debug)]
pub struct Hangups {
    hangup: UnixStream,
}

impl Hangups {
    /// Begins to catch; needs a runtime with I/O.
    pub fn catch() -> io::Result<Hangups> {
        Ok(Hangups {
            hangup: register(SIGHUP)?,
        })
    }

    /// Tells whoever listens to `reload` of each signal, of several in a row perhaps once. Never returns.
    pub async fn follow(mut self, reload: watch::Sender<()>) {
        let mut byte = [0];
        while self.hangup.read_exact(&mut byte).await.is_ok() {
            reload.send_replace(());
        }
        // The other end lives in the handler: it does not come to this.
        std::future::pending().await
    }
}

fn register(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = StdStream::pair()?;
    read.set_nonblocking(true)?;
    pipe::register(signal, write)?;
    UnixStream::from_std(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_drains_and_the_second_ends() {
        let signals = Signals::catch().unwrap();
        let drain = CancellationToken::new();
        let raise = async {
            signal_hook::low_level::raise(SIGTERM).unwrap();
            drain.cancelled().await;
            signal_hook::low_level::raise(SIGINT).unwrap();
        };
        let (last, ()) = tokio::join!(signals.follow(drain.clone()), raise);
        assert_eq!(last, Signal::Interrupt);
        assert_eq!(last.exit_code(), 130);
        assert_eq!(Signal::Terminate.exit_code(), 143);
    }

    #[tokio::test]
    async fn a_hangup_ends_nothing_and_is_told() {
        let (sender, mut told) = watch::channel(());
        let following = Hangups::catch().unwrap().follow(sender);
        let raise = async {
            for _ in 0..2 {
                signal_hook::low_level::raise(SIGHUP).unwrap();
                told.changed().await.unwrap();
            }
        };
        tokio::select! {
            () = following => {}
            () = raise => {}
        }
    }
}
