//! What a request's path and query ask for.

use std::collections::HashSet;
use std::fmt;

/// Longest channel name in bytes: far beyond any key that people write, and short enough for a log line.
pub const MAX_NAME: usize = 1_024;

/// The parameters of a request; those that nobody here knows are ignored, since clients add their own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// The channels asked for, each once, in the order they were first named.
    pub channels: Vec<String>,
    /// The cursor in the URL; an empty one counts as none.
    pub cursor: Option<String>,
    /// Whether bare payloads are wanted (`raw=1`).
    pub raw: bool,
    /// A token.
    pub token: Option<String>,
    /// Signed names of channels, as Rails makes them.
    pub signed: Vec<String>,
    /// Whether the client wants to be told before what allows it to read expires (`expiring=1`).
    pub expiring: bool,
}

/// Why a request's URL cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A `%` without two hex digits, or bytes that are not UTF-8.
    #[error("`{0}` is not percent-encoded UTF-8: write `%` itself as `%25`")]
    Encoding(&'static str),
    /// A name has no bytes.
    #[error("a channel name is empty: write `channel=` and the name")]
    EmptyName,
    /// A name is longer than [`MAX_NAME`].
    #[error("a channel name has {0} bytes: at most {MAX_NAME} are taken")]
    LongName(usize),
    /// More than this many.
    #[error("more than {0} channels: gather keys in one channel by the mapping's template, or open another connection")]
    TooMany(usize),
}

impl fmt::Debug for Query {
    /// Of credentials, tells what there is, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("channels", &self.channels)
            .field("cursor", &self.cursor)
            .field("raw", &self.raw)
            .field("token", &self.token.is_some())
            .field("signed", &self.signed.len())
            .field("expiring", &self.expiring)
            .finish()
    }
}

impl Query {
    /// Reads a query string (without `?`) and the name from the path, where there is one; it comes first. `token` is what
    /// the parameter with a token is called, `most` how many channels may be named.
    pub fn parse(path_name: Option<&str>, query: &str, token: &str, most: usize) -> Result<Query, QueryError> {
        let mut seen = HashSet::new();
        let mut parsed = Query::default();
        if let Some(name) = path_name {
            let name = decode(name, false).ok_or(QueryError::Encoding("the channel in the path"))?;
            parsed.add(name, &mut seen, most)?;
        }
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match decode(key, true).as_deref() {
                Some("channel" | "channel[]") => {
                    let name = decode(value, true).ok_or(QueryError::Encoding("channel"))?;
                    parsed.add(name, &mut seen, most)?;
                }
                Some("cursor") if parsed.cursor.is_none() && !value.is_empty() => {
                    parsed.cursor = Some(decode(value, true).ok_or(QueryError::Encoding("cursor"))?);
                }
                Some("signed" | "signed[]" | "turbo_signed_stream_name") if parsed.signed.len() < most => {
                    parsed
                        .signed
                        .push(decode(value, true).ok_or(QueryError::Encoding("signed"))?);
                }
                Some("raw") => parsed.raw = value == "1",
                Some("expiring") => parsed.expiring = value == "1",
                Some(name) if name == token && parsed.token.is_none() && !value.is_empty() => {
                    parsed.token = Some(decode(value, true).ok_or(QueryError::Encoding("token"))?);
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Adds a channel unless it is there.
    fn add(&mut self, name: String, seen: &mut HashSet<String>, most: usize) -> Result<(), QueryError> {
        check_name(&name)?;
        if seen.insert(name.clone()) {
            if self.channels.len() == most {
                return Err(QueryError::TooMany(most));
            }
            self.channels.push(name);
        }
        Ok(())
    }
}

/// Whether a channel could have this name at all.
pub fn check_name(name: &str) -> Result<(), QueryError> {
    match name.len() {
        0 => Err(QueryError::EmptyName),
        length if length > MAX_NAME => Err(QueryError::LongName(length)),
        _ => Ok(()),
    }
}

/// Percent-decodes strictly: a name that was mangled on its way must not become another name.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 100;

    fn parse(path_name: Option<&str>, query: &str) -> Result<Query, QueryError> {
        Query::parse(path_name, query, "token", MOST)
    }

    fn channels(query: &str) -> Result<Vec<String>, QueryError> {
        parse(None, query).map(|query| query.channels)
    }

    #[test]
    fn both_spellings_name_channels_and_duplicates_fold() {
        let names = channels("channel=cart%3A42&x=1&channel[]=a+b&channel%5B%5D=%C3%A9&channel=cart:42&&channel=a%2Bb");
        assert_eq!(names.unwrap(), ["cart:42", "a b", "é", "a+b"]);
        assert_eq!(channels("").unwrap(), [""; 0]);
    }

    #[test]
    fn the_name_in_the_path_comes_first_and_keeps_its_plus() {
        let query = parse(Some("a+b/%2525"), "channel=c").unwrap();
        assert_eq!(query.channels, ["a+b/%25", "c"]);
    }

    #[test]
    fn what_is_not_text_is_refused_only_where_it_matters() {
        for bad in ["channel=%", "channel=%4", "channel=%zz", "channel=%FF", "channel=%+1"] {
            assert_eq!(channels(bad), Err(QueryError::Encoding("channel")), "{bad}");
        }
        assert_eq!(channels("%FF=1&utm=%FF&%=%&channel=a").unwrap(), ["a"]);
        assert_eq!(channels("channel="), Err(QueryError::EmptyName));
        assert_eq!(channels("channel"), Err(QueryError::EmptyName));
        assert!(parse(Some("%"), "").is_err() && parse(Some(""), "").is_err());
    }

    #[test]
    fn the_limits_hold() {
        let name = "x".repeat(MAX_NAME);
        assert_eq!(
            channels(&format!("channel={name}")).unwrap(),
            std::slice::from_ref(&name)
        );
        assert_eq!(
            channels(&format!("channel={name}x")),
            Err(QueryError::LongName(MAX_NAME + 1))
        );
        let many = |n: usize| (0..n).map(|i| format!("channel={i}&channel={i}&")).collect::<String>();
        assert_eq!(channels(&many(MOST)).unwrap().len(), MOST);
        assert_eq!(channels(&many(MOST + 1)), Err(QueryError::TooMany(MOST)));
    }

    #[test]
    fn cursor_and_raw_are_read() {
        let query = parse(None, "cursor=&cursor=a-1&cursor=b&raw=1").unwrap();
        assert_eq!((query.cursor.as_deref(), query.raw), (Some("a-1"), true));
        assert!(!parse(None, "raw=0&cursor=").unwrap().raw);
    }

    #[test]
    fn nothing_of_a_credential_is_told() {
        let query = parse(
            None,
            "channel=a&token=sesame&signed=sesame&turbo_signed_stream_name=sesame",
        )
        .unwrap();
        assert_eq!((query.token.as_deref(), query.signed.len()), (Some("sesame"), 2));
        let text = format!("{query:?}");
        assert!(!text.contains("sesame"), "{text}");
    }

    proptest! {
        #[test]
        fn any_name_survives_encoding(name in "\\PC{1,40}") {
            let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("channel", &name).finish();
            prop_assert_eq!(channels(&query).unwrap(), vec![name.clone()]);
            let path = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(parse(Some(&path), "").unwrap().channels, vec![name]);
        }

        #[test]
        fn no_text_panics(text in "\\PC*", path in "\\PC*") {
            let _ = parse(Some(&path), &text);
        }
    }
}
