//! An app that answers well, badly, late, or not at all.

mod limits;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::UNIX_EPOCH;

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::access::testing::{Gate, Server, say, until_gone};

fn asker(server: &Server) -> Arc<Asker> {
    let options = Options { url: server.url() };
    Asker::new(options, Client::new(), Arc::default(), Handle::current())
}

/// By a decision of its own.
async fn ask(asker: &Arc<Asker>, credential: &Credential, channels: &[&str]) -> Result<Arc<Claims>, Failure> {
    asker.ask(credential, channels, None, Deadline::from_now()).await
}

/// Waits until no question is open; who waited for one may have given up a little before it did.
async fn all_end(asker: &Asker) {
    let ended = async {
        while !asker.shared().open.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), ended).await;
    waited.expect("every question ends");
}

fn cookie(text: &str) -> Credential {
    Credential {
        cookie: Some(HeaderValue::from_str(text).unwrap()),
        ..Credential::default()
    }
}

fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

fn claims(seconds: i64) -> Value {
    json!({"exp": seconds_from_now(seconds), "sub": "42", "channels": ["cart:42", "room:*"]})
}

fn answering(status: &'static str, body: &Value) -> Server {
    Server::saying(status, "content-type: application/json\r\n", body.to_string())
}

#[tokio::test]
async fn the_app_hears_the_credential_and_the_channels_and_nothing_else() {
    let server = answering("200 OK", &claims(60));
    let asker = asker(&server);
    let credential = Credential {
        authorization: Some(HeaderValue::from_bytes(b"Token abc=\"\xe9\", x").unwrap()),
        cookie: Some(HeaderValue::from_static("_app=a%20b;  theme=dark;;")),
    };
    let claims = ask(&asker, &credential, &["room:1", "cart:42", "room:1"])
        .await
        .unwrap();
    assert_eq!(claims.subject().as_deref(), Some("42"));
    assert!(claims.lists("room:7") && claims.lists("cart:42") && !claims.lists("cart:4"));
    let seen = server.seen();
    let [request] = &seen[..] else { panic!("{seen:?}") };
    assert!(
        request.head.starts_with("POST /path?query=1 HTTP/1.1\r\n"),
        "{}",
        request.head
    );
    assert_eq!(request.header("cookie"), Some("_app=a%20b;  theme=dark;;"));
    assert_eq!(request.header("authorization"), Some("Token abc=\"\u{fffd}\", x"));
    assert_eq!(request.body, r#"{"channels":["cart:42","room:1"]}"#);
    let mut fields: Vec<String> = request
        .head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.to_lowercase())
        .collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "cookie",
            "host"
        ]
    );
}

