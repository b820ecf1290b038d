//! Sockets that systemd hands over, and keeps.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use super::notify::{config, listening};
use super::{Manager, Service, Setup};
use crate::harness::{PATIENCE, Server, eventually, http};
use crate::redis;

/// A listening socket, as a .socket unit has it.
fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn handed(sockets: &[&TcpListener]) -> Vec<OwnedFd> {
    sockets
        .iter()
        .map(|socket| socket.try_clone().unwrap().into())
        .collect()
}

/// Starts keyrelay with one socket, which is `http`.
fn start(manager: &Manager, config: &str, socket: &TcpListener) -> Service {
    let setup = Setup {
        config,
        sockets: handed(&[socket]),
        names: Some("http"),
        ..Setup::default()
    };
    Service::start(manager, setup)
}

/// A config without `listen`, for which what is handed over counts.
fn silent(server: &Server) -> String {
    listening("", &server.url())
}

/// What becomes of one client that connects and asks once.
#[derive(Debug, PartialEq)]
enum Fate {
    Served,
    /// Told, in an answer, to come back.
    ComeBack,
}

/// Connects, asks, and reads until it is clear what becomes of it. Whatever else happens fails the test.
fn visit(address: SocketAddr, target: &str, served: &str, come_back: &str) -> Fate {
    let mut stream = TcpStream::connect(address).expect("nobody is refused");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: relay\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("nobody is refused");
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let size = stream.read(&mut buffer).expect("everybody is answered");
        answer.extend_from_slice(&buffer[..size]);
        let text = String::from_utf8_lossy(&answer);
        if text.contains(served) {
            return Fate::Served;
        }
        if size == 0 {
            assert!(text.contains(come_back), "a connection ended with {text:?}");
            return Fate::ComeBack;
        }
    }
}

/// The process goes and comes; clients that connect meanwhile wait for the next one.
#[test]
fn a_restart_refuses_nobody() {
    const RESTARTS: usize = 5;
    const CLIENTS: usize = 8;
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let (socket, address) = socket();
    let config = silent(&server);
    let (served, told, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let client = |number: usize| {
        while !over.load(Ordering::Relaxed) {
            let fate = match number % 2 {
                0 => visit(address, "/channels?channel=v", "\"cursor\"", "\r\nretry-after:"),
                _ => visit(address, "/events?channel=v", "event: keyrelay.ready", "\nretry: "),
            };
            match fate {
                Fate::Served => served.fetch_add(1, Ordering::Relaxed),
                Fate::ComeBack => told.fetch_add(1, Ordering::Relaxed),
            };
        }
    };
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        let guard = Over(&over);
        for _ in 0..=RESTARTS {
            let mut manager = Manager::start();
            let mut service = start(&manager, &config, &socket);
            manager.wait_until_ready();
            let before = served.load(Ordering::Relaxed);
            eventually("clients are served", || {
                assert!(!clients.iter().any(|client| client.is_finished()), "a client failed");
                (served.load(Ordering::Relaxed) >= before + 10 * CLIENTS).then_some(())
            });
            service.signal(Signal::TERM);
            assert!(service.wait().success());
        }
        // The last ones wait for a process too.
        over.store(true, Ordering::Relaxed);
        let manager = Manager::start();
        let _service = start(&manager, &config, &socket);
        for client in clients {
            client.join().expect("nobody is refused");
        }
        drop(guard);
    });
    let (served, told) = (served.into_inner(), told.into_inner());
    // Only those who came between the signal and the end of the accepting.
    assert!(told < served / 4, "{told} were told to come back, {served} were served");
}

