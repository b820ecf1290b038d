//! The processes: the server, the relay and the floor, and what they use.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use super::Transport;

/// How long a process may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server with the keys, on a free port; killed when dropped.
pub struct Server {
    _process: Running,
    pub address: SocketAddr,
    _dir: TempDir,
}

impl Server {
    pub fn start() -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let port = address.port().to_string();
        let options = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--notify-keyspace-events",
            "KA",
        ];
        let start = |program: &str| {
            let mut command = Command::new(program);
            command.args(options).current_dir(dir.path()).stdout(Stdio::null());
            command.spawn().ok().map(Running)
        };
        let programs = ["redis-server", "valkey-server", "keydb-server"];
        let process = programs
            .into_iter()
            .find_map(start)
            .expect("redis-server, valkey-server or keydb-server on PATH");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the server does not answer at {address}");
            std::thread::yield_now();
        }
        Server {
            _process: process,
            address,
            _dir: dir,
        }
    }
}

/// A process that is measured; killed when dropped.
pub struct Subject {
    process: Running,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Kept open, lest the process fails to print.
    _output: BufReader<ChildStdout>,
    _dir: TempDir,
}

impl Subject {
    pub fn relay(server: &Server) -> Subject {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("keyrelay.toml");
        let config = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[upstream]\nurl = \"redis://{}/0\"\n\
             [[mapping]]\nkey = \"bench:{{n}}\"\naccess = \"public\"\n",
            server.address
        );
        std::fs::write(&file, config).expect("the directory can be written to");
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyrelay"));
        command.arg("run").arg(file).env_remove("REDIS_URL").env_remove("PORT");
        Subject::start(command, dir, |line| {
            let (_, address) = line.split_once("listening http://")?;
            let end = address
                .find(|c: char| c == '/' || c.is_whitespace())
                .unwrap_or(address.len());
            address[..end].parse().ok()
        })
    }

    pub fn floor(server: &Server, transport: Transport) -> Subject {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .arg("floor")
            .arg(server.address.to_string())
            .arg(transport.name());
        Subject::start(command, dir, |line| {
            line.strip_prefix("listening ")?.trim().parse().ok()
        })
    }

    fn start(mut command: Command, dir: TempDir, listening: impl Fn(&str) -> Option<SocketAddr>) -> Subject {
        // A child inherits the processors of the thread that starts it, and counts them to know how many threads to have.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Running(pinned(|| command.spawn()).expect("it starts"));
        let mut output = BufReader::new(process.0.stdout.take().expect("it is piped"));
        let mut line = String::new();
        loop {
            line.clear();
            let read = output.read_line(&mut line).expect("text");
            assert!(read > 0, "{command:?} ended before it listened: try it by hand");
            if let Some(address) = listening(&line) {
                return Subject {
                    process,
                    address,
                    _output: output,
                    _dir: dir,
                };
            }
        }
    }

    /// Time that its threads have run, in user and in system mode: all of them, and those that read the keys.
    pub fn processor_time(&self) -> (Duration, Duration) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.0.id())).expect("the process runs");
        let (mut all, mut reading) = (0, 0);
        for task in tasks.flatten() {
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            // proc(5): the first number is the time spent on the processor, in ns.
            let spent: u64 = read("schedstat")
                .split(' ')
                .next()
                .and_then(|ns| ns.parse().ok())
                .unwrap_or(0);
            all += spent;
            if ["feed", "relay"].contains(&read("comm").trim()) {
                reading += spent;
            }
        }
        (Duration::from_nanos(all), Duration::from_nanos(reading))
    }

    /// Resident bytes.
    pub fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("it has memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One processor for the process that is measured, and the others for all else; `None` if there is but one.
static CORES: LazyLock<Option<(CpuSet, CpuSet)>> = LazyLock::new(|| {
    let mut rest = sched_getaffinity(None).ok().filter(|all| all.count() > 1)?;
    let first = (0..CpuSet::MAX_CPU).find(|&core| rest.is_set(core))?;
    rest.unset(first);
    let mut measured = CpuSet::new();
    measured.set(first);
    Some((measured, rest))
});

/// Leaves one processor to the process that is measured. To be called first.
pub fn pin_load() {
    if let Some((_, rest)) = &*CORES {
        sched_setaffinity(None, rest).expect("they are our own");
    }
}

/// Does something on the processor of the process that is measured.
fn pinned<T>(what: impl FnOnce() -> T) -> T {
    if let Some((measured, _)) = &*CORES {
        sched_setaffinity(None, measured).expect("it is our own");
    }
    let done = what();
    pin_load();
    done
}
