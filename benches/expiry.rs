//! How late subscribers hear that a key has expired, what that costs, and what a deadline costs in memory.
//!
//! Before a real server (`KEYRELAY_TEST_SERVER`) that holds 100,000 other keys with an expiry, which keep it from saying
//! by itself what has expired.

#![allow(clippy::print_stdout, reason = "what was measured is printed")]

#[allow(
    unused_macros,
    clippy::unwrap_used,
    reason = "the harness of the tests, of which only a part is used"
)]
#[path = "../tests/it/harness/mod.rs"]
mod harness;

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Relay, Reply, Server};

/// Other keys with an expiry.
const OTHERS: usize = 100_000;

/// How long a flow of expiries lasts.
const FLOW: Duration = Duration::from_secs(6);

/// Keys that expire together.
const MASS: usize = 100_000;

/// Keys of which the memory is told.
const MANY: usize = 1_000_000;

/// How long before the first deadline keys are written: time enough to subscribe to all of them.
const LEAD: Duration = Duration::from_secs(8);

/// Commands that are sent before their answers are read.
const PIPELINED: usize = 10_000;

/// The end of what the relay writes in place of a value that is gone.
const GONE: &[u8] = b"\"value\":null";

fn main() {
    // `cargo test` builds benches too, and asks them for their tests.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("\nexpiry, with {OTHERS} other keys that expire later");
    println!(
        "case                       | late, ms: p50   p99   max | events by the server | resets | CPU µs an expiry: relay, server"
    );
    for rate in [1_000, 5_000] {
        let keys = rate * FLOW.as_secs() as usize;
        let apart = Duration::from_secs(1) / rate as u32;
        measure(&format!("{rate} a second"), keys, 1, |key| apart * key as u32);
    }
    measure(&format!("{MASS} at once, one channel"), MASS, 1, |_| Duration::ZERO);
    measure(&format!("{MASS} at once, 500 channels"), MASS, 500, |_| Duration::ZERO);
    memory();
}

/// Lets keys expire in so many channels, each at its own time after the first, and tells how that went.
fn measure(name: &str, keys: usize, channels: usize, after: impl Fn(usize) -> Duration) {
    let server = Server::start();
    let mut writer = Writer::new(&server);
    writer.write((0..OTHERS).map(|i| format!("SET other:{i} x EX {}", 3600 + i)));
    let start = now() + LEAD;
    let deadline = |key: usize| start + after(key);
    let name_of = |key: usize| format!("v:{}:{key}", key % channels);
    writer.write((0..keys).map(|i| format!("SET {} x", name_of(i))));
    // KeyDB 6.3 has no SET … PXAT.
    writer.write((0..keys).map(|i| format!("PEXPIREAT {} {}", name_of(i), deadline(i).as_millis())));
    let relay = relay(&server);
    let mut client = Client::subscribe(&relay, channels);
    client.until(b"keyrelay.ready");
    let late = now() > start;
    assert!(!late, "it takes too long to subscribe: the machine is busy");
    let events = relay.metric("keyrelay_key_events_total");
    let before = (processor_time(&relay), server_time(&server));
    let mut delays: Vec<f64> = Vec::with_capacity(keys);
    let mut resets = 0;
    let mut told = vec![false; keys];
    while delays.len() < keys {
        client.lines(|line| {
            resets += usize::from(line.starts_with(b"event: keyrelay.reset"));
            if line.ends_with(b"}") && contains(line, GONE) {
                let key = key_of(line);
                if !std::mem::replace(&mut told[key], true) {
                    let delay = now().as_secs_f64() - deadline(key).as_secs_f64();
                    delays.push(delay * 1e3);
                }
            }
        });
    }
    let after = (processor_time(&relay), server_time(&server));
    delays.sort_by(f64::total_cmp);
    let each = |spent: f64| spent * 1e6 / keys as f64;
    println!(
        "{name:<26} | {:>13.1} {:>5.1} {:>5.0} | {:>20} | {resets:>6} | {:>5.1} {:>5.1}",
        delays[keys / 2],
        delays[keys * 99 / 100],
        delays[keys - 1],
        relay.metric("keyrelay_key_events_total") - events,
        each(after.0 - before.0),
        each(after.1 - before.1),
    );
}

/// Tells what the relay needs more for keys that expire than for those that do not.
fn memory() {
    let server = Server::start();
    let mut writer = Writer::new(&server);
    writer.write((0..MANY).map(|i| format!("SET v:0:{i} x")));
    let resident = || {
        let relay = relay(&server);
        let mut client = Client::subscribe(&relay, 1);
        client.until(b"keyrelay.ready");
        relay.resident()
    };
    let without = resident();
    writer.write((0..MANY).map(|i| format!("EXPIRE v:0:{i} {}", 3600 + i % 3600)));
    let with = resident();
    println!(
        "\n{MANY} keys in one channel: {} bytes each, and",
        without / MANY as u64
    );
    println!("{} more for its deadline", with.saturating_sub(without) / MANY as u64);
}

