//! `keyrelay check`: is this config sound, and what does it come to?

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::server::Address;

/// Tells what is wrong with a config, or sums it up.
pub(super) fn check(file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
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
    Ok(ExitCode::SUCCESS)
}

/// An address as a person would look for it.
fn address(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}
