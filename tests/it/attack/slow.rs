//! Clients that take their time: to ask, and to read.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use super::{Scene, sent};
use crate::harness::http::Exchange;
use crate::harness::{Client, Sse, Ws, eventually, mapping};
use crate::redis;

/// A head of which a byte comes now and then is never whole: the connection is closed all the same.
#[test]
pub fn heads_byte_by_byte() {
    const CLIENTS: usize = 100;
    let mut scene = Scene::new("", "");
    let mut slow: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let stream = sent(
                &scene.relay,
                b"GET /channels/by:stander HTTP/1.1\r\nHost: relay.test\r\nX-Slow: ",
            );
            stream.set_nonblocking(true).expect("a socket can be made nonblocking");
            stream
        })
        .collect();
    let mut looks = 0;
    eventually("every slow head is cut off", || {
        looks += 1;
        slow.retain_mut(|stream| {
            // Not to fill the buffers of the head by mere speed.
            let sent = if looks % 20 == 0 {
                stream.write_all(b"x")
            } else {
                Ok(())
            };
            let open = match stream.read(&mut [0; 512]) {
                Ok(0) => false,
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            sent.is_ok() && open
        });
        slow.is_empty().then_some(())
    });
    scene.over();
}

/// Clients that never read what they asked for cost what is in the socket's buffers and a frame that was begun.
#[test]
pub fn streams_that_are_never_read() {
    const CLIENTS: usize = 30;
    const ALLOWED: u64 = 96 << 20;
    let mut scene = Scene::new("write_timeout = \"2s\"", &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let sse: Vec<Sse> = (0..CLIENTS).map(|_| Sse::narrow(&scene.relay, &["v"])).collect();
    let ws: Vec<Ws> = (0..CLIENTS).map(|_| Ws::narrow(&scene.relay, &["v"])).collect();
    let pad = "x".repeat(128 << 10);
    let mut n = 0;
    eventually("the relay gives all of them up", || {
        n += 1;
        redis!(scene.server, "SET", format!("v:{}", n % 10), format!("{n} {pad}"));
        if n % 50 == 0 {
            scene.undisturbed();
        }
        assert!(scene.grown() < ALLOWED, "grew by {} bytes", scene.grown());
        (scene.relay.metric("keyrelay_connections") == 2.0).then_some(())
    });
    drop((sse, ws));
    redis!(
        scene.server,
        "DEL",
        "v:0",
        "v:1",
        "v:2",
        "v:3",
        "v:4",
        "v:5",
        "v:6",
        "v:7",
        "v:8",
        "v:9"
    );
    scene.over();
}

/// A peer that has said its last word on a stream of events is gone, whatever it might still read.
#[test]
pub fn half_closed_streams() {
    let mut scene = Scene::new("", "");
    let half: Vec<_> = (0..50)
        .map(|_| {
            let stream = scene.relay.connect(None);
            let other = stream.socket().try_clone().expect("a socket can be shared");
            let exchange = Exchange::send(stream, "GET", "/events?channel=by:stander", &[]);
            other.shutdown(Shutdown::Write).expect("a socket can be half closed");
            exchange
        })
        .collect();
    eventually("the relay lets go of them", || {
        (scene.relay.metric("keyrelay_connections") == 2.0).then_some(())
    });
    drop(half);
    scene.over();
}

/// Whoever answers no ping is gone, though the connection looks as if it were there.
#[test]
pub fn web_sockets_that_answer_no_ping() {
    let mut scene = Scene::new("heartbeat = \"1s\"\nwrite_timeout = \"2s\"", "");
    // The harness answers when it reads, and nobody reads here.
    let silent: Vec<Ws> = (0..50).map(|_| Ws::open(&scene.relay, &["by:silent"])).collect();
    eventually("the relay lets go of them", || {
        scene.undisturbed();
        (scene.relay.metric("keyrelay_connections") == 2.0).then_some(())
    });
    drop(silent);
    scene.over();
}

/// The state of large channels, asked for by many and read by none.
#[test]
pub fn states_that_are_never_read() {
    /// Each asks for 10 MB.
    const CLIENTS: usize = 100;
    /// What all bodies may hold together, the state itself, and the same encoded for who follows it.
    const ALLOWED: u64 = 192 << 20;
    let mapping = mapping("key = \"v:{id}\"\nchannel = \"v\"\nlinger = \"1s\"");
    let mut scene = Scene::new("write_timeout = \"2s\"", &mapping);
    let pad = "x".repeat(1 << 19);
    for id in 0..20 {
        redis!(scene.server, "SET", format!("v:{id}"), &pad);
    }
    // So that the state is there at once, and once.
    let mut holder = Sse::open(&scene.relay, &["v"]);
    holder.ready();
    let files = open_files(&scene);
    let slow: Vec<_> = (0..CLIENTS)
        .map(|_| scene.relay.exchange("GET", "/channels/v", &[], Some(4096)))
        .collect();
    let mut most = 0;
    eventually("all of them are given up", || {
        scene.undisturbed();
        most = most.max(scene.grown());
        (open_files(&scene) <= files).then_some(())
    });
    drop(slow);
    assert!(most < ALLOWED, "grew by {most} bytes");
    assert!(scene.relay.metric("keyrelay_refused_bodies_total") > 0.0);
    assert_eq!(scene.relay.get("/channels/by:stander").status(), 200);
    drop(holder);
    eventually("the state is let go", || {
        (scene.relay.metric("keyrelay_channels") == 1.0).then_some(())
    });
    scene.over();
}

/// How many files and sockets the relay holds.
fn open_files(scene: &Scene) -> usize {
    let folder = format!("/proc/{}/fd", scene.relay.pid().as_raw_nonzero());
    std::fs::read_dir(folder).expect("the relay runs").count()
}
