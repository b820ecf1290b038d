//! A service manager, as a service sees it.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{PROGRAM, eventually};

/// Hands over what stands at 0 and at 2 as 3 and 4, and then becomes the service: an environment of its own names the
/// process that it is for, whose id only the shell knows.
const HAND_OVER: &str = "exec 3<&0 4<&2 0</dev/null 2>&1; export LISTEN_PID=${LISTEN_PID:-$$} WATCHDOG_PID=${WATCHDOG_PID:-$$}; exec \"$@\"";

/// Hears what services say.
pub struct Manager {
    socket: UnixDatagram,
    /// As `NOTIFY_SOCKET` has it.
    name: String,
    /// Each message in its lines, and when it came.
    told: Vec<(Instant, Vec<String>)>,
    _dir: Option<TempDir>,
}

impl Manager {
    /// One whose socket is a file.
    pub fn start() -> Manager {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager::hearing(socket, path.to_str().unwrap().to_owned(), Some(dir))
    }

    /// One whose socket has a name in the kernel alone.
    pub fn start_abstract() -> Manager {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("keyrelay/test/{}/{number}", std::process::id());
        let socket = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        Manager::hearing(socket, format!("@{name}"), None)
    }

    fn hearing(socket: UnixDatagram, name: String, dir: Option<TempDir>) -> Manager {
        socket.set_nonblocking(true).unwrap();
        Manager {
            socket,
            name,
            told: Vec::new(),
            _dir: dir,
        }
    }

    /// All messages so far.
    pub fn told(&mut self) -> &[(Instant, Vec<String>)] {
        let mut buffer = [0; 8192];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(size) => {
                    let message = std::str::from_utf8(&buffer[..size]).unwrap();
                    assert!(message.ends_with('\n'), "{message:?}");
                    let lines = message.lines().map(str::to_owned).collect();
                    self.told.push((Instant::now(), lines));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return &self.told,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// How many messages have this line.
    pub fn count(&mut self, line: &str) -> usize {
        let told = self.told().iter();
        told.filter(|(_, lines)| lines.iter().any(|own| own == line)).count()
    }

    /// Waits for a message after the first `from` one of whose lines gives something.
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, from: usize, find: impl Fn(&str) -> Option<T>) -> T {
        eventually(what, || {
            let told = self.told().iter().skip(from);
            told.flat_map(|(_, lines)| lines).find_map(|line| find(line))
        })
    }

    /// Waits until it is told that clients can connect.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        self.wait("READY=1", 0, |line| (line == "READY=1").then_some(()));
    }

    /// Waits for a status that has this in it.
    #[track_caller]
    pub fn wait_for_status(&mut self, part: &str) {
        self.wait(&format!("a status with `{part}`"), 0, |line| {
            line.strip_prefix("STATUS=")?.contains(part).then_some(())
        });
    }
}

/// How a service is started.
#[derive(Default)]
pub struct Setup<'a> {
    /// Its config.
    pub config: &'a str,
    /// How long it may be silent.
    pub watchdog: Option<Duration>,
    /// The sockets to hand over, two at most, and their names, if they have some.
    pub sockets: Vec<OwnedFd>,
    pub names: Option<&'a str>,
    /// Further variables: it has no others.
    pub variables: &'a [(&'a str, &'a str)],
}

/// A service that is killed when dropped.
pub struct Service {
    process: Child,
    log: Arc<Mutex<String>>,
    dir: TempDir,
}

impl Service {
    /// Starts keyrelay as the unit does: with nothing in the environment but what systemd puts there.
    pub fn start(manager: &Manager, setup: Setup<'_>) -> Service {
        Service::under(&[], manager, setup)
    }

    /// The same by a program that becomes it, with these arguments before its own.
    pub fn under(program: &[&str], manager: &Manager, setup: Setup<'_>) -> Service {
        let dir = tempfile::Builder::new().prefix("keyrelay-service-").tempdir().unwrap();
        let file = dir.path().join("keyrelay.toml");
        std::fs::write(&file, setup.config).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", HAND_OVER, "sh"]).args(program).arg(PROGRAM);
        command
            .arg("run")
            .arg(&file)
            .env_clear()
            .env("NOTIFY_SOCKET", &manager.name);
        if let Some(watchdog) = setup.watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        if !setup.sockets.is_empty() {
            command.env("LISTEN_FDS", setup.sockets.len().to_string());
        }
        if let Some(names) = setup.names {
            command.env("LISTEN_FDNAMES", names);
        }
        command.envs(setup.variables.iter().copied());
        let mut sockets = setup.sockets.into_iter();
        let mut next = || sockets.next().map_or_else(Stdio::null, Stdio::from);
        command.stdin(next()).stderr(next()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        collect(process.stdout.take().unwrap(), log.clone());
        Service { process, log, dir }
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Where it says that it listens: behind `listening http://` or `admin http://`.
    #[track_caller]
    pub fn address(&self, announced: &str) -> SocketAddr {
        eventually(announced, || {
            let log = self.log();
            let (_, rest) = log.split_once(announced)?;
            let (address, _) = rest.split_once('\n')?;
            Some(address.parse().unwrap())
        })
    }

    /// Its config file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("keyrelay.toml")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the service ends", || self.process.try_wait().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail where it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- what the service printed ---\n{}---", self.log());
        }
    }
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}
