//! Whatever is too large is refused, and costs no more than its limit.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{Scene, answer, sent, statuses};
use crate::harness::{Client, End, Event, Ws};

/// A request with this target and these headers.
fn head(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: relay.test\r\n{headers}\r\n").into_bytes()
}

#[test]
pub fn heads_of_requests() {
    let mut scene = Scene::new("", "");
    let long = "x".repeat(128 << 10);
    let rows: [(&str, Vec<u8>, &[u16]); 5] = [
        ("a long URL", head(&format!("/events?channel={long}"), ""), &[431]),
        (
            "a URL of 64 KiB",
            head(&format!("/channels/{}", &long[..65_500]), ""),
            &[431],
        ),
        (
            "a long header",
            head("/channels/by:stander", &format!("X-Long: {long}\r\n")),
            &[431],
        ),
        (
            "many headers",
            head("/channels/by:stander", &"X-Many: 1\r\n".repeat(500)),
            &[431],
        ),
        ("a line that never ends", long.repeat(16).into_bytes(), &[431]),
    ];
    let streams: Vec<_> = rows.iter().map(|(_, bytes, _)| sent(&scene.relay, bytes)).collect();
    scene.undisturbed();
    for ((what, _, expected), stream) in rows.iter().zip(streams) {
        let statuses = statuses(&answer(stream));
        // What is still being sent when it is refused may cost the answer.
        assert!(
            statuses == *expected || statuses.is_empty() || statuses == [400],
            "{what}: {statuses:?}"
        );
    }
    scene.over();
}

#[test]
pub fn names_cursors_and_lists() {
    let mut scene = Scene::new("", "");
    let name = "x".repeat(1025);
    for target in [format!("/events?channel={name}"), format!("/channels/{name}")] {
        assert_eq!(scene.relay.get(&target).status(), 400);
    }
    let many: String = (0..1001).map(|n| format!("channel={n}&")).collect();
    assert_eq!(scene.relay.get(&format!("/events?{many}")).status(), 400);
    assert_eq!(scene.relay.get(&format!("/ws?{many}")).status(), 400);
    // A cursor that is none is one that nobody knows, however long it is.
    let cursor = "7".repeat(20_000);
    let target = format!("/channels/by:stander?cursor={cursor}");
    let headers = [("Last-Event-ID", cursor.as_str())];
    let response = scene.relay.exchange("GET", &target, &headers, None).response();
    assert_eq!(response.status(), 200);

    let mut ws = Ws::request(&scene.relay, "/ws", None);
    let names: Vec<String> = (0..1001).map(|n| format!("by:{n}")).collect();
    ws.send(&json!({"type": "subscribe", "channels": names}));
    assert_eq!(ws.control("error")["reason"], "too-many");
    ws.send(&json!({"type": "subscribe", "channels": [name], "ref": 1}));
    assert_eq!(ws.control("error")["reason"], "invalid");
    ws.send(&json!({"type": "subscribe", "channels": ["by:stander"], "cursor": cursor, "ref": "x".repeat(200)}));
    assert_eq!(ws.control("error")["reason"], "malformed");
    ws.send(&json!({"type": "subscribe", "channels": ["by:stander"], "cursor": cursor}));
    ws.ready();
    drop(ws);
    scene.over();
}

#[test]
pub fn messages_of_web_sockets() {
    let mut scene = Scene::new("", "");
    let large = "x".repeat(100 << 10);
    // Whole, in parts, and by what the head of a frame says of it.
    let mut whole = Ws::request(&scene.relay, "/ws", None);
    let _ = whole.socket.send(Frame::text(large.clone()));
    let mut parts = Ws::request(&scene.relay, "/ws", None);
    for part in 0..200 {
        let head = [if part == 0 { 0x01 } else { 0x00 }, 0xfe, 0x04, 0x00, 0, 0, 0, 0];
        let _ = std::io::Write::write_all(parts.socket.get_mut(), &[&head[..], &[b'x'; 1024]].concat());
    }
    let mut promised = Ws::request(&scene.relay, "/ws", None);
    let head = [&[0x81, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4], b"abc"].concat();
    let _ = std::io::Write::write_all(promised.socket.get_mut(), &head);
    scene.undisturbed();
    for client in [&mut whole, &mut parts, &mut promised] {
        // The close frame may be lost to what the client is still sending.
        assert!(matches!(client.closed(), End::Proper(Some(1009)) | End::Cut));
    }
    // What is deep is no message, and costs no more than it is long.
    let mut deep = Ws::request(&scene.relay, "/ws", None);
    let _ = deep.socket.send(Frame::text("[".repeat(60_000)));
    assert_eq!(deep.control("error")["reason"], "malformed");
    deep.send(&json!({"type": "ping"}));
    assert!(matches!(deep.next(), Event::Control(kind, _) if kind == "pong"));
    scene.over();
}
