//! Answers of the app, for as long as they count and there is room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::Question;
use crate::access::claims::Claims;

/// Most answers of one generation; there are two.
const MAX_ANSWERS: usize = 10_000;
/// Most bytes of answers in one generation, as they are kept.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Two generations: what is used moves to the young one, and when that is full the old one is forgotten. It costs the same
/// for every answer, whoever comes with how many credentials.
#[derive(Default)]
pub(super) struct Cache {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    answers: HashMap<Question, Arc<Claims>>,
    bytes: usize,
}

impl Cache {
    /// The answer, if it still counts.
    pub(super) fn get(&mut self, question: &Question, now: SystemTime) -> Option<Arc<Claims>> {
        if let Some(claims) = self.young.answers.get(question) {
            return Some(claims.clone()).filter(|claims| now < claims.expires());
        }
        let claims = self.old.answers.remove(question)?;
        if now >= claims.expires() {
            return None;
        }
        self.put(*question, claims.clone());
        Some(claims)
    }

    /// Remembers an answer.
    pub(super) fn put(&mut self, question: Question, claims: Arc<Claims>) {
        let size = claims.size();
        if self.young.answers.len() >= MAX_ANSWERS || self.young.bytes + size > MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += size;
        if let Some(before) = self.young.answers.insert(question, claims) {
            self.young.bytes -= before.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::json;

    use super::*;

    fn claims(exp: u64) -> Arc<Claims> {
        of(json!({ "exp": exp }))
    }

    fn of(value: serde_json::Value) -> Arc<Claims> {
        let serde_json::Value::Object(members) = value else {
            panic!("an object")
        };
        Arc::new(Claims::new(members, UNIX_EPOCH).unwrap())
    }

    fn question(number: usize) -> Question {
        let mut question = [0; 32];
        question[..8].copy_from_slice(&number.to_le_bytes());
        question
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_counts_until_its_end() {
        let mut cache = Cache::default();
        cache.put(question(1), claims(10));
        assert!(cache.get(&question(1), at(9)).is_some());
        assert!(cache.get(&question(1), at(10)).is_none());
        assert!(cache.get(&question(2), at(9)).is_none());
        cache.put(question(1), claims(20));
        assert!(cache.get(&question(1), at(10)).is_some());
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        cache.put(question(0), claims(10));
        for number in 1..=MAX_ANSWERS * 5 {
            cache.put(question(number), claims(10));
            assert!(cache.get(&question(0), at(1)).is_some(), "forgotten after {number}");
        }
        assert!(cache.young.answers.len() <= MAX_ANSWERS && cache.old.answers.len() <= MAX_ANSWERS);
        assert!(cache.get(&question(1), at(1)).is_none());
    }

    #[test]
    fn large_answers_count_by_their_bytes() {
        let mut cache = Cache::default();
        let large = of(json!({"exp": 10, "x": "y".repeat(64 * 1024)}));
        assert!(large.size() > 64 * 1024);
        for number in 0..1_000 {
            cache.put(question(number), large.clone());
            cache.put(question(number), large.clone());
        }
        assert!(cache.young.bytes <= MAX_BYTES && cache.old.bytes <= MAX_BYTES);
        assert!(cache.young.answers.len() + cache.old.answers.len() <= 2 * MAX_BYTES / (64 * 1024));
    }
}
