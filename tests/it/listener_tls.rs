//! TLS at the public listener.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::harness::http::{self, Exchange, More};
use crate::harness::{
    Authority, Certificate, Client, End, PROGRAM, Relay, Server, Sse, Stream, Way, Ws, client_config, eventually,
    mapping, over, over_with,
};
use crate::redis;

const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";

/// A burst over one HTTP/2 stream: each event once, in order.
#[test]
fn a_thousand_events_in_order_over_http2() {
    const EVENTS: usize = 1000;
    over(Way::Http2);
    let server = Server::start();
    let events = "key = \"v:{id}\"\nchannel = \"v\"\nmode = \"events\"\nretain = { messages = 2000 }";
    let relay = Relay::start(&server, &mapping(events));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    let mut connection = server.connect();
    for n in 0..EVENTS {
        let key = format!("v:{n}");
        connection
            .send(&[b"SET", key.as_bytes(), b"x"])
            .expect("the server takes commands");
    }
    for _ in 0..EVENTS {
        connection.receive().expect("the server answers");
    }
    client.until("every event", |memory| memory.messages.len() >= EVENTS);
    let keys: Vec<String> = client.memory().messages.iter().map(|message| message.key()).collect();
    let sent: Vec<String> = (0..EVENTS).map(|n| format!("v:{n}")).collect();
    assert_eq!(keys, sent);
}

#[test]
fn answers_over_http2_are_those_over_http1() {
    over(Way::Http2);
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = Relay::with(&server, "origins = [\"https://app.test\"]", &mapping(MAPPING));
    let ask = |method: &str, target: &str, headers: &[(&str, &str)]| {
        let mut connection = relay.connect_http2(None);
        let (head, mut body) = connection.send(method, target, headers);
        let mut bytes = Vec::new();
        let end = loop {
            match connection.read(&mut body, Duration::from_secs(20)) {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(end) => break end,
            }
        };
        assert_eq!(end, More::Ended, "{method} {target}");
        for name in ["connection", "transfer-encoding", "upgrade"] {
            assert_eq!(head.header(name), None, "{method} {target}");
        }
        (head, String::from_utf8(bytes).expect("text"))
    };
    let (head, body) = ask("GET", "/channels/v", &[("origin", "https://app.test")]);
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("application/json"))
    );
    assert_eq!(head.header("access-control-allow-origin"), Some("https://app.test"));
    assert!(body.contains("\"one\""), "{body}");
    let length = body.len().to_string();
    let (head, body) = ask("HEAD", "/channels/v", &[]);
    assert_eq!(
        (head.status, head.header("content-length"), &*body),
        (200, Some(&*length), "")
    );
    let (head, body) = ask("GET", "/events?channel=unknown", &[]);
    assert!(head.status == 404 && body.contains("unknown"), "{} {body}", head.status);
    // A page of the server's own origin, which HTTP/2 names elsewhere than HTTP/1.1.
    let (head, _) = ask("GET", "/channels/v", &[("origin", "https://relay.test")]);
    assert_eq!(head.status, 200);
    let (head, _) = ask("GET", "/channels/v", &[("origin", "https://evil.test")]);
    assert_eq!((head.status, head.header("access-control-allow-origin")), (403, None));
    // Browsers open WebSockets over HTTP/1.1 where this is not announced.
    let (head, body) = ask("GET", "/ws?channel=v", &[]);
    assert!(
        head.status == 426 && body.contains("WebSocket"),
        "{} {body}",
        head.status
    );
    let (head, _) = ask("OPTIONS", "/events", &[]);
    assert_eq!(head.status, 204);
}

