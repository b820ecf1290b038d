//! Public keys in the files that people have.

use pem::Pem;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use spki::der::asn1::{AnyRef, BitStringRef, UintRef};
use spki::der::{Decode, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfo};

use super::{Algorithm, Key, KeyError};

/// rsaEncryption (RFC 8017 appendix C)
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-ecPublicKey, and the curve P-256 (RFC 5480 §2.1.1)
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// id-Ed25519 (RFC 8410 §3)
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

pub(super) fn read(algorithm: Algorithm, text: &[u8]) -> Result<Key, KeyError> {
    if algorithm.is_symmetric() {
        let name = algorithm.name();
        return Err(KeyError::new(
            format!("is a public key, and {name} takes a secret: whoever knows a public key could sign with it"),
            "write the algorithm that the app signs with, e.g. algorithm = \"RS256\"",
        ));
    }
    let blocks = pem::parse_many(text).unwrap_or_default();
    if let Some(private) = blocks.iter().find(|block| block.tag().ends_with("PRIVATE KEY")) {
        let command = match private.tag() {
            "RSA PRIVATE KEY" => "openssl rsa -in THIS -pubout -out PUBLIC",
            "EC PRIVATE KEY" => "openssl ec -in THIS -pubout -out PUBLIC",
            _ => "openssl pkey -in THIS -pubout -out PUBLIC",
        };
        return Err(KeyError::new(
            "is a private key: who has it can sign, and keyrelay needs only to check",
            format!("take the public one out of it, and leave this one with the app that signs: {command}"),
        ));
    }
    let known = |block: &&Pem| matches!(block.tag(), "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE");
    let Some(block) = blocks.iter().find(known) else {
        return Err(KeyError::new(
            "holds no public key in PEM",
            "name a file that begins with -----BEGIN PUBLIC KEY-----; `openssl pkey -in PRIVATE -pubout` writes one",
        ));
    };
    match block.tag() {
        "RSA PUBLIC KEY" => rsa(algorithm, block.contents()),
        "CERTIFICATE" => {
            let certificate = CertificateDer::from(block.contents());
            let parsed = ParsedCertificate::try_from(&certificate).map_err(|_| broken())?;
            info(algorithm, parsed.subject_public_key_info().as_ref())
        }
        _ => info(algorithm, block.contents()),
    }
}

/// SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
fn info(algorithm: Algorithm, der: &[u8]) -> Result<Key, KeyError> {
    let info = SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(der).map_err(|_| broken())?;
    let bits = info.subject_public_key.as_bytes().ok_or_else(broken)?;
    match info.algorithm.oid {
        RSA => rsa(algorithm, bits),
        EC if info.algorithm.parameters_oid() == Ok(P256) => Key::p256(algorithm, bits),
        EC => Err(KeyError::new(
            "is a key on another curve than P-256",
            "make one that is taken: openssl ecparam -name prime256v1 -genkey -noout -out PRIVATE",
        )),
        ED25519 => Key::ed25519(algorithm, bits),
        _ => Err(KeyError::new(
            "is a key of a kind that no algorithm here takes",
            "RSA, P-256 and Ed25519 are taken: openssl genpkey -algorithm ed25519 -out PRIVATE",
        )),
    }
}

/// RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa(algorithm: Algorithm, der: &[u8]) -> Result<Key, KeyError> {
    let numbers = |der| -> spki::der::Result<(Vec<u8>, Vec<u8>)> {
        let mut reader = SliceReader::new(der)?;
        let numbers = reader.sequence(|reader| {
            let n = UintRef::decode(reader)?.as_bytes().to_vec();
            Ok::<_, spki::der::Error>((n, UintRef::decode(reader)?.as_bytes().to_vec()))
        })?;
        reader.finish()?;
        Ok(numbers)
    };
    let (n, e) = numbers(der).map_err(|_| broken())?;
    Key::rsa(algorithm, &n, &e)
}

fn broken() -> KeyError {
    KeyError::new(
        "is PEM, but what it holds is damaged",
        "copy the file anew, or write it with `openssl pkey -in PRIVATE -pubout`",
    )
}
