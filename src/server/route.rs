//! Which resource a URL's path names, and which methods it takes.

use hyper::Method;

/// A resource below the configured prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/events`: a stream over Server-Sent Events.
    Events,
    /// `/ws`: a WebSocket.
    WebSocket,
    /// `/channels`: the state of the channels that the query names.
    Channels,
    /// `/channels/{channel}`: the state of one channel, whose name is still percent-encoded. A name may contain `/`.
    Channel(&'a str),
}

impl<'a> Route<'a> {
    /// The resource at `path`; `prefix` starts with `/` and does not end with it, or is empty.
    pub fn find(prefix: &str, path: &'a str) -> Option<Route<'a>> {
        match path.strip_prefix(prefix)?.strip_prefix('/')? {
            "events" => Some(Route::Events),
            "ws" => Some(Route::WebSocket),
            "channels" => Some(Route::Channels),
            rest => rest.strip_prefix("channels/").map(Route::Channel),
        }
    }

    /// The methods it takes, as the header `Allow` names them. A stream has no `HEAD`: it would have to open the channels
    /// to know whether the answer is 200.
    pub fn allow(self) -> &'static str {
        match self {
            Route::Events | Route::WebSocket => "GET, OPTIONS",
            Route::Channels | Route::Channel(_) => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether the method is one of [`allow`](Route::allow).
    pub fn takes(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_below_the_prefix_only() {
        assert_eq!(Route::find("", "/events"), Some(Route::Events));
        assert_eq!(Route::find("", "/ws"), Some(Route::WebSocket));
        assert_eq!(Route::find("/keyrelay", "/keyrelay/channels"), Some(Route::Channels));
        assert_eq!(Route::find("", "/channels/a%2Fb/c"), Some(Route::Channel("a%2Fb/c")));
        assert_eq!(Route::find("", "/channels/"), Some(Route::Channel("")));
        for wrong in [
            "/",
            "",
            "*",
            "/event",
            "/events/",
            "/Events",
            "//events",
            "/keyrelay/events",
        ] {
            assert_eq!(Route::find("", wrong), None, "{wrong}");
        }
        assert_eq!(Route::find("/keyrelay", "/events"), None);
        assert_eq!(Route::find("/keyrelay", "/keyrelayevents"), None);
    }

    #[test]
    fn methods_are_matched_whole() {
        assert!(Route::Events.takes(&Method::GET) && Route::Events.takes(&Method::OPTIONS));
        assert!(!Route::Events.takes(&Method::HEAD) && !Route::WebSocket.takes(&Method::POST));
        assert!(Route::Channels.takes(&Method::HEAD));
        assert!(!Route::Channels.takes(&Method::from_bytes(b"GE").unwrap()));
    }
}
