//! How long a stream lives: its end is announced, and costs nothing.

use super::{limited, reached};
use crate::harness::{Client, End, Relay, Server, Sse, Ws};
use crate::{both, redis};

both! {
    /// A client is asked to come back, does, and has missed nothing.
    fn a_stream_ends_and_goes_on<C>() {
        let server = Server::start();
        let relay = limited(&server, "", "lifetime = \"1s\"");
        // There from the beginning, or the first that is told might be that it is not.
        let mut number = 1_u64;
        redis!(server, "SET", "v:1", number.to_string());
        let (mut cursor, mut last) = (None, 0);
        for _ in 0..3 {
            let mut client = C::resume(&relay, &["v:1"], cursor.take());
            client.until("its end", |memory| {
                // Between two looks at the client: some values come live, some while it is away.
                number += 1;
                redis!(server, "SET", "v:1", number.to_string());
                memory.count("end") == 1
            });
            let (_, end) = client.memory().controls.last().cloned().unwrap();
            assert_eq!(
                (end["reason"].as_str(), end["reconnect"].as_bool()),
                (Some("lifetime"), Some(true))
            );
            client.closed();
            let memory = client.memory();
            assert_eq!(memory.count("reset"), 0);
            for value in memory.values_of("v:1") {
                let value: u64 = value.as_str().unwrap().parse().unwrap();
                assert!(value > last, "{value} after {last}");
                last = value;
            }
            cursor = memory.cursor.clone();
        }
        number += 1;
        redis!(server, "SET", "v:1", number.to_string());
        let mut client = C::resume(&relay, &["v:1"], cursor);
        client.sees("v:1", "v:1", number.to_string());
        assert_eq!(client.memory().count("reset"), 0);
        assert!(reached(&relay, "lifetime") >= 3.0);
    }
}

/// A WebSocket is closed as when a server restarts, since that is how clients know to come back at once.
#[test]
pub fn the_close_code() {
    let server = Server::start();
    let relay: Relay = limited(&server, "", "lifetime = \"1s\"");
    let mut ws = Ws::open(&relay, &["v:1"]);
    assert_eq!(ws.closed(), End::Proper(Some(1012)));
    let mut sse = Sse::open(&relay, &["v:1"]);
    assert_eq!(sse.closed(), End::Proper(None));
}
