//! Attacks on tokens, each of which one library or another once let through.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use ring::hmac;
use serde_json::json;

use super::*;
use crate::access::key::tests::{PS256, RFC_HS256, RFC_SECRET, RSA_PEM};

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn options(key: Key) -> Options {
    Options {
        keys: Keys::One(key),
        issuer: None,
        audience: None,
    }
}

fn hs256() -> Key {
    Key::secret(Algorithm::Hs256, SECRET).unwrap()
}

fn mint(payload: Value) -> String {
    let Value::Object(claims) = payload else {
        panic!("a payload is an object")
    };
    hs256().mint(&claims).unwrap()
}

/// A token of any header and payload, signed as HS256 is with any secret.
fn sign(header: &str, payload: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn judge(token: &str) -> Result<Claims, Failure> {
    verify(&[options(hs256())], token, now())
}

fn word(token: &str) -> &'static str {
    judge(token).map_or_else(|failure| failure.word(), |_| "ok")
}

const HEADER: &str = r#"{"alg":"HS256"}"#;

fn payload() -> String {
    json!({"exp": NOW + 60, "sub": "42"}).to_string()
}

#[test]
fn a_token_of_ones_own_counts() {
    let claims = judge(&mint(json!({"exp": NOW + 60, "sub": "42", "channels": ["cart:42"]}))).unwrap();
    assert_eq!(claims.subject().as_deref(), Some("42"));
    assert!(claims.lists("cart:42"));
    for algorithm in [Algorithm::Hs384, Algorithm::Hs512] {
        let key = Key::secret(algorithm, &SECRET.repeat(2)).unwrap();
        let Value::Object(claims) = json!({"exp": NOW + 60}) else {
            panic!()
        };
        let token = key.mint(&claims).unwrap();
        assert!(verify(&[options(key)], &token, now()).is_ok());
        assert_eq!(word(&token), "algorithm");
    }
}

#[test]
fn the_token_of_rfc_7515_counts_in_its_time() {
    let key = Key::secret(Algorithm::Hs256, &URL_SAFE_NO_PAD.decode(RFC_SECRET).unwrap()).unwrap();
    let options = [options(key)];
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let claims = verify(&options, RFC_HS256, at(1_300_819_379)).unwrap();
    assert!(claims.holds("iss", "joe") && claims.holds("http://example.com/is_root", "true"));
    let failure = verify(&options, RFC_HS256, at(1_300_819_380)).unwrap_err();
    assert_eq!(failure, Failure::Expired(Duration::ZERO));
}

#[test]
fn the_header_cannot_widen_what_a_key_is_for() {
    let rsa = Key::public(Algorithm::Rs256, RSA_PEM.as_bytes()).unwrap();
    let with_rsa = [options(rsa)];
    // RFC 8725 §2.1: everybody has the public key, and signs with it as if it were a secret.
    for secret in [RSA_PEM.as_bytes(), RSA_PEM.trim().as_bytes()] {
        let token = sign(HEADER, &payload(), secret);
        assert_eq!(verify(&with_rsa, &token, now()).unwrap_err(), Failure::Algorithm);
        assert_eq!(word(&token), "signature");
    }
    // The same key, but to be used otherwise.
    assert_eq!(verify(&with_rsa, PS256, now()).unwrap_err(), Failure::Algorithm);
    let ps256 = Key::public(Algorithm::Ps256, RSA_PEM.as_bytes()).unwrap();
    assert!(verify(&[options(ps256)], PS256, now()).is_ok());

    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS257", "hs256", "HS256 ", "RS512", "ES384", "ES256K",
    ] {
        let header = json!({ "alg": alg }).to_string();
        let token = sign(&header, &payload(), SECRET);
        assert_eq!(word(&token), "algorithm", "{alg}");
        // Neither with nor without a signature.
        let bare = &token[..=token.rfind('.').unwrap()];
        assert_eq!(word(bare), "algorithm", "{alg}");
    }
    for header in [
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":1}"#,
        r#"{"ALG":"HS256"}"#,
    ] {
        assert_eq!(word(&sign(header, &payload(), SECRET)), "malformed", "{header}");
    }
}

