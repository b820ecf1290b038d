//! Sets of keys (JSON Web Key Sets, RFC 7517), and those of them that are of use.

mod fetch;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

pub(super) use fetch::{Fetched, Pace};

use super::key::{Algorithm, Key};
use super::members;

/// Most keys of one set; providers publish two to ten.
const MAX_KEYS: usize = 100;

/// The keys of a set that are of use.
#[derive(Clone, Debug, Default)]
pub struct Set {
    keys: Vec<(Option<String>, Key)>,
    /// What was passed over, and why.
    passed_over: Vec<&'static str>,
}

impl Set {
    /// Reads a set. `only` is the algorithm that alone counts; without it, it is that which each key names, or which its
    /// kind has.
    ///
    /// # Errors
    /// If it is none. A key that is of no use is passed over: a set may hold keys for others.
    pub fn parse(json: &[u8], only: Option<Algorithm>) -> Result<Set, &'static str> {
        let members = members::parse(json).ok_or("it is not a JSON object")?;
        let Some(Value::Array(keys)) = members.get("keys") else {
            return Err(
                "it has no list `keys`: the URL must be that of the key set (jwks_uri), not of its description",
            );
        };
        if keys.len() > MAX_KEYS {
            return Err("it holds more than 100 keys");
        }
        let mut set = Set::default();
        for key in keys {
            let Value::Object(key) = key else {
                return Err("one of its keys is not a JSON object");
            };
            match read(key, only) {
                Ok(read) => set.keys.push((member(key, "kid").map(str::to_owned), read)),
                Err(why) => set.passed_over.push(why),
            }
        }
        Ok(set)
    }

    /// The keys that a token of this `kid` may have been signed with: those of the same `kid`, and those without any. A
    /// token without one may be of any.
    pub fn fitting(&self, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        let fits = move |own: &Option<String>| match (own, kid) {
            (Some(own), Some(kid)) => own == kid,
            _ => true,
        };
        self.keys.iter().filter(move |(own, _)| fits(own)).map(|(_, key)| key)
    }

    /// Whether a key of this `kid` is in it.
    pub fn names(&self, kid: &str) -> bool {
        self.keys.iter().any(|(own, _)| own.as_deref() == Some(kid))
    }

    /// How many keys are of use.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// One key; or why it is of no use.
fn read(jwk: &Map<String, Value>, only: Option<Algorithm>) -> Result<Key, &'static str> {
    let kind = member(jwk, "kty").unwrap_or_default();
    if kind == "oct" {
        return Err("a secret (`oct`): who may fetch it could sign with it");
    }
    if jwk.contains_key("d") {
        return Err("a private key (it has `d`): whoever fetched it can sign, and it must be replaced");
    }
    if member(jwk, "use").is_some_and(|used| used != "sig") {
        return Err("not for signatures (`use`)");
    }
    if let Some(Value::Array(operations)) = jwk.get("key_ops")
        && !operations.iter().any(|operation| operation == "verify")
    {
        return Err("not for checking signatures (`key_ops`)");
    }
    let implied = match (kind, member(jwk, "crv")) {
        // Signed with as most do, unless the config says otherwise.
        ("RSA", _) if only == Some(Algorithm::Ps256) => Algorithm::Ps256,
        ("RSA", _) => Algorithm::Rs256,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        _ => return Err("of a kind (`kty`, `crv`) that is not known here"),
    };
    let algorithm = match jwk.get("alg") {
        None | Some(Value::Null) => implied,
        Some(Value::String(name)) => Algorithm::named(name).ok_or("for an algorithm (`alg`) that is not known here")?,
        Some(_) => return Err("without a text as its `alg`"),
    };
    if only.is_some_and(|only| only != algorithm) {
        return Err("for another algorithm than the config says");
    }
    let bytes = |name| member(jwk, name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let broken = "damaged: a number is missing or not base64url";
    let key = match kind {
        "RSA" => Key::rsa(algorithm, &bytes("n").ok_or(broken)?, &bytes("e").ok_or(broken)?),
        "EC" => {
            let (x, y) = (bytes("x").ok_or(broken)?, bytes("y").ok_or(broken)?);
            if x.len() != 32 || y.len() != 32 {
                return Err(broken);
            }
            Key::p256(algorithm, &[&[4], &x[..], &y[..]].concat())
        }
        _ => Key::ed25519(algorithm, &bytes("x").ok_or(broken)?),
    };
    key.map_err(|_| "too weak, or not of the kind that its algorithm takes")
}

fn member<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}
