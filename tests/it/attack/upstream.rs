//! A server that says what no server should say: the relay gives the connection up at worst, and goes on.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::Scene;
use crate::harness::{Relay, Server, Side, eventually, mapping};
use crate::redis;

/// A hundredfold of what the relay takes of one frame, and most that one attack sends.
const MUCH: usize = 96 << 20;

/// What the relay may hold for all that it is sent: two frames of the largest kind, and what it takes to read them.
const ALLOWED: u64 = 80 << 20;

/// What is put between the server's own words.
#[derive(Clone)]
struct Words {
    first: Vec<u8>,
    /// Said after that, so many times.
    then: Vec<u8>,
    times: usize,
}

/// A proxy before a real server that puts in words of its own when it is told to.
struct Hostile {
    port: u16,
    words: Arc<Mutex<Option<(Side, Words)>>>,
}

impl Hostile {
    fn before(server: &Server) -> Hostile {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it has an address").port();
        let words: Arc<Mutex<Option<(Side, Words)>>> = Arc::default();
        let (to, shared) = (server.address(), words.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else {
                    return;
                };
                let words = shared.clone();
                thread::spawn(move || pass(client, server, &words));
            }
        });
        Hostile { port, words }
    }

    /// Says this once to the connection of that side, and waits until it was said, or heard no further.
    fn say(&self, side: Side, words: Words) {
        *self.words.lock().unwrap() = Some((side, words));
    }

    fn has_said(&self) -> bool {
        self.words.lock().unwrap().is_none()
    }
}

