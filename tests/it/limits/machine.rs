//! What the machine does not have enough of.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::harness::http::{Exchange, connect};
use crate::harness::{Client, PROGRAM, Relay, Server, Sse, eventually, mapping};
use crate::redis;

/// Without a free descriptor no connection can be accepted: that is said once, harms no stream, and passes.
#[test]
pub fn no_descriptors_are_left() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    let mut stream = Sse::open(&relay, &["v:1"]);
    stream.ready();

    let before = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..before
    };
    prlimit(Some(relay.pid()), Resource::Nofile, none).expect("a limit can be lowered");
    // The kernel takes the connection for the relay.
    let waiting = connect(relay.address(), None);
    eventually("the relay says that it cannot accept", || {
        relay.log().contains("cannot accept connections").then_some(())
    });
    redis!(server, "SET", "v:1", "two");
    stream.sees("v:1", "v:1", "two");

    prlimit(Some(relay.pid()), Resource::Nofile, before).expect("a limit can be raised again");
    let answer = Exchange::send(waiting, "GET", "/channels/v:1", &[]);
    assert_eq!(answer.head.status, 200);
    eventually("the relay says that it accepts again", || {
        relay.log().contains("accepting connections again").then_some(())
    });
    assert_eq!(relay.log().matches("cannot accept connections").count(), 1);
}

/// The usual limit of open files is raised as far as it can be; where that is too little for `connections`, it is said how
/// much it takes, and clients find out that it is full before the descriptors are gone.
#[test]
pub fn descriptors_for_all_connections() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("keyrelay.toml");
    let start = |connections: usize, limits: &str| {
        let config = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[upstream]\nurl = \"redis://127.0.0.1:1\"\n[limits]\nconnections = {connections}\n"
        );
        std::fs::write(&file, config).expect("the folder can be written to");
        let process = Command::new("sh")
            .args(["-c", &format!("{limits}; exec \"$0\" run \"$1\"")])
            .arg(PROGRAM)
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("keyrelay starts");
        Killed(process)
    };

    let mut few = start(1_000, "ulimit -Sn 300");
    let mut said = BufReader::new(few.0.stdout.take().expect("its output")).lines();
    said.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("listening")))
        .expect("it listens")
        .expect("text");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", few.0.id())).expect("its limits");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a line");
    let soft: usize = line
        .split_whitespace()
        .nth(3)
        .expect("a number")
        .parse()
        .expect("a number");
    assert!((1_256..3_000).contains(&soft), "{line}");

    let mut less = start(1_000, "ulimit -n 600");
    let mut said = BufReader::new(less.0.stderr.take().expect("its log")).lines();
    let line = said
        .find(|line| {
            line.as_ref()
                .is_ok_and(|line| line.contains("`connections` of [limits]"))
        })
        .expect("it says what is missing")
        .expect("text");
    assert!(
        line.contains("raise LimitNOFILE") && line.contains("\"fitting\":88"),
        "{line}"
    );
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
