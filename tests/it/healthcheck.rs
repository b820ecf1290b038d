//! `keyrelay healthcheck`: what it asks, where, and for how long.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::harness::{Data, PROGRAM, Relay, Running, Server, Written, eventually, mapping};

fn healthcheck(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("healthcheck")
        .args(arguments)
        // Nobody's config lies there.
        .current_dir("/")
        .output()
        .expect("the command runs")
}

#[track_caller]
fn ends_with(output: &Output, code: i32) -> String {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    out + &err
}

/// A relay whose operators ask at `admin`, as a config has it.
fn relay(server: &Server, admin: &str) -> (Written, Running) {
    let written = Written::new(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"{admin}\"\n[upstream]\nurl = \"{}\"\n{}",
        server.url(),
        mapping("key = \"v:{id}\"")
    ));
    let relay = Running::start(&["run", &written.file()]);
    relay.says(&["listening http"]);
    (written, relay)
}

/// A free port, for whoever listens at it next.
fn port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    free.expect("a free port").port()
}

/// It lives while its server is away; it is not ready then.
#[test]
fn alive_and_ready_are_two_things() {
    let mut server = Server::start();
    let (written, _relay) = relay(&server, &format!("127.0.0.1:{}", port()));
    let file = written.file();
    let alive = || healthcheck(&["--config", &file]);
    let ready = || healthcheck(&["--ready", "--config", &file]);
    eventually("it is ready", || ready().status.success().then_some(()));
    assert_eq!(ends_with(&alive(), 0), "alive\n");
    server.kill();
    let why = eventually("it is not ready", || {
        let output = ready();
        (!output.status.success()).then(|| ends_with(&output, 1))
    });
    assert!(
        why.starts_with("keyrelay: 503 ") && why.contains("is not heard"),
        "{why}"
    );
    assert!(why.lines().count() == 1, "{why}");
    ends_with(&alive(), 0);
    server.restart(Data::Lost);
    eventually("it is ready again", || ready().status.success().then_some(()));
}

/// Wherever the config has it listen.
#[test]
fn every_kind_of_address() {
    let server = Server::start();
    let socket = Written::new("");
    let socket = socket.path("admin.sock");
    for admin in [
        format!("unix:{}", socket.display()),
        format!("0.0.0.0:{}", port()),
        format!("[::]:{}", port()),
    ] {
        let (written, _relay) = relay(&server, &admin);
        ends_with(&healthcheck(&["--config", &written.file()]), 0);
    }
}

/// The port that a URL names is asked, whatever a config says; and it is that of operators.
#[test]
fn a_url() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    let log = relay.log();
    let admin = log
        .lines()
        .find_map(|line| line.strip_prefix("admin "))
        .expect("it says where");
    ends_with(&healthcheck(&["--url", admin]), 0);
    let public = format!("http://{}", relay.address());
    let why = ends_with(&healthcheck(&["--url", &public]), 1);
    assert!(why.contains("404"), "{why}");
}

/// A process that hangs accepts connections and does not answer.
#[test]
fn a_relay_that_hangs_is_not_well() {
    let server = Server::start();
    let (written, relay) = relay(&server, &format!("127.0.0.1:{}", port()));
    relay.signal(rustix::process::Signal::STOP);
    let since = Instant::now();
    let why = ends_with(&healthcheck(&["--config", &written.file()]), 1);
    assert!(why.contains("no answer within 2s"), "{why}");
    // Two seconds, and what this machine adds.
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

/// What makes a config useless for a start does not make a relay unwell that runs.
#[test]
fn a_config_that_was_broken_since() {
    let server = Server::start();
    let admin = format!("127.0.0.1:{}", port());
    let (written, _relay) = relay(&server, &admin);
    written.write(
        "keyrelay.toml",
        &format!("[admin]\nlisten = \"{admin}\"\n[[mapping]]\nkye = \"${{NOT_SET}}\"\n"),
    );
    ends_with(&healthcheck(&["--config", &written.file()]), 0);
    written.write("keyrelay.toml", "[admin\n");
    let why = ends_with(&healthcheck(&["--config", &written.file()]), 1);
    assert!(why.contains("this is not TOML"), "{why}");
}

#[test]
fn nobody_there() {
    let written = Written::new(&format!("[admin]\nlisten = \"127.0.0.1:{}\"\n", port()));
    let why = ends_with(&healthcheck(&["--config", &written.file()]), 1);
    assert!(why.contains("nobody listens at 127.0.0.1:"), "{why}");
    let written = Written::new("[admin]\nlisten = \"127.0.0.1:0\"\n");
    let why = ends_with(&healthcheck(&["--config", &written.file()]), 1);
    assert!(why.contains("give --url"), "{why}");
    let why = ends_with(&healthcheck(&["--config", "/nowhere/keyrelay.toml"]), 1);
    assert!(why.contains("/nowhere/keyrelay.toml"), "{why}");
}