/// Ends the clients when the test fails, which would wait for them for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While one process still drains, the next one has the socket for itself.
#[test]
fn what_drains_accepts_nobody() {
    let server = Server::start();
    let (socket, address) = socket();
    let config = listening("drain = \"20s\"", &server.url());
    let mut manager = Manager::start();
    let mut old = start(&manager, &config, &socket);
    manager.wait_until_ready();
    // Holds the drain open: its ending stays in the buffers of the process.
    let narrow = http::connect(address, Some(4096));
    let mut client = http::Exchange::send(narrow, "GET", "/events?channel=v", &[]);
    eventually("the client is connected", || {
        http::ask(old.address("admin http://"), "/status")
            .text()
            .contains("\"sse\":1")
            .then_some(())
    });
    let pad = "x".repeat(256 << 10);
    for n in 0..60 {
        redis!(server, "SET", format!("v:{n}"), &pad);
    }
    eventually("the client holds it up", || {
        let metrics = http::ask(old.address("admin http://"), "/metrics").text();
        let pinned = metrics
            .lines()
            .find_map(|line| line.strip_prefix("keyrelay_pinned_bytes "))?;
        (pinned != "0").then_some(())
    });
    old.signal(Signal::TERM);
    manager.wait("STOPPING=1", 0, |line| (line == "STOPPING=1").then_some(()));
    // It would be told that the old one drains, if that accepted it.
    let waiting = thread::spawn(move || visit(address, "/events?channel=w", "keyrelay.ready", "\nretry: "));
    let mut next = Manager::start();
    let _new = start(
        &next,
        &config.replace("v:{id}", "w:{id}").replace("\"v\"", "\"w\""),
        &socket,
    );
    next.wait_until_ready();
    assert_eq!(waiting.join().unwrap(), Fate::Served);
    assert!(client.head.status == 200 && old.log().contains("draining"));
    old.signal(Signal::TERM);
    old.wait();
    drop(client.body.split_off(0));
}

/// A socket for clients and one for operators, in any order.
#[test]
fn sockets_are_told_apart_by_their_names() {
    let server = Server::start();
    let ((public, clients), (private, operators)) = (socket(), socket());
    // The defaults give way, written or not: the config that comes with the package has them written.
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:7400\"]\n[upstream]\nurl = \"{}\"\n",
        server.url()
    );
    for (sockets, names) in [
        (handed(&[&public, &private]), "http:admin"),
        (handed(&[&private, &public]), "admin:http"),
    ] {
        let mut manager = Manager::start();
        let setup = Setup {
            config: &config,
            sockets,
            names: Some(names),
            ..Setup::default()
        };
        let service = Service::start(&manager, setup);
        manager.wait_until_ready();
        assert_eq!(service.address("listening http://"), clients);
        assert_eq!(service.address("admin http://"), operators);
        assert_eq!(http::ask(operators, "/livez").text(), "alive\n");
        assert_eq!(
            http::get(clients, "/livez").status(),
            404,
            "what is for operators is not for clients"
        );
    }
}

/// Neither is a descriptor inherited by what keyrelay may start, nor does it wait for one client while others do.
#[test]
fn what_is_handed_over_is_set_right() {
    let server = Server::start();
    let (socket, address) = socket();
    let mut manager = Manager::start();
    let service = start(&manager, &silent(&server), &socket);
    manager.wait_until_ready();
    let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/3", service.pid())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
    assert_ne!(flags & 0o2_000_000, 0, "O_CLOEXEC");
    assert_ne!(flags & 0o4_000, 0, "O_NONBLOCK");
    assert_eq!(service.address("listening http://"), address);
}

/// What other supervisors do, who know of no names.
#[test]
fn without_names_all_are_for_clients() {
    let server = Server::start();
    let (socket, address) = socket();
    let mut manager = Manager::start();
    let config = silent(&server);
    let setup = Setup {
        config: &config,
        sockets: handed(&[&socket]),
        ..Setup::default()
    };
    let service = Service::start(&manager, setup);
    manager.wait_until_ready();
    assert_eq!(service.address("listening http://"), address);
}

