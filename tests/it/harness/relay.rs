//! The relay under test: the real executable with a config file of its own, on a free port.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::eventually::eventually;
use super::http::{self, Exchange, Response};
use super::http2::Http2;
use super::server::{Server, freeze};
use super::stream::Stream;
use super::tls::{Authority, client_config};
use super::way::{self, Way, is_tracking};

/// The executable that cargo built for these tests.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_keyrelay");

/// What docs/limits.md advises for glibc: otherwise each thread keeps the largest that it has freed, and no test could tell
/// that from what is still held.
const TUNABLES: &str = "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=131072";

/// A mapping that anyone may read, of the lines given.
pub fn mapping(lines: &str) -> String {
    format!("[[mapping]]\naccess = \"public\"\n{lines}\n")
}

/// A relay that is killed when dropped.
pub struct Relay {
    process: Option<Child>,
    port: u16,
    /// The port as the config says it: 0 for any.
    written: u16,
    log: Arc<Mutex<String>>,
    config: Config,
    /// Who vouches for it, where it speaks TLS.
    authority: Option<Authority>,
    way: Way,
    /// Whether verify may find what nothing else noticed.
    may_repair: bool,
    dir: TempDir,
}

/// The parts of a config file.
#[derive(Clone)]
struct Config {
    /// Lines of the table `[server]`, without `listen`.
    server: String,
    /// Lines of the table `[upstream]`.
    upstream: String,
    /// The mappings, and anything else that stands outside those tables.
    mappings: String,
    /// Not in the file: the mechanisms that are out of order.
    off: String,
}

impl Relay {
    /// Starts a relay of `server` with `mappings` (TOML) and waits until it listens.
    #[track_caller]
    pub fn start(server: &Server, mappings: &str) -> Relay {
        Relay::with(server, "", mappings)
    }

    /// Like [`start`](Relay::start), with further lines for the table `[server]`.
    #[track_caller]
    pub fn with(server: &Server, options: &str, mappings: &str) -> Relay {
        Relay::reaching(&format!("url = \"{}\"", server.url()), options, mappings)
    }

    /// Like [`with`](Relay::with), for whatever answers at `url`, as a [`Proxy`](super::Proxy), and without verify: every read
    /// is the test's own.
    #[track_caller]
    pub fn at(url: &str, options: &str, mappings: &str) -> Relay {
        Relay::reaching(&format!("url = \"{url}\"\nverify = \"off\""), options, mappings)
    }

    /// Like [`with`](Relay::with), for the server that the lines of the table `[upstream]` name.
    #[track_caller]
    pub fn reaching(upstream: &str, options: &str, mappings: &str) -> Relay {
        Relay::without("", upstream, options, mappings)
    }

    /// Like [`reaching`](Relay::reaching), with the mechanisms of these names out of order (`keyrelay::switches`).
    #[track_caller]
    pub fn without(mechanisms: &str, upstream: &str, options: &str, mappings: &str) -> Relay {
        let dir = tempfile::Builder::new()
            .prefix("keyrelay-relay-")
            .tempdir()
            .expect("a temporary directory");
        let way = Way::current();
        let authority = (way != Way::Plain).then(|| Authority::new("keyrelay test authority"));
        let tls = authority.as_ref().map(way::listener);
        let config = Config {
            server: tls.unwrap_or_default() + options,
            upstream: format!(
                "{upstream}\n{}",
                if is_tracking() { "source = \"tracking\"" } else { "" }
            ),
            mappings: mappings.to_owned(),
            off: mechanisms.to_owned(),
        };
        let mut relay = Relay {
            process: None,
            port: 0,
            written: 0,
            log: Arc::default(),
            config,
            authority,
            way,
            may_repair: false,
            dir,
        };
        relay.spawn();
        relay
    }

    #[track_caller]
    fn spawn(&mut self) {
        self.written = self.port;
        let file = self.write();
        let off = &self.config.off;
        self.log.lock().unwrap().clear();
        let mut process = Command::new(PROGRAM)
            .arg("run")
            .arg(&file)
            // What a developer has set for an app must not reach the relay under test.
            .env_remove("REDIS_URL")
            .env_remove("PORT")
            .env("GLIBC_TUNABLES", TUNABLES)
            .env(keyrelay::switches::VARIABLE, off)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the relay starts");
        collect(process.stdout.take().expect("stdout is piped"), self.log.clone());
        collect(process.stderr.take().expect("stderr is piped"), self.log.clone());
        self.process = Some(process);
        self.port = self.listens();
    }

