//! The most memory that a config allows is no less than what clients can make the relay take.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::http::connect;
use crate::harness::{Client, PROGRAM, Relay, Server, Sse, eventually, mapping};
use crate::redis;

const SERVER: &str = "max_channels = 1_000\nwrite_timeout = \"60s\"";

const LIMITS: &str = "[limits]
connections = 400
subscriptions = 5_000
keys = 2_000
keys_per_channel = 1_500
log_bytes = \"16MiB\"
pinned = \"4MiB\"
head_size = \"16KiB\"
message_size = \"8KiB\"
";

fn mappings() -> String {
    let mappings = [
        mapping("key = \"v:{id}\"\nlinger = \"60s\""),
        mapping("key = \"m:{room}:{id}\"\nchannel = \"room:{room}\"\nlinger = \"60s\""),
    ];
    format!("{LIMITS}\n{}", mappings.concat())
}

/// What `check` says of it, in bytes.
fn figure() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("small.toml");
    std::fs::write(&file, format!("[server]\n{SERVER}\n{}", mappings())).unwrap();
    let output = Command::new(PROGRAM).arg("check").arg(&file).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = said.split_once("takes at most about ").expect(&said);
    let (number, _) = rest.split_once(" MiB:").expect(&said);
    number.parse::<u64>().unwrap() << 20
}

/// Listens until the client has all its channels, or was told that there is no room.
#[track_caller]
fn served(client: &mut Sse) {
    eventually("the client is served or turned away", || {
        client.poll(Duration::from_millis(10));
        let memory = client.memory();
        (memory.count("ready") > 0 || memory.count("end") > 0).then_some(())
    });
}

/// Everything that strangers can do, several times as much as there is room for; the most memory that was seen.
fn attack(relay: &Relay) -> u64 {
    let mut most = 0;
    let mut look = |what: &str| {
        let resident = relay.resident();
        if resident > most {
            eprintln!("{what}: {} KiB", resident >> 10);
            most = resident;
        }
    };
    // Values of 90 MB, and as much again as they are sent, each channel with one, to clients that read and to clients that do not.
    let names: Vec<String> = (0..120).map(|id| format!("v:large{id}")).collect();
    for some in names.chunks(10) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        let mut reads = Sse::open(relay, &some);
        served(&mut reads);
        look("large values");
    }
    let stalled: Vec<Sse> = names.iter().take(60).map(|name| Sse::narrow(relay, &[name])).collect();
    look("clients that do not read");
    drop(stalled);
    // Names that nobody has anything under.
    for round in 0..20 {
        let names: Vec<String> = (0..300).map(|id| format!("v:{round}-{id}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        served(&mut Sse::open(relay, &names));
    }
    look("names");
    // Rooms of more keys than there may be.
    let rooms: Vec<Sse> = ["room:1", "room:2", "room:3"]
        .iter()
        .map(|room| Sse::open(relay, &[room]))
        .collect();
    for mut room in rooms {
        served(&mut room);
    }
    look("keys");
    // Heads that do not end.
    let head = format!(
        "GET /events?channel=v:1 HTTP/1.1\r\nHost: x\r\nX: {}",
        "x".repeat(15_000)
    );
    let open: Vec<TcpStream> = (0..350)
        .map(|_| {
            let mut stream = connect(relay.address(), None);
            // Whom there is no place for is told so, and gone.
            let _ = stream.write_all(head.as_bytes());
            stream
        })
        .collect();
    look("half a head");
    drop(open);
    // Bodies that nobody takes.
    let bodies: Vec<TcpStream> = (0..20)
        .map(|number| {
            let mut stream = connect(relay.address(), Some(4096));
            let target = format!("/channels?channel=v:large{}&channel=v:large{}", number, number + 1);
            let _ = write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream
        })
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut one = Sse::open(relay, &["v:one"]);
            one.poll(Duration::from_millis(300));
        });
    });
    look("bodies");
    drop(bodies);
    most
}

#[test]
fn an_attack_takes_no_more_memory_than_check_says_and_gives_it_back() {
    let figure = figure();
    let server = Server::start();
    let large = "x".repeat(750_000);
    for id in 0..120 {
        redis!(server, "SET", format!("v:large{id}"), &large);
    }
    for room in 1..4 {
        for id in 0..1_400 {
            redis!(server, "SET", format!("m:{room}:{id}"), "some value");
        }
    }
    redis!(server, "SET", "v:one", "one");
    let relay = Relay::with(&server, SERVER, &mappings());
    let mut bystander = Sse::open(&relay, &["v:one"]);
    bystander.ready();
    let before = relay.resident();
    let first = attack(&relay);
    eprintln!(
        "before {} KiB, most {} KiB, figure {} KiB",
        before >> 10,
        first >> 10,
        figure >> 10
    );
    assert!(first < figure, "{first} bytes of memory, where check says {figure}");
    for limit in ["max_channels", "log_bytes", "keys"] {
        let reached = relay.metric(&format!("keyrelay_limited_total{{limit=\"{limit}\"}}"));
        assert!(reached > 0.0, "{limit} was not even reached");
    }
    redis!(server, "SET", "v:one", "two");
    bystander.sees("v:one", "v:one", "two");
    // What clients made is let go, and is used again instead of more.
    for id in 0..120 {
        redis!(server, "SET", format!("v:large{id}"), "small");
    }
    eventually("frames and bodies are let go", || {
        (relay.metric("keyrelay_pinned_bytes") == 0.0).then_some(())
    });
    for id in 0..120 {
        redis!(server, "SET", format!("v:large{id}"), &large);
    }
    let second = attack(&relay);
    eprintln!("second {} KiB", second >> 10);
    assert!(second < first + (figure - first) / 2, "{first} bytes, then {second}");
    assert!(second < figure);
    redis!(server, "SET", "v:one", "three");
    bystander.sees("v:one", "v:one", "three");
}
