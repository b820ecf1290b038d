//! Why a session ends, and whether the client should come back.

use crate::hub::{Ended, Limit};

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This process goes down in order.
    Drain,
    /// There is no room for one more.
    Overload,
    /// The client's address or subject has as many connections as it may have.
    TooMany,
    /// The client connects, or sends messages, more often than it may.
    TooFast,
    /// The stream has lived for as long as one may.
    Lifetime,
    /// One of its channels became another thing, or who may read it is another question now.
    Reload,
    /// One of its channels has more keys than a channel may have. It may have fewer again.
    TooManyKeys,
    /// The client took nothing for as long as is allowed.
    TooSlow,
    /// The client sent a message larger than is allowed.
    TooBig,
    /// The client broke the protocol; the text says how.
    Protocol(&'static str),
    /// Whether the client may read cannot be found out now.
    Unavailable,
    /// The client may not read what it asked for; the word says why.
    Refused(&'static str),
    /// What allowed the client to read has come to its end.
    Expired {
        /// Whether what it showed may count again, as a cookie that the app renews does and a token in the URL does not.
        renewable: bool,
    },
    /// The client sent a text message that is not UTF-8.
    NotText,
    /// The client has gone, or said that it is going.
    Gone,
}

impl From<Limit> for Ending {
    /// How those are ended whose channel was, for this limit.
    fn from(limit: Limit) -> Ending {
        match limit {
            Limit::KeysPerChannel => Ending::TooManyKeys,
            Limit::Channels | Limit::ChannelsPerAddress | Limit::Subscriptions | Limit::Keys | Limit::LogBytes => {
                Ending::Overload
            }
        }
    }
}

impl From<Ended> for Ending {
    fn from(ended: Ended) -> Ending {
        match ended {
            Ended::Limit(limit) => limit.into(),
            Ended::Revised => Ending::Reload,
        }
    }
}

impl Ending {
    /// Every word that one who was connected may be ended with; who is refused may be told others.
    pub const WORDS: [&str; 12] = [
        "gone",
        "drain",
        "lifetime",
        "reload",
        "expired",
        "too-slow",
        "too-fast",
        "too-big",
        "too-many-keys",
        "overload",
        "protocol",
        "unavailable",
    ];

    /// The word for clients and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Ending::Drain => "drain",
            Ending::Overload => "overload",
            Ending::TooMany => "too-many",
            Ending::TooFast => "too-fast",
            Ending::Lifetime => "lifetime",
            Ending::Reload => "reload",
            Ending::TooManyKeys => "too-many-keys",
            Ending::TooSlow => "too-slow",
            Ending::TooBig => "too-big",
            Ending::Protocol(_) | Ending::NotText => "protocol",
            Ending::Unavailable => "unavailable",
            Ending::Refused(why) => why,
            Ending::Expired { .. } => "expired",
            Ending::Gone => "gone",
        }
    }

    /// Whether the client would do well to connect again.
    pub fn reconnect(self) -> bool {
        match self {
            Ending::Drain
            | Ending::Overload
            | Ending::TooMany
            | Ending::TooManyKeys
            | Ending::TooFast
            | Ending::Lifetime
            | Ending::Reload
            | Ending::TooSlow
            | Ending::Unavailable
            | Ending::Expired { renewable: true } => true,
            Ending::TooBig
            | Ending::Protocol(_)
            | Ending::NotText
            | Ending::Refused(_)
            | Ending::Expired { renewable: false }
            | Ending::Gone => false,
        }
    }

    /// The WebSocket close code (RFC 6455 §7.4.1 and the IANA registry).
    pub fn close_code(self) -> u16 {
        match self {
            Ending::Drain | Ending::Lifetime | Ending::Reload => 1012,
            Ending::Overload
            | Ending::TooMany
            | Ending::TooManyKeys
            | Ending::TooFast
            | Ending::TooSlow
            | Ending::Unavailable => 1013,
            Ending::TooBig => 1009,
            Ending::Protocol(_) => 1002,
            // 4000 to 4999 are for applications.
            Ending::Expired { .. } | Ending::Refused("expired") => 4401,
            Ending::Refused(_) => 4403,
            Ending::NotText => 1007,
            Ending::Gone => 1000,
        }
    }
}
