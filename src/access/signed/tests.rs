//! Signed names by vectors, and attacks on them. Those that a real Rails made are in `tests/it/credentials.rs`.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

/// Made with AnyCable's published recipe.
const CHAT: &str = "ImNoYXQvMjAyMyI=--2b2e054b6413bf3bc7e8bbad2f68962aa2ba19821800ccbd8de6fd7314e8320c";
/// "messages", by the keys that Turbo and CableReady derive of the base below.
const TURBO: &str = "Im1lc3NhZ2VzIg==--37d167f3c32c475876ccef55b4b9672bec85810fe816a183157b41dfed95d334";
const CABLE_READY: &str = "Im1lc3NhZ2VzIg==--33697a39ee902c482b76de9a565433ac2aaee9aba073cc631a24e9f8dab722a8";

const NOW: &str = "2026-11-26T12:00:00.000Z";

fn base() -> String {
    "0123456789abcdef".repeat(8)
}

fn now() -> SystemTime {
    humantime::parse_rfc3339(NOW).unwrap()
}

fn key() -> Key {
    Key::new(b"a key that only the app and keyrelay know")
}

fn options(key: Key, purpose: Option<&str>) -> Options {
    Options {
        key,
        purpose: purpose.map(str::to_owned),
    }
}

/// Any text, signed.
fn sign(text: &str) -> String {
    let signature = hmac::sign(&key().0, text.as_bytes());
    let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}--{hex}")
}

fn sign_json(json: &str) -> String {
    sign(&STANDARD.encode(json))
}

fn judge(purpose: Option<&str>, text: &str) -> Result<Signed, Failure> {
    verify(&[options(key(), purpose)], text, now())
}

fn word(purpose: Option<&str>, text: &str) -> &'static str {
    judge(purpose, text).map_or_else(|failure| failure.word(), |_| "ok")
}

fn channel(options: Options, text: &str) -> Result<String, Failure> {
    verify(&[options], text, now()).map(|signed| signed.channel)
}

#[test]
fn known_names_are_opened() {
    let chat = options(Key::new(b"s3Krit"), None);
    assert_eq!(channel(chat, CHAT).unwrap(), "chat/2023");
    let derived = |salt| options(Key::derived(base().as_bytes(), salt, Digest::Sha256), None);
    assert_eq!(channel(derived(TURBO_SALT), TURBO).unwrap(), "messages");
    assert_eq!(channel(derived(CABLE_READY_SALT), CABLE_READY).unwrap(), "messages");
    assert_eq!(
        channel(derived(CABLE_READY_SALT), TURBO).unwrap_err(),
        Failure::Signature
    );
    let old = options(Key::derived(base().as_bytes(), TURBO_SALT, Digest::Sha1), None);
    assert_eq!(channel(old, TURBO).unwrap_err(), Failure::Signature);
    assert_eq!(options(Key::new(b"s3Krit"), None).mint("chat/2023", None), CHAT);
}

