//! What the process takes of the machine, as `/proc` tells it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

/// What it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// Of all cores together, since the start.
    pub cpu_seconds: f64,
    /// In memory now.
    pub resident_bytes: u64,
    /// Of the address space; most of it is never touched.
    pub virtual_bytes: u64,
    /// Descriptors now.
    pub open_files: u64,
    /// Descriptors that it may have; nothing if there is no limit.
    pub max_files: Option<u64>,
}

/// What this process has taken; nothing where there is no `/proc`.
pub fn usage() -> Option<Usage> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (user, system) = times(&stat)?;
    let memory = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = memory.split(' ').map(|pages| pages.parse::<u64>().ok());
    let (all, resident) = (pages.next()??, pages.next()??);
    let page = page_size() as u64;
    // The descriptor that reads the directory is one of them.
    let open_files = (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1);
    Some(Usage {
        cpu_seconds: (user + system) as f64 / clock_ticks_per_second() as f64,
        resident_bytes: resident * page,
        virtual_bytes: all * page,
        open_files,
        max_files: getrlimit(Resource::Nofile).current,
    })
}

/// The ticks spent in the process and in the kernel for it: fields 14 and 15 of proc_pid_stat(5). The second field is a name
/// in brackets that may have anything in it.
fn times(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11).map(|field| field.parse().ok());
    Some((fields.next()??, fields.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_stand_behind_a_name_that_may_be_anything() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 2 0 0 0 17 4 0 0 20 0 1 0 100 200 300";
        assert_eq!(times(stat), Some((17, 4)));
        assert_eq!(times("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let before = usage().expect("there is a /proc");
        let held = fs::File::open("/proc/self/stat").unwrap();
        let after = usage().unwrap();
        assert!(before.resident_bytes > 1 << 20 && before.virtual_bytes > before.resident_bytes);
        assert!(after.cpu_seconds >= before.cpu_seconds);
        // Other tests of this process open and close some as well.
        assert!(after.open_files > 3, "{after:?}");
        drop(held);
    }
}
