//! `access` of mappings.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{judged, mapping, relay, target};
use crate::harness::http::get;
use crate::harness::tokens::{ACCESS, token};
use crate::harness::{Client, End, Relay, Server, Sse, Ws, eventually};
use crate::redis;

#[test]
fn every_kind_of_access() {
    let server = Server::start();
    let mappings = [
        mapping("public:{id}", "\"public\""),
        mapping("member:{id}", "\"signed-in\""),
        mapping("listed:{id}", "\"listed\""),
        mapping("cart:{user}", "{ sub = \"{user}\" }"),
        mapping("team:{team}:{user}", "{ sub = \"u-{user}\", teams = \"{team}\" }"),
        mapping("level:{n}", "{ level = \"{n}\", active = true }"),
        mapping(
            "either:{user}",
            "[{ sub = \"{user}\" }, { role = \"admin\" }, \"listed\"]",
        ),
        "[[mapping]]\nkey = \"nobody:{id}\"\n".to_owned(),
    ];
    let relay = relay(&server, "", &mappings.concat());
    let user = token(
        600,
        json!({"sub": "42", "channels": ["listed:1", "listed:a*", "either:7"]}),
    );
    let member = token(
        600,
        json!({"sub": "u-7", "teams": ["red", 5], "level": 3, "active": true}),
    );
    let admin = token(600, json!({"sub": 42, "role": ["editor", "admin"], "level": 3}));
    let open = |channel: &str, token: Option<&str>| assert_eq!(judged(&relay, channel, token), None, "{channel}");
    let closed = |channel: &str, token: Option<&str>, word: &str| {
        assert_eq!(judged(&relay, channel, token).as_deref(), Some(word), "{channel}");
    };
    open("public:1", None);
    open("public:1", Some("garbage"));
    closed("member:1", None, "missing");
    open("member:1", Some(&user));
    closed("listed:1", None, "missing");
    open("listed:1", Some(&user));
    open("listed:abc", Some(&user));
    closed("listed:2", Some(&user), "not-covered");
    closed("listed:1", Some(&admin), "not-covered");
    open("cart:42", Some(&user));
    open("cart:42", Some(&admin));
    closed("cart:43", Some(&user), "not-covered");
    closed("cart:42", None, "missing");
    open("team:red:7", Some(&member));
    open("team:5:7", Some(&member));
    closed("team:blue:7", Some(&member), "not-covered");
    closed("team:red:8", Some(&member), "not-covered");
    open("level:3", Some(&member));
    closed("level:3", Some(&admin), "not-covered");
    open("either:42", Some(&user));
    open("either:7", Some(&user));
    open("either:9", Some(&admin));
    closed("either:9", Some(&member), "not-covered");
    for token in [None, Some(user.as_str()), Some(admin.as_str())] {
        closed("nobody:1", token, "closed");
        closed("elsewhere:1", token, "unknown");
    }
}

/// What one mapping opens another may still keep closed.
#[test]
fn every_mapping_of_a_channel_must_allow_it() {
    let server = Server::start();
    let with = |key: &str, access: &str| format!("{}channel = \"room:{{room}}\"\n", mapping(key, access));
    let mappings = [
        with("topic:{room}", "\"public\""),
        with("message:{room}:{id}", "{ room = \"{room}\" }"),
        mapping("half:{id}", "\"public\""),
        "[[mapping]]\nkey = \"other:{id}\"\nchannel = \"half:{id}\"\n".to_owned(),
    ];
    let relay = relay(&server, "", &mappings.concat());
    let token = token(600, json!({"room": "1"}));
    assert_eq!(judged(&relay, "room:1", None).as_deref(), Some("missing"));
    assert_eq!(judged(&relay, "room:1", Some(&token)), None);
    assert_eq!(judged(&relay, "room:2", Some(&token)).as_deref(), Some("not-covered"));
    assert_eq!(judged(&relay, "half:1", Some(&token)).as_deref(), Some("closed"));
}

