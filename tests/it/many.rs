//! Ten thousand idle subscribers.

use std::io::Write;

use crate::harness::http::{Exchange, connect};
use crate::harness::{Client, Relay, Server, Sse, mapping};
use crate::redis;

#[test]
fn ten_thousand_idle_subscribers_hold() {
    const CLIENTS: usize = 10_000;
    /// Our side needs a descriptor for each as well.
    const SPARE: u64 = 1000;
    /// Resident bytes for each connection, in a build without optimisation. The benchmark holds the real bound.
    const EACH: u64 = 16 << 10;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX).saturating_sub(SPARE);
    let clients = CLIENTS.min(allowed as usize);
    if clients < CLIENTS {
        eprintln!(
            "only {clients} subscribers: the limit of open files is {:?}",
            limit.maximum
        );
    }
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("the soft limit can be raised");

    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    let mut first = Sse::open(&relay, &["v:1"]);
    first.ready();
    let before = relay.resident();
    let mut all = Vec::with_capacity(clients);
    for _ in 0..clients / 100 {
        // By the hundred, as browsers come back after a restart: within the backlog of the listener.
        let mut streams: Vec<_> = (0..100).map(|_| connect(relay.address(), None)).collect();
        for stream in &mut streams {
            stream
                .write_all(b"GET /events?channel=v:1 HTTP/1.1\r\nHost: relay.test\r\n\r\n")
                .expect("the relay takes the request");
        }
        all.extend(
            streams
                .into_iter()
                .map(|stream| Sse::read(Exchange::receive(stream).expect("an answer"))),
        );
    }
    for client in &mut all {
        client.ready();
    }
    let each = relay.resident().saturating_sub(before) / clients as u64;
    assert!(each <= EACH, "{each} bytes for each of {clients} subscribers");
    redis!(server, "SET", "v:1", "two");
    for client in &mut all {
        client.sees("v:1", "v:1", "two");
        assert_eq!(client.memory().messages.len(), 2);
    }
}
