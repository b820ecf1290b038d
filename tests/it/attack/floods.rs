//! More of everything than anybody needs: connections, requests, messages, names.

use std::io::Write;

use serde_json::json;

use super::{Scene, sent};
use crate::harness::http::{connect, escape};
use crate::harness::{Client, Sse, Ws, eventually, mapping};

/// Connections that say nothing hold a descriptor for a while, and keep nobody out.
#[test]
pub fn connections_that_say_nothing() {
    let mut scene = Scene::new("", "");
    let mut silent = Vec::new();
    for round in 0..10 {
        silent.extend((0..100).map(|_| connect(scene.relay.address(), None)));
        if round % 3 == 0 {
            scene.undisturbed();
        }
    }
    assert_eq!(scene.relay.get("/channels/by:stander").status(), 200);
    let mut newcomer = Sse::open(&scene.relay, &["by:stander"]);
    newcomer.ready();
    eventually("the relay closes all of them", || {
        silent.retain(|stream| {
            stream.set_nonblocking(true).expect("a socket can be made nonblocking");
            !matches!(stream.peek(&mut [0; 1]), Ok(0))
        });
        silent.is_empty().then_some(())
    });
    scene.over();
}

/// Connections that come and go at once.
#[test]
pub fn connections_that_come_and_go() {
    let mut scene = Scene::new("", "");
    for round in 0..20 {
        for _ in 0..100 {
            drop(sent(
                &scene.relay,
                b"GET /events?channel=by:stander HTTP/1.1\r\nHost: relay.test\r\n\r\n",
            ));
        }
        if round % 5 == 0 {
            scene.undisturbed();
        }
    }
    eventually("the relay lets go of them", || {
        (scene.relay.metric("keyrelay_connections") == 2.0).then_some(())
    });
    scene.over();
}

/// A client that asks and asks and reads no answer is not heard any more; nobody else notices.
#[test]
pub fn messages_without_an_end() {
    const CLIENTS: usize = 10;
    const ALLOWED: u64 = 64 << 20;
    let mut scene = Scene::new("write_timeout = \"2s\"", &mapping("key = \"v:{id}\"\nlinger = \"1s\""));
    let mut clients: Vec<Ws> = (0..CLIENTS)
        .map(|_| Ws::request(&scene.relay, "/ws", Some(4096)))
        .collect();
    let names: Vec<String> = (0..200).map(|n| format!("v:{n}")).collect();
    let unknown: Vec<String> = (0..200).map(|n| format!("unknown:{n}")).collect();
    for round in 0..60 {
        for client in &mut clients {
            let stream = client.socket.get_mut();
            stream.set_nonblocking(true).expect("a socket can be made nonblocking");
            // Whether it is taken is the kernel's and the relay's business.
            for message in [
                json!({"type": "subscribe", "channels": names, "ref": round}),
                json!({"type": "unsubscribe", "channels": names}),
                json!({"type": "subscribe", "channels": unknown}),
                json!({"type": "ping", "ref": "x".repeat(100)}),
            ] {
                let _ = client.socket.send(message.to_string().into());
            }
        }
        if round % 20 == 0 {
            scene.undisturbed();
        }
        assert!(scene.grown() < ALLOWED, "grew by {} bytes", scene.grown());
    }
    scene.undisturbed();
    drop(clients);
    eventually("their channels are gone", || {
        (scene.relay.metric("keyrelay_channels") == 1.0).then_some(())
    });
    scene.over();
}

/// A name that no mapping gives becomes no state, and one that a mapping does give is forgotten.
#[test]
pub fn names_without_an_end() {
    let mut scene = Scene::new("max_channels = 3000", &mapping("key = \"v:{id}\"\nlinger = \"1s\""));
    let query = |kind: &str, from: usize| -> String {
        let names = (from..from + 500).map(|n| format!("channel={}&", escape(&format!("{kind}:{n}"))));
        names.collect()
    };
    for from in 0..20 {
        let refused = scene.relay.get(&format!("/events?{}", query("unknown", from * 500)));
        assert_eq!(refused.status(), 404);
        let refused = scene.relay.get(&format!("/channels?{}", query("unknown", from * 500)));
        assert_eq!(refused.status(), 404);
    }
    assert_eq!(
        scene.relay.metric("keyrelay_channels"),
        1.0,
        "only that of who was there before"
    );
    for from in 0..20 {
        let target = format!("/events?{}", query("v", from * 500));
        let stream = scene.relay.exchange("GET", &target, &[], None);
        scene.undisturbed();
        drop(stream);
        assert!(scene.relay.metric("keyrelay_channels") <= 3000.0);
    }
    eventually("all of them are forgotten", || {
        (scene.relay.metric("keyrelay_channels") == 1.0).then_some(())
    });
    scene.over();
}

/// Requests one behind the other, faster than they are answered.
#[test]
pub fn requests_without_an_end() {
    const ALLOWED: u64 = 32 << 20;
    let mut scene = Scene::new("write_timeout = \"2s\"", "");
    let request = b"GET /channels/by:stander HTTP/1.1\r\nHost: relay.test\r\n\r\n".repeat(100);
    let mut clients: Vec<_> = (0..10).map(|_| scene.relay.connect(Some(4096))).collect();
    for client in &clients {
        client.set_nonblocking(true).expect("a socket can be made nonblocking");
    }
    for round in 0..100 {
        for client in &mut clients {
            let _ = client.write(&request);
        }
        if round % 25 == 0 {
            scene.undisturbed();
        }
        assert!(scene.grown() < ALLOWED, "grew by {} bytes", scene.grown());
    }
    drop(clients);
    scene.over();
}
