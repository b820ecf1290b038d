//! Messages of Pub/Sub channels, from the server to the client.

use serde_json::{Value, json};

use crate::harness::{Data, Memory, Message, Relay, Reply, Server, eventually, mapping};
use crate::{both, every_way, redis};

/// The payloads of all messages.
fn told(memory: &Memory) -> Vec<Value> {
    memory.messages.iter().map(|message| message.json.clone()).collect()
}

every_way! {
    /// A service publishes all that changes on one channel; each of its users is to hear of one environment, and of that
    /// not everything.
    fn one_topic_for_many_channels_by_a_field<C>() {
        let server = Server::start();
        let options = r#"
            subscribe = "configuration-updates"
            channel = "env:{json.environmentId}"
            fields = ["name", "value", "isPlaintext"]
        "#;
        let relay = Relay::start(&server, &mapping(options));
        let mut client = C::open(&relay, &["env:prod-1"]);
        client.ready();
        assert_eq!(client.memory().messages, []);
        let publish = |message: &str| drop(redis!(server, "PUBLISH", "configuration-updates", message));
        publish(r#"{"environmentId":"prod-1","name":"A","value":"1","isPlaintext":true}"#);
        publish(r#"{"environmentId":"prod-2","name":"B","value":"other","isPlaintext":true}"#);
        publish(r#"{"name": "C", "secret": "x", "isPlaintext": false, "environmentId": "prod-1"}"#);
        publish(r#"{"environmentId":"prod-1","name":"end"}"#);
        let payload = |value: Value| json!({"channel": "env:prod-1", "key": "configuration-updates", "value": value});
        client.until("three messages", |memory| memory.messages.len() >= 3);
        let expected = [
            payload(json!({"isPlaintext": true, "name": "A", "value": "1"})),
            payload(json!({"isPlaintext": false, "name": "C"})),
            payload(json!({"name": "end"})),
        ];
        assert_eq!(told(client.memory()), expected);
        assert!(client.memory().messages.iter().all(|message| message.id.is_some()));
    }

    /// None of them is fatal, each kind is said once, and nothing of them stands in the log.
    fn messages_that_are_not_what_was_asked_for<C>() {
        let server = Server::start();
        let options = "subscribe = \"updates\"\nchannel = \"to:{json.id}\"\nfields = [\"text\"]";
        let relay = Relay::start(&server, &mapping(options));
        let mut client = C::open(&relay, &["to:7"]);
        client.ready();
        for message in ["hush", "hush", "[\"hush\"]", r#"{"text":"hush"}"#, r#"{"id":{"hush":1}}"#, r#"{"id":""}"#] {
            redis!(server, "PUBLISH", "updates", message);
        }
        redis!(server, "PUBLISH", "updates", b"\xff\xfe\x00");
        redis!(server, "PUBLISH", "updates", r#"{"id":7,"text":"end"}"#);
        client.until("the message behind them", |memory| !memory.messages.is_empty());
        assert_eq!(client.memory().messages[0].value(), &json!({"text": "end"}));
        // The log comes by another way than the messages.
        let log = eventually("each kind is said", || {
            let log = relay.log();
            (log.matches("a published message").count() >= 3).then_some(log)
        });
        let said: Vec<&str> = log.lines().filter(|line| line.contains("a published message")).collect();
        assert_eq!(said.len(), 3, "one line for each kind: {log}");
        assert!(said.iter().all(|line| line.contains("keyrelay.toml")), "{log}");
        assert!(!log.contains("hush"), "{log}");
        assert_eq!((client.memory().count("gap"), client.memory().count("stale")), (0, 0));
    }

    fn by_captures_with_any_bytes<C>() {
        let server = Server::start();
        let options = [
            mapping("subscribe = \"chat:{room}\"\nchannel = \"room:{room}\""),
            // Each of these subscribes to what the first one does; still every message comes once.
            mapping("subscribe = \"chat:lobby\"\nchannel = \"lobby\""),
            mapping("subscribe = \"chat:l{rest...}\"\nformat = \"raw\"\nchannel = \"raw:{rest...}\""),
        ];
        let relay = Relay::start(&server, &options.concat());
        let mut client = C::open(&relay, &["room:lobby", "room:%FF", "lobby"]);
        client.ready();
        redis!(server, "PUBLISH", "chat:lobby", "text");
        redis!(server, "PUBLISH", b"chat:\xff", b"\x00\xfe");
        redis!(server, "PUBLISH", "chat:a:b", "no segment");
        redis!(server, "PUBLISH", "chat:lobby", "end");
        client.until("four messages", |memory| memory.messages.len() >= 5);
        let mut heard: Vec<(String, String, Value)> =
            client.memory().messages.iter().map(|one| (one.channel().to_owned(), one.key(), one.value().clone())).collect();
        heard.sort_by_key(|(channel, ..)| channel.clone());
        let base64 = json!({"base64": "AP4="});
        let expected = [
            ("lobby", "chat:lobby", json!("text")),
            ("lobby", "chat:lobby", json!("end")),
            ("room:%FF", "{\"base64\":\"Y2hhdDr/\"}", base64),
            ("room:lobby", "chat:lobby", json!("text")),
            ("room:lobby", "chat:lobby", json!("end")),
        ];
        assert_eq!(heard, expected.map(|(channel, key, value)| (channel.to_owned(), key.to_owned(), value)));
    }

    fn templates_and_raw_text<C>() {
        let server = Server::start();
        let html = r#"
            subscribe = "html:{room}"
            channel = "room:{room}"
            decode = "json"
            format = "template"
            template = "<p>{{ room }} {{ value.text }} {{ key }} {{ event }}</p>"
        "#;
        let relay = Relay::start(&server, &[mapping(html), mapping("subscribe = \"raw\"\nformat = \"raw\"")].concat());
        let mut client = C::open(&relay, &["room:a", "raw"]);
        client.ready();
        redis!(server, "PUBLISH", "html:a", r#"{"text": "1 < 2"}"#);
        redis!(server, "PUBLISH", "raw", "as it is");
        client.until("both", |memory| memory.messages.len() >= 2);
        let texts: Vec<&str> = client.memory().messages.iter().map(|message| message.text.as_str()).collect();
        assert_eq!(texts, ["<p>a 1 &lt; 2 html:a </p>", "as it is"]);
    }

    fn coming_back_within_the_retention<C>() {
        let server = Server::start();
        let relay = Relay::start(&server, &mapping("subscribe = \"news:{topic}\""));
        let mut client = C::open(&relay, &["news:a"]);
        client.ready();
        redis!(server, "PUBLISH", "news:a", "0");
        client.until("the first", |memory| memory.messages.len() == 1);
        let cursor = client.cursor();
        drop(client);
        for n in 1..=3 {
            redis!(server, "PUBLISH", "news:a", n.to_string());
        }
        let mut client = C::resume(&relay, &["news:a"], cursor);
        client.until("the missed ones", |memory| memory.messages.len() == 3);
        let values: Vec<Value> = client.memory().messages.iter().map(|message| message.value().clone()).collect();
        assert_eq!(values, [json!("1"), json!("2"), json!("3")]);
        assert_eq!(client.memory().count("gap"), 0);
    }

    /// What was published while nobody could hear it is gone, and that is said; nobody knows how much it was.
    fn a_lost_feed_is_a_gap<C>() {
        let mut server = Server::start();
        let relay = Relay::start(&server, &mapping("subscribe = \"news:{topic}\""));
        let mut client = C::open(&relay, &["news:a"]);
        client.ready();
        redis!(server, "PUBLISH", "news:a", "before");
        client.until("what came before", |memory| memory.messages.len() == 1);
        server.restart(Data::Lost);
        let gap = client.control("gap");
        assert_eq!(gap["channels"], json!({"news:a": {"missed": null}}));
        eventually("the relay hears again", || {
            (redis!(server, "PUBLISH", "news:a", "after") == Reply::Integer(1)).then_some(())
        });
        client.until("what came after", |memory| memory.messages.last().is_some_and(|last| last.value() == "after"));
        assert_eq!(client.memory().count("gap"), 1);
    }
}

both! {
    /// What happens to keys and what is published stand in one order, and neither is taken for the other.
    fn among_the_events_of_keys<C>() {
        let server = Server::start();
        let options =
            [mapping("key = \"job:{id}\"\nchannel = \"jobs\"\nmode = \"events\""), mapping("subscribe = \"job:{id}\"\nchannel = \"jobs\"")];
        let relay = Relay::start(&server, &options.concat());
        let mut client = C::open(&relay, &["jobs"]);
        client.ready();
        for n in 0..50 {
            redis!(server, "SET", "job:1", n.to_string());
            redis!(server, "PUBLISH", "job:1", n.to_string());
        }
        redis!(server, "PUBLISH", "__keyspace@0__:job:2", "set");
        redis!(server, "PUBLISH", "job:1", "end");
        client.until("all", |memory| memory.messages.last().is_some_and(|last| last.value() == "end"));
        let kind = |message: &Message| message.json["event"].as_str().unwrap_or("message").to_owned();
        let mut messages: Vec<Message> = client.memory().messages.clone();
        messages.retain(|message| message.key() == "job:1");
        let kinds: Vec<String> = messages.iter().map(kind).collect();
        let mut expected = ["set", "message"].repeat(50);
        expected.push("message");
        assert_eq!(kinds, expected);
        let published: Vec<Value> =
            messages.iter().filter(|each| kind(each) == "message").map(|each| each.value().clone()).collect();
        let numbers = (0..50).map(|n| json!(n.to_string()));
        assert_eq!(published, numbers.chain([json!("end")]).collect::<Vec<_>>());
    }
}

/// The limit is on what is sent, and a client is told.
#[test]
fn a_message_over_max_value_is_told_to_be_so() {
    use crate::harness::{Client, Sse};
    let server = Server::start();
    let relay = Relay::start(&server, &mapping("subscribe = \"news\"\nmax_value = \"1KiB\""));
    let mut client = Sse::open(&relay, &["news"]);
    client.ready();
    redis!(server, "PUBLISH", "news", "x".repeat(1025));
    redis!(server, "PUBLISH", "news", "y".repeat(1024));
    client.until("both", |memory| memory.messages.len() == 2);
    let expected = json!({"channel": "news", "key": "news", "too_large": true});
    assert_eq!(client.memory().messages[0].json, expected);
    assert_eq!(client.memory().messages[1].value(), &json!("y".repeat(1024)));
}

/// What is published comes without key events: nobody asks for them or switches them on.
#[test]
fn with_topics_alone_no_key_events_are_asked_for() {
    use crate::harness::{Client, Sse};
    let server = Server::start();
    server.grant("on >sesame +@all -config allkeys allchannels");
    let refused = format!("redis://relay:sesame@{}/0", server.address());
    for url in [server.url(), refused] {
        let upstream = format!("url = \"{url}\"\nnotifications = \"ensure\"");
        let relay = Relay::reaching(&upstream, "", &mapping("subscribe = \"news\""));
        let mut client = Sse::open(&relay, &["news"]);
        client.ready();
        redis!(server, "PUBLISH", "news", "text");
        client.until("the message", |memory| memory.messages.len() == 1);
        let checked = relay.checked();
        assert!(checked.contains("\"problems\":0,\"warnings\":0"), "{}", relay.log());
        assert!(!relay.log().contains("some changes go unnoticed"), "{}", relay.log());
    }
    let setting = redis!(server, "CONFIG", "GET", "notify-keyspace-events");
    assert_eq!(
        setting,
        Reply::Array(vec![
            Reply::Bulk("notify-keyspace-events".into()),
            Reply::Bulk("".into())
        ])
    );
}

/// Nothing but the topics that a mapping names is subscribed to, and no channel but its own can be opened.
#[test]
fn nobody_hears_what_no_mapping_opens() {
    use crate::harness::http::get;
    let server = Server::start();
    let relay = Relay::start(
        &server,
        &mapping("subscribe = \"news:{topic}\"\nchannel = \"n:{topic}:{json.id}\""),
    );
    for channel in ["n:a", "news:a", "n:a:b:c", "n::b"] {
        let answer = get(relay.address(), &format!("/channels/{channel}"));
        assert_eq!(answer.status(), 404, "{channel}");
    }
    assert_eq!(get(relay.address(), "/channels/n:a:b").status(), 200);
    eventually("one pattern, once the checks of the start are done", || {
        (redis!(server, "PUBSUB", "NUMPAT") == Reply::Integer(1)).then_some(())
    });
    assert_eq!(redis!(server, "PUBLISH", "newsletter", "x"), Reply::Integer(0));
}
