//! What a reader gives, whatever is in a key and whatever others do to it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyrelay::keyspace::{Kind, Size, StreamEntry, Value};
use keyrelay::upstream::Address;
use keyrelay::upstream::reader::{
    ConnectError, Cursor, Options, ReadError, ReadErrorKind, ReadRequest, Reader, Reading, ScanPage, TIMEOUT, Told,
};

use super::endpoint;
use crate::harness::{BOTH, Drip, PATIENCE, Proxy, Reply, Server, eventually};
use crate::redis;

const MAX: u64 = 1000;

fn options(server: &Server) -> Options {
    Options {
        endpoint: endpoint(server),
        timeout: TIMEOUT,
        memory: 64 << 20,
    }
}

fn request(key: &[u8], likely: Option<Kind>) -> ReadRequest {
    ReadRequest {
        key: Bytes::copy_from_slice(key),
        max_value: MAX,
        fields: None,
        likely,
        probably_gone: false,
        asking: false,
    }
}

fn fields(key: &str, names: &[&'static str]) -> ReadRequest {
    let names: Arc<[Bytes]> = names.iter().map(|name| Bytes::from(*name)).collect();
    ReadRequest {
        fields: Some(names),
        ..request(key.as_bytes(), Some(Kind::Hash))
    }
}

fn b(text: &'static str) -> Bytes {
    Bytes::from(text)
}

/// Runs a test that ends in time.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it ends in time") });
}

/// A reader, and what it has told of what somebody else waits for.
struct Asker {
    reader: RefCell<Reader>,
    numbers: Cell<u64>,
    told: RefCell<HashMap<u64, Told>>,
    closed: Cell<bool>,
}

impl Asker {
    async fn connect(options: &Options) -> Result<Asker, ConnectError> {
        Ok(Asker {
            reader: RefCell::new(Reader::connect(options).await?),
            numbers: Cell::default(),
            told: RefCell::default(),
            closed: Cell::default(),
        })
    }

    async fn read(&self, batch: Vec<ReadRequest>) -> Vec<Result<Reading, ReadError>> {
        let number = self.number();
        self.reader.borrow_mut().read(number, batch);
        match self.told(number).await {
            Some(Told::Read(_, readings)) => readings,
            other => panic!("{other:?}"),
        }
    }

