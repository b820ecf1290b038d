//! The server under the relay: a real KeyDB, Valkey or Redis on a free port, with a directory of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::eventually::eventually;
use super::resp::{Reply, Resp};

/// What becomes of the keys when a server is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// As they were at the last [`Server::save`].
    Kept,
    Lost,
}

/// A server that is killed when dropped.
pub struct Server {
    process: Option<Child>,
    host: IpAddr,
    port: u16,
    dir: TempDir,
    /// Lines of its config beside those that every server here has.
    config: String,
    /// Whether it watches other servers instead of holding keys.
    sentinel: bool,
    connection: Mutex<Option<Resp>>,
}

/// Runs one command and gives its answer; an error answer fails the test.
#[macro_export]
macro_rules! redis {
    ($server:expr, $($argument:expr),+ $(,)?) => {{
        let arguments: &[&dyn AsRef<[u8]>] = &[$(&$argument),+];
        $server.run(arguments)
    }};
}

impl Server {
    /// Starts a server without keys.
    #[track_caller]
    pub fn start() -> Server {
        let mut server = Server::away();
        server.restart(Data::Lost);
        server
    }

    /// Starts a server without keys, with further lines of config.
    #[track_caller]
    pub fn with_config(lines: &str) -> Server {
        Server::at(Ipv4Addr::LOCALHOST.into(), lines)
    }

    /// The same at this address of the machine and at no other.
    #[track_caller]
    pub fn at(host: IpAddr, lines: &str) -> Server {
        let mut server = Server::away_at(host);
        server.config = lines.to_owned();
        server.restart(Data::Lost);
        server
    }

    /// Starts a sentinel with these lines of config.
    #[track_caller]
    pub(super) fn sentinel(host: IpAddr, lines: &str) -> Server {
        let mut server = Server::away_at(host);
        server.config = lines.to_owned();
        server.sentinel = true;
        server.restart(Data::Lost);
        server
    }

    /// Reserves an address at which no server runs yet; [`restart`](Server::restart) starts it.
    pub fn away() -> Server {
        Server::away_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same at this address of the machine.
    pub(super) fn away_at(host: IpAddr) -> Server {
        let dir = tempfile::Builder::new()
            .prefix("keyrelay-server-")
            .tempdir()
            .expect("a temporary directory");
        Server {
            process: None,
            host,
            port: free_port(),
            dir,
            config: String::new(),
            sentinel: false,
            connection: Mutex::new(None),
        }
    }

    /// Adds lines to its config, for the next start.
    pub fn add_config(&mut self, lines: &str) {
        self.config = format!("{}\n{lines}", self.config);
    }

    /// Whether it was started and not killed.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((self.host, self.port))
    }

