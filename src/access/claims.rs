//! What a credential says, once it is known to be true: the members of a token's payload (RFC 7519 §4).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::failure::Failure;
use crate::pattern::KeyPattern;

/// A token that was made on a machine whose clock is a little ahead counts at once. There is no such leeway at its end:
/// the moment that a token names is the moment when its streams end.
pub const NBF_LEEWAY: Duration = Duration::from_secs(5);

/// The year 5138 in seconds, and 1973 in milliseconds. Nobody means that far an end: it is the time as JavaScript has it, and
/// a token would never expire by it.
const MILLISECONDS: Duration = Duration::from_secs(100_000_000_000);

/// An allocation is rounded up, and the allocator keeps something with it: 32 bytes are the least that glibc gives.
const PIECE: usize = 32;

/// Most channels and patterns of one token; as many as one connection may have channels.
const MAX_LISTED: usize = 1_000;

/// A verified credential.
#[derive(Clone, Debug)]
pub struct Claims {
    members: Map<String, Value>,
    expires: SystemTime,
    /// The channels that are listed by their names.
    names: Vec<String>,
    /// What else is listed.
    patterns: Vec<KeyPattern>,
    size: usize,
}

impl Claims {
    /// Reads the members of a payload whose origin is beyond doubt, at this time.
    ///
    /// # Errors
    /// If it has no `exp`, its time is over or has not come, or a member is not of its type.
    pub fn new(members: Map<String, Value>, now: SystemTime) -> Result<Claims, Failure> {
        Claims::answering(members, &[], now)
    }

    /// The same of an answer to who asked for these channels. What the answer repeats of them is a name, whatever it looks
    /// like: the client chose it, and a room that is called `*` must not become a pattern that covers all rooms.
    ///
    /// # Errors
    /// As those of [`Claims::new`].
    pub fn answering(members: Map<String, Value>, asked: &[String], now: SystemTime) -> Result<Claims, Failure> {
        let exp = members
            .get("exp")
            .filter(|exp| !exp.is_null())
            .ok_or(Failure::NoExpiry)?;
        let expires = time(exp).ok_or(Failure::Malformed("`exp` is a number of seconds since 1970"))?;
        if expires >= UNIX_EPOCH + MILLISECONDS {
            return Err(Failure::Malformed(
                "`exp` is in milliseconds: it is a number of seconds since 1970",
            ));
        }
        if expires <= now {
            return Err(Failure::Expired(now.duration_since(expires).unwrap_or_default()));
        }
        if let Some(nbf) = members.get("nbf").filter(|nbf| !nbf.is_null()) {
            let begins = time(nbf).ok_or(Failure::Malformed("`nbf` is a number of seconds since 1970"))?;
            let wait = begins.duration_since(now).unwrap_or_default();
            if wait > NBF_LEEWAY {
                return Err(Failure::NotYet(wait));
            }
        }
        let mut listed = names(members.get("channels"), "`channels` is a list of texts")?;
        let mercure = members.get("mercure").and_then(|mercure| mercure.get("subscribe"));
        listed.extend(names(mercure, "`mercure.subscribe` is a list of texts")?);
        if listed.len() > MAX_LISTED {
            return Err(Failure::Malformed("it lists more than 1,000 channels"));
        }
        let (mut names, mut patterns) = (Vec::new(), Vec::new());
        for entry in listed {
            match KeyPattern::parse(&entry).ok().filter(|_| !asked.contains(&entry)) {
                Some(pattern) => match pattern.literal().map(String::from_utf8) {
                    Some(Ok(name)) => names.push(name),
                    _ => patterns.push(pattern),
                },
                // What is no pattern is still a name.
                None => names.push(entry),
            }
        }
        let texts = names.iter().map(|name| name.capacity() + PIECE).sum::<usize>();
        // Of a list that has grown by doubling, as much may be empty as is taken.
        let programs = patterns
            .iter()
            .map(|pattern| pattern.size() + size_of::<KeyPattern>())
            .sum::<usize>();
        let lists = names.capacity() * size_of::<String>() + texts + programs;
        let size = size_of::<Claims>() + object(&members) + lists;
        Ok(Claims {
            members,
            expires,
            names,
            patterns,
            size,
        })
    }

