//! For patterns without captures, keyrelay and the server take the same keys.
//!
//! The server is `KEYRELAY_TEST_SERVER`, else the first of keydb-server, valkey-server and redis-server on `PATH`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and says what it saw"
)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyrelay::pattern::KeyPattern;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

/// So many patterns are asked for before the first answer is read: few enough for the answers to wait in the socket.
const BATCH: usize = 16;

/// A server that has not answered by then has stalled.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of its own for this test, ended when dropped.
struct Server {
    child: Child,
    /// Its log, kept open so that it can go on writing.
    log: BufReader<std::process::ChildStdout>,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let program = std::env::var_os("KEYRELAY_TEST_SERVER")
            .map(PathBuf::from)
            .unwrap_or_else(|| {
                let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
                ["keydb-server", "valkey-server", "redis-server"]
                    .iter()
                    .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
                    .find(|program| program.is_file())
                    .expect("keydb-server, valkey-server or redis-server on PATH, or its path in KEYRELAY_TEST_SERVER")
            });
        println!("server: {}", program.display());
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(&program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(folder.path().join("socket"))
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ccept connections") {
            line.clear();
            assert_ne!(
                log.read_line(&mut line).unwrap(),
                0,
                "{} ended before it was ready",
                program.display()
            );
        }
        Server { child, log, folder }
    }

    fn connect(&self) -> Connection {
        let stream = UnixStream::connect(self.folder.path().join("socket")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection {
            stream: BufReader::new(stream),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.log.read_to_end(&mut Vec::new());
    }
}

struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    fn send<'c>(&mut self, commands: impl Iterator<Item = Vec<&'c [u8]>>) {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for part in command {
                bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        self.stream.get_mut().write_all(&bytes).unwrap();
    }

    /// The first line of a reply: its kind and the rest.
    fn line(&mut self) -> (u8, String) {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        (line.as_bytes()[0], line[1..].trim_end().to_owned())
    }

    fn ok(&mut self) {
        assert_eq!(self.line(), (b'+', "OK".to_owned()));
    }

    fn array(&mut self) -> BTreeSet<Vec<u8>> {
        let (kind, length) = self.line();
        assert_eq!(kind, b'*', "{length}");
        (0..length.parse::<usize>().unwrap())
            .map(|_| {
                let (kind, length) = self.line();
                assert_eq!(kind, b'$', "{length}");
                let mut bytes = vec![0; length.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                bytes
            })
            .collect()
    }
}

/// Few letters and many special characters; those outside ASCII share bytes with each other.
fn patterns() -> impl Strategy<Value = Vec<String>> {
    let pieces = [
        "a", "b", "c", ":", "*", "**", "?", "[", "[^", "]", "-", "^", "\\", "\\{", "\\}", "[a-c]", "[c-a", "[^b]",
        "[]", "é", "ÿ", "\0", "\u{7f}", "[{}]",
    ];
    vec(
        vec(select(pieces.to_vec()), 1..8).prop_map(|pieces| pieces.concat()),
        400,
    )
}

fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let bytes = b"aaabbbcc::*?[]^-\\{}\0\x7f\xc3\xa9\xbf\xff`";
    vec(vec(select(&bytes[..]), 0..7), 400)
}

#[test]
fn patterns_take_the_keys_that_the_server_says() {
    let server = Server::start();
    let connection = RefCell::new(server.connect());
    let (compared, taken) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig {
        cases: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&(patterns(), keys()), |(texts, keys)| {
        let mut connection = connection.borrow_mut();
        // A range that ends outside ASCII is refused; so is a brace that is neither escaped nor in a set.
        let patterns: Vec<(&String, KeyPattern)> = texts
            .iter()
            .filter_map(|text| Some((text, KeyPattern::parse(text).ok()?)))
            .collect();
        connection.send(
            [vec![&b"FLUSHALL"[..]]]
                .into_iter()
                .chain(keys.iter().map(|key| vec![&b"SET"[..], key, b""])),
        );
        (0..=keys.len()).for_each(|_| connection.ok());
        for batch in patterns.chunks(BATCH) {
            // In a transaction, because KeyDB answers a bare KEYS from another thread, and stalls on a pipeline of them.
            connection.send([vec![&b"MULTI"[..]]].into_iter());
            connection.send(batch.iter().map(|(text, _)| vec![&b"KEYS"[..], text.as_bytes()]));
            connection.send([vec![&b"EXEC"[..]]].into_iter());
            connection.ok();
            batch.iter().for_each(|_| assert_eq!(connection.line().1, "QUEUED"));
            assert_eq!(connection.line(), (b'*', batch.len().to_string()));
            // Read all answers before the first comparison can end the case, so that none is left for the next one.
            let answers: Vec<BTreeSet<Vec<u8>>> = batch.iter().map(|_| connection.array()).collect();
            for ((text, pattern), mut theirs) in batch.iter().zip(answers) {
                let mut ours: BTreeSet<Vec<u8>> = keys.iter().filter(|key| pattern.is_match(key)).cloned().collect();
                if text.len() > 1 {
                    // Of the patterns that take everything, `KEYS` takes the empty key by `*` alone, PSUBSCRIBE by all.
                    ours.remove(&b""[..]);
                    theirs.remove(&b""[..]);
                }
                let differ: Vec<String> = ours
                    .symmetric_difference(&theirs)
                    .map(|key| key.escape_ascii().to_string())
                    .collect();
                prop_assert!(differ.is_empty(), "pattern {text:?}, differing for {differ:?}");
                compared.set(compared.get() + keys.len());
                taken.set(taken.get() + ours.len());
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let (compared, taken) = (compared.get(), taken.get());
    println!("{compared} pairs compared, {taken} taken");
    assert!(
        compared > 500_000 && taken > 5_000,
        "the patterns or keys became too odd to prove anything"
    );
}
