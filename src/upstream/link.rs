//! A connection to a server that takes replies and pushes apart.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use redis_protocol::resp3::types::OwnedFrame;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};

use super::{
    Address, Endpoint, tls,
    wire::{Frame, Frames, WireError},
};

/// How long one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may be silent while we wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// First keepalive probe after this long without traffic, and then as often; own PINGs notice far sooner, this is for
/// a connection that nobody pings any more.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Room for one read. Several hundred events fit, so that a burst costs few system calls.
const READ_SIZE: usize = 64 * 1024;

/// A buffer that one large frame has made bigger than this is given back once it is empty.
const KEPT_CAPACITY: usize = 1024 * 1024;

/// Bytes both ways, whatever carries them.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// See the module.
pub(crate) struct Link {
    socket: Box<dyn Socket>,
    /// Where it leads: of a name that address of it which accepted.
    address: Address,
    /// What was read and not yet parsed; begins with a frame.
    buffer: BytesMut,
    frames: Frames,
    /// Whether a whole frame ever came.
    answered: bool,
    /// Whether a server that wants TLS would be spoken to in vain.
    plain_tcp: bool,
}

/// Why a connection cannot be used further, or a command failed on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The name has no address, or nobody accepts there.
    #[error("{0}")]
    Unreachable(String),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server closed the connection without having said anything, though it was not silent for long.
    #[error("the server closed the connection before it said anything")]
    Dumb,
    /// The connection broke.
    #[error("{0}")]
    Io(io::Error),
    /// There is no trust between the two sides, or one of them does not speak TLS; says what to do.
    #[error("{0}")]
    Tls(String),
    /// Nothing came while an answer was awaited.
    #[error("the server has not said anything for {0:?}")]
    Silent(Duration),
    /// What came cannot be understood.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The server refused a command; its own words, with their code in front.
    #[error("{command}: {message}")]
    Refused {
        /// The command's name.
        command: String,
        /// As the server said it.
        message: String,
    },
    /// The server has no RESP3.
    #[error("the server does not speak RESP3: keyrelay needs KeyDB 6, Redis 6, Valkey, or later ones")]
    TooOld,
    /// The reply is not of the kind that belongs to the command.
    #[error("the server answered {0} in a way that is not understood")]
    Unexpected(String),
}

/// What was subscribed to or tracked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A message on this channel.
    Message(Vec<u8>),
    /// This tracked key was changed.
    Change(Vec<u8>),
}

/// What can come while a command waits for its reply.
enum Answer {
    /// The reply, or the error's text.
    Reply(Result<OwnedFrame, String>),
    Push(OwnedFrame),
    Heard(Heard),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> LinkError {
        match tls::meaning(&error) {
            Some(meaning) => LinkError::Tls(meaning),
            None => LinkError::Io(error),
        }
    }
}

