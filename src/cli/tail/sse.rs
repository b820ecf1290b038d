//! Server-Sent Events as a client reads them: WHATWG HTML standard §9.2.6.
//!
//! Unlike the parsers that there are as crates it keeps apart which events have an id of their own: those of a snapshot have
//! none.

use std::time::Duration;

/// Longest event in bytes: a mapping may send a value of 64 MiB, and an escaped byte takes up to six.
const MAX_EVENT: usize = 512 << 20;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// The id that came with it.
    pub id: Option<String>,
    /// Its name; without one it is a plain message.
    pub name: Option<String>,
    /// Its lines of data, with `\n` between them.
    pub data: String,
}

/// The stream is no such stream.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT} bytes")]
pub(super) struct TooLong;

/// Reads a stream piece by piece.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// Of a line whose end has not come.
    line: Vec<u8>,
    /// The last piece ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    began: bool,
    event: Event,
    has_data: bool,
    /// What `retry` said last.
    pub retry: Option<Duration>,
}

impl Parser {
    /// Reads a piece, and gives `each` every event that it completes.
    ///
    /// # Errors
    /// If an event is too long.
    pub fn read(&mut self, bytes: &[u8], each: &mut impl FnMut(Event)) -> Result<(), TooLong> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
                self.line.extend_from_slice(rest);
                break;
            };
            self.line.extend_from_slice(&rest[..end]);
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.take(&String::from_utf8_lossy(&line), each);
            self.line = line;
            self.line.clear();
        }
        match self.line.len() + self.event.data.len() > MAX_EVENT {
            true => Err(TooLong),
            false => Ok(()),
        }
    }

    fn take(&mut self, line: &str, each: &mut impl FnMut(Event)) {
        let line = match std::mem::replace(&mut self.began, true) {
            false => line.strip_prefix('\u{feff}').unwrap_or(line),
            true => line,
        };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                each(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "event" => self.event.name = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let millis = value.parse().ok().filter(|_| digits);
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            // Comments have no field.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<Event>, Parser) {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.read(piece, &mut |event| events.push(event)).unwrap();
        }
        (events, parser)
    }

    fn event(id: Option<&str>, name: Option<&str>, data: &str) -> Event {
        Event {
            id: id.map(str::to_owned),
            name: name.map(str::to_owned),
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_are_read() {
        let stream = ": keyrelay\nretry: 1870\n\ndata: one\n\nid: 7-1\nevent: cart\ndata: a\ndata:  b\ndata\n\n:\n\nid: 7-2\n\n\
                      event: x\ndata\n\ndata: unfinished";
        let (events, parser) = read(&[stream.as_bytes()]);
        let expected = [
            event(None, None, "one"),
            event(Some("7-1"), Some("cart"), "a\n b\n"),
            event(None, Some("x"), ""),
        ];
        assert_eq!(events, expected);
        assert_eq!(parser.retry, Some(Duration::from_millis(1870)));
    }

    #[test]
    fn what_is_no_number_or_id_is_passed_over() {
        let (events, parser) = read(&["\u{feff}retry: 5\nretry: -1\nretry:\nid: a\0b\ndata: x\n\n".as_bytes()]);
        assert_eq!(events, [event(None, None, "x")]);
        assert_eq!(parser.retry, Some(Duration::from_millis(5)));
    }

    proptest! {
        /// Wherever the pieces of a stream are cut, and whatever ends its lines.
        #[test]
        fn cuts_and_line_ends_make_no_difference(
            lines in prop::collection::vec("(data|id|event|x)?(: ?)?[a-z:]{0,4}", 0..20),
            ends in prop::collection::vec(0..3_usize, 20),
            cut in any::<prop::sample::Index>(),
        ) {
            let plain: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let ended = lines.iter().zip(ends).map(|(line, end)| format!("{line}{}", ["\n", "\r", "\r\n"][end]));
            let ended: String = ended.collect();
            let (whole, _) = read(&[plain.as_bytes()]);
            // A line that ends with CR before an empty one that ends with LF is another stream: both are one end.
            prop_assume!(ended.replace("\r\n", "\n").replace('\r', "\n") == plain);
            let (a, b) = ended.as_bytes().split_at(cut.index(ended.len() + 1));
            let (cut, _) = read(&[a, b]);
            prop_assert_eq!(cut, whole);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            read(&[&bytes]);
        }
    }
}
