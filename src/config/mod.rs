//! The config: a TOML file as written, and what it means.
//!
//! * `file`: every option as it was written, with its place (`reader` takes them out of the TOML, `words`
//!   lists them, `mistakes` tells what was found in their place)
//! * `compile`: what an option means (`server`, `origins`, `proxies`, `limits`, `room`, `admin`, `upstream`,
//!   `server_tls`, `tls`, `access`, `options`, `mapping` are its parts, `units` and `variables` the small languages in its
//!   texts, `include` further files)
//! * `ways`: who may read a mapping's channels
//! * `contradictions`: options of one mapping that cannot go together
//! * `agree`: what only shows when all mappings are seen together
//! * `diagnostics`: what is wrong, told as a compiler would (`hidden`: without the secrets)
//! * `origin`: where each value came from
//! * [`reload`]: what another config changes while the relay runs
//! * `memory`: how much memory it comes to
//!
//! Nothing but [`Config`] leaves this module, and no other part knows of it: each defines the options that it takes.

mod access;
mod admin;
mod agree;
mod compile;
mod contradictions;
mod diagnostics;
mod file;
mod hidden;
mod include;
mod limits;
mod log;
mod mapping;
mod memory;
mod mistakes;
mod options;
mod origin;
mod origins;
mod proxies;
mod reader;
pub mod reload;
mod room;
mod server;
mod server_tls;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod upstream;
mod url;
mod variables;
mod ways;
mod words;

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use admin::ADMIN;
pub use diagnostics::Problems;
pub use memory::Memory;
pub use origin::{From, Origin};
pub use variables::Environment;
pub use words::Section;

use crate::mapping::MappingId;
use crate::process::logging;
use crate::relay::Rule;
use crate::upstream::feed::Notifications;
use crate::upstream::{Endpoint, Topology};
use crate::{admin as operators, fanout, hub, relay, server as public};
use compile::Compiler;
use diagnostics::{Problem, Source};

/// What a config means.
#[derive(Debug)]
pub struct Config {
    /// The public listeners.
    pub server: public::Options,
    /// The listener for operators.
    pub admin: operators::Options,
    /// The clients' streams.
    pub fanout: fanout::Options,
    /// The channels.
    pub hub: hub::Options,
    /// What the mirror may hold, and ask of the server.
    pub mirror: relay::Limits,
    /// The server whose keys are relayed.
    pub upstream: Upstream,
    /// What is logged.
    pub log: logging::Options,
    /// The mappings, in the order they were written; included files follow the file that names them.
    pub mappings: Vec<Arc<Rule>>,
    /// Where each value came from that is not a default, those of single mappings aside.
    pub origin: Vec<Origin>,
    /// The files that it was read from or that it names, and the folders in which they were looked for.
    pub files: Vec<PathBuf>,
}

/// The server whose keys are relayed.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it is, which database, and who logs in.
    pub endpoint: Endpoint,
    /// How it is found, if not by the address.
    pub topology: Topology,
    /// Where it tells that keys changed.
    pub source: crate::upstream::Source,
    /// What is done about the server's setting of keyspace notifications.
    pub notifications: Notifications,
    /// How long a round of second looks at all mirrored keys takes; `None` if there are none.
    pub verify: Option<Duration>,
}

/// A duration as a config has it, e.g. `5m`.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|error| format!("{}: {}", error.what, error.instead))
}

/// Reads a config file and the files that it includes.
///
/// # Errors
/// All that is wrong with them.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Config, Problems> {
    match fs::read_to_string(path) {
        Ok(text) => compile(path, text, environment),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problems {
    let mut problems = Problems::default();
    problems.others.push(path.to_path_buf());
    let shown = path.display().to_string();
    let unreadable = Problem::elsewhere(
        shown,
        format!("the config cannot be read: {}", diagnostics::reason(error)),
    );
    problems.add(unreadable.instead(match error.kind() {
        ErrorKind::NotFound => "put it there, or give the path of another: keyrelay check /etc/keyrelay/keyrelay.toml",
        ErrorKind::InvalidData => "save it as UTF-8",
        ErrorKind::PermissionDenied => "let the user that keyrelay runs as read it",
        _ => "give the path of a file: keyrelay check /etc/keyrelay/keyrelay.toml",
    }));
    problems
}

/// Where a relay of this config listens for operators, whatever else may be wrong with the file by now.
///
/// # Errors
/// If the file does not say: it cannot be read, is no TOML, or what it says is no address.
pub fn admin(path: &Path, environment: Environment<'_>) -> Result<public::Address, Problems> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let mut problems = Problems::default();
    problems.sources.push(Source::new(path.to_path_buf(), text));
    let Some(file) = file::parse(0, environment, &mut problems) else {
        return Err(problems);
    };
    // What is wrong with other options is not asked.
    problems.clear();
    let mut compiler = Compiler {
        environment,
        problems: &mut problems,
        origin: Vec::new(),
    };
    let listen = compiler.admin_listen(&file.admin);
    match problems.is_empty() {
        true => Ok(listen),
        false => Err(problems),
    }
}

/// Compiles the text of a config as if it had been read from `path`.
///
/// # Errors
/// All that is wrong with it.
pub fn compile(path: &Path, text: String, environment: Environment<'_>) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    problems.sources.push(Source::new(path.to_path_buf(), text));
    let Some(mut file) = file::parse(0, environment, &mut problems) else {
        return Err(problems);
    };
    let mut compiler = Compiler {
        environment,
        problems: &mut problems,
        origin: Vec::new(),
    };
    if let Some(list) = file.include.take() {
        let main = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        compiler.include(&list, &mut vec![main], &mut Vec::new(), &mut file);
    }
    let (places, access) = compiler.access(&file.access);
    let limits = compiler.limits(&file.limits);
    let room = compiler.room(&file.limits);
    let (server, fanout, hub) = compiler.server(&file.server, limits, &room, places, access);
    let admin = compiler.admin(&file.admin, &server);
    let log = compiler.log(&file.log);
    let upstream = compiler.upstream(&file.upstream);
    let defaults = compiler.options("defaults", &file.defaults, &options::Options::default());
    let mut files = HashMap::new();
    let compiled: Vec<mapping::Compiled> = (0..)
        .map(MappingId)
        .zip(&file.mappings)
        .filter_map(|(id, mapping)| compiler.mapping(id, mapping, &defaults, &mut files))
        .collect();
    compiler.agreement(&compiled);
    if upstream.source == crate::upstream::Source::Tracking {
        compiler.without_events(file.upstream.source.as_ref(), &compiled);
    }
    let mut origin = compiler.origin;
    origin.sort_by(|a, b| a.from.cmp(&b.from));
    if !problems.is_empty() {
        return Err(problems);
    }
    debug_assert_eq!(
        compiled.len(),
        file.mappings.len(),
        "a mapping went without a problem being told"
    );
    let mappings = compiled.into_iter().map(|mapping| Arc::new(mapping.rule)).collect();
    Ok(Config {
        server,
        admin,
        fanout,
        hub,
        mirror: room.mirror,
        upstream,
        log,
        mappings,
        origin,
        files: problems.files(),
    })
}
