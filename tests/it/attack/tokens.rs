//! Credentials that must not count: each is refused for its own reason, is never said back, and brings nobody to ask
//! elsewhere.

/// Those of an odd form.
mod forms;
/// Those of Rails.
mod signed_names;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Scene;
use crate::access::{Refusal, refusal};
use crate::harness::tokens::{SECRET, now, sealed, signed};
use crate::harness::{Relay, eventually};

/// What tokens of RSA are checked with; everybody may have it.
const PUBLIC_KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/valid/conf.d/tokens.pem");

/// The key of the verifier of signed names.
const VERIFIER: &str = "a key of the verifier, long enough to count";

/// The finest log, in which no credential may stand either.
const LOG: &str = "[log]\nlevel = \"trace,tungstenite::protocol=trace\"\n";

/// What is open to whoever shows what it takes.
const MAPPINGS: &str = "[[mapping]]\nkey = \"cart:{user}\"\naccess = { sub = \"{user}\" }\n[[mapping]]\nkey = \"list:{id...}\"\naccess = \"listed\"\n";

fn scene() -> Scene {
    let meant = "audience = \"keyrelay\"\nissuer = \"app\"\n";
    let access = format!(
        "[[access.jwt]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n{meant}\
         [[access.jwt]]\nalgorithm = \"RS256\"\npublic_key_file = \"{PUBLIC_KEY}\"\n{meant}\
         [[access.signed]]\nscheme = \"rails\"\nkey = \"{VERIFIER}\"\npurpose = \"relay\"\n"
    );
    Scene::new("", &format!("{access}{LOG}{MAPPINGS}"))
}

/// A header as it should be.
fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

/// Claims that count for `cart:42`, with these put in their place.
fn claims(changed: Value) -> Value {
    let mut claims = json!({"sub": "42", "aud": "keyrelay", "iss": "app", "exp": now() + 600});
    for (name, value) in changed.as_object().expect("claims are an object") {
        claims[name] = value.clone();
    }
    claims
}

/// A token in order, but for these claims.
fn claiming(changed: Value) -> String {
    signed(SECRET, &header(), &claims(changed))
}

/// A token in order, but for these members of its header.
fn headed(changed: Value) -> String {
    signed(SECRET, &changed, &claims(json!({})))
}

/// A token whose header or payload is not what a library would write.
fn written(header: &str, payload: &str) -> String {
    sealed(SECRET, header, payload)
}

/// The same in one of its three parts.
fn replaced(token: &str, part: usize, by: &str) -> String {
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[part] = by;
    parts.join(".")
}

/// Whether something of this credential can be found in a text. What is short stands everywhere.
fn is_told(credential: &str, text: &str) -> bool {
    let parts = credential.split(['.', ' ']).filter(|part| part.len() >= 16);
    parts
        .into_iter()
        .any(|part| text.contains(&part[..16.max(part.len() / 2)]))
}

/// Each row: a token, the word of its refusal for the operator, and what the sentence for the client says.
#[track_caller]
fn refused(scene: &mut Scene, rows: &[(&str, String, &str, &str)]) {
    let good = claiming(json!({}));
    for (what, token, word, said) in rows {
        let logged = |relay: &Relay| relay.log().matches(&format!("({word})")).count();
        let before = logged(&scene.relay);
        let Refusal {
            status,
            word: told,
            sentence,
        } = refusal(&scene.relay, "cart:42", Some(token)).unwrap_or_else(|| panic!("{what} counts"));
        assert_eq!((status, told.as_str()), (401, *word), "{what}: {sentence}");
        assert!(sentence.contains(said), "{what}: {sentence}");
        eventually("a line for the operator of each way", || {
            (logged(&scene.relay) == before + 3).then_some(())
        });
    }
    scene.undisturbed();
    assert!(refusal(&scene.relay, "cart:42", Some(&good)).is_none());
    let (log, metrics) = (scene.relay.log(), scene.relay.ask("/metrics").text());
    for (what, token, ..) in rows {
        assert!(!is_told(token, &log) && !is_told(token, &metrics), "{what}");
    }
    scene.over();
}

/// Somebody whom nobody may ask.
struct Elsewhere(TcpListener);

