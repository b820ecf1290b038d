//! Why a read failed.

use std::time::Duration;

use crate::upstream::Address;

/// Why a key could not be read; what it holds is unknown, it may well exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// What to make of it.
    pub kind: ReadErrorKind,
    /// The server's words, where it was the server.
    pub message: String,
}

/// What to make of a failed read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadErrorKind {
    /// A script or function keeps the server busy.
    Busy,
    /// The server is loading its data.
    Loading,
    /// The user may not read that.
    NoPermission,
    /// A cluster is moving the key.
    TryAgain,
    /// The key is on another node of the cluster.
    Moved,
    /// Its slot is being moved to another node, and the key is there already, or nowhere: that node must be asked for it.
    Ask,
    /// A cluster does not serve the key.
    ClusterDown,
    /// A replica without its primary is told not to answer.
    MasterDown,
    /// No answer in time; the connection is given up, connect anew.
    Timeout,
    /// The connection is gone, connect anew.
    Connection,
    /// A reply got lost on the way: nothing that this connection says can be trusted, connect anew.
    OutOfStep,
    /// The key has a type that keyrelay cannot read: one of a module.
    Unsupported,
    /// The reply, of so many bytes, was larger than there ever is room for.
    TooLarge(u64),
    /// The reply, which takes so many bytes of memory, came while others had taken the room for it: ask again.
    NoRoom(u64),
    /// Anything else.
    Other,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody accepts a connection, or it broke.
    #[error("cannot connect to {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// In the system's words.
        why: String,
    },
    /// The user or password is wrong or missing.
    #[error("the server does not let us in ({0}): check the user and password of the upstream url")]
    Login(String),
    /// The user may not do what a reader must do.
    #[error("the user has not got the rights ({0}): `keyrelay check --connect` says what to run")]
    Rights(String),
    /// The server refused something for another reason.
    #[error("the server refused: {0}")]
    Refused(String),
}

impl ReadError {
    pub(super) fn other(message: String) -> ReadError {
        ReadError {
            kind: ReadErrorKind::Other,
            message,
        }
    }

    pub(super) fn not_understood(wanted: &str) -> ReadError {
        ReadError::other(format!("the server's reply is not understood: it should be {wanted}"))
    }

    pub(super) fn timeout(time: Duration) -> ReadError {
        ReadError {
            kind: ReadErrorKind::Timeout,
            message: format!("the server did not answer within {time:?}"),
        }
    }

    pub(super) fn no_connection(message: String) -> ReadError {
        ReadError {
            kind: ReadErrorKind::Connection,
            message,
        }
    }

    pub(super) fn out_of_step() -> ReadError {
        let message = "a reply got lost, so the connection is given up".to_owned();
        ReadError {
            kind: ReadErrorKind::OutOfStep,
            message,
        }
    }

    pub(super) fn unsupported(kind: &str) -> ReadError {
        let message = format!(
            "keys of type {kind} cannot be read; only strings, hashes, lists, sets, sorted sets and streams can"
        );
        ReadError {
            kind: ReadErrorKind::Unsupported,
            message,
        }
    }

    pub(super) fn too_large(bytes: u64) -> ReadError {
        ReadError {
            kind: ReadErrorKind::TooLarge(bytes),
            message: format!("the server's reply has {bytes} bytes, for which there is no room"),
        }
    }

    pub(super) fn no_room(memory: u64) -> ReadError {
        ReadError {
            kind: ReadErrorKind::NoRoom(memory),
            message: format!("there is no room now for the server's reply, which takes {memory} bytes of memory"),
        }
    }

    /// The server refused a command, in these words.
    pub(super) fn refused(message: String) -> ReadError {
        let kind = match message.split(' ').next().unwrap_or_default() {
            "BUSY" => ReadErrorKind::Busy,
            "LOADING" => ReadErrorKind::Loading,
            "NOPERM" => ReadErrorKind::NoPermission,
            "MOVED" => ReadErrorKind::Moved,
            "ASK" => ReadErrorKind::Ask,
            "TRYAGAIN" => ReadErrorKind::TryAgain,
            "CLUSTERDOWN" => ReadErrorKind::ClusterDown,
            "MASTERDOWN" => ReadErrorKind::MasterDown,
            _ => ReadErrorKind::Other,
        };
        ReadError { kind, message }
    }

    /// Which node must be asked for the key, where that is what the server says.
    pub fn asks(&self) -> Option<Address> {
        let place = self.message.strip_prefix("ASK ")?.split(' ').nth(1)?;
        let (host, port) = place.rsplit_once(':')?;
        Some(Address::Tcp {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// Whether the key has another type than the command is for.
    pub(super) fn is_wrong_type(&self) -> bool {
        self.message.starts_with("WRONGTYPE")
    }

    /// Whether there will be no more answers on this connection.
    pub fn is_of_connection(&self) -> bool {
        matches!(self.kind, ReadErrorKind::Connection | ReadErrorKind::OutOfStep)
    }
}

impl ConnectError {
    pub(super) fn new(address: &Address, error: ReadError) -> ConnectError {
        let code = error.message.split(' ').next().unwrap_or_default();
        match (error.kind, code) {
            (_, "NOAUTH" | "WRONGPASS") => ConnectError::Login(error.message),
            (ReadErrorKind::NoPermission, _) => ConnectError::Rights(error.message),
            (ReadErrorKind::Connection | ReadErrorKind::Timeout, _) => ConnectError::Unreachable {
                address: address.to_string(),
                why: error.message,
            },
            _ => ConnectError::Refused(error.message),
        }
    }
}
