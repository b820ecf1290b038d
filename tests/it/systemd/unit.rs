//! The units in `systemd/`, as far as they can be tried where systemd does not run: what it says of them, and keyrelay
//! started as they say.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::notify::config;
use super::{Manager, Service, Setup};
use crate::harness::{PATIENCE, PROGRAM, Server, eventually, http};
use crate::redis;

/// The folder of the units.
fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// What the service's unit has for a setting, in order.
fn settings(name: &str) -> Vec<String> {
    let unit = std::fs::read_to_string(units().join("keyrelay.service")).unwrap();
    let lines = unit
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

/// Whether the programs are there; where they must be, it is a failure that one is not.
fn has(programs: &[&str]) -> bool {
    for program in programs {
        let found = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !found {
            assert!(
                std::env::var_os("KEYRELAY_TEST_SYSTEMD").is_none(),
                "{program} is not there: scripts/need.sh systemd"
            );
            skipped(&format!("{program} is not there; scripts/need.sh systemd installs it"));
            return false;
        }
    }
    true
}

/// Not by a macro, whose output nobody sees of a test that passes.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {what} ***");
}

/// What systemd says of the units, with the program where it is.
#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !has(&["systemd-analyze"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(units()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let copy = dir.path().join(path.file_name().unwrap());
        std::fs::write(&copy, text.replace("/usr/bin/keyrelay", PROGRAM)).unwrap();
        copies.push(copy);
    }
    assert_eq!(copies.len(), 2, "{copies:?}");
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&copies)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