#[test]
fn several_keys_count_side_by_side() {
    let both = [
        options(Key::new(b"s3Krit"), None),
        options(key(), Some("live")),
        options(key(), None),
    ];
    assert_eq!(verify(&both, CHAT, now()).unwrap().channel, "chat/2023");
    assert_eq!(verify(&both, &sign_json("\"a\""), now()).unwrap().channel, "a");
    let live = sign_json(r#"{"_rails":{"data":"b","pur":"live"}}"#);
    assert_eq!(verify(&both, &live, now()).unwrap().channel, "b");
    assert_eq!(
        verify(&both[..2], &sign_json("\"a\""), now()).unwrap_err(),
        Failure::Purpose
    );
    assert_eq!(verify(&[], CHAT, now()).unwrap_err(), Failure::Signature);
}

#[test]
fn purposes_are_equal_or_nothing() {
    let none = sign_json("\"a\"");
    let live = sign_json(r#"{"_rails":{"data":"a","exp":null,"pur":"live"}}"#);
    let null = sign_json(r#"{"_rails":{"data":"a","pur":null}}"#);
    let legacy = json!({"_rails": {"message": STANDARD.encode("\"a\""), "exp": null, "pur": "live"}});
    let legacy = sign_json(&legacy.to_string());
    for (purpose, text, expected) in [
        (None, &none, "ok"),
        (None, &null, "ok"),
        (None, &live, "purpose"),
        (None, &legacy, "purpose"),
        (Some("live"), &live, "ok"),
        (Some("live"), &legacy, "ok"),
        (Some("live"), &none, "purpose"),
        (Some("live"), &null, "purpose"),
        (Some("LIVE"), &live, "purpose"),
    ] {
        assert_eq!(word(purpose, text), expected, "{purpose:?} {text}");
    }
}

#[test]
fn an_end_is_kept() {
    let until = |exp: Value| sign_json(&json!({"_rails": {"data": "a", "exp": exp, "pur": null}}).to_string());
    let later = judge(None, &until("2026-11-26T12:00:00.001Z".into())).unwrap();
    assert_eq!(later.expires, Some(now() + Duration::from_millis(1)));
    // Rails: what ends now is over.
    assert_eq!(judge(None, &until(NOW.into())), Err(Failure::Expired(Duration::ZERO)));
    let over = judge(None, &until("2026-11-26T11:59:55Z".into()));
    assert_eq!(over, Err(Failure::Expired(Duration::from_secs(5))));
    assert_eq!(
        judge(None, &until("1960-01-01T00:00:00.000Z".into())).map_err(|failure| failure.word()),
        Err("malformed")
    );
    for wrong in [
        json!(""),
        json!("tomorrow"),
        json!("2026-13-01T00:00:00Z"),
        json!("2027-01-01"),
        json!(1_900_000_000),
        json!(["2027-01-01T00:00:00Z"]),
        json!(false),
    ] {
        assert_eq!(word(None, &until(wrong.clone())), "malformed", "{wrong}");
    }
    assert!(now() > UNIX_EPOCH);
}

#[test]
fn only_texts_are_names() {
    for wrong in [
        "7",
        "null",
        "[\"a\"]",
        "a",
        "",
        "\"a\" \"b\"",
        r#"{"_rails":"a"}"#,
        r#"{"_rails":{}}"#,
        r#"{"_rails":{"data":7}}"#,
        r#"{"_rails":{"data":{"_rails":{"data":"a"}}}}"#,
        r#"{"_rails":{"message":"%"}}"#,
        r#"{"_rails":{"message":"YQ=="}}"#,
        r#"{"_rails":{"message":7}}"#,
        r#"{"_rails":{"data":"a","pur":7}}"#,
        r#"{"_rails":{"data":"a"},"_rails":{"data":"b"}}"#,
        r#"{"data":"a"}"#,
        // What Marshal makes of "a".
        "\u{4}\u{8}I\"\u{6}a\u{6}:\u{6}ET",
    ] {
        assert_eq!(word(None, &sign_json(wrong)), "malformed", "{wrong}");
    }
    assert_eq!(word(None, &sign("%%%")), "malformed");
    assert_eq!(judge(None, &sign_json("\"\\u00e9\\n\"")).unwrap().channel, "é\n");
}

#[test]
fn either_alphabet_of_base64_is_read() {
    // Its base64 has both of the characters in which the alphabets differ.
    let json = "\"??>>~~\u{fb}\u{ff}?\"";
    let standard = STANDARD.encode(json);
    assert!(standard.contains('/') || standard.contains('+'), "{standard}");
    let url_safe = URL_SAFE.encode(json);
    for text in [
        &standard,
        standard.trim_end_matches('='),
        &url_safe,
        url_safe.trim_end_matches('='),
    ] {
        assert_eq!(
            judge(None, &sign(text)).unwrap().channel,
            "??>>~~\u{fb}\u{ff}?",
            "{text}"
        );
    }
}

#[test]
fn what_was_changed_is_not_believed() {
    let good = sign_json("\"room:1\"");
    for at in 0..good.len() {
        for other in [b'0', b'A', b'-', b'='] {
            let mut bytes = good.clone().into_bytes();
            if bytes[at] == other {
                continue;
            }
            bytes[at] = other;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(
                judge(None, &changed).is_err(),
                "character {at} may be {}",
                other as char
            );
        }
        assert!(judge(None, &good[..at]).is_err());
        assert!(judge(None, &good[at + 1..]).is_err());
    }
    for wrong in [
        good.to_uppercase(),
        good.replace("--", "-"),
        good.replace("--", "----"),
        format!("{good}\n"),
        "é".repeat(66),
        "-".repeat(66),
        String::new(),
        sign_json(&format!("\"{}\"", "a".repeat(MAX_SIGNED))),
    ] {
        assert!(judge(None, &wrong).is_err(), "{wrong}");
    }
    // Signed with SHA1, as a verifier without `digest` does in old apps: another form altogether.
    assert_eq!(
        word(None, "ImEi--0123456789012345678901234567890123456789"),
        "malformed"
    );
}

#[test]
fn nothing_of_a_key_is_shown() {
    assert_eq!(
        format!("{:?}", options(key(), None)),
        "Options { key: Key, purpose: None }"
    );
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "\\PC{0,200}", json in "\\PC{0,100}") {
        prop_assert!(judge(None, &text).is_err());
        let _ = judge(None, &sign_json(&json));
        let _ = judge(None, &sign(&json));
    }
}
