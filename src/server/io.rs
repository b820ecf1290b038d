//! An accepted connection while hyper reads its requests: the socket, with a bound on how long a write may stall.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use super::listen::Accepted;
use crate::fanout::Socket;

/// How long the last words of a connection may take to be read.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a connection begins that speaks HTTP/2 without having agreed on it (RFC 9113 §3.4); no method of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI ";

/// The socket with its write deadline.
#[derive(Debug)]
pub struct Io {
    /// While the runtime does not know the socket.
    fresh: Option<Accepted>,
    /// Once it does.
    known: Option<Stream>,
    write_timeout: Duration,
    /// Runs while the socket takes nothing.
    deadline: Option<Pin<Box<Sleep>>>,
    signs: Rc<Signs>,
    /// Read again before the socket is.
    again: Bytes,
    /// The last read took all that was there.
    is_empty: bool,
}

/// Read at once while the runtime does not know the socket, and as the first bytes: a head fits into it.
const READ: usize = 2 * 1024;

thread_local! {
    /// To read into the room that hyper has for a head, all of that would have to be cleared before.
    static SCRATCH: RefCell<[u8; READ]> = const { RefCell::new([0; READ]) };
}

/// What a connection and whoever watches it tell each other while hyper has it.
#[derive(Debug, Default)]
pub struct Signs {
    /// Whether bytes wait for a socket that takes nothing.
    pub stalled: Cell<bool>,
    /// Whether the runtime is told of the socket only when this is unset: most requests have come already, and are for streams,
    /// whose sockets leave the runtime at once.
    pub hasty: Cell<bool>,
    /// There was nothing to read, and nobody will say when there is.
    pub unwatched: Cell<bool>,
}

/// What a connection speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// HTTP/1.1, or nothing that anybody knows.
    Http1,
    /// HTTP/2, as its client has known before that it may.
    Http2,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Io {
    /// A write that makes no progress for `write_timeout` fails.
    pub fn new(stream: Accepted, write_timeout: Duration) -> Io {
        Io {
            fresh: Some(stream),
            known: None,
            write_timeout,
            deadline: None,
            signs: Rc::default(),
            again: Bytes::new(),
            is_empty: false,
        }
    }

    /// To be asked, and told, after hyper has taken the socket over.
    pub fn signs(&self) -> Rc<Signs> {
        self.signs.clone()
    }

    /// The socket, which the runtime of this thread is told of if it does not know it yet.
    fn stream(&mut self) -> io::Result<&mut Stream> {
        if let Some(fresh) = self.fresh.take() {
            self.known = Some(match fresh {
                Accepted::Tcp { stream, .. } => Stream::Tcp(TcpStream::from_std(stream)?),
                Accepted::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
            });
        }
        // It is gone where the runtime could not take it.
        self.known.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Waits until there is something to read, and shows it without taking it; nothing is shown at the end.
    pub async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let look = |socket: BorrowedFd<'_>, buffer: &mut [u8]| {
            let (size, _) = rustix::net::recv(socket, buffer, RecvFlags::PEEK)?;
            Ok(size)
        };
        let stream = self.stream()?;
        loop {
            let seen = match &*stream {
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

    /// Waits for the first bytes, which are then read again. Nothing if the client ends before.
    pub async fn begin(&mut self) -> io::Result<Option<Begun>> {
        poll_fn(|cx| {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut first = ReadBuf::uninit(&mut space);
            ready!(self.poll_socket(cx, &mut first))?;
            self.again = Bytes::copy_from_slice(first.filled());
            Poll::Ready(Ok(match first.filled() {
                [] => None,
                bytes if bytes.starts_with(PREFACE) => Some(Begun::Http2),
                _ => Some(Begun::Http1),
            }))
        })
        .await
    }

    /// Takes the socket out of the runtime.
    pub fn into_socket(self) -> io::Result<Socket> {
        match (self.fresh, self.known) {
            (Some(Accepted::Tcp { stream, .. }), _) => Ok(Socket::Tcp(stream)),
            (Some(Accepted::Unix(stream)), _) => Ok(Socket::Unix(stream)),
            (None, Some(Stream::Tcp(stream))) => Ok(Socket::Tcp(stream.into_std()?)),
            (None, Some(Stream::Unix(stream))) => Ok(Socket::Unix(stream.into_std()?)),
            (None, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads from the socket, whoever is to say that there is something.
    fn poll_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(fresh) = &self.fresh {
            // Where it was emptied just now, nothing new is asked for in haste.
            if !(self.is_empty && self.signs.hasty.get()) {
                let read: io::Result<bool> = SCRATCH.with_borrow_mut(|scratch| {
                    let space = buf.remaining().min(scratch.len());
                    let size = match fresh {
                        Accepted::Tcp { stream, .. } => (&mut &*stream).read(&mut scratch[..space]),
                        Accepted::Unix(stream) => (&mut &*stream).read(&mut scratch[..space]),
                    }?;
                    buf.put_slice(&scratch[..size]);
                    Ok(size < space)
                });
                match read {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read.map(|is_empty| self.is_empty = is_empty)),
                }
            }
            if self.signs.hasty.get() {
                self.signs.unwatched.set(true);
                return Poll::Pending;
            }
        }
        match self.stream()? {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    /// From now on a write may stall this long.
    pub fn wait_at_most(&mut self, write_timeout: Duration) {
        self.write_timeout = write_timeout;
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.signs.stalled.set(result.is_pending());
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
        let io = self.get_mut();
        if !io.again.is_empty() {
            let size = io.again.len().min(buf.remaining());
            buf.put_slice(&io.again.split_to(size));
            return Poll::Ready(Ok(()));
        }
        io.poll_socket(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        let result = match io.stream()? {
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
        let result = match io.stream()? {
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
        match self.get_mut().stream()? {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