    /// About how many bytes it takes in memory, with all that it points to.
    pub fn size(&self) -> usize {
        self.size
    }

    /// From when on it no longer counts.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Who made it, by its own word.
    pub fn issuer(&self) -> Option<&str> {
        self.members.get("iss")?.as_str()
    }

    /// Whom it speaks of, by the issuer's name.
    pub fn subject(&self) -> Option<String> {
        self.members.get("sub").and_then(text)
    }

    /// Whether the claim is this, or a list that contains it. Numbers and booleans are compared as JSON writes them.
    pub fn holds(&self, claim: &str, wanted: impl AsRef<[u8]>) -> bool {
        let is = |value: &Value| text(value).is_some_and(|text| text.as_bytes() == wanted.as_ref());
        match self.members.get(claim) {
            Some(Value::Array(values)) => values.iter().any(is),
            Some(value) => is(value),
            None => false,
        }
    }

    /// Whether it lists the channel, or a pattern that covers it.
    pub fn lists(&self, channel: &str) -> bool {
        self.names.iter().any(|name| name == channel)
            || self.patterns.iter().any(|pattern| pattern.is_match(channel.as_bytes()))
    }

    /// The channels that it lists by their names.
    pub fn plain_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

/// Seconds since 1970, possibly with a fraction (RFC 7519 §2, NumericDate). What is beyond all clocks is the year 9999.
fn time(value: &Value) -> Option<SystemTime> {
    const LATEST: f64 = 253_402_300_799.0;
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite())?;
    Some(UNIX_EPOCH + Duration::from_secs_f64(seconds.clamp(0.0, LATEST)))
}

/// What an object takes beyond itself: nodes with room for eleven members, at least five of them taken in all but one node.
/// An empty one has no node.
fn object(members: &Map<String, Value>) -> usize {
    const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 14 * size_of::<usize>();
    let inner = members
        .iter()
        .map(|(name, value)| name.capacity() + PIECE + beyond(value));
    let nodes = if members.is_empty() { 0 } else { members.len() / 5 + 1 };
    nodes * NODE + inner.sum::<usize>()
}

/// What a value takes beyond itself.
fn beyond(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity() + PIECE,
        Value::Array(values) => {
            let inner = values.iter().map(beyond).sum::<usize>();
            values.capacity() * size_of::<Value>() + PIECE + inner
        }
        Value::Object(members) => object(members),
    }
}

