//! What is sent by those who mean harm, and what becomes of everybody else meanwhile.
//!
//! Every test says what was sent and what came back; that a client which was there before is told of a change while the
//! attack goes on; and that the memory which it took came back.

use std::io::{ErrorKind, Read, Write};

use crate::harness::{Client, Relay, Server, Sse, Stream, Ws, eventually, mapping};
use crate::redis;

/// Connects, and sends more than it may.
pub mod floods;
/// What only HTTP/2 makes possible.
mod http2;
/// What stands in keys, values and names of events becomes nothing else on the way.
pub mod injection;
/// Sets of keys that never end.
mod key_sets;
/// Whatever is too large.
pub mod oversize;
/// Clients that take their time.
pub mod slow;
/// Requests that two programs could understand differently.
pub mod smuggling;
/// Credentials that must not count.
pub mod tokens;
/// A server that means harm, or is broken.
mod upstream;

/// What the relay may keep of an attack once it is over: what allocators and buffers of the process keep anyway.
const KEPT: u64 = 24 << 20;

/// A relay, and two clients who were there before the attack.
pub struct Scene {
    pub server: Server,
    pub relay: Relay,
    sse: Sse,
    ws: Ws,
    changes: u32,
    before: u64,
}

impl Scene {
    /// Beside the mappings given there is one of the keys `by:*`.
    #[track_caller]
    pub fn new(options: &str, mappings: &str) -> Scene {
        let server = Server::start();
        let mappings = format!("{}{mappings}", mapping("key = \"by:{id}\""));
        let relay = Relay::with(&server, options, &mappings);
        Scene::of(server, relay)
    }

    #[track_caller]
    pub fn of(server: Server, relay: Relay) -> Scene {
        redis!(server, "SET", "by:stander", "before");
        let mut sse = Sse::open(&relay, &["by:stander"]);
        sse.ready();
        let mut ws = Ws::open(&relay, &["by:stander"]);
        ws.ready();
        let before = relay.resident();
        Scene {
            server,
            relay,
            sse,
            ws,
            changes: 0,
            before,
        }
    }

    /// A change is made, and those who were there before are told of it on the connections they had.
    #[track_caller]
    pub fn undisturbed(&mut self) {
        self.changes += 1;
        let value = format!("change {}", self.changes);
        redis!(self.server, "SET", "by:stander", &value);
        self.sse.sees("by:stander", "by:stander", value.as_str());
        self.ws.sees("by:stander", "by:stander", value.as_str());
    }

    /// No client was told anything of it.
    #[track_caller]
    pub fn heard_nothing_of(&self, word: &str) {
        for memory in [self.sse.memory(), self.ws.memory()] {
            let heard = memory.messages.iter().find(|message| message.text.contains(word));
            assert_eq!(heard, None);
        }
    }

    /// How much more memory there is than before the attack.
    pub fn grown(&self) -> u64 {
        self.relay.resident().saturating_sub(self.before)
    }

    /// The attack is over, and nothing is left of it.
    #[track_caller]
    pub fn over(&mut self) {
        self.undisturbed();
        eventually("the memory comes back", || (self.grown() < KEPT).then_some(()));
        assert_eq!(self.relay.ask("/livez").status(), 200);
    }
}

/// Sends bytes over a connection of their own.
#[track_caller]
fn sent(relay: &Relay, bytes: &[u8]) -> Stream {
    let mut stream = relay.connect(None);
    // What is refused at once may be closed while it is still sent.
    let _ = stream.write_all(bytes);
    stream
}

/// All that comes until the relay closes the connection, which it must.
#[track_caller]
fn answer(mut stream: Stream) -> String {
    stream
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .expect("a timeout can be set");
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        // TLS has something to write as well, and an end without a word of goodbye.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
            ) => {}
        Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&bytes)),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The statuses of the answers in what came.
fn statuses(answers: &str) -> Vec<u16> {
    let heads = answers.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head[..3].parse().expect("a status")).collect()
}
