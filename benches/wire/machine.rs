//! The machine: who runs on which processor, how many files may be open, and what it is called in the results.

use std::fs::read_to_string;
use std::sync::LazyLock;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Open files that are asked for: two for each of 250,000 connections are in two processes, and some more.
const FILES: u64 = 300_000;

/// What [`now`] counts from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The processors that there are.
static ALL: LazyLock<CpuSet> = LazyLock::new(|| sched_getaffinity(None).expect("a process has processors"));

/// One processor for the process that is measured, and the others for all else; `None` if there is but one.
static APART: LazyLock<Option<(CpuSet, CpuSet)>> = LazyLock::new(|| {
    let mut rest = *ALL;
    if rest.count() < 2 {
        return None;
    }
    let first = (0..CpuSet::MAX_CPU).find(|&core| rest.is_set(core))?;
    rest.unset(first);
    let mut measured = CpuSet::new();
    measured.set(first);
    Some((measured, rest))
});

/// Which processors a measurement uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// What is measured has one for itself, and with it one shard; the server and the clients have the others.
    One,
    /// All processes have all of them, and what is measured has two threads for its clients.
    All,
}

impl Cores {
    /// Puts this thread, and whatever it starts from now on, where the server and the clients are.
    pub fn as_load(self) {
        self.settle(|(_, rest)| rest);
    }

    /// Does something, as starting a process, where what is measured is. A child inherits the processors of the thread that
    /// starts it, and counts them to know how many threads to have.
    pub fn as_measured<T>(self, what: impl FnOnce() -> T) -> T {
        self.settle(|(measured, _)| measured);
        let done = what();
        self.as_load();
        done
    }

    fn settle(self, which: impl Fn(&(CpuSet, CpuSet)) -> &CpuSet) {
        let set = match (self, &*APART) {
            (Cores::One, Some(apart)) => which(apart),
            _ => &*ALL,
        };
        sched_setaffinity(None, set).expect("they are our own");
    }
}

/// Nanoseconds of a clock that never goes back, since this process first asked.
pub fn now() -> u64 {
    START.elapsed().as_nanos() as u64
}

/// Allows as many open files as it takes or, where the hard limit may not be raised, as it says; children inherit that.
/// Returns how many that are.
pub fn raise_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let most = |files| Rlimit {
        current: Some(files),
        maximum: Some(files),
    };
    if hard < FILES && setrlimit(Resource::Nofile, most(FILES)).is_ok() {
        return FILES;
    }
    let files = hard.min(FILES);
    let soft = Rlimit {
        current: Some(files),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, soft).expect("the soft limit may be raised to the hard one");
    files
}

/// What figures depend on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    cpu: String,
    cores: u32,
    kernel: String,
    server: String,
}

impl Machine {
    /// This one, with a server that calls itself `server`.
    pub fn this(server: String) -> Machine {
        let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: ALL.count(),
            kernel: kernel.trim().to_owned(),
            server,
        }
    }

    /// On one line.
    pub fn describe(&self) -> String {
        format!(
            "{}, {} cores, Linux {}, {}",
            self.cpu, self.cores, self.kernel, self.server
        )
    }
}
