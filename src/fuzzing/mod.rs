//! What fuzzing is fed with: one function for each place where bytes from outside are read.
//!
//! Each takes any bytes and panics where something does not hold that must hold of all of them. They are compiled for
//! the targets in `fuzz/`, and for the test that runs them over the seeds, so that what was found once is never lost:
//! its input becomes a seed.

mod access;
mod config;
mod keys;
mod payload;
#[cfg(test)]
mod tests;

/// A place where bytes are read.
pub type Target = fn(&[u8]);

/// All of them, by the names of their files in `fuzz/fuzz_targets` and of their folders in `fuzz/seeds`.
pub const TARGETS: &[(&str, Target)] = &[
    // What a stranger sends.
    ("request", crate::server::fuzzing::request),
    ("proxies", crate::server::fuzzing::proxies),
    ("frames", crate::fanout::fuzzing::frames),
    ("messages", crate::transport::fuzzing::messages),
    ("names", keys::names),
    ("tokens", access::tokens),
    ("keys", access::keys),
    ("signed", access::signed),
    // What the upstream server sends.
    ("wire", crate::upstream::fuzzing::wire),
    ("answers", crate::upstream::fuzzing::answers),
    ("replies", crate::upstream::fuzzing::replies),
    ("cluster", crate::upstream::fuzzing::cluster),
    ("events", keys::events),
    ("payload", payload::payload),
    // What an operator writes.
    ("config", config::config),
    ("templates", keys::templates),
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or if it fails.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a target is in the table");
    target(data);
}
