//! Keeps secrets out of the lines that are shown with a problem.

use std::ops::Range;

/// Options whose values are secrets wherever they stand.
const SECRETS: [&str; 3] = ["password", "secret", "secret_key_base"];
/// Where `key` is a secret too.
const SIGNED: &str = "signed";

/// The text with the password of every URL and the value of every option that is a secret made unreadable, each byte still
/// in its place.
pub(crate) fn hide_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_signed = false;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            in_signed = line.contains(SIGNED);
        }
        let urls = line
            .match_indices("://")
            .filter_map(|(at, mark)| password_of_url(line, at + mark.len()));
        // Mappings have a `key` too, and that is what their readers look for.
        let key = ["key"].into_iter().filter(|_| in_signed || line.contains(SIGNED));
        let options = SECRETS.into_iter().chain(key).flat_map(|option| {
            let found = line.match_indices(option);
            found.filter_map(move |(at, name)| value_of_option(line, at + name.len()))
        });
        let mut hidden: Vec<Range<usize>> = urls.chain(options).collect();
        // A variable shows nothing, and its name is what the reader looks for.
        hidden.retain(|range| !line[range.clone()].contains("${"));
        hidden.sort_by_key(|range| range.start);
        let mut shown = 0;
        for range in hidden.into_iter().filter(|range| !range.is_empty()) {
            let start = range.start.max(shown);
            let end = range.end.max(start);
            out.push_str(&line[shown..start]);
            out.extend(std::iter::repeat_n('*', end - start));
            shown = end;
        }
        out.push_str(&line[shown..]);
    }
    out
}

/// The password in a URL whose scheme ends at `start`.
fn password_of_url(line: &str, start: usize) -> Option<Range<usize>> {
    let rest = &line[start..];
    // It may hold any byte when it was not encoded, so the last `@` before the closing quote counts.
    let rest = &rest[..rest.find(['"', '\'', '\n']).unwrap_or(rest.len())];
    let at = rest.rfind('@')?;
    let colon = rest[..at].find(':')?;
    Some(start + colon + 1..start + at)
}

/// The value of the option whose name ends at `end`.
fn value_of_option(line: &str, end: usize) -> Option<Range<usize>> {
    let rest = line[end..].trim_start_matches(['"', '\'']).trim_start();
    let value = rest.strip_prefix('=')?.trim_start();
    let start = line.len() - value.len();
    let length = match value.chars().next()? {
        quote @ ('"' | '\'') => {
            return Some(start + 1..start + 1 + value[1..].find(quote).unwrap_or(value.trim_end().len() - 1));
        }
        _ => value.find([',', '}', '#', '\n']).unwrap_or(value.len()),
    };
    Some(start..start + value[..length].trim_end().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_in_place() {
        let text = "url = \"redis://me:se@cret@host\"\npassword = 'open sesame'\nuser = \"a\"\n";
        let hidden = hide_secrets(text);
        assert_eq!(
            hidden,
            "url = \"redis://me:*******@host\"\npassword = '***********'\nuser = \"a\"\n"
        );
        assert_eq!(hidden.len(), text.len());
    }

    #[test]
    fn passwords_are_hidden_wherever_they_stand() {
        for (text, hidden) in [
            (
                "upstream = { url = 'redis://h', password = 'x y' }",
                "upstream = { url = 'redis://h', password = '***' }",
            ),
            (
                "upstream.password = 1234 # comment",
                "upstream.password = **** # comment",
            ),
            ("\"password\"=\"é\"\n", "\"password\"=\"**\"\n"),
            ("password = \"open\n", "password = \"****\n"),
            ("password_file = \"a\"", "password_file = \"a\""),
            (
                "a = ['redis://:x@h', 'redis://:yz@h']",
                "a = ['redis://:*@h', 'redis://:**@h']",
            ),
        ] {
            assert_eq!(hide_secrets(text), hidden);
        }
    }

    #[test]
    fn variables_and_plain_urls_stay_readable() {
        for text in [
            "url = \"redis://:${SECRET}@host\"",
            "url = \"redis://host:6379/0\"",
            "password = \"${P}\"",
        ] {
            assert_eq!(hide_secrets(text), text);
        }
    }

    #[test]
    fn secrets_are_hidden_and_keys_of_mappings_are_not() {
        for (text, hidden) in [
            (
                "secret = \"abc\"\nsecret_file = \"abc\"",
                "secret = \"***\"\nsecret_file = \"abc\"",
            ),
            ("secret_key_base = 'abc'", "secret_key_base = '***'"),
            (
                "[[access.signed]]\nkey = \"abc\"\nkey_file = \"k\"\n\n[[mapping]]\nkey = \"cart:{user}\"",
                "[[access.signed]]\nkey = \"***\"\nkey_file = \"k\"\n\n[[mapping]]\nkey = \"cart:{user}\"",
            ),
            (
                "access = { signed = [{ key = \"abc\" }], jwt = [{ secret = \"abc\" }] }",
                "access = { signed = [{ key = \"***\" }], jwt = [{ secret = \"***\" }] }",
            ),
        ] {
            assert_eq!(hide_secrets(text), hidden);
        }
    }
}
