//! `keyrelay healthcheck`: asks the relay of this config whether it lives, for images without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::shown::shown;
use crate::access::http::{Answer, Client, Url, exchange};
use crate::config;
use crate::server::Address;

/// All that a check takes: less than the shortest time after which those who run containers give up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest answer that is read; a line for each upstream node.
const ANSWER: usize = 64 << 10;

pub(super) const EXAMPLES: &str = "\
Examples:
  HEALTHCHECK CMD [\"/usr/bin/keyrelay\", \"healthcheck\"]
  keyrelay healthcheck --ready --config keyrelay.toml

What to ask for:
  The process lives: the default, for what restarts it if it does not.
  It serves what is true: --ready, for what sends clients elsewhere while it does not. A restart
  mends nothing then: it is often the server behind it that is away.

Exit codes:
  0   it is well
  1   it is not, or does not answer within 2 s; why is on standard error
  2   the command line was not understood";

#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// Ask whether it serves what is true (/readyz), not only whether it lives (/livez)
    #[arg(long)]
    ready: bool,
    /// Where operators ask it, as http://127.0.0.1:7401 [default: `listen` under [admin] of the config]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<String>,
    /// The config [default: ./keyrelay.toml, else /etc/keyrelay/keyrelay.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Asks once.
pub(super) fn healthcheck(wanted: Wanted) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = async {
        let asked = timeout(PATIENCE, ask(&wanted)).await;
        asked.with_context(|| format!("no answer within {PATIENCE:?}"))?
    };
    let answered = runtime.block_on(asked);
    // A name that is being resolved is waited for otherwise.
    runtime.shutdown_background();
    let (head, body) = answered?;
    let said = String::from_utf8_lossy(&body);
    let said: Vec<String> = said.lines().map(|line| shown(line.as_bytes())).collect();
    ensure!(head.status == StatusCode::OK, "{}: {}", head.status, said.join("; "));
    super::print(&(said.join("\n") + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(wanted: &Wanted) -> anyhow::Result<Answer> {
    let path = if wanted.ready { "/readyz" } else { "/livez" };
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Full::<Bytes>::default())?;
    if let Some(base) = &wanted.url {
        let url = url(base, path)?;
        let answer = Client::new().send(&url, request, ANSWER).await;
        return answer.with_context(|| format!("no answer of {url}"));
    }
    let address = address(wanted)?;
    let answer = match &address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            exchange(
                stream.with_context(|| format!("nobody listens at {address}"))?,
                request,
                ANSWER,
            )
            .await
        }
        Address::Tcp(tcp) => {
            let stream = TcpStream::connect(reachable(*tcp)).await;
            exchange(
                stream.with_context(|| format!("nobody listens at {address}"))?,
                request,
                ANSWER,
            )
            .await
        }
    };
    answer.with_context(|| format!("no answer at {address}"))
}

/// The URL of this path at the place that `--url` names.
fn url(base: &str, path: &str) -> anyhow::Result<Url> {
    // What is wrong is told of what was written, so that it can be written as it is told.
    let url =
        Url::parse(base).map_err(|error| anyhow::anyhow!("--url {base}: {error}: {}; {}", error.why, error.instead))?;
    let asked = url.below(&["/livez", "/readyz"], path);
    asked.with_context(|| format!("--url {base} is too long"))
}

/// Where the config has operators ask. What else is wrong with the config, the relay that runs does not know either.
fn address(wanted: &Wanted) -> anyhow::Result<Address> {
    let listen = match super::find(wanted.config.clone()) {
        Some(path) => config::admin(&path, &|name| std::env::var(name).ok()).map_err(|problems| {
            let told = problems.render(&path, false);
            anyhow::anyhow!("the config does not say where operators ask:\n{}", told.trim_end())
        })?,
        // As a relay listens whose config says nothing of it.
        None => config::ADMIN,
    };
    if matches!(&listen, Address::Tcp(tcp) if tcp.port() == 0) {
        bail!(
            "`listen` under [admin] leaves the port to the system, so the config does not tell it: name one, or give --url"
        );
    }
    Ok(listen)
}

/// What listens at every address of the machine is asked at its loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_what_is_asked() {
        for base in ["http://foo", "http://foo/", "http://foo/livez", "http://foo/readyz/"] {
            assert_eq!(url(base, "/readyz").unwrap().to_string(), "http://foo/readyz");
        }
        let error = url("foo", "/livez").unwrap_err().to_string();
        assert!(error.ends_with("; write http://foo"), "{error}");
    }

    #[test]
    fn every_address_is_reached_at_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9091", "127.0.0.1:9091"),
            ("[::]:7401", "[::1]:7401"),
            ("10.0.0.7:7401", "10.0.0.7:7401"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
