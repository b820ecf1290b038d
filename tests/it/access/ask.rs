//! The app is asked who may read what.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::mapping;
use crate::harness::http::{Exchange, connect, request};
use crate::harness::tokens::{now, signed};
use crate::harness::{Client, End, PATIENCE, Relay, Server, Sse, Ws, eventually};
use crate::redis;

/// An app on loopback that answers every question in the same way.
pub struct App {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    asked: AtomicUsize,
    questions: Mutex<Vec<(String, Value)>>,
    /// The answer: status and body. While there is none, the app thinks.
    answer: Mutex<Option<(u16, String)>>,
    changed: Condvar,
}

impl App {
    pub fn start() -> App {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || state.serve(stream));
            }
        });
        App { address, state }
    }

    pub fn says(&self, status: u16, body: &str) {
        *self.state.answer.lock().unwrap() = Some((status, body.to_owned()));
        self.state.changed.notify_all();
    }

    fn thinks(&self) {
        *self.state.answer.lock().unwrap() = None;
    }

    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::Relaxed)
    }

    /// Where it is asked.
    pub fn url(&self) -> String {
        format!("http://{}/relay", self.address)
    }

    fn relay(&self, server: &Server) -> Relay {
        self.relay_with(server, "", "")
    }

    /// `options`: lines of [server]. `tokens`: whose tokens count as well.
    fn relay_with(&self, server: &Server, options: &str, tokens: &str) -> Relay {
        let access = format!("[access]\nask = \"{}\"\n{tokens}", self.url());
        let mappings = mapping("cart:{user}", "{ sub = \"{user}\" }") + &mapping("v:{id}", "\"listed\"");
        Relay::with(server, options, &format!("{access}{mappings}"))
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                head += &line;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            self.asked.fetch_add(1, Ordering::Relaxed);
            let question = serde_json::from_slice(&body).unwrap_or_default();
            self.questions.lock().unwrap().push((head, question));
            let mut answer = self.answer.lock().unwrap();
            while answer.is_none() {
                answer = self.changed.wait(answer).ok()?;
            }
            let (status, body) = answer.clone()?;
            let length = body.len();
            let location = if status == 302 { "Location: /login\r\n" } else { "" };
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{location}Content-Length: {length}\r\n\r\n"
            );
            stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
        }
    }
}

pub fn grants(seconds: i64, mut claims: Value) -> String {
    claims["exp"] = json!(now() + seconds);
    claims.to_string()
}

const COOKIE: (&str, &str) = ("Cookie", "_session=abc; theme=dark");

fn status(relay: &Relay, channel: &str, headers: &[(&str, &str)]) -> u16 {
    request(relay.address(), "GET", &format!("/channels/{channel}"), headers).status()
}

#[test]
fn the_app_decides_and_its_answer_counts_for_as_long_as_it_says() {
    let server = Server::start();
    let app = App::start();
    let relay = app.relay(&server);
    app.says(200, &grants(600, json!({"sub": "42", "channels": ["v:1"]})));
    assert_eq!(status(&relay, "cart:42", &[COOKIE]), 200);
    let (head, question) = app.state.questions.lock().unwrap()[0].clone();
    assert!(head.starts_with("POST /relay HTTP/1.1\r\n"), "{head}");
    assert!(
        head.to_ascii_lowercase()
            .contains("cookie: _session=abc; theme=dark\r\n"),
        "{head}"
    );
    assert_eq!(question, json!({"channels": ["cart:42"]}));
    assert_eq!(status(&relay, "cart:42", &[COOKIE]), 200);
    assert_eq!(app.asked(), 1, "it is remembered");
    assert_eq!(status(&relay, "cart:43", &[COOKIE]), 403);
    assert_eq!(status(&relay, "v:1", &[COOKIE]), 200);
    assert_eq!(status(&relay, "v:2", &[COOKIE]), 403);
    let asked = app.asked();
    assert_eq!(status(&relay, "cart:42", &[("Cookie", "_session=other")]), 200);
    assert_eq!(app.asked(), asked + 1, "another credential is another question");
    assert_eq!(
        status(&relay, "cart:42", &[]),
        401,
        "without any there is nothing to ask"
    );
    assert_eq!(app.asked(), asked + 1);
    let bearer = [("Authorization", "Bearer opaque")];
    assert_eq!(status(&relay, "cart:42", &bearer), 200);
    let questions = app.state.questions.lock().unwrap();
    let (head, _) = questions.last().unwrap();
    assert!(
        head.to_ascii_lowercase().contains("authorization: bearer opaque"),
        "{head}"
    );
}