    /// The path of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("server.sock")
    }

    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address())
    }

    /// Another connection, for a thread that writes on its own.
    #[track_caller]
    pub fn connect(&self) -> Resp {
        Resp::connect(self.address()).expect("the server accepts connections")
    }

    /// See the macro [`redis!`](crate::redis).
    #[track_caller]
    pub fn run(&self, arguments: &[&dyn AsRef<[u8]>]) -> Reply {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| (*argument).as_ref()).collect();
        let mut connection = self.connection.lock().unwrap();
        let connection = connection.get_or_insert_with(|| self.connect());
        let reply = connection.command(&arguments).expect("the server answers");
        if let Reply::Error(error) = &reply {
            let command: Vec<_> = arguments
                .iter()
                .map(|argument| String::from_utf8_lossy(argument))
                .collect();
            panic!("{}: {error}", command.join(" "));
        }
        reply
    }

    /// Gives the user `relay` these rights on top of, or less than, what it has.
    #[track_caller]
    pub fn grant(&self, rights: &str) {
        let mut words: Vec<&dyn AsRef<[u8]>> = vec![&"ACL", &"SETUSER", &"relay"];
        let rights: Vec<&str> = rights.split_whitespace().collect();
        words.extend(rights.iter().map(|right| right as &dyn AsRef<[u8]>));
        self.run(&words);
    }

    /// How often it was given a command.
    #[track_caller]
    pub fn calls(&self, command: &str) -> u64 {
        let stats = redis!(self, "INFO", "commandstats").text();
        let name = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&name));
        let count = line.and_then(|line| line.split(',').next());
        count.map_or(0, |count| count.parse().expect("a count"))
    }

    /// Waits until its one relay has taken two whole looks at it since now: what they show was told.
    #[track_caller]
    pub fn looked_at_twice(&self) {
        let looks = || self.calls("info");
        // Three a look, and one that may be under way; those of this function are counted too.
        let before = looks();
        let mut own = 0;
        eventually("two looks were taken", || {
            own += 1;
            (looks() >= before + own + 9).then_some(())
        });
    }

    /// Begins a script that does not end before `SCRIPT KILL`, on the connection that is given, and waits until others are
    /// told so.
    #[track_caller]
    pub fn keep_busy(&self) -> Resp {
        redis!(self, "CONFIG", "SET", "lua-time-limit", "20");
        let mut script = self.connect();
        let mut other = self.connect();
        script.send(&[b"EVAL", b"while true do end", b"0"]).unwrap();
        eventually("the server is busy", || {
            matches!(other.command(&[b"PING"]).unwrap(), Reply::Error(_)).then_some(())
        });
        script
    }

    /// Lets the next command go over a new connection.
    pub fn forget(&self) {
        *self.connection.lock().unwrap() = None;
    }

    /// Writes the keys to disk, for [`Data::Kept`].
    #[track_caller]
    pub fn save(&self) {
        redis!(self, "SAVE");
    }

    /// Ends the server at once, as a crash would.
    pub fn kill(&mut self) {
        *self.connection.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server has ended");
        }
    }

    /// Starts the server (again) at its address and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self, data: Data) {
        self.kill();
        if data == Data::Lost {
            // The file is not there yet the first time.
            let _ = std::fs::remove_file(self.dir.path().join("dump.rdb"));
        }
        // Anyone may take a free port before it is used; at the first start another one does as well.
        for attempt in 0.. {
            if self.try_start() {
                return;
            }
            assert!(attempt < 5, "the server does not start: {}", self.log());
        }
    }

    fn try_start(&mut self) -> bool {
        let dir = self.dir.path();
        let config = format!(
            "port {}\nbind {}\nunixsocket {}\ndir {}\nlogfile {}\nsave \"\"\nappendonly no\ndaemonize no\n{}\n",
            self.port,
            self.host,
            self.socket().display(),
            dir.display(),
            dir.join("server.log").display(),
            self.config,
        );
        std::fs::write(dir.join("server.conf"), config).expect("the directory can be written to");
        let process = Command::new(program())
            .arg(dir.join("server.conf"))
            .args(self.sentinel.then_some("--sentinel"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|err| panic!("{} does not start: {err}", program().display()));
        self.process = Some(process);
        eventually("the server answers PING or ends", || {
            let process = self.process.as_mut()?;
            if process.try_wait().expect("the server can be waited for").is_some() {
                self.process = None;
                return Some(false);
            }
            let answer = Resp::connect(self.address()).ok()?.command(&[b"PING"]).ok()?;
            (answer == Reply::Status("PONG".into())).then_some(true)
        })
    }

    /// Stops the server in its tracks, connections open (SIGSTOP).
    pub fn freeze(&self) {
        freeze(self.pid());
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("the server can be signalled");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("the server runs"))
    }

    /// What it has logged since it was first started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }
}

/// Stops a child in its tracks, and waits until all its threads stand still.
pub(super) fn freeze(child: Pid) {
    kill_process(child, Signal::STOP).expect("a child can be signalled");
    let stopped = waitpid(Some(child), WaitOptions::UNTRACED).expect("a child can be waited for");
    assert!(stopped.is_some_and(|(_, status)| status.stopped()), "it has ended");
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server program: `KEYRELAY_TEST_SERVER`, else the first that is on PATH.
pub fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let wanted = std::env::var("KEYRELAY_TEST_SERVER")
            .ok()
            .filter(|wanted| !wanted.is_empty());
        let candidates: Vec<&str> = match &wanted {
            Some(wanted) => vec![wanted],
            None => vec!["keydb-server", "valkey-server", "redis-server"],
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = candidates.iter().find_map(|name| {
            // A path has a slash and is taken as it is.
            let dirs = if name.contains('/') {
                vec![PathBuf::new()]
            } else {
                std::env::split_paths(&path).collect()
            };
            dirs.into_iter().map(|dir| dir.join(name)).find(|file| file.is_file())
        });
        let found = found.unwrap_or_else(|| {
            panic!(
                "none of {candidates:?} is on PATH: install one (`scripts/need.sh server`) or set KEYRELAY_TEST_SERVER"
            )
        });
        eprintln!("server under test: {}", found.display());
        found
    })
}

/// The server's name and version, as `KeyDB-6.3.4`.
pub fn server_version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let said = Command::new(program())
            .arg("--version")
            .output()
            .expect("the server tells its version");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let name = said.split(' ').next().unwrap_or_default();
        let version = said.split("v=").nth(1).and_then(|rest| rest.split(' ').next());
        format!("{name}-{}", version.unwrap_or_default())
    })
}

/// The line of config that lets a server take DEBUG, where it has to be told: Redis from 7 on, and Valkey.
pub fn debug_allowed() -> &'static str {
    let version = server_version()
        .rsplit('-')
        .next()
        .and_then(|version| version.split('.').next());
    match version.and_then(|major| major.parse().ok()) {
        Some(7..) => "enable-debug-command yes",
        _ => "",
    }
}

/// A port that nobody listens at: below the range from which the kernel takes the ports of outgoing connections, so
/// that none of those takes it in between.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Each test process begins elsewhere: several may run at once.
    let offset = std::process::id().wrapping_mul(131);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + offset.wrapping_add(step) % COUNT) as u16;
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        // The second one is for the node's cluster bus, should it be one.
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}
