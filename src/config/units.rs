//! Durations (`"30s"`) and sizes (`"1MiB"`) as text.

use std::time::Duration;

/// Units of time, the longest first, in milliseconds.
const TIME: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of size, the largest first, in bytes.
const SIZE: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is neither a duration nor a size, and what was probably meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnitError {
    pub(crate) what: String,
    pub(crate) instead: String,
}

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &TIME, "s", "\"30s\", \"500ms\", \"5m\" or \"1h\"").map(Duration::from_millis)
}

/// Reads a size: a whole number and one of `B`, `KiB`, `MiB`, `GiB`.
pub(crate) fn size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE, "B", "\"512B\", \"64KiB\" or \"1MiB\"")
}

/// A duration as one would write it.
pub(crate) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIME, "s")
}

/// A size as one would write it.
pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE, "B")
}

fn parse(text: &str, units: &[(&str, u64)], plain: &str, examples: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let wrong = |what: String, instead: String| Err(UnitError { what, instead });
    if number.is_empty() {
        return wrong("does not begin with a number".into(), format!("write {examples}"));
    }
    if unit.is_empty() {
        return wrong("a number without a unit".into(), format!("write \"{number}{plain}\""));
    }
    if unit.starts_with(['.', ',']) {
        return wrong("not a whole number".into(), format!("use a smaller unit: {examples}"));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let near = units.iter().find(|(name, _)| alike(name, unit)).map_or_else(
            || format!("write {examples}"),
            |(name, _)| format!("write \"{number}{name}\""),
        );
        return wrong(format!("`{unit}` is not a unit"), near);
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
    {
        Some(value) => Ok(value),
        None => wrong("too large a number".into(), format!("write {examples}")),
    }
}

/// Whether somebody who wrote `written` meant the unit `name`: `MB`, `mb`, `M` for `MiB`; `sec`, `minutes` for `s`, `m`.
fn alike(name: &str, written: &str) -> bool {
    let written = written.to_ascii_lowercase();
    let first = &name.to_ascii_lowercase()[..1];
    match name {
        "ms" => written.starts_with("mil") || written.starts_with("ms"),
        "m" => written.starts_with("min"),
        "s" => written.starts_with("sec"),
        "h" => written.starts_with('h'),
        "d" => written.starts_with("day"),
        "B" => written == "b" || written.starts_with("byte"),
        _ => written == first || written == format!("{first}b") || written == format!("{first}ib"),
    }
}

fn show(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    if value == 0 {
        return format!("0{zero}");
    }
    let (name, factor) = units
        .iter()
        .find(|(_, factor)| value.is_multiple_of(*factor))
        .expect("the last unit is 1, which divides all");
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read() {
        for text in ["30s", "500ms", "5m", "1h", "2d", "0s", "90s"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["512B", "64KiB", "1MiB", "3GiB", "0B"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }

    #[test]
    fn mistakes_are_answered_with_what_was_meant() {
        for (text, instead) in [
            ("30", "write \"30s\""),
            ("5 min", "write \"5m\""),
            ("10 seconds", "write \"10s\""),
            ("3msec", "write \"3ms\""),
        ] {
            assert_eq!(duration(text).unwrap_err().instead, instead);
        }
        for (text, instead) in [
            ("1MB", "write \"1MiB\""),
            ("64k", "write \"64KiB\""),
            ("9", "write \"9B\""),
        ] {
            assert_eq!(size(text).unwrap_err().instead, instead);
        }
        assert!(duration("99999999999999999999d").is_err());
        assert!(duration("1.5s").unwrap_err().instead.contains("smaller unit"));
        assert!(duration("").is_err());
    }
}
