//! The sockets that clients connect to.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{SocketFlags, accept_with};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Address;

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
}

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    /// What it is really bound to.
    address: Address,
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
    /// Over TCP, without Nagle's delay.
    Tcp(std::net::TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// The other end's address; over a Unix socket there is none.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            // Unknown only where the peer has gone already.
            Accepted::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip()),
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
                    _file: Some(file),
                })
            }
        }
    }

    /// What it is bound to; the port is the real one.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection, or `WouldBlock`.
    pub fn accept(&self) -> io::Result<Accepted> {
        let stream: OwnedFd = accept_with(self.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        Ok(match self.socket {
            Bound::Tcp(_) => {
                let stream = std::net::TcpStream::from(stream);
                // Fails only where the peer has gone already, which the next read will tell.
                let _ = stream.set_nodelay(true);
                Accepted::Tcp(stream)
            }
            Bound::Unix(_) => Accepted::Unix(UnixStream::from(stream)),
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
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn tcp(address: &str) -> Listener {
        Listener::bind(&Address::Tcp(address.parse().unwrap())).unwrap()
    }

    fn port(listener: &Listener) -> u16 {
        match listener.address() {
            Address::Tcp(address) => address.port(),
            Address::Unix(_) => unreachable!("a TCP listener has a TCP address"),
        }
    }

    #[test]
    fn any_free_port_is_taken_and_told() {
        let listener = tcp("127.0.0.1:0");
        assert_ne!(port(&listener), 0);
        let _client = std::net::TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
        let Accepted::Tcp(stream) = listener.accept().unwrap() else {
            panic!("a TCP listener accepts TCP");
        };
        assert!(stream.nodelay().unwrap());
        assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn both_families_reach_the_unspecified_ipv6_address() {
        let Ok(listener) = Listener::bind(&Address::Tcp("[::]:0".parse().unwrap())) else {
            assert!(std::net::TcpListener::bind("[::1]:0").is_err(), "this machine has IPv6");
            return;
        };
        std::net::TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
    }

    #[test]
    fn a_taken_port_is_an_error_with_a_remedy() {
        let listener = tcp("127.0.0.1:0");
        let error = Listener::bind(listener.address()).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{}", port(&listener))), "{error}");
        assert!(error.contains("ss -ltnp"), "{error}");
    }

    #[test]
    fn a_dead_servers_socket_file_is_replaced_and_a_live_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.sock");
        let address = Address::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file");

        let listener = Listener::bind(&address).unwrap();
        let error = Listener::bind(&address).unwrap_err().to_string();
        assert!(error.contains("another process answers"), "{error}");
        drop(listener);
        assert!(!path.exists(), "the file goes with the listener");
    }

    #[test]
    fn a_file_that_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&Address::Unix(path.clone())).unwrap_err().to_string();
        assert!(error.contains("not a socket"), "{error}");
        std::fs::remove_file(&path).unwrap();

        let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_cannot_be_is_an_error_with_a_remedy() {
        let long = Address::Unix(format!("/run/{}", "x".repeat(120)).into());
        let error = Listener::bind(&long).unwrap_err().to_string();
        assert!(error.contains("107") && error.contains("shorter"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let missing = Address::Unix(dir.path().join("no/relay.sock"));
        let error = Listener::bind(&missing).unwrap_err().to_string();
        assert!(error.contains("create the directory"), "{error}");
    }
}
