//! What is measured: the relay, the floor, or a peer; each with a server of its own.

use std::fs::read_to_string;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::floor;
use super::machine::Cores;
use super::server::{Server, free_port};

/// How long something that comes by itself is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long memory must stay the same to be called settled.
const SETTLED: Duration = Duration::from_millis(500);

/// How often is looked again for what comes by itself.
const AGAIN: Duration = Duration::from_millis(20);

/// Who has run for less than this between two looks has nothing to do.
const IDLE: Duration = Duration::from_micros(500);

/// Who is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The bare loop that all others are compared with.
    Floor,
    /// keyrelay, as this package builds it.
    Relay,
    /// What a script starts.
    Peer(Peer),
}

/// A relay that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in the table: the script's name without what comes behind the dot.
    pub name: String,
    script: PathBuf,
}

impl Peer {
    /// The one that this script starts.
    pub fn new(script: &Path) -> Peer {
        Peer {
            name: script.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            script: script.to_owned(),
        }
    }
}

/// A tool that watches every step of the process that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Counts instructions in user mode.
    Callgrind,
    /// Counts system calls.
    Strace,
}

/// How what is measured is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where it runs.
    pub cores: Cores,
    /// What the floor does.
    pub floor: floor::Options,
    /// The relay's options of `[server]`, lines of TOML.
    pub server: String,
    /// The relay's other tables, the mappings among them.
    pub mappings: String,
    /// What watches it.
    pub tool: Option<Tool>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            cores: Cores::One,
            floor: floor::Options::default(),
            server: String::new(),
            mappings: "[[mapping]]\nkey = \"bench:{n}\"\naccess = \"public\"\n".to_owned(),
            tool: None,
        }
    }
}

/// Where clients knock.
#[derive(Clone, Debug)]
pub struct Door {
    /// What they connect to.
    pub address: SocketAddr,
    /// Path and query of a peer's streams, with `{channel}` where the channel's name is to stand.
    pub template: Option<String>,
}

/// A process that is measured, and its server; both are killed when dropped.
pub struct Subject {
    process: Running,
    /// Who it is.
    pub who: Who,
    /// Whether it is what others are compared with.
    pub is_base: bool,
    /// Where clients connect.
    pub door: Door,
    /// The server it listens to.
    pub server: Server,
    admin: Option<SocketAddr>,
    /// What a tool counted, once the process has ended.
    counted: PathBuf,
    /// Kept open, lest the process fails to print.
    _output: BufReader<ChildStdout>,
    _dir: TempDir,
}

impl Subject {
    /// Starts it behind a server of its own.
    pub fn start(who: &Who, setup: &Setup) -> Subject {
        setup.cores.as_load();
        let server = Server::start();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let counted = dir.path().join("counted");
        let port = free_port();
        let (program, arguments) = match who {
            Who::Floor => floor_program(&server, setup),
            Who::Relay => relay_program(&server, setup, port, dir.path()),
            Who::Peer(peer) => (PathBuf::from("sh"), vec![peer.script.to_string_lossy().into_owned()]),
        };
        let mut command = watched(setup.tool, &program, &counted);
        command
            .args(arguments)
            .env_remove("REDIS_URL")
            .env_remove("PORT")
            .env("KEYRELAY_BENCH_SERVER", server.address.to_string())
            .env("KEYRELAY_BENCH_PORT", port.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = setup
            .cores
            .as_measured(|| Running::start(&mut command))
            .expect("it starts");
        let mut output = BufReader::new(process.child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        let door = loop {
            line.clear();
            let read = output.read_line(&mut line).expect("text");
            assert!(read > 0, "{command:?} ended before it listened: try it by hand");
            if let Some(door) = door(&line) {
                break door;
            }
        };
        let subject = Subject {
            process,
            who: who.clone(),
            is_base: false,
            door,
            server,
            admin: (*who == Who::Relay).then_some(port),
            counted,
            _output: output,
            _dir: dir,
        };
        // A peer may say where it will listen before it does.
        subject.until("nobody listens", || TcpStream::connect(subject.door.address).is_ok());
        subject
    }

    /// Time that all its threads have run, in user and in system mode.
    pub fn processor_time(&self) -> Duration {
        let mut all = 0;
        for id in self.process.ids() {
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{id}/task")) else {
                continue;
            };
            for task in tasks.flatten() {
                let spent = read_to_string(task.path().join("schedstat")).unwrap_or_default();
                // proc(5): the first number is the time spent on the processor, in ns.
                all += spent.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            }
        }
        Duration::from_nanos(all)
    }

    /// Time that it has run in user mode, to the tick of the kernel's clock.
    pub fn user_time(&self) -> Duration {
        let ticks = |id| {
            let stat = read_to_string(format!("/proc/{id}/stat")).ok()?;
            // proc(5): utime is the 14th field; the second one is in parentheses and may hold blanks.
            stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse::<u64>().ok()
        };
        let ticks: u64 = self.process.ids().into_iter().filter_map(ticks).sum();
        Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32
    }

    /// Resident bytes, once they have stayed the same for a while.
    pub fn settled_memory(&self) -> u64 {
        let mut last = (self.resident(), Instant::now());
        self.until("memory goes on changing", || {
            let resident = self.resident();
            if resident != last.0 {
                last = (resident, Instant::now());
            }
            last.1.elapsed() >= SETTLED
        });
        last.0
    }

    fn resident(&self) -> u64 {
        let of = |id| {
            let status = read_to_string(format!("/proc/{id}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        self.process.ids().into_iter().filter_map(of).sum::<u64>() * 1024
    }

    /// Waits until it has nothing to do any more.
    pub fn until_idle(&self) {
        let mut last = self.processor_time();
        self.until("it goes on and on", || {
            let spent = self.processor_time();
            let did_nothing = spent - last < IDLE;
            last = spent;
            did_nothing
        });
    }

    /// Waits until it has let go of all descriptors but so many.
    pub fn until_descriptors(&self, most: usize) {
        self.until("connections are not let go", || self.descriptors() <= most);
    }

    /// How many descriptors it holds.
    pub fn descriptors(&self) -> usize {
        let of = |id| std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count);
        self.process.ids().into_iter().map(of).sum()
    }

    /// What the relay's metric of this name says, over all its labels; 0 for who has no metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let Some(admin) = self.admin else { return 0.0 };
        let mut connection = TcpStream::connect(admin).expect("the admin listener");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).expect("it reads requests");
        let mut text = String::new();
        connection.read_to_string(&mut text).expect("it answers");
        let number = |line: &str| {
            let labels_and_value = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            labels_and_value.rsplit(' ').next()?.parse::<f64>().ok()
        };
        let numbers: Vec<f64> = text.lines().filter_map(number).collect();
        assert!(!numbers.is_empty(), "there is no metric {name} in {text}");
        numbers.iter().sum()
    }

    /// Ends it in order, and returns what the tool that watched it has written.
    pub fn counted(mut self) -> String {
        self.process.end();
        read_to_string(&self.counted).expect("the tool writes when the process has ended")
    }

    fn until(&self, else_: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{else_}, at {}", self.door.address);
            pause();
        }
    }
}