impl Elsewhere {
    fn new() -> Elsewhere {
        Elsewhere(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// The kernel would have taken a connection.
    #[track_caller]
    fn was_not_asked(&self) {
        self.0.set_nonblocking(true).expect("a socket can be made nonblocking");
        let error = self.0.accept().expect_err("nobody connects");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
pub fn no_signature_or_one_of_another_algorithm() {
    let mut scene = scene();
    let public_key = std::fs::read_to_string(PUBLIC_KEY).expect("a key");
    let mut rows = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS257", "hs256", "HS256 ", "RS512"] {
        let token = headed(json!({ "alg": alg }));
        rows.push((
            "an algorithm that is none, with a signature",
            token.clone(),
            "algorithm",
            "algorithm",
        ));
        rows.push(("and without", replaced(&token, 2, ""), "algorithm", "algorithm"));
    }
    for alg in [json!(null), json!(["HS256"]), json!(1), json!({})] {
        rows.push((
            "an algorithm that is no text",
            headed(json!({ "alg": alg })),
            "malformed",
            "algorithm",
        ));
    }
    for secret in [public_key.as_str(), public_key.trim_end(), ""] {
        let token = signed(secret, &header(), &claims(json!({})));
        rows.push((
            "HS256 signed with what is public",
            token,
            "signature",
            "not signed by any key",
        ));
    }
    let rsa = json!({"alg": "RS256"});
    rows.push((
        "RS256 signed as HS256 is",
        signed(&public_key, &rsa, &claims(json!({}))),
        "signature",
        "not signed by any key",
    ));
    rows.push((
        "signed with another secret",
        signed("another secret of 32 bytes length", &header(), &claims(json!({}))),
        "signature",
        "not signed by any key",
    ));
    refused(&mut scene, &rows);
}

#[test]
pub fn claims_that_do_not_count() {
    let mut scene = scene();
    let rows = [
        (
            "expired",
            claiming(json!({"exp": now() - 60})),
            "expired",
            "the token expired 6",
        ),
        (
            "expired at the beginning of time",
            claiming(json!({"exp": 0})),
            "expired",
            "expired",
        ),
        ("no end", claiming(json!({"exp": null})), "no-expiry", "`exp`"),
        (
            "an end that is no number",
            claiming(json!({"exp": "never"})),
            "malformed",
            "`exp`",
        ),
        (
            "an end in milliseconds",
            claiming(json!({"exp": (now() + 600) * 1000})),
            "malformed",
            "milliseconds",
        ),
        (
            "not yet",
            claiming(json!({"nbf": now() + 600})),
            "not-yet-valid",
            "clock",
        ),
        (
            "for another audience",
            claiming(json!({"aud": "keyrelay2"})),
            "audience",
            "audience",
        ),
        (
            "for several others",
            claiming(json!({"aud": ["a", "keyrela"]})),
            "audience",
            "audience",
        ),
        ("for nobody", claiming(json!({"aud": null})), "audience", "audience"),
        ("by another issuer", claiming(json!({"iss": "App"})), "issuer", "issuer"),
        ("by several", claiming(json!({"iss": ["app"]})), "issuer", "issuer"),
        ("by nobody", claiming(json!({"iss": null})), "issuer", "issuer"),
        (
            "a list that is none",
            claiming(json!({"channels": "cart:42"})),
            "malformed",
            "`channels`",
        ),
    ];
    refused(&mut scene, &rows);
    // Whose token is in order, but for another.
    let other = claiming(json!({"sub": "43"}));
    let Refusal { status, word, .. } = refusal(&scene.relay, "cart:42", Some(&other)).expect("a refusal");
    assert_eq!((status, word.as_str()), (403, "not-covered"));
}

#[test]
pub fn tokens_that_were_changed() {
    let mut scene = scene();
    let good = claiming(json!({}));
    let mine = signed(SECRET, &header(), &claims(json!({"sub": "7"})));
    let payload = |token: &str| token.split('.').nth(1).expect("a payload").to_owned();
    let (head, signature) = (
        good.split('.').next().expect("a header"),
        good.split('.').nth(2).expect("a signature"),
    );
    let zeros = URL_SAFE_NO_PAD.encode([0; 32]);
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let never = "not signed by any key";
    let rows = [
        (
            "the payload of another",
            replaced(&mine, 1, &payload(&good)),
            "signature",
            never,
        ),
        (
            "another end",
            replaced(&good, 1, &payload(&claiming(json!({"exp": now() + 9_999})))),
            "signature",
            never,
        ),
        ("no payload", replaced(&good, 1, ""), "signature", never),
        ("no signature", replaced(&good, 2, ""), "signature", never),
        ("a signature of zeros", replaced(&good, 2, &zeros), "signature", never),
        ("half of it", replaced(&good, 2, &signature[..20]), "signature", never),
        (
            "a header that asks for none",
            replaced(&good, 0, &none),
            "algorithm",
            "algorithm",
        ),
        (
            "two parts",
            format!("{head}.{}", payload(&good)),
            "malformed",
            "three parts",
        ),
        ("four", format!("{good}.{signature}"), "malformed", "three parts"),
        (
            "an encrypted one",
            format!("{good}.{signature}.{signature}"),
            "malformed",
            "JWE",
        ),
        ("padding", format!("{good}="), "malformed", "base64url"),
        ("a scheme in front", format!("Bearer {good}"), "malformed", "header"),
        ("a line end behind", format!("{good}\r\n"), "malformed", "base64url"),
        ("NUL behind", format!("{good}\0"), "malformed", "base64url"),
        (
            "text",
            "not a token at all, but long".to_owned(),
            "malformed",
            "three parts",
        ),
    ];
    refused(&mut scene, &rows);
}

/// Keys are those of the config: no name leads to a file, and nobody is asked whom a token names.
#[test]
pub fn keys_that_a_token_brings() {
    let mut scene = scene();
    let elsewhere = Elsewhere::new();
    let url = format!("http://{}/keys", elsewhere.address());
    let own = "a secret that the attacker has chosen for himself";
    let brought = URL_SAFE_NO_PAD.encode(own);
    let mut rows = Vec::new();
    for (name, value) in [
        ("kid", json!("../../../../etc/passwd")),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!(url)),
        ("kid", json!("' UNION SELECT 'secret")),
        ("kid", json!("a\0b\r\nc")),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!([brought])),
        ("jwk", json!({"kty": "oct", "k": brought, "alg": "HS256"})),
    ] {
        for (algorithm, secret) in [("HS256", own), ("HS256", ""), ("RS256", own)] {
            let mut header = json!({"alg": algorithm, "kid": "1"});
            header[name] = value.clone();
            rows.push((
                name,
                signed(secret, &header, &claims(json!({}))),
                "signature",
                "not signed by any key",
            ));
        }
    }
    rows.push((
        "a kid that is no text",
        headed(json!({"alg": "HS256", "kid": {"$ne": 1}})),
        "malformed",
        "`kid`",
    ));
    refused(&mut scene, &rows);
    elsewhere.was_not_asked();
}
