//! The sockets that clients connect to.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Address;
use crate::fanout::limit_sends;

#[cfg(test)]
mod tests;

/// Connections that the kernel keeps until they are accepted. After a restart every browser comes back at once; with the usual
/// 1,024 a thousand SYNs are lost and each costs its client a second.
const BACKLOG: i32 = 4_096;

/// Longest path of a Unix socket: the kernel's `sun_path` has 108 bytes, the last of which is NUL.
const MAX_UNIX_PATH: usize = 107;

/// An address cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}: {what}; {instead}")]
pub struct ListenError {
    address: Address,
    what: String,
    instead: String,
    errno: Option<i32>,
}

impl ListenError {
    /// The number of the system's error, as in `errno(3)`, if it was the system that refused.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    /// What it is really bound to.
    address: Address,
    /// What those are set to that came before the listener was: they have inherited nothing.
    early: Option<Duration>,
    /// Goes with the listener.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A socket's file, removed when dropped.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that another process has put in its place stays.
    identity: Option<(u64, u64)>,
}

/// An accepted, non-blocking connection.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP.
    Tcp {
        /// It treats its client as [`Listener::limit_sends`] said.
        stream: TcpStream,
        /// The other end's address.
        peer: Option<IpAddr>,
    },
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// The other end's address; over a Unix socket there is none.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Accepted::Tcp { peer, .. } => *peer,
            Accepted::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// Binds and listens.
    pub fn bind(address: &Address) -> Result<Listener, ListenError> {
        match address {
            Address::Tcp(wanted) => {
                let socket = bind_tcp(*wanted).map_err(|error| tcp_error(*wanted, &error))?;
                let bound = socket.local_addr().map_err(|error| tcp_error(*wanted, &error))?;
                Ok(Listener {
                    socket: Bound::Tcp(socket),
                    address: Address::Tcp(bound),
                    early: None,
                    _file: None,
                })
            }
            Address::Unix(path) => {
                make_room(path)?;
                let socket = bind_unix(path).map_err(|error| unix_error(path, &error))?;
                let file = SocketFile {
                    path: path.clone(),
                    identity: identity(path),
                };
                Ok(Listener {
                    socket: Bound::Unix(socket),
                    address: address.clone(),
                    early: None,
                    _file: Some(file),
                })
            }
        }
    }

    /// Takes over a listening socket that another process has bound and keeps: when this one goes, connections wait in
    /// it, and the file of a Unix socket stays.
    ///
    /// # Errors
    /// If nobody listens at it, or the system does not say what it is bound to.
    pub fn inherit(socket: Socket) -> io::Result<Listener> {
        if !socket.is_listener()? {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the socket does not listen"));
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        let bound = socket.local_addr()?;
        let (socket, address) = match bound.as_socket() {
            Some(address) => (Bound::Tcp(socket.into()), Address::Tcp(address)),
            None => {
                let name = bound
                    .as_abstract_namespace()
                    .map(|name| [b"@", name].concat())
                    .map(|name| PathBuf::from(OsString::from_vec(name)));
                let path = name.or_else(|| bound.as_pathname().map(Path::to_path_buf));
                (Bound::Unix(socket.into()), Address::Unix(path.unwrap_or_default()))
            }
        };
        Ok(Listener {
            socket,
            address,
            early: None,
            _file: None,
        })
    }

    /// What it is bound to; the port is the real one.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sets how the connections that are accepted treat slow clients: they inherit it, which saves three calls for each but
    /// those that are there already.
    ///
    /// # Errors
    /// If the system does not let it be set.
    pub fn limit_sends(&mut self, write_timeout: Duration) -> io::Result<()> {
        self.early = Some(write_timeout);
        match &self.socket {
            Bound::Tcp(socket) => limit_sends(socket, write_timeout),
            Bound::Unix(_) => Ok(()),
        }
    }

    /// The next connection, or `WouldBlock`.
    pub fn accept(&mut self) -> io::Result<Accepted> {
        let accepted = acceptfrom_with(self.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
        if accepted.as_ref().is_err_and(|errno| *errno == Errno::AGAIN) {
            // None of those waits any more.
            self.early = None;
        }
        let (stream, peer) = accepted?;
        if let (Bound::Tcp(_), Some(write_timeout)) = (&self.socket, self.early) {
            limit_sends(&stream, write_timeout)?;
        }
        Ok(match self.socket {
            Bound::Tcp(_) => Accepted::Tcp {
                stream: stream.into(),
                peer: peer
                    .and_then(|peer| SocketAddr::try_from(peer).ok())
                    .map(|peer| peer.ip()),
            },
            Bound::Unix(_) => Accepted::Unix(stream.into()),
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Bound::Tcp(socket) => socket.as_fd(),
            Bound::Unix(socket) => socket.as_fd(),
        }
    }
}

impl std::os::fd::AsRawFd for Listener {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Left behind it does no harm: the next start finds that nobody answers.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old process's closed connections.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` means both families, whatever the machine's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes the socket file of a server that has died; anything else stays and is an error.
fn make_room(path: &Path) -> Result<(), ListenError> {
    let refuse = |what: String, instead: &str| {
        Err(ListenError {
            address: Address::Unix(path.to_owned()),
            what,
            instead: instead.to_owned(),
            errno: None,
        })
    };
    let length = path.as_os_str().len();
    if length > MAX_UNIX_PATH {
        return refuse(
            format!("the path has {length} bytes, and a Unix socket's may have {MAX_UNIX_PATH}"),
            "choose a shorter path",
        );
    }
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unix_error(path, &error)),
    };
    if !metadata.file_type().is_socket() {
        return refuse(
            "there is a file of this name that is not a socket".to_owned(),
            "choose another path, or remove the file",
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => refuse(
            "another process answers there".to_owned(),
            "stop it, or choose another path",
        ),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| unix_error(path, &error))
        }
        Err(error) => Err(unix_error(path, &error)),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn tcp_error(address: SocketAddr, error: &io::Error) -> ListenError {
    let no_family = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    let instead = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "stop the process that listens there (`ss -ltnp 'sport = :{port}'` names it), or choose another port",
            port = address.port()
        ),
        ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege: choose a higher one, or let a proxy listen there".to_owned()
        }
        ErrorKind::AddrNotAvailable if address.is_ipv4() => {
            "choose an address of this machine, or 0.0.0.0 for all of them".to_owned()
        }
        _ if no_family || address.is_ipv6() => {
            format!("where the machine has no IPv6, write 0.0.0.0:{}", address.port())
        }
        _ => "choose another address".to_owned(),
    };
    ListenError {
        address: Address::Tcp(address),
        what: error.to_string(),
        instead,
        errno: error.raw_os_error(),
    }
}

fn unix_error(path: &Path, error: &io::Error) -> ListenError {
    let instead = match error.kind() {
        ErrorKind::NotFound => "create the directory first",
        ErrorKind::PermissionDenied => "the directory must be writable for the user that runs this",
        _ => "choose another path",
    };
    ListenError {
        address: Address::Unix(path.to_owned()),
        what: error.to_string(),
        instead: instead.to_owned(),
        errno: error.raw_os_error(),
    }
}
