//! A key server that lives as long as the demo.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use redis_protocol::resp3::types::OwnedFrame;
use rustix::process::{Pid, Signal, kill_process};

use crate::upstream::{Endpoint, Info, Link, LinkError};

/// The servers that will do, the one that keyrelay is made for first.
const SERVERS: [Names; 3] = [
    Names {
        server: "KeyDB",
        program: "keydb-server",
        client: "keydb-cli",
        // The only one whose nodes can each be written to and replicate each other.
        replicates: true,
    },
    Names {
        server: "Valkey",
        program: "valkey-server",
        client: "valkey-cli",
        replicates: false,
    },
    Names {
        server: "Redis",
        program: "redis-server",
        client: "redis-cli",
        replicates: false,
    },
];

/// How long a server may take to answer: an empty one needs a few milliseconds, a busy machine more.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long two nodes may take to become replicas of each other: KeyDB looks after its links once a second.
const LINK_PATIENCE: Duration = Duration::from_secs(20);

/// How long it is waited before a server is asked again.
const PAUSE: Duration = Duration::from_millis(10);

/// How often it is looked whether a server has ended: soon enough for a person.
const LOOK: Duration = Duration::from_millis(200);

/// What things are called.
pub struct Names {
    /// The server, by people.
    pub server: &'static str,
    program: &'static str,
    client: &'static str,
    /// Whether two of them can replicate each other.
    pub replicates: bool,
}

/// A server's program.
pub struct Program {
    file: PathBuf,
    /// What it is called.
    pub names: &'static Names,
}

/// A running server; it ends when this is dropped.
pub struct Server {
    child: RefCell<Child>,
    /// Where it listens.
    pub address: SocketAddr,
    names: &'static Names,
    frozen: Cell<bool>,
}

/// A server that does not run; it goes on when this is dropped.
pub struct Frozen(Weak<Server>);

impl Program {
    /// The first server found on PATH.
    pub fn find() -> anyhow::Result<Program> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = SERVERS.iter().find_map(|names| {
            std::env::split_paths(&path)
                .map(|folder| folder.join(names.program))
                .find(|file| file.is_file())
                .map(|file| Program { file, names })
        });
        found.context(
            "no server found: none of keydb-server, valkey-server, redis-server is on PATH\n\
             install one, for example: sudo apt-get install redis-server",
        )
    }
}

impl Server {
    /// Starts it on a free port, empty, and writing nothing outside the folder.
    pub async fn start(program: &Program, folder: &Path) -> anyhow::Result<Server> {
        // Free now, and taken again a moment later: good enough for a demo, which says so if it was too late.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.context("no free port on 127.0.0.1")?;
        let mut command = Command::new(&program.file);
        command
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"])
            .arg(folder)
            .args(["--dbfilename", &format!("{}.rdb", address.port())]);
        if program.names.replicates {
            command.args(["--active-replica", "yes", "--multi-master", "yes"]);
        }
        let child = command
            // A group of its own: Ctrl-C is for the demo, which ends the server when the relays are drained.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.file.display()))?;
        let server = Server {
            child: RefCell::new(child),
            address,
            names: program.names,
            frozen: Cell::new(false),
        };
        server.wait().await?;
        Ok(server)
    }

    async fn wait(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        while let Err(error) = self.send(&[&["PING"]]).await {
            if let Some(status) = self.status()? {
                bail!("{} ended at once: {status}", self.names.server);
            }
            if started.elapsed() > PATIENCE {
                return Err(error)
                    .with_context(|| format!("{} does not answer at {}", self.names.server, self.address));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Makes the two replicas of each other, and waits until they are.
    pub async fn join(&self, other: &Server) -> anyhow::Result<()> {
        let started = Instant::now();
        for (replica, primary) in [(self, other), (other, self)] {
            let port = primary.address.port().to_string();
            replica.send(&[&["REPLICAOF", "127.0.0.1", port.as_str()]]).await?;
            // One after the other: two that begin at once may each wait for the other's data.
            while !replica.is_linked().await? {
                if started.elapsed() > LINK_PATIENCE {
                    bail!(
                        "{} at {} does not become a replica",
                        replica.names.server,
                        replica.address
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn is_linked(&self) -> Result<bool, LinkError> {
        Ok(match self.send(&[&["INFO", "replication"]]).await? {
            OwnedFrame::BlobString { data, .. } => Info::from_bytes(&data).get("master_link_status") == Some("up"),
            _ => false,
        })
    }

    /// How a person talks to the server in a terminal.
    pub fn client(&self) -> String {
        format!("{} -p {}", self.names.client, self.address.port())
    }

    /// Does one command after the other, over a connection of its own, and gives the last reply.
    ///
    /// # Errors
    /// If one of them is refused, or not answered within 10 s.
    pub async fn send<W: AsRef<[u8]>>(&self, commands: &[&[W]]) -> Result<OwnedFrame, LinkError> {
        let mut link = Link::connect(&self.endpoint()).await?;
        let mut reply = OwnedFrame::Null;
        for words in commands {
            let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
            reply = link.command(&words).await?;
        }
        Ok(reply)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: self.address.into(),
            tls: None,
            db: 0,
            username: None,
            password: None,
            client_name: "keyrelay-demo".to_owned(),
        }
    }

    /// Waits until it has ended, which it should not by itself.
    pub async fn ended(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How it has ended, if it has.
    fn status(&self) -> io::Result<Option<ExitStatus>> {
        self.child.borrow_mut().try_wait()
    }

    /// Sends it a signal, unless it has ended: its number may be another process's by now.
    ///
    /// # Errors
    /// If it has ended.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        if let Some(status) = self.status()? {
            return Err(io::Error::other(format!("the server has ended: {status}")));
        }
        Ok(kill_process(Pid::from_child(&self.child.borrow()), signal)?)
    }

    /// Stops the server as it stands, as a machine does that hangs; `None` if it stands already.
    ///
    /// # Errors
    /// If it has ended.
    pub fn freeze(self: &Rc<Self>) -> io::Result<Option<Frozen>> {
        if self.frozen.get() {
            return Ok(None);
        }
        self.signal(Signal::STOP)?;
        self.frozen.set(true);
        Ok(Some(Frozen(Rc::downgrade(self))))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Some(server) = self.0.upgrade() else { return };
        // If it has ended meanwhile, there is nothing to go on.
        let _ = server.signal(Signal::CONT);
        server.frozen.set(false);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}
