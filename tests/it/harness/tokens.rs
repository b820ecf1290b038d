//! Tokens as an app makes them, by hand: a library would hide what is sent.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

/// What the tokens of these tests are signed with.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The lines of a config by which these tokens count.
pub const ACCESS: &str = "[[access.jwt]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs() as i64
}

/// A token of these claims that counts for so many more seconds.
pub fn token(seconds: i64, mut claims: Value) -> String {
    claims["exp"] = json!(now() + seconds);
    signed(SECRET, &json!({"alg": "HS256", "typ": "JWT"}), &claims)
}

/// A token with a secret and a header of one's own.
pub fn signed(secret: &str, header: &Value, claims: &Value) -> String {
    sealed(secret, &header.to_string(), &claims.to_string())
}

/// The same of any two texts, whether they are JSON or not.
pub fn sealed(secret: &str, header: &str, payload: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes())))
}

/// A name that Rails' verifier has signed with this key.
pub fn signed_name(key: &str, payload: &Value) -> String {
    let text = STANDARD.encode(payload.to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}--{hex}")
}
