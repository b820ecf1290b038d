//! Finds the few patterns that may take a key.
//!
//! Every pattern is filed under one thing that all its keys share, its [`Anchor`]: the whole key, literal segments
//! between `:` at known places from the start or the end, the first bytes, the last bytes, or a segment somewhere.
//! A key is looked up under each kind of anchor that is in use. How many kinds there are is bounded, so the cost
//! of a key hardly grows with the number of patterns. Only patterns without any anchor are offered for every key.
//!
//! The table's contents come from the config alone, so no key, however chosen, can make a look-up slow.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

use super::anchor::{self, Anchor, BACK, Kind, SEGMENTS, hash};
use crate::pattern::Program;

/// Bits of the filter for each pattern: one in sixteen look-ups that find nothing gets past it.
const FILTER_BITS: usize = 16;

/// An index of patterns.
#[derive(Debug)]
pub(super) struct Index {
    /// The numbers of the patterns, bucket by bucket, those without an anchor last.
    members: Vec<u32>,
    /// By the hash of the anchor, its part of `members`. Two anchors of one hash share it: a candidate is only a
    /// candidate.
    buckets: HashMap<u64, Range<u32>, BuildHasherDefault<Hashed>>,
    /// A bit for each bucket, by its hash: small enough for the nearest cache, it ends most look-ups. Its length in bits
    /// is a power of two.
    filter: Vec<u64>,
    whole_keys: bool,
    shapes: Vec<Shape>,
    /// Which places occur in `shapes`, one bit each.
    places: u16,
    prefix_lengths: Vec<usize>,
    suffix_lengths: Vec<usize>,
    anywhere: bool,
    /// The part of `members` without an anchor.
    unanchored: Range<u32>,
}

/// Places of segments that are looked up together.
#[derive(Debug)]
struct Shape {
    seed: u64,
    /// One bit for each of `places`.
    mask: u16,
    places: Box<[u8]>,
}

impl Index {
    /// Files each pattern under the number that is given with it.
    pub fn new<'p>(programs: impl Iterator<Item = (u32, &'p Program)>) -> Index {
        let (numbers, programs): (Vec<u32>, Vec<&Program>) = programs.unzip();
        let mut filed: Vec<(Option<Anchor>, u32)> =
            anchor::choose(programs.into_iter()).into_iter().zip(numbers).collect();
        filed.sort_by_key(|(anchor, _)| anchor.as_ref().map_or((1, 0), |anchor| (0, anchor.hash)));
        let mut index = Index {
            members: filed.iter().map(|&(_, pattern)| pattern).collect(),
            buckets: HashMap::default(),
            filter: vec![0; (filed.len() * FILTER_BITS).next_power_of_two().div_ceil(64)],
            whole_keys: false,
            shapes: Vec::new(),
            places: 0,
            prefix_lengths: Vec::new(),
            suffix_lengths: Vec::new(),
            anywhere: false,
            unanchored: 0..0,
        };
        for ((anchor, _), at) in filed.into_iter().zip(0..) {
            let Some(Anchor { kind, hash }) = anchor else {
                index.unanchored = at..index.members.len() as u32;
                break;
            };
            index.buckets.entry(hash).or_insert(at..at).end = at + 1;
            let (word, bit) = index.filter_bit(hash);
            index.filter[word] |= bit;
            index.use_kind(kind);
        }
        index.prefix_lengths.sort_unstable();
        index.suffix_lengths.sort_unstable();
        index
    }

    fn use_kind(&mut self, kind: Kind) {
        let lengths = match kind {
            Kind::WholeKey => return self.whole_keys = true,
            Kind::Anywhere => return self.anywhere = true,
            Kind::Segments(places) => {
                let mask = places.iter().fold(0, |mask, &place| mask | 1 << place);
                if self.shapes.iter().all(|shape| shape.mask != mask) {
                    self.shapes.push(Shape {
                        seed: anchor::seed(&places),
                        mask,
                        places: places.into(),
                    });
                    self.places |= mask;
                }
                return;
            }
            Kind::Prefix(length) => (&mut self.prefix_lengths, length),
            Kind::Suffix(length) => (&mut self.suffix_lengths, length),
        };
        let (lengths, length) = lengths;
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }

    /// Puts into `found`, in ascending order, the numbers of the patterns that may take `key`.
    pub fn candidates(&self, key: &[u8], found: &mut Vec<u32>) {
        found.clear();
        if self.whole_keys {
            self.look_up(hash(key, anchor::WHOLE_KEY), found);
        }
        if !self.shapes.is_empty() {
            self.look_up_segments(key, found);
        }
        for &length in &self.prefix_lengths {
            let Some(prefix) = key.get(..length) else { break };
            self.look_up(hash(prefix, anchor::PREFIX), found);
        }
        for &length in &self.suffix_lengths {
            let Some(start) = key.len().checked_sub(length) else {
                break;
            };
            self.look_up(hash(&key[start..], anchor::SUFFIX), found);
        }
        if self.anywhere {
            self.look_up_anywhere(key, found);
        }
        found.extend_from_slice(self.part(&self.unanchored));
        if found.len() > 1 {
            found.sort_unstable();
            // A segment that the key has twice is looked up twice.
            found.dedup();
        }
    }

    fn look_up_segments(&self, key: &[u8], found: &mut Vec<u32>) {
        let mut hashes = [0; 2 * SEGMENTS];
        let mut present: u16 = 0;
        let mut see = |place: usize, segment: &[u8]| {
            if self.places & 1 << place != 0 {
                hashes[place] = hash(segment, 0);
            }
            present |= 1 << place;
        };
        let mut rest = key;
        for place in 0..anchor::places_from_start(self.places) {
            let Some(end) = memchr(b':', rest) else {
                see(place, rest);
                break;
            };
            see(place, &rest[..end]);
            rest = &rest[end + 1..];
        }
        let mut rest = key;
        for place in 0..anchor::places_from_end(self.places) {
            let Some(colon) = memrchr(b':', rest) else {
                see(BACK + place, rest);
                break;
            };
            see(BACK + place, &rest[colon + 1..]);
            rest = &rest[..colon];
        }
        for shape in &self.shapes {
            if present & shape.mask == shape.mask {
                let segments = shape.places.iter().map(|&place| hashes[usize::from(place)]);
                self.look_up(anchor::combine(shape.seed, segments), found);
            }
        }
    }

    fn look_up_anywhere(&self, key: &[u8], found: &mut Vec<u32>) {
        let mut start = 0;
        for end in memchr_iter(b':', key) {
            if start > 0 {
                self.look_up(hash(&key[start..end], anchor::ANYWHERE), found);
            }
            start = end + 1;
        }
    }

    fn look_up(&self, hash: u64, found: &mut Vec<u32>) {
        let (word, bit) = self.filter_bit(hash);
        if self.filter[word] & bit != 0
            && let Some(bucket) = self.buckets.get(&hash)
        {
            found.extend_from_slice(self.part(bucket));
        }
    }

    fn filter_bit(&self, hash: u64) -> (usize, u64) {
        let word = (hash >> 6) as usize & (self.filter.len() - 1);
        (word, 1 << (hash & 63))
    }

    fn part(&self, range: &Range<u32>) -> &[u32] {
        &self.members[range.start as usize..range.end as usize]
    }
}

/// The hasher of what is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
