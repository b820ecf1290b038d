//! What a key costs in the index of mappings, from 10 to 10,000 of them.
//!
//! A third of the mappings name one key, a third have a prefix and captures, a third begin with a wildcard or a capture.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use keyrelay::mapping::{Mappings, Rule, Scratch};
use keyrelay::pattern::{KeyPattern, Subject};

/// Keys that take turns, so that neither branches nor caches learn a single one.
const KEYS: usize = 4096;

fn mappings(count: usize) -> Mappings {
    let pattern = |number: usize| match number % 6 {
        0 | 3 => format!("config:service{number}:flags"),
        1 | 4 => format!("app:{{kind}}:{number}:{{id}}"),
        2 => format!("*:suffix{number}"),
        _ => format!("{{tenant}}:x{number}:*"),
    };
    let rules = (0..count).map(|number| {
        let pattern = KeyPattern::parse(&pattern(number)).expect("a pattern");
        Rule {
            subject: Subject::Keys,
            channel: pattern.default_channel(),
            pattern,
        }
    });
    Mappings::new(rules.collect()).expect("mappings")
}

/// Numbers without an order, the same in every run.
fn scattered(number: usize) -> usize {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

fn taken(count: usize, turn: usize) -> String {
    let number = scattered(turn) % count;
    match number % 6 {
        0 | 3 => format!("config:service{number}:flags"),
        1 | 4 => format!("app:cart:{number}:user{turn}"),
        2 => format!("some:where:deep{turn}:suffix{number}"),
        _ => format!("tenant{turn}:x{number}:something:else"),
    }
}

fn not_taken(count: usize, turn: usize) -> String {
    let number = scattered(turn) >> 20;
    match turn % 5 {
        0 => format!("config:service{}:flags", count + number),
        1 => format!("app:cart:{}:user{turn}", count + number),
        2 => format!("some:where:deep{turn}:suffix{}", count + number),
        3 => format!("session{number}"),
        _ => format!("tenant{turn}:cache:views/products/{number}-20260101/fragment:html"),
    }
}

fn look_up(criterion: &mut Criterion) {
    for (name, key, expected) in [
        ("no_mapping_takes_it", not_taken as fn(usize, usize) -> String, 0),
        ("taken", taken, 1),
    ] {
        let mut group = criterion.benchmark_group(name);
        for count in [10, 100, 1000, 10_000] {
            let mappings = mappings(count);
            let keys: Vec<String> = (0..KEYS).map(|turn| key(count, turn)).collect();
            let mut scratch = Scratch::default();
            for key in &keys {
                let mut found = 0;
                mappings.each(key.as_bytes(), &mut scratch, |_, _, _| found += 1);
                assert_eq!(found, expected, "{key}");
            }
            let mut turns = keys.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    let key = turns.next().expect("a cycle never ends");
                    mappings.each(black_box(key.as_bytes()), &mut scratch, |mapping, channel, _| {
                        black_box((mapping, channel));
                    });
                });
            });
        }
        group.finish();
    }
}

fn way_back(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("channel_to_keys");
    for count in [10, 10_000] {
        let mappings = mappings(count);
        let channels: Vec<String> = (0..KEYS).map(|turn| taken(count, turn)).collect();
        let mut turns = channels.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| mappings.sources(black_box(turns.next().expect("a cycle never ends"))));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    group.bench_function("10000", |bencher| bencher.iter(|| mappings(10_000)));
    group.finish();
}

criterion_group!(benches, look_up, way_back);
criterion_main!(benches);
