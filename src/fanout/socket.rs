//! A client's socket, or what stands for it: nonblocking, without a runtime, set up for small frames and slow readers.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use socket2::SockRef;

use super::conn::Token;
use super::handle::Handle;
use super::pipe::Near;

/// Unsent bytes that the kernel may hold for one client before a write blocks. What it holds is old by the time a slow
/// client reads it, and it is memory: without a limit it is 4 MiB for each client that stalls. It is to be at least
/// twice a usual frame, or quick clients block too.
const UNSENT: u32 = 64 * 1024;

/// What the kernel has room for where it says that a socket can be written: it says so while less than half of what it may hold
/// unsent is there.
const ROOM: usize = UNSENT as usize / 2;

/// What a shard is told of every socket.
const READABLE: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// A connected stream socket in nonblocking mode, set up by [`limit_sends`], or an end of a [`pipe`](super::pipe()).
#[derive(Debug)]
pub enum Socket {
    /// Of a TCP listener.
    Tcp(TcpStream),
    /// Of a Unix listener.
    Unix(UnixStream),
    /// Another task carries its bytes to the client's socket.
    Piped(Near),
}

impl Socket {
    /// Has the shard told, by this name, when it can be read: once now, and then at each change.
    pub(super) fn register(&self, epoll: &OwnedFd, handle: &Handle, token: Token) -> io::Result<()> {
        let data = EventData::new_u64(token.bits());
        match self {
            Socket::Tcp(stream) => Ok(epoll::add(epoll, stream.as_fd(), data, READABLE)?),
            Socket::Unix(stream) => Ok(epoll::add(epoll, stream.as_fd(), data, READABLE)?),
            Socket::Piped(near) => {
                near.attach(handle, token);
                Ok(())
            }
        }
    }

    /// Has the shard told when it can be written, too: it is not from the beginning, for it always can be then.
    pub(super) fn await_room(&self, epoll: &OwnedFd, token: Token) -> io::Result<()> {
        let data = EventData::new_u64(token.bits());
        match self {
            Socket::Tcp(stream) => Ok(epoll::modify(epoll, stream.as_fd(), data, READABLE | EventFlags::OUT)?),
            Socket::Unix(stream) => Ok(epoll::modify(epoll, stream.as_fd(), data, READABLE | EventFlags::OUT)?),
            // It tells by itself.
            Socket::Piped(_) => Ok(()),
        }
    }

    /// Writes once; `None` if the socket takes nothing now.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        // Without the C library, which makes a point for cancelling a thread of each call.
        retried(|| match self {
            Socket::Tcp(stream) => Ok(send(stream, bytes, SendFlags::NOSIGNAL)?),
            Socket::Unix(stream) => Ok(send(stream, bytes, SendFlags::NOSIGNAL)?),
            Socket::Piped(near) => near.send(bytes),
        })
    }

    /// How many bytes it surely takes now; if there are none, they are to be [awaited](Socket::await_room).
    pub(super) fn room(&self) -> usize {
        let of = |stream: BorrowedFd<'_>| {
            let mut asked = [PollFd::new(&stream, PollFlags::OUT)];
            // Without an answer it is found out by sending.
            match poll(&mut asked, Some(&Timespec::default())) {
                Ok(0) => 0,
                _ => ROOM,
            }
        };
        match self {
            Socket::Tcp(stream) => of(stream.as_fd()),
            Socket::Unix(stream) => of(stream.as_fd()),
            Socket::Piped(near) => near.room(),
        }
    }

    /// Reads once; `None` if there is nothing now.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        retried(|| match self {
            Socket::Tcp(stream) => (&*stream).read(buffer),
            Socket::Unix(stream) => (&*stream).read(buffer),
            Socket::Piped(near) => near.receive(buffer),
        })
    }

    /// Says that nothing more will be written.
    pub(super) fn finish(&self) {
        // An error means that the peer has gone, which the next read finds out.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Piped(near) => {
                near.finish();
                Ok(())
            }
        };
    }

    /// Lets what the client did not take be forgotten.
    pub(super) fn give_up(&self) {
        // The kernel forgets it by itself (`limit_sends`).
        if let Socket::Piped(near) = self {
            near.give_up();
        }
    }
}

/// Sets how a TCP connection treats a client that takes its bytes slowly or not at all: unacknowledged bytes end it after
/// `write_timeout`, so that a peer that vanished without a word is noticed. What is accepted of a listener inherits it.
///
/// # Errors
/// If the connection is broken.
pub fn limit_sends<'s>(stream: impl Into<SockRef<'s>>, write_timeout: Duration) -> io::Result<()> {
    let socket = stream.into();
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(write_timeout))
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
