//! Keys that signatures are checked with, each for one algorithm alone.
//!
//! The cryptography is ring's, which rustls brings along: signatures by secrets are compared in constant time
//! (`ring::hmac::verify`), and there is one provider of cryptography in the process.

mod pem;
#[cfg(test)]
pub(in crate::access) mod tests;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

/// Fewest bits of an RSA key (RFC 7518 §3.3), and most that ring takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// How a token can be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256
    Hs256,
    /// HMAC with SHA-384
    Hs384,
    /// HMAC with SHA-512
    Hs512,
    /// RSA (PKCS #1 v1.5) with SHA-256
    Rs256,
    /// RSA (PSS) with SHA-256
    Ps256,
    /// ECDSA on the curve P-256 with SHA-256
    Es256,
    /// Ed25519
    EdDsa,
}

/// A key, and the algorithm that it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    algorithm: Algorithm,
    material: Material,
}

/// Why something is not a key for an algorithm, as what follows its name in a sentence, with what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct KeyError {
    /// What is wrong, e.g. `is a private key`.
    pub what: String,
    /// What to do instead.
    pub instead: String,
}

#[derive(Clone)]
enum Material {
    Secret(hmac::Key),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point or the 32 bytes that are the public key.
    Raw(Vec<u8>),
}

