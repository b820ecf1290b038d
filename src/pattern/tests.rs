//! That patterns and templates mean what the server and their description say, forth and back.

use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> KeyPattern {
    KeyPattern::parse(text).unwrap()
}

fn captured(text: &str, key: &str) -> Option<Vec<String>> {
    let pattern = pattern(text);
    let mut memory = Memory::default();
    pattern.program().run(key.as_bytes(), &mut memory).then(|| {
        let spans = &memory.spans;
        let captures = Captures {
            names: pattern.names(),
            spans,
            key: key.as_bytes(),
        };
        captures
            .iter()
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    })
}

#[test]
fn glob_follows_the_server_in_odd_cases() {
    let cases: &[(&str, &[u8], bool)] = &[
        ("*", b"", true),
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
        ("[{}]", b"{", true),
        ("\\{user\\}:x", b"{user}:x", true),
    ];
    for &(text, key, expected) in cases {
        assert_eq!(pattern(text).is_match(key), expected, "{text} {}", key.escape_ascii());
    }
}

#[test]
fn captures_take_as_little_as_they_can_from_left_to_right() {
    let cases: &[(&str, &str, Option<&[&str]>)] = &[
        ("cart:{user}", "cart:7", Some(&["7"])),
        ("cart:{user}", "cart:", None),
        ("cart:{user}", "cart:7:8", None),
        ("cart:{user...}", "cart:7:8", Some(&["7:8"])),
        ("{a}-{b}", "x-y-z", Some(&["x", "y-z"])),
        ("{a}-{b}:c", "x-y:z-c", None),
        ("{path...}:{file}", "a:b:c", Some(&["a:b", "c"])),
        ("*a{x}", "a:ab", Some(&["b"])),
        ("*:{id}", "a:b:c", Some(&["c"])),
        ("{a}?{b}:z", "xy:w:z", Some(&["xy", "w"])),
        ("{a}[0-9]{b}", "ab1:2c", None),
        ("\\{{user}\\}:cart", "{7}:cart", Some(&["7"])),
    ];
    for &(text, key, expected) in cases {
        let expected = expected.map(|values| values.iter().map(|value| (*value).to_owned()).collect());
        assert_eq!(captured(text, key), expected, "{text} {key}");
    }
}

#[test]
fn keys_and_captures_need_not_be_utf8() {
    let pattern = pattern("k:{id}");
    assert!(pattern.is_match(b"k:\xff\0"));
    assert_eq!(pattern.fill(|_| Some(b"\xff*")), Filled::Key(b"k:\xff*".to_vec()));
    let wider = KeyPattern::parse("k:{id}:*").unwrap();
    assert_eq!(wider.fill(|_| Some(b"\xff*")), Filled::Glob(b"k:\xff\\*:*".to_vec()));
}

#[test]
fn views_of_a_pattern() {
    assert_eq!(pattern("a\\*[*]").literal(), Some(b"a**".to_vec()));
    assert_eq!(pattern("a{b}").literal(), None);
    assert_eq!(pattern("a:b{c}d").prefix(), b"a:b");
    assert_eq!(pattern("{c}d").prefix(), b"");
    assert_eq!(pattern("a\\*{b}?[c-d]\\[").glob(), b"a\\**?[c-d]\\[");
    assert_eq!(pattern("a\\*").glob(), b"a\\*");
    assert_eq!(pattern("a:{b}:{c...}").to_string(), "a:{b}:{c...}");
}

