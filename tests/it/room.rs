//! What the relay may hold for its channels: what happens when that is full, and that it passes.

use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::both;
use crate::harness::{Client, End, Event, PATIENCE, Relay, Server, Sse, Ws, eventually, mapping};
use crate::redis;

/// A relay with these lines in `[limits]`, with a channel for each of `v:*`, rooms of many keys `m:ROOM:*`, and happenings.
fn relay(server: &Server, limits: &str) -> Relay {
    let mappings = [
        mapping("key = \"v:{id}\"\nlinger = \"60s\""),
        mapping("key = \"m:{room}:{id}\"\nchannel = \"room:{room}\"\nlinger = \"60s\""),
        mapping("key = \"e:{id}\"\nmode = \"events\"\nretain = { messages = 1_000, bytes = \"64MiB\", age = \"10m\" }"),
    ];
    Relay::start(server, &format!("[limits]\n{limits}\n{}", mappings.concat()))
}

fn limited(relay: &Relay, limit: &str) -> f64 {
    relay.metric(&format!("keyrelay_limited_total{{limit=\"{limit}\"}}"))
}

/// Listens until the client is told that it is ended, why, and that it may come back.
#[track_caller]
fn ended<C: Client>(mut client: C, reason: &str) {
    let end = client.control("end");
    assert_eq!(end["reason"], reason, "{end}");
    assert_eq!(end["reconnect"], true, "{end}");
    let code = client.closed();
    assert!(matches!(code, End::Proper(None | Some(1013))), "{code:?}");
}

/// What is said to who asks for a channel that there is no room for.
#[track_caller]
fn turned_away<C: Client>(relay: &Relay, channel: &str) -> Value {
    let mut client = C::open(relay, &[channel]);
    loop {
        match client.next() {
            Event::Control(kind, data) if kind == "end" || kind == "error" => return data,
            Event::Control(kind, data) => panic!("{kind} of {channel}: {data}"),
            _ => {}
        }
    }
}

