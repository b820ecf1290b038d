//! What all keys of a pattern share, by which the pattern is filed in the index.

use std::collections::HashMap;

use crate::pattern::{Op, Program, Takes};

/// How many segments are looked at from the start, and as many from the end.
pub(super) const SEGMENTS: usize = 8;

/// The place of the last segment; the one before it has the next higher place.
pub(super) const BACK: usize = SEGMENTS;

/// Different kinds of anchors are hashed from different seeds.
pub(super) const WHOLE_KEY: u64 = 1;
pub(super) const PREFIX: u64 = 2;
pub(super) const SUFFIX: u64 = 3;
pub(super) const ANYWHERE: u64 = 4;

/// To these lengths prefixes and suffixes are cut, so that a key is looked up under few of them.
const LENGTHS: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];

/// So many combinations of places are looked up together, the commonest ones; patterns with another combination are
/// filed under one of their segments.
const SHAPES: usize = 16;

/// A bucket of so many patterns is as good as a smaller one: another kind of look-up would cost more than trying them.
const GOOD_BUCKET: u32 = 8;

/// A thing that all keys of a pattern share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchor {
    pub kind: Kind,
    pub hash: u64,
}

/// Where in a key an anchor is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The key is this.
    WholeKey,
    /// These places hold these segments. A place below [`BACK`] counts from the start, others from the end.
    Segments(Vec<u8>),
    /// The first so many bytes are these.
    Prefix(usize),
    /// The last so many bytes are these.
    Suffix(usize),
    /// One of the segments between two `:` is this.
    Anywhere,
}

/// Chooses for each pattern the anchor that it shares with few others; `None` if it has none.
pub(super) fn choose<'p>(programs: impl Iterator<Item = &'p Program>) -> Vec<Option<Anchor>> {
    let programs: Vec<(&Program, Segments)> = programs.map(|program| (program, Segments::of(program))).collect();
    let common = common_shapes(programs.iter().map(|(_, segments)| segments));
    let anchors: Vec<Vec<Anchor>> = programs
        .iter()
        .map(|(program, segments)| possible(program, segments, &common))
        .collect();
    let mut shared: HashMap<u64, u32> = HashMap::new();
    for anchor in anchors.iter().flatten() {
        *shared.entry(anchor.hash).or_default() += 1;
    }
    // The first one of the smallest: the order in which they are offered is from good to costly.
    let cost = |anchor: &Anchor| shared[&anchor.hash] / GOOD_BUCKET;
    anchors
        .into_iter()
        .map(|anchors| anchors.into_iter().min_by_key(cost))
        .collect()
}

/// The literal segments of a pattern whose place in the key is known.
struct Segments {
    /// Place and hash, in ascending order of places.
    placed: Vec<(u8, u64)>,
}

impl Segments {
    fn of(program: &Program) -> Segments {
        let mut placed = Vec::new();
        let to_the_end = walk(
            program.ops().iter(),
            |bytes| Box::new(bytes.iter()),
            |place, segment| {
                if place < SEGMENTS {
                    placed.push((place as u8, hash(&segment, 0)));
                }
            },
        );
        if !to_the_end {
            walk(
                program.ops().iter().rev(),
                |bytes| Box::new(bytes.iter().rev()),
                |place, mut segment| {
                    if place < SEGMENTS {
                        segment.reverse();
                        placed.push(((BACK + place) as u8, hash(&segment, 0)));
                    }
                },
            );
        }
        Segments { placed }
    }

    fn places(&self) -> Vec<u8> {
        self.placed.iter().map(|&(place, _)| place).collect()
    }
}

/// Calls `found` for each segment that is literal as a whole, with its place counted from where the walk starts, for as
/// long as places are known. Returns whether they are known to the other end.
fn walk<'p>(
    ops: impl Iterator<Item = &'p Op>,
    in_order: impl Fn(&'p [u8]) -> Box<dyn Iterator<Item = &'p u8> + 'p>,
    mut found: impl FnMut(usize, Vec<u8>),
) -> bool {
    let mut place = 0;
    // The current segment, as long as it is literal.
    let mut segment = Some(Vec::new());
    for op in ops {
        match op {
            Op::Literal(bytes) => {
                for &byte in in_order(bytes) {
                    if byte == b':' {
                        if let Some(segment) = segment.replace(Vec::new()) {
                            found(place, segment);
                        }
                        place += 1;
                    } else if let Some(segment) = &mut segment {
                        segment.push(byte);
                    }
                }
            }
            Op::OneOf(set, _) if !set.has(b':') => segment = None,
            Op::Gap(gap) if gap.takes == Takes::Segment => segment = None,
            Op::Any | Op::OneOf(..) | Op::Gap(_) => return false,
        }
    }
    if let Some(segment) = segment {
        found(place, segment);
    }
    true
}

