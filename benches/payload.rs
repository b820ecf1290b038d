//! What it costs to make the bytes of one change: projected, compared and rendered, as for every read.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use keyrelay::keyspace::{EventName, Value};
use keyrelay::payload::{Change, Decode, Format, Options, Renderer};

const MARKUP: &str = r#"<turbo-stream action="append" target="messages"><template><p id="message_{{ id }}">{{ value.text }}</p></template></turbo-stream>"#;

fn renderer(format: Format, decode: Decode) -> Renderer {
    let options = Options {
        format,
        decode,
        fields: None,
        expires: false,
        heard: false,
        max_value: 1024 * 1024,
    };
    Renderer::new(options, &["id".into()]).expect("the templates are right")
}

fn change(renderer: &Renderer, value: &Value, event: &EventName, captures: &[(Arc<str>, Bytes)]) {
    let projected = renderer.project(value.clone());
    black_box(renderer.fingerprint(&projected));
    let payload = renderer.render(&Change {
        channel: "room:17",
        key: b"message:17:4711",
        captures,
        value: &projected,
        event: Some(event),
        heard_at: None,
        expires_at: None,
    });
    black_box(payload.expect("the value can be sent"));
}

fn payload(c: &mut Criterion) {
    let text = Value::String("a string of middling length, ".repeat(7)[..200].to_owned().into());
    let fields = (0..10).map(|i| (format!("field_{i}").into(), format!("value of field {i}").into()));
    let hash = Value::Hash(fields.collect());
    let object = Value::String(Bytes::from_static(
        br#"{"text": "Hello, <everyone>!", "author": {"id": 17, "name": "Ada"}, "tags": ["a", "b"], "likes": 1.5}"#,
    ));
    let markup = Format::Template {
        change: MARKUP.to_owned(),
        absent: None,
        on_reset: None,
    };
    let cases = [
        ("string of 200 bytes", renderer(Format::Json, Decode::None), text),
        ("hash of 10 fields", renderer(Format::Json, Decode::None), hash),
        ("decoded object", renderer(Format::Json, Decode::Json), object.clone()),
        ("template", renderer(markup, Decode::Json), object),
    ];
    let event = EventName::from_bytes(b"set");
    let captures = [("id".into(), Bytes::from_static(b"4711"))];
    let mut group = c.benchmark_group("payload");
    for (name, renderer, value) in &cases {
        group.bench_function(*name, |b| b.iter(|| change(renderer, value, &event, &captures)));
    }
    group.finish();
}

criterion_group!(benches, payload);
criterion_main!(benches);