#[test]
fn fields_of_messages_are_told_apart_as_captures_are() {
    let bound =
        |channel: &str| ChannelTemplate::parse(channel).and_then(|it| it.bind(&pattern("t:{a}"), Subject::Topics));
    let template = bound("{a}:{json.x.y}:{json.z...}").unwrap();
    let paths: Vec<Vec<&str>> = template.fields().iter().map(|field| field.path().collect()).collect();
    assert_eq!(paths, [vec!["x", "y"], vec!["z"]]);
    assert!(template.fields()[1].takes("a:b") && !template.fields()[0].takes("a:b"));
    for (channel, at) in [
        ("{a}{json.x}", 0..11),
        ("{json.x}-{json.y}", 0..17),
        ("{json.x...}:{json.y...}", 12..23),
        ("{json.x}:{json.x}", 9..17),
        ("{json.}", 0..7),
        ("{json.a..b}", 0..11),
        ("{json.a", 0..7),
    ] {
        assert_eq!(bound(channel).unwrap_err().at, at, "{channel}");
    }
    // Without a capture of the same place it is no copy of the pattern.
    assert!(
        ChannelTemplate::parse("{json.a}{json.b}")
            .unwrap()
            .bind(&pattern("*"), Subject::Topics)
            .is_err()
    );
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    let cases = [
        ("", 0..0),
        ("a:{b", 2..4),
        ("a}", 1..2),
        ("{}", 0..2),
        ("{a b}", 0..5),
        ("x:{json.id}", 2..11),
        ("{a}:{a}", 4..7),
        ("{a}{b}", 3..6),
        ("{a}*", 3..4),
        ("*{a}", 1..4),
        ("x[a-é]y", 1..7),
        ("x[é-z", 1..6),
    ];
    for (text, at) in cases {
        let error = KeyPattern::parse(text).unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(text.get(error.at.clone()).is_some(), "{text}: {error}");
    }
    assert!(KeyPattern::parse(&"a".repeat(1025)).is_err());
}

#[test]
fn templates_that_cannot_be_turned_back_are_refused() {
    let cases = [
        ("{a}-{b}:x", "{a}-{b}", Some(0..7)),
        ("{a}:{b}", "{a}{b}", Some(0..6)),
        ("{a}:{b}", "x{b}{a}", Some(1..7)),
        ("{a...}/{b...}", "{a}:{b}", Some(4..7)),
        ("{a}:{b}", "{c}", Some(0..3)),
        ("{a}:{b}", "{a...}", Some(0..6)),
        ("{a}-{b}", "{a}-{b}", None),
        ("{a}-{b}", "{b}-{a}", Some(0..7)),
        ("{a}-{b}", "{b}:{a}", None),
        ("{a}:{b...}:{c}", "{c}:{b}:{a}", None),
        ("{a...}:{b}", "{b} of: {a...}", None),
        ("{a}:{b}", "all", None),
    ];
    for (key, channel, at) in cases {
        let bound = ChannelTemplate::parse(channel)
            .unwrap()
            .bind(&pattern(key), Subject::Keys);
        assert_eq!(bound.err().map(|error| error.at), at, "{key} {channel}");
    }
}

#[test]
fn templates_overlap_where_a_name_fits_both() {
    let bound = |key: &str, channel: &str| {
        ChannelTemplate::parse(channel)
            .unwrap()
            .bind(&pattern(key), Subject::Keys)
            .unwrap()
    };
    let cart = bound("cart:{user}", "cart:{user}");
    assert!(cart.overlaps(&bound("all", "cart:all")));
    assert!(cart.overlaps(&bound("c:{path...}", "{path}")));
    assert!(cart.overlaps(&bound("x:{a}", "{a}:7")));
    assert!(!cart.overlaps(&bound("x:{a}", "x:{a}")));
    assert!(!cart.overlaps(&bound("x", "cart:7:8")));
    assert!(!cart.overlaps(&bound("x:{a}", "{a}")));
}

#[test]
fn the_default_channel_is_the_pattern_with_its_wildcards_as_text() {
    for (text, key, channel) in [
        ("cache:*", "cache:17", "cache:*"),
        ("app:{id}:[a-c]?", "app:1:bx", "app:1:[a-c]?"),
        ("a\\*b", "a*b", "a*b"),
        ("[{}]:{id}", "{:7", "[{}]:7"),
        ("100%:{id}", "100%:\n", "100%25:%0A"),
    ] {
        let pattern = pattern(text);
        let bound = pattern.default_channel().bind(&pattern, Subject::Keys).unwrap();
        let mut memory = Memory::default();
        assert!(pattern.program().run(key.as_bytes(), &mut memory));
        let captures = Captures {
            names: pattern.names(),
            spans: &memory.spans,
            key: key.as_bytes(),
        };
        let mut name = String::new();
        bound.render(&captures, &[], &mut name);
        assert_eq!(name, channel);
    }
}

