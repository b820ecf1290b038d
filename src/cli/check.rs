//! `keyrelay check`: is this config sound, what does it come to, and does its server agree?

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use crate::config::Config;
use crate::relay;
use crate::server::Address;
use crate::upstream::Topology;
use crate::upstream::probe::{self, Finding, Proof, Verdict};

/// Tells what is wrong with a config, or sums it up; with `connect`, tries its server too.
pub(super) fn check(file: Option<PathBuf>, connect: bool, canary: Option<OsString>) -> anyhow::Result<ExitCode> {
    let (path, config) = match super::load(file) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let mut out = format!("{}: ok\n", path.display());
    match config.mappings.len() {
        0 => out.push_str("  no mapping: nothing is open to anyone\n"),
        1 => out.push_str("  1 mapping\n"),
        many => writeln!(out, "  {many} mappings")?,
    }
    let addresses: Vec<String> = config.server.listen.iter().map(address).collect();
    for warning in super::warnings(&config) {
        writeln!(out, "  warning: {warning}")?;
    }
    if let Some(note) = super::open_to_others(&config) {
        writeln!(out, "  note: {note}")?;
    }
    writeln!(out, "  listens on {}", addresses.join(", "))?;
    if let Some(tls) = &config.server.tls {
        out.push_str("  over TLS, where it is a TCP address\n");
        // That they can be loaded was found out with all else; a moment later they cannot only if somebody is at it.
        if let Ok((_, Some(untimely))) = tls.load(SystemTime::now()) {
            writeln!(out, "  warning: {untimely}: clients will not accept it")?;
        }
    }
    let endpoint = &config.upstream.endpoint;
    let place = config.upstream.topology.place(endpoint);
    writeln!(out, "  reads from {place}, database {}", endpoint.db)?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    writeln!(out, "  takes at most about {} (docs/limits.md)", config.memory(cores))?;
    if config.origin.is_empty() {
        out.push_str("  every option is at its default\n");
    } else {
        out.push_str("  not at their defaults:\n");
        for origin in &config.origin {
            writeln!(out, "    {origin}")?;
        }
    }
    super::print(&out)?;
    if !connect {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sound = runtime.block_on(try_servers(&config, canary.as_ref().map(|key| key.as_bytes())))?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries the server, or each of several, and prints what is found; says whether there is no problem.
async fn try_servers(config: &Config, canary: Option<&[u8]>) -> anyhow::Result<bool> {
    let upstream = &config.upstream;
    let servers = match upstream.topology.servers(&upstream.endpoint).await {
        Ok(servers) => servers,
        Err(why) => {
            super::print(&format!("  nobody says where the servers are: {why}\n"))?;
            return Ok(false);
        }
    };
    let needs = relay::needs(
        &config.mappings,
        upstream.source,
        &upstream.topology,
        upstream.endpoint.db,
        upstream.notifications,
    );
    let mut sound = true;
    for server in servers {
        let proof = canary.map_or(Proof::Chance, Proof::Canary);
        let findings = probe::probe(&server, &needs, proof).await;
        let name = match upstream.topology {
            Topology::Server => "the server".to_owned(),
            Topology::Sentinel(_) | Topology::Cluster(_) => format!("the server at {}", server.address),
        };
        super::print(&list(&name, &findings)?)?;
        sound &= findings.iter().all(|finding| finding.verdict != Verdict::Problem);
    }
    Ok(sound)
}

/// A line for each finding, and one for what to do about it.
fn list(server: &str, findings: &[Finding]) -> Result<String, std::fmt::Error> {
    let mut out = format!("  {server}:\n");
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
            Verdict::Unknown => "unknown",
        };
        writeln!(out, "    {verdict:<8} {:<14} {}", finding.subject, finding.says)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "    {:<8} {:<14} -> {remedy}", "", "")?;
        }
    }
    Ok(out)
}

/// An address as a person would look for it.
fn address(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}