/// Of two streams of one connection one is not read: the other goes on, and that one alone is ended.
#[test]
fn a_stalled_stream_stalls_no_other() {
    over(Way::Http2);
    let server = Server::start();
    let relay = Relay::with(&server, "write_timeout = \"1s\"", &mapping(MAPPING));
    let mut connection = relay.connect_http2(Some(32 << 10));
    let stream = [("accept", "text/event-stream")];
    let (_, mut stalled) = connection.send("GET", "/events?channel=v", &stream);
    let (_, mut read) = connection.send("GET", "/events?channel=v", &stream);
    let mut heard = String::new();
    let pad = "x".repeat(20_000);
    let mut n = 0;
    eventually("the relay gives the stalled stream up", || {
        n += 1;
        redis!(server, "SET", "v:1", format!("{n} {pad}"));
        while !heard.contains(&format!("\"{n} x")) {
            let piece = connection
                .read(&mut read, Duration::from_secs(20))
                .expect("the other stream goes on");
            heard.push_str(&String::from_utf8_lossy(&piece));
        }
        heard.clear();
        (relay.metric("keyrelay_slow_clients_total") == 1.0).then_some(())
    });
    let end = loop {
        match connection.read(&mut stalled, Duration::from_secs(20)) {
            Ok(piece) => assert!(!piece.is_empty()),
            Err(end) => break end,
        }
    };
    assert_eq!(end, More::Cut, "reset, and not as if there were nothing more");
    // The connection is as good as before.
    let (head, _) = connection.send("GET", "/events?channel=v", &stream);
    assert_eq!(head.status, 200);
    redis!(server, "SET", "v:1", "the end");
    while !heard.contains("the end") {
        let piece = connection
            .read(&mut read, Duration::from_secs(20))
            .expect("the other stream goes on");
        heard.push_str(&String::from_utf8_lossy(&piece));
    }
}

/// The streams are ended one by one, and the connection is told to leave.
#[test]
fn a_drain_closes_an_http2_connection() {
    over(Way::Http2);
    let server = Server::start();
    let mut relay = Relay::start(&server, &mapping(MAPPING));
    let mut connection = relay.connect_http2(None);
    let (_, mut body) = connection.send("GET", "/events?channel=v", &[]);
    relay.signal(Signal::TERM);
    let mut heard = String::new();
    let end = loop {
        match connection.read(&mut body, Duration::from_secs(20)) {
            Ok(piece) => heard.push_str(&String::from_utf8_lossy(&piece)),
            Err(end) => break end,
        }
    };
    assert_eq!(end, More::Ended, "{heard}");
    assert!(heard.contains("event: keyrelay.end\nretry: "), "{heard}");
    assert!(!connection.is_open(Duration::from_secs(20)));
    let (status, took) = relay.wait();
    assert!(
        status.success() && took < Duration::from_secs(3),
        "{status} after {took:?}"
    );
}

#[test]
fn clients_and_messages_are_counted_whatever_carries_them() {
    over(Way::Http2);
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut sse = Sse::open(&relay, &["v"]);
    let mut ws = Ws::open(&relay, &["v"]);
    sse.ready();
    ws.ready();
    let clients = |transport: &str| relay.metric(&format!("keyrelay_connections{{transport=\"{transport}\"}}"));
    assert_eq!((clients("sse"), clients("websocket")), (1.0, 1.0));
    let before = relay.metric("keyrelay_messages_sent_total");
    redis!(server, "SET", "v:1", "one");
    sse.sees("v", "v:1", "one");
    ws.sees("v", "v:1", "one");
    assert_eq!(relay.metric("keyrelay_messages_sent_total") - before, 2.0);
    drop((sse, ws));
    eventually("they have gone", || {
        (clients("sse") + clients("websocket") == 0.0).then_some(())
    });
}

/// What the relay shows to who connects now.
#[track_caller]
fn shown(relay: &Relay) -> CertificateDer<'static> {
    let mut stream = relay.connect(None);
    stream
        .write_all(b"GET /channels/v HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n")
        .expect("a request");
    let mut answer = String::new();
    // The relay says goodbye in TLS too, or this fails.
    stream.read_to_string(&mut answer).expect("an answer to its end");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let certificates = stream.tls().conn.peer_certificates().expect("a certificate is shown");
    certificates[0].clone().into_owned()
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).expect("a certificate")
}

/// Puts a certificate in the place of the relay's, as a tool does that renews it.
fn replace(relay: &Relay, with: &Certificate) {
    let authority = relay.authority();
    fs::rename(&with.certificate, authority.path("relay.pem")).expect("a rename");
    fs::rename(&with.key, authority.path("relay.key")).expect("a rename");
}

