//! Sets of keys, as they are published and as they should not be, and servers that give them.

mod broken;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use tokio::runtime::Handle;

use super::*;
use crate::access::failure::Failure;
use crate::access::jwt::{self, Keys};
use crate::access::testing::{Gate, Server, say};
use crate::access::{Claims, Deadline, Options, Verifier};

/// As the real one, in a hundredth of the time, but for what a fetch may take on a busy machine.
const PACE: Pace = Pace {
    max_age: Duration::from_secs(6),
    min_age: Duration::from_millis(600),
    cool_down: Duration::from_millis(300),
    patience: Duration::from_secs(1),
    first_retry: Duration::from_millis(10),
    last_retry: Duration::from_millis(600),
};

/// Somebody who signs.
struct Signer {
    kid: &'static str,
    pair: Ed25519KeyPair,
}

impl Signer {
    fn new(kid: &'static str) -> Signer {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer {
            kid,
            pair: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(),
        }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "use": "sig"})
    }

    fn token(&self) -> String {
        self.token_of(json!({"alg": "EdDSA", "kid": self.kid}))
    }

    fn token_of(&self, header: Value) -> String {
        let exp = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            + 60;
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(json!({"exp": exp, "sub": self.kid})));
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn verifier(servers: &[&Server], algorithm: Option<Algorithm>, pace: Pace) -> Verifier {
    let jwt = servers.iter().map(|server| jwt::Options {
        keys: Keys::Fetched {
            url: server.url(),
            algorithm,
        },
        issuer: None,
        audience: None,
    });
    let options = Options {
        jwt: jwt.collect(),
        ..Options::default()
    };
    Verifier::at_pace(options, pace, Arc::default(), Handle::current())
}

async fn judge(verifier: &Verifier, token: &str) -> Result<Claims, Failure> {
    verifier
        .token(token, SystemTime::now(), None, Deadline::from_now())
        .await
}

