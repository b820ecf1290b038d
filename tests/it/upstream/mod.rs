//! The feed and the reader against a real server, without the relay around them.

mod feed;
mod reader;

use keyrelay::upstream::{Address, Endpoint};

use crate::harness::Server;

fn endpoint(server: &Server) -> Endpoint {
    Endpoint {
        address: Address::Tcp {
            host: server.address().ip().to_string(),
            port: server.address().port(),
        },
        tls: None,
        db: 0,
        username: None,
        password: None,
        client_name: "keyrelay-test".into(),
    }
}
