//! What each payload looks like, and what can never happen to one.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::hub::Snapshot;
use crate::keyspace::StreamEntry;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn options(format: Format) -> Options {
    Options {
        format,
        decode: Decode::None,
        fields: None,
        expires: false,
        heard: false,
        max_value: 1024 * 1024,
    }
}

fn json_renderer(decode: Decode) -> Renderer {
    Renderer::new(
        Options {
            decode,
            ..options(Format::Json)
        },
        &[],
    )
    .unwrap()
}

fn template(change: &str) -> Format {
    Format::Template {
        change: change.into(),
        absent: None,
        on_reset: None,
    }
}

fn template_renderer(change: &str) -> Renderer {
    Renderer::new(
        Options {
            decode: Decode::Json,
            ..options(template(change))
        },
        &[Arc::from("id")],
    )
    .unwrap()
}

fn render(renderer: &Renderer, key: &[u8], value: Value, event: Option<&str>) -> Result<Payload, Unsendable> {
    let captures = [(Arc::from("id"), b("7\"<"))];
    renderer.render(&Change {
        channel: "c:1",
        key,
        captures: &captures,
        value: &renderer.project(value),
        event: event.map(|name| EventName::from_bytes(name.as_bytes())).as_ref(),
        expires_at: Some(1_763_762_345_678),
        heard_at: event.map(|_| 1_763_762_345_678_009),
    })
}

fn live(payload: &Payload) -> &str {
    std::str::from_utf8(&payload.live).unwrap()
}