fn names(value: Option<&Value>, expected: &'static str) -> Result<Vec<String>, Failure> {
    let malformed = Failure::Malformed(expected);
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned).ok_or(malformed.clone()))
            .collect(),
        Some(_) => Err(malformed),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn claims(value: Value) -> Result<Claims, Failure> {
        let Value::Object(members) = value else {
            panic!("a payload is an object")
        };
        Claims::new(members, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn time_is_kept_at_its_end_and_lenient_at_its_beginning() {
        assert_eq!(claims(json!({})).unwrap_err(), Failure::NoExpiry);
        assert_eq!(claims(json!({"exp": null})).unwrap_err(), Failure::NoExpiry);
        assert!(matches!(claims(json!({"exp": "1"})), Err(Failure::Malformed(_))));
        let expired = |seconds| Failure::Expired(Duration::from_secs(seconds));
        assert_eq!(claims(json!({"exp": NOW - 5})).unwrap_err(), expired(5));
        assert_eq!(claims(json!({"exp": NOW})).unwrap_err(), expired(0));
        assert_eq!(claims(json!({"exp": -1.0e300})).unwrap_err(), expired(NOW));
        assert!(claims(json!({"exp": NOW + 1, "nbf": NOW + 5})).is_ok());
        for far in [json!(1.0e300), json!(NOW * 1_000), json!(100_000_000_000_u64)] {
            assert!(matches!(claims(json!({"exp": far})), Err(Failure::Malformed(_))));
        }
        assert!(claims(json!({"exp": 99_999_999_999_u64})).is_ok());
        let early = claims(json!({"exp": NOW + 99, "nbf": NOW + 6}));
        assert_eq!(early.unwrap_err(), Failure::NotYet(Duration::from_secs(6)));
    }

    #[test]
    fn claims_are_compared_as_text() {
        let claims = claims(json!({
            "exp": NOW + 1, "sub": 42, "role": ["admin", 7, true], "org": {"id": 1}, "none": null, "big": 12345678901234567890_u64,
        }))
        .unwrap();
        assert_eq!(claims.subject().as_deref(), Some("42"));
        for (claim, wanted) in [
            ("sub", "42"),
            ("role", "admin"),
            ("role", "7"),
            ("role", "true"),
            ("big", "12345678901234567890"),
        ] {
            assert!(claims.holds(claim, wanted), "{claim} {wanted}");
        }
        for (claim, wanted) in [
            ("sub", "4"),
            ("role", "Admin"),
            ("org", "1"),
            ("none", "null"),
            ("no", ""),
        ] {
            assert!(!claims.holds(claim, wanted), "{claim} {wanted}");
        }
        assert!(!claims.holds("sub", b"42\xff"));
    }

    #[test]
    fn lists_hold_names_and_patterns() {
        let claims = claims(json!({
            "exp": NOW + 1, "channels": ["cart:42", "room:*", "u:{id}:x", "odd{"], "mercure": {"subscribe": ["m:1"]},
        }))
        .unwrap();
        for name in ["cart:42", "room:", "room:a:b", "u:7:x", "odd{", "m:1", "room:*"] {
            assert!(claims.lists(name), "{name}");
        }
        for name in ["cart:4", "cart:42:1", "u:7:8:x", "xroom:1", ""] {
            assert!(!claims.lists(name), "{name}");
        }
        assert_eq!(claims.plain_names().collect::<Vec<_>>(), ["cart:42", "odd{", "m:1"]);
    }

    /// Users choose names, so there must be a way to list one that looks like a pattern.
    #[test]
    fn a_name_that_looks_like_a_pattern_is_escaped() {
        let claims = claims(json!({"exp": NOW + 1, "channels": ["room:\\*", "room:\\{x\\}"]})).unwrap();
        assert!(claims.lists("room:*") && claims.lists("room:{x}"));
        assert!(!claims.lists("room:secret") && !claims.lists("room:\\*"));
        assert_eq!(claims.plain_names().collect::<Vec<_>>(), ["room:*", "room:{x}"]);
    }

    /// An app that lets through what it was asked for grants just that.
    #[test]
    fn what_an_answer_repeats_is_a_name() {
        let Value::Object(members) = json!({"exp": NOW + 1, "channels": ["room:*", "room:1*", "hall:*"]}) else {
            panic!("a payload is an object")
        };
        let asked = ["room:*".to_owned(), "room:1*".to_owned()];
        let claims = Claims::answering(members, &asked, UNIX_EPOCH + Duration::from_secs(NOW)).unwrap();
        assert!(claims.lists("room:*") && claims.lists("room:1*") && claims.lists("hall:9"));
        assert!(!claims.lists("room:secret") && !claims.lists("room:10"));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for wrong in [
            json!({"exp": NOW + 1, "channels": "a"}),
            json!({"exp": NOW + 1, "channels": [1]}),
            json!({"exp": NOW + 1, "mercure": {"subscribe": {}}}),
            json!({"exp": NOW + 1, "channels": vec!["a"; MAX_LISTED + 1]}),
        ] {
            assert!(matches!(claims(wrong), Err(Failure::Malformed(_))));
        }
    }

    /// Counted as a node each, a thousand of them in an answer would make it too large.
    #[test]
    fn an_empty_object_takes_nothing_beyond_itself() {
        let size = |values: Vec<Value>| claims(json!({"exp": NOW + 1, "x": values})).unwrap().size();
        assert_eq!(size(vec![json!({}); 100]), size(vec![json!(0); 100]));
        assert!(size(vec![json!({"a": 0}); 100]) > size(vec![json!({}); 100]) + 100 * 500);
    }

    #[test]
    fn no_pattern_takes_long() {
        let hostile = ["*a".repeat(500), "*{n}:".repeat(100) + "x", "?*".repeat(500) + "c"];
        let claims = claims(json!({"exp": NOW + 1, "channels": hostile})).unwrap();
        // Polynomial at worst: an exponential match would not come back within the life of the test.
        assert!(!claims.lists(&"b".repeat(1_024)));
        assert!(!claims.lists(&"ab:".repeat(341)));
        assert!(claims.lists(&"ba".repeat(512)));
    }
}
