//! The letters of the server setting `notify-keyspace-events`.

use std::fmt;

/// Which notifications a server sends: a set of letters, in which `A` stands for `g$lshzxetd`.
///
/// The letters are those of redis.conf, "EVENT NOTIFICATION". A letter that is not known here is kept, so that uniting
/// never takes away what somebody else set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyFlags {
    /// Bit n is the character n; servers know ASCII letters and `$` only.
    letters: u128,
}

/// What `A` stands for. The letters `m` (misses) and `n` (new keys; unknown to KeyDB) are never part of it.
const ALL: &str = "g$lshzxetd";

/// What keyrelay must hear: keyspace channels, and every class of command, type and end of a key. Not `d`: what
/// modules do to keys of their own types is nothing that can be read.
const NEEDED: &str = "Kg$lshzxet";

/// Order in which servers and people write the letters.
const ORDER: &str = "KEAg$lshzxetdmn";

impl NotifyFlags {
    /// The letters of a setting's value. Anything but ASCII is no letter of any server and is passed over.
    pub fn parse(value: &str) -> NotifyFlags {
        let mut letters = 0;
        for letter in value.bytes().filter(u8::is_ascii_graphic) {
            letters |= 1 << letter;
        }
        NotifyFlags { letters }
    }

    /// What keyrelay needs.
    pub fn needed() -> NotifyFlags {
        NotifyFlags::parse(NEEDED)
    }

    /// Whether everything that `other` asks for is sent.
    pub fn contains(self, other: NotifyFlags) -> bool {
        other.spelt_out().letters & !self.spelt_out().letters == 0
    }

    /// The letters of both.
    pub fn union(self, other: NotifyFlags) -> NotifyFlags {
        NotifyFlags {
            letters: self.letters | other.letters,
        }
    }

    fn has(self, letter: char) -> bool {
        self.letters & (1 << letter as u32) != 0
    }

    /// Without `A`, but with what it stands for.
    fn spelt_out(self) -> NotifyFlags {
        if !self.has('A') {
            return self;
        }
        let letters = self.letters & !(1 << b'A');
        NotifyFlags { letters }.union(NotifyFlags::parse(ALL))
    }
}

impl fmt::Display for NotifyFlags {
    /// In the usual order; what `A` covers is not repeated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let covered = |letter| self.has('A') && ALL.contains(letter);
        let others = ('!'..='~').filter(|&letter| !ORDER.contains(letter));
        let letters = ORDER
            .chars()
            .chain(others)
            .filter(|&letter| self.has(letter) && !covered(letter));
        letters.map(String::from).collect::<String>().fmt(f)
    }
}

/// The value to set instead of `current` so that keyrelay hears everything and nobody loses a letter; None when
/// `current` is enough.
pub fn missing(current: &str) -> Option<String> {
    let current = NotifyFlags::parse(current);
    let needed = NotifyFlags::needed();
    (!current.contains(needed)).then(|| current.union(needed).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unites_and_never_replaces() {
        assert_eq!(missing(""), Some("Kg$lshzxet".into()));
        assert_eq!(missing("E"), Some("KEg$lshzxet".into()));
        assert_eq!(missing("Ex"), Some("KEg$lshzxet".into()));
        assert_eq!(missing("AE"), Some("KEA".into()));
        assert_eq!(missing("gxEnm"), Some("KEg$lshzxetmn".into()));
        assert_eq!(missing("KA"), None);
        assert_eq!(missing("Kg$lshzxet"), None);
        assert_eq!(missing("AKEmn"), None);
        assert_eq!(missing("K"), Some("Kg$lshzxet".into()));
    }

    #[test]
    fn the_alias_counts_as_what_it_stands_for() {
        let all = NotifyFlags::parse("A");
        assert!(all.contains(NotifyFlags::parse("g$lshzxetd")));
        assert!(NotifyFlags::parse("g$lshzxetd").contains(all));
        assert!(!NotifyFlags::parse("g$lshzxet").contains(all));
        assert!(!all.contains(NotifyFlags::parse("K")));
        assert!(!all.contains(NotifyFlags::parse("n")));
        assert_eq!(NotifyFlags::parse("zA").to_string(), "A");
    }

    proptest! {
        #[test]
        fn after_uniting_nothing_is_missing_or_lost(current in "[!-~]{0,12}") {
            if let Some(united) = missing(&current) {
                prop_assert_eq!(missing(&united), None);
                prop_assert!(NotifyFlags::parse(&united).contains(NotifyFlags::parse(&current)));
            }
        }

        #[test]
        fn what_is_written_reads_the_same(current in "\\PC{0,12}") {
            let flags = NotifyFlags::parse(&current);
            let again = NotifyFlags::parse(&flags.to_string());
            prop_assert!(again.contains(flags) && flags.contains(again));
        }
    }
}