#[test]
fn a_renewed_certificate_is_shown_and_streams_go_on() {
    for way in [Way::Tls, Way::Http2] {
        over(way);
        let server = Server::start();
        redis!(server, "SET", "v:1", "one");
        let relay = Relay::start(&server, &mapping(MAPPING));
        let mut clients = [Sse::open(&relay, &["v"]), Sse::open(&relay, &["v"])];
        let mut ws = Ws::open(&relay, &["v"]);
        clients.iter_mut().for_each(Client::ready);
        ws.ready();
        for round in 0..2 {
            let next = relay.authority().issue("next", &["relay.test"]);
            let expected = certificate(&next.certificate);
            assert_ne!(shown(&relay), expected);
            replace(&relay, &next);
            if round == 1 {
                relay.signal(Signal::HUP);
            }
            eventually("the new certificate is shown", || {
                (shown(&relay) == expected).then_some(())
            });
            let value = format!("after {round}");
            redis!(server, "SET", "v:1", &value);
            for client in &mut clients {
                client.sees("v", "v:1", &*value);
            }
            ws.sees("v", "v:1", &*value);
        }
    }
}

/// As Kubernetes replaces what it mounts: a link is turned to another folder.
#[test]
fn a_link_that_is_turned_counts_as_a_change() {
    over(Way::Tls);
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let authority = relay.authority();
    let next = authority.issue("next", &["relay.test"]);
    for (name, file) in [("relay.pem", &next.certificate), ("relay.key", &next.key)] {
        let link = authority.path("link");
        symlink(file, &link).expect("a link");
        fs::rename(&link, authority.path(name)).expect("a rename");
    }
    let expected = certificate(&next.certificate);
    eventually("the new certificate is shown", || {
        (shown(&relay) == expected).then_some(())
    });
}

#[test]
fn files_of_no_use_are_told_of_and_the_old_certificate_stays() {
    over(Way::Tls);
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    let before = shown(&relay);
    let key = relay.authority().path("relay.key");
    fs::write(&key, "not a key").expect("a file");
    relay.signal(Signal::HUP);
    let line = eventually("the log says what is wrong", || {
        let log = relay.log();
        let line = log.lines().find(|line| line.contains("ERROR"))?.to_owned();
        Some(line)
    });
    assert!(line.contains("relay.key holds no private key"), "{line}");
    assert!(line.contains("the one before"), "{line}");
    assert_eq!(shown(&relay), before);
    redis!(server, "SET", "v:1", "one");
    client.sees("v", "v:1", "one");
    // Put right, without a word to the relay.
    let next = relay.authority().issue("next", &["relay.test"]);
    let expected = certificate(&next.certificate);
    replace(&relay, &next);
    eventually("the new certificate is shown", || {
        (shown(&relay) == expected).then_some(())
    });
    let log = relay.log();
    assert_eq!(log.matches("certificate not loaded again").count(), 1, "{log}");
    // A config that names them is not valid either.
    assert_eq!(log.matches("config refused").count(), 1, "{log}");
}

/// What becomes of a request by a client that shows this certificate.
fn asked(relay: &Relay, own: Option<&Certificate>) -> Result<u16, String> {
    let config = client_config(relay.authority(), "http/1.1", own);
    let mut stream = Stream::encrypted(http::connect(relay.address(), None), config);
    let request = b"GET /channels/v HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(answer)
}

#[test]
fn clients_are_asked_for_certificates() {
    let (known, stranger) = (Authority::new("clients"), Authority::new("strangers"));
    let (own, foreign) = (known.issue("browser", &[]), stranger.issue("browser", &[]));
    let server = Server::start();
    for (word, without) in [("", false), ("required", false), ("optional", true)] {
        let more = match word {
            "" => String::new(),
            word => format!(", client_certificates = \"{word}\""),
        };
        over_with(
            Way::Tls,
            &format!("client_ca_file = \"{}\"{more}", known.file().display()),
        );
        let relay = Relay::start(&server, &mapping(MAPPING));
        assert_eq!(asked(&relay, Some(&own)), Ok(200), "{word}");
        assert!(asked(&relay, Some(&foreign)).is_err(), "{word}");
        assert_eq!(
            asked(&relay, None).is_ok(),
            without,
            "{word}: {:?}",
            asked(&relay, None)
        );
    }
}

