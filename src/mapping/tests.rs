//! That the index finds what trying each mapping would, and that channels lead back to their keys.

use proptest::prelude::*;

use super::*;

fn rule(key: &str, channel: &str) -> Rule {
    Rule {
        subject: Subject::Keys,
        pattern: KeyPattern::parse(key).unwrap(),
        channel: ChannelTemplate::parse(channel).unwrap(),
    }
}

fn mappings(rules: &[(&str, &str)]) -> Mappings {
    Mappings::new(rules.iter().map(|(key, channel)| rule(key, channel)).collect()).unwrap()
}

fn channels(mappings: &Mappings, key: &[u8]) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    mappings.each(key, &mut Scratch::default(), |mapping, channel, _| {
        found.push((mapping.0, channel.to_owned()))
    });
    found
}

#[test]
fn one_key_feeds_several_channels_and_several_mappings_one() {
    let mappings = mappings(&[
        ("cart:{user}", "cart:{user}"),
        ("cart:*", "carts"),
        ("cart-item:{user}:{item}", "cart:{user}"),
    ]);
    assert_eq!(
        channels(&mappings, b"cart:7"),
        [(0, "cart:7".to_owned()), (1, "carts".to_owned())]
    );
    assert_eq!(channels(&mappings, b"cart-item:7:a"), [(2, "cart:7".to_owned())]);
    let sources = mappings.sources("cart:7");
    assert_eq!(sources[0].keys, KeySet::One("cart:7".into()));
    assert_eq!(sources[0].captures, [("user".into(), "7".into())]);
    assert_eq!(sources[1].keys, KeySet::Matching("cart-item:7:*".into()));
    assert_eq!(mappings.sources("carts")[0].keys, KeySet::Matching("cart:*".into()));
    assert!(mappings.sources("cart:7:8").is_empty());
}

#[test]
fn captures_are_escaped_on_the_way_back() {
    let mappings = mappings(&[("msg:{room}:{id}", "room:{room}"), ("room:{room}", "room:{room}")]);
    let sources = mappings.sources("room:*");
    assert_eq!(sources[0].keys, KeySet::Matching(r"msg:\*:*".into()));
    assert_eq!(sources[1].keys, KeySet::One("room:*".into()));
}

#[test]
fn a_channel_that_no_key_leads_to_has_no_source() {
    // `x-y` cannot be the value of `{a}`, which ends at the first `-`.
    let mappings = mappings(&[("{a}-{b}", "{a}:{b}")]);
    assert_eq!(mappings.sources("x:y-z").len(), 1);
    assert!(mappings.sources("x-y:z").is_empty());
    assert!(mappings.sources("%41:z").is_empty());
}

#[test]
fn all_bad_rules_are_told() {
    let rules = vec![rule("a:{b}", "{c}"), rule("a:{b}", "{b}"), rule("{a}:{b}", "{a}{b}")];
    let errors = Mappings::new(rules).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.mapping.0).collect::<Vec<_>>(), [0, 2]);
}