    /// Writes the config file, and gives its path.
    #[track_caller]
    fn write(&self) -> PathBuf {
        let Config {
            server,
            upstream,
            mappings,
            off,
        } = &self.config;
        // Fast, so that whatever a test breaks comes to light; where a mechanism is out of order, that must be seen without.
        let verify = match (upstream.contains("verify"), off.is_empty()) {
            (true, _) => "",
            (false, true) => "verify = \"1s\"",
            (false, false) => "verify = \"off\"",
        };
        let config = format!(
            "[server]\nlisten = [\"127.0.0.1:{}\"]\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n[upstream]\n{upstream}\n{verify}\n{mappings}\n",
            self.written
        );
        let file = self.dir.path().join("keyrelay.toml");
        std::fs::write(&file, config).expect("the directory can be written to");
        file
    }

    /// Waits until the relay says where it listens, and gives the port.
    #[track_caller]
    fn listens(&mut self) -> u16 {
        eventually("the relay says where it listens", || {
            if let Some(status) = self.process.as_mut()?.try_wait().expect("the relay can be waited for") {
                panic!("the relay ended with {status}: {}", self.log());
            }
            let log = self.log.lock().unwrap();
            let (_, rest) = log.split_once("listening http")?;
            let (_, rest) = rest.split_once("://")?;
            let (address, _) = rest.split_once(|c: char| c.is_whitespace())?;
            let authority = address.split('/').next().unwrap_or(address);
            Some(
                authority
                    .parse::<SocketAddr>()
                    .expect("the line names an address")
                    .port(),
            )
        })
    }

    /// Has another config read, with these mappings, and waits until that has ended; gives what the log says of it.
    #[track_caller]
    pub fn reload(&mut self, mappings: &str) -> String {
        self.config.mappings = mappings.to_owned();
        self.write();
        self.reloaded(|relay| relay.signal(Signal::HUP))
    }

    /// Like [`reload`](Relay::reload), with other lines of the tables `[server]` and `[upstream]` too.
    #[track_caller]
    pub fn reload_with(&mut self, upstream: &str, options: &str, mappings: &str) -> String {
        self.config.upstream.push_str(upstream);
        self.config.server.push_str(options);
        self.reload(mappings)
    }

    /// Puts other lines in the place of those of `[server]`, for the next [`reload`](Relay::reload).
    pub fn set_options(&mut self, options: &str) {
        self.config.server = options.to_owned();
    }

    /// Puts other lines in the place of those of `[upstream]`, for the next [`reload`](Relay::reload).
    pub fn set_upstream(&mut self, upstream: &str) {
        self.config.upstream = upstream.to_owned();
    }

    /// Waits until the reload that `ask` asks for has ended, and gives what the log says of it.
    #[track_caller]
    pub fn reloaded(&self, ask: impl FnOnce(&Relay)) -> String {
        let ends = |log: &str| -> usize {
            let lines = ["\"config reloaded\"", "\"config refused: ", "\"config read again: "];
            lines.iter().map(|line| log.matches(line).count()).sum()
        };
        let before = self.log();
        ask(self);
        eventually("the config was read again", || {
            let log = self.log();
            (ends(&log) > ends(&before)).then(|| log[before.len()..].to_owned())
        })
    }

    /// Something will be lost on purpose and noticed by verify alone; of every other relay that fails the test.
    pub fn may_repair(&mut self) {
        self.may_repair = true;
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Opens a connection, which speaks TLS where the relay does.
    #[track_caller]
    pub fn connect(&self, receive_buffer: Option<usize>) -> Stream {
        self.speak(http::connect(self.address(), receive_buffer))
    }

    /// Speaks as the relay does on a connection that is there.
    #[track_caller]
    pub fn speak(&self, stream: TcpStream) -> Stream {
        match &self.authority {
            None => stream.into(),
            Some(authority) => Stream::encrypted(stream, client_config(authority, "http/1.1", None)),
        }
    }

    /// Opens a connection that speaks HTTP/2 without having agreed on it.
    #[track_caller]
    pub fn connect_knowing(&self, window: Option<usize>) -> Http2 {
        Http2::begin(http::connect(self.address(), None), None, window)
    }

    /// Opens a connection that speaks HTTP/2.
    #[track_caller]
    pub fn connect_http2(&self, receive_buffer: Option<usize>) -> Http2 {
        self.speak_http2(http::connect(self.address(), receive_buffer), receive_buffer)
    }

    #[track_caller]
    fn speak_http2(&self, stream: TcpStream, window: Option<usize>) -> Http2 {
        let config = client_config(self.authority(), "h2", None);
        Http2::begin(stream, Some(config), window)
    }

    /// Sends a request on a connection of its own, and reads the head of its answer.
    #[track_caller]
    pub fn exchange(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        receive_buffer: Option<usize>,
    ) -> Exchange {
        let stream = http::connect(self.address(), receive_buffer);
        self.exchange_over(stream, method, target, headers, receive_buffer)
    }

    /// The same on a connection that is there; over HTTP/2 with windows of so many bytes.
    #[track_caller]
    pub fn exchange_over(
        &self,
        stream: TcpStream,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        window: Option<usize>,
    ) -> Exchange {
        match self.way {
            Way::Http2 => Exchange::send_http2(self.speak_http2(stream, window), method, target, headers),
            Way::Plain | Way::Tls => Exchange::send(self.speak(stream), method, target, headers),
        }
    }

    /// `GET target` on a connection of its own, the whole answer.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.exchange("GET", target, &[], None).response()
    }

