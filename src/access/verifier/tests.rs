//! Who waits, for keys or for the app.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::*;
use crate::access::testing::{Server, until_gone};
use crate::access::waiting::{MAX_WAITING, NO_PLACE};

/// Whoever joins a question holds its names as long as who began it.
#[tokio::test]
async fn who_waits_is_bounded_whatever_it_waits_for() {
    let server = Server::start(|_, stream| until_gone(stream, Duration::from_secs(60)));
    let keys = Keys::Fetched {
        url: server.url(),
        algorithm: None,
    };
    let options = Options {
        jwt: vec![jwt::Options {
            keys,
            issuer: None,
            audience: None,
        }],
        ask: Some(ask::Options { url: server.url() }),
        ..Options::default()
    };
    let verifier = Verifier::new(options, Arc::default(), Handle::current());
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = URL_SAFE_NO_PAD.encode([7; 64]);
    let token = format!("{}.{}.{signature}", encode(json!({"alg": "EdDSA"})), encode(json!({})));
    let credential = Credential {
        cookie: Some(HeaderValue::from_static("s=1")),
        ..Credential::default()
    };
    let for_keys = || Box::pin(verifier.token(&token, SystemTime::now(), None, Deadline::from_now()));
    let for_the_app = || Box::pin(verifier.ask(&credential, &["a"], None, Deadline::from_now()));
    let (mut keyless, mut askers) = (Vec::new(), Vec::new());
    for _ in 0..MAX_WAITING / 2 {
        keyless.push(for_keys());
        assert!(keyless.last_mut().unwrap().now_or_never().is_none());
        askers.push(for_the_app());
        assert!(askers.last_mut().unwrap().now_or_never().is_none());
    }
    // At once, and each has a place again when another has gone.
    assert_eq!(for_keys().now_or_never().unwrap().unwrap_err(), NO_PLACE);
    assert_eq!(for_the_app().now_or_never().unwrap().unwrap_err(), NO_PLACE);
    keyless.pop();
    assert!(for_the_app().now_or_never().is_none());
    askers.pop();
    assert!(for_keys().now_or_never().is_none());
}
