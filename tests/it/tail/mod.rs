//! `keyrelay tail`: key events, deliveries, and a running relay.

mod channel;
mod keys;
mod url;

use crate::harness::{Server, Written};

/// A config for this server: lines of `[upstream]`, and mappings.
fn config(server: &Server, upstream: &str, mappings: &str) -> Written {
    Written::new(&format!(
        "[upstream]\nurl = \"{}\"\n{upstream}\n{mappings}\n",
        server.url()
    ))
}
