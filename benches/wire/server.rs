//! The server with the keys, and what it says of itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::Running;

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// The commands that get a string's value: a relay may ask more about a key with each of them.
const READS: [&str; 2] = ["get", "getrange"];

/// A server on a free port of the loopback; killed when dropped.
pub struct Server {
    _process: Running,
    program: String,
    /// Where it listens.
    pub address: SocketAddr,
    _dir: TempDir,
}

impl Server {
    /// Starts what `KEYRELAY_TEST_SERVER` names, else the first server that is installed.
    pub fn start() -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = free_port();
        let port = address.port().to_string();
        let start = |program: &str| {
            let mut command = Command::new(program);
            command
                .args([
                    "--port",
                    &port,
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ])
                .args(["--notify-keyspace-events", "KA"])
                .current_dir(dir.path())
                .stdout(Stdio::null());
            Some((Running::start(&mut command).ok()?, program.to_owned()))
        };
        let named = std::env::var("KEYRELAY_TEST_SERVER");
        let (process, program) = match &named {
            Ok(program) => start(program),
            Err(_) => ["keydb-server", "valkey-server", "redis-server"]
                .into_iter()
                .find_map(start),
        }
        .expect("KEYRELAY_TEST_SERVER, or redis-server, valkey-server or keydb-server on PATH");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the server does not answer at {address}");
            std::thread::yield_now();
        }
        Server {
            _process: process,
            program,
            address,
            _dir: dir,
        }
    }

    /// Its program and version.
    pub fn version(&self) -> String {
        let info = self.info("server");
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        let name = self.program.rsplit('/').next().unwrap_or(&self.program);
        format!("{name} {}", version.unwrap_or("of unknown version"))
    }

    /// How many values it has been asked for since it was started.
    pub fn reads(&self) -> u64 {
        let info = self.info("commandstats");
        let calls = |line: &str| -> Option<u64> {
            let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.parse().ok()?;
            READS.contains(&command).then_some(calls)
        };
        info.lines().filter_map(calls).sum()
    }

    fn info(&self, section: &str) -> String {
        let mut connection = TcpStream::connect(self.address).expect("the server");
        connection
            .write_all(format!("INFO {section}\r\n").as_bytes())
            .expect("the server takes commands");
        let mut answer = BufReader::new(connection);
        let mut head = String::new();
        answer.read_line(&mut head).expect("the server answers");
        let length: usize = head.trim().trim_start_matches('$').parse().expect("a bulk string");
        let mut info = vec![0; length];
        answer.read_exact(&mut info).expect("the server answers");
        String::from_utf8_lossy(&info).into_owned()
    }
}

/// A port of the loopback that nobody listens at.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound")
}