#[test]
fn a_key_that_the_token_brings_is_not_looked_at() {
    let own = b"a secret that the attacker has chosen for himself";
    let key = URL_SAFE_NO_PAD.encode(own);
    for header in [
        json!({"alg": "HS256", "jwk": {"kty": "oct", "k": key, "alg": "HS256"}}),
        json!({"alg": "HS256", "jku": "http://127.0.0.1:1/jwks.json", "kid": "1"}),
        json!({"alg": "HS256", "x5u": "http://127.0.0.1:1/chain.pem"}),
        json!({"alg": "HS256", "x5c": [key]}),
        json!({"alg": "HS256", "kid": "../../../../dev/null"}),
        json!({"alg": "HS256", "kid": "' UNION SELECT 'secret"}),
        json!({"alg": "HS256", "kid": "a\u{0}b\r\nc"}),
    ] {
        let header = header.to_string();
        for secret in [&own[..], b"", &[0; 32]] {
            assert_eq!(word(&sign(&header, &payload(), secret)), "signature", "{header}");
        }
        // They do no harm to a token that is in order: whoever signed it may write what he likes.
        assert_eq!(word(&sign(&header, &payload(), SECRET)), "ok", "{header}");
    }
    assert_eq!(
        word(&sign(r#"{"alg":"HS256","kid":7}"#, &payload(), SECRET)),
        "malformed"
    );
}

#[test]
fn what_must_be_understood_is_refused() {
    for header in [
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","b64":"false"}"#,
        // Twice: which one counts depends on who reads it.
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"HS256"}"#,
        r#"["HS256"]"#,
        r#"{"alg":"HS256"} {}"#,
        "HS256",
        "",
    ] {
        assert_eq!(word(&sign(header, &payload(), SECRET)), "malformed", "{header}");
    }
    assert_eq!(
        word(&sign(
            r#"{"alg":"HS256","b64":true,"typ":"at+jwt","cty":"JWT"}"#,
            &payload(),
            SECRET
        )),
        "ok"
    );
}

#[test]
fn payloads_are_objects_without_repetition() {
    let exp = NOW + 60;
    for (payload, expected) in [
        (format!(r#"{{"exp":{exp}}}"#), "ok"),
        (format!(r#"{{"exp":1,"exp":{exp}}}"#), "malformed"),
        (format!(r#"{{"exp":{exp},"sub":"a","sub":"b"}}"#), "malformed"),
        (format!(r#"{{"exp":"{exp}"}}"#), "malformed"),
        (format!("[{exp}]"), "malformed"),
        ("null".into(), "malformed"),
        (String::new(), "malformed"),
        ("{}".into(), "no-expiry"),
        (r#"{"exp":null}"#.into(), "no-expiry"),
        (format!(r#"{{"exp":{}}}"#, NOW - 5), "expired"),
        (format!(r#"{{"exp":{exp},"nbf":{}}}"#, NOW + 30), "not-yet-valid"),
        (
            format!(r#"{{"exp":{exp},"channels":{}}}"#, "[".repeat(3_000)),
            "malformed",
        ),
        // A token within a token.
        (sign(HEADER, &payload(), SECRET), "malformed"),
    ] {
        assert_eq!(word(&sign(HEADER, &payload, SECRET)), expected, "{payload}");
    }
    // Nothing of it is said before it is known who signed it.
    assert_eq!(word(&sign(HEADER, "{}", b"another")), "signature");
}

#[test]
fn issuer_and_audience_are_checked_where_they_are_configured() {
    let with = |issuer: Option<&str>, audience: Option<&str>, payload: Value| {
        let options = Options {
            keys: Keys::One(hs256()),
            issuer: issuer.map(str::to_owned),
            audience: audience.map(str::to_owned),
        };
        let mut payload = payload;
        payload["exp"] = json!(NOW + 60);
        verify(&[options], &mint(payload), now()).err()
    };
    assert_eq!(with(None, None, json!({"iss": "anybody"})), None);
    assert_eq!(with(Some("me"), None, json!({"iss": "me"})), None);
    for other in [
        json!({}),
        json!({"iss": "Me"}),
        json!({"iss": ["me"]}),
        json!({"iss": null}),
    ] {
        assert_eq!(with(Some("me"), None, other), Some(Failure::Issuer));
    }
    for ours in [json!({"aud": "a"}), json!({"aud": ["b", "a"]})] {
        assert_eq!(with(None, Some("a"), ours.clone()), None);
        assert_eq!(with(None, None, ours), Some(Failure::NoAudience));
    }
    for other in [
        json!({}),
        json!({"aud": "b"}),
        json!({"aud": "ab"}),
        json!({"aud": []}),
        json!({"aud": [["a"]]}),
        json!({"aud": {"a": 1}}),
        json!({"aud": null}),
    ] {
        assert_eq!(with(None, Some("a"), other), Some(Failure::Audience));
    }
    assert_eq!(with(None, None, json!({"aud": null})), None);
    assert_eq!(with(None, None, json!({"aud": []})), Some(Failure::NoAudience));
}

#[test]
fn several_keys_count_side_by_side() {
    let new = Key::secret(Algorithm::Hs256, b"another secret of thirty-two bytes").unwrap();
    let Value::Object(claims) = json!({"exp": NOW + 60, "aud": "b"}) else {
        panic!()
    };
    let (by_old, by_new) = (hs256().mint(&claims).unwrap(), new.mint(&claims).unwrap());
    let for_b = |key: &Key| Options {
        audience: Some("b".into()),
        ..options(key.clone())
    };
    let rsa = Key::public(Algorithm::Rs256, RSA_PEM.as_bytes()).unwrap();
    let both = [options(rsa), for_b(&new), for_b(&hs256())];
    assert!(verify(&both, &by_old, now()).is_ok());
    assert!(verify(&both, &by_new, now()).is_ok());
    // One key for two audiences: the second counts as well.
    let twice = [options(hs256()), for_b(&hs256())];
    assert!(verify(&twice, &by_old, now()).is_ok());
    assert_eq!(verify(&twice[..1], &by_old, now()).unwrap_err(), Failure::NoAudience);
    assert_eq!(verify(&[], &by_old, now()).unwrap_err(), Failure::Algorithm);
    // Of very many keys not all are tried.
    let many: Vec<Options> = std::iter::repeat_n(for_b(&new), MAX_TRIES)
        .chain([for_b(&hs256())])
        .collect();
    assert_eq!(verify(&many, &by_old, now()).unwrap_err(), Failure::Signature);
}

#[test]
fn what_is_not_in_three_parts_is_no_token() {
    let token = mint(json!({"exp": NOW + 60}));
    let long = "a".repeat(MAX_TOKEN - token.len());
    for wrong in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "a.b.c.d.e",
        &format!("{token}."),
        &format!(".{token}"),
        &format!("{token}="),
        &format!(" {token}"),
        &format!("{token}\n"),
        &format!("Bearer {token}"),
        &token.replacen('.', "..", 1),
        &token[..token.rfind('.').unwrap()],
        &format!("{token}{long}a"),
        &"é".repeat(100),
        // The other alphabet of base64, and its padding.
        &token.replacen('e', "+", 1),
        &format!(
            "{}=.{}",
            token.split_once('.').unwrap().0,
            token.split_once('.').unwrap().1
        ),
    ] {
        assert_eq!(word(wrong), "malformed", "{wrong}");
    }
    assert!(judge("a.b.c.d.e").unwrap_err().to_string().contains("JWE"));
    // As long as it may be.
    let room = (MAX_TOKEN - 200) * 3 / 4;
    assert_eq!(word(&mint(json!({"exp": NOW + 60, "x": "y".repeat(room)}))), "ok");
    assert_eq!(
        word(&mint(json!({"exp": NOW + 60, "x": "y".repeat(room + 200)}))),
        "malformed"
    );
}

#[test]
fn every_changed_character_is_noticed() {
    let token = mint(json!({"exp": NOW + 60, "sub": "42"}));
    for at in 0..token.len() {
        for other in [b'A', b'B', b'-', b'.'] {
            let mut bytes = token.clone().into_bytes();
            if bytes[at] == other {
                continue;
            }
            bytes[at] = other;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(judge(&changed).is_err(), "character {at} may be {}", other as char);
        }
        assert!(judge(&token[..at]).is_err(), "{at} characters are enough");
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "\\PC{0,200}", header in "\\PC{0,60}", payload in "\\PC{0,60}") {
        prop_assert!(judge(&text).is_err());
        let _ = judge(&sign(&header, &payload, SECRET));
    }
}
