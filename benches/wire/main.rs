//! What keyrelay costs beside the least that its work can cost, in the same run on the same machine.
//!
//! The floor is a process of its own that does nothing but what no relay of keys can do without: it hears of each change,
//! gets the value, and sends the same bytes to each subscriber, all from one bare epoll loop. It checks nothing and
//! survives nothing. What the relay costs above it is all that keyrelay adds.
//!
//!     cargo bench --bench wire -- [NAME-PREFIX…] [--json FILE] [--markdown FILE] [--check FILE]
//!         [--large] [--plots FOLDER] [--peer SCRIPT]…
//!
//! measures the cases whose names begin so, or all that take less than ten minutes together. `docs/performance.md` says
//! what the figures mean.

#![expect(clippy::print_stdout, reason = "what it has to say is a table")]

mod bench;
mod cases;
mod floor;
mod load;
mod machine;
mod plot;
mod process;
mod report;
mod server;
mod streams;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use bench::Bench;
use machine::{Cores, Machine};
use process::Peer;
use report::Report;
use server::Server;

/// Measures keyrelay beside the least that its work can cost.
#[derive(Debug, Parser)]
struct Arguments {
    /// What the names of the cases begin with that are to be measured
    names: Vec<String>,
    /// Write what was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table to this file, in Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Fail if a figure is worse than in this file by more than its noise
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Measure 250,000 connections, too, which takes several minutes
    #[arg(long)]
    large: bool,
    /// Measure the relay that this script starts, too
    #[arg(long = "peer", value_name = "SCRIPT")]
    peers: Vec<PathBuf>,
    /// Draw the figures of `growth` into this folder
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    /// Said by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// How the clients are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Sse,
    WebSocket,
}

impl Transport {
    const ALL: [Transport; 2] = [Transport::Sse, Transport::WebSocket];

    /// As in the names of cases.
    fn name(self) -> &'static str {
        match self {
            Transport::Sse => "sse",
            Transport::WebSocket => "ws",
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let all: Vec<String> = std::env::args().collect();
    if let [_, floor, server, options @ ..] = &all[..]
        && floor == "floor"
    {
        let options = floor::Options::from_arguments(options).context("these are no options of the floor")?;
        floor::run(server.parse()?, options);
        return Ok(ExitCode::SUCCESS);
    }
    // `cargo test --benches` only wants to know that it starts.
    if !all.iter().any(|argument| argument == "--bench") {
        return Ok(ExitCode::SUCCESS);
    }
    measure(Arguments::parse())
}

fn measure(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let recorded = arguments.check.as_ref().map(|file| -> anyhow::Result<Report> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no results of this bench", file.display()))
    });
    let recorded = recorded.transpose()?;
    let files = machine::raise_files() as usize;
    Cores::One.as_load();
    let mut bench = Bench {
        report: Report::new(Machine::this(Server::start().version())),
        peers: arguments.peers.iter().map(|script| Peer::new(script)).collect(),
        names: arguments.names,
        plots: arguments.plots,
        files,
    };
    bench.report.print_head();
    for family in cases::FAMILIES {
        let named = |prefix: &String| prefix.starts_with(family.name) || family.name.starts_with(prefix.as_str());
        let asked = bench.names.iter().any(named) || family.name == cases::LARGE && arguments.large;
        if asked || family.by_default && bench.names.is_empty() {
            (family.run)(&mut bench);
        }
    }
    if let Some(file) = &arguments.json {
        bench.report.write(file)?;
    }
    if let Some(file) = &arguments.markdown {
        bench.report.write_markdown(file)?;
    }
    let worse = recorded.map_or_else(Vec::new, |recorded| bench.report.worse_than(&recorded));
    for figure in &worse {
        println!("WORSE {figure}");
    }
    Ok(if worse.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
