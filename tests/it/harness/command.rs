//! A command of keyrelay that runs on while its output is read.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::eventually::eventually;
use super::relay::{PROGRAM, collect};

/// A command that is killed when dropped.
pub struct Running {
    process: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    /// Those who read the pipes to their ends.
    readers: Vec<JoinHandle<()>>,
}

/// A folder with a config in it.
pub struct Written {
    dir: tempfile::TempDir,
}

impl Written {
    /// Writes `keyrelay.toml` into a folder of its own.
    #[track_caller]
    pub fn new(config: &str) -> Written {
        let dir = tempfile::Builder::new().prefix("keyrelay-config-").tempdir();
        let written = Written {
            dir: dir.expect("a temporary directory"),
        };
        written.write("keyrelay.toml", config);
        written
    }

    /// Writes another file beside it, or it anew.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the directory can be written to");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The config.
    pub fn file(&self) -> String {
        let file = self.path("keyrelay.toml");
        file.to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Running {
    /// Starts the command.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Running {
        Running::with(arguments, &[])
    }

    /// Starts the command with these variables of the environment.
    #[track_caller]
    pub fn with(arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut running = Running::unread(arguments, environment);
        let pipe = running.process.stdout.take().expect("stdout is piped");
        running.readers.push(collect(pipe, running.out.clone()));
        running
    }

    /// The same, and nobody reads what it writes.
    #[track_caller]
    pub fn unread(arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut process = Command::new(PROGRAM)
            .args(arguments)
            .env_remove("REDIS_URL")
            .env_remove("PORT")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let err = Arc::default();
        let reader = collect(process.stderr.take().expect("stderr is piped"), Arc::clone(&err));
        Running {
            process,
            out: Arc::default(),
            err,
            readers: vec![reader],
        }
    }

    /// Takes what nobody reads.
    pub fn pipe(&mut self) -> impl Read + Send + 'static {
        self.process.stdout.take().expect("nobody reads it")
    }

    /// The lines of standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.out.lock().unwrap().lines().map(str::to_owned).collect()
    }

    /// What it wrote to standard error so far.
    pub fn errors(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// Waits for a line of standard output that has all of these in it.
    #[track_caller]
    pub fn says(&self, parts: &[&str]) -> String {
        eventually(&format!("a line with {parts:?}"), || {
            let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
            self.lines().into_iter().find(has_all)
        })
    }

    /// Waits until standard error has this in it.
    #[track_caller]
    pub fn complains(&self, part: &str) {
        eventually(part, || self.errors().contains(part).then_some(()));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the command can be signalled");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Waits until it ended by itself, and all that it wrote was read.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let process = &mut self.process;
        let status = eventually("the command ends", || process.try_wait().expect("it can be waited for"));
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        status
    }

    /// Waits until it has ended with this code.
    #[track_caller]
    pub fn ends_with(&mut self, code: i32) {
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "{:#?}\n{}", self.lines(), self.errors());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- what the command wrote ---\n{}\n{}---",
                self.lines().join("\n"),
                self.errors()
            );
        }
    }
}
