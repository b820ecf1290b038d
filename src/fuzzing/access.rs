//! Tokens, keys and signed names, whatever is in them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::access::{
    Failure,
    jwks::Set,
    jwt,
    key::{Algorithm, Key},
    signed,
};

const NOW: u64 = 1_800_000_000;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A line with a channel, and claims or a token: what was signed counts until it expires, for nobody else's key and not
/// changed; and whether a channel is listed is known at once, whatever the patterns.
pub fn tokens(data: &[u8]) {
    let Some((channel, text)) = lines(data) else { return };
    let now = now();
    let options = |secret: &[u8]| jwt::Options {
        keys: jwt::Keys::One(Key::secret(Algorithm::Hs256, secret).expect("long enough")),
        issuer: None,
        audience: None,
    };
    let own = [options(SECRET)];
    // Nobody but the key's owner can make one that counts.
    if let Ok(claims) = jwt::verify(&own, text, now) {
        assert!(claims.expires() > now);
    }
    let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(text) else {
        return;
    };
    members.entry("exp").or_insert_with(|| (NOW + 60).into());
    let key = Key::secret(Algorithm::Hs256, SECRET).expect("long enough");
    let token = key.mint(&members).expect("a secret signs");
    let Ok(claims) = jwt::verify(&own, &token, now) else {
        return;
    };
    assert!(claims.expires() > now);
    claims.lists(channel);
    claims.subject();
    for name in claims.plain_names() {
        assert!(claims.lists(name), "{name:?}");
    }
    let later = jwt::verify(&own, &token, claims.expires());
    assert!(matches!(later, Err(Failure::Expired(_))), "{later:?}");
    let other = jwt::verify(&[options(&SECRET[1..])], &token, now);
    assert!(matches!(other, Err(Failure::Signature)), "{other:?}");
    for at in [0, token.len() / 2, token.len() - 1] {
        let mut changed = token.clone().into_bytes();
        // Another sign of the alphabet; the last one may hold bits that count for nothing.
        changed[at] = if changed[at] == b'A' { b'z' } else { b'A' };
        let changed = String::from_utf8(changed).expect("a token is ASCII");
        assert!(jwt::verify(&own, &changed, now).is_err(), "{changed}");
    }
}

/// A key set, or a key in PEM: each is of a kind that fits its algorithm, and verifies nothing that nobody signed.
pub fn keys(data: &[u8]) {
    for only in [None, Some(Algorithm::Es256)] {
        if let Ok(set) = Set::parse(data, only) {
            assert!(set.len() <= 100 && set.fitting(None).count() == set.len());
            for key in set.fitting(Some("kid")) {
                assert!(only.is_none_or(|only| only == key.algorithm()));
                assert!(!key.algorithm().is_symmetric(), "a secret that everybody can fetch");
                assert!(!key.verifies(b"message", &data[..data.len().min(64)]));
            }
        }
    }
    for algorithm in Algorithm::ALL {
        if let Ok(key) = Key::public(algorithm, data) {
            assert!(!algorithm.is_symmetric(), "a public key must never be a secret");
            assert!(!key.verifies(b"message", b"signature"));
        }
    }
}

/// A line with a channel, and a signed name: what was signed is read back, and nothing else is.
pub fn signed(data: &[u8]) {
    let Some((channel, text)) = lines(data) else { return };
    let options = |key: &[u8], purpose: Option<&str>| signed::Options {
        key: signed::Key::new(key),
        purpose: purpose.map(str::to_owned),
    };
    let own = options(SECRET, None);
    let _ = signed::verify(std::slice::from_ref(&own), text, now());
    let ends = UNIX_EPOCH + Duration::from_secs(NOW + 60);
    for expires in [None, Some(ends)] {
        let text = own.mint(channel, expires);
        let Ok(read) = signed::verify(std::slice::from_ref(&own), &text, now()) else {
            continue;
        };
        assert_eq!((read.channel.as_str(), read.expires), (channel, expires));
        assert!(signed::verify(&[options(b"other", None)], &text, now()).is_err());
        assert!(expires.is_none() || signed::verify(std::slice::from_ref(&own), &text, ends).is_err());
        let mut changed = text.into_bytes();
        changed[0] = if changed[0] == b'A' { b'z' } else { b'A' };
        let changed = String::from_utf8(changed).expect("a signed name is ASCII");
        assert!(signed::verify(std::slice::from_ref(&own), &changed, now()).is_err());
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn lines(data: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(data).ok()?.split_once('\n')
}