    async fn scan(&self, cursor: Cursor, glob: Option<&[u8]>, count: u32) -> Result<ScanPage, ReadError> {
        let number = self.number();
        self.reader.borrow_mut().scan(number, &cursor, glob, count);
        match self.told(number).await {
            Some(Told::Page(_, page, _)) => page,
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&self) {
        let told = self.told(u64::MAX).await;
        assert!(told.is_none());
    }

    fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn number(&self) -> u64 {
        self.numbers.replace(self.numbers.get() + 1)
    }

    /// What is told of this number; None if the connection was closed before.
    async fn told(&self, number: u64) -> Option<Told> {
        poll_fn(|context| {
            loop {
                if let Some(told) = self.told.borrow_mut().remove(&number) {
                    return Poll::Ready(Some(told));
                }
                match ready!(self.reader.borrow_mut().poll(context)) {
                    Told::Closed => {
                        self.closed.set(true);
                        return Poll::Ready(None);
                    }
                    told @ (Told::Read(of, _) | Told::Page(of, ..)) => {
                        self.told.borrow_mut().insert(of, told);
                        // Whoever waits for it may have looked already.
                        context.waker().wake_by_ref();
                    }
                }
            }
        })
        .await
    }
}

async fn connect(server: &Server) -> Asker {
    Asker::connect(&options(server)).await.expect("the server lets us in")
}

/// Reads one key with each guess of its type, and with that it is gone; all must give the same.
async fn read(reader: &Asker, key: &[u8]) -> Reading {
    let guesses = [
        None,
        Some(Kind::String),
        Some(Kind::Hash),
        Some(Kind::List),
        Some(Kind::Set),
        Some(Kind::SortedSet),
        Some(Kind::Stream),
    ];
    let requests = guesses.map(|likely| request(key, likely)).into_iter();
    let gone = |there: ReadRequest| ReadRequest {
        probably_gone: true,
        ..there
    };
    let requests: Vec<ReadRequest> = requests.flat_map(|there| [there.clone(), gone(there)]).collect();
    let readings = reader.read(requests).await;
    let mut readings = readings.into_iter().map(|reading| {
        let mut reading = reading.expect("the key can be read");
        reading.value.sort();
        reading
    });
    let first = readings.next().expect("there are guesses");
    for other in readings {
        assert_eq!(other.value, first.value);
    }
    first
}

async fn value(reader: &Asker, key: &str) -> Value {
    read(reader, key.as_bytes()).await.value
}

#[test]
fn every_type_is_read_whatever_was_guessed() {
    let server = Server::start();
    redis!(server, "SET", "string", "text");
    redis!(server, "SET", "number", "42");
    redis!(server, "SET", "empty", "");
    redis!(server, "HSET", "hash", "b", "2", "a", "1", "", "");
    redis!(server, "RPUSH", "list", "z", "", "a");
    redis!(server, "SADD", "set", "y", "x");
    redis!(
        server, "ZADD", "zset", "1.5", "m", "-inf", "low", "inf", "high", "0.1", "n"
    );
    redis!(server, "XADD", "stream", "1-1", "f", "v", "f", "w");
    redis!(server, "XADD", "stream", "2-0", "g", "");
    redis!(server, "XADD", "emptied", "1-1", "f", "v");
    redis!(server, "XDEL", "emptied", "1-1");
    run(async {
        let reader = connect(&server).await;
        assert_eq!(value(&reader, "absent").await, Value::Absent);
        assert_eq!(value(&reader, "string").await, Value::String(b("text")));
        assert_eq!(value(&reader, "number").await, Value::String(b("42")));
        assert_eq!(value(&reader, "empty").await, Value::String(b("")));
        let hash = [("", ""), ("a", "1"), ("b", "2")].map(|(name, value)| (b(name), b(value)));
        assert_eq!(value(&reader, "hash").await, Value::Hash(hash.into()));
        assert_eq!(value(&reader, "list").await, Value::List(["z", "", "a"].map(b).into()));
        assert_eq!(value(&reader, "set").await, Value::Set(["x", "y"].map(b).into()));
        let zset = [
            ("low", f64::NEG_INFINITY),
            ("n", 0.1),
            ("m", 1.5),
            ("high", f64::INFINITY),
        ];
        let zset = zset.map(|(member, score)| (b(member), score));
        assert_eq!(value(&reader, "zset").await, Value::SortedSet(zset.into()));
        let entries = vec![
            StreamEntry {
                id: b("1-1"),
                fields: vec![(b("f"), b("v")), (b("f"), b("w"))],
            },
            StreamEntry {
                id: b("2-0"),
                fields: vec![(b("g"), b(""))],
            },
        ];
        assert_eq!(value(&reader, "stream").await, Value::Stream(entries));
        assert_eq!(value(&reader, "emptied").await, Value::Stream(vec![]));
        assert!(reader.read(vec![]).await.is_empty());
    });
}

#[test]
fn bytes_are_bytes_in_keys_and_values() {
    let server = Server::start();
    let odd = b"\xff\x00\r\n*3\r\n";
    redis!(server, "SET", odd, odd);
    redis!(server, "HSET", b"h\xfe", odd, odd);
    redis!(server, "ZADD", b"z\xfe", "1", odd);
    redis!(server, "XADD", b"x\xfe", "1-1", odd, odd);
    let odd = Bytes::from_static(odd);
    run(async {
        let reader = connect(&server).await;
        assert_eq!(read(&reader, &odd).await.value, Value::String(odd.clone()));
        assert_eq!(
            read(&reader, b"h\xfe").await.value,
            Value::Hash(vec![(odd.clone(), odd.clone())])
        );
        assert_eq!(
            read(&reader, b"z\xfe").await.value,
            Value::SortedSet(vec![(odd.clone(), 1.0)])
        );
        let entry = StreamEntry {
            id: b("1-1"),
            fields: vec![(odd.clone(), odd.clone())],
        };
        assert_eq!(read(&reader, b"x\xfe").await.value, Value::Stream(vec![entry]));
    });
}

#[test]
fn what_looks_like_a_message_is_a_value() {
    let server = Server::start();
    let looks: [&[&'static str]; 9] = [
        &["message", "a", "b"],
        &["pmessage", "a", "b", "c"],
        &["smessage", "a", "b"],
        &["subscribe", "a", "1"],
        &["unsubscribe", "a", "1"],
        &["pubsub", "message", "a", "b"],
        &["pubsub", "pmessage", "a", "b", "c"],
        &["invalidate", "a"],
        &["QUEUED"],
    ];
    let names = ["f0", "f1", "f2", "f3", "f4"];
    for (n, look) in looks.iter().enumerate() {
        for (word, name) in look.iter().zip(names) {
            redis!(server, "RPUSH", format!("list-{n}"), word);
            redis!(server, "HSET", format!("hash-{n}"), name, word);
            redis!(server, "SADD", format!("set-{n}"), word);
        }
        redis!(server, "SET", format!("string-{n}"), look[0]);
    }
    run(async {
        let reader = connect(&server).await;
        let mut batch = Vec::new();
        let mut expected = Vec::new();
        for (n, look) in looks.iter().enumerate() {
            let words: Vec<Bytes> = look.iter().map(|word| b(word)).collect();
            batch.push(request(format!("list-{n}").as_bytes(), None));
            expected.push(Value::List(words.clone()));
            batch.push(fields(&format!("hash-{n}"), &names[..look.len()]));
            expected.push(Value::Hash(
                names.iter().map(|name| b(name)).zip(words.clone()).collect(),
            ));
            batch.push(request(format!("set-{n}").as_bytes(), None));
            expected.push(Value::Set(
                words.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            ));
            batch.push(request(format!("string-{n}").as_bytes(), None));
            expected.push(Value::String(words[0].clone()));
        }
        for (reading, expected) in reader.read(batch).await.into_iter().zip(expected) {
            let mut value = reading.expect("the key can be read").value;
            value.sort();
            assert_eq!(value, expected);
        }
        assert!(!reader.is_closed());
    });
}

#[test]
fn only_the_chosen_fields_are_read() {
    let server = Server::start();
    redis!(
        server,
        "HSET",
        "hash",
        "a",
        "1",
        "b",
        "2",
        "c",
        "3",
        "huge",
        "x".repeat(5000)
    );
    redis!(server, "SET", "string", "text");
    run(async {
        let reader = connect(&server).await;
        let hash = |pairs: &[(&'static str, &'static str)]| {
            Value::Hash(pairs.iter().map(|(name, value)| (b(name), b(value))).collect())
        };
        let batch = vec![
            fields("hash", &["c", "none", "a"]),
            fields("hash", &["none"]),
            fields("hash", &["a", "b", "c", "d", "e", "f", "g"]),
            fields("hash", &["huge", "a"]),
            fields("absent", &["a"]),
            fields("string", &["a"]),
        ];
        let values: Vec<Value> = reader
            .read(batch)
            .await
            .into_iter()
            .map(|reading| reading.unwrap().value)
            .collect();
        let expected = [
            hash(&[("c", "3"), ("a", "1")]),
            hash(&[]),
            hash(&[("a", "1"), ("b", "2"), ("c", "3")]),
            Value::TooLarge(Size::Bytes(5006)),
            Value::Absent,
            Value::String(b("text")),
        ];
        assert_eq!(values, expected);
    });
}

#[test]
fn what_is_too_large_is_measured_and_not_given() {
    let server = Server::start();
    let (most, more) = ("x".repeat(1000), "x".repeat(1001));
    redis!(server, "SET", "most", &most);
    redis!(server, "SET", "more", &more);
    redis!(server, "RPUSH", "most-of-a-list", &most);
    redis!(server, "RPUSH", "more-of-a-list", &most, "y");
    let mut writer = server.connect();
    for n in 0..1001 {
        let n = n.to_string();
        writer.command(&[b"RPUSH", b"long", n.as_bytes()]).unwrap();
        writer.command(&[b"SADD", b"wide", n.as_bytes()]).unwrap();
        writer.command(&[b"HSET", b"deep", n.as_bytes(), b""]).unwrap();
    }
    run(async {
        let reader = connect(&server).await;
        assert_eq!(value(&reader, "most").await, Value::String(Bytes::from(most.clone())));
        assert_eq!(value(&reader, "more").await, Value::TooLarge(Size::Bytes(1001)));
        assert_eq!(
            value(&reader, "most-of-a-list").await,
            Value::List(vec![Bytes::from(most.clone())])
        );
        assert_eq!(
            value(&reader, "more-of-a-list").await,
            Value::TooLarge(Size::Bytes(1001))
        );
        for key in ["long", "wide", "deep"] {
            assert_eq!(
                value(&reader, key).await,
                Value::TooLarge(Size::Elements(1001)),
                "{key}"
            );
        }
        // The chosen fields of a large hash are small.
        let reading = reader.read(vec![fields("deep", &["7"])]).await.remove(0).unwrap();
        assert_eq!(reading.value, Value::Hash(vec![(b("7"), b(""))]));
        let none = ReadRequest {
            max_value: 0,
            ..request(b"most", None)
        };
        assert_eq!(
            reader.read(vec![none]).await.remove(0).unwrap().value,
            Value::TooLarge(Size::Bytes(1000))
        );
        let all = ReadRequest {
            max_value: u64::MAX,
            ..request(b"more", None)
        };
        assert_eq!(
            reader.read(vec![all]).await.remove(0).unwrap().value,
            Value::String(Bytes::from(more.clone()))
        );
    });
}

#[test]
fn the_time_to_live_comes_along() {
    let server = Server::start();
    redis!(server, "SET", "for-ever", "1");
    redis!(server, "SET", "string", "1", "PX", "100000");
    redis!(server, "RPUSH", "list", "1");
    redis!(server, "PEXPIRE", "list", "100000");
    run(async {
        let reader = connect(&server).await;
        assert_eq!(read(&reader, b"for-ever").await.ttl, None);
        assert_eq!(read(&reader, b"absent").await.ttl, None);
        for key in ["string", "list"] {
            let ttl = read(&reader, key.as_bytes()).await.ttl.expect("it expires");
            assert!(
                ttl <= Duration::from_secs(100) && ttl > Duration::from_secs(60),
                "{key}: {ttl:?}"
            );
        }
    });
}

#[test]
fn a_key_that_changes_its_type_all_the_time_is_always_one_of_them() {
    let server = Server::start();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let mut writer = server.connect();
            let stop = stop.clone();
            thread::spawn(move || {
                let writes: [&[&[u8]]; 10] = [
                    &[b"SET", b"k", b"text"],
                    &[b"DEL", b"k"],
                    &[b"HSET", b"k", b"f", b"v"],
                    &[b"DEL", b"k"],
                    &[b"RPUSH", b"k", b"message", b"a", b"b"],
                    &[b"DEL", b"k"],
                    &[b"ZADD", b"k", b"1", b"m"],
                    &[b"DEL", b"k"],
                    &[b"XADD", b"k", b"1-1", b"f", b"v"],
                    &[b"DEL", b"k"],
                ];
                while !stop.load(Ordering::Relaxed) {
                    // The writers meet each other's types; what they are refused does not matter.
                    writes.iter().for_each(|words| writer.send(words).unwrap());
                    writes.iter().for_each(|_| drop(writer.receive().unwrap()));
                }
            })
        })
        .collect();
    run(async {
        let reader = connect(&server).await;
        for _ in 0..300 {
            let guesses = [
                None,
                Some(Kind::Hash),
                Some(Kind::List),
                Some(Kind::Stream),
                Some(Kind::SortedSet),
            ];
            let mut batch: Vec<_> = guesses.map(|likely| request(b"k", likely)).into();
            batch.push(ReadRequest {
                likely: None,
                asking: false,
                ..fields("k", &["f", "g", "h"])
            });
            for reading in reader.read(batch).await {
                match reading.expect("a change of type is no error").value {
                    Value::Absent => {}
                    Value::String(text) => assert_eq!(text, "text"),
                    Value::Hash(pairs) => assert!(pairs.is_empty() || pairs == [(b("f"), b("v"))], "{pairs:?}"),
                    Value::List(items) => assert_eq!(items[..3], ["message", "a", "b"].map(b)),
                    Value::SortedSet(members) => assert_eq!(members, [(b("m"), 1.0)]),
                    Value::Stream(entries) => assert!(entries.len() <= 1, "{entries:?}"),
                    other => panic!("nobody writes {other:?}"),
                }
            }
        }
        assert!(!reader.is_closed());
    });
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn a_scan_gives_every_key_and_only_those_that_match() {
    let server = Server::start();
    let mut all = BTreeSet::new();
    for n in 0..500 {
        let key = [b"k:\xff".as_slice(), n.to_string().as_bytes()].concat();
        redis!(server, "SET", key, "v");
        all.insert(Bytes::from(key));
        redis!(server, "SET", format!("other:{n}"), "v");
    }
    run(async {
        let reader = connect(&server).await;
        for (glob, expected) in [(Some(b"k:\xff*".as_slice()), all.len()), (None, 2 * all.len())] {
            // However many are asked for, reads that fly along are answered.
            for count in [0, 50, 1000] {
                let mut found = BTreeSet::new();
                let mut next = Some(Cursor::start());
                while let Some(cursor) = next {
                    let batch = vec![request(b"k:\xff7", None)];
                    let (page, readings) = tokio::join!(reader.scan(cursor, glob, count), reader.read(batch));
                    assert_eq!(readings[0].as_ref().unwrap().value, Value::String(b("v")));
                    let page = page.unwrap();
                    found.extend(page.keys);
                    next = page.next;
                }
                assert_eq!(found.len(), expected);
                assert!(found.is_superset(&all));
            }
        }
    });
}

#[test]
fn several_batches_fly_at_once_and_each_gets_its_own() {
    let server = Server::start();
    for n in 0..200 {
        redis!(server, "SET", format!("k:{n}"), format!("v:{n}"));
    }
    run(async {
        let reader = connect(&server).await;
        let batch = |first: usize| {
            let reader = &reader;
            async move {
                let keys = first..first + 50;
                let batch = keys
                    .clone()
                    .map(|n| request(format!("k:{n}").as_bytes(), None))
                    .collect();
                for (n, reading) in keys.zip(reader.read(batch).await) {
                    assert_eq!(reading.unwrap().value, Value::String(Bytes::from(format!("v:{n}"))));
                }
            }
        };
        for _ in 0..20 {
            tokio::join!(batch(0), batch(50), batch(100), batch(150), batch(25));
        }
    });
}

#[test]
fn a_key_that_may_not_be_read_fails_alone() {
    let server = Server::start();
    server.grant("reset on >secret ~app:* -@all +ping +hello +info");
    server.grant("+type +pttl +getrange +get +llen +client|id");
    redis!(server, "SET", "app:a", "1");
    redis!(server, "SET", "other", "1");
    redis!(server, "RPUSH", "app:list", "1");
    let mut options = options(&server);
    options.endpoint.username = Some("relay".into());
    options.endpoint.password = Some("wrong".into());
    run(async {
        let refused = Asker::connect(&options).await.err().expect("the password is wrong");
        assert!(matches!(refused, ConnectError::Login(_)), "{refused:?}");
        options.endpoint.password = Some("secret".into());
        let reader = Asker::connect(&options).await.unwrap();
        let batch = [b"app:a".as_slice(), b"other", b"app:list", b"app:none"];
        let readings = reader.read(batch.map(|key| request(key, None)).into()).await;
        assert_eq!(readings[0].as_ref().unwrap().value, Value::String(b("1")));
        assert_eq!(readings[1].as_ref().unwrap_err().kind, ReadErrorKind::NoPermission);
        let error = readings[2].as_ref().unwrap_err();
        assert_eq!(error.kind, ReadErrorKind::NoPermission);
        assert!(error.message.contains("lrange"), "{error}");
        assert_eq!(readings[3].as_ref().unwrap().value, Value::Absent);
        server.grant("+lrange");
        let reading = reader.read(vec![request(b"app:list", None)]).await.remove(0).unwrap();
        assert_eq!(reading.value, Value::List(vec![b("1")]));
    });
}

#[test]
fn a_server_that_cannot_save_is_read_all_the_same() {
    let server = Server::start();
    redis!(server, "SET", "a", "1");
    redis!(server, "CONFIG", "SET", "save", "1 1");
    // A file cannot take the place of a directory.
    std::fs::create_dir(server.socket().with_file_name("dump.rdb")).unwrap();
    redis!(server, "BGSAVE");
    eventually("saving has failed", || {
        redis!(server, "INFO", "persistence")
            .text()
            .contains("rdb_last_bgsave_status:err")
            .then_some(())
    });
    run(async {
        let reader = connect(&server).await;
        assert_eq!(value(&reader, "a").await, Value::String(b("1")));
    });
    let answer = server.connect().command(&[b"PING"]).unwrap();
    assert!(
        matches!(&answer, Reply::Error(error) if error.starts_with("MISCONF")),
        "{answer:?}"
    );
}

#[test]
fn a_busy_server_is_busy_and_the_connection_stays() {
    let server = Server::start();
    redis!(server, "SET", "a", "1");
    redis!(server, "CONFIG", "SET", "lua-time-limit", "1");
    let mut script = server.connect();
    run(async {
        let reader = connect(&server).await;
        script.send(&[b"EVAL", b"while true do end", b"0"]).unwrap();
        loop {
            match reader.read(vec![request(b"a", None)]).await.remove(0) {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => {
                    assert_eq!(error.kind, ReadErrorKind::Busy, "{error}");
                    break;
                }
            }
        }
        redis!(server, "SCRIPT", "KILL");
        script.receive().unwrap();
        let reading = reader.read(vec![request(b"a", None)]).await.remove(0).unwrap();
        assert_eq!(reading.value, Value::String(b("1")));
    });
}

#[test]
fn a_frozen_server_takes_no_longer_than_the_timeout_and_closes_the_reader() {
    let server = Server::start();
    redis!(server, "SET", "a", "1");
    run(async {
        let timeout = Duration::from_millis(200);
        let options = Options {
            timeout,
            ..options(&server)
        };
        let reader = Asker::connect(&options).await.unwrap();
        server.freeze();
        // It may still answer until the signal has reached all of its threads.
        let error = loop {
            if let Err(error) = reader.read(vec![request(b"a", None)]).await.remove(0) {
                break error;
            }
        };
        assert_eq!(error.kind, ReadErrorKind::Timeout);
        reader.closed().await;
        assert!(reader.is_closed());
        server.thaw();
        let reader = connect(&server).await;
        assert_eq!(value(&reader, "a").await, Value::String(b("1")));
    });
}

/// An answer takes as long as it takes: only a server that says nothing is given up.
#[test]
fn a_large_answer_over_a_slow_line_takes_longer_than_the_timeout() {
    let server = Server::start();
    let proxy = Proxy::start(server.address());
    redis!(server, "SET", "large", "x".repeat(1 << 20));
    run(async {
        let timeout = Duration::from_secs(2);
        let mut options = options(&server);
        options.endpoint.address = Address::Tcp {
            host: proxy.address().ip().to_string(),
            port: proxy.address().port(),
        };
        options.timeout = timeout;
        let reader = Asker::connect(&options).await.unwrap();
        let drip = Drip {
            bytes: 32 << 10,
            every: Duration::from_millis(100),
        };
        proxy.drip(BOTH, Some(drip));
        let large = ReadRequest {
            max_value: 1 << 20,
            ..request(b"large", Some(Kind::String))
        };
        let begun = Instant::now();
        let reading = reader.read(vec![large]).await.remove(0).unwrap();
        assert_eq!(reading.value, Value::String("x".repeat(1 << 20).into()));
        assert!(begun.elapsed() > timeout);
    });
}

/// What comes a byte now and then does not come.
#[test]
fn a_server_that_hardly_sends_anything_is_given_up() {
    let server = Server::start();
    let proxy = Proxy::start(server.address());
    redis!(server, "SET", "a", "x".repeat(1000));
    run(async {
        let mut options = options(&server);
        options.endpoint.address = Address::Tcp {
            host: proxy.address().ip().to_string(),
            port: proxy.address().port(),
        };
        options.timeout = Duration::from_millis(500);
        let reader = Asker::connect(&options).await.unwrap();
        let drip = Drip {
            bytes: 1,
            every: Duration::from_millis(100),
        };
        proxy.drip(BOTH, Some(drip));
        let error = reader.read(vec![request(b"a", None)]).await.remove(0).unwrap_err();
        assert_eq!(error.kind, ReadErrorKind::Timeout);
        reader.closed().await;
    });
}

/// The room is for all that is under way together, and is there again once that was handed over.
#[test]
fn there_is_only_so_much_room_at_once() {
    const KEYS: usize = 64;
    let server = Server::start();
    for n in 0..KEYS {
        redis!(server, "SET", format!("k:{n}"), format!("{n}").repeat(100_000));
    }
    redis!(
        server,
        "EVAL",
        "for i = 1, 20000 do redis.call('SADD', 'set', i) end",
        "0"
    );
    run(async {
        let options = Options {
            memory: 1 << 20,
            ..options(&server)
        };
        let reader = Asker::connect(&options).await.unwrap();
        let asked = |key: &str| ReadRequest {
            max_value: 1 << 20,
            ..request(key.as_bytes(), None)
        };
        let mut left: Vec<usize> = (0..KEYS).collect();
        let mut rounds = 0;
        while !left.is_empty() {
            let batch = left.iter().map(|n| asked(&format!("k:{n}"))).collect();
            let readings = left.iter().copied().zip(reader.read(batch).await);
            let before = left.len();
            left = readings
                .filter_map(|(n, reading)| match reading {
                    Ok(reading) => {
                        assert_eq!(reading.value, Value::String(format!("{n}").repeat(100_000).into()));
                        None
                    }
                    Err(error) => {
                        assert!(
                            matches!(error.kind, ReadErrorKind::NoRoom(100_000..300_000)),
                            "{error:?}"
                        );
                        Some(n)
                    }
                })
                .collect();
            let read = before - left.len();
            assert!((1..=10).contains(&read), "{read} at once");
            rounds += 1;
        }
        assert!(rounds > KEYS / 10);
        // Elements take memory: of so many there is no room, whatever else is read.
        let set = reader.read(vec![asked("set")]).await.remove(0).unwrap();
        assert!(matches!(set.value, Value::TooLarge(Size::Bytes(_))), "{:?}", set.value);
        let last = reader.read(vec![asked("k:1")]).await.remove(0).unwrap();
        assert_eq!(last.value.size_in_bytes(), 100_000);
    });
}

/// Replies that are void for want of their guard take no room once that was said.
#[test]
fn what_is_refused_at_its_end_leaves_its_room() {
    let server = Server::start();
    server.grant("reset on >secret ~* +@all");
    redis!(server, "SET", "large", "x".repeat(100_000));
    let mut options = Options {
        memory: 1 << 20,
        ..options(&server)
    };
    options.endpoint.username = Some("relay".into());
    options.endpoint.password = Some("secret".into());
    run(async {
        let reader = Asker::connect(&options).await.unwrap();
        let large = || ReadRequest {
            max_value: 1 << 20,
            ..request(b"large", Some(Kind::String))
        };
        server.grant("-ping");
        for _ in 0..20 {
            let error = reader.read(vec![large()]).await.remove(0).unwrap_err();
            assert_eq!(error.kind, ReadErrorKind::NoPermission, "{error}");
        }
        server.grant("+ping");
        let reading = reader.read(vec![large()]).await.remove(0).unwrap();
        assert_eq!(reading.value.size_in_bytes(), 100_000);
    });
}

#[test]
fn a_lost_connection_is_said_and_leaves_nothing_behind() {
    let mut server = Server::start();
    redis!(server, "SET", "a", "1");
    run(async {
        let reader = connect(&server).await;
        let again = connect(&server).await;
        assert_eq!(reader.reader.borrow().run_id(), again.reader.borrow().run_id());
        drop(again);
        server.kill();
        let readings = reader.read(vec![request(b"a", None), request(b"b", None)]).await;
        assert_eq!(readings.len(), 2);
        for reading in readings {
            assert_eq!(reading.unwrap_err().kind, ReadErrorKind::Connection);
        }
        reader.closed().await;
        reader.closed().await;
        assert!(reader.is_closed());
        let refused = Asker::connect(&options(&server)).await.err().expect("nobody listens");
        assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused:?}");
    });
}

