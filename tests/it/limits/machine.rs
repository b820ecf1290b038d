//! What the machine does not have enough of.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::harness::http::{Exchange, connect};
use crate::harness::{Client, Relay, Server, Sse, eventually, mapping};
use crate::redis;

/// Without a free descriptor no connection can be accepted: that is said once, harms no stream, and passes.
#[test]
fn no_descriptors_are_left() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    let relay = Relay::start(&server, &mapping("key = \"v:{id}\""));
    let mut stream = Sse::open(&relay, &["v:1"]);
    stream.ready();

    let before = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..before
    };
    prlimit(Some(relay.pid()), Resource::Nofile, none).expect("a limit can be lowered");
    // The kernel takes the connection for the relay.
    let waiting = connect(relay.address(), None);
    eventually("the relay says that it cannot accept", || {
        relay.log().contains("cannot accept connections").then_some(())
    });
    redis!(server, "SET", "v:1", "two");
    stream.sees("v:1", "v:1", "two");

    prlimit(Some(relay.pid()), Resource::Nofile, before).expect("a limit can be raised again");
    let answer = Exchange::send(waiting, "GET", "/channels/v:1", &[]);
    assert_eq!(answer.head.status, 200);
    eventually("the relay says that it accepts again", || {
        relay.log().contains("accepting connections again").then_some(())
    });
    assert_eq!(relay.log().matches("cannot accept connections").count(), 1);
}
