//! What is measured: a module for each family of cases.

mod catchup;
mod connect;
mod cost;
mod fanout;
mod growth;
mod http2;
mod ingest;
mod large;
mod latency;
mod memory;

use super::bench::Bench;

/// The family that takes minutes and gigabytes.
pub const LARGE: &str = "large";

/// Cases that belong together.
pub struct Family {
    /// With this their names begin.
    pub name: &'static str,
    /// Whether they are measured unless others are asked for.
    pub by_default: bool,
    /// Measures those that are wanted.
    pub run: fn(&mut Bench),
}

/// All of them, in the order of the table.
pub const FAMILIES: [Family; 10] = [
    by_default("fanout", fanout::run),
    by_default("memory", memory::run),
    by_default("connect", connect::run),
    by_default("latency", latency::run),
    by_default("ingest", ingest::run),
    by_default("catchup", catchup::run),
    by_default("cost", cost::run),
    by_default("http2", http2::run),
    if_asked_for("growth", growth::run),
    if_asked_for(LARGE, large::run),
];

const fn by_default(name: &'static str, run: fn(&mut Bench)) -> Family {
    Family {
        name,
        by_default: true,
        run,
    }
}

const fn if_asked_for(name: &'static str, run: fn(&mut Bench)) -> Family {
    Family {
        name,
        by_default: false,
        run,
    }
}
