//! systemd hands over sockets that are listened at: `sd_listen_fds(3)`.
//!
//! They are the descriptors from 3 on, and systemd keeps them too: while the service restarts, connections wait in them.

use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::Socket;

/// A socket that was handed over.
#[derive(Debug)]
pub struct Handed {
    /// Its `FileDescriptorName=`; none where nothing has a name.
    pub name: Option<String>,
    /// The socket, which no child inherits.
    pub socket: Socket,
}

/// Why what was handed over cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The variables contradict each other.
    #[error(
        "LISTEN_FDS says that {sockets} sockets are handed over, and LISTEN_FDNAMES has {names} names: whoever starts keyrelay \
         must give each socket one name, or leave LISTEN_FDNAMES out"
    )]
    Names {
        /// By `LISTEN_FDS`.
        sockets: usize,
        /// By `LISTEN_FDNAMES`.
        names: usize,
    },
    /// A descriptor is something else.
    #[error(
        "descriptor {descriptor}{}, which was handed over, is no stream socket (TCP or Unix): in the .socket unit use only ListenStream=",
        named(name)
    )]
    NoStream {
        /// Its number.
        descriptor: usize,
        /// Its name.
        name: Option<String>,
    },
}

/// Takes the sockets that are handed over to the process of the id `own`. To be called once, and before the process has
/// further threads: the variables are removed, so that no child takes them for its own.
///
/// # Errors
/// If it is not what `sd_listen_fds(3)` says.
pub fn handed_over(own: u32) -> Result<Vec<Handed>, HandOverError> {
    let variable = |name| std::env::var(name).ok();
    // Of a parent that left its variables: they are not about this process.
    if variable("LISTEN_PID").is_none_or(|pid| pid.parse() != Ok(own)) {
        return Ok(Vec::new());
    }
    let names = variable("LISTEN_FDNAMES");
    let names: Option<Vec<&str>> = names.as_deref().map(|names| names.split(':').collect());
    let mut handed = ListenFd::from_env();
    if let Some(names) = names.as_ref().filter(|names| names.len() != handed.len()) {
        return Err(HandOverError::Names {
            sockets: handed.len(),
            names: names.len(),
        });
    }
    (0..handed.len())
        .map(|at| {
            let name = names.as_ref().map(|names| names[at].to_owned());
            let tcp = handed.take_tcp_listener(at).ok().flatten().map(OwnedFd::from);
            let unix = || handed.take_unix_listener(at).ok().flatten().map(OwnedFd::from);
            match tcp.or_else(unix) {
                Some(socket) => Ok(Handed {
                    name,
                    socket: Socket::from(socket),
                }),
                None => Err(HandOverError::NoStream {
                    descriptor: 3 + at,
                    name,
                }),
            }
        })
        .collect()
}

fn named(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
}