fn json_of(renderer: &Renderer, value: Value) -> String {
    let payload = render(renderer, b"k", value, None).unwrap();
    let text = live(&payload)
        .strip_prefix(r#"{"channel":"c:1","key":"k","value":"#)
        .unwrap();
    text.strip_suffix('}').unwrap().to_owned()
}

fn markup(renderer: &Renderer, value: Value) -> String {
    live(&render(renderer, b"k", value, Some("set")).unwrap()).to_owned()
}

#[test]
fn the_event_stands_last_and_is_cut_out_of_a_snapshot() {
    let renderer = json_renderer(Decode::None);
    let payload = render(&renderer, b"k:1", Value::String(b("a\n\"b")), Some("set")).unwrap();
    assert_eq!(
        live(&payload),
        r#"{"channel":"c:1","key":"k:1","value":"a\n\"b","event":"set"}"#
    );
    assert_eq!(
        &*payload.snapshot(),
        br#"{"channel":"c:1","key":"k:1","value":"a\n\"b"}"#
    );
    assert!(payload.json && !payload.absent);

    let payload = render(&renderer, b"k:1", Value::Absent, None).unwrap();
    assert_eq!(live(&payload), r#"{"channel":"c:1","key":"k:1","value":null}"#);
    assert_eq!(payload.snapshot, Snapshot::Same);
    assert!(payload.absent);
}

#[test]
fn the_expiry_is_sent_only_by_mappings_that_say_so() {
    let renderer = Renderer::new(
        Options {
            expires: true,
            ..options(Format::Json)
        },
        &[],
    )
    .unwrap();
    let payload = render(&renderer, b"k", Value::String(b("v")), Some("set")).unwrap();
    let expected = r#"{"channel":"c:1","key":"k","value":"v","expires_at":1763762345678,"event":"set"}"#;
    assert_eq!(live(&payload), expected);
}

#[test]
fn when_it_was_heard_is_sent_only_by_mappings_that_say_so_and_never_in_a_snapshot() {
    let renderer = |format, heard| {
        let options = Options {
            heard,
            ..options(format)
        };
        Renderer::new(options, &[])
    };
    let heard = renderer(Format::Json, true).unwrap();
    let payload = render(&heard, b"k", Value::String(b("v")), Some("set")).unwrap();
    let expected = r#"{"channel":"c:1","key":"k","value":"v","event":"set","heard_at":1763762345678.009}"#;
    assert_eq!(live(&payload), expected);
    assert_eq!(&*payload.snapshot(), br#"{"channel":"c:1","key":"k","value":"v"}"#);
    let payload = render(&heard, b"k", Value::String(b("v")), None).unwrap();
    assert_eq!(live(&payload), r#"{"channel":"c:1","key":"k","value":"v"}"#);

    let markup = template("{{ heard_at }}");
    let payload = render(
        &renderer(markup.clone(), true).unwrap(),
        b"k",
        Value::String(b("v")),
        Some("set"),
    )
    .unwrap();
    assert_eq!(live(&payload), "1763762345678.009");
    assert_eq!(&*payload.snapshot(), b"");
    let errors = renderer(markup, false).unwrap_err();
    assert_eq!(errors[0].instead, "set `heard = true` in this mapping");
}

#[test]
fn every_type_has_its_shape() {
    let renderer = json_renderer(Decode::None);
    let hash = Value::Hash(vec![(b("b"), b("2")), (b("a"), b("1"))]);
    assert_eq!(json_of(&renderer, hash), r#"{"a":"1","b":"2"}"#);
    assert_eq!(json_of(&renderer, Value::List(vec![b("z"), b("a")])), r#"["z","a"]"#);
    assert_eq!(json_of(&renderer, Value::Set(vec![b("z"), b("a")])), r#"["a","z"]"#);
    let scores = [
        1.0,
        -0.0,
        0.1,
        1e300,
        f64::INFINITY,
        f64::NEG_INFINITY,
        9007199254740993.0,
        f64::NAN,
    ];
    let members = scores.iter().map(|score| (b("m"), *score)).collect();
    let written = json_of(&renderer, Value::SortedSet(members));
    let scores: Vec<_> = written
        .split("\"score\":")
        .skip(1)
        .map(|it| it.split('}').next().unwrap())
        .collect();
    assert_eq!(
        scores,
        [
            "1",
            "0",
            "0.1",
            "1e+300",
            "\"inf\"",
            "\"-inf\"",
            "9007199254740992",
            "\"nan\""
        ]
    );
    let entry = StreamEntry {
        id: b("5-0"),
        fields: vec![(b("f"), b("1")), (b("e"), b("2")), (b("f"), b("3"))],
    };
    assert_eq!(
        json_of(&renderer, Value::Stream(vec![entry])),
        r#"[{"id":"5-0","fields":{"e":"2","f":"3"}}]"#
    );
}

#[test]
fn bytes_that_are_no_text_are_base64() {
    let renderer = json_renderer(Decode::Json);
    assert_eq!(
        json_of(&renderer, Value::String(Bytes::from_static(b"\xff\x00"))),
        r#"{"base64":"/wA="}"#
    );
    let payload = render(&renderer, b"k\xff", Value::Absent, None).unwrap();
    assert_eq!(
        live(&payload),
        r#"{"channel":"c:1","key":{"base64":"a/8="},"value":null}"#
    );
    let fields = vec![
        (Bytes::from_static(b"\xff"), b("1")),
        (b("base64:/w=="), b("2")),
        (b("base64"), b("3")),
    ];
    let expected = r#"{"base64":3,"base64:YmFzZTY0Oi93PT0=":2,"base64:/w==":1}"#;
    assert_eq!(json_of(&renderer, Value::Hash(fields)), expected);
}

#[test]
fn a_value_over_the_limit_is_marked_and_left_out() {
    let renderer = Renderer::new(
        Options {
            max_value: 3,
            ..options(Format::Json)
        },
        &[],
    )
    .unwrap();
    let payload = render(&renderer, b"k", Value::String(b("four")), Some("set")).unwrap();
    assert_eq!(
        live(&payload),
        r#"{"channel":"c:1","key":"k","too_large":true,"event":"set"}"#
    );
    assert_eq!(&*payload.snapshot(), br#"{"channel":"c:1","key":"k","too_large":true}"#);
    assert_eq!(
        *renderer.project(Value::String(b("abc"))).value(),
        Value::String(b("abc"))
    );
    let list = renderer.project(Value::List(vec![b("ab"), b("cd")]));
    assert_eq!(*list.value(), Value::TooLarge(Size::Bytes(4)));
}

#[test]
fn decoded_json_stays_as_it_was_written_on_one_line() {
    let renderer = json_renderer(Decode::Json);
    let text = "{ \"n\": 1.50,\n \"big\": 12345678901234567890123 , \"s\": \"a b\" }";
    assert_eq!(
        json_of(&renderer, Value::String(b(text))),
        r#"{"n":1.50,"big":12345678901234567890123,"s":"a b"}"#
    );
    assert_eq!(json_of(&renderer, Value::String(b("plain"))), r#""plain""#);
    assert_eq!(json_of(&renderer, Value::String(b(""))), r#""""#);
    let list = Value::List(vec![b("1"), b("one"), b("[2]")]);
    assert_eq!(json_of(&renderer, list), r#"[1,"one",[2]]"#);
    assert_eq!(json_of(&renderer, Value::Hash(vec![(b("1"), b("2"))])), r#"{"1":2}"#);
    assert_eq!(
        json_of(&renderer, Value::Set(vec![b("1")])),
        r#"["1"]"#,
        "members of a set are names"
    );
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(json_of(&renderer, Value::String(b(&deep))), format!("\"{deep}\""));
}

#[test]
fn fields_choose_from_hashes_and_decoded_objects_and_refuse_the_rest() {
    let with_fields = |decode| {
        let fields = Some(vec!["total".into(), "items".into()]);
        Renderer::new(
            Options {
                decode,
                fields,
                ..options(Format::Json)
            },
            &[],
        )
        .unwrap()
    };
    let decoding = with_fields(Decode::Json);
    let hash = Value::Hash(vec![(b("total"), b("3")), (b("secret"), b("s"))]);
    assert_eq!(json_of(&decoding, hash.clone()), r#"{"total":3}"#);
    assert_eq!(json_of(&with_fields(Decode::None), hash), r#"{"total":"3"}"#);
    let object = Value::String(b(r#"{"secret":1,"total":3,"items":[ ]}"#));
    assert_eq!(json_of(&decoding, object.clone()), r#"{"items":[],"total":3}"#);
    assert_eq!(json_of(&decoding, Value::Absent), "null");
    assert_eq!(json_of(&decoding, Value::String(b("{}"))), "{}");

    let entry = StreamEntry {
        id: b("1-0"),
        fields: vec![(b("total"), b("3"))],
    };
    for value in [
        Value::String(b("[1]")),
        Value::List(vec![b("{}")]),
        Value::Stream(vec![entry]),
    ] {
        assert_eq!(render(&decoding, b"k", value, None), Err(Unsendable::NoFields));
    }
    assert_eq!(
        render(&with_fields(Decode::None), b"k", object, None),
        Err(Unsendable::NoFields)
    );
    // An object that JSON allows and that has no readable names must not go out whole.
    let odd = Value::String(b(r#"{"\ud800":1,"total":3}"#));
    assert_eq!(render(&decoding, b"k", odd, None), Err(Unsendable::NoFields));
}

#[test]
fn what_is_not_sent_makes_no_difference_and_order_neither() {
    let fields = Some(vec!["total".into()]);
    let renderer = Renderer::new(
        Options {
            decode: Decode::Json,
            fields,
            ..options(Format::Json)
        },
        &[],
    )
    .unwrap();
    let of = |value| renderer.fingerprint(&renderer.project(value));
    let text = |text| Value::String(b(text));
    assert_eq!(
        of(text(r#"{"total":3,"seen":1}"#)),
        of(text(r#"{"seen":2, "total": 3}"#))
    );
    assert_ne!(of(text(r#"{"total":3}"#)), of(text(r#"{"total":4}"#)));

    let renderer = json_renderer(Decode::None);
    let of = |value| renderer.fingerprint(&renderer.project(value));
    assert_eq!(
        of(Value::Set(vec![b("a"), b("b")])),
        of(Value::Set(vec![b("b"), b("a")]))
    );
    assert_ne!(
        of(Value::List(vec![b("a"), b("b")])),
        of(Value::List(vec![b("b"), b("a")]))
    );
}

#[test]
fn raw_sends_text_as_it_is_and_nothing_else() {
    let raw = |absent: Option<&str>| {
        let format = Format::Raw {
            absent: absent.map(Into::into),
            on_reset: Some("<reset {{ channel }}>".into()),
        };
        Renderer::new(options(format), &[Arc::from("id")]).unwrap()
    };
    let renderer = raw(None);
    let payload = render(&renderer, b"k", Value::String(b("<b>\r\n{")), Some("set")).unwrap();
    assert_eq!(
        payload,
        Payload {
            live: b("<b>\r\n{"),
            snapshot: Snapshot::Same,
            json: false,
            absent: false
        }
    );
    let refused = |value| render(&renderer, b"k", value, None).unwrap_err();
    assert_eq!(refused(Value::String(Bytes::from_static(b"\xff"))), Unsendable::NotText);
    assert_eq!(refused(Value::List(vec![])), Unsendable::NotAString);
    assert_eq!(refused(Value::TooLarge(Size::Bytes(1))), Unsendable::TooLarge);
    assert_eq!(refused(Value::Absent), Unsendable::AbsentWithoutTemplate);

    let payload = render(&raw(Some("gone {{ id }}")), b"k", Value::Absent, Some("del")).unwrap();
    assert_eq!(live(&payload), "gone 7&quot;&lt;");
    assert!(payload.absent && !payload.json);
    assert_eq!(renderer.on_reset("a<b").unwrap().unwrap(), "<reset a&lt;b>");
    assert_eq!(json_renderer(Decode::None).on_reset("c"), Ok(None));
}

#[test]
fn a_template_escapes_whatever_comes_from_outside() {
    let renderer = template_renderer("<p id=\"m_{{ id }}\">{{ value.text }}</p> {{ key }} {{ channel }}");
    let value = Value::String(b(r#"{"text":"<script>'\"&"}"#));
    let expected = "<p id=\"m_7&quot;&lt;\">&lt;script&gt;&#x27;&quot;&amp;</p> k c:1";
    assert_eq!(markup(&renderer, value), expected);
}

#[test]
fn a_template_sees_the_shapes_of_the_json_payload() {
    let all = template_renderer("{{ value | tojson | safe }}");
    let entry = StreamEntry {
        id: b("5-0"),
        fields: vec![(b("f"), b("1")), (b("f"), b("3"))],
    };
    let values = [
        Value::String(b("a")),
        Value::String(b("[1,2.5,true,null,\"x\",{\"a\":18446744073709551615}]")),
        Value::String(Bytes::from_static(b"\xff")),
        Value::Hash(vec![(b("b"), b("2")), (Bytes::from_static(b"\xff"), b("1"))]),
        Value::List(vec![b("1"), b("one")]),
        Value::Set(vec![b("b"), b("a")]),
        Value::SortedSet(vec![(b("m"), 1.0), (b("n"), 0.5), (b("o"), f64::INFINITY)]),
        Value::Stream(vec![entry]),
    ];
    for value in values {
        let from_json: serde_json::Value =
            serde_json::from_str(&json_of(&json_renderer(Decode::Json), value.clone())).unwrap();
        let from_template: serde_json::Value = serde_json::from_str(&markup(&all, value)).unwrap();
        assert_eq!(from_template, from_json);
    }
    let key = template_renderer("{{ key }}");
    let payload = render(&key, b"\xff", Value::String(b("")), None).unwrap();
    assert_eq!(live(&payload), "{&#x27;base64&#x27;: &#x27;&#x2f;w==&#x27;}");
}

#[test]
fn a_template_writes_json_words_as_json_does_and_nothing_for_null() {
    let template = "{{ value.yes }} {{ value.no }} [{{ value.nothing }}] {{ snapshot }} [{{ event }}]";
    let renderer = template_renderer(template);
    let value = Value::String(b(r#"{"yes":true,"no":false,"nothing":null}"#));
    let payload = render(&renderer, b"k", value, Some("set")).unwrap();
    assert_eq!(live(&payload), "true false [] false [set]");
    assert_eq!(payload.snapshot, Snapshot::Other(b("true false [] true []")));
}

#[test]
fn a_template_that_asks_for_event_or_snapshot_has_two_renditions() {
    let value = || Value::String(b("v"));
    let renderer = template_renderer("{% if snapshot %}all{% else %}{{ event }}{% endif %}");
    let payload = render(&renderer, b"k", value(), Some("set")).unwrap();
    assert_eq!(
        (live(&payload), payload.snapshot.clone()),
        ("set", Snapshot::Other(b("all")))
    );
    let payload = render(&template_renderer("{{ event or '' }}"), b"k", value(), None).unwrap();
    assert_eq!(payload.snapshot, Snapshot::Same, "the same bytes are not kept twice");
    let payload = render(&template_renderer("{{ value }}"), b"k", value(), Some("set")).unwrap();
    assert_eq!(payload.snapshot, Snapshot::Same);
}

#[test]
fn a_template_that_fails_names_itself_but_not_the_value() {
    let fails = |source: &str| {
        let error = render(
            &template_renderer(source),
            b"k",
            Value::String(b("{\"secret\":\"s3cret\"}")),
            None,
        );
        error.unwrap_err().to_string()
    };
    assert_eq!(
        fails("\n{{ value.txet }}"),
        "`template`, line 2: undefined value: `value.txet`"
    );
    assert_eq!(
        fails("{{ value.secret | int }}"),
        "`template`, line 1: invalid operation: `int`"
    );
    let endless = fails("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}");
    assert!(endless.contains("fuel"), "{endless}");
    let large = fails("{% for a in range(9999) %}{{ '0123456789' * 1000 }}{% endfor %}");
    assert_eq!(
        large,
        "`template`, line 1: the template made more than 16777216 bytes of markup"
    );
    let renderer = template_renderer("{{ value }}");
    assert_eq!(
        render(&renderer, b"k", Value::TooLarge(Size::Elements(2)), None),
        Err(Unsendable::TooLarge)
    );
    assert_eq!(
        render(&renderer, b"k", Value::Absent, None),
        Err(Unsendable::AbsentWithoutTemplate)
    );
}

#[test]
fn a_missing_field_can_be_asked_for() {
    let renderer = template_renderer("{% if value.a %}a{% endif %}{{ value.b | default('none') }}");
    assert_eq!(markup(&renderer, Value::Hash(vec![])), "none");
}

#[test]
fn all_that_is_wrong_with_templates_is_told_with_its_place() {
    let wrong = |change: &str, absent: &str, on_reset: &str, captures: &[&str]| {
        let format = Format::Template {
            change: change.into(),
            absent: Some(absent.into()),
            on_reset: Some(on_reset.into()),
        };
        let captures: Vec<Arc<str>> = captures.iter().map(|name| Arc::from(*name)).collect();
        let errors = Renderer::new(options(format), &captures).unwrap_err();
        let places = errors
            .iter()
            .map(|it| (it.which, it.line, it.at.clone(), it.what.as_str()));
        places
            .map(|(which, line, at, what)| format!("{which}:{line}:{}-{}: {what}", at.start, at.end))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        wrong("a\n{{ value", "idd {{ x.idd }}{{ idd }}", "{{ key }}", &["id"]),
        [
            "template:2:5-10: the template cannot be read",
            "absent:1:18-21: there is no variable `idd`",
            "absent:1:7-8: there is no variable `x`",
            "on_reset:1:3-6: there is no variable `key`",
        ]
    );
    assert_eq!(
        wrong(
            "{{ key | upcase }}",
            "{% include 'x' %}",
            "{{ range(3) }}\n{% if channel is nice %}{% endif %}",
            &[]
        ),
        [
            "template:1:9-15: unknown filter",
            "absent:1:3-14: there is no other template to include, import or extend",
            "on_reset:2:32-36: unknown test",
        ]
    );
    assert_eq!(
        wrong("{{ expires_at }}", "", "", &[]),
        ["template:1:3-13: `expires_at` is used, but the mapping does not send it"]
    );
    assert_eq!(
        wrong("", "", "", &["id", "value"]),
        ["template:1:0-0: the capture `{value}` of the key hides the variable `value`"]
    );
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        "\\PC{0,8}".prop_map(Bytes::from),
        "[\"\\\\\u{0}-\u{1f}\u{7f}\u{2028}é😀{}\\[\\]:,0-9 ]{0,12}".prop_map(Bytes::from),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from),
        Just(Bytes::from_static(b"base64:")),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let pairs =
        || prop::collection::btree_map(any_bytes(), any_bytes(), 0..6).prop_map(|map| map.into_iter().collect());
    let repeated = prop::collection::vec((any_bytes(), any_bytes()), 0..6);
    let score = prop_oneof![any::<f64>(), (-9..9_i32).prop_map(f64::from)].prop_filter("a number", |it| !it.is_nan());
    prop_oneof![
        Just(Value::Absent),
        any_bytes().prop_map(Value::String),
        pairs().prop_map(Value::Hash),
        prop::collection::vec(any_bytes(), 0..6).prop_map(Value::List),
        prop::collection::btree_set(any_bytes(), 0..6).prop_map(|set| Value::Set(set.into_iter().collect())),
        prop::collection::vec((any_bytes(), score), 0..6).prop_map(Value::SortedSet),
        prop::collection::vec((any_bytes(), repeated), 0..3).prop_map(|entries| {
            Value::Stream(
                entries
                    .into_iter()
                    .map(|(id, fields)| StreamEntry { id, fields })
                    .collect(),
            )
        }),
    ]
}

/// Bytes as a client has them back from the JSON form.
fn bytes_back(json: &serde_json::Value) -> Vec<u8> {
    match json {
        serde_json::Value::String(text) => text.as_bytes().to_vec(),
        json => STANDARD.decode(json["base64"].as_str().unwrap()).unwrap(),
    }
}

fn pairs_back(json: &serde_json::Value) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let members = json.as_object().unwrap().iter();
    members
        .map(|(name, value)| match name.strip_prefix("base64:") {
            Some(name) => (STANDARD.decode(name).unwrap(), bytes_back(value)),
            None => (name.clone().into_bytes(), bytes_back(value)),
        })
        .collect()
}

fn pairs_of(pairs: &[(Bytes, Bytes)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    pairs
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

proptest! {
    #[test]
    fn the_json_payload_gives_the_value_back(key in any_bytes(), value in any_value(), event in any::<Option<String>>()) {
        let payload = render(&json_renderer(Decode::None), &key, value.clone(), event.as_deref()).unwrap();
        prop_assert!(payload.live.iter().all(|byte| *byte >= 0x20), "a control byte");
        let parsed: serde_json::Value = serde_json::from_slice(&payload.live).unwrap();
        prop_assert_eq!(bytes_back(&parsed["key"]), key.to_vec());
        prop_assert_eq!(parsed.get("event").cloned(), event.map(|event| json!(event)));
        let got = &parsed["value"];
        let items = || got.as_array().unwrap().iter();
        match value {
            Value::Absent => prop_assert!(got.is_null()),
            Value::String(text) => prop_assert_eq!(bytes_back(got), text.to_vec()),
            Value::Hash(fields) => prop_assert_eq!(pairs_back(got), pairs_of(&fields)),
            Value::List(parts) | Value::Set(parts) => {
                prop_assert_eq!(items().map(bytes_back).collect::<Vec<_>>(), parts.iter().map(|it| it.to_vec()).collect::<Vec<_>>());
            }
            Value::SortedSet(members) => {
                // Read from the text: serde_json may be off by one in the last place of a float.
                let scores = live(&payload).split("\"score\":").skip(1).map(|it| it.split('}').next().unwrap());
                for ((got, score_back), (member, score)) in items().zip(scores).zip(&members) {
                    prop_assert_eq!(bytes_back(&got["member"]), member.to_vec());
                    prop_assert_eq!(score_back.trim_matches('"').parse::<f64>().unwrap(), *score);
                }
                prop_assert_eq!(items().count(), members.len());
            }
            Value::Stream(entries) => {
                for (got, entry) in items().zip(&entries) {
                    prop_assert_eq!(bytes_back(&got["id"]), entry.id.to_vec());
                    prop_assert_eq!(pairs_back(&got["fields"]), pairs_of(&entry.fields));
                }
                prop_assert_eq!(items().count(), entries.len());
            }
            Value::TooLarge(_) => unreachable!(),
        }
        let mut cut = parsed.clone();
        cut.as_object_mut().unwrap().remove("event");
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&payload.snapshot()).unwrap(), cut);
    }

    #[test]
    fn decoding_never_breaks_the_payload(value in any_value()) {
        let payload = render(&json_renderer(Decode::Json), b"k", value.clone(), Some("set")).unwrap();
        prop_assert!(payload.live.iter().all(|byte| *byte >= 0x20), "a control byte");
        prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&payload.live).is_ok());
        if let Value::String(text) = &value {
            let parsed: serde_json::Value = serde_json::from_slice(&payload.live).unwrap();
            match serde_json::from_slice::<serde_json::Value>(text) {
                Ok(decoded) => prop_assert_eq!(&parsed["value"], &decoded),
                Err(_) => prop_assert_eq!(bytes_back(&parsed["value"]), text.to_vec()),
            }
        }
    }

    #[test]
    fn a_template_never_lets_markup_through(value in any_value()) {
        let payload = render(&template_renderer("{{ value }}"), b"k", value.clone(), None);
        match payload {
            Ok(payload) => prop_assert!(!live(&payload).contains(['<', '>', '"', '\''])),
            Err(error) => prop_assert!(value.is_absent(), "{}", error),
        }
    }
}
