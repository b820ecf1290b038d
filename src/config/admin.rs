//! `[admin]`: its address checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::compile::{Compiler, Name};
use super::diagnostics::Problem;
use super::file;
use super::server::takes_any_port;
use crate::admin::Options;
use crate::server::{self, Address};

/// Where operators ask if the config says nothing of it.
pub const ADMIN: Address = Address::Tcp(LISTEN);

/// Loopback only: whoever reaches it learns addresses and numbers that are nobody else's business.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7401);

impl Compiler<'_> {
    pub(crate) fn admin(&mut self, file: &file::Admin, public: &server::Options) -> Options {
        let listen = self.admin_listen(file);
        let Some(written) = &file.listen else {
            return Options { listen };
        };
        if public.listen.contains(&listen) && !takes_any_port(&listen) {
            self.problems.add(
                Problem::new(
                    written.at,
                    "the address of the public listener",
                    "[server] listens here",
                )
                .why("what is for operators is never served to clients, and an address can be taken only once")
                .instead(format!("write \"{LISTEN}\", or leave it out")),
            );
        } else if listen != ADMIN {
            let name = Name {
                section: "admin",
                option: "listen",
            };
            self.note(name, written, format!("\"{}\"", written.value));
        }
        Options { listen }
    }
    /// Where operators ask, whatever the rest of the config says.
    pub(crate) fn admin_listen(&mut self, file: &file::Admin) -> Address {
        let Some(written) = &file.listen else { return ADMIN };
        self.address(written, LISTEN.port()).unwrap_or_else(|problem| {
            self.problems.add(problem);
            ADMIN
        })
    }
}
