//! Text that is JSON: is it, and the same without the space between.

use serde::de::IgnoredAny;

/// Deepest nesting that is passed on as JSON; text beyond it stays text. Parsers of this world give up between 100
/// and 1,000 levels (serde_json at 128), and the payload itself adds a few.
const MAX_DEPTH: usize = 100;

/// The text as JSON, if it is that: any JSON value, in UTF-8, nested no deeper than a client's parser will follow.
pub(super) fn json(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    // Skips over values without recursion, so the depth must be judged apart; it is cheap once the text is valid.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    (depth(text.as_bytes()) <= MAX_DEPTH).then_some(text)
}

/// Writes valid JSON without the space between its tokens, so that it stands on one line; numbers and strings stay as
/// they were written.
pub(super) fn write_compact(out: &mut Vec<u8>, json: &str) {
    let bytes = json.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b' ' | b'\t' | b'\n' | b'\r' => {
                out.extend_from_slice(&bytes[start..at]);
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&bytes[start..]);
}

/// Levels of nesting in valid JSON: 0 for a number, 1 for `[]`.
fn depth(json: &[u8]) -> usize {
    let (mut deepest, mut depth, mut at) = (0_usize, 0_usize, 0);
    while at < json.len() {
        match json[at] {
            b'"' => {
                at = end_of_string(json, at);
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// The place after the string whose opening quote is at `at`, in valid JSON.
fn end_of_string(json: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
        if json[at + found] == b'"' {
            return at + found + 1;
        }
        at += found + 2;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_any_json_value_and_nothing_else() {
        for yes in [
            "1",
            " 1.50\n",
            "null",
            "\"a\"",
            "[]",
            "{\"a\":{}}",
            "1e999",
            "\"\\ud800\"",
        ] {
            assert!(json(yes.as_bytes()).is_some(), "{yes}");
        }
        for no in ["", " ", "abc", "{", "01", "1 2", "{'a':1}", "\u{feff}1", "NaN", "[1,]"] {
            assert!(json(no.as_bytes()).is_none(), "{no}");
        }
        assert!(json(b"\"\xff\"").is_none());
    }

    #[test]
    fn what_is_nested_too_deep_stays_text() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(json(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(json(nested(MAX_DEPTH + 1).as_bytes()).is_none());
        assert!(json(nested(500_000).as_bytes()).is_none());
        let flat = format!("\"{}\"", "[".repeat(1000));
        assert!(json(flat.as_bytes()).is_some(), "brackets inside a string nest nothing");
    }

    #[test]
    fn compacting_touches_only_the_space_between() {
        let mut out = Vec::new();
        write_compact(&mut out, " { \"a b\\\" \\\\\" : [ 1.50 ,\r\n\t-0e+1 ] } ");
        assert_eq!(std::str::from_utf8(&out).unwrap(), r#"{"a b\" \\":[1.50,-0e+1]}"#);
    }
}