/// A capture is compared as it is, whatever its name in a URL or as a channel looks like.
#[test]
fn captures_are_compared_byte_for_byte() {
    let server = Server::start();
    let relay = relay(&server, "", &mapping("cart:{user}", "{ sub = \"{user}\" }"));
    for user in ["a%b", "é", "*", "a b", "x\"y", "A"] {
        let token = token(600, json!({ "sub": user }));
        let channel = format!("cart:{}", user.replace('%', "%25"));
        assert_eq!(judged(&relay, &channel, Some(&token)), None, "{user}");
        assert_eq!(judged(&relay, "cart:a", Some(&token)).as_deref(), Some("not-covered"));
    }
    // What is no text no token can name, though the channel is not closed.
    for user in ["%FF", "\u{fffd}", "\u{ff}", ""] {
        let token = token(600, json!({ "sub": user }));
        assert_eq!(
            judged(&relay, "cart:%FF", Some(&token)).as_deref(),
            Some("not-covered"),
            "{user}"
        );
    }
    assert_eq!(judged(&relay, "cart:%FF", None).as_deref(), Some("missing"));
}

/// All or nothing: one channel that is closed keeps all closed, and each that is closed is named.
#[test]
fn a_list_is_opened_whole_or_not_at_all() {
    let server = Server::start();
    let mappings = [
        mapping("public:{id}", "\"public\""),
        mapping("listed:{id}", "\"listed\""),
    ];
    let relay = relay(&server, "", &mappings.concat());
    let token = token(600, json!({"channels": ["listed:1"]}));
    let query = "channel=public:1&channel=listed:1&channel=listed:2&channel=listed:3";
    let refused = get(relay.address(), &format!("/events?{query}&token={token}"));
    assert_eq!(refused.status(), 403);
    let named: Vec<String> = refused.json()["channels"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(named, ["listed:2", "listed:3"]);
    assert_eq!(relay.metric("keyrelay_channels"), 0.0);
}

#[test]
fn without_channels_those_that_the_token_lists_by_name() {
    let server = Server::start();
    redis!(server, "SET", "v:1", "one");
    redis!(server, "SET", "v:2", "two");
    let relay = relay(&server, "", &mapping("v:{id}", "\"listed\""));
    let both = token(600, json!({"channels": ["v:1", "v:2", "v:9*"]}));
    let mut sse = Sse::request(&relay, &format!("/events?token={both}"), &[], None);
    sse.sees("v:1", "v:1", "one");
    sse.sees("v:2", "v:2", "two");
    sse.ready();
    let state = get(relay.address(), &format!("/channels?token={both}")).json();
    assert_eq!(state["channels"].as_object().unwrap().len(), 2);
    // The same URL may stand for other channels after the token in a cookie was renewed, so a bare id is not believed …
    let last = sse.memory().cursor.clone().expect("a cursor");
    let mut again = Sse::request(
        &relay,
        &format!("/events?token={both}"),
        &[("Last-Event-ID", &last)],
        None,
    );
    again.control("reset");
    // … and a cursor that names the list is.
    let cursor = sse.memory().query_cursor.clone().expect("a cursor");
    let mut resumed = Sse::request(&relay, &format!("/events?token={both}&cursor={cursor}"), &[], None);
    resumed.ready();
    assert_eq!(resumed.memory().count("reset") + resumed.memory().messages.len(), 0);
    let none = token(600, json!({"channels": ["v:*"]}));
    let refused = get(relay.address(), &format!("/events?token={none}"));
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("lists none by its name"), "{}", refused.text());
    assert_eq!(get(relay.address(), "/events").status(), 400);
}

/// `mercure.subscribe` is what tokens for a Mercure hub list.
#[test]
fn tokens_that_people_mint_already() {
    let server = Server::start();
    let relay = relay(&server, "", &mapping("v:{id}", "\"listed\""));
    let token = token(600, json!({"mercure": {"subscribe": ["v:1", "v:a{rest}"]}}));
    assert_eq!(judged(&relay, "v:1", Some(&token)), None);
    assert_eq!(judged(&relay, "v:abc", Some(&token)), None);
    assert_eq!(judged(&relay, "v:2", Some(&token)).as_deref(), Some("not-covered"));
}

/// A mapping without `access` is told when the relay starts and when the config is checked.
#[test]
fn whoever_forgot_access_is_told() {
    let server = Server::start();
    let relay = Relay::start(&server, "[[mapping]]\nkey = \"v:{id}\"\n");
    let refused = get(relay.address(), "/events?channel=v:1");
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("`access`"), "{}", refused.text());
    relay.checked();
    let log = relay.log();
    assert!(log.contains("it has no `access`; write access = "), "{log}");
}