/// Nothing that the app may say opens by mistake.
#[test]
fn what_the_app_does_not_grant_stays_closed() {
    let server = Server::start();
    let app = App::start();
    let relay = app.relay(&server);
    for (answer, body, wanted) in [
        (401, "", 403),
        (403, "{}", 403),
        (302, "", 403),
        (500, "", 503),
        (404, "", 503),
        (200, "", 503),
        (200, "<html>", 503),
        (200, "[]", 503),
        (200, "{\"sub\": \"42\"}", 503),
        (200, "{\"sub\": \"42\", \"exp\": 1}", 503),
        (204, "", 503),
    ] {
        app.says(answer, body);
        let got = status(&relay, "cart:42", &[COOKIE]);
        assert_eq!(got, wanted, "{answer} {body}");
    }
    app.says(200, &grants(600, json!({"sub": "42"})));
    assert_eq!(status(&relay, "cart:42", &[COOKIE]), 200, "no refusal is remembered");
}

/// While it cannot be asked, clients are told to come back, each in its own way, within two seconds.
#[test]
fn an_app_that_does_not_answer_is_no_refusal_for_good() {
    let server = Server::start();
    let app = App::start();
    let relay = app.relay(&server);
    app.thinks();
    // Without a channel's name the list is asked for first.
    assert_eq!(request(relay.address(), "GET", "/channels", &[COOKIE]).status(), 503);
    eventually("it is logged", || {
        relay.log().contains("channels refused for now").then_some(())
    });
    let since = Instant::now();
    let accept = [("Accept", "text/event-stream"), COOKIE];
    let stream = Exchange::send(
        connect(relay.address(), None),
        "GET",
        "/events?channel=cart:42",
        &accept,
    );
    assert!(since.elapsed().as_secs() < 4, "{:?}", since.elapsed());
    let mut stream = Sse::read(stream);
    let end = stream.control("end");
    assert_eq!(
        (&end["reason"], &end["reconnect"]),
        (&json!("unavailable"), &json!(true))
    );
    let origin = ("Origin", "http://relay.test");
    let headers = [("Cookie", COOKIE.1), origin];
    let mut ws = Ws::request_with(&relay, "/ws?channel=cart:42", &headers);
    assert_eq!(ws.closed(), End::Proper(Some(1013)));
    assert_eq!(status(&relay, "cart:42", &[COOKIE]), 503);
    // Connected already, it is refused and stays.
    let mut ws = Ws::request_with(&relay, "/ws", &headers);
    ws.send(&json!({"type": "subscribe", "channels": ["cart:42"], "ref": 1}));
    assert_eq!(ws.control("error")["reason"], "unavailable");
    app.says(200, &grants(600, json!({"sub": "42"})));
    // On a slow machine the last question may still be about to fail, and whoever asks the same fails with it.
    eventually("the app is asked again", || {
        (status(&relay, "cart:42", &[COOKIE]) == 200).then_some(())
    });
    ws.send(&json!({"type": "subscribe", "channels": ["cart:42"], "ref": 2}));
    assert_eq!(ws.control("ready")["ref"], 2);
    assert!(relay.log().contains("unavailable"), "{}", relay.log());
}

/// The keys of its token, the channels that it lists and whether it may read them are waited for one after another: together
/// no longer than for one of them.
#[test]
fn a_decision_takes_two_seconds_whatever_it_waits_for() {
    let server = Server::start();
    let app = App::start();
    // It is connected to, and never answers.
    let keys = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = keys.local_addr().expect("it is bound");
    let relay = app.relay_with(
        &server,
        "",
        &format!("[[access.jwt]]\njwks_url = \"http://{address}/keys\"\n"),
    );
    let token = signed("", &json!({"alg": "EdDSA", "kid": "a"}), &json!({"exp": now() + 600}));
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", &*bearer)];
    // Its answer would have come after more than 4 s, if each had its own two.
    let soon = |what: &str, since: Instant| {
        let took = since.elapsed();
        assert!(took < Duration::from_secs(4), "{what}: {took:?}");
    };
    let (relay, headers, token) = (&relay, &headers, &token);
    // All while the first set of keys is still being waited for.
    std::thread::scope(|scope| {
        for target in ["/channels", "/channels/cart:42"] {
            scope.spawn(move || {
                let since = Instant::now();
                assert_eq!(request(relay.address(), "GET", target, headers).status(), 503);
                soon(target, since);
            });
        }
        scope.spawn(move || {
            let mut ws = Ws::request_with(relay, "/ws", headers);
            let since = Instant::now();
            ws.send(&json!({"type": "subscribe", "channels": ["cart:42"]}));
            assert_eq!(ws.control("error")["reason"], "unavailable");
            soon("a subscribe", since);
        });
        scope.spawn(move || {
            let mut ws = Ws::request(relay, "/ws", None);
            let since = Instant::now();
            ws.send(&json!({"type": "renew", "token": token}));
            assert_eq!(ws.control("error")["reason"], "unavailable");
            soon("a renewal", since);
        });
    });
}