/// From 0, nothing to be done to the machine, to 10: what it would be given with no restriction is 9.6.
#[test]
fn the_service_is_exposed_to_little() {
    if !has(&["systemd-analyze"]) {
        return;
    }
    let judged = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(units().join("keyrelay.service"))
        .output()
        .unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

#[test]
fn the_service_is_stopped_after_its_drain_and_not_restarted_in_vain() {
    let seconds = |name: &str| -> u64 {
        let found = settings(name);
        found[0].strip_suffix('s').expect("seconds").parse().unwrap()
    };
    let drain = Duration::from_secs(4);
    assert!(Duration::from_secs(seconds("TimeoutStopSec")) > drain * 2);
    assert!(
        seconds("WatchdogSec") >= 10,
        "longer than a machine stands still now and then"
    );
    assert_eq!(settings("RestartPreventExitStatus"), ["78"]);
    assert_eq!(settings("Type"), ["notify"]);
}

/// As the unit starts it, as far as that goes without systemd: no capability and none to be had, many files, an environment
/// of nothing, on a machine where nothing can be written; no server, and no secrets.
#[test]
fn it_starts_on_a_plain_machine() {
    let wanted = format!("--nofile={}", settings("LimitNOFILE")[0]);
    let root = rustix::process::geteuid().is_root();
    if !has(&["setpriv", "prlimit", "unshare"]) {
        return;
    }
    let mut under = Vec::new();
    if root {
        under.extend(["/usr/bin/unshare", "--mount", "--propagation=private"]);
        under.extend(["/bin/sh", "-c", "mount -o remount,bind,ro / && exec \"$@\"", "sh"]);
        // A container may not raise it.
        let raised = Command::new("prlimit").args([&wanted, "true"]).output().unwrap();
        if raised.status.success() {
            under.extend(["/usr/bin/prlimit", &wanted]);
        }
        under.extend(["/usr/bin/setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
    } else {
        skipped("the part that only root can do, which makes the file system read-only");
        under.push("/usr/bin/setpriv");
    }
    under.push("--no-new-privs");
    let mut manager = Manager::start();
    let config = config("redis://127.0.0.1:1");
    let setup = Setup {
        config: &config,
        watchdog: Some(Duration::from_secs(30)),
        ..Setup::default()
    };
    let mut service = Service::under(&under, &manager, setup);
    manager.wait_until_ready();
    manager.wait("WATCHDOG=1", 0, |line| (line == "WATCHDOG=1").then_some(()));
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    if root {
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", service.pid())).unwrap();
        let first = mounts
            .lines()
            .rfind(|line| line.split(' ').nth(1) == Some("/"))
            .unwrap();
        assert!(first.split(' ').nth(3).unwrap().starts_with("ro"), "{first}");
    }
    TcpStream::connect(service.address("listening http://")).unwrap();
    service.signal(Signal::TERM);
    assert!(service.wait().success());
}

/// A secret that systemd hands over as a file.
#[test]
fn a_credential_is_the_password() {
    let server = Server::start();
    redis!(server, "ACL", "SETUSER", "relay", "on", ">sesame", "~*", "&*", "+@all");
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("redis-password"), "sesame\n").unwrap();
    let url = format!("redis://{}", server.address());
    let config = config(&url).replace(
        "[upstream]",
        "[upstream]\nusername = \"relay\"\npassword_file = \"${CREDENTIALS_DIRECTORY}/redis-password\"",
    );
    let mut manager = Manager::start();
    let setup = Setup {
        config: &config,
        variables: &[("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())],
        ..Setup::default()
    };
    let _service = Service::start(&manager, setup);
    manager.wait_for_status("is heard");
}

/// The calls of the system that the unit allows, by the groups that its filter names.
fn allowed_calls() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for filter in settings("SystemCallFilter") {
        let (groups, denied) = match filter.strip_prefix('~') {
            Some(groups) => (groups, true),
            None => (&*filter, false),
        };
        for group in groups.split(' ') {
            for call in calls_of(group) {
                match denied {
                    true => allowed.remove(&call),
                    false => allowed.insert(call),
                };
            }
        }
    }
    // Always allowed: systemd.exec(5).
    allowed.extend(calls_of("@default"));
    allowed
}

fn calls_of(group: &str) -> Vec<String> {
    let listed = Command::new("systemd-analyze")
        .args(["syscall-filter", group])
        .output()
        .unwrap();
    assert!(listed.status.success(), "{group}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let lines = listed
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#') && *line != group);
    lines
        .flat_map(|line| match line.strip_prefix('@') {
            Some(_) => calls_of(line),
            None => vec![line.to_owned()],
        })
        .filter(|call| !call.is_empty())
        .collect()
}

/// keyrelay at work calls the system for nothing that the unit's filter denies, but for the one thing that may be denied;
/// nor does it want memory that can be written and executed, nor other sockets than the unit allows.
#[test]
fn it_needs_nothing_that_the_unit_denies() {
    if !has(&["strace", "systemd-analyze"]) {
        return;
    }
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let dir = tempfile::tempdir().unwrap();
    let traced = dir.path().join("calls");
    let under = ["/usr/bin/strace", "-f", "-qq", "-o", traced.to_str().unwrap()];
    let mut manager = Manager::start();
    let config = config(&server.url());
    let setup = Setup {
        config: &config,
        watchdog: Some(Duration::from_millis(400)),
        ..Setup::default()
    };
    let mut service = Service::under(&under, &manager, setup);
    manager.wait_until_ready();
    manager.wait_for_status("is heard");
    let address = service.address("listening http://");
    let mut stream = http::Exchange::send(TcpStream::connect(address).unwrap(), "GET", "/events?channel=v", &[]);
    assert_eq!(stream.head.status, 200);
    assert_eq!(http::get(address, "/channels?channel=v").status(), 200);
    assert_eq!(http::ask(service.address("admin http://"), "/metrics").status(), 200);
    redis!(server, "SET", "v:1", "two");
    eventually("the change comes", || {
        stream.read(Duration::from_millis(10));
        let text = String::from_utf8_lossy(&stream.body);
        text.contains("\"two\"").then_some(())
    });
    // The tracer hands no signal on to what it traces.
    let relay = child_of(service.pid());
    rustix::process::kill_process(relay, Signal::TERM).unwrap();
    assert!(service.wait().success());

    let allowed = allowed_calls();
    let calls = std::fs::read_to_string(&traced).unwrap();
    let begun = calls
        .lines()
        .position(|line| line.contains(" execve("))
        .expect("it was started");
    let mut seen = BTreeSet::new();
    for line in calls.lines().skip(begun) {
        let Some((_, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        let Some((name, arguments)) = call.split_once('(') else {
            continue;
        };
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            continue;
        }
        seen.insert(name);
        // What raises the limit of open files: LimitNOFILE= has done that, and a refusal is no failure.
        let may_be_denied = name == "setrlimit" || (name == "prlimit64" && !arguments.contains("NULL, {"));
        assert!(allowed.contains(name) || may_be_denied, "the unit denies {line}");
        assert!(
            !(arguments.contains("PROT_WRITE") && arguments.contains("PROT_EXEC")),
            "{line}"
        );
        if name == "socket" {
            let family = arguments.split(',').next().unwrap().replace("PF_", "AF_");
            let families = settings("RestrictAddressFamilies");
            assert!(
                families[0].split(' ').any(|own| own == family),
                "the unit denies {line}"
            );
        }
    }
    for usual in ["accept4", "connect", "listen", "sendto"] {
        assert!(seen.contains(usual), "{usual} was not seen, only {seen:?}");
    }
}

/// The one process that this one has started.
fn child_of(parent: u32) -> rustix::process::Pid {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let child = children.split_whitespace().next().expect("a child").parse().unwrap();
    rustix::process::Pid::from_raw(child).unwrap()
}

/// systemd's own tool that hands over sockets: it starts the program at the first connection.
#[test]
fn the_first_connection_of_a_socket_starts_it() {
    if !has(&["systemd-socket-activate"]) {
        return;
    }
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("relay.sock");
    let under = [
        "/usr/bin/systemd-socket-activate",
        "--listen",
        socket.to_str().unwrap(),
        "--fdname=http",
        "--setenv=NOTIFY_SOCKET",
    ];
    let mut manager = Manager::start();
    let config = super::notify::listening("", &server.url());
    let setup = Setup {
        config: &config,
        ..Setup::default()
    };
    let service = Service::under(&under, &manager, setup);
    let since = Instant::now();
    let mut client = loop {
        match UnixStream::connect(&socket) {
            Ok(client) => break client,
            Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
        }
    };
    manager.wait_until_ready();
    let line = format!("listening unix:{}", socket.display());
    eventually("it has that socket", || service.log().contains(&line).then_some(()));
    client
        .write_all(b"GET /events?channel=v HTTP/1.1\r\nHost: relay\r\n\r\n")
        .unwrap();
    let mut head = [0; 12];
    client.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}