#[test]
fn an_idle_connection_that_is_killed_is_closed() {
    let server = Server::start();
    run(async {
        let reader = connect(&server).await;
        let clients = redis!(server, "CLIENT", "LIST").text();
        let line = clients
            .lines()
            .find(|line| line.contains("name=keyrelay-test"))
            .expect("it has its name");
        let id = line
            .strip_prefix("id=")
            .and_then(|line| line.split(' ').next())
            .unwrap();
        redis!(server, "CLIENT", "KILL", "ID", id);
        reader.closed().await;
        assert!(reader.is_closed());
    });
}

#[test]
fn a_dropped_reader_closes_its_connection() {
    let server = Server::start();
    run(async {
        drop(connect(&server).await);
        loop {
            if !redis!(server, "CLIENT", "LIST").text().contains("name=keyrelay-test") {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn another_database_and_a_unix_socket() {
    let server = Server::start();
    redis!(server, "SELECT", "2");
    redis!(server, "SET", "a", "in 2");
    let mut options = options(&server);
    options.endpoint.address = Address::Unix(server.socket());
    options.endpoint.db = 2;
    run(async {
        let reader = Asker::connect(&options).await.unwrap();
        assert_eq!(value(&reader, "a").await, Value::String(b("in 2")));
        options.endpoint.db = 1000;
        let refused = Asker::connect(&options).await.err().expect("there is no such database");
        assert!(matches!(refused, ConnectError::Refused(_)), "{refused:?}");
    });
}