fn relay(server: &Server) -> Relay {
    let mapping = harness::mapping("key = \"v:{channel}:{id}\"\nchannel = \"{channel}\"");
    // What is measured is what the deadlines do.
    Relay::reaching(&format!("url = \"{}\"\nverify = \"off\"", server.url()), "", &mapping)
}

/// Writes to the server, many commands at a time.
struct Writer(TcpStream);

impl Writer {
    fn new(server: &Server) -> Writer {
        Writer(TcpStream::connect(server.address()).expect("the server accepts"))
    }

    /// Commands without blanks in their words, each with an answer of one line.
    fn write(&mut self, commands: impl Iterator<Item = String>) {
        let commands: Vec<String> = commands.collect();
        let mut answer = vec![0; 1 << 16];
        for some in commands.chunks(PIPELINED) {
            let text = some.join("\r\n") + "\r\n";
            self.0.write_all(text.as_bytes()).expect("the server reads");
            let mut missing = some.len();
            while missing > 0 {
                let read = self.0.read(&mut answer).expect("the server answers");
                assert!(
                    !answer[..read].starts_with(b"-"),
                    "{}",
                    String::from_utf8_lossy(&answer[..read])
                );
                missing -= answer[..read].iter().filter(|&&byte| byte == b'\n').count();
            }
        }
    }
}

/// A subscriber that looks at lines and keeps nothing.
struct Client {
    stream: BufReader<TcpStream>,
    rest: Vec<u8>,
    chunk: Vec<u8>,
}

impl Client {
    fn subscribe(relay: &Relay, channels: usize) -> Client {
        let mut stream = TcpStream::connect(relay.address()).expect("the relay accepts");
        let names: Vec<String> = (0..channels).map(|channel| format!("channel={channel}")).collect();
        let request = format!("GET /events?{} HTTP/1.1\r\nHost: bench\r\n\r\n", names.join("&"));
        stream.write_all(request.as_bytes()).expect("the relay reads");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket has it");
        Client {
            stream: BufReader::new(stream),
            rest: Vec::new(),
            chunk: vec![0; 1 << 16],
        }
    }

    /// Takes what has come, line by line.
    fn lines(&mut self, mut line: impl FnMut(&[u8])) {
        let read = self.stream.read(&mut self.chunk).expect("the relay writes");
        assert!(read > 0, "the relay ended the stream");
        self.rest.extend_from_slice(&self.chunk[..read]);
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|&byte| byte == b'\n') {
            line(&self.rest[start..start + length]);
            start += length + 1;
        }
        self.rest.drain(..start);
    }

    fn until(&mut self, word: &[u8]) {
        let mut found = false;
        while !found {
            self.lines(|line| found |= contains(line, word));
        }
    }
}

fn contains(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|window| window == word)
}

/// The number at the end of the key that a message names.
fn key_of(line: &[u8]) -> usize {
    let text = String::from_utf8_lossy(line);
    let (_, rest) = text.split_once("\"key\":\"").expect("a message names its key");
    let (key, _) = rest.split_once('"').expect("a key ends");
    let (_, number) = key.rsplit_once(':').expect("a key has parts");
    number.parse().expect("the last part is a number")
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970")
}

/// Seconds that the relay's threads have run.
fn processor_time(relay: &Relay) -> f64 {
    let file = format!("/proc/{}/stat", relay.pid().as_raw_nonzero());
    let stat = std::fs::read_to_string(file).expect("the relay runs");
    // proc(5): user and system time, in hundredths of a second on every Linux.
    let (_, fields) = stat.rsplit_once(')').expect("the name stands in brackets");
    let ticks = |at: usize| {
        fields
            .split_whitespace()
            .nth(at)
            .and_then(|ticks| ticks.parse::<f64>().ok())
    };
    (ticks(11).expect("utime") + ticks(12).expect("stime")) / 100.0
}

/// Seconds that the server has run.
fn server_time(server: &Server) -> f64 {
    let Reply::Bulk(info) = redis!(server, "INFO", "cpu") else {
        panic!("INFO is a text");
    };
    let info = String::from_utf8_lossy(&info).into_owned();
    let field = |name: &str| {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("INFO cpu has it");
        line.trim_start_matches(':').trim().parse::<f64>().expect("a number")
    };
    field("used_cpu_sys") + field("used_cpu_user")
}
