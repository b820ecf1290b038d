//! Keys by the vectors of the RFCs, and by the files that people give by mistake.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::*;

/// The one of RFC 7515 appendix A.1.
pub(in crate::access) const RFC_SECRET: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
/// Those of appendices A.1, A.2 and A.3: one payload with three signatures.
pub(in crate::access) const RFC_HS256: &str = concat!(
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
);
const RFC_RS256: &str = concat!(
    "eyJhbGciOiJSUzI1NiJ9.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU",
    "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d",
    "O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig",
    "cN_IoypGlUPQGe77Rw"
);
const RFC_ES256: &str = concat!(
    "eyJhbGciOiJFUzI1NiJ9.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
);
/// RFC 8037 appendix A.4.
const RFC_EDDSA: &str = concat!(
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.",
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
);
const RFC_N: &str = concat!(
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ",
    "S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2",
    "R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcD",
    "TW9gb54h4FRWyuXpoQ"
);
const RFC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const RFC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const RFC_ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// What openssl signed with rsa_padding_mode:pss and rsa_pss_saltlen:32: {"sub":"42","exp":1900000000}.
pub(in crate::access) const PS256: &str = concat!(
    "eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiI0MiIsImV4cCI6MTkwMDAwMDAwMH0.",
    "wvpBwIJDiEAmNTxHNmYGIBM2z4ylyCSWonFJUP6JEOCpvKyKDBJy22qPgYnWLUrh0vwN_utHx9seSAoArJRAr6BtzPBa5lOuhCVadOJHoXSO",
    "q9CKKFdRaLC1jW4bd_nkXYgoXK0RucGwHx4OhLVlUIn_u1BVYWbu38m214RPYhTyXNce6COHEimJzHv6-LP4xt3jH2N79SeVOWfOCAtDMlVy",
    "Xjr8PlFQNf9rQ8R6lQktJRgQ09MKIYz6blQqyLGIXO8H4aeB7a8tszudJpvHMrfEFjRR5zlH7d4f4S9cPDy5yIOjtyyjdwFEb9SbeEUGyueu",
    "Pek5IE_SJ0q2le0yZw"
);
/// Its public key, in the two forms that it can have.
pub(in crate::access) const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA3pauvWM2PFDsLV3m3z7K
uFl0qUFiRaG3Qh6UvrpEecaVBIfuOslFPK1P3MgUSMRGidbuvK3/SDZ6Mr+/n0bt
pA0LTtpSlKvQYnem1wcQwOUAabVAK6Xs6mJtEMzhA1IgA5l20MylC3QF2fsh98nj
IgGB6VDJ1kJBkB40Pj3tuHymQ2B3N5zFyelBLG040hNR4L6pY5jDmY/s0M7W8elH
H83bSz/Eo5UbgADb6gZpVmYv5aeLGBQomDVUmxYlCGkR2dk9CfIDNx1ySsJxr1+3
DLTCD+mRNf2rgIk4MJl2aK9lmK56Tybj+9fPUZPulTn2+A7wYFSyWYNiw7OskXdg
dQIDAQAB
-----END PUBLIC KEY-----
";
const PKCS1_PEM: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEA3pauvWM2PFDsLV3m3z7KuFl0qUFiRaG3Qh6UvrpEecaVBIfuOslF
PK1P3MgUSMRGidbuvK3/SDZ6Mr+/n0btpA0LTtpSlKvQYnem1wcQwOUAabVAK6Xs
6mJtEMzhA1IgA5l20MylC3QF2fsh98njIgGB6VDJ1kJBkB40Pj3tuHymQ2B3N5zF
yelBLG040hNR4L6pY5jDmY/s0M7W8elHH83bSz/Eo5UbgADb6gZpVmYv5aeLGBQo
mDVUmxYlCGkR2dk9CfIDNx1ySsJxr1+3DLTCD+mRNf2rgIk4MJl2aK9lmK56Tybj
+9fPUZPulTn2+A7wYFSyWYNiw7OskXdgdQIDAQAB
-----END RSA PUBLIC KEY-----
";

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// Whether the key made the token's signature, and made it for this header and payload alone.
fn signed(key: &Key, token: &str) -> bool {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = decode(signature);
    let signed = key.verifies(message.as_bytes(), &signature);
    for at in 0..signature.len() {
        let mut other = signature.clone();
        other[at] ^= 1;
        assert!(
            !key.verifies(message.as_bytes(), &other),
            "bit {at} of the signature does not count"
        );
    }
    assert!(!key.verifies(message.as_bytes(), &signature[1..]));
    assert!(!key.verifies(message.as_bytes(), &[]));
    assert!(!key.verifies(&message.as_bytes()[1..], &signature));
    signed
}

