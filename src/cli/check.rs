//! `keyrelay check`: is this config sound, what does it come to, and does its server agree?

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;
use crate::relay;
use crate::server::Address;
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
    writeln!(out, "  listens on {}", addresses.join(", "))?;
    writeln!(
        out,
        "  reads from {}, database {}",
        config.upstream.endpoint.address, config.upstream.endpoint.db
    )?;
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
    let findings = try_server(&config, canary.as_ref().map(|key| key.as_bytes()))?;
    super::print(&list(&findings)?)?;
    let problem = findings.iter().any(|finding| finding.verdict == Verdict::Problem);
    Ok(if problem { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn try_server(config: &Config, canary: Option<&[u8]>) -> anyhow::Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let upstream = &config.upstream;
    let needs = relay::needs(&config.mappings, upstream.endpoint.db, upstream.notifications);
    let proof = canary.map_or(Proof::Chance, Proof::Canary);
    Ok(runtime.block_on(probe::probe(&upstream.endpoint, &needs, proof)))
}

/// A line for each finding, and one for what to do about it.
fn list(findings: &[Finding]) -> Result<String, std::fmt::Error> {
    let mut out = "  the server:\n".to_owned();
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
