//! What the log says of faults: a line when one begins, with the reason, one when it ends, and none between.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Client, Data, PROGRAM, Relay, Running, Server, Sse, Written, eventually, mapping};
use crate::redis;

/// How many lines of the log hold all of these.
fn lines(relay: &Relay, parts: &[&str]) -> usize {
    let log = relay.log();
    let lines = log.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
    lines.count()
}

/// Waits for a line that holds all of these.
#[track_caller]
fn says(relay: &Relay, parts: &[&str]) {
    eventually(&format!("a line with {parts:?}"), || {
        (lines(relay, parts) > 0).then_some(())
    });
}

/// Many channels fail for one reason: it is one fact.
#[test]
fn keys_that_cannot_be_read() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    let names: Vec<String> = (0..20).map(|id| format!("v:{id}")).collect();
    let mut client = Sse::open(&relay, &names.iter().map(String::as_str).collect::<Vec<_>>());
    client.ready();
    // It would warn, too.
    relay.checked();
    redis!(
        server,
        "ACL",
        "SETUSER",
        "default",
        "-get",
        "-strlen",
        "-mget",
        "-getrange"
    );
    for name in &names {
        redis!(server, "SET", name, "secret");
    }
    client.until("all are stale", |memory| memory.count("stale") == 20);
    redis!(server, "ACL", "SETUSER", "default", "+@all");
    client.until("all are fresh", |memory| memory.count("fresh") == 20);
    says(&relay, &["keys can be read again"]);
    assert_eq!(
        lines(&relay, &["WARN", "keys cannot be read", "no-permission", "NOPERM"]),
        1
    );
    assert_eq!(lines(&relay, &["keys can be read again"]), 1);
    assert_eq!(lines(&relay, &["WARN"]), 1);
    assert!(!relay.log().contains("secret") && !relay.log().contains("v:1"));
}

#[test]
fn a_server_that_does_not_answer() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    relay.checked();
    says(&relay, &["upstream connected"]);
    server.freeze();
    says(&relay, &["WARN", "upstream does not answer"]);
    server.thaw();
    says(&relay, &["upstream answers again"]);
    assert_eq!(lines(&relay, &["WARN"]), 1);
    assert_eq!(lines(&relay, &["upstream connected"]), 1, "it is the same connection");
}

/// A server that goes takes with it what hears and what reads: that is one loss.
#[test]
fn a_server_that_goes_is_told_of_once() {
    let mut server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let mut relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    relay.checked();
    let mut client = Sse::open(&relay, &["v:1"]);
    client.ready();
    server.kill();
    says(&relay, &["upstream lost"]);
    server.restart(Data::Lost);
    eventually("it is ready again", || relay.ready().then_some(()));
    assert_eq!(lines(&relay, &["WARN"]), 1, "{}", relay.log());
    relay.signal(Signal::TERM);
    relay.wait();
    says(&relay, &["\"drained\"", "took"]);
    assert_eq!(lines(&relay, &["draining"]), 1);
}

/// What the feed tells of a server, the checks do not tell again.
#[test]
fn each_thing_is_told_once_at_the_start() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    relay.checked();
    assert_eq!(lines(&relay, &["upstream connected", "version"]), 1);
    for subject in ["role", "server"] {
        let named = format!("\"subject\":\"{subject}\"");
        assert_eq!(lines(&relay, &[&named]), 0, "{}", relay.log());
    }
    assert!(lines(&relay, &["\"subject\":"]) > 0, "{}", relay.log());
}