#[test]
fn who_speaks_without_tls_is_told_so() {
    over(Way::Tls);
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut answer = Exchange::send(http::connect(relay.address(), None), "GET", "/events?channel=v", &[]);
    assert_eq!(answer.head.status, 400);
    while answer.read(Duration::from_secs(20)) == More::Grown {}
    assert!(String::from_utf8_lossy(&answer.body).contains("https://"));
    // The operators' listener stays plain.
    assert_eq!(relay.ask("/livez").status(), 200);
}

#[test]
fn an_old_client_speaks_tls_1_2() {
    over(Way::Tls);
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(certificate(&relay.authority().file()))
        .expect("a certificate");
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // It names no protocol either: that is HTTP/1.1.
    let stream = Stream::encrypted(http::connect(relay.address(), None), config.into());
    let exchange = Exchange::send(stream, "GET", "/events?channel=v", &[("Accept", "text/event-stream")]);
    let mut client = Sse::read(exchange);
    client.ready();
    redis!(server, "SET", "v:1", "one");
    client.sees("v", "v:1", "one");
}

/// Who comes back is spared most of a handshake, but not beyond a change of what vouches for whom.
#[test]
fn who_comes_back_resumes_until_the_certificate_is_replaced() {
    over(Way::Tls);
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let config = client_config(relay.authority(), "http/1.1", None);
    let kind = || {
        let mut stream = Stream::encrypted(http::connect(relay.address(), None), config.clone());
        let request = b"GET /channels/v HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("a request");
        stream.read_to_string(&mut String::new()).expect("an answer");
        stream.tls().conn.handshake_kind().expect("a handshake")
    };
    assert_eq!(kind(), HandshakeKind::Full);
    assert_eq!(kind(), HandshakeKind::Resumed);
    replace(&relay, &relay.authority().issue("next", &["relay.test"]));
    eventually("a handshake is needed again", || {
        (kind() == HandshakeKind::Full).then_some(())
    });
}

/// The end of a stream over TLS is told as such: without it, it could have been cut by anybody on the way.
#[test]
fn an_ended_stream_is_ended_in_tls_too() {
    over(Way::Tls);
    let server = Server::start();
    let relay = Relay::start(&server, &mapping(MAPPING));
    let mut stream = relay.connect(None);
    stream
        .write_all(b"GET /events?channel=v HTTP/1.1\r\nHost: relay.test\r\n\r\n")
        .expect("a request");
    let mut begun = Vec::new();
    while !String::from_utf8_lossy(&begun).contains("keyrelay.ready") {
        let mut piece = [0; 1024];
        let size = stream.read(&mut piece).expect("the stream begins");
        begun.extend_from_slice(&piece[..size]);
    }
    relay.signal(Signal::TERM);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("to its end");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[test]
fn an_expired_certificate_is_warned_of() {
    let authority = Authority::new("keyrelay test authority");
    let old = authority.issue_expired("old", &["relay.test"]);
    let file = authority.path("keyrelay.toml");
    let (certificate, key) = (old.certificate.display(), old.key.display());
    let config = format!("[server]\ntls = {{ certificate_file = \"{certificate}\", key_file = \"{key}\" }}\n");
    fs::write(&file, config).expect("a file");
    let output = Command::new(PROGRAM)
        .arg("check")
        .arg(&file)
        .output()
        .expect("keyrelay starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let warning = said
        .lines()
        .find(|line| line.contains("warning"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(warning.contains("old.pem has expired (Tue, 01 Jan 2002"), "{warning}");
}

/// What a WebSocket client sends is heard as it is without TLS, however it is cut into records.
#[test]
fn what_a_websocket_client_sends_is_heard() {
    over(Way::Tls);
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    let mut client = Ws::open(&relay, &["v:0"]);
    client.ready();
    // More than the relay reads at once, and more than is on its way at once.
    let names: Vec<String> = (1..400).map(|n| format!("v:{n}{}", "x".repeat(60))).collect();
    client.send(&json!({"type": "subscribe", "channels": names, "ref": 7}));
    let ready = client.control("ready");
    assert_eq!(ready["ref"], 7, "{ready}");
    client.send(&json!({"type": "ping", "ref": 8}));
    assert_eq!(client.control("pong")["ref"], Value::from(8));
    redis!(server, "SET", &names[100], "one");
    client.sees(&names[100], &names[100], "one");
    client.socket.close(None).expect("the relay takes a close");
    assert_eq!(client.closed(), End::Proper(None));
}
