//! `proxies` and `client_address` of `[server]`: which peers are believed, and how they name their clients.

use std::net::IpAddr;

use ipnet::IpNet;

use super::compile::{Compiler, Name};
use super::diagnostics::Problem;
use super::file;
use super::reader::Written;
use crate::server::{ClientAddress, Visitors};

const WORDS: [(&str, ClientAddress); 4] = [
    ("peer", ClientAddress::Peer),
    ("fly-client-ip", ClientAddress::FlyClientIp),
    ("x-forwarded-for", ClientAddress::ForwardedFor),
    ("proxy-protocol", ClientAddress::ProxyProtocol),
];

fn name(option: &'static str) -> Name {
    Name {
        section: "server",
        option,
    }
}

impl Compiler<'_> {
    pub(crate) fn visitors(&mut self, file: &file::Server) -> Visitors {
        let told = self.word(
            name("client_address"),
            file.client_address.as_ref(),
            ClientAddress::Peer,
            &WORDS,
        );
        let mut visitors = Visitors {
            told,
            ..Visitors::default()
        };
        let written = file.proxies.as_ref().filter(|list| !list.value.is_empty());
        for item in written.iter().flat_map(|list| &list.value) {
            match item.value.as_str() {
                "unix" => visitors.unix = true,
                _ => match network(item) {
                    Ok(network) => visitors.proxies.push(network),
                    Err(problem) => self.problems.add(problem),
                },
            }
        }
        if let Some(list) = written {
            let shown: Vec<String> = list.value.iter().map(|item| format!("\"{}\"", item.value)).collect();
            self.note(name("proxies"), list, format!("[{}]", shown.join(", ")));
        }
        // A word that is none was told already.
        let known = |word: &Written<String>| WORDS.iter().any(|(known, _)| *known == word.value);
        match (written, file.client_address.as_ref()) {
            (None, Some(word)) if told != ClientAddress::Peer => self.problems.add(
                Problem::new(word.at, "`client_address` without `proxies`", "nobody may say this")
                    .why("anyone can write any address into a request; only proxies that you name are believed")
                    .instead("add proxies = [\"127.0.0.1\"] with the addresses from which your proxy connects"),
            ),
            (Some(list), word) if told == ClientAddress::Peer && word.is_none_or(known) => self.problems.add(
                Problem::new(
                    list.at,
                    "`proxies` without `client_address`",
                    "nothing is asked of them",
                )
                .why("proxies name their clients in different ways, and what one does not write itself a stranger may")
                .instead(
                    "add client_address = \"x-forwarded-for\", \"fly-client-ip\" or \"proxy-protocol\", whichever your \
                         proxy writes",
                ),
            ),
            _ => {}
        }
        visitors
    }
}

/// An address, or a network of them.
fn network(written: &Written<String>) -> Result<IpNet, Problem> {
    let text = written.value.trim();
    let wrong = |label: &str| Problem::new(written.at, "not an address or network of a proxy", label);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let Ok(network) = text.parse::<IpNet>() else {
        let named = text.contains(|letter: char| letter.is_ascii_alphabetic()) && !text.contains(':');
        return Err(if text.starts_with('/') || text.starts_with("unix:") {
            wrong("a path").instead("write \"unix\": it stands for everyone who connects over a Unix socket")
        } else if named {
            wrong("a name")
                .why("a name may come to mean another machine, and whoever has it then would be believed")
                .instead("write addresses: [\"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"]")
        } else {
            wrong("cannot be read").instead("write addresses: [\"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"]")
        });
    };
    if network.prefix_len() == 0 {
        return Err(wrong("every address there is")
            .why("each client could then pass for any other, and no limit per address would hold")
            .instead("write the addresses from which your proxy connects"));
    }
    if network.trunc() != network {
        return Err(wrong("an address within a network")
            .why("it is not clear whether one machine is meant or all of them")
            .instead(format!("write \"{}\" or \"{}\"", network.addr(), network.trunc())));
    }
    Ok(network)
}
