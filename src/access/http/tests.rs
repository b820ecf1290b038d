//! Which URLs are taken, and whom one speaks to by them.

use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

#[test]
fn urls_are_understood() {
    for (text, shown, authority) in [
        ("https://app.example.com", "https://app.example.com/", "app.example.com"),
        (
            "HTTPS://App.Example.com:443/a?b=c",
            "https://App.Example.com/a",
            "App.Example.com",
        ),
        ("http://127.0.0.1:3000/a", "http://127.0.0.1:3000/a", "127.0.0.1:3000"),
        ("http://[::1]/a", "http://[::1]/a", "[::1]"),
        ("http://[fd00::1]:80/", "http://[fd00::1]/", "[fd00::1]"),
        ("http://app/x", "http://app/x", "app"),
        ("http://localhost:1", "http://localhost:1/", "localhost:1"),
        ("http://app.internal", "http://app.internal/", "app.internal"),
        (
            "http://app.ns.svc.cluster.local./",
            "http://app.ns.svc.cluster.local./",
            "app.ns.svc.cluster.local.",
        ),
        ("http://100.64.0.1/", "http://100.64.0.1/", "100.64.0.1"),
        (
            "http://[::ffff:10.0.0.1]/",
            "http://[::ffff:10.0.0.1]/",
            "[::ffff:10.0.0.1]",
        ),
    ] {
        let url = Url::parse(text).unwrap();
        assert_eq!((url.to_string().as_str(), url.authority().as_str()), (shown, authority));
    }
}

#[test]
fn http_is_for_private_places_and_urls_are_whole() {
    for text in [
        "http://example.com/",
        "http://8.8.8.8/",
        "http://[2001:db8::1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://172.32.0.1/",
        "http://100.128.0.1/",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "ftp://example.com/",
        "unix:/run/app.sock",
        "/path",
        "app.example.com",
        "https://",
        "https:///path",
        "https://me:secret@example.com/",
        "http://127.0.0.1@example.com/",
        "https://exa mple.com/",
        "https://example.com/\r\nx: y",
        "",
    ] {
        assert!(Url::parse(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn http_does_not_leave_the_private_network_by_a_name() {
    // Public by its address, whatever the config was told of it.
    let url = Url {
        host: "192.0.2.1".into(),
        ..Url::parse("http://127.0.0.1:9/").unwrap()
    };
    let request = Request::get("/").body(Full::default()).unwrap();
    let sent = Client::new().send(&url, request, 10).await;
    assert!(matches!(sent, Err(ClientError::Public(_))), "{:?}", sent.err());
}

/// A server of TLS whose certificate is for `name`; answers one request on each connection.
async fn tls_server(name: &str) -> (u16, RootCertStore) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::runtime::Handle::current().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            let _ = stream.shutdown().await;
        }
    });
    (port, roots)
}

#[tokio::test]
async fn https_asks_only_whom_somebody_trusted_vouches_for() {
    let send = |client: Client, port: u16| async move {
        let url = Url::parse(&format!("https://localhost:{port}/")).unwrap();
        let request = Request::get("/").body(Full::default()).unwrap();
        let sent = tokio::time::timeout(Duration::from_secs(20), client.send(&url, request, 10)).await;
        sent.unwrap().map(|(_, body)| body)
    };
    let (port, roots) = tls_server("localhost").await;
    assert_eq!(send(Client::trusting(roots), port).await.unwrap(), "ok");
    assert!(matches!(
        send(Client::new(), port).await,
        Err(ClientError::Tls(_) | ClientError::NoRoots)
    ));
    let nobody = Client::trusting(RootCertStore::empty());
    assert!(matches!(send(nobody, port).await, Err(ClientError::NoRoots)));
    let (port, roots) = tls_server("elsewhere").await;
    assert!(matches!(
        send(Client::trusting(roots), port).await,
        Err(ClientError::Tls(_))
    ));
}

/// The port of a server that answers with these bytes, whatever it is asked.
async fn plain_server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::runtime::Handle::current().spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(answer).await;
        }
    });
    port
}

#[tokio::test]
async fn what_answers_and_is_no_web_server_is_told_once() {
    // None of the authorities needs to be known where no certificate is shown.
    let (_, roots) = tls_server("localhost").await;
    let told = async |scheme: &str, answer| {
        let port = plain_server(answer).await;
        let url = Url::parse(&format!("{scheme}://127.0.0.1:{port}/")).unwrap();
        let request = Request::get("/").body(Full::default()).unwrap();
        let sent = Client::trusting(roots.clone()).send(&url, request, 10).await;
        format!("{:#}", anyhow::Error::new(sent.unwrap_err()))
    };
    let tls = told("https", b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(
        tls.starts_with("it does not speak TLS") && tls.contains("http://"),
        "{tls}"
    );
    let closed = told("http", b"").await;
    assert_eq!(closed, "HTTP failed: connection closed before message completed");
}
