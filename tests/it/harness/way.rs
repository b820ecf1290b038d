//! How the relays of a test are set up beyond what it says: how their clients speak, and by what they hear.

use std::cell::{Cell, RefCell};

use super::tls::Authority;

/// How clients speak to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS. WebSockets are opened over HTTP/1.1 then.
    Http2,
}

thread_local! {
    static TRACKING: Cell<bool> = const { Cell::new(false) };
    static WAY: Cell<Way> = const { Cell::new(Way::Plain) };
    static MORE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Way {
    /// That of this thread's test.
    pub fn current() -> Way {
        WAY.get()
    }
}

/// Lets the relays of this thread's test, and their clients, speak in this way.
pub fn over(way: Way) {
    WAY.set(way);
}

/// Like [`over`], with further options in the relays' `tls`.
pub fn over_with(way: Way, options: &str) {
    over(way);
    MORE.replace(format!(", {options}"));
}

/// Lets the relays of this thread's test hear by `source = "tracking"`.
pub fn track() {
    TRACKING.set(true);
}

/// Whether they do: then no message has an event's name.
pub fn is_tracking() -> bool {
    TRACKING.get()
}

/// The line of `[server]` by which a relay shows a certificate of this authority.
pub fn listener(authority: &Authority) -> String {
    let shown = authority.issue("relay", &["relay.test"]);
    let more = MORE.with_borrow(String::clone);
    let (certificate, key) = (shown.certificate.display(), shown.key.display());
    format!("tls = {{ certificate_file = \"{certificate}\", key_file = \"{key}\"{more} }}\n")
}