fn why_not(pattern: &str, key: &str) -> String {
    match mappings(&[(pattern, "x")])
        .explain_key(key.as_bytes())
        .remove(0)
        .verdict
    {
        Verdict::No(why) => why,
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn explains_why_a_key_is_not_taken() {
    for (pattern, key, why) in [
        ("cart:{user}", "user:7", "the literal `cart:` is not at the start"),
        ("*:cart", "user:7", "the literal `:cart` is not at the end"),
        (
            "cart:{user}",
            "cart:a:b",
            "`{user}` cannot take `a:b` because of the `:`",
        ),
        (
            "cart:{user}:items",
            "cart:a:b:items",
            "`{user}` cannot take `a:b` because of the `:`",
        ),
        ("cart:{user}", "cart:", "there is nothing that `{user}` could take"),
        ("cart", "carts", "it takes only `cart`"),
        ("a{b}-x{c...}", "ab-y", "the literal `-x` is not where it should be"),
        ("a?", "a", "there is no byte left for a `?`"),
        ("a?", "abc", "something is left over at the end"),
        ("a[b-c]*", "ax", "there is no byte that `[b-c]` takes where it stands"),
    ] {
        assert_eq!(why_not(pattern, key), why, "{pattern} {key}");
    }
}

#[test]
fn explains_keys_and_channels_for_every_mapping() {
    let mappings = mappings(&[
        ("cart:{user}", "cart:{user}"),
        ("item:{user}:{id}", "cart:{user}"),
        ("{a}-{b}", "{a}:{b}"),
    ]);
    let verdicts: Vec<Verdict> = mappings
        .explain_key(b"cart:7")
        .into_iter()
        .map(|one| one.verdict)
        .collect();
    let captures = vec![("user".into(), "7".into())];
    assert_eq!(
        verdicts[0],
        Verdict::Name {
            captures: captures.clone(),
            channel: Ok("cart:7".into())
        }
    );
    assert!(matches!(&verdicts[1], Verdict::No(why) if why == "the literal `item:` is not at the start"));
    let verdicts: Vec<Verdict> = mappings
        .explain_channel("cart:7")
        .into_iter()
        .map(|one| one.verdict)
        .collect();
    let keys = KeySet::Matching("item:7:*".into());
    assert_eq!(verdicts[1], Verdict::Channel { captures, keys });
    let told = |name: &str| mappings.explain_channel(name).remove(2).verdict;
    assert!(matches!(told("x-y:z"), Verdict::No(why) if why.contains("another channel of `{a}-{b}`")));
    assert!(matches!(told("%41:z"), Verdict::No(why) if why.contains("not a channel name")));
}

/// What becomes of a message, by each mapping that takes its topic.
fn published(mappings: &Mappings, topic: &[u8], message: &[u8]) -> Vec<(u32, Result<String, &'static str>)> {
    let mut found = Vec::new();
    mappings.each_published(topic, message, &mut Scratch::default(), |mapping, routed| {
        let routed = routed.map(str::to_owned).map_err(|error| error.reason());
        found.push((mapping.0, routed));
    });
    found
}

fn topics(rules: &[(&str, &str)]) -> Mappings {
    let rules = rules.iter().map(|(topics, channel)| Rule {
        subject: Subject::Topics,
        ..rule(topics, channel)
    });
    Mappings::new(rules.chain([rule("news:{k}", "{k}")]).collect()).unwrap()
}

#[test]
fn what_is_published_goes_by_topic_and_message() {
    let mappings = topics(&[
        ("news:{topic}", "news:{topic}"),
        ("updates", "env:{json.environmentId}"),
        ("updates", "at:{json.a.b...}:{json.n}"),
    ]);
    assert_eq!(
        published(&mappings, b"news:a\xff", b"\0"),
        [(0, Ok("news:a%FF".into()))]
    );
    assert_eq!(
        channels(&mappings, b"news:x"),
        [(3, "x".to_owned())],
        "a key is no topic"
    );
    assert_eq!(published(&mappings, b"elsewhere", b"{}"), []);
    let told = |message: &str| {
        let mut told = published(&mappings, b"updates", message.as_bytes());
        (told.remove(0).1, told.remove(0).1)
    };
    let (env, at) = told(r#"{"environmentId":"e%1","a":{"c":[],"b":"x:y"},"n":1.50}"#);
    assert_eq!((env, at), (Ok("env:e%251".into()), Ok("at:x:y:1.50".into())));
    let (env, at) = told(r#" {"environmentId":1,"\u0065nvironmentId":true,"a":{"b":"x"},"n":"1"} "#);
    assert_eq!((env, at), (Ok("env:true".into()), Ok("at:x:1".into())));
}

#[test]
fn a_message_without_the_field_has_no_channel() {
    let mappings = topics(&[("t", "env:{json.a.b}")]);
    let why = |message: &[u8]| published(&mappings, b"t", message).remove(0).1.unwrap_err();
    for message in [
        &b""[..],
        b"text",
        b"[1]",
        b"1",
        b"{\"a\":{\"b\":1}",
        b"{\"a\":{\"b\":1}}x",
        b"\xff",
        b"\xef\xbb\xbf{}",
    ] {
        assert_eq!(why(message), "not_an_object", "{}", message.escape_ascii());
    }
    for message in [
        r#"{}"#,
        r#"{"a":1}"#,
        r#"{"a":{}}"#,
        r#"{"a":{"b":null}}"#,
        r#"{"a":{"b":[]}}"#,
        r#"{"a":{"b":{}}}"#,
        r#"{"a":{"b":"\ud800"}}"#,
        r#"{"a.b":1}"#,
    ] {
        assert_eq!(why(message.as_bytes()), "no_field", "{message}");
    }
    // It must not become the name of another channel.
    for message in [r#"{"a":{"b":"x:y"}}"#, r#"{"a":{"b":""}}"#] {
        assert_eq!(why(message.as_bytes()), "not_a_name", "{message}");
    }
    let deep = format!(
        "{{\"x\":{}{},\"a\":{{\"b\":1}}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(published(&mappings, b"t", deep.as_bytes())[0].1, Ok("env:1".into()));
}

#[test]
fn a_channel_of_messages_is_known_by_its_form() {
    let mappings = topics(&[("news:{topic}", "{topic}:{json.id}"), ("t:{a}-{b}", "x:{a}:{b}")]);
    let sources = |name: &str| mappings.sources(name);
    let source = &sources("sport:7")[0];
    assert_eq!(source.captures, [("topic".into(), Bytes::from("sport"))]);
    assert_eq!(source.keys, KeySet::Published("news:sport".into()));
    assert_eq!(sources("sport:")[..], []);
    assert_eq!(sources("x:1:2")[0].keys, KeySet::Published("t:1-2".into()));
    assert_eq!(sources("x:1-:2")[..], [], "the topic belongs to x:1:-2");
}

#[test]
fn keys_have_no_fields() {
    let error = Mappings::new(vec![rule("k:{a}", "{json.id}")]).unwrap_err().remove(0);
    assert!(error.problem.what.contains("a field of a JSON message"), "{error}");
}

#[test]
fn looking_up_again_needs_no_more_memory() {
    let mappings = mappings(&[
        ("cart:{user}", "cart:{user}"),
        ("*a{x}:{y}", "{x}:{y}"),
        ("a{b}?{c}", "{b}"),
    ]);
    let keys: [&[u8]; 3] = [b"cart:77", b"bab:cc", b"abcd"];
    let mut scratch = Scratch::default();
    let mut taken = 0;
    let mut look_up = |scratch: &mut Scratch| keys.map(|key| mappings.each(key, scratch, |_, _, _| taken += 1));
    look_up(&mut scratch);
    let before = (
        scratch.memory.capacity(),
        scratch.candidates.capacity(),
        scratch.channel.capacity(),
    );
    look_up(&mut scratch);
    assert_eq!(
        (
            scratch.memory.capacity(),
            scratch.candidates.capacity(),
            scratch.channel.capacity()
        ),
        before
    );
    assert_eq!(taken, 8);
}

/// Patterns of all the kinds that the index tells apart, from few segments, so that many share a key.
fn any_pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        6 => "[ab]{0,2}",
        2 => Just("{#}".to_owned()),
        1 => Just("*".to_owned()),
        1 => Just("{#...}".to_owned()),
        1 => Just("?".to_owned()),
        1 => Just("[ab]".to_owned()),
        1 => Just("a{#}".to_owned()),
        1 => Just("{#}-b".to_owned()),
        1 => Just("ab*".to_owned()),
        1 => Just("*aabbaabb".to_owned()),
    ];
    let text = prop::collection::vec(segment, 1..12).prop_map(|segments| {
        let numbered = segments
            .iter()
            .enumerate()
            .map(|(number, segment)| segment.replace('#', &format!("c{number}")));
        numbered.collect::<Vec<_>>().join(":")
    });
    text.prop_filter("not a pattern", |text| KeyPattern::parse(text).is_ok())
}

/// A key that is likely taken by a pattern: the pattern with something in place of what is not literal.
fn key_like(pattern: &str, fillings: &[String]) -> String {
    let mut fillings = fillings.iter().cycle();
    let mut key = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '*', '?', '[']) {
        key.push_str(&rest[..at]);
        key.push_str(fillings.next().map_or("", |filling| filling));
        let length = match rest.as_bytes()[at] {
            b'{' => rest[at..].find('}').unwrap() + 1,
            b'[' => rest[at..].find(']').unwrap() + 1,
            _ => 1,
        };
        rest = &rest[at + length..];
    }
    key + rest
}

fn mappings_and_keys() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    let patterns = prop::collection::vec(any_pattern(), 1..40);
    let strays = prop::collection::vec("[ab:-]{0,12}", 10);
    (
        patterns,
        strays,
        prop::collection::vec("[ab]{1,2}|a:b|[a*?\\[\\\\^\\]]{1,3}", 3),
    )
        .prop_map(|(patterns, mut keys, fillings)| {
            keys.extend(patterns.iter().map(|pattern| key_like(pattern, &fillings)));
            (patterns, keys)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_index_finds_what_trying_each_would((texts, keys) in mappings_and_keys()) {
        let patterns: Vec<KeyPattern> = texts.iter().map(|text| KeyPattern::parse(text).unwrap()).collect();
        let index = Index::new((0..).zip(patterns.iter().map(|pattern| pattern.program())));
        let mut found = Vec::new();
        for key in &keys {
            let key = key.as_bytes();
            index.candidates(key, &mut found);
            prop_assert!(found.is_sorted());
            found.retain(|&number| patterns[number as usize].is_match(key));
            let tried: Vec<u32> = (0..).zip(&patterns).filter(|(_, p)| p.is_match(key)).map(|(number, _)| number).collect();
            prop_assert_eq!(&found, &tried, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn a_channel_leads_back_to_its_key((texts, keys) in mappings_and_keys(), dropped in 0usize..4) {
        // Each pattern with the default channel, and where it has captures with a channel of some of them.
        let rules = texts.iter().flat_map(|text| {
            let pattern = KeyPattern::parse(text).unwrap();
            let some = pattern.captures().iter().rev().skip(dropped).map(|name| format!("{{{name}}}"));
            let template = format!("x:{}", some.collect::<Vec<_>>().join(":"));
            let other = Rule { subject: Subject::Keys, channel: ChannelTemplate::parse(&template).unwrap(), pattern: pattern.clone() };
            [Rule { subject: Subject::Keys, channel: pattern.default_channel(), pattern }, other]
        });
        let rules: Vec<Rule> = rules.filter(|rule| rule.channel.bind(&rule.pattern, rule.subject).is_ok()).collect();
        let mappings = Mappings::new(rules).unwrap();
        let mut scratch = Scratch::default();
        for key in &keys {
            let mut failure = None;
            mappings.each(key.as_bytes(), &mut scratch, |mapping, channel, captures| {
                let source = mappings.sources(channel).into_iter().find(|source| source.mapping == mapping);
                let right = source.as_ref().is_some_and(|source| {
                    let covered = match &source.keys {
                        KeySet::One(one) => one == key.as_bytes(),
                        KeySet::Matching(glob) => {
                            KeyPattern::parse(std::str::from_utf8(glob).unwrap()).unwrap().is_match(key.as_bytes())
                        }
                        KeySet::Published(_) => false,
                    };
                    covered && source.captures.iter().all(|(name, value)| captures.get(name) == Some(&value[..]))
                });
                if !right {
                    failure = Some(format!("{key} {channel} {source:?}"));
                }
            });
            prop_assert_eq!(failure, None);
        }
    }

    #[test]
    fn a_source_of_one_key_gives_its_channel_again((texts, keys) in mappings_and_keys()) {
        let rules = texts.iter().map(|text| {
            let pattern = KeyPattern::parse(text).unwrap();
            Rule { subject: Subject::Keys, channel: pattern.default_channel(), pattern }
        });
        let rules: Vec<Rule> = rules.filter(|rule| rule.channel.bind(&rule.pattern, rule.subject).is_ok()).collect();
        let mappings = Mappings::new(rules).unwrap();
        for channel in &keys {
            for source in mappings.sources(channel) {
                if let KeySet::One(key) = source.keys {
                    prop_assert!(channels(&mappings, &key).contains(&(source.mapping.0, channel.clone())));
                }
            }
        }
    }
}
