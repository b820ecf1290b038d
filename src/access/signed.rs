//! Signed channel names, as Rails makes them for Turbo and CableReady (ActiveSupport::MessageVerifier).
//!
//! `BASE64--SIGNATURE`, the signature being HMAC-SHA256 over the base64 text in lower-case hex. The text is the JSON of the
//! name, or of an envelope (`_rails`) that says until when and for what it counts.

#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;
use std::time::SystemTime;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::{hmac, pbkdf2};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::members;

/// What Turbo derives its key with (turbo-rails, lib/turbo/engine.rb).
pub const TURBO_SALT: &str = "turbo/signed_stream_verifier_key";
/// What CableReady derives its key with (cable_ready, lib/cable_ready/config.rb).
pub const CABLE_READY_SALT: &str = "cable_ready/verifier_key";

/// Longest signed name: the longest name of a channel, twice in base64, with room for an envelope.
pub const MAX_SIGNED: usize = 4 * 1024;

/// `Rails.application.key_generator`: 1,000 rounds, 64 bytes (railties, lib/rails/application.rb).
const ROUNDS: NonZeroU32 = NonZeroU32::new(1_000).expect("1,000 is not 0");
const DERIVED: usize = 64;

/// The hexadecimal digits of an HMAC-SHA256.
const SIGNATURE: usize = 64;

/// Both alphabets are tried, and neither asks for padding: `url_safe: true` makes texts without.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

/// Who makes signed names that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The key of the verifier.
    pub key: Key,
    /// For what the names must have been signed. Names that were signed for a purpose count for no other, and not without.
    pub purpose: Option<String>,
}

/// The key of a MessageVerifier.
#[derive(Clone)]
pub struct Key(hmac::Key);

/// With which hash `secret_key_base` is stretched (`config.active_support.key_generator_hash_digest_class`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// Rails from `load_defaults 7.0` on.
    Sha256,
    /// Rails before that.
    Sha1,
}

/// A channel that a signed name opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Its name.
    pub channel: String,
    /// From when on it no longer counts.
    pub expires: Option<SystemTime>,
}

impl Key {
    /// The key itself, as `Turbo.signed_stream_verifier_key` or `CableReady.config.verifier_key` have it.
    pub fn new(key: &[u8]) -> Key {
        Key(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The key that Rails makes of `secret_key_base` and a salt.
    pub fn derived(secret_key_base: &[u8], salt: &str, digest: Digest) -> Key {
        let algorithm = match digest {
            Digest::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Digest::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        };
        let mut key = [0; DERIVED];
        pbkdf2::derive(algorithm, ROUNDS, salt.as_bytes(), secret_key_base, &mut key);
        Key::new(&key)
    }

    /// What Rails makes of a text that it was given to sign.
    fn sign(&self, json: &Value) -> String {
        let text = STANDARD.encode(json.to_string());
        let signature = hmac::sign(&self.0, text.as_bytes());
        let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{text}--{hex}")
    }

    /// Compares in constant time.
    fn verifies(&self, message: &str, signature: &[u8]) -> bool {
        hmac::verify(&self.0, message.as_bytes(), signature).is_ok()
    }
}

/// By what they sign: nothing of a key can be seen.
impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        let tag = |key: &Key| hmac::sign(&key.0, b"keyrelay");
        tag(self).as_ref() == tag(other).as_ref()
    }
}

impl Eq for Key {}

/// Shows nothing of the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// The channel that a signed name opens, if one of the keys signed it, its time is not over, and it is for the purpose of
/// that key.
///
/// # Errors
/// Why it does not count.
pub fn verify(options: &[Options], text: &str, now: SystemTime) -> Result<Signed, Failure> {
    if text.len() > MAX_SIGNED {
        return Err(Failure::Malformed("it is longer than 4 KiB"));
    }
    let form = Failure::Malformed("a signed name is base64, two hyphens and 64 hexadecimal digits");
    let split = text.len().checked_sub(SIGNATURE + 2).ok_or(form.clone())?;
    let (message, rest) = text.split_at_checked(split).ok_or(form.clone())?;
    let signature = rest.strip_prefix("--").and_then(unhex).ok_or(form.clone())?;
    let mut failure = Failure::Signature;
    for options in options
        .iter()
        .filter(|options| options.key.verifies(message, &signature))
    {
        match options.read(message, now) {
            // The same key may be there again, for another purpose.
            Err(Failure::Purpose) => failure = Failure::Purpose,
            read => return read,
        }
    }
    Err(failure)
}

impl Options {
    /// A signed name, as Rails makes one for this purpose and, if there is one, with this end.
    pub fn mint(&self, channel: &str, expires: Option<SystemTime>) -> String {
        if expires.is_none() && self.purpose.is_none() {
            return self.key.sign(&channel.into());
        }
        let exp = expires.map(|expires| humantime::format_rfc3339_millis(expires).to_string());
        self.key
            .sign(&json!({"_rails": {"data": channel, "exp": exp, "pur": self.purpose}}))
    }

    /// Reads what was signed as it should be.
    fn read(&self, message: &str, now: SystemTime) -> Result<Signed, Failure> {
        let json = decode(message.as_bytes()).ok_or(Failure::Malformed("what was signed is not base64"))?;
        let envelope = members::parse(&json).and_then(|mut members| members.remove("_rails"));
        let Some(envelope) = envelope else {
            // Who asks for a purpose is not served by a name that was signed for none.
            return match &self.purpose {
                Some(_) => Err(Failure::Purpose),
                None => name(&json, None),
            };
        };
        let Value::Object(envelope) = envelope else {
            return Err(Failure::Malformed("what was signed has an envelope that is no object"));
        };
        let purpose = text(&envelope, "pur")?;
        if purpose != self.purpose.as_deref() {
            return Err(Failure::Purpose);
        }
        let expires = match text(&envelope, "exp")? {
            None => None,
            Some(exp) => {
                let malformed = Failure::Malformed("its `exp` is not a time such as 2026-01-31T12:00:00.000Z");
                Some(humantime::parse_rfc3339(exp).map_err(|_| malformed)?)
            }
        };
        if let Some(expires) = expires
            && now >= expires
        {
            return Err(Failure::Expired(now.duration_since(expires).unwrap_or_default()));
        }
        match (envelope.get("data"), text(&envelope, "message")?) {
            // Rails from 7.1 on.
            (Some(data), _) => name(data.to_string().as_bytes(), expires),
            // Before, the JSON of the name was wrapped in base64 once more.
            (None, Some(message)) => {
                let json = decode(message.as_bytes()).ok_or(Failure::Malformed("its `message` is not base64"))?;
                name(&json, expires)
            }
            (None, None) => Err(Failure::Malformed("its envelope holds nothing")),
        }
    }
}

fn name(json: &[u8], expires: Option<SystemTime>) -> Result<Signed, Failure> {
    match serde_json::from_slice(json) {
        Ok(channel) => Ok(Signed { channel, expires }),
        Err(_) => Err(Failure::Malformed(
            "what was signed is not a text in JSON: sign with serializer: JSON",
        )),
    }
}

/// A member that is a text or not there.
fn text<'a>(envelope: &'a Map<String, Value>, member: &str) -> Result<Option<&'a str>, Failure> {
    match envelope.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Failure::Malformed("its envelope holds what Rails does not put there")),
    }
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// Lower-case digits, as Rails writes them.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