/// So is a place for tokens where none counts.
#[test]
fn a_place_for_tokens_without_keys_is_told() {
    let server = Server::start();
    let told = |access: &str| {
        let config = format!("[access]\n{access}\n{}", mapping("v:{id}", "\"public\""));
        let relay = Relay::start(&server, &config);
        // Said later than all that is said of the config.
        relay.checked();
        let log = relay.log();
        let line = |option: &str| {
            let mut lines = log.lines().filter(|line| line.contains("has no effect"));
            lines.find(|line| line.contains(option)).map(str::to_owned)
        };
        [line("`access.cookie` at "), line("`access.token_parameter` at ")]
    };
    let places = "cookie = \"pass\"\ntoken_parameter = \"jwt\"\n";
    for line in told(places) {
        let line = line.expect("it is told");
        assert!(line.contains("add one, or leave the option out"), "{line}");
    }
    // The app is told of the cookie anyway, and of the token by this parameter.
    let [cookie, parameter] = told(&format!("{places}ask = \"http://127.0.0.1:9/\"\n"));
    assert!(cookie.is_some() && parameter.is_none(), "{parameter:?}");
    assert_eq!(told(&format!("{places}{ACCESS}")), [None, None]);
}

/// A token that was passed around does not take all connections; who is connected already is not disturbed.
#[test]
pub fn the_subject_of_a_token_has_so_many_streams() {
    let server = Server::start();
    let limits = "[limits]\nconnections_per_subject = 2\n";
    let relay = relay(&server, "", &format!("{}{limits}", mapping("v:{id}", "\"signed-in\"")));
    let of = |subject: &str| token(600, json!({ "sub": subject }));
    let open = |token: &str| Sse::request(&relay, &target("/events", "v:1", Some(token)), &[], None);
    let (shared, other) = (of("shared"), of("other"));
    let mut first = open(&shared);
    let mut second = Ws::request(&relay, &format!("/ws?token={shared}"), None);
    second.send(&json!({"type": "subscribe", "channels": ["v:1"]}));
    first.ready();
    second.ready();
    let end = open(&shared).control("end");
    assert_eq!(
        (&end["reason"], &end["reconnect"]),
        (&json!("too-many"), &json!(true)),
        "{end}"
    );
    let mut ws = Ws::request(&relay, &target("/ws", "v:1", Some(&shared)), None);
    assert_eq!(ws.closed(), End::Proper(Some(1013)));
    let mut bare = Ws::request(&relay, &format!("{}&raw=1", target("/ws", "v:1", Some(&shared))), None);
    assert_eq!(bare.closed(), End::Proper(Some(1013)));
    let mut late = Ws::request(&relay, &format!("/ws?token={shared}"), None);
    late.send(&json!({"type": "subscribe", "channels": ["v:1"], "ref": 1}));
    assert_eq!(late.control("error")["reason"], "too-many");
    open(&other).ready();
    // To another issuer the same name is somebody else.
    open(&token(600, json!({"sub": "shared", "iss": "another"}))).ready();
    // In place of a token another one of the same subject takes no further place.
    second.send(&json!({"type": "renew", "token": of("shared"), "ref": 2}));
    assert_eq!(second.control("renewed")["ref"], 2);
    redis!(server, "SET", "v:1", "alive");
    first.sees("v:1", "v:1", "alive");
    second.sees("v:1", "v:1", "alive");
    assert!(relay.metric("keyrelay_limited_total{limit=\"connections_per_subject\"}") >= 3.0);
    drop(second);
    // Bare payloads take a place as any other stream.
    let bare = eventually("a place is free again", || {
        let mut bare = Ws::request(&relay, &format!("{}&raw=1", target("/ws", "v:1", Some(&shared))), None);
        match bare.socket.read().expect("a frame") {
            Frame::Text(_) => Some(bare),
            _ => None,
        }
    });
    assert_eq!(open(&shared).control("end")["reason"], "too-many");
    drop(bare);
    eventually("a place is free again", || {
        let mut again = open(&shared);
        again.until("an answer", |memory| memory.count("ready") + memory.count("end") > 0);
        (again.memory().count("ready") == 1).then_some(())
    });
}
