//! HTTP/2 frame by frame, as clients send them that hyper would not.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use super::*;
use crate::limits::{Limits, Options};
use crate::server::Head;
use crate::server::door::Door;
use crate::server::listen::Accepted;
use crate::server::terms::Live;
use crate::server::testing::{LIFETIME, WRITE_TIMEOUT, arrival, filled, hub, site};

/// What a client sends first (RFC 9113 §3.4): the preface, and SETTINGS without any.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// SETTINGS that leave no room for the body of any answer, as a whole frame (RFC 9113 §6.5).
const NO_WINDOW: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";

/// Types of frames: what begins an answer, what ends a stream early, and what tells to leave.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

/// A request for `/`, which is not there, as a whole frame: indexed headers only (RFC 7541, appendix A).
fn request(stream: u8) -> [u8; 12] {
    [0, 0, 3, 1, 5, 0, 0, 0, stream, 0x82, 0x87, 0x84]
}

/// The next frame's type and stream; nothing at the end.
async fn frame(client: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u32)> {
    let mut head = [0; 9];
    client.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, _, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    client.read_exact(&mut payload).await.ok()?;
    Some((kind, u32::from_be_bytes(stream)))
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_told_to_leave_and_closed() {
    let (hub, _appender) = hub(10);
    let (site, _shard) = site(&hub);
    let (peer, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let caller = arrival(&site, Accepted::Unix(peer)).caller;
    let (ours, mut client) = tokio::io::duplex(4096);
    client.write_all(PREFACE).await.unwrap();
    let since = Instant::now();
    let mut heard = Vec::new();
    let reading = async {
        // It answers nothing.
        client.read_to_end(&mut heard).await.unwrap();
        since.elapsed()
    };
    let both = async { tokio::join!(serve(ours, caller, site, MAX_STREAMS), reading).1 };
    let took = LocalSet::new().run_until(both).await;
    let limit = Head::default().timeout + GOODBYE;
    assert!((limit..limit + GOODBYE).contains(&took), "{took:?}");
    let mut frames = Vec::new();
    while let [a, b, c, kind, ..] = heard[..] {
        frames.push(kind);
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        heard.drain(..9 + length);
    }
    assert!(frames.contains(&GOAWAY), "{frames:?}");
}

/// The last of an answer may have to wait for what was answered before it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_answered_may_take_a_writes_time_to_close() {
    let (hub, _appender) = hub(10);
    let (site, _shard) = site(&hub);
    let (peer, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let caller = arrival(&site, Accepted::Unix(peer)).caller;
    let (ours, mut client) = tokio::io::duplex(4096);
    client.write_all(&[PREFACE, &request(1)].concat()).await.unwrap();
    let since = Instant::now();
    let hearing = async {
        while frame(&mut client).await.is_some() {}
        since.elapsed()
    };
    let both = async { tokio::join!(serve(ours, caller, site, MAX_STREAMS), hearing).1 };
    let took = LocalSet::new().run_until(both).await;
    let limit = Head::default().timeout + WRITE_TIMEOUT;
    assert!((limit..limit + GOODBYE).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_which_there_is_no_window_is_given_up_alone() {
    let (hub, _appender) = hub(10);
    let (site, _shard) = site(&hub);
    let (peer, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let caller = arrival(&site, Accepted::Unix(peer)).caller;
    let (ours, mut client) = tokio::io::duplex(4096);
    let hello = [&PREFACE[..24], NO_WINDOW, &request(1)].concat();
    client.write_all(&hello).await.unwrap();
    let talking = async {
        tokio::time::sleep(WRITE_TIMEOUT / 2).await;
        client.write_all(&request(3)).await.unwrap();
        let mut ended = Vec::new();
        while ended.len() < 2 {
            let (kind, stream) = frame(&mut client).await.expect("the connection goes on");
            if kind == RST_STREAM {
                ended.push((stream, Instant::now()));
            }
        }
        ended
    };
    let since = Instant::now();
    let served = LocalSet::new();
    served.spawn_local(serve(ours, caller, site, MAX_STREAMS));
    let ended = served.run_until(timeout(WRITE_TIMEOUT * 3, talking)).await.unwrap();
    for ((stream, at), (expected, after)) in ended.into_iter().zip([(1, 0), (3, 1)]) {
        let due = WRITE_TIMEOUT + WRITE_TIMEOUT / 2 * after;
        assert_eq!(stream, expected);
        assert!((due..due + GOODBYE).contains(&(at - since)), "{:?}", at - since);
    }
}

/// It makes a little room now and then.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_by_drips_is_given_up_alone() {
    const SIZE: usize = 16 << 20;
    let (hub, mut appender) = hub(10);
    let _held = filled(&hub, &mut appender, SIZE);
    let (site, _shard) = site(&hub);
    let (peer, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let caller = arrival(&site, Accepted::Unix(peer)).caller;
    let (ours, client) = tokio::io::duplex(4096);
    let (mut reading, mut writing) = tokio::io::split(client);
    // GET and https by their indices, the path as it is (RFC 7541 §6.2.2).
    let path = b"\0\0\x11\x01\x05\0\0\0\x01\x82\x87\x04\x0d/channels/big";
    writing.write_all(&[PREFACE, path].concat()).await.unwrap();
    let dripping = async {
        loop {
            tokio::time::sleep(WRITE_TIMEOUT / 2).await;
            // Another piece, of the stream and of the connection (RFC 9113 §6.9).
            for stream in [0, 1] {
                let frame = [0, 0, 4, 8, 0, 0, 0, 0, stream, 0, 0, 0x40, 0];
                writing.write_all(&frame).await.unwrap();
            }
        }
    };
    let since = Instant::now();
    let hearing = async {
        loop {
            let (kind, stream) = frame(&mut reading).await.expect("the connection goes on");
            if kind == RST_STREAM {
                return (stream, since.elapsed());
            }
        }
    };
    let served = LocalSet::new();
    served.spawn_local(serve(ours, caller, site, MAX_STREAMS));
    let ended = served.run_until(async {
        tokio::select! {
            () = dripping => None,
            ended = timeout(WRITE_TIMEOUT * 5, hearing) => ended.ok(),
        }
    });
    let (stream, took) = ended.await.expect("it is given up");
    let due = WRITE_TIMEOUT + Duration::from_secs(64);
    assert_eq!(stream, 1);
    assert!((due..due + GOODBYE).contains(&took), "{took:?}");
}

/// It is told to leave, and what it has begun by then goes on.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_never_idle_has_a_lifetime() {
    const BETWEEN: Duration = Duration::from_secs(2);
    let (hub, _appender) = hub(10);
    let (site, _shard) = site(&hub);
    let (peer, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let caller = arrival(&site, Accepted::Unix(peer)).caller;
    let (ours, client) = tokio::io::duplex(4096);
    let (mut reading, mut writing) = tokio::io::split(client);
    writing.write_all(PREFACE).await.unwrap();
    let asking = async {
        for stream in (1..u8::MAX).step_by(2) {
            writing.write_all(&request(stream)).await.unwrap();
            tokio::time::sleep(BETWEEN).await;
        }
    };
    let since = Instant::now();
    let leaving = async {
        while frame(&mut reading).await.expect("it goes on").0 != GOAWAY {}
        since.elapsed()
    };
    let served = LocalSet::new();
    served.spawn_local(serve(ours, caller, site, MAX_STREAMS));
    let told = served.run_until(async {
        tokio::select! {
            () = asking => None,
            took = leaving => Some(took),
        }
    });
    let took = told.await.expect("it is told to leave");
    let (least, most) = (LIFETIME.mul_f64(0.9), LIFETIME.mul_f64(1.1) + BETWEEN);
    assert!((least..most).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_only_told_that_there_is_no_place_does_not_stay() {
    let (hub, _appender) = hub(10);
    let (site, _shard) = site(&hub);
    let options = Options {
        connections: 1,
        ..Options::default()
    };
    let door = Door::new(Limits::new(options, Arc::default()), Live::default());
    let knock = || {
        let (peer, _) = std::os::unix::net::UnixStream::pair().unwrap();
        door.admit(Accepted::Unix(peer)).unwrap().caller
    };
    let (_only, told) = (knock(), knock());
    assert!(told.is_refused());
    let (ours, client) = tokio::io::duplex(4096);
    let (mut reading, mut writing) = tokio::io::split(client);
    writing.write_all(PREFACE).await.unwrap();
    let asking = async {
        // It asks on and on, and heeds nothing.
        for stream in (1..).step_by(2) {
            if writing.write_all(&request(stream)).await.is_err() {
                break;
            }
            tokio::time::sleep(GOODBYE / 4).await;
        }
    };
    let hearing = async {
        let mut kinds = Vec::new();
        while let Some((kind, _)) = frame(&mut reading).await {
            kinds.push(kind);
        }
        kinds
    };
    let since = Instant::now();
    let all = async { tokio::join!(serve(ours, told, site, MAX_STREAMS), asking, hearing).2 };
    let kinds = LocalSet::new().run_until(timeout(Duration::from_secs(60), all)).await;
    let kinds = kinds.expect("it is closed");
    assert!(kinds.contains(&HEADERS) && kinds.contains(&GOAWAY), "{kinds:?}");
    assert!(since.elapsed() < GOODBYE * 2, "{:?}", since.elapsed());
}

#[test]
fn a_head_becomes_what_it_is_over_http_1() {
    let request = Request::get("https://relay.test:8443/events?channel=a")
        .header(HOST, "another.test")
        .header(COOKIE, "a=1")
        .header(COOKIE, "b=2; c=3");
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    as_elsewhere(&mut parts);
    assert_eq!(
        parts.headers[HOST], "relay.test:8443",
        "the URL is what the server is asked for"
    );
    assert_eq!(
        parts.headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
        ["a=1; b=2; c=3"]
    );
    let (mut parts, ()) = Request::get("/events").body(()).unwrap().into_parts();
    as_elsewhere(&mut parts);
    assert!(parts.headers.is_empty());
}
