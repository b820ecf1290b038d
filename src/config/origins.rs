//! `origins` of `[server]`: whose pages may connect.

use std::net::Ipv6Addr;

use super::compile::{Compiler, Name};
use super::diagnostics::Problem;
use super::reader::{List, Written};

impl Compiler<'_> {
    /// `ambient`: browsers may show credentials by themselves, in cookies.
    pub(crate) fn origins(&mut self, list: &List, ambient: bool) -> Vec<String> {
        let mut origins = Vec::new();
        for written in &list.value {
            match origin(written) {
                Ok(origin) if origin == "*" && ambient => self.problems.add(
                    Problem::new(written.at, "\"*\" together with cookies", "every page of the web")
                        .why("a browser sends its user's cookies along, so any page could read what its visitors may")
                        .instead("list the origins, as [\"https://app.example.com\"], or leave `cookie` and `ask` of [access] out"),
                ),
                Ok(origin) => origins.push(origin),
                Err(problem) => self.problems.add(problem),
            }
        }
        if !origins.is_empty() {
            let shown = origins
                .iter()
                .map(|origin| format!("\"{origin}\""))
                .collect::<Vec<_>>()
                .join(", ");
            let name = Name {
                section: "server",
                option: "origins",
            };
            self.note(name, list, format!("[{shown}]"));
        }
        origins
    }
}

/// An origin as browsers write it (RFC 6454 §6.2): lower case, without the scheme's own port. Its host may begin with `*.`.
fn origin(written: &Written<String>) -> Result<String, Problem> {
    let text = written.value.to_ascii_lowercase();
    if text == "*" {
        return Ok(text);
    }
    let wrong = |label: &str| {
        Problem::new(written.at, "not an origin", label)
            .why("a browser names the page's scheme, host and port, and nothing else: https://app.example.com")
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(if text == "null" {
            wrong("the origin of pages without one")
                .instead("serve the page from a server; \"*\" would let every page in")
        } else {
            wrong("no scheme").instead(format!("write \"https://{text}\""))
        });
    };
    if scheme != "http" && scheme != "https" {
        return Err(wrong("neither http nor https").instead(format!("write \"https://{rest}\"")));
    }
    if let Some(end) = rest.find(['/', '?', '#']) {
        return Err(wrong("a path is no part of an origin").instead(format!("write \"{scheme}://{}\"", &rest[..end])));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(wrong("the port is not a number").instead(format!("write \"{scheme}://{host}\"")));
    }
    let plain = host.strip_prefix("*.").unwrap_or(host);
    if plain.contains('*') {
        return Err(wrong("a `*` that is not the first part of the host")
            .instead("write \"https://*.example.com\" for all hosts below example.com, or each origin"));
    }
    if plain.len() < host.len() && !plain.contains('.') {
        return Err(
            wrong("all hosts of a top-level domain").instead("name a domain of yours: \"https://*.example.com\"")
        );
    }
    let is_host = plain
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    if plain.is_empty() || !(is_host || is_v6) {
        return Err(
            wrong("not the name of a host").instead("names beyond ASCII are written as browsers send them: xn--…")
        );
    }
    let own = if scheme == "https" { "443" } else { "80" };
    Ok(match port.filter(|port| *port != own) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}