#[test]
fn the_file_of_a_unix_socket_is_not_removed() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.sock");
    let socket = UnixListener::bind(&path).unwrap();
    // The same in the config is no contradiction.
    let config = listening(&format!("listen = [\"unix:{}\"]", path.display()), &server.url());
    let mut manager = Manager::start();
    let setup = Setup {
        config: &config,
        sockets: vec![socket.try_clone().unwrap().into()],
        names: Some("http"),
        ..Setup::default()
    };
    let mut service = Service::start(&manager, setup);
    manager.wait_until_ready();
    let line = format!("listening unix:{}\n", path.display());
    eventually("it says where it listens", || {
        service.log().contains(&line).then_some(())
    });
    let mut client = UnixStream::connect(&path).unwrap();
    client
        .write_all(b"GET /events?channel=v HTTP/1.1\r\nHost: relay\r\n\r\n")
        .unwrap();
    let mut head = [0; 12];
    client.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    service.signal(Signal::TERM);
    assert!(service.wait().success());
    UnixStream::connect(&path).expect("systemd keeps the socket, and connections wait in it");
}

/// The variables of a parent: descriptor 3 is anything here, and not taken.
#[test]
fn what_is_handed_to_another_process_is_not_taken() {
    let server = Server::start();
    let (socket, address) = socket();
    let mut manager = Manager::start();
    let config = config(&server.url());
    let setup = Setup {
        config: &config,
        sockets: handed(&[&socket]),
        names: Some("http"),
        variables: &[("LISTEN_PID", "1")],
        ..Setup::default()
    };
    let service = Service::start(&manager, setup);
    manager.wait_until_ready();
    assert_ne!(service.address("listening http://"), address);
}

/// Starts keyrelay with what does not fit; gives the status, which is what systemd shows first.
fn refused(config: &str, sockets: Vec<OwnedFd>, names: &str) -> String {
    let mut manager = Manager::start();
    let setup = Setup {
        config,
        sockets,
        names: Some(names),
        ..Setup::default()
    };
    let mut service = Service::start(&manager, setup);
    assert_eq!(service.wait().code(), Some(1));
    assert_eq!(manager.count("READY=1"), 0);
    manager.wait("a status", 0, |line| {
        line.strip_prefix("STATUS=failed: ").map(str::to_owned)
    })
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    let ((public, clients), (private, operators)) = (socket(), socket());
    let plain = listening("", "redis://127.0.0.1:1");

    let written = listening("listen = [\"127.0.0.1:7499\"]", "redis://127.0.0.1:1");
    let told = refused(&written, handed(&[&public]), "http");
    assert!(
        told.starts_with("server.listen = [\"127.0.0.1:7499\"] (/") && told.contains("keyrelay.toml:2)"),
        "{told}"
    );
    assert!(
        told.contains(&clients.to_string()) && told.contains("leave `listen` out"),
        "{told}"
    );

    let written = "[admin]\nlisten = \"127.0.0.1:7498\"\n[upstream]\nurl = \"redis://127.0.0.1:1\"\n";
    let told = refused(written, handed(&[&public, &private]), "http:admin");
    assert!(
        told.contains("admin.listen") && told.contains(&operators.to_string()),
        "{told}"
    );

    let told = refused(&plain, handed(&[&public]), "keyrelay.socket");
    assert!(told.contains("write FileDescriptorName=http"), "{told}");

    let told = refused(&plain, handed(&[&public, &private]), "admin:admin");
    assert!(told.contains("there is one listener for operators"), "{told}");

    let told = refused(&plain, handed(&[&public, &private]), "http");
    assert!(told.contains("2 sockets") && told.contains("1 name"), "{told}");

    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let told = refused(&plain, vec![datagrams.into()], "http");
    assert!(
        told.contains("descriptor 3 (http)") && told.contains("ListenStream="),
        "{told}"
    );

    let connected = TcpStream::connect(clients).unwrap();
    let told = refused(&plain, vec![connected.into()], "http");
    assert!(told.contains("does not listen"), "{told}");
}