/// Why a server is still away may be another reason than the one for which it was lost.
#[test]
fn no_room_for_another_client() {
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    relay.checked();
    says(&relay, &["upstream connected"]);
    redis!(server, "CONFIG", "SET", "maxclients", "1");
    redis!(server, "CLIENT", "KILL", "TYPE", "pubsub");
    says(&relay, &["upstream still away", "max number of clients"]);
    eventually("readiness says why", || {
        relay.readiness().contains("is not heard: refused: ").then_some(())
    });
    // Some more attempts fail meanwhile.
    let attempts = relay.metric("keyrelay_upstream_losses_total");
    assert!(attempts >= 2.0, "{attempts}");
    redis!(server, "CONFIG", "SET", "maxclients", "100");
    eventually("it is ready again", || relay.ready().then_some(()));
    assert_eq!(lines(&relay, &["upstream still away"]), 1);
    assert_eq!(lines(&relay, &["upstream lost"]), 1);
    assert_eq!(lines(&relay, &["upstream connected"]), 2);
}

/// A relay whose standard error is a pipe that the environment says is the journal's.
struct Journaled {
    process: Child,
    lines: BufReader<PipeReader>,
}

impl Journaled {
    fn start(file: &str, is_redirected: bool) -> Journaled {
        let (reader, writer) = std::io::pipe().unwrap();
        let metadata = File::from(writer.try_clone().map(OwnedFd::from).unwrap())
            .metadata()
            .unwrap();
        let inode = metadata.ino() + u64::from(is_redirected);
        let process = Command::new(PROGRAM)
            .args(["run", file])
            .env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()))
            .env_remove("REDIS_URL")
            .env_remove("PORT")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer)
            .spawn()
            .unwrap();
        Journaled {
            process,
            lines: BufReader::new(reader),
        }
    }

    /// Lines up to one that has this in it.
    fn until(&mut self, part: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "{part} did not come: {lines:#?}"
            );
            lines.push(line.trim_end_matches('\n').to_owned());
            if line.contains(part) {
                return lines;
            }
        }
    }
}

impl Drop for Journaled {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Text with a priority and without a time, as sd-daemon(3) has it; where standard error is no longer the journal's, JSON.
#[test]
fn the_journal_is_noticed() {
    let mut server = Server::start();
    let written = Written::new(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[upstream]\nurl = \"{}\"\n",
        server.url()
    ));
    let mut relay = Journaled::start(&written.file(), false);
    let mut lines = relay.until("upstream checked");
    server.kill();
    lines.extend(relay.until("upstream lost"));
    for line in &lines {
        let (priority, text) = line.split_at(3);
        let level = text.split_whitespace().next().unwrap();
        let expected = match level {
            "WARN" => "<4>",
            "INFO" => "<6>",
            _ => panic!("{line}"),
        };
        assert_eq!(priority, expected, "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
    assert!(lines.last().unwrap().starts_with("<4>"), "{lines:#?}");
    let mut redirected = Journaled::start(&written.file(), true);
    let lines = redirected.until("upstream");
    let parsed = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line));
    assert!(parsed.into_iter().all(|line| line.unwrap()["timestamp"].is_string()));
}

/// What an operator must do is told over several lines to people, and on one where a machine reads it.
#[test]
fn advice_is_one_line() {
    let server = Server::start();
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "KA");
    let config = |format: &str| {
        Written::new(&format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"{format}\"\n[upstream]\n\
             url = \"{}\"\nnotifications = \"require\"\n{}",
            server.url(),
            mapping("key = \"v:{id}\"")
        ))
    };
    let (journal, human) = (config("journal"), config("human"));
    let relays = [&journal, &human].map(|written| Running::start(&["run", &written.file()]));
    relays.iter().for_each(|relay| relay.complains("upstream checked"));
    redis!(server, "CONFIG", "SET", "notify-keyspace-events", "");
    for relay in &relays {
        relay.complains("upstream lost");
        let lost = relay.errors();
        let lost = lost.lines().find(|line| line.contains("upstream lost")).unwrap();
        assert!(lost.contains("CONFIG SET notify-keyspace-events"), "{lost}");
    }
    let mut late = Running::start(&["run", &journal.file()]);
    late.ends_with(1);
    let told = late.errors();
    assert!(told.lines().all(|line| line.starts_with('<')), "{told}");
    let last = told.lines().last().unwrap();
    assert!(
        last.starts_with("<3>") && last.contains("CONFIG SET notify-keyspace-events"),
        "{told}"
    );
}
