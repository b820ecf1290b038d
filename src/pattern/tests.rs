use super::*;

fn takes(pattern: &str, key: &[u8]) -> bool {
    KeyPattern::parse(pattern).unwrap().is_match(key)
}

#[test]
fn glob_follows_the_server_in_odd_cases() {
    let cases: &[(&str, &[u8], bool)] = &[
        ("*", b"", true),
        ("**", b"", true),
        ("*?", b"", false),
        ("a*", b"a", true),
        ("a**", b"a", true),
        ("*a", b"ba", true),
        ("a\\", b"a\\", true),
        ("\\*", b"*", true),
        ("\\*", b"x", false),
        ("a[", b"a", false),
        ("a[", b"ab", false),
        ("a[^", b"ab", true),
        ("a[bc", b"ac", true),
        ("[]a]", b"a]", false),
        ("[^]a", b"xa", true),
        ("[z-a]x", b"mx", true),
        ("[a-]x]", b"`", true),
        ("[\\]x]", b"]", true),
        ("[a\\", b"\\", true),
        ("[--/]", b".", true),
        ("?", b"\xff", true),
        ("[^a]", b"\xff", true),
        ("[*]", b"*", true),
        ("[*]", b"a", false),
    ];
    for &(pattern, key, expected) in cases {
        assert_eq!(takes(pattern, key), expected, "{pattern} {}", key.escape_ascii());
    }
}
