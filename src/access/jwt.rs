//! Tokens: JSON Web Tokens in the compact form of a signature (RFC 7519, RFC 7515 §7.1).
//!
//! No library for JWT is used. What is left of one when its cryptography is ring's, its times are judged by `Claims`, and
//! its header is read anew because it does not look at `crit`, is a text cut in three.

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::failure::Failure;
use super::http::Url;
use super::key::{Algorithm, Key};
use super::members;

/// Longest token: what proxies and servers take of one header or of a whole URL (nginx, Apache and Node: 8 KiB to 16 KiB).
pub const MAX_TOKEN: usize = 8 * 1024;

/// Most keys that one token is tried with, so that a token without `kid` costs no more than a TLS handshake does.
const MAX_TRIES: usize = 16;

/// Who makes tokens that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What their signatures are checked with.
    pub keys: Keys,
    /// What their `iss` must be, if that matters.
    pub issuer: Option<String>,
    /// What must be in their `aud`. Without it a token that has an `aud` is meant for somebody else (RFC 7519 §4.1.3).
    pub audience: Option<String>,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// One key, once and for all.
    One(Key),
    /// A set of keys that is fetched, and fetched again.
    Fetched {
        /// Where from.
        url: Url,
        /// The algorithm that alone counts; `None`: that of each key.
        algorithm: Option<Algorithm>,
    },
}

/// A token that was taken apart, and not believed yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// What was signed: header and payload, as they came.
    message: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart and reads its header.
    pub(super) fn parse(text: &'a str) -> Result<Token<'a>, Failure> {
        if text.len() > MAX_TOKEN {
            return Err(Failure::Malformed("it is longer than 8 KiB"));
        }
        let parts: Vec<&str> = text.splitn(6, '.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(Failure::Malformed(match parts.len() {
                5 => "it is encrypted (JWE), and only signed tokens are taken",
                _ => "it is not three parts with dots between them",
            }));
        };
        let mut header = URL_SAFE_NO_PAD
            .decode(header)
            .ok()
            .and_then(|json| members::parse(&json))
            .ok_or(Failure::Malformed("its header is not a JSON object in base64url"))?;
        // What must be understood is not (RFC 7515 §4.1.11); an unencoded payload is one such thing (RFC 7797).
        if header.contains_key("crit") || header.get("b64").is_some_and(|b64| *b64 != Value::Bool(true)) {
            return Err(Failure::Malformed(
                "its header demands (`crit`, `b64`) what is not known here",
            ));
        }
        let Some(Value::String(algorithm)) = header.get("alg") else {
            return Err(Failure::Malformed("its header names no algorithm (`alg`)"));
        };
        let algorithm = Algorithm::named(algorithm).ok_or(Failure::Algorithm)?;
        // Keys and places of keys that the token itself brings (`jwk`, `jku`, `x5c`, `x5u`) are not even looked at.
        let kid = match header.remove("kid") {
            None | Some(Value::Null) => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(Failure::Malformed("its `kid` is not a text")),
        };
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Failure::Malformed("its signature is not base64url"))?;
        let signature_at = text.rfind('.').unwrap_or_default();
        Ok(Token {
            algorithm,
            kid,
            message: &text[..signature_at],
            payload,
            signature,
        })
    }

    /// What it says, if one of the keys made its signature and it is meant for who asks. Each key comes with the options
    /// that it stands in. The failure is that of the key that came closest.
    pub(super) fn verify<'k>(
        &self,
        keys: impl IntoIterator<Item = (&'k Key, &'k Options)>,
        now: SystemTime,
    ) -> Result<Claims, Failure> {
        let mut failure = Failure::Algorithm;
        // The header chooses among keys, and each key has one algorithm: it cannot make a key do what it is not for.
        let fitting = keys.into_iter().filter(|(key, _)| key.algorithm() == self.algorithm);
        for (key, options) in fitting.take(MAX_TRIES) {
            if !key.verifies(self.message.as_bytes(), &self.signature) {
                if failure == Failure::Algorithm {
                    failure = Failure::Signature;
                }
                continue;
            }
            match options.judge(self.payload, now) {
                // The same key may be there again, for another audience.
                Err(other @ (Failure::Audience | Failure::NoAudience | Failure::Issuer)) => failure = other,
                judged => return judged,
            }
        }
        Err(failure)
    }
}

impl Options {
    /// Reads a payload that was signed as it should be.
    fn judge(&self, payload: &str, now: SystemTime) -> Result<Claims, Failure> {
        let members = URL_SAFE_NO_PAD
            .decode(payload)
            .ok()
            .and_then(|json| members::parse(&json))
            .ok_or(Failure::Malformed("its payload is not a JSON object in base64url"))?;
        self.is_meant(&members)?;
        Claims::new(members, now)
    }

    fn is_meant(&self, members: &Map<String, Value>) -> Result<(), Failure> {
        if let Some(issuer) = &self.issuer
            && members.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Failure::Issuer);
        }
        let audience = members.get("aud").filter(|aud| !aud.is_null());
        match (&self.audience, audience) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Failure::NoAudience),
            (Some(wanted), Some(Value::String(text))) if text == wanted => Ok(()),
            (Some(wanted), Some(Value::Array(list))) if list.iter().any(|one| one.as_str() == Some(wanted)) => Ok(()),
            (Some(_), _) => Err(Failure::Audience),
        }
    }
}

/// What a token says, if one of the keys that are known without asking anybody made it.
///
/// # Errors
/// Why it does not count.
pub fn verify(options: &[Options], text: &str, now: SystemTime) -> Result<Claims, Failure> {
    let token = Token::parse(text)?;
    let keys = options.iter().filter_map(|options| match &options.keys {
        Keys::One(key) => Some((key, options)),
        Keys::Fetched { .. } => None,
    });
    token.verify(keys, now)
}
