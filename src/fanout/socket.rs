//! A client's socket: nonblocking, without a runtime, set up for small frames and slow readers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::SockRef;

/// Unsent bytes that the kernel may hold for one client before a write blocks. What it holds is old by the time a slow
/// client reads it, and it is memory: without a limit it is 4 MiB for each client that stalls. It is to be at least
/// twice a usual frame, or quick clients block too.
const UNSENT: u32 = 64 * 1024;

/// A connected stream socket in nonblocking mode.
#[derive(Debug)]
pub enum Socket {
    /// Of a TCP listener.
    Tcp(TcpStream),
    /// Of a Unix listener.
    Unix(UnixStream),
}

impl Socket {
    /// Sets what the shard relies on. `write_timeout`: unacknowledged bytes end the connection after this long, so that a
    /// peer that vanished without a word is noticed.
    pub(super) fn prepare(&self, write_timeout: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                let socket = SockRef::from(stream);
                socket.set_tcp_nodelay(true)?;
                socket.set_tcp_notsent_lowat(UNSENT)?;
                socket.set_tcp_user_timeout(Some(write_timeout))
            }
            Socket::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// Writes once; `None` if the socket takes nothing now.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        retried(|| match self {
            Socket::Tcp(stream) => (&*stream).write(bytes),
            Socket::Unix(stream) => (&*stream).write(bytes),
        })
    }

    /// Reads once; `None` if there is nothing now.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        retried(|| match self {
            Socket::Tcp(stream) => (&*stream).read(buffer),
            Socket::Unix(stream) => (&*stream).read(buffer),
        })
    }

    /// Says that nothing more will be written.
    pub(super) fn finish(&self) {
        // An error means that the peer has gone, which the next read finds out.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

fn retried(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(size) => return Ok(Some(size)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