#[test]
fn the_vectors_of_the_rfcs_are_verified() {
    let hs256 = Key::secret(Algorithm::Hs256, &decode(RFC_SECRET)).unwrap();
    let rs256 = Key::rsa(Algorithm::Rs256, &decode(RFC_N), &decode("AQAB")).unwrap();
    let point = [&[4], &decode(RFC_X)[..], &decode(RFC_Y)[..]].concat();
    let es256 = Key::p256(Algorithm::Es256, &point).unwrap();
    let eddsa = Key::ed25519(Algorithm::EdDsa, &decode(RFC_ED25519)).unwrap();
    for (key, token) in [
        (&hs256, RFC_HS256),
        (&rs256, RFC_RS256),
        (&es256, RFC_ES256),
        (&eddsa, RFC_EDDSA),
    ] {
        assert!(signed(key, token), "{key:?}");
    }
    // The same key, for the other way to sign with it, makes nothing of it.
    let ps256 = Key::rsa(Algorithm::Ps256, &decode(RFC_N), &decode("AQAB")).unwrap();
    assert!(!signed(&ps256, RFC_RS256));
    assert!(!signed(&es256, RFC_EDDSA));
}

#[test]
fn files_of_every_form_hold_the_same_key() {
    for pem in [RSA_PEM, PKCS1_PEM] {
        let key = Key::public(Algorithm::Ps256, pem.as_bytes()).unwrap();
        assert!(signed(&key, PS256));
        let other = Key::public(Algorithm::Rs256, pem.as_bytes()).unwrap();
        assert!(!signed(&other, PS256));
    }
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    let random = SystemRandom::new();
    let pair = made.signing_key.serialize_der();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair, &random).unwrap();
    let signature = pair.sign(&random, b"message").unwrap();
    for pem in [made.cert.pem(), made.signing_key.public_key_pem()] {
        let key = Key::public(Algorithm::Es256, pem.as_bytes()).unwrap();
        assert!(key.verifies(b"message", signature.as_ref()));
        assert!(!key.verifies(b"massage", signature.as_ref()));
    }
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    assert!(Key::public(Algorithm::EdDsa, pair.public_key_pem().as_bytes()).is_ok());
}

#[test]
fn what_is_no_key_for_the_algorithm_is_explained() {
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    let (public, private) = (made.signing_key.public_key_pem(), made.signing_key.serialize_pem());
    let both = format!("{public}{private}");
    let damaged = RSA_PEM.replace("AQ8A", "AQ8B");
    let damaged_certificate = made.cert.pem().replace("CERTIFICATE", "PUBLIC KEY");
    let wrong = |algorithm, pem: &str| Key::public(algorithm, pem.as_bytes()).unwrap_err().what;
    for (algorithm, pem, what) in [
        (
            Algorithm::Rs256,
            public.as_str(),
            "is a key on the curve P-256, and RS256 takes an RSA key",
        ),
        (
            Algorithm::EdDsa,
            &public,
            "is a key on the curve P-256, and EdDSA takes an Ed25519 key",
        ),
        (
            Algorithm::Es256,
            RSA_PEM,
            "is an RSA key, and ES256 takes a key on the curve P-256",
        ),
        (
            Algorithm::Es256,
            &private,
            "is a private key: who has it can sign, and keyrelay needs only to check",
        ),
        (
            Algorithm::Es256,
            &both,
            "is a private key: who has it can sign, and keyrelay needs only to check",
        ),
        (Algorithm::Es256, "", "holds no public key in PEM"),
        (
            Algorithm::Es256,
            "ssh-ed25519 AAAA me@host",
            "holds no public key in PEM",
        ),
        (Algorithm::Rs256, &damaged, "is PEM, but what it holds is damaged"),
        (
            Algorithm::Es256,
            &damaged_certificate,
            "is PEM, but what it holds is damaged",
        ),
    ] {
        assert_eq!(wrong(algorithm, pem), what);
    }
    // The confusion of RFC 8725 §2.1 cannot even be configured.
    assert!(wrong(Algorithm::Hs256, RSA_PEM).starts_with("is a public key, and HS256 takes a secret"));
}

#[test]
fn weak_keys_are_refused() {
    for (algorithm, least) in [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)] {
        assert!(
            Key::secret(algorithm, &vec![b'x'; least - 1])
                .unwrap_err()
                .what
                .contains("is too short")
        );
        assert!(Key::secret(algorithm, &vec![b'x'; least]).is_ok());
    }
    assert!(Key::secret(Algorithm::Rs256, &[b'x'; 64]).is_err());
    let modulus = |bits: usize| [&[0, 0x80], &vec![1; bits / 8 - 1][..]].concat();
    let rsa = |n: &[u8]| Key::rsa(Algorithm::Rs256, n, &[1, 0, 1]);
    assert!(rsa(&modulus(2_048)).is_ok());
    assert!(rsa(&modulus(8_192)).is_ok());
    for n in [&modulus(2_040)[..], &modulus(8_200), &[], &[0; 512], &[0x7f; 256]] {
        assert!(rsa(n).is_err(), "{} bytes", n.len());
    }
    let point = [4; 65];
    assert!(Key::p256(Algorithm::Es256, &point).is_ok());
    assert!(Key::p256(Algorithm::Es256, &[2; 33]).is_err());
    assert!(Key::p256(Algorithm::Es256, &point[1..]).is_err());
    assert!(Key::ed25519(Algorithm::EdDsa, &[1; 33]).is_err());
}

#[test]
fn nothing_of_a_secret_is_shown() {
    let key = Key::secret(Algorithm::Hs256, &[b'x'; 32]).unwrap();
    assert_eq!(format!("{key:?}"), "Key(HS256)");
}