/// One address with many credentials takes no place from others, and nothing is held against it afterwards.
#[test]
fn one_address_cannot_take_all_questions() {
    let server = Server::start();
    let app = App::start();
    let proxied = "proxies = [\"127.0.0.1\"]\nclient_address = \"x-forwarded-for\"";
    let relay = app.relay_with(&server, proxied, "");
    app.thinks();
    let answer = |address: &str, session: usize| {
        let cookie = format!("s={session}");
        let headers = [("X-Forwarded-For", address), ("Cookie", &cookie)];
        let answer = request(relay.address(), "GET", "/channels/cart:42", &headers);
        (answer.status(), answer.text())
    };
    let crowded = |text: &str| text.contains("of this address");
    // On a slow machine the first questions may have ended when the last client comes.
    let turned_away = eventually("some are turned away", || {
        let (answers, other) = std::thread::scope(|scope| {
            let answer = &answer;
            let flood: Vec<_> = (0..100)
                .map(|session| scope.spawn(move || answer("203.0.113.1", session)))
                .collect();
            let other = scope.spawn(move || answer("203.0.113.2", 100));
            let answers: Vec<_> = flood.into_iter().map(|thread| thread.join().unwrap()).collect();
            (answers, other.join().unwrap())
        });
        assert!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
        assert!(other.0 == 503 && !crowded(&other.1), "{other:?}");
        answers.iter().position(|(_, text)| crowded(text))
    });
    assert!(relay.metric("keyrelay_refused_questions_total") > 0.0);
    app.says(200, &grants(600, json!({"sub": "42"})));
    // The places come back as the questions of before end.
    eventually("who was turned away is asked about", || {
        (answer("203.0.113.1", turned_away).0 == 200).then_some(())
    });
}

/// Fifty tabs that come back at once are one question; who waits for it delays nobody else.
#[test]
fn one_question_for_many_who_ask_the_same() {
    let server = Server::start();
    redis!(server, "SET", "cart:42", "full");
    let app = App::start();
    let relay = app.relay(&server);
    app.thinks();
    let streams: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = connect(relay.address(), None);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let head = format!(
                "GET /events?channel=cart:42 HTTP/1.1\r\nHost: relay.test\r\nCookie: {}\r\n\r\n",
                COOKIE.1
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    eventually("the app is asked", || (app.asked() > 0).then_some(()));
    assert_eq!(
        request(relay.address(), "GET", "/channels/cart:1", &[]).status(),
        401,
        "others are served"
    );
    app.says(200, &grants(600, json!({"sub": "42"})));
    for stream in streams {
        let mut sse = Sse::read(Exchange::receive(stream).expect("an answer"));
        sse.sees("cart:42", "cart:42", "full");
    }
    assert_eq!(app.asked(), 1);
}

/// A stream ends with the app's word, and may come back with the same cookie: the app is asked again.
#[test]
fn the_apps_word_has_an_end() {
    let server = Server::start();
    let app = App::start();
    let relay = app.relay(&server);
    app.says(200, &grants(2, json!({"sub": "42"})));
    let mut sse = Sse::request(&relay, "/events?channel=cart:42", &[COOKIE], None);
    sse.ready();
    let end = sse.control("end");
    assert_eq!((&end["reason"], &end["reconnect"]), (&json!("expired"), &json!(true)));
    let asked = app.asked();
    app.says(200, &grants(600, json!({"sub": "42"})));
    let mut again = Sse::request(&relay, "/events?channel=cart:42", &[COOKIE], None);
    again.ready();
    assert_eq!(app.asked(), asked + 1);
    app.says(403, "");
    assert_eq!(status(&relay, "v:1", &[COOKIE]), 403, "what is not remembered is asked");
}

/// An app that lets through the names it was asked for grants just these, whatever a client calls a channel.
#[test]
fn a_name_that_looks_like_a_pattern_grants_no_other() {
    let server = Server::start();
    let app = App::start();
    let relay = app.relay(&server);
    app.says(200, &grants(600, json!({"channels": ["v:*", "v:1*"]})));
    let asked = |query: &str| request(relay.address(), "GET", &format!("/channels?{query}"), &[COOKIE]);
    let refused = asked("channel=v:*&channel=v:1*&channel=v:secret");
    assert_eq!(refused.status(), 403);
    let named: Vec<String> = refused.json()["channels"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(named, ["v:secret"]);
    assert_eq!(asked("channel=v:1*&channel=v:*").status(), 200);
    // What nobody asked for is the app's own word.
    assert_eq!(asked("channel=v:10").status(), 200);
}
