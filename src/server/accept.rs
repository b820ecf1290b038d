//! Takes connections from a listener and deals them out to the threads.

use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::listen::{Accepted, Listener};

/// Most connections taken before other work gets a turn: about a millisecond's worth.
const TURN: usize = 64;

/// Pause when all threads are busy, and the first one when the process or the machine has no room for another connection;
/// that one doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause: a descriptor that becomes free is used within a second.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until told to stop; then the listener is closed, and what was accepted is still dealt out. `admit` makes of a
/// connection what the threads take, or lets it go.
pub async fn accept<T>(
    listener: Listener,
    admit: impl Fn(Accepted) -> Option<T>,
    threads: Vec<Sender<T>>,
    stop: CancellationToken,
) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types that are no real descriptors"
    )]
    let mut listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
    let mut next = 0;
    let mut pause = Pause::default();
    'turns: loop {
        let ready = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            ready = listener.readable_mut() => ready,
        };
        let mut ready = ready?;
        for _ in 0..TURN {
            match ready.get_inner_mut().accept() {
                Ok(stream) => {
                    pause.over();
                    let mut left = admit(stream).and_then(|admitted| deal(admitted, &threads, &mut next));
                    // Every thread has a full queue: further connections wait in the kernel's.
                    while let Some(admitted) = left {
                        if threads.iter().all(Sender::is_closed) {
                            return Ok(());
                        }
                        tokio::time::sleep(MIN_PAUSE).await;
                        left = deal(admitted, &threads, &mut next);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    continue 'turns;
                }
                Err(error) if is_exhausted(&error) => {
                    let pause = pause.next(&error);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                // Of this one connection: it went away before it was taken.
                Err(error) => tracing::debug!(%error, "a connection was lost before it was accepted"),
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Gives the connection to the next thread that has room; gives it back where none has.
fn deal<T>(mut admitted: T, threads: &[Sender<T>], next: &mut usize) -> Option<T> {
    for _ in 0..threads.len() {
        *next = (*next + 1) % threads.len();
        match threads[*next].try_send(admitted) {
            Ok(()) => return None,
            Err(TrySendError::Full(back) | TrySendError::Closed(back)) => admitted = back,
        }
    }
    Some(admitted)
}

/// How long to wait while there is no room; tells the operator when that begins and when it ends.
#[derive(Debug, Default)]
struct Pause {
    current: Option<Duration>,
}

impl Pause {
    fn next(&mut self, error: &io::Error) -> Duration {
        let pause = match self.current {
            None => {
                tracing::warn!(%error, "cannot accept connections: raise the limit of open files (LimitNOFILE, ulimit -n)");
                MIN_PAUSE
            }
            Some(last) => (last * 2).min(MAX_PAUSE),
        };
        self.current = Some(pause);
        pause
    }

    fn over(&mut self) {
        if self.current.take().is_some() {
            tracing::info!("accepting connections again");
        }
    }
}

/// Whether it is room that is missing: trying again at once would only burn time.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::server::Address;

    #[test]
    fn pauses_grow_to_a_second_and_begin_anew() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(is_exhausted(&error) && !is_exhausted(&io::ErrorKind::ConnectionAborted.into()));
        let mut pause = Pause::default();
        let pauses: Vec<u128> = (0..9).map(|_| pause.next(&error).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        pause.over();
        assert_eq!(pause.next(&error), MIN_PAUSE);
    }

    #[tokio::test]
    async fn connections_go_round_and_wait_where_there_is_no_room() {
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let Address::Tcp(address) = *listener.address() else {
            unreachable!("a TCP listener has a TCP address");
        };
        let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(1)).unzip();
        let stop = CancellationToken::new();
        let run = async {
            let accepting = accept(listener, Some, senders, stop.clone());
            let clients = async {
                let clients: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
                // One each; the next waits for either.
                for receiver in &mut receivers {
                    assert!(receiver.recv().await.is_some());
                }
                // A thread that takes nothing more holds up nobody but itself.
                for _ in 2..clients.len() - 1 {
                    assert!(receivers[0].recv().await.is_some());
                }
                stop.cancel();
            };
            tokio::join!(accepting, clients).0
        };
        run.await.unwrap();
        assert!(std::net::TcpStream::connect(address).is_err(), "the listener is closed");
    }
}