impl Link {
    /// Connects to the first address that accepts; a name is resolved each time.
    pub async fn connect(endpoint: &Endpoint) -> Result<Link, LinkError> {
        let (socket, address): (Box<dyn Socket>, Address) = match &endpoint.address {
            Address::Tcp { host, port } => {
                let (stream, reached) = connect_tcp(host, *port).await?;
                let socket: Box<dyn Socket> = match &endpoint.tls {
                    None => Box::new(stream),
                    Some(tls) => match timeout(CONNECT_TIMEOUT, tls.connect(stream, host)).await {
                        Ok(connected) => Box::new(connected.map_err(LinkError::Tls)?),
                        Err(_) => return Err(LinkError::Tls(tls::unanswered(CONNECT_TIMEOUT))),
                    },
                };
                (socket, reached.into())
            }
            Address::Unix(path) => match timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
                Ok(Ok(stream)) => (Box::new(stream), endpoint.address.clone()),
                Ok(Err(error)) => return Err(LinkError::Unreachable(error.to_string())),
                Err(_) => return Err(unanswered()),
            },
        };
        Ok(Link {
            socket,
            address,
            buffer: BytesMut::with_capacity(READ_SIZE),
            frames: Frames::default(),
            answered: false,
            plain_tcp: endpoint.tls.is_none() && matches!(endpoint.address, Address::Tcp { .. }),
        })
    }

    /// The socket, and what was read of it and not taken.
    pub fn into_parts(self) -> (Box<dyn Socket>, BytesMut) {
        (self.socket, self.buffer)
    }

    /// Where it leads: of a name that address of it which accepted.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a command without waiting for its reply.
    pub async fn send(&mut self, words: &[&[u8]]) -> Result<(), LinkError> {
        self.send_all([words]).await
    }

    /// Sends commands at once, without waiting for their replies.
    pub async fn send_all<'a>(&mut self, commands: impl IntoIterator<Item = &'a [&'a [u8]]>) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        for words in commands {
            bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            for word in words {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        let sent = async {
            self.socket.write_all(&bytes).await?;
            // TLS keeps back what the socket did not take.
            self.socket.flush().await
        };
        match sent.await {
            Ok(()) => Ok(()),
            // A server that went away may have said why.
            Err(error) => match timeout(ANSWER_TIMEOUT, self.socket.read_buf(&mut self.buffer)).await {
                Ok(Err(why)) => Err(self.of_the_first_words(why.into())),
                _ => Err(self.of_the_first_words(error.into())),
            },
        }
    }

    /// What an error means where nothing was heard before it.
    fn of_the_first_words(&self, error: LinkError) -> LinkError {
        match error {
            LinkError::Closed => {}
            LinkError::Io(ref error)
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {}
            error => return error,
        }
        match self.answered || !self.plain_tcp {
            true => error,
            false => LinkError::Dumb,
        }
    }

    /// Sends a command and waits for its reply; pushes before it are dropped.
    pub async fn command(&mut self, words: &[&[u8]]) -> Result<OwnedFrame, LinkError> {
        self.send(words).await?;
        self.reply().await?.map_err(|message| refused(words, message))
    }

    /// Waits for the reply to the oldest command without one; pushes before it are dropped.
    pub async fn reply(&mut self) -> Result<Result<OwnedFrame, String>, LinkError> {
        loop {
            match self.next().await? {
                Some(Answer::Reply(reply)) => return Ok(reply),
                Some(Answer::Push(_) | Answer::Heard(_)) | None => {}
            }
        }
    }

    /// Waits for one confirmation of the subscriptions that `command` asked for: a push that begins with `name`.
    pub async fn confirmed(&mut self, command: &str, name: &[u8]) -> Result<(), LinkError> {
        loop {
            match self.next().await? {
                Some(Answer::Push(push)) if push_name(&push) == Some(name) => return Ok(()),
                Some(Answer::Push(_) | Answer::Heard(_)) | None => {}
                Some(Answer::Reply(Err(message))) => return Err(refused(&[command.as_bytes()], message)),
                Some(Answer::Reply(Ok(_))) => return Err(LinkError::Unexpected(command.to_owned())),
            }
        }
    }

    /// Waits for the next thing that was subscribed to or tracked, however long that takes.
    pub async fn heard(&mut self) -> Result<Heard, LinkError> {
        loop {
            match self.next().await {
                Ok(Some(Answer::Heard(heard))) => return Ok(heard),
                Ok(_) | Err(LinkError::Silent(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the next frame; None for one that says something about keys.
    async fn next(&mut self) -> Result<Option<Answer>, LinkError> {
        loop {
            if self.wants_tls() {
                return Err(LinkError::Tls(format!(
                    "the server speaks TLS at this port: {}",
                    tls::TLS_PORT
                )));
            }
            if let Some((frame, length)) = self.frames.next(&self.buffer)? {
                self.answered = true;
                let answer = match frame {
                    Frame::Reply(reply) => Some(Answer::Reply(answer(reply))),
                    Frame::Push(push) => Some(Answer::Push(push)),
                    Frame::Message { channel, .. } => Some(Answer::Heard(Heard::Message(channel.to_vec()))),
                    Frame::Invalidated(key) => Some(Answer::Heard(Heard::Change(key.to_vec()))),
                    Frame::Flushed => None,
                };
                self.drop_front(length);
                return Ok(answer);
            }
            match timeout(ANSWER_TIMEOUT, self.read()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.of_the_first_words(error)),
                Err(_) => return Err(LinkError::Silent(ANSWER_TIMEOUT)),
            }
        }
    }

    /// Reads what is there, at least one byte. Nothing is lost when the future is dropped.
    pub async fn read(&mut self) -> Result<(), LinkError> {
        self.buffer.reserve(READ_SIZE);
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(LinkError::Closed),
            _ => Ok(()),
        }
    }

    /// Whether the first that came is an alert of TLS: what its servers answer those who do not begin with it.
    fn wants_tls(&self) -> bool {
        const ALERT: u8 = 0x15;
        self.plain_tcp && !self.answered && self.buffer.first() == Some(&ALERT)
    }

    /// What was read and not consumed, and what takes frames off it.
    pub fn unparsed(&self) -> (&[u8], Frames) {
        (&self.buffer, self.frames)
    }

    /// Drops so many bytes from the front of what was read, which `frames` took off it.
    pub fn consume(&mut self, length: usize, frames: Frames) {
        self.frames = frames;
        self.drop_front(length);
    }

    fn drop_front(&mut self, length: usize) {
        self.buffer.advance(length);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = BytesMut::new();
        }
    }
}

async fn connect_tcp(host: &str, port: u16) -> Result<(TcpStream, SocketAddr), LinkError> {
    let mut last = LinkError::Unreachable("the name has no address".into());
    for address in resolve(host, port).await? {
        match connect_to(address).await {
            Ok(stream) => return Ok((stream, address)),
            // Whoever tells of it names the host; where that is an address, all is said.
            Err(LinkError::Unreachable(why)) if host.parse::<IpAddr>().is_err() => {
                last = LinkError::Unreachable(format!("{address}: {why}"));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// All addresses of a name.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, LinkError> {
    match timeout(CONNECT_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(LinkError::Unreachable(error.to_string())),
        Err(_) => Err(LinkError::Unreachable("the name was not resolved within 5 s".into())),
    }
}

/// Connects to one address.
pub(super) async fn connect_to(address: SocketAddr) -> Result<TcpStream, LinkError> {
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(LinkError::Unreachable(error.to_string())),
        Err(_) => return Err(unanswered()),
    };
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

fn unanswered() -> LinkError {
    LinkError::Unreachable("nobody answered within 5 s".into())
}

/// Names the command by its first word, and the second where that is a part of its name; never more, for then come
/// passwords and keys.
fn refused(words: &[&[u8]], message: String) -> LinkError {
    let name = match words {
        [first, second, ..] if [b"CONFIG".as_slice(), b"CLIENT"].contains(first) => [*first, *second].join(&b' '),
        [first, ..] => first.to_vec(),
        [] => Vec::new(),
    };
    LinkError::Refused {
        command: String::from_utf8_lossy(&name).into_owned(),
        message,
    }
}

/// A reply, or the text of an error.
pub(super) fn answer(reply: OwnedFrame) -> Result<OwnedFrame, String> {
    match reply {
        OwnedFrame::SimpleError { data, .. } => Err(data),
        OwnedFrame::BlobError { data, .. } => Err(String::from_utf8_lossy(&data).into_owned()),
        reply => Ok(reply),
    }
}

/// What a push is: its first element.
pub(super) fn push_name(push: &OwnedFrame) -> Option<&[u8]> {
    match push {
        OwnedFrame::Push { data, .. } => match data.first()? {
            OwnedFrame::BlobString { data, .. } | OwnedFrame::SimpleString { data, .. } => Some(data),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn an_address_is_told_only_where_a_name_led_to_it() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = free.unwrap().port();
        let told = async |host| connect_tcp(host, port).await.unwrap_err().to_string();
        let why = told("127.0.0.1").await;
        assert!(!why.contains("127.0.0.1"), "{why}");
        let why = told("localhost").await;
        assert!(why.contains(&format!(":{port}: ")), "{why}");
    }
}
