//! Whole answers over HTTP/2: to whoever reads, however slowly, and to nobody else for long.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::http::{self, More};
use crate::harness::{Body, Http2, Relay, Server, Way, client_config, eventually, mapping, over};
use crate::redis;

const PATIENCE: Duration = Duration::from_secs(20);

/// A relay with these lines of `[server]` and of `[limits]`, and this many bytes in the channel `v`.
#[track_caller]
fn filled(server: &Server, options: &str, limits: &str, size: usize) -> Relay {
    const VALUE: usize = 50_000;
    over(Way::Http2);
    let value = "x".repeat(VALUE);
    for n in 0..size / VALUE {
        redis!(server, "SET", format!("v:{n}"), &value);
    }
    let mapping = mapping("key = \"v:{id}\"\nchannel = \"v\"");
    Relay::with(server, options, &format!("[limits]\n{limits}\n{mapping}"))
}

/// Reads to the end of a body: how much came, and how it ended.
fn rest(connection: &mut Http2, body: &mut Body) -> (usize, More) {
    let mut size = 0;
    loop {
        match connection.read(body, PATIENCE) {
            Ok(piece) => size += piece.len(),
            Err(end) => return (size, end),
        }
    }
}

/// An answer that is not taken holds its place, and is given up alone.
#[test]
fn an_answer_that_is_not_read_is_given_up() {
    let server = Server::start();
    let relay = filled(&server, "write_timeout = \"2s\"", "connections = 3", 200_000);
    // No more than a window of each is taken unasked.
    let mut connection = relay.connect_http2(Some(4 << 10));
    let (head, mut stream) = connection.send("GET", "/events?channel=v", &[]);
    assert_eq!(head.status, 200);
    let mut stalled: Vec<Body> = (0..2)
        .map(|_| {
            let (head, body) = connection.send("GET", "/channels/v", &[]);
            assert_eq!(head.status, 200);
            body
        })
        .collect();
    let (head, _) = connection.send("GET", "/channels/v", &[]);
    assert_eq!(head.status, 503, "each answer that is not read yet has a place");
    let head = eventually("their places are given back", || {
        // The stream goes on meanwhile.
        connection.read(&mut stream, Duration::from_millis(50)).ok();
        let (head, mut body) = connection.send("GET", "/channels/v", &[]);
        let (size, end) = rest(&mut connection, &mut body);
        assert_eq!(end, More::Ended);
        (head.status == 200).then_some((head, size))
    });
    assert!(head.1 > 200_000, "{head:?}");
    for body in &mut stalled {
        let (size, end) = rest(&mut connection, body);
        assert_eq!(end, More::Cut, "after {size} bytes");
        assert!(size < 20_000, "{size}");
    }
    redis!(server, "SET", "v:0", "the end");
    let mut heard = String::new();
    while !heard.contains("the end") {
        let piece = connection.read(&mut stream, PATIENCE).expect("the stream goes on");
        heard.push_str(&String::from_utf8_lossy(&piece));
    }
}

/// Who reads slowly gets everything, however long it takes: whether its windows are small or its network is.
#[test]
#[expect(clippy::disallowed_methods, reason = "the pace of the clients is what is tested")]
fn who_reads_slowly_gets_everything() {
    const SIZE: usize = 1 << 20;
    const BETWEEN: Duration = Duration::from_millis(80);
    let server = Server::start();
    let relay = filled(&server, "", "head_timeout = \"1s\"", SIZE);
    let small_windows = relay.connect_http2(Some(32 << 10));
    let slow_network = Http2::begin(
        http::connect(relay.address(), Some(32 << 10)),
        Some(client_config(relay.authority(), "h2", None)),
        None,
    );
    let mut reading: Vec<_> = [small_windows, slow_network]
        .into_iter()
        .map(|mut connection| {
            let (head, body) = connection.send("GET", "/channels/v", &[]);
            let length: usize = head
                .header("content-length")
                .expect("a length")
                .parse()
                .expect("a number");
            assert!(head.status == 200 && length > SIZE - 50_000, "{head:?}");
            (connection, body, length)
        })
        .collect();
    let since = Instant::now();
    while reading.iter().any(|(.., left)| *left > 0) {
        // The pace of both clients: a frame of 16 KiB at a time.
        sleep(BETWEEN);
        for (connection, body, left) in &mut reading {
            if *left > 0 {
                let piece = connection.read(body, PATIENCE);
                *left -= piece
                    .unwrap_or_else(|end| panic!("{end:?} with {left} bytes left"))
                    .len();
            }
        }
    }
    for (connection, body, _) in &mut reading {
        assert_eq!(rest(connection, body), (0, More::Ended));
    }
    // As long as a connection without a request is kept, and then some.
    assert!(since.elapsed() > Duration::from_secs(4), "{:?}", since.elapsed());
}
