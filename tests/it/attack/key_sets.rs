//! Sets of keys that never end: what is asked of them waits a moment and is told to come back, and nobody else waits.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::{Scene, sent};
use crate::access::refusal;
use crate::harness::http::{Exchange, get};
use crate::harness::tokens::{ACCESS, now, token};
use crate::harness::{Client, End, Relay, Sse, Stream, Ws, eventually};
use crate::redis;

/// What the relay may hold for all sets that it is fetching, each of 256 KiB at most.
const ALLOWED: u64 = 16 << 20;

/// What a publisher may have sent before it is hung up on: a set of the largest size, and what sockets hold.
const TAKEN: usize = 16 << 20;

/// Somebody who publishes keys, in order or not.
struct Publisher {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The first line of each request.
    asked: Mutex<Vec<String>>,
    /// How many connections are over.
    over: AtomicUsize,
    /// Most bytes that were sent over one of them.
    most: AtomicUsize,
}

impl Publisher {
    /// Does this with each connection, once its request was read; what it gives is how much it has sent.
    fn start(answer: impl Fn(&mut TcpStream) -> usize + Send + Sync + 'static) -> Publisher {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (answer, seen) = (Arc::new(answer), Arc::new(Seen::default()));
        let shared = seen.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (answer, seen) = (answer.clone(), shared.clone());
                std::thread::spawn(move || {
                    let head = BufReader::new(&stream).lines().map_while(Result::ok);
                    let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
                    seen.asked.lock().unwrap().extend(head.into_iter().next());
                    seen.most.fetch_max(answer(&mut stream), Ordering::Relaxed);
                    seen.over.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Publisher { address, seen }
    }

    /// A table of the config by which its keys count.
    fn table(&self) -> String {
        format!("[[access.jwt]]\njwks_url = \"http://{}/keys\"\n", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().unwrap().clone()
    }
}

/// Writes until the other side has enough, as fast as it reads; gives how much that was.
fn forever(stream: &mut TcpStream, first: &str, then: &str) -> usize {
    let mut written = 0;
    let mut next = first;
    while written <= 2 * TAKEN && stream.write_all(next.as_bytes()).is_ok() {
        written += next.len();
        next = then;
    }
    written
}

/// Writes a little now and then, until the other side has gone.
fn dripping(stream: &mut TcpStream, first: &str) -> usize {
    let pause = Some(Duration::from_millis(50));
    stream.set_read_timeout(pause).expect("a timeout can be set");
    let mut written = 0;
    let mut next = first;
    while stream.write_all(next.as_bytes()).is_ok() {
        written += next.len();
        next = " ";
        match stream.read(&mut [0; 1]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    written
}

/// Somebody who signs with a key of a set.
struct Signer {
    pair: Ed25519KeyPair,
}

impl Signer {
    fn new() -> Signer {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Signer {
            pair: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key"),
        }
    }

    fn set(&self, kid: &str) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}]}).to_string()
    }

    fn token(&self, kid: &str) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({"sub": "42", "exp": now() + 600});
        let text = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": kid})), part(claims));
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes())))
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// Everything that keeps a client of HTTP waiting or makes it read.
fn hostile(elsewhere: SocketAddr) -> Vec<(&'static str, Publisher)> {
    let kilobyte = " ".repeat(1024);
    let (body, line) = (kilobyte.clone(), format!("x-more: {}\r\n", "x".repeat(100)));
    vec![
        (
            "silence",
            Publisher::start(|stream| stream.read(&mut [0; 1]).unwrap_or(0)),
        ),
        ("a head byte by byte", Publisher::start(|stream| dripping(stream, HEAD))),
        (
            "a body byte by byte",
            Publisher::start(|stream| dripping(stream, &format!("{HEAD}\r\n{{\"keys\":["))),
        ),
        (
            "a body that never ends",
            Publisher::start(move |stream| forever(stream, &format!("{HEAD}\r\n{{\"keys\":["), &body)),
        ),
        (
            "a document of 100 MB",
            Publisher::start(move |stream| {
                forever(stream, &format!("{HEAD}content-length: 100000000\r\n\r\n"), &kilobyte)
            }),
        ),
        (
            "a head that never ends",
            Publisher::start(move |stream| forever(stream, HEAD, &line)),
        ),
        (
            "a redirect",
            Publisher::start(move |stream| {
                let head =
                    format!("HTTP/1.1 302 Found\r\nlocation: http://{elsewhere}/keys\r\ncontent-length: 0\r\n\r\n");
                stream.write(head.as_bytes()).unwrap_or(0)
            }),
        ),
    ]
}