impl PartialEq for Material {
    fn eq(&self, other: &Material) -> bool {
        match (self, other) {
            // By what they sign: nothing of a secret can be seen.
            (Material::Secret(one), Material::Secret(other)) => {
                let tag = |key| hmac::sign(key, b"keyrelay");
                one.algorithm() == other.algorithm() && tag(one).as_ref() == tag(other).as_ref()
            }
            (Material::Rsa { n, e }, Material::Rsa { n: other, e: exponent }) => n == other && e == exponent,
            (Material::Raw(one), Material::Raw(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Material {}

impl Algorithm {
    /// Every algorithm, in the order in which they are told to people.
    pub const ALL: [Algorithm; 7] = [
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
        Algorithm::Rs256,
        Algorithm::Ps256,
        Algorithm::Es256,
        Algorithm::EdDsa,
    ];

    /// The algorithm of this name in a token or a key (RFC 7518 §3.1, RFC 8037 §3.1); `None` for all others, `none` among
    /// them.
    pub fn named(name: &str) -> Option<Algorithm> {
        match name {
            // What RFC 9864 calls it now.
            "Ed25519" => Some(Algorithm::EdDsa),
            name => Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Ps256 => "PS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// Whether who checks could also sign.
    pub fn is_symmetric(self) -> bool {
        self.hmac().is_some()
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
            Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
            Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
            Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 | Algorithm::EdDsa => None,
        }
    }

    /// What keys it takes, in words.
    fn takes(self) -> &'static str {
        match self {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => "a secret",
            Algorithm::Rs256 | Algorithm::Ps256 => "an RSA key",
            Algorithm::Es256 => "a key on the curve P-256",
            Algorithm::EdDsa => "an Ed25519 key",
        }
    }
}

impl Key {
    /// A secret that signer and checker share.
    ///
    /// # Errors
    /// If the algorithm takes public keys, or the secret is too short to be one.
    pub fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Key, KeyError> {
        let Some(hmac) = algorithm.hmac() else {
            return Err(KeyError::new(
                format!("is a secret, and {} takes a public key", algorithm.name()),
                "name the file with the public key in public_key_file; the private one stays with the app that signs",
            ));
        };
        let least = hmac.digest_algorithm().output_len();
        if secret.len() < least {
            let name = algorithm.name();
            return Err(KeyError::new(
                format!(
                    "is too short: {} bytes, and {name} needs {least} (RFC 7518 §3.2)",
                    secret.len()
                ),
                format!("make one with `openssl rand -hex {least}`, and give it to the app that signs as well"),
            ));
        }
        Ok(Key {
            algorithm,
            material: Material::Secret(hmac::Key::new(hmac, secret)),
        })
    }

    /// A public key in PEM: `PUBLIC KEY`, `RSA PUBLIC KEY`, or a certificate that holds it.
    ///
    /// # Errors
    /// If it is none, is not for this algorithm, or is too weak.
    pub fn public(algorithm: Algorithm, pem: &[u8]) -> Result<Key, KeyError> {
        pem::read(algorithm, pem)
    }

    /// An RSA key by its numbers, big-endian.
    pub(super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Key, KeyError> {
        if !matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256) {
            return Err(wrong_kind(algorithm, "an RSA key"));
        }
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
            return Err(KeyError::new(
                format!("is an RSA key of {bits} bits; from {least} to {most} are taken (RFC 7518 §3.3)"),
                "make one with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`",
            ));
        }
        Ok(Key {
            algorithm,
            material: Material::Rsa {
                n: n.to_vec(),
                e: e.to_vec(),
            },
        })
    }

    /// A point on P-256, uncompressed (SEC 1 §2.3.3).
    pub(super) fn p256(algorithm: Algorithm, point: &[u8]) -> Result<Key, KeyError> {
        match (algorithm, point) {
            (Algorithm::Es256, [4, rest @ ..]) if rest.len() == 64 => Ok(Key::raw(algorithm, point)),
            (Algorithm::Es256, _) => Err(KeyError::new(
                "does not hold the point in its uncompressed form",
                "write it anew: openssl ec -pubin -in OLD -conv_form uncompressed -out NEW",
            )),
            _ => Err(wrong_kind(algorithm, "a key on the curve P-256")),
        }
    }

    /// The 32 bytes of an Ed25519 key.
    pub(super) fn ed25519(algorithm: Algorithm, bytes: &[u8]) -> Result<Key, KeyError> {
        match algorithm {
            Algorithm::EdDsa if bytes.len() == 32 => Ok(Key::raw(algorithm, bytes)),
            Algorithm::EdDsa => Err(KeyError::new(
                "is not 32 bytes long",
                "make one with `openssl genpkey -algorithm ed25519`",
            )),
            _ => Err(wrong_kind(algorithm, "an Ed25519 key")),
        }
    }

    fn raw(algorithm: Algorithm, bytes: &[u8]) -> Key {
        Key {
            algorithm,
            material: Material::Raw(bytes.to_vec()),
        }
    }

    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether its other half made this signature, by its algorithm.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Rsa { n, e } => {
                let parameters = match self.algorithm {
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signature).is_ok()
            }
            Material::Raw(key) => {
                let algorithm: &dyn signature::VerificationAlgorithm = match self.algorithm {
                    Algorithm::EdDsa => &signature::ED25519,
                    _ => &signature::ECDSA_P256_SHA256_FIXED,
                };
                UnparsedPublicKey::new(algorithm, key)
                    .verify(message, signature)
                    .is_ok()
            }
        }
    }

    /// A token with these claims; `None` if the key is a public one, which cannot sign.
    pub fn mint(&self, claims: &Map<String, Value>) -> Option<String> {
        let Material::Secret(key) = &self.material else {
            return None;
        };
        let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, self.algorithm.name());
        let payload = Value::Object(claims.clone()).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(key, signed.as_bytes()));
        Some(format!("{signed}.{signature}"))
    }
}

/// Shows what it is for, and never the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.algorithm.name())
    }
}

impl KeyError {
    fn new(what: impl Into<String>, instead: impl Into<String>) -> KeyError {
        KeyError {
            what: what.into(),
            instead: instead.into(),
        }
    }
}

fn wrong_kind(algorithm: Algorithm, found: &str) -> KeyError {
    let fits = match found {
        "an RSA key" => "\"RS256\" or \"PS256\"",
        "an Ed25519 key" => "\"EdDSA\"",
        _ => "\"ES256\"",
    };
    KeyError::new(
        format!("is {found}, and {} takes {}", algorithm.name(), algorithm.takes()),
        format!("write algorithm = {fits}, as the app signs, or name another key"),
    )
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}
