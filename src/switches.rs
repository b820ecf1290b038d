//! Test-only switches: each puts one repair mechanism out of order, so that a test can show that it would be missed.

/// A mechanism that can be switched off; by the names of [`Switch::NAMED`] in the variable [`VARIABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// All that a state channel shows is read again after a gap.
    Resync,
    /// The server's signal that all keys may have gone is heard.
    FlushSignal,
    /// What no event and no signal tells is looked for.
    SilentWatch,
    /// A key is read again when it expires.
    Deadlines,
    /// A key that changed while it was read is read once more.
    ReadAgain,
    /// A key whose read failed is read again.
    PutBack,
    /// Subscribers take nothing above the watermark.
    Watermark,
    /// A log knows from where on it misses nothing.
    CompleteFrom,
    /// A cursor of another process is unknown.
    Epoch,
    /// A cursor of another list of channels is unknown.
    Set,
    /// What is due is sent lowest sequence first, over all channels of a session.
    LowestFirst,
    /// A PING that the server does not answer is noticed.
    Pulse,
    /// A pass over the keys whose connection broke begins anew.
    ScanAgain,
    /// What is heard and what is read must be the same process.
    SameServer,
    /// All is read again after more keys changed than may wait.
    Overflow,
    /// Many keys may wait to be taken; otherwise a few, so that there soon are more.
    Room,
    /// Keys that are another node's than before are read again.
    Moved,
    /// The loop of the feed goes on turning.
    FeedTurns,
    /// The loop of the relay goes on turning.
    RelayTurns,
    /// The loops of the shards go on turning.
    ShardTurns,
}

/// Names the switches that are off, separated by commas.
pub const VARIABLE: &str = "KEYRELAY_SWITCH_OFF";

impl Switch {
    /// All switches by their names.
    pub const NAMED: [(&str, Switch); 20] = [
        ("resync", Switch::Resync),
        ("flush-signal", Switch::FlushSignal),
        ("silent-watch", Switch::SilentWatch),
        ("deadlines", Switch::Deadlines),
        ("read-again", Switch::ReadAgain),
        ("put-back", Switch::PutBack),
        ("watermark", Switch::Watermark),
        ("complete-from", Switch::CompleteFrom),
        ("epoch", Switch::Epoch),
        ("set", Switch::Set),
        ("lowest-first", Switch::LowestFirst),
        ("pulse", Switch::Pulse),
        ("scan-again", Switch::ScanAgain),
        ("same-server", Switch::SameServer),
        ("overflow", Switch::Overflow),
        ("room", Switch::Room),
        ("moved", Switch::Moved),
        ("feed-turns", Switch::FeedTurns),
        ("relay-turns", Switch::RelayTurns),
        ("shard-turns", Switch::ShardTurns),
    ];
}

pub use build::{check, off};

#[cfg(debug_assertions)]
mod build {
    use std::sync::LazyLock;

    use super::{Switch, VARIABLE};

    /// One bit for each switch that is off.
    static OFF: LazyLock<Result<u32, String>> = LazyLock::new(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));

    /// Whether the mechanism is switched off.
    pub fn off(switch: Switch) -> bool {
        OFF.as_ref().is_ok_and(|off| off & bit(switch) != 0)
    }

    /// Says in the log which mechanisms are off.
    ///
    /// # Errors
    /// If the variable names a switch that there is not.
    pub fn check() -> Result<(), String> {
        let off = *OFF.as_ref().map_err(Clone::clone)?;
        for (name, _) in Switch::NAMED.iter().filter(|(_, switch)| off & bit(*switch) != 0) {
            tracing::warn!(
                switch = name,
                "a mechanism is switched off: this process is for tests only"
            );
        }
        Ok(())
    }

    pub(super) fn parse(names: &str) -> Result<u32, String> {
        let mut names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.try_fold(0, |off, name| {
            let known = Switch::NAMED.iter().find(|(known, _)| *known == name);
            let (_, switch) = known.ok_or_else(|| format!("{VARIABLE} names `{name}`, and there is no such switch"))?;
            Ok(off | bit(*switch))
        })
    }

    pub(super) fn bit(switch: Switch) -> u32 {
        1 << switch as u32
    }
}

#[cfg(not(debug_assertions))]
mod build {
    use super::Switch;

    /// Nothing can be switched off in a build for use.
    #[inline(always)]
    pub const fn off(_: Switch) -> bool {
        false
    }

    /// There is nothing to be said.
    ///
    /// # Errors
    /// None.
    pub const fn check() -> Result<(), String> {
        Ok(())
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::build::{bit, parse};
    use super::*;

    #[test]
    fn names_are_read_and_unknown_ones_refused() {
        assert_eq!(parse(""), Ok(0));
        assert_eq!(parse("epoch, set"), Ok(bit(Switch::Epoch) | bit(Switch::Set)));
        let error = parse("epoch,sett").unwrap_err();
        assert_eq!(error, "KEYRELAY_SWITCH_OFF names `sett`, and there is no such switch");
    }

    #[test]
    fn every_switch_has_a_bit_of_its_own() {
        let all = Switch::NAMED.iter().fold(0, |all, (_, switch)| all | bit(*switch));
        assert_eq!(all.count_ones() as usize, Switch::NAMED.len());
    }
}