/// Passes on what both sides say.
fn pass(mut client: TcpStream, mut server: TcpStream, words: &Mutex<Option<(Side, Words)>>) {
    let mut bytes = vec![0; 64 << 10];
    let Ok(first) = client.read(&mut bytes) else { return };
    let side = match bytes[..first].windows(7).any(|word| word == b"SETNAME") && bytes[..first].starts_with(b"*") {
        true if bytes[..first].windows(5).any(|word| word == b"HELLO") => Side::Feed,
        _ => Side::Reader,
    };
    if server.write_all(&bytes[..first]).is_err() {
        return;
    }
    let (mut from, mut to) = (
        client.try_clone().expect("a clone"),
        server.try_clone().expect("a clone"),
    );
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    while let Ok(length @ 1..) = server.read(&mut bytes) {
        let own = words.lock().unwrap().take_if(|(wanted, _)| *wanted == side);
        let said = own.is_none_or(|(_, words)| {
            client.write_all(&words.first).is_ok() && (0..words.times).all(|_| client.write_all(&words.then).is_ok())
        });
        if !said || client.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// The most memory that the process ever had.
fn peak(relay: &Relay) -> u64 {
    let file = format!("/proc/{}/status", relay.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(file).expect("the relay runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("the kernel tells VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn once(first: impl Into<Vec<u8>>) -> Words {
    again(first, "", 0)
}

fn again(first: impl Into<Vec<u8>>, then: impl Into<Vec<u8>>, times: usize) -> Words {
    Words {
        first: first.into(),
        then: then.into(),
        times,
    }
}

/// Says each of these to both connections. The clients stay, hear what is true again, and never what was said.
fn said(rows: Vec<(&str, Words)>) {
    let server = Server::start();
    let hostile = Hostile::before(&server);
    let url = format!("redis://127.0.0.1:{}", hostile.port);
    let relay = Relay::at(&url, "", &mapping("key = \"by:{id}\""));
    let mut scene = Scene::of(server, relay);
    let before = peak(&scene.relay);
    for (what, words) in rows {
        for side in [Side::Feed, Side::Reader] {
            hostile.say(side, words.clone());
            // Something to tell and to read, so that there is an answer to put it before.
            eventually("it was said", || {
                redis!(scene.server, "SET", "by:stander", "meanwhile");
                hostile.has_said().then_some(())
            });
            scene.undisturbed();
            let grown = peak(&scene.relay).saturating_sub(before);
            assert!(grown < ALLOWED, "{what}, {side:?}: {grown} bytes more");
        }
    }
    assert!(!scene.relay.log().contains("panicked"), "{}", scene.relay.log());
    scene.over();
    scene.heard_nothing_of("evil");
}

#[test]
fn what_is_no_resp() {
    said(vec![
        ("text", once("evil\r\n")),
        ("bytes", once((0..=255).collect::<Vec<u8>>())),
        ("HTTP", once("HTTP/1.1 400 Bad Request\r\n\r\nevil")),
        ("a line end alone", once("\r\n")),
        ("a kind that is none", once("?3\r\nevil\r\n")),
        ("a length that is none", once("$evil\r\nevil\r\n")),
        ("a negative length", once("$-5\r\nevil\r\n")),
        ("fewer than no elements", once("*-7\r\n")),
        ("a number that is none", once(":evil\r\n")),
        ("a frame without its end", once("$4\r\nevilXX")),
        ("what comes in parts", once("$?\r\n;4\r\nevil\r\n;0\r\n")),
        ("elements without a number", once("*?\r\n+evil\r\n.\r\n")),
        ("an attribute", once("|1\r\n+evil\r\n+evil\r\n")),
    ]);
}

#[test]
fn what_has_no_end() {
    said(vec![
        ("a line", again("+", "x".repeat(1 << 20), MUCH >> 20)),
        ("a string", again("$99999999999\r\n", "x".repeat(1 << 20), MUCH >> 20)),
        (
            "a long string",
            again("$2000000000\r\n", "x".repeat(1 << 20), MUCH >> 20),
        ),
        ("a length", once("$99999999999999999999999999\r\n")),
        (
            "elements",
            again("*4000000000\r\n", ":1\r\n".repeat(1 << 18), MUCH >> 20),
        ),
        (
            "pushed elements",
            again(">4000000000\r\n", "+evil\r\n".repeat(1 << 17), MUCH >> 20),
        ),
        ("pairs", again("%4000000000\r\n", ":1\r\n".repeat(1 << 18), MUCH >> 20)),
    ]);
}

#[test]
fn what_is_deep() {
    said(vec![
        ("lists in lists", again("", "*1\r\n".repeat(1 << 16), 16)),
        ("pushes in pushes", again("", ">1\r\n".repeat(1 << 16), 16)),
        ("maps in maps", again("", "%1\r\n+evil\r\n".repeat(1 << 16), 16)),
        ("sets in sets", again("", "~1\r\n".repeat(1 << 16), 16)),
    ]);
}

#[test]
fn what_nobody_asked_for() {
    said(vec![
        ("a reply too many", once("+evil\r\n")),
        ("a number", once(":42\r\n")),
        ("nothing", once("_\r\n")),
        ("a list", once("*2\r\n$4\r\nevil\r\n$4\r\nevil\r\n")),
        ("a map", once("%1\r\n+evil\r\n+evil\r\n")),
        ("an error", once("-ERR evil\r\n")),
        ("many replies", again("", "+evil\r\n".repeat(1000), 10)),
        (
            "a message of a channel",
            once(">3\r\n$7\r\nmessage\r\n$4\r\nevil\r\n$4\r\nevil\r\n"),
        ),
        (
            "an event of a key that is not there",
            once(">3\r\n$7\r\nmessage\r\n$19\r\n__keyspace@0__:evil\r\n$3\r\nset\r\n"),
        ),
        ("a push that nobody knows", once(">2\r\n$4\r\nevil\r\n$4\r\nevil\r\n")),
        ("a flush", once(">2\r\n$10\r\ninvalidate\r\n_\r\n")),
        (
            "changed keys",
            once(">2\r\n$10\r\ninvalidate\r\n*1\r\n$10\r\nby:stander\r\n"),
        ),
        (
            "the end of a subscription",
            once(">3\r\n$11\r\nunsubscribe\r\n$4\r\nevil\r\n:0\r\n"),
        ),
        ("another place", once("-MOVED 1 127.0.0.1:1\r\n")),
    ]);
}