/// That a token by a key that cannot be fetched is told to come back, on every way in its own.
#[track_caller]
fn is_told_to_come_back(relay: &Relay, token: &str) {
    let plain = get(relay.address(), &format!("/channels/cart:42?token={token}"));
    assert_eq!(plain.status(), 503, "{}", plain.text());
    assert!(plain.header("retry-after").is_some());
    assert!(!plain.text().contains(token), "{}", plain.text());
    let mut sse = Sse::request(relay, &format!("/events?channel=cart:42&token={token}"), &[], None);
    let end = sse.control("end");
    assert_eq!(
        (&end["reason"], &end["reconnect"]),
        (&json!("unavailable"), &json!(true))
    );
    let mut ws = Ws::request(relay, &format!("/ws?channel=cart:42&token={token}"), None);
    assert_eq!(ws.closed(), End::Proper(Some(1013)));
}

#[test]
fn that_never_end() {
    let began = Instant::now();
    let (signer, stranger) = (Signer::new(), Signer::new());
    let set = signer.set("known");
    let good = Publisher::start(move |stream| {
        let answer = format!("{HEAD}content-length: {}\r\n\r\n{set}", set.len());
        stream.write(answer.as_bytes()).unwrap_or(0)
    });
    let elsewhere = Publisher::start(|_| 0);
    let hostile = hostile(elsewhere.address);
    let tables: String = hostile.iter().map(|(_, publisher)| publisher.table()).collect();
    let mapping = "[[mapping]]\nkey = \"cart:{user}\"\naccess = { sub = \"{user}\" }\n";
    let mut scene = Scene::new("", &format!("{ACCESS}{}{tables}{mapping}", good.table()));
    let secret = token(600, json!({"sub": "42"}));
    let target = |token: &str| format!("/events?channel=cart:42&token={token}");
    let mut clients: Vec<Sse> = [secret.clone(), signer.token("known")]
        .iter()
        .map(|token| Sse::request(&scene.relay, &target(token), &[], None))
        .collect();
    clients.iter_mut().for_each(Client::ready);

    let foreign: Vec<String> = ["../../../etc/passwd", "http://127.0.0.1:1/keys", "", "%2e%2e"]
        .map(|kid| stranger.token(kid))
        .into();
    // All at once, and nobody waits for an answer to them.
    let waiting: Vec<Stream> = (0..100)
        .map(|n| {
            let target = format!("/channels/cart:42?token={}", foreign[n % foreign.len()]);
            sent(
                &scene.relay,
                format!("GET {target} HTTP/1.1\r\nHost: relay.test\r\n\r\n").as_bytes(),
            )
        })
        .collect();
    let mut round = 0;
    eventually("the relay hangs up on each of them", || {
        round += 1;
        scene.undisturbed();
        redis!(scene.server, "SET", "cart:42", round.to_string());
        for client in &mut clients {
            client.sees("cart:42", "cart:42", round.to_string());
        }
        for token in [&secret, &signer.token("known")] {
            assert_eq!(
                get(scene.relay.address(), &format!("/channels/cart:42?token={token}")).status(),
                200
            );
        }
        assert!(scene.grown() < ALLOWED, "grew by {} bytes", scene.grown());
        hostile
            .iter()
            .all(|(_, publisher)| publisher.seen.over.load(Ordering::Relaxed) > 0)
            .then_some(())
    });
    for stream in waiting {
        assert_eq!(Exchange::receive(stream).expect("an answer").head.status, 503);
    }
    foreign
        .iter()
        .for_each(|token| is_told_to_come_back(&scene.relay, token));
    // A key that is there decides, be the others never to be had.
    let forged = refusal(&scene.relay, "cart:42", Some(&stranger.token("known"))).expect("a refusal");
    assert_eq!((forged.status, forged.word.as_str()), (401, "signature"));

    for (what, publisher) in &hostile {
        let most = publisher.seen.most.load(Ordering::Relaxed);
        assert!(most < TAKEN, "{what}: {most} bytes were sent");
        let log = scene.relay.log();
        let url = format!("http://{}/keys", publisher.address);
        assert!(
            log.lines()
                .any(|line| line.contains(&url) && line.contains("cannot be fetched")),
            "{what}: {log}"
        );
    }
    assert_eq!(elsewhere.asked(), Vec::<String>::new());
    // Made-up names bring about no more than a fetch in 30 s, and of nothing but what the config names.
    let asked = good.asked();
    let most = 1 + began.elapsed().as_secs() as usize / 30;
    assert!(
        asked.len() <= most && asked.iter().all(|line| line == "GET /keys HTTP/1.1"),
        "{asked:?}"
    );
    scene.over();
}
