//! How keyrelay says how it stands.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use super::{Manager, Service, Setup};
use crate::harness::{Data, Server, eventually, http};

/// A config of one mapping, with any free ports, and a server at this URL.
pub(super) fn config(url: &str) -> String {
    listening("listen = [\"127.0.0.1:0\"]", url)
}

/// The same with this line in the table `[server]`.
pub(super) fn listening(line: &str, url: &str) -> String {
    format!(
        "[server]\n{line}\n[admin]\nlisten = \"127.0.0.1:0\"\n[upstream]\nurl = \"{url}\"\n\
         [[mapping]]\nkey = \"v:{{id}}\"\nchannel = \"v\"\naccess = \"public\"\n"
    )
}

/// Ready means that clients can connect, whether or not there is a server; how it stands follows what happens.
fn tells_how_it_stands(mut manager: Manager) {
    let mut server = Server::away();
    let config = config(&server.url());
    let setup = Setup {
        config: &config,
        ..Setup::default()
    };
    let mut service = Service::start(&manager, setup);
    manager.wait_until_ready();
    let address = service.address("listening http://");
    let stream = TcpStream::connect(address).expect("what is ready accepts connections");
    let client = http::Exchange::send(stream, "GET", "/events?channel=v", &[]);
    assert_eq!(client.head.status, 200, "a stream begins while the server is away");
    manager.wait_for_status(&format!("upstream {} is not heard: unreachable", server.address()));
    server.restart(Data::Lost);
    manager.wait_for_status(&format!("1 client, 1 channel; upstream {} is heard", server.address()));
    assert_eq!(manager.count("STOPPING=1"), 0);

    service.signal(Signal::TERM);
    assert!(service.wait().success());
    assert_eq!(manager.count("READY=1"), 1);
    assert_eq!(manager.count("STOPPING=1"), 1);
    // The drain is 4 s; with it, more time is asked for than TimeoutStopSec= may allow.
    assert_eq!(manager.count("EXTEND_TIMEOUT_USEC=9000000"), 1);
    manager.wait_for_status("draining: ");
}

#[test]
fn it_tells_how_it_stands() {
    tells_how_it_stands(Manager::start());
}

#[test]
fn it_tells_a_socket_that_has_no_file() {
    tells_how_it_stands(Manager::start_abstract());
}

/// Every client changes the counts, and the manager is not told of each.
#[test]
fn it_does_not_tell_more_than_anybody_reads() {
    let server = Server::start();
    let mut manager = Manager::start();
    let config = config(&server.url());
    let setup = Setup {
        config: &config,
        ..Setup::default()
    };
    let service = Service::start(&manager, setup);
    manager.wait_until_ready();
    let address = service.address("listening http://");
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let stream = TcpStream::connect(address).unwrap();
            http::Exchange::send(stream, "GET", "/events?channel=v", &[])
        })
        .collect();
    manager.wait_for_status("50 clients");
    let statuses: Vec<_> = manager
        .told()
        .iter()
        .filter(|(_, lines)| lines.iter().any(|line| line.starts_with("STATUS=")))
        .map(|(at, _)| *at)
        .collect();
    for pair in statuses.windows(2) {
        let between = pair[1] - pair[0];
        assert!(between > Duration::from_secs(2), "{between:?}");
    }
    drop(clients);
}

#[test]
fn a_failure_is_told_with_its_number() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut manager = Manager::start();
    let config = listening(&format!("listen = [\"{address}\"]"), "redis://127.0.0.1:1");
    let setup = Setup {
        config: &config,
        ..Setup::default()
    };
    let mut service = Service::start(&manager, setup);
    assert_eq!(service.wait().code(), Some(1));
    manager.wait_for_status(&format!("failed: cannot listen at {address}"));
    assert_eq!(manager.count("ERRNO=98"), 1, "EADDRINUSE");
    assert_eq!(manager.count("READY=1"), 0);
}

#[test]
fn a_config_that_cannot_be_used_is_told() {
    let mut manager = Manager::start();
    let setup = Setup {
        config: "[serve]\n",
        ..Setup::default()
    };
    let mut service = Service::start(&manager, setup);
    assert_eq!(service.wait().code(), Some(78), "the unit does not restart it then");
    manager.wait_for_status("the config cannot be used");
    assert_eq!(manager.count("READY=1"), 0);
}

/// A manager that cannot be told keeps nothing from running.
#[test]
fn a_socket_that_is_of_no_use_is_no_failure() {
    let manager = Manager::start();
    let config = config("redis://127.0.0.1:1");
    let setup = Setup {
        config: &config,
        variables: &[("NOTIFY_SOCKET", "/nobody/here")],
        ..Setup::default()
    };
    let mut service = Service::start(&manager, setup);
    let address = service.address("listening http://");
    TcpStream::connect(address).unwrap();
    let log = service.log();
    assert!(log.contains("NOTIFY_SOCKET is of no use"), "{log}");
    assert!(log.contains(r#""socket":"/nobody/here""#), "{log}");
    service.signal(Signal::TERM);
    assert!(service.wait().success());
}

/// systemd takes a reload for over when it is told so after this very moment, by its own clock.
#[test]
fn a_reload_is_told_with_its_time() {
    let mut manager = Manager::start();
    let config = config("redis://127.0.0.1:1");
    let setup = Setup {
        config: &config,
        ..Setup::default()
    };
    let service = Service::start(&manager, setup);
    manager.wait_until_ready();
    let monotonic = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u128 * 1_000_000 + now.tv_nsec as u128 / 1_000
    };
    for (reload, text) in [(1, config.clone()), (2, config.replace("[server]", "[serve]"))] {
        std::fs::write(service.config(), text).unwrap();
        let before = monotonic();
        service.signal(Signal::HUP);
        eventually("the reload is over", || {
            (manager.count("READY=1") == 1 + reload).then_some(())
        });
        let told = manager.told();
        let begun = told.iter().rposition(|(_, lines)| lines[0] == "RELOADING=1");
        let begun = begun.expect("the beginning is told");
        let ready = told.iter().rposition(|(_, lines)| lines[0] == "READY=1").unwrap();
        assert!(begun < ready, "{told:?}");
        let usec = told[begun].1[1]
            .strip_prefix("MONOTONIC_USEC=")
            .expect("in the same message");
        let usec: u128 = usec.parse().unwrap();
        assert!((before..=monotonic()).contains(&usec), "{usec}");
    }
    eventually("the log says that it was refused", || {
        service.log().contains("config refused").then_some(())
    });
}
