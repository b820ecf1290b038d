//! What a client gets for each kind of value, payload and mapping.

use serde_json::json;

use crate::harness::{Client, Relay, Server};
use crate::{both, redis};

both! {
    /// The thin whole path: the current value first, then `ready`, then each change.
    fn a_string_key<C>() {
        let server = Server::start();
        redis!(server, "SET", "cart:42", "one");
        let relay = Relay::start(&server, "[[mapping]]\nkey = \"cart:{user}\"\naccess = \"public\"\n");
        let mut client = C::open(&relay, &["cart:42"]);
        client.ready();
        assert_eq!(client.memory().value("cart:42", "cart:42"), Some(&json!("one")));
        assert_eq!(client.memory().messages[0].id, None, "a snapshot's message carries no id");
        redis!(server, "SET", "cart:42", "two");
        client.sees("cart:42", "cart:42", "two");
        redis!(server, "DEL", "cart:42");
        client.misses("cart:42", "cart:42");
    }
}
