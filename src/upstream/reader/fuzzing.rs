//! Replies to what is asked about a key.

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;

pub(in crate::upstream) use super::pipe::decode;
use super::{
    ReadRequest,
    command::{Commands, unless_error},
    job::Job,
};
use crate::keyspace::{Kind, Value};

const KINDS: [Option<Kind>; 7] = [
    None,
    Some(Kind::String),
    Some(Kind::Hash),
    Some(Kind::List),
    Some(Kind::Set),
    Some(Kind::SortedSet),
    Some(Kind::Stream),
];

/// Reads a key: that comes to an end, and what is read is not larger than what may be.
pub(in crate::upstream) fn replies(likely: u8, most: u64, mut replies: impl Iterator<Item = BytesFrame>) {
    let request = ReadRequest {
        key: Bytes::from_static(b"key"),
        max_value: most,
        fields: (likely & 0x40 != 0).then(|| [Bytes::from_static(b"a"), Bytes::from_static(b"b")].into()),
        likely: KINDS[usize::from(likely & 0x0f) % KINDS.len()],
        probably_gone: likely & 0x80 != 0,
        asking: likely & 0x20 != 0,
    };
    let mut job = Job::new(request);
    // Every type anew, with at most three rounds each.
    for _ in 0..64 {
        let mut written = Vec::new();
        let mut commands = Commands::new(&mut written);
        job.ask(&mut commands);
        let asked = commands.count;
        assert!((1..=6).contains(&asked));
        let answers: Vec<_> = replies.by_ref().take(asked).map(unless_error).collect();
        let enough = answers.len() == asked;
        match job.take(&mut answers.into_iter()) {
            Some(Ok(reading)) => {
                assert!(reading.value.size_in_bytes() as u64 <= most);
                assert!(reading.ttl.is_none() || !matches!(reading.value, Value::Absent));
                return;
            }
            Some(Err(_)) => return,
            None if enough => {}
            None => return,
        }
    }
    panic!("a key is asked for without an end");
}