#[tokio::test]
async fn an_answer_counts_for_one_credential_and_one_set_of_channels() {
    let server = answering("200 OK", &claims(60));
    let asker = asker(&server);
    let asked = |credential: Credential, names: &'static [&'static str]| {
        let asker = asker.clone();
        async move { ask(&asker, &credential, names).await.map(|_| ()) }
    };
    for names in [&["a", "b"][..], &["b", "a"], &["a", "b", "a"]] {
        asked(cookie("s=1"), names).await.unwrap();
    }
    assert_eq!(server.seen().len(), 1);
    // Each of these is another question, also where the bytes would run together.
    for (count, (credential, names)) in [
        (cookie("s=2"), &["a", "b"][..]),
        (cookie("s=1"), &["a"]),
        (cookie("s=1"), &["ab"]),
        (cookie("s=1a"), &["b"]),
        (cookie("s=1"), &[]),
        (
            Credential {
                authorization: Some(HeaderValue::from_static("s=1")),
                cookie: None,
            },
            &["a", "b"],
        ),
        (
            Credential {
                authorization: Some(HeaderValue::from_static("")),
                cookie: Some(HeaderValue::from_static("s=1")),
            },
            &["a", "b"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        asked(credential, names).await.unwrap();
        assert_eq!(server.seen().len(), 2 + count);
    }
}

#[tokio::test]
async fn an_answer_is_asked_for_again_when_it_is_over() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_, stream| {
        let sub = count.fetch_add(1, Ordering::Relaxed).to_string();
        // Seconds are whole: this is over within two.
        let body = json!({"exp": seconds_from_now(2), "sub": sub}).to_string();
        say(stream, "200 OK", "", &body);
    });
    let asker = asker(&server);
    let began = Instant::now();
    loop {
        let claims = ask(&asker, &cookie("s=1"), &[]).await.unwrap();
        assert!(claims.expires() > SystemTime::now() - Duration::from_millis(500));
        if claims.subject().as_deref() == Some("1") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn the_same_question_at_the_same_time_is_asked_once() {
    for (status, word) in [
        ("200 OK", "ok"),
        ("403 Forbidden", "denied"),
        ("500 Oops", "unavailable"),
    ] {
        let body = claims(60).to_string();
        let gate = Gate::default();
        let opened = gate.clone();
        let server = Server::start(move |_, stream| {
            opened.pass();
            say(stream, status, "", &body);
        });
        let asker = asker(&server);
        let credential = cookie("s=1");
        let names = ["a"];
        let asked = join_all((0..100).map(|_| ask(&asker, &credential, &names)));
        let (answers, ()) = tokio::join!(asked, async { gate.open() });
        for answer in answers {
            assert_eq!(answer.map_or_else(|failure| failure.word(), |_| "ok"), word);
        }
        assert_eq!(server.seen().len(), 1, "{status}");
        // A refusal is for those who waited: who signs in meanwhile is let in.
        let _ = ask(&asker, &credential, &names).await;
        assert_eq!(server.seen().len(), if word == "ok" { 1 } else { 2 }, "{status}");
        assert!(asker.shared().open.is_empty());
    }
}

#[tokio::test]
async fn whoever_is_not_known_is_refused() {
    for (status, headers) in [
        ("401 Unauthorized", "www-authenticate: Bearer\r\n"),
        ("403 Forbidden", ""),
        // Rails, to its login page.
        ("302 Found", "location: http://127.0.0.1:1/login\r\n"),
        ("303 See Other", "location: /login\r\n"),
    ] {
        let server = Server::saying(status, headers, claims(60).to_string());
        let asker = asker(&server);
        assert_eq!(
            ask(&asker, &cookie("s=1"), &[]).await.unwrap_err(),
            Failure::Denied,
            "{status}"
        );
        assert_eq!(server.seen().len(), 1);
    }
    let server = answering("200 OK", &claims(60));
    let asker = asker(&server);
    assert_eq!(
        ask(&asker, &Credential::default(), &[]).await.unwrap_err(),
        Failure::Missing
    );
    assert_eq!(server.seen().len(), 0);
}

/// An app that insists on TLS redirects every question: that is for the operator to mend, and no answer about anybody.
#[tokio::test]
async fn an_app_that_insists_on_tls_has_not_answered() {
    let location = "location: https://app.example.com/path?query=1\r\n";
    let server = Server::saying("301 Moved Permanently", location, "");
    assert_eq!(ask(&asker(&server), &cookie("s=1"), &[]).await.unwrap_err(), LATE);
    let login = "location: https://app.example.com/login\r\n";
    let server = Server::saying("302 Found", login, "");
    assert_eq!(
        ask(&asker(&server), &cookie("s=1"), &[]).await.unwrap_err(),
        Failure::Denied
    );
}

#[tokio::test]
async fn nothing_opens_on_an_error() {
    let now = |seconds| seconds_from_now(seconds);
    for (status, body) in [
        ("200 OK", String::new()),
        ("200 OK", "ok".into()),
        ("200 OK", "true".into()),
        ("200 OK", "[]".into()),
        ("200 OK", "<html>sign in</html>".into()),
        ("200 OK", "{}".into()),
        ("200 OK", json!({"sub": "42"}).to_string()),
        ("200 OK", json!({"exp": null}).to_string()),
        ("200 OK", json!({"exp": now(60).to_string()}).to_string()),
        ("200 OK", json!({"exp": now(-1)}).to_string()),
        // In milliseconds, as JavaScript has them.
        ("200 OK", json!({"exp": now(60) * 1_000}).to_string()),
        ("200 OK", json!({"exp": now(60), "channels": "a"}).to_string()),
        ("200 OK", format!(r#"{{"exp":{0},"exp":{0}}}"#, now(60))),
        (
            "200 OK",
            json!({"exp": now(60), "x": "y".repeat(MAX_ANSWER)}).to_string(),
        ),
        // Small as a text, and not once it is read.
        (
            "200 OK",
            json!({"exp": now(60), "x": vec![json!({"a": 1}); 5_000]}).to_string(),
        ),
        ("201 Created", claims(60).to_string()),
        ("204 No Content", String::new()),
        ("404 Not Found", claims(60).to_string()),
        ("429 Too Many Requests", String::new()),
        ("500 Internal Server Error", claims(60).to_string()),
    ] {
        let shown: String = body.chars().take(80).collect();
        let server = Server::saying(status, "", body);
        let failure = ask(&asker(&server), &cookie("s=1"), &[]).await.unwrap_err();
        assert_eq!(failure, LATE, "{status} {shown}");
    }
    // Nobody there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = Url::parse(&format!("http://{gone}/")).unwrap();
    let asker = Asker::new(Options { url }, Client::new(), Arc::default(), Handle::current());
    assert_eq!(ask(&asker, &cookie("s=1"), &[]).await.unwrap_err(), LATE);
}

#[test]
fn a_question_holds_until_its_own_runtime_answers_on_another_thread() {
    let server = answering("200 OK", &claims(60));
    let main = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let options = Options { url: server.url() };
    let asker = Asker::new(options, Client::new(), Arc::default(), main.handle().clone());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let asker = asker.clone();
            thread::spawn(move || {
                let own = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                own.block_on(ask(&asker, &cookie("s=1"), &[])).unwrap()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap().subject().as_deref(), Some("42"));
    }
    assert_eq!(server.seen().len(), 1);
    // When nobody asks any more, as while the process ends, nobody waits for long and nothing opens.
    drop(main);
    let own = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    assert_eq!(own.block_on(ask(&asker, &cookie("s=2"), &[])).unwrap_err(), LATE);
}

#[test]
fn nothing_of_a_credential_is_shown() {
    assert_eq!(
        format!("{:?}", cookie("s=1")),
        "Credential { authorization: false, cookie: true }"
    );
}