/// Lets others run before something is looked at again.
fn pause() {
    std::thread::park_timeout(AGAIN);
}

/// The program of the floor, and its arguments.
fn floor_program(server: &Server, setup: &Setup) -> (PathBuf, Vec<String>) {
    let mut arguments = vec!["floor".to_owned(), server.address.to_string()];
    arguments.extend(setup.floor.to_arguments());
    (std::env::current_exe().expect("this program"), arguments)
}

/// The program of the relay, and its arguments: a config in this folder, with the admin listener at this address.
fn relay_program(server: &Server, setup: &Setup, admin: SocketAddr, folder: &Path) -> (PathBuf, Vec<String>) {
    let file = folder.join("keyrelay.toml");
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n{}\n[admin]\nlisten = \"{admin}\"\n\
         [upstream]\nurl = \"redis://{}/0\"\n{}",
        setup.server, server.address, setup.mappings
    );
    std::fs::write(&file, config).expect("the folder can be written to");
    let arguments = vec!["run".to_owned(), file.to_string_lossy().into_owned()];
    (env!("CARGO_BIN_EXE_keyrelay").into(), arguments)
}

/// The command that runs a program, watched by a tool that writes to this file.
fn watched(tool: Option<Tool>, program: &Path, file: &Path) -> Command {
    let Some(tool) = tool else {
        return Command::new(program);
    };
    let mut command = match tool {
        Tool::Callgrind => {
            let mut command = Command::new("valgrind");
            command
                .arg("--tool=callgrind")
                .arg(format!("--callgrind-out-file={}", file.display()));
            command
        }
        Tool::Strace => {
            let mut command = Command::new("strace");
            command.args(["-f", "-c", "-o"]).arg(file);
            command
        }
    };
    command.arg(program);
    command
}

/// What a line of output says of where clients connect.
fn door(line: &str) -> Option<Door> {
    let line = line.trim();
    let (url, is_peer) = match line.strip_prefix("url ") {
        Some(url) => (url, true),
        None => (line.split_once("listening ")?.1, false),
    };
    let url = url.strip_prefix("http://").unwrap_or(url);
    let end = url.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(url.len());
    let address = url[..end].replace("localhost", "127.0.0.1").parse().ok()?;
    Some(Door {
        address,
        template: is_peer.then(|| url[end..].to_owned()),
    })
}

/// A process and whatever it starts, all killed when dropped.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts it in a process group of its own.
    pub fn start(command: &mut Command) -> std::io::Result<Running> {
        let child = command.process_group(0).spawn()?;
        Ok(Running { child })
    }

    /// The processes of its group.
    fn ids(&self) -> Vec<u32> {
        let own = self.child.id();
        let is_of_group = |id: &u32| {
            let Ok(stat) = read_to_string(format!("/proc/{id}/stat")) else {
                return false;
            };
            // proc(5): pgrp is the fifth field.
            let group = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(2));
            group.and_then(|group| group.parse().ok()) == Some(own)
        };
        let all = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
        let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(is_of_group).collect()
    }

    fn signal(&self, signal: Signal) {
        let group = Pid::from_child(&self.child);
        // It may have ended by itself.
        let _ = kill_process_group(group, signal);
    }

    /// Asks it to end, and waits until it has.
    fn end(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            assert!(Instant::now() < deadline, "it does not end when it is told to");
            pause();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
