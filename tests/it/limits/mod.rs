//! What clients may take: those beyond a limit are told so in a way that they survive, and nobody else notices.

/// Connections in all and of one address.
pub mod connections;
/// How long a stream lives.
pub mod lifetime;
/// What the machine does not have enough of.
pub mod machine;
/// Whom proxies speak for.
pub mod proxies;
/// How often clients may come, and speak.
pub mod rates;
/// Heads, messages, lists of channels.
pub mod sizes;

use std::net::TcpStream;

use crate::harness::http::{Exchange, connect};
use crate::harness::{Client, End, Relay, Server, Sse, Ws, eventually, mapping};

/// Lines of `[server]`: the tests are a proxy that names its clients in `X-Forwarded-For`.
const BEHIND: &str = "proxies = [\"127.0.0.1\"]\nclient_address = \"x-forwarded-for\"";

/// A relay with these lines of `[server]` and of `[limits]`.
#[track_caller]
fn limited(server: &Server, options: &str, limits: &str) -> Relay {
    let mapping = mapping("key = \"v:{id}\"");
    Relay::with(server, options, &format!("[limits]\n{limits}\n{mapping}"))
}

/// How often a limit was reached.
fn reached(relay: &Relay, limit: &str) -> f64 {
    relay.metric(&format!("keyrelay_limited_total{{limit=\"{limit}\"}}"))
}

/// The one line of the log that names the option.
#[track_caller]
fn told(relay: &Relay, option: &str) -> String {
    let named = format!("\"limit\":\"{option}\"");
    let tells = |line: &&str| line.contains("\"message\":\"a limit is reached") && line.contains(&named);
    eventually("the log names the option", || {
        relay.log().lines().any(|line| tells(&line)).then_some(())
    });
    let log = relay.log();
    let mut lines = log.lines().filter(tells);
    let line = lines.next().expect("a line");
    assert_eq!(lines.next(), None);
    line.to_owned()
}

/// Somebody who comes: the client that a proxy names, if there is one, and what it begins the connection with.
#[derive(Clone, Copy, Default)]
struct Visitor<'a> {
    forwarded: Option<&'a str>,
    first: &'a [u8],
}

/// By way of a proxy that says this in `X-Forwarded-For`.
fn from(address: &str) -> Visitor<'_> {
    Visitor {
        forwarded: Some(address),
        ..Visitor::default()
    }
}

impl Visitor<'_> {
    fn headers(&self) -> Vec<(&'static str, &str)> {
        self.forwarded
            .map(|address| ("X-Forwarded-For", address))
            .into_iter()
            .collect()
    }

    #[track_caller]
    fn connect(&self, relay: &Relay) -> TcpStream {
        let mut stream = connect(relay.address(), None);
        std::io::Write::write_all(&mut stream, self.first).expect("the relay takes a connection");
        stream
    }

    #[track_caller]
    fn exchange(&self, relay: &Relay, target: &str, headers: &[(&str, &str)]) -> Exchange {
        relay.exchange_over(self.connect(relay), "GET", target, headers, None)
    }

    #[track_caller]
    fn sse(&self, relay: &Relay) -> Sse {
        let mut headers = vec![("Accept", "text/event-stream")];
        headers.extend(self.headers());
        Sse::read(self.exchange(relay, "/events?channel=v:1", &headers))
    }

    #[track_caller]
    fn ws(&self, relay: &Relay) -> Ws {
        Ws::over(relay.speak(self.connect(relay)), "/ws?channel=v:1", &self.headers())
    }

    #[track_caller]
    fn get(&self, relay: &Relay) -> Exchange {
        self.exchange(relay, "/channels/v:1", &self.headers())
    }

    /// A stream that is live.
    #[track_caller]
    fn live<C: Client>(&self, mut client: C) -> C {
        client.ready();
        client
    }

    /// That a browser's EventSource is told to come back, and why.
    #[track_caller]
    fn refused_sse(&self, relay: &Relay, reason: &str) {
        let mut sse = self.sse(relay);
        let end = sse.control("end");
        assert_eq!(
            (end["reason"].as_str(), end["reconnect"].as_bool()),
            (Some(reason), Some(true))
        );
        assert!(
            (2_000..=10_000).contains(&sse.memory().retry.unwrap()),
            "{:?}",
            sse.memory().retry
        );
        assert_eq!(sse.closed(), End::Proper(None));
    }

    /// That a WebSocket is closed in such a way that its page comes back.
    #[track_caller]
    fn refused_ws(&self, relay: &Relay, reason: &str) {
        let mut ws = self.ws(relay);
        let end = ws.control("end");
        assert_eq!(
            (end["reason"].as_str(), end["reconnect"].as_bool()),
            (Some(reason), Some(true))
        );
        assert_eq!(ws.closed(), End::Proper(Some(1013)));
    }

    /// That others are told by the status, and when to come back.
    #[track_caller]
    fn refused_get(&self, relay: &Relay, status: u16) {
        let answer = self.get(relay);
        assert_eq!(answer.head.status, status);
        let after: u32 = answer.head.header("retry-after").unwrap().parse().unwrap();
        assert!((2..=10).contains(&after), "{after}");
    }
}
