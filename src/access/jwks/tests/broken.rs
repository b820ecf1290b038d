//! Servers of keys that are broken, slow or hostile.

use std::io::Write;
use std::net::TcpStream;

use super::*;
use crate::access::testing::until_gone;

#[tokio::test]
async fn the_last_good_set_is_kept_while_the_server_is_broken() {
    let signer = Signer::new("a");
    let jwks = set(&[signer.jwk()]);
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_, stream| {
        let cache = "Cache-Control: no-cache\r\n";
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => say(stream, "200 OK", cache, &jwks),
            1 => say(stream, "500 Internal Server Error", "", "oops"),
            2 => say(stream, "200 OK", cache, "<html>we are busy</html>"),
            3 => say(stream, "302 Found", "Location: http://127.0.0.1:1/\r\n", ""),
            _ => {}
        }
    });
    let verifier = verifier(&[&server], None, PACE);
    assert!(judge(&verifier, &signer.token()).await.is_ok());
    let began = Instant::now();
    while server.seen().len() < 5 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "only {} fetches",
            server.seen().len()
        );
        assert!(judge(&verifier, &signer.token()).await.is_ok());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(judge(&verifier, &signer.token()).await.is_ok());
    assert!(
        server
            .seen()
            .iter()
            .all(|request| request.head.starts_with("GET /path?query=1 "))
    );
}

/// Writes on and on, at most as fast as it is read, until the other side has enough; returns how much that was.
fn forever(stream: &mut TcpStream, chunk: &[u8]) -> usize {
    let mut written = 0;
    while stream.write_all(chunk).is_ok() {
        written += chunk.len();
        assert!(written < 64 * 1024 * 1024, "nobody stops it");
    }
    written
}

#[tokio::test]
async fn a_hostile_server_costs_no_more_than_a_broken_one() {
    type Hostile = fn(&mut TcpStream);
    let behaviours: [(&str, Hostile); 6] = [
        ("a body that never ends", |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[");
            assert!(forever(stream, &[b' '; 4_096]) < 16 * 1024 * 1024);
        }),
        ("a head that never ends", |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            assert!(
                forever(
                    stream,
                    b"x-a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"
                ) < 16 * 1024 * 1024
            );
        }),
        ("a length that is a lie", |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{}");
            until_gone(stream, Duration::from_millis(100));
        }),
        ("silence", |stream| until_gone(stream, Duration::from_secs(60))),
        ("a byte now and then", |stream| {
            while stream.write_all(b"H").is_ok() {
                until_gone(stream, Duration::from_millis(50));
            }
        }),
        ("something else than HTTP", |stream| {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }),
    ];
    let token = Signer::new("a").token();
    for (name, behaviour) in behaviours {
        let server = Server::start(move |_, stream| behaviour(stream));
        let verifier = verifier(&[&server], None, PACE);
        let began = Instant::now();
        let failure = judge(&verifier, &token).await.unwrap_err();
        assert_eq!(failure.word(), "unavailable", "{name}");
        assert!(
            began.elapsed() < Duration::from_millis(2_500),
            "{name}: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn a_client_is_not_kept_waiting_for_a_slow_fetch() {
    let server = Server::start(|_, stream| until_gone(stream, Duration::from_secs(60)));
    let pace = Pace {
        patience: Duration::from_secs(30),
        ..PACE
    };
    // Two, and the waiting is the same.
    let verifier = verifier(&[&server, &server], None, pace);
    let began = Instant::now();
    let failure = judge(&verifier, &Signer::new("a").token()).await.unwrap_err();
    assert_eq!(failure.word(), "unavailable");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(1_900) && took < Duration::from_secs(6),
        "{took:?}"
    );
}

#[tokio::test]
async fn of_several_sets_a_broken_one_does_not_hide_another() {
    let (one, two, three) = (Signer::new("a"), Signer::new("b"), Signer::new("c"));
    let broken = Server::saying("500 Internal Server Error", "", "");
    let first = Server::saying("200 OK", "", set(&[one.jwk()]));
    let second = Server::saying("200 OK", "", set(&[two.jwk()]));
    let verifier = verifier(&[&broken, &first, &second], None, PACE);
    comes_to_count(&verifier, &one.token()).await;
    comes_to_count(&verifier, &two.token()).await;
    // It may be that of the broken one.
    let failure = judge(&verifier, &three.token()).await.unwrap_err();
    assert_eq!(failure.word(), "unavailable");
}

/// Tokens of one issuer count whatever becomes of the others, and bring about no fetch of theirs.
#[tokio::test]
async fn of_several_sets_a_silent_one_holds_up_no_other() {
    let (one, two) = (Signer::new("a"), Signer::new("b"));
    let silent = Server::start(|_, stream| until_gone(stream, Duration::from_secs(60)));
    let first = Server::saying("200 OK", "", set(&[one.jwk()]));
    let second = Server::saying("200 OK", "", set(&[two.jwk()]));
    let verifier = verifier(&[&silent, &first, &second], None, PACE);
    comes_to_count(&verifier, &one.token()).await;
    comes_to_count(&verifier, &two.token()).await;
    let fetched = first.seen().len();
    for _ in 0..100 {
        let began = std::time::Instant::now();
        assert!(judge(&verifier, &two.token()).await.is_ok());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    assert_eq!(first.seen().len(), fetched);
}