    /// Who vouches for it.
    #[track_caller]
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("a relay that speaks TLS")
    }

    /// Where operators ask. It is another port after each start.
    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        let log = self.log();
        let (_, rest) = log
            .split_once("admin http://")
            .expect("the relay says where operators ask");
        let (address, _) = rest.split_once(char::is_whitespace).expect("a line ends");
        address.parse().expect("the line names an address")
    }

    /// What the admin listener answers.
    #[track_caller]
    pub fn ask(&self, target: &str) -> Response {
        self.ask_as(target, &[])
    }

    /// The same with further headers.
    #[track_caller]
    pub fn ask_as(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        let host = self.admin().to_string();
        let headers = [&[("Host", &*host)], headers].concat();
        http::request(self.admin(), "GET", target, &headers)
    }

    /// Whether the relay says that it is ready.
    #[track_caller]
    pub fn ready(&self) -> bool {
        self.ask("/readyz").status() == 200
    }

    /// What the relay says of its readiness: a line for each part that is not well.
    #[track_caller]
    pub fn readiness(&self) -> String {
        self.ask("/readyz").text()
    }

    /// The value of a metric as `/metrics` has it: of one series (`keyrelay_gaps_total{reason="overflow"}`; 0 if it is not
    /// there), or without labels of all its series together.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.ask("/metrics").text();
        let name = series.split('{').next().unwrap_or(series);
        let base = ["_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = |name: &str| text.contains(&format!("# TYPE {name} "));
        assert!(
            known(name) || base.is_some_and(known),
            "there is no metric {name}: {text}"
        );
        let values = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
            let same = sample == series || (series == name && sample.split('{').next() == Some(name));
            same.then(|| value.parse::<f64>().expect("a number"))
        });
        values.sum()
    }

    /// What the relay has printed so far, both streams.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the relay has checked its server, which it does once at the start; gives the log's line of it.
    #[track_caller]
    pub fn checked(&self) -> String {
        eventually("the server was checked", || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains("upstream checked"))?;
            Some(line.to_owned())
        })
    }

    /// Ends the relay at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the relay can be killed");
            process.wait().expect("the relay has ended");
        }
    }

    /// Whether it was started and not killed since.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Starts the relay again at the port it had.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Stops the relay in its tracks, connections open (SIGSTOP).
    pub fn freeze(&self) {
        freeze(self.pid());
    }

    /// Lets a frozen relay go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the relay can be signalled");
    }

    /// Waits until the process ended by itself; its status and how long that took.
    #[track_caller]
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let since = Instant::now();
        let process = self.process.as_mut().expect("the relay runs");
        let status = eventually("the relay ends", || {
            process.try_wait().expect("the relay can be waited for")
        });
        self.process = None;
        (status, since.elapsed())
    }

    /// Resident memory of the process in bytes.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        let file = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(file).expect("the relay runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("the kernel tells VmRSS");
        let kilobytes: u64 = line
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .expect("VmRSS is a number");
        kilobytes * 1024
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("the relay runs"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() && !self.may_repair {
            let log = self.log();
            assert!(
                !log.contains("nothing said so: repaired"),
                "something was lost and nothing noticed:\n{log}"
            );
        }
        if std::thread::panicking() {
            eprintln!("--- what the relay printed ---\n{}---", self.log());
        }
    }
}

/// Reads `pipe` to its end into `log`, line by line, so that the relay never blocks on it.
pub(super) fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    })
}
