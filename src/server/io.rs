//! An accepted connection while hyper reads its requests: the socket, with a bound on how long a write may stall.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use super::listen::Accepted;
use crate::fanout::Socket;

/// How long the last words of a connection may take to be read.
const FAREWELL: Duration = Duration::from_secs(1);

/// The socket with its write deadline.
#[derive(Debug)]
pub struct Io {
    stream: Stream,
    write_timeout: Duration,
    /// Runs while the socket takes nothing.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether bytes wait for a socket that takes nothing.
    stalled: Rc<Cell<bool>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Io {
    /// Registers the socket with the runtime of this thread. A write that makes no progress for `write_timeout` fails.
    pub fn new(stream: Accepted, write_timeout: Duration) -> io::Result<Io> {
        let stream = match stream {
            Accepted::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Accepted::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        };
        Ok(Io {
            stream,
            write_timeout,
            deadline: None,
            stalled: Rc::default(),
        })
    }

    /// Whether bytes wait for a socket that takes nothing; to be asked after hyper has taken the socket over.
    pub fn stalled(&self) -> Rc<Cell<bool>> {
        self.stalled.clone()
    }

    /// Waits until there is something to read, and shows it without taking it; nothing is shown at the end.
    pub async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let look = |socket: BorrowedFd<'_>, buffer: &mut [u8]| {
            let (size, _) = rustix::net::recv(socket, buffer, RecvFlags::PEEK)?;
            Ok(size)
        };
        loop {
            let seen = match &self.stream {
                Stream::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_io(Interest::READABLE, || look(stream.as_fd(), buffer))
                }
                Stream::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_io(Interest::READABLE, || look(stream.as_fd(), buffer))
                }
            };
            match seen {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                seen => return seen,
            }
        }
    }

    /// Takes the socket out of the runtime.
    pub fn into_socket(self) -> io::Result<Socket> {
        Ok(match self.stream {
            Stream::Tcp(stream) => Socket::Tcp(stream.into_std()?),
            Stream::Unix(stream) => Socket::Unix(stream.into_std()?),
        })
    }

    /// From now on a write may stall this long.
    pub fn wait_at_most(&mut self, write_timeout: Duration) {
        self.write_timeout = write_timeout;
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.stalled.set(result.is_pending());
        if result.is_ready() {
            self.deadline = None;
            return result;
        }
        let timeout = self.write_timeout;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Writes the last bytes of a connection and closes it in such a way that they arrive: closing a socket with unread bytes
/// would have the kernel take back what was sent.
pub async fn farewell(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    let farewell = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        let mut unread = [0; 512];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whoever does not take it in time has gone or does not want to know.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        let result = match &mut io.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        io.watch(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        let result = match &mut io.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        io.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
