//! Bytes from outside as text that cannot trouble a terminal.

/// Bytes as one line of text: what is not UTF-8 is written as `\xff`, and so is whatever would move the cursor, end the line
/// or turn the writing direction.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match troubles(char) {
                true => text.extend(char.escape_default()),
                false => text.push(char),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&byte.escape_ascii().to_string());
        }
    }
    text
}

/// Control characters, and those that are seen only by what they do to others: marks of direction, and separators and
/// joiners without a width (Unicode 16, general categories Cf, Zl and Zp).
fn troubles(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stays_as_it_is() {
        for text in ["cart:42", "größe:ß", "{\"a\":\"b\\n\"}", "日本:1", "🙂"] {
            assert_eq!(shown(text.as_bytes()), text);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        for (bytes, text) in [
            (b"a\x1b[2Jb".as_slice(), "a\\u{1b}[2Jb"),
            (b"a\nb\r\t", "a\\nb\\r\\t"),
            (b"\xff\x80a", "\\xff\\x80a"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
            (b"\0\x7f", "\\u{0}\\u{7f}"),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn no_byte_gets_through_that_is_not_to_be_seen(bytes: Vec<u8>) {
            prop_assert!(!shown(&bytes).chars().any(troubles));
        }
    }
}