#[test]
fn a_hostile_key_costs_time_in_proportion_to_its_length() {
    // Each of these would take ages by plain backtracking; the key is long enough that a square of it would, too.
    let key = [&b"a".repeat(200_000)[..], b":b"].concat();
    for text in [
        "*a*a*a*a*a*a*a*a*a*c",
        "{a}a{b}a{c}a{d}a{e}c",
        "*a{a}a{b}?{c}?{d}c",
        "*a{x}:c",
        "*a{x}a{y}b{z}",
    ] {
        assert!(!pattern(text).is_match(&key), "{text}");
    }
}

#[test]
fn a_channel_name_has_one_form() {
    for (bytes, expected) in [
        (&b"cart:42"[..], "cart:42"),
        (b"a b/\xc3\xa9", "a b/é"),
        (b"50%\n\x7f", "50%25%0A%7F"),
        (b"\xff\xc3x", "%FF%C3x"),
    ] {
        let mut encoded = String::new();
        name::encode(bytes, &mut encoded);
        assert_eq!(encoded, expected);
        assert_eq!(name::decode(expected).as_deref(), Some(bytes));
    }
    for text in ["%41", "%0a", "%", "%2", "%zz", "a\n", "%C3%A9", "%+1"] {
        assert_eq!(name::decode(text), None, "{text}");
    }
}

/// The smallest description of a match: every way is tried, the shortest first.
fn reference(ops: &[Op], key: &[u8]) -> Option<Vec<Span>> {
    fn walk(ops: &[Op], key: &[u8], at: usize, spans: &mut Vec<Span>) -> bool {
        let Some((op, after)) = ops.split_first() else {
            return at == key.len();
        };
        match op {
            Op::Literal(bytes) => key[at..].starts_with(bytes) && walk(after, key, at + bytes.len(), spans),
            Op::Any => at < key.len() && walk(after, key, at + 1, spans),
            Op::OneOf(set, _) => key.get(at).is_some_and(|&byte| set.has(byte)) && walk(after, key, at + 1, spans),
            Op::Gap(gap) => (at + usize::from(gap.takes != Takes::Any)..=key.len())
                .take_while(|&end| gap.takes != Takes::Segment || !key[at..end].contains(&b':'))
                .any(|end| {
                    let known = spans.len();
                    spans.extend(gap.capture.map(|_| Span { from: at, to: end }));
                    walk(after, key, end, spans) || {
                        spans.truncate(known);
                        false
                    }
                }),
        }
    }
    let mut spans = Vec::new();
    walk(ops, key, 0, &mut spans).then_some(spans)
}

/// Patterns that are mostly special characters, over few letters.
fn any_pattern() -> impl Strategy<Value = KeyPattern> {
    let piece = prop_oneof![
        4 => "[ab:-]{1,2}",
        1 => Just("*".to_owned()),
        1 => Just("?".to_owned()),
        1 => prop_oneof![Just("[a:]"), Just("[^a]"), Just("[b-a]")].prop_map(str::to_owned),
        2 => Just("{#}".to_owned()),
        1 => Just("{#...}".to_owned()),
    ];
    prop::collection::vec(piece, 1..8).prop_filter_map("adjacent captures", |pieces| {
        let pieces = pieces
            .iter()
            .enumerate()
            .map(|(number, piece)| piece.replace('#', &format!("c{number}")));
        KeyPattern::parse(&pieces.collect::<String>()).ok()
    })
}

/// A template of captures of the pattern in any order, with literals of few letters between them.
fn any_template(captures: usize) -> impl Strategy<Value = String> {
    let order = Just((0..captures).collect::<Vec<_>>()).prop_shuffle();
    (order, 0..=captures, prop::collection::vec("[ab:-]{0,2}", captures + 1)).prop_map(|(order, used, literals)| {
        let mut text = literals[0].clone();
        for (index, literal) in order.into_iter().take(used).zip(&literals[1..]) {
            text += &format!("{{#{index}}}{literal}");
        }
        text
    })
}