both! {
    /// A channel with more keys than it may have is ended at once, with a word of its own, and others notice nothing.
    fn a_channel_of_too_many_keys<C>() {
        let server = Server::start();
        for id in 0..20 {
            redis!(server, "SET", format!("m:big:{id}"), "x");
        }
        redis!(server, "SET", "m:small:1", "one");
        let relay = relay(&server, "keys_per_channel = 19");
        let mut other = C::open(&relay, &["room:small"]);
        other.ready();
        let big = C::open(&relay, &["room:big"]);
        ended(big, "too-many-keys");
        let warned = || {
            let log = relay.log();
            log.lines().filter(|line| line.contains("WARN") && line.contains("keys_per_channel")).count()
        };
        eventually("it is told", || (warned() > 0).then_some(()));
        // It is not enumerated again for whoever comes.
        let passes = limited(&relay, "keys_per_channel");
        let told = turned_away::<C>(&relay, "room:big");
        assert!(["too-many-keys", "full"].map(Value::from).contains(&told["reason"]), "{told}");
        let answer = relay.get("/channels/room:big");
        assert_eq!(answer.status(), 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        assert_eq!(limited(&relay, "keys_per_channel"), passes + 2.0);
        // A channel may also grow beyond while it is open.
        for id in 2..20 {
            redis!(server, "SET", format!("m:small:{id}"), "x");
        }
        other.sees("room:small", "m:small:19", "x");
        let mut bystander = C::open(&relay, &["v:1"]);
        bystander.ready();
        redis!(server, "SET", "m:small:20", "x");
        ended(other, "too-many-keys");
        redis!(server, "SET", "v:1", "still here");
        bystander.sees("v:1", "v:1", "still here");
        eventually("the keys are let go", || (relay.metric("keyrelay_keys") == 1.0).then_some(()));
        assert_eq!(warned(), 1, "{}", relay.log());
    }

    /// Where all keys are taken, what lingers goes first; then new channels are refused for now, and get in when there is
    /// room.
    fn all_keys_are_taken<C>() {
        let server = Server::start();
        for id in 0..60 {
            redis!(server, "SET", format!("m:a:{id}"), "x");
            redis!(server, "SET", format!("m:b:{id}"), "x");
        }
        let relay = relay(&server, "keys = 120");
        let mut a = C::open(&relay, &["room:a"]);
        a.ready();
        drop(a);
        eventually("it has gone", || (relay.metric("keyrelay_connections") == 0.0).then_some(()));
        // It lingers with its 60 keys, and gives way to as many others: only 105 of the keys are for new channels.
        let mut b = C::open(&relay, &["room:b"]);
        b.ready();
        eventually("the lingering channel has gone", || (relay.metric("keyrelay_keys") == 60.0).then_some(()));
        let taken = limited(&relay, "keys");
        assert!(taken >= 1.0);
        // What does not fit beside what is open is ended, and what is open is not.
        ended(C::open(&relay, &["room:a"]), "overload");
        let singles: Vec<String> = (0..45).map(|id| format!("v:{id}")).collect();
        let singles: Vec<&str> = singles.iter().map(String::as_str).collect();
        let mut many = C::open(&relay, &singles);
        many.ready();
        let told = eventually("no new channel is let in", || {
            let answer = relay.get("/channels/v:99");
            (answer.status() == 503).then_some(answer)
        });
        assert!(told.header("retry-after").is_some());
        let told = turned_away::<C>(&relay, "v:99");
        assert!(["overload", "full"].map(Value::from).contains(&told["reason"]), "{told}");
        // What is open may grow into the last eighth.
        redis!(server, "SET", "m:b:new", "grown");
        b.sees("room:b", "m:b:new", "grown");
        redis!(server, "SET", "v:7", "seven");
        many.sees("v:7", "v:7", "seven");
        drop(many);
        let mut late = eventually("there is room again", || {
            let answer = relay.get("/channels/v:99");
            (answer.status() == 200).then(|| C::open(&relay, &["v:99"]))
        });
        late.ready();
        assert!(limited(&relay, "keys") > taken);
    }

    /// Where the bytes of all logs are taken, the channel that grows too far is ended, and the others go on.
    fn all_bytes_are_taken<C>() {
        let server = Server::start();
        let large = "x".repeat(100_000);
        for id in 0..6 {
            redis!(server, "SET", format!("m:a:{id}"), &large);
        }
        redis!(server, "SET", "m:b:1", "one");
        let relay = relay(&server, "log_bytes = \"2MiB\"");
        let mut a = C::open(&relay, &["room:a"]);
        a.ready();
        let mut b = C::open(&relay, &["room:b"]);
        b.ready();
        // Each is held as it is and as it was sent.
        eventually("they are counted", || (relay.metric("keyrelay_log_bytes") > 1_200_000.0).then_some(()));
        for id in 6..30 {
            redis!(server, "SET", format!("m:a:{id}"), &large);
        }
        ended(a, "overload");
        redis!(server, "SET", "m:b:1", "two");
        b.sees("room:b", "m:b:1", "two");
        assert!(limited(&relay, "log_bytes") >= 1.0);
        let named = || relay.log().matches("\"limit\":\"log_bytes\"").count();
        eventually("the limit is named in the log", || (named() > 0).then_some(()));
        assert!(named() <= 2, "{}", relay.log());
        eventually("the bytes are let go", || (relay.metric("keyrelay_log_bytes") < 10_000.0).then_some(()));
        // It comes back, does not fit, and is told so each time; with fewer keys it fits.
        ended(C::open(&relay, &["room:a"]), "overload");
        for id in 3..30 {
            redis!(server, "DEL", format!("m:a:{id}"));
        }
        let mut a = C::open(&relay, &["room:a"]);
        a.ready();
    }

    /// What happened is kept for less long where the bytes are taken; whoever comes back for it is told of the gap.
    fn happenings_are_kept_for_less_long<C>() {
        let server = Server::start();
        let relay = relay(&server, "log_bytes = \"2MiB\"");
        let mut client = C::open(&relay, &["e:1"]);
        client.ready();
        redis!(server, "SET", "e:1", "first");
        client.sees("e:1", "e:1", "first");
        let cursor = client.cursor();
        let large = "x".repeat(100_000);
        for round in 0..40 {
            let value = format!("{round} {large}");
            redis!(server, "SET", "e:1", &value);
            client.sees("e:1", "e:1", value);
        }
        redis!(server, "SET", "e:1", "last");
        client.until("the last one", |memory| {
            memory.messages.last().is_some_and(|message| message.value() == "last")
        });
        assert_eq!(client.memory().end, None);
        assert!(relay.metric("keyrelay_log_bytes") <= 2_097_152.0);
        assert!(limited(&relay, "log_bytes") >= 1.0);
        drop(client);
        let mut back = C::resume(&relay, &["e:1"], cursor);
        back.control("gap");
        back.until("what is kept", |memory| {
            memory.messages.last().is_some_and(|message| message.value() == "last")
        });
    }
}

/// The forms in which a large channel is sent are only copies: however many are asked for, all stays within `log_bytes`, and
/// nobody is ended for it, neither those who read the large channel nor those of a small one, nor who comes anew.
#[test]
pub fn the_forms_of_a_large_channel_end_nobody() {
    const LIMIT: f64 = 8.0 * 1024.0 * 1024.0;
    let server = Server::start();
    redis!(server, "SET", "m:big:0", "x");
    let relay = relay(&server, "log_bytes = \"8MiB\"");
    let mut tiny = (Sse::open(&relay, &["v:tiny"]), Ws::open(&relay, &["v:tiny"]));
    tiny.0.ready();
    tiny.1.ready();
    let mut round = 0;
    let mut others_notice_nothing = || {
        for _ in 0..3 {
            // Each is longer than what it takes the place of.
            round += 1;
            let value = "t".repeat(round);
            redis!(server, "SET", "v:tiny", &value);
            tiny.0.sees("v:tiny", "v:tiny", &*value);
            tiny.1.sees("v:tiny", "v:tiny", &*value);
        }
        let bytes = relay.metric("keyrelay_log_bytes");
        assert!(bytes <= LIMIT, "{bytes} after {round} rounds");
    };
    let mut sse = Sse::open(&relay, &["room:big"]);
    sse.ready();
    let mut ws = Ws::open(&relay, &["room:big"]);
    ws.ready();
    let cursors = (sse.memory().query_cursor.clone(), ws.memory().query_cursor.clone());
    let raw = "/ws?channel=room:big&raw=1";
    let mut raw_live = Ws::request(&relay, raw, None);
    assert_eq!(payload(&mut raw_live)["value"], "x");
    let large = "x".repeat(100_000);
    for id in 1..16 {
        redis!(server, "SET", format!("m:big:{id}"), &large);
        assert_eq!(payload(&mut raw_live)["value"], *large);
    }
    sse.sees("room:big", "m:big:15", &*large);
    ws.sees("room:big", "m:big:15", &*large);
    others_notice_nothing();
    Sse::open(&relay, &["room:big"]).sees("room:big", "m:big:15", &*large);
    others_notice_nothing();
    Ws::open(&relay, &["room:big"]).sees("room:big", "m:big:15", &*large);
    others_notice_nothing();
    let mut raw_new = Ws::request(&relay, raw, None);
    for _ in 0..16 {
        payload(&mut raw_new);
    }
    others_notice_nothing();
    Sse::resume(&relay, &["room:big"], cursors.0).sees("room:big", "m:big:15", &*large);
    others_notice_nothing();
    Ws::resume(&relay, &["room:big"], cursors.1).sees("room:big", "m:big:15", &*large);
    others_notice_nothing();
    // What is read is what is there, also where it was not kept.
    redis!(server, "SET", "m:big:0", "y");
    sse.sees("room:big", "m:big:0", "y");
    ws.sees("room:big", "m:big:0", "y");
    assert_eq!(payload(&mut raw_live)["value"], "y");
    Sse::open(&relay, &["v:new"]).ready();
    assert_eq!(limited(&relay, "log_bytes"), 0.0);
}

/// The next bare payload.
#[track_caller]
fn payload(ws: &mut Ws) -> Value {
    let stream = ws.socket.get_ref();
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    loop {
        match ws.socket.read().expect("the stream goes on") {
            Frame::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Frame::Ping(_) | Frame::Pong(_) => {}
            other => panic!("not a payload: {other:?}"),
        }
    }
}

/// Random names of one stranger push out what lingers of that stranger, and nothing of others.
#[test]
pub fn names_of_one_address_push_out_its_own() {
    let server = Server::start();
    let behind = "proxies = [\"127.0.0.1\"]\nclient_address = \"x-forwarded-for\"";
    let limits = "[limits]\nchannels_per_address = 3\n";
    let mappings = mapping("key = \"v:{id}\"\nlinger = \"60s\"");
    let relay = Relay::with(&server, behind, &format!("{limits}{mappings}"));
    let open = |address: &str, channel: &str| {
        let target = format!("/events?channel={channel}");
        Sse::request(&relay, &target, &[("X-Forwarded-For", address)], None)
    };
    let friend = "203.0.113.7";
    let mut theirs = open(friend, "v:theirs");
    theirs.ready();
    let cursor = theirs.memory().query_cursor.clone().expect("a cursor");
    drop(theirs);
    for id in 0..10 {
        open("198.51.100.1", &format!("v:{id}")).ready();
    }
    eventually("a stranger's own make room", || {
        (relay.metric("keyrelay_channels") == 4.0).then_some(())
    });
    // What lingers of others is still there: a cursor of before is known.
    let target = format!("/events?channel=v:theirs&cursor={cursor}");
    let mut back = Sse::request(&relay, &target, &[("X-Forwarded-For", friend)], None);
    back.ready();
    assert_eq!(back.memory().count("reset"), 0);
    // With all of its own in use there is no room for this address, not even with others, and there is for others.
    let held: Vec<Sse> = (20..23)
        .map(|id| {
            let mut held = open("198.51.100.1", &format!("v:{id}"));
            held.ready();
            held
        })
        .collect();
    for channel in ["v:99", "v:theirs"] {
        let end = open("198.51.100.1", channel).control("end");
        assert_eq!(
            (&end["reason"], &end["reconnect"]),
            (&"too-many".into(), &true.into()),
            "{channel}: {end}"
        );
    }
    open("198.51.100.2", "v:99").ready();
    assert!(limited(&relay, "channels_per_address") >= 1.0);
    drop(held);
}

/// Clients that do not read on hold no more than they may: whoever has stalled longest goes, and others go on.
#[test]
pub fn what_is_half_written_is_bounded() {
    let server = Server::start();
    let large = "x".repeat(900_000);
    for id in 0..4 {
        redis!(server, "SET", format!("v:{id}"), &large);
    }
    redis!(server, "SET", "v:small", "one");
    let relay = relay(&server, "pinned = \"2MiB\"");
    let mut reads = Sse::open(&relay, &["v:small"]);
    reads.ready();
    let _stalled: Vec<Sse> = (0..4).map(|id| Sse::narrow(&relay, &[&format!("v:{id}")])).collect();
    eventually("one of them is ended", || {
        (relay.metric("keyrelay_slow_clients_total") >= 1.0).then_some(())
    });
    // It is ended because there was more, and another one may have begun meanwhile.
    eventually("no more is held than may be", || {
        (relay.metric("keyrelay_pinned_bytes") <= 2_097_152.0).then_some(())
    });
    assert!(limited(&relay, "pinned") >= 1.0);
    redis!(server, "SET", "v:small", "two");
    reads.sees("v:small", "v:small", "two");
}

/// Names that nobody has anything under cost no more than there may be, whatever is asked for, and go again.
#[test]
pub fn a_flood_of_names_is_no_state() {
    let server = Server::start();
    redis!(server, "SET", "v:kept", "one");
    let relay = relay(&server, "keys = 1_000");
    let mut held = Sse::open(&relay, &["v:kept"]);
    held.ready();
    for round in 0..50 {
        let names: Vec<String> = (0..100).map(|id| format!("v:{round}-{id}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut visitor = Sse::open(&relay, &names);
        visitor.poll(Duration::ZERO);
    }
    eventually("the flood has run off", || {
        let keys = relay.metric("keyrelay_keys");
        (keys < 875.0 && relay.metric("keyrelay_channels") < 900.0).then_some(())
    });
    for _ in 0..50 {
        let answer = relay.get("/channels?channel=nothing:1&channel=nothing:2");
        assert_eq!(answer.status(), 404);
    }
    assert!(limited(&relay, "keys") > 0.0);
    redis!(server, "SET", "v:kept", "two");
    held.sees("v:kept", "v:kept", "two");
}
