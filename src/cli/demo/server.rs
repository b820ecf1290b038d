//! A key server that lives as long as the demo.

use std::fs::{self, DirBuilder};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The servers that will do, the one that keyrelay is made for first, each with its command line client.
const SERVERS: [(&str, &str); 3] = [
    ("keydb-server", "keydb-cli"),
    ("valkey-server", "valkey-cli"),
    ("redis-server", "redis-cli"),
];

/// How long a server may take to answer: an empty one needs a few milliseconds, a busy machine more.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server with a folder of its own; both are gone when it is dropped.
pub struct Server {
    child: Child,
    folder: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is called.
    pub name: &'static str,
    client: &'static str,
}

impl Server {
    /// Starts the first server found on PATH, on a free port, empty, and writing nothing to disk.
    pub fn start() -> anyhow::Result<Server> {
        let Some((program, name, client)) = find() else {
            bail!(
                "no server found: none of keydb-server, valkey-server, redis-server is on PATH\n\
                 install one, for example: sudo apt-get install redis-server"
            );
        };
        let folder = std::env::temp_dir().join(format!("keyrelay-demo-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        // Free now, and taken again a moment later: good enough for a demo, which says so if it was too late.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.context("no free port on 127.0.0.1")?;
        let child = Command::new(&program)
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"])
            .arg(&folder)
            // A group of its own: Ctrl-C is for the relay, which ends the server when all is drained.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                let _ = fs::remove_dir_all(&folder);
                return Err(error).with_context(|| format!("cannot start {}", program.display()));
            }
        };
        let mut server = Server {
            child,
            folder,
            address,
            name,
            client,
        };
        server.wait()?;
        Ok(server)
    }

    /// The folder for whatever else the demo needs; gone with the server.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How a person talks to the server in a terminal.
    pub fn client(&self) -> String {
        format!("{} -p {}", self.client, self.address.port())
    }

    /// Does one command after the other.
    pub fn send(&self, commands: &[&[&str]]) -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for words in commands {
            let mut request = format!("*{}\r\n", words.len());
            for word in *words {
                request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
            stream.write_all(request.as_bytes())?;
            let mut answer = [0; 512];
            match stream.read(&mut answer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                _ if answer[0] == b'-' => return Err(std::io::Error::other("the server refused a command")),
                _ => {}
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while let Err(error) = self.send(&[&["PING"]]) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once: {status}", self.name);
            }
            if started.elapsed() > PATIENCE {
                return Err(error).with_context(|| format!("{} does not answer at {}", self.name, self.address));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, on the same Ctrl-C; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn find() -> Option<(PathBuf, &'static str, &'static str)> {
    let path = std::env::var_os("PATH")?;
    SERVERS.iter().find_map(|&(server, client)| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(server))
            .find(|file| file.is_file())
            .map(|file| (file, server, client))
    })
}
