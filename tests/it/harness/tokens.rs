//! Tokens as an app makes them, by hand: a library would hide what is sent.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes())))
}
