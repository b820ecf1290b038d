//! How many files and connections the system lets the process have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to this number, as far as the system allows it without a privilege, and tells how many of
/// them may then be open.
pub fn make_room(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current < wanted) else {
        return wanted;
    };
    let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let raised = Rlimit {
        current: Some(most),
        ..limit
    };
    // No privilege is needed below the maximum; where it is refused all the same, it stays as it was.
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most.max(current),
        Err(_) => current,
    }
}