/// Judges again until it counts.
async fn comes_to_count(verifier: &Verifier, token: &str) {
    let began = Instant::now();
    while let Err(failure) = judge(verifier, token).await {
        assert!(began.elapsed() < Duration::from_secs(20), "{failure}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn read(jwk: Value, only: Option<Algorithm>) -> Option<Algorithm> {
    let set = Set::parse(set(&[jwk]).as_bytes(), only).unwrap();
    set.fitting(None).next().map(Key::algorithm)
}

#[test]
fn each_key_is_for_one_algorithm() {
    let n = URL_SAFE_NO_PAD.encode([0xc5; 256]);
    let rsa = |more: Value| {
        let mut jwk = json!({"kty": "RSA", "n": n, "e": "AQAB"});
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    };
    let point = URL_SAFE_NO_PAD.encode([7; 32]);
    let ec = json!({"kty": "EC", "crv": "P-256", "x": point, "y": point});
    let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": point, "alg": "Ed25519"});
    for (jwk, only, expected) in [
        (rsa(json!({})), None, Some(Algorithm::Rs256)),
        (rsa(json!({})), Some(Algorithm::Ps256), Some(Algorithm::Ps256)),
        (rsa(json!({"alg": "PS256"})), None, Some(Algorithm::Ps256)),
        (rsa(json!({"alg": "PS256"})), Some(Algorithm::Rs256), None),
        (
            rsa(json!({"alg": "RS256", "use": "sig", "key_ops": ["verify"]})),
            None,
            Some(Algorithm::Rs256),
        ),
        (rsa(json!({"use": "enc"})), None, None),
        (rsa(json!({"key_ops": ["encrypt"]})), None, None),
        (rsa(json!({"alg": "RSA-OAEP"})), None, None),
        (rsa(json!({"alg": "ES256"})), None, None),
        // RFC 8725 §2.1, by way of the key set.
        (rsa(json!({"alg": "HS256"})), None, None),
        (rsa(json!({"alg": "none"})), None, None),
        (rsa(json!({"alg": 1})), None, None),
        (rsa(json!({"d": "AQAB"})), None, None),
        (rsa(json!({"n": "AQAB"})), None, None),
        (rsa(json!({"e": "="})), None, None),
        (ec.clone(), None, Some(Algorithm::Es256)),
        (ec.clone(), Some(Algorithm::EdDsa), None),
        (ed.clone(), None, Some(Algorithm::EdDsa)),
        (json!({"kty": "EC", "crv": "P-384", "x": point, "y": point}), None, None),
        (json!({"kty": "EC", "crv": "P-256", "x": point}), None, None),
        (
            json!({"kty": "EC", "crv": "P-256", "x": "AQAB", "y": point}),
            None,
            None,
        ),
        (json!({"kty": "OKP", "crv": "Ed448", "x": point}), None, None),
        (json!({"kty": "oct", "k": point, "alg": "HS256"}), None, None),
        (json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": point}), None, None),
        (json!({"kty": 7}), None, None),
        (json!({}), None, None),
    ] {
        assert_eq!(read(jwk.clone(), only), expected, "{jwk} {only:?}");
    }
}

#[test]
fn what_is_no_set_is_refused() {
    let many = set(&vec![json!({}); MAX_KEYS + 1]);
    for (text, why) in [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("<html>", "not a JSON object"),
        (r#"{"keys":[],"keys":[]}"#, "not a JSON object"),
        (r#"{"jwks_uri":"https://a/b"}"#, "no list `keys`"),
        (r#"{"keys":{}}"#, "no list `keys`"),
        (r#"{"keys":[1]}"#, "not a JSON object"),
        (&many, "more than 100 keys"),
    ] {
        assert!(Set::parse(text.as_bytes(), None).unwrap_err().contains(why), "{text}");
    }
    assert!(Set::parse(br#"{"keys":[]}"#, None).unwrap().is_empty());
    assert_eq!(
        Set::parse(set(&vec![json!({}); MAX_KEYS]).as_bytes(), None)
            .unwrap()
            .passed_over
            .len(),
        MAX_KEYS
    );
}

#[tokio::test]
async fn a_token_waits_for_the_first_set_and_then_for_nothing() {
    let signer = Signer::new("a");
    let jwks = set(&[json!({"kty": "oct", "k": "AA"}), signer.jwk()]);
    let gate = Gate::default();
    let opened = gate.clone();
    let server = Server::start(move |_, stream| {
        opened.pass();
        say(stream, "200 OK", "", &jwks);
    });
    let verifier = verifier(&[&server], None, PACE);
    let token = signer.token();
    let (claims, ()) = tokio::join!(judge(&verifier, &token), async { gate.open() });
    let claims = claims.unwrap();
    assert_eq!(claims.subject().as_deref(), Some("a"));
    assert_eq!(server.seen().len(), 1);
    // The same key under another name, or under none.
    assert!(
        judge(&verifier, &signer.token_of(json!({"alg": "Ed25519"})))
            .await
            .is_ok()
    );
    let head = server.seen()[0].head.clone();
    assert!(head.starts_with("GET /path?query=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!(
        server.seen()[0].header("host"),
        Some(server.address().to_string().as_str())
    );
    // With keys of one's own alone nothing is waited for: ready when it is first looked at.
    let own = Verifier::new(Options::default(), Arc::default(), Handle::current());
    let token = signer.token();
    let judged = futures_util::FutureExt::now_or_never(judge(&own, &token));
    assert_eq!(judged.unwrap().unwrap_err(), Failure::Algorithm);
    // Nor is it for a token that no fetched key can be for.
    let symmetric = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"x"}"#));
    let judged = futures_util::FutureExt::now_or_never(judge(&verifier, &symmetric));
    assert_eq!(judged.unwrap().unwrap_err(), Failure::Algorithm);
}

#[tokio::test]
async fn unknown_kids_bring_about_one_fetch_in_each_cool_down() {
    let (known, stranger) = (Signer::new("a"), Signer::new("b"));
    let server = Server::saying("200 OK", "", set(&[known.jwk()]));
    let pace = Pace {
        cool_down: Duration::from_secs(2),
        ..PACE
    };
    let verifier = verifier(&[&server], None, pace.clone());
    comes_to_count(&verifier, &known.token()).await;
    let began = Instant::now();
    let mut judged = 0;
    // A thousand made-up names, and on until a cool-down has passed, many at once.
    while judged < 1_000 || began.elapsed() < pace.cool_down + Duration::from_millis(200) {
        let flood = (0..50).map(|_| {
            judged += 1;
            let token = stranger.token_of(json!({"alg": "EdDSA", "kid": format!("../../{judged}")}));
            let verifier = verifier.clone();
            async move { judge(&verifier, &token).await.unwrap_err() }
        });
        for failure in futures_util::future::join_all(flood).await {
            assert_eq!(failure, Failure::Signature);
        }
    }
    let allowed = 1 + began.elapsed().as_secs_f64() as usize / 2 + 1;
    let fetched = server.seen().len();
    assert!(
        (2..=allowed).contains(&fetched),
        "{fetched} fetches for {judged} names in {:?}",
        began.elapsed()
    );
    assert!(judge(&verifier, &known.token()).await.is_ok());
    // A known name with another's signature brings about none.
    let forged = stranger.token_of(json!({"alg": "EdDSA", "kid": "a"}));
    tokio::time::sleep(pace.cool_down).await;
    assert_eq!(judge(&verifier, &forged).await.unwrap_err(), Failure::Signature);
    assert_eq!(server.seen().len(), fetched);
}

#[tokio::test]
async fn a_new_key_counts_at_once_and_an_old_one_until_it_is_gone() {
    let (old, new) = (Signer::new("2025"), Signer::new("2026"));
    let body = Arc::new(Mutex::new(set(&[old.jwk()])));
    let said = body.clone();
    let server = Server::start(move |_, stream| say(stream, "200 OK", "", &said.lock().unwrap()));
    let verifier = verifier(&[&server], None, PACE);
    assert!(judge(&verifier, &old.token()).await.is_ok());
    *body.lock().unwrap() = set(&[old.jwk(), new.jwk()]);
    tokio::time::sleep(PACE.cool_down).await;
    assert!(judge(&verifier, &new.token()).await.is_ok());
    assert!(judge(&verifier, &old.token()).await.is_ok());
    assert_eq!(server.seen().len(), 2);
    *body.lock().unwrap() = set(&[new.jwk()]);
    let third = Signer::new("x");
    tokio::time::sleep(PACE.cool_down).await;
    assert_eq!(judge(&verifier, &third.token()).await.unwrap_err(), Failure::Signature);
    assert_eq!(judge(&verifier, &old.token()).await.unwrap_err(), Failure::Signature);
}

#[tokio::test]
async fn a_set_is_fetched_again_when_it_is_old() {
    let (old, new) = (Signer::new("a"), Signer::new("a"));
    let (keys, count) = ([set(&[old.jwk()]), set(&[new.jwk()])], AtomicUsize::new(0));
    let server = Server::start(move |_, stream| {
        let at = count.fetch_add(1, Ordering::Relaxed).min(1);
        say(stream, "200 OK", "Cache-Control: public, max-age=0\r\n", &keys[at]);
    });
    let verifier = verifier(&[&server], None, PACE);
    assert!(judge(&verifier, &old.token()).await.is_ok());
    let began = Instant::now();
    comes_to_count(&verifier, &new.token()).await;
    // As early as an answer may ask for, and no earlier.
    assert!(began.elapsed() > PACE.min_age / 2, "{:?}", began.elapsed());
    assert!(began.elapsed() < PACE.max_age, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_empty_set_means_that_nobodys_signature_counts() {
    let signer = Signer::new("a");
    let (jwks, count) = (set(&[signer.jwk()]), AtomicUsize::new(0));
    let server = Server::start(move |_, stream| {
        let body = if count.fetch_add(1, Ordering::Relaxed) == 0 {
            &jwks
        } else {
            r#"{"keys":[]}"#
        };
        say(stream, "200 OK", "Cache-Control: max-age=\"1\"\r\n", body);
    });
    let verifier = verifier(&[&server], None, PACE);
    assert!(judge(&verifier, &signer.token()).await.is_ok());
    let began = Instant::now();
    while judge(&verifier, &signer.token()).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "\\PC{0,200}", name in "(kty|crv|x|y|n|e|alg|use|key_ops|kid)", value in "\\PC{0,50}") {
        let _ = Set::parse(text.as_bytes(), None);
        for kind in ["RSA", "EC", "OKP"] {
            let mut jwk = json!({"kty": kind, "crv": "P-256", "x": "AA", "y": "AA", "n": "AA", "e": "AA"});
            jwk[name.as_str()] = json!(value);
            prop_assert!(Set::parse(set(&[jwk]).as_bytes(), None).is_ok());
        }
    }
}
