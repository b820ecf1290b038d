//! How keyrelay shows that it has not hung.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::notify::config;
use super::{Manager, Service, Setup};
use crate::harness::{Server, eventually};

const FED: &str = "WATCHDOG=1";

fn last_fed(manager: &mut Manager) -> Option<Instant> {
    let told = manager.told().iter().rev();
    let mut fed = told.filter(|(_, lines)| lines.iter().any(|line| line == FED));
    fed.next().map(|(at, _)| *at)
}

/// Whether the server answers, stands still or is away: that is no hanging loop.
#[test]
fn it_is_fed_whatever_the_server_does() {
    let patience = Duration::from_secs(8);
    let mut server = Server::start();
    let mut manager = Manager::start();
    let config = config(&server.url());
    let setup = Setup {
        config: &config,
        watchdog: Some(patience),
        ..Setup::default()
    };
    let mut service = Service::start(&manager, setup);
    manager.wait_for_status("is heard");
    let mut feedings = manager.count(FED);
    let mut fed_again = |manager: &mut Manager| {
        for _ in 0..3 {
            feedings += 1;
            eventually("it is fed", || (manager.count(FED) >= feedings).then_some(()));
        }
    };
    fed_again(&mut manager);
    server.freeze();
    manager.wait_for_status("is not heard: upstream-late");
    fed_again(&mut manager);
    server.thaw();
    server.kill();
    manager.wait_for_status("is not heard: unreachable");
    fed_again(&mut manager);
    let fed: Vec<Instant> = manager
        .told()
        .iter()
        .filter(|(_, lines)| lines.iter().any(|line| line == FED))
        .map(|(at, _)| *at)
        .collect();
    for pair in fed.windows(2) {
        let between = pair[1] - pair[0];
        assert!(between < patience, "systemd would have ended it: {between:?}");
    }
    assert!(!service.log().contains("does not turn"), "{}", service.log());
    service.signal(Signal::TERM);
    assert!(service.wait().success());
}

/// The variables that systemd gave to another process, as a shell that starts keyrelay, are not about this one.
#[test]
fn what_is_meant_for_another_process_is_not_heeded() {
    let mut manager = Manager::start();
    let config = config("redis://127.0.0.1:1");
    let setup = Setup {
        config: &config,
        watchdog: Some(Duration::from_millis(400)),
        variables: &[("WATCHDOG_PID", "1")],
        ..Setup::default()
    };
    let mut service = Service::start(&manager, setup);
    manager.wait_for_status("is not heard: unreachable");
    service.signal(Signal::TERM);
    assert!(service.wait().success());
    assert_eq!(manager.count("STOPPING=1"), 1);
    assert_eq!(manager.count(FED), 0);
}

/// With a loop that hangs it is not fed any more, and the log names the loop, as every other one of its thread.
fn hangs(switch: &str, named: &str) {
    let patience = Duration::from_secs(4);
    let server = Server::start();
    let mut manager = Manager::start();
    let config = config(&server.url());
    let setup = Setup {
        config: &config,
        watchdog: Some(patience),
        variables: &[(keyrelay::switches::VARIABLE, switch)],
        ..Setup::default()
    };
    let service = Service::start(&manager, setup);
    manager.wait_until_ready();
    eventually("it is fed while its loops turn", || last_fed(&mut manager));
    eventually("the log names the loop", || {
        let log = service.log();
        let names = |line: &str| line.contains("a loop does not turn") && line.contains(named);
        log.lines().any(names).then_some(())
    });
    // What systemd does is to end it after that time.
    eventually("it is not fed any more", || {
        (last_fed(&mut manager)?.elapsed() > patience).then_some(())
    });
}

#[test]
fn a_feed_that_hangs_is_noticed() {
    hangs("feed-turns", "\"feed\"");
}

#[test]
fn a_relay_that_hangs_is_noticed() {
    hangs("relay-turns", "\"relay\"");
}

#[test]
fn a_shard_that_hangs_is_noticed() {
    hangs("shard-turns", "\"shard-");
}
