//! Why a session ends, and whether the client should come back.

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This process goes down in order.
    Drain,
    /// There is no room for one more.
    Overload,
    /// The client took nothing for as long as is allowed.
    TooSlow,
    /// The client sent a message larger than is allowed.
    TooBig,
    /// The client broke the protocol; the text says how.
    Protocol(&'static str),
    /// The client sent a text message that is not UTF-8.
    NotText,
    /// The client has gone, or said that it is going.
    Gone,
}

impl Ending {
    /// The word for clients and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Ending::Drain => "drain",
            Ending::Overload => "overload",
            Ending::TooSlow => "too-slow",
            Ending::TooBig => "too-big",
            Ending::Protocol(_) | Ending::NotText => "protocol",
            Ending::Gone => "gone",
        }
    }

    /// Whether the client would do well to connect again.
    pub fn reconnect(self) -> bool {
        matches!(self, Ending::Drain | Ending::Overload | Ending::TooSlow)
    }

    /// The WebSocket close code (RFC 6455 §7.4.1 and the IANA registry).
    pub fn close_code(self) -> u16 {
        match self {
            Ending::Drain => 1012,
            Ending::Overload | Ending::TooSlow => 1013,
            Ending::TooBig => 1009,
            Ending::Protocol(_) => 1002,
            Ending::NotText => 1007,
            Ending::Gone => 1000,
        }
    }
}
