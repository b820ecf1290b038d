//! The service says how it stands: `sd_notify(3)`.
//!
//! It is a datagram of lines to the socket that `NOTIFY_SOCKET` names. (The crate sd-notify 0.5.0 opens that socket anew for
//! each, waits for the reader as long as it takes, and does not know the abstract names that systemd gives to services
//! which see another file system; what it does beside that is shorter here than its calls would be.)

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long a message may wait for a manager that does not read. Who waits accepts the connections, too.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// Clients may connect; after [`State::Reloading`], that the config was read again.
    Ready,
    /// The config is being read again; [`State::Ready`] must follow.
    Reloading,
    /// The end has begun, and may take this long.
    Stopping(Duration),
    /// How it stands, in a line.
    Status(&'a str),
    /// The number of the error of the system that ends it, as in `errno(3)`.
    Errno(i32),
    /// It has not hung.
    Watchdog,
}

/// Tells the service manager; where there is none it does nothing.
#[derive(Debug, Default)]
pub struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Of the service manager whose socket a `NOTIFY_SOCKET` of this value names, if there is one.
    ///
    /// # Errors
    /// If the socket is of an unknown kind, or nobody has it open.
    pub fn new(socket: Option<&OsStr>) -> io::Result<Notifier> {
        let Some(name) = socket.filter(|name| !name.is_empty()) else {
            return Ok(Notifier(None));
        };
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(Path::new(name))?,
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "it is neither a path nor an abstract name (@...)",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Notifier(Some(socket)))
    }

    /// Tells all of this at once.
    pub fn tell(&self, states: &[State<'_>]) {
        let Some(socket) = &self.0 else { return };
        let message = message(states, || {
            let now = clock_gettime(ClockId::Monotonic);
            Duration::new(
                now.tv_sec.unsigned_abs(),
                u32::try_from(now.tv_nsec).unwrap_or_default(),
            )
        });
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::warn!(%error, "the service manager cannot be told how it stands");
        }
    }
}

/// `now` is the time of CLOCK_MONOTONIC.
fn message(states: &[State<'_>], now: impl Fn() -> Duration) -> String {
    let mut message = String::new();
    for state in states {
        // A line, and text goes nowhere but into the next one.
        let _ = match state {
            State::Ready => writeln!(message, "READY=1"),
            // Which reload it is that READY=1 ends: without the time systemd 253 and later take it for a failure.
            State::Reloading => writeln!(message, "RELOADING=1\nMONOTONIC_USEC={}", now().as_micros()),
            State::Stopping(within) => writeln!(message, "STOPPING=1\nEXTEND_TIMEOUT_USEC={}", within.as_micros()),
            State::Status(text) => {
                let words: Vec<&str> = text.split_whitespace().collect();
                writeln!(message, "STATUS={}", words.join(" "))
            }
            State::Errno(number) => writeln!(message, "ERRNO={number}"),
            State::Watchdog => writeln!(message, "WATCHDOG=1"),
        };
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let size = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    }

    #[test]
    fn each_state_is_a_line() {
        let states = [
            State::Ready,
            State::Reloading,
            State::Stopping(Duration::from_millis(1_500)),
            State::Status("12 clients\nand more"),
            State::Errno(98),
            State::Watchdog,
        ];
        assert_eq!(
            message(&states, || Duration::new(7, 1_999)),
            "READY=1\nRELOADING=1\nMONOTONIC_USEC=7000001\nSTOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\n\
             STATUS=12 clients and more\nERRNO=98\nWATCHDOG=1\n"
        );
    }

    #[test]
    fn sockets_are_paths_and_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Notifier::new(Some(path.as_os_str())).unwrap().tell(&[State::Ready]);
        assert_eq!(heard(&socket), "READY=1\n");

        let name = format!("keyrelay-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::new(Some(format!("@{name}").as_ref()))
            .unwrap()
            .tell(&[State::Ready]);
        assert_eq!(heard(&socket), "READY=1\n");
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        for none in [None, Some(OsStr::new(""))] {
            Notifier::new(none).unwrap().tell(&[State::Ready]);
        }
        assert!(Notifier::new(Some("/nobody/here".as_ref())).is_err());
        let error = Notifier::new(Some("vsock:2:1234".as_ref())).unwrap_err();
        assert!(error.to_string().contains("neither a path"), "{error}");
    }

    /// A manager that hangs does not hang the service.
    #[test]
    fn a_manager_that_does_not_read_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _unread = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        // More than net.unix.max_dgram_qlen, the messages that wait at most.
        let limit = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
        for _ in 0..=limit.trim().parse::<usize>().unwrap() + 1 {
            notifier.tell(&[State::Watchdog]);
        }
    }
}