/// The combinations of places that most patterns have.
fn common_shapes<'s>(patterns: impl Iterator<Item = &'s Segments>) -> Vec<Vec<u8>> {
    let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
    for segments in patterns {
        *counts.entry(segments.places()).or_default() += 1;
    }
    let mut shapes: Vec<(u32, Vec<u8>)> = counts.into_iter().map(|(places, count)| (count, places)).collect();
    shapes.sort_unstable_by(|a, b| b.cmp(a));
    shapes.truncate(SHAPES);
    shapes.into_iter().map(|(_, places)| places).collect()
}

/// All anchors that a pattern could be filed under.
fn possible(program: &Program, segments: &Segments, common: &[Vec<u8>]) -> Vec<Anchor> {
    if let [Op::Literal(bytes)] = program.ops() {
        return vec![Anchor {
            kind: Kind::WholeKey,
            hash: hash(bytes, WHOLE_KEY),
        }];
    }
    let mut anchors = Vec::new();
    let mut add = |kind, hash| anchors.push(Anchor { kind, hash });
    let places = segments.places();
    if !places.is_empty() && common.contains(&places) {
        let hash = combine(seed(&places), segments.placed.iter().map(|&(_, hash)| hash));
        add(Kind::Segments(places), hash);
    } else {
        for &(place, hash) in &segments.placed {
            add(Kind::Segments(vec![place]), combine(seed(&[place]), [hash].into_iter()));
        }
    }
    if let Some(length) = cut(program.prefix().len()) {
        add(Kind::Prefix(length), hash(&program.prefix()[..length], PREFIX));
    }
    if let Some(length) = cut(program.suffix().len()) {
        let suffix = program.suffix();
        add(Kind::Suffix(length), hash(&suffix[suffix.len() - length..], SUFFIX));
    }
    for op in program.ops() {
        let Op::Literal(bytes) = op else { continue };
        let pieces: Vec<&[u8]> = bytes.split(|&byte| byte == b':').collect();
        let [_, whole @ .., _] = &pieces[..] else { continue };
        whole
            .iter()
            .for_each(|segment| add(Kind::Anywhere, hash(segment, ANYWHERE)));
    }
    anchors
}

fn cut(length: usize) -> Option<usize> {
    LENGTHS.into_iter().rev().find(|&cut| cut <= length)
}

/// How many segments must be looked at from the start to see all `places` of this mask.
pub(super) fn places_from_start(places: u16) -> usize {
    (u8::BITS - (places as u8).leading_zeros()) as usize
}

/// How many segments must be looked at from the end to see all `places` of this mask.
pub(super) fn places_from_end(places: u16) -> usize {
    (u8::BITS - ((places >> BACK) as u8).leading_zeros()) as usize
}

/// What the hash of segments at these places starts from.
pub(super) fn seed(places: &[u8]) -> u64 {
    hash(places, 0)
}

/// The hash of several segments from the hash of each.
pub(super) fn combine(seed: u64, segments: impl Iterator<Item = u64>) -> u64 {
    segments.fold(seed, |state, segment| mix(state ^ segment, ODD[1]))
}

/// Odd numbers without a pattern: the first hexadecimal digits of π behind the point, the last one made odd.
const ODD: [u64; 3] = [0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7345, 0xA409_3822_299F_31D1];

/// A hash of good spread and little cost for short texts. It is no defence against chosen keys, and needs to be none.
pub(super) fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut state = mix(seed ^ ODD[0], bytes.len() as u64 ^ ODD[1]);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state ^ u64::from_le_bytes(*word), ODD[1]);
    }
    // Up to seven bytes: two words of four that may lie over each other, or up to three bytes.
    let last = match (rest.first_chunk::<4>(), rest.last_chunk::<4>(), rest) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        (_, _, [first, .., last]) => u64::from(*first) << 16 | u64::from(rest[rest.len() / 2]) << 8 | u64::from(*last),
        (_, _, [only]) => u64::from(*only),
        (_, _, []) => 0,
    };
    mix(state ^ last, ODD[2])
}

/// Multiplies to 128 bits and folds the halves.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}