fn with_template(pattern: KeyPattern) -> impl Strategy<Value = (KeyPattern, BoundChannel)> {
    any_template(pattern.captures().len()).prop_filter_map("ambiguous", move |mut text| {
        for (index, name) in pattern.captures().iter().enumerate() {
            text = text.replace(&format!("#{index}"), name);
        }
        let bound = ChannelTemplate::parse(&text).ok()?.bind(&pattern, Subject::Keys).ok()?;
        Some((pattern.clone(), bound))
    })
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&b"aaabb::--\xff"[..]), 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_matcher_agrees_with_its_description(pattern in any_pattern(), key in any_key()) {
        let mut memory = Memory::default();
        let taken = pattern.program().run(&key, &mut memory);
        prop_assert_eq!(taken.then_some(memory.spans), reference(pattern.program().ops(), &key));
    }

    #[test]
    fn a_glob_takes_every_key_of_its_pattern(pattern in any_pattern(), key in any_key()) {
        let glob = KeyPattern::parse(std::str::from_utf8(&pattern.glob()).unwrap()).unwrap();
        prop_assert!(!pattern.is_match(&key) || glob.is_match(&key), "{pattern} {glob}");
        prop_assert!(!pattern.is_match(&key) || key.starts_with(&pattern.prefix()));
    }

    #[test]
    fn an_example_is_taken_by_its_pattern(pattern in any_pattern()) {
        if let Some(example) = pattern.example() {
            prop_assert!(pattern.is_match(&example), "{:?}", example);
        }
    }

    #[test]
    fn a_name_tells_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        let mut encoded = String::new();
        name::encode(&bytes, &mut encoded);
        let decoded = name::decode(&encoded);
        prop_assert_eq!(decoded.as_deref(), Some(&bytes[..]));
    }

    #[test]
    fn a_text_has_at_most_one_meaning(text in "[a%0-2A-Fé]{0,8}") {
        if let Some(bytes) = name::decode(&text) {
            let mut encoded = String::new();
            name::encode(&bytes, &mut encoded);
            prop_assert_eq!(encoded, text);
        }
    }

    #[test]
    fn captures_come_back_from_the_channel(
        (pattern, channel) in any_pattern().prop_flat_map(with_template),
        keys in prop::collection::vec(any_key(), 30),
    ) {
        for key in keys {
            let mut memory = Memory::default();
            if !pattern.program().run(&key, &mut memory) {
                continue;
            }
            let captures = Captures { names: pattern.names(), spans: &memory.spans, key: &key };
            let mut name = String::new();
            channel.render(&captures, &[], &mut name);
            let bytes = name::decode(&name).expect("a rendered name is canonical");
            let mut back = Memory::default();
            prop_assert!(channel.program().run(&bytes, &mut back));
            for (span, &source) in back.spans.iter().zip(channel.sources()) {
                prop_assert_eq!(&bytes[span.from..span.to], captures.at(source.unwrap()), "{} {}", pattern, name);
            }
        }
    }

    #[test]
    fn no_channel_can_be_split_in_two_ways(
        (pattern, channel) in any_pattern().prop_flat_map(with_template),
        bytes in any_key(),
    ) {
        // Read from the right, every capture taking as little as it can, gives the same captures.
        let mirrored = |op: &Op| match op {
            Op::Literal(bytes) => Op::Literal(bytes.iter().rev().copied().collect()),
            op => op.clone(),
        };
        let backwards = Program::new(channel.program().ops().iter().rev().map(mirrored).collect());
        let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
        let (mut left, mut right) = (Memory::default(), Memory::default());
        let taken = channel.program().run(&bytes, &mut left);
        prop_assert_eq!(taken, backwards.run(&reversed, &mut right));
        let is_key = channel.program().ops().len() == pattern.program().ops().len();
        if taken && !is_key {
            let mirror = |span: &Span| Span { from: bytes.len() - span.to, to: bytes.len() - span.from };
            prop_assert_eq!(left.spans, right.spans.iter().map(mirror).collect::<Vec<_>>());
        }
    }

    #[test]
    fn templates_that_share_a_name_overlap(
        (_, a) in any_pattern().prop_flat_map(with_template),
        (_, b) in any_pattern().prop_flat_map(with_template),
        names in prop::collection::vec(any_key(), 50),
    ) {
        let mut memory = Memory::default();
        let shared = names.iter().find(|name| a.program().run(name, &mut memory) && b.program().run(name, &mut memory));
        prop_assert!(shared.is_none() || a.overlaps(&b));
        prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        prop_assert!(a.overlaps(&a));
    }
}
