//! A timing wheel: who is to be looked at when, at no cost while nothing is due.

use std::collections::VecDeque;
use std::time::Duration;

use super::conn::Token;

/// Places of the ring. Nobody is put further ahead than this many ticks; who is due later is looked at once more.
const SLOTS: usize = 256;

/// The ring. Time is counted in ticks since the shard began; 32 bits of the shortest tick are six years.
#[derive(Debug)]
pub(super) struct Wheel {
    tick: Duration,
    slots: Vec<Vec<Token>>,
    /// The last tick whose slot was emptied.
    at: u32,
    /// No slot before this tick holds anything; `None` if none does.
    earliest: Option<u32>,
}

impl Wheel {
    /// A wheel fit for delays of about this length, which it keeps to about one percent.
    pub(super) fn new(delay: Duration) -> Wheel {
        Wheel {
            tick: (delay / 128).clamp(Duration::from_millis(50), Duration::from_millis(250)),
            slots: vec![Vec::new(); SLOTS],
            at: 0,
            earliest: None,
        }
    }

    /// How many ticks a delay lasts, at least one.
    pub(super) fn ticks(&self, delay: Duration) -> u32 {
        let ticks = delay.as_nanos().div_ceil(self.tick.as_nanos());
        u32::try_from(ticks).unwrap_or(u32::MAX / 2).clamp(1, u32::MAX / 2)
    }

    /// The tick in which a moment falls, given as the time since the shard began.
    pub(super) fn tick_at(&self, since: Duration) -> u32 {
        u32::try_from(since.as_nanos() / self.tick.as_nanos()).unwrap_or(u32::MAX)
    }

    /// When a tick begins, as the time since the shard began.
    pub(super) fn begins(&self, tick: u32) -> Duration {
        self.tick * tick
    }

    /// Puts a client into the slot of a tick, and gives the tick: it is the nearest that the ring reaches.
    pub(super) fn add(&mut self, token: Token, due: u32) -> u32 {
        let due = due.clamp(self.at + 1, self.at + SLOTS as u32 - 1);
        self.slots[due as usize % SLOTS].push(token);
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
        due
    }

    /// Takes out all that is due by this tick, each with the tick that [`Wheel::add`] gave.
    pub(super) fn advance(&mut self, now: u32, due: &mut VecDeque<(u32, Token)>) {
        let Some(mut tick) = self.earliest.filter(|&earliest| earliest <= now) else {
            self.at = self.at.max(now);
            return;
        };
        let last = self.at + SLOTS as u32 - 1;
        while tick <= now.min(last) {
            due.extend(self.slots[tick as usize % SLOTS].drain(..).map(|token| (tick, token)));
            tick += 1;
        }
        let occupied = |tick: &u32| !self.slots[*tick as usize % SLOTS].is_empty();
        self.earliest = (tick..=last).find(occupied);
        self.at = self.at.max(now);
    }

    /// The next tick in which somebody is due.
    pub(super) fn next(&self) -> Option<u32> {
        self.earliest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(index: u32) -> Token {
        Token { index, generation: 7 }
    }

    fn due(wheel: &mut Wheel, now: u32) -> Vec<u32> {
        let mut due = VecDeque::new();
        wheel.advance(now, &mut due);
        due.into_iter().map(|(_, token)| token.index).collect()
    }

    #[test]
    fn everybody_comes_out_once_and_in_time() {
        let mut wheel = Wheel::new(Duration::from_secs(15));
        assert_eq!(wheel.next(), None);
        for index in 1..=200 {
            assert_eq!(wheel.add(token(index), index), index);
        }
        assert_eq!(wheel.next(), Some(1));
        assert!(due(&mut wheel, 0).is_empty());
        for now in 1..=100 {
            assert_eq!(due(&mut wheel, now), [now]);
        }
        assert_eq!(
            due(&mut wheel, 500),
            (101..=200).collect::<Vec<_>>(),
            "late is not lost"
        );
        assert_eq!(wheel.next(), None);
        assert_eq!(wheel.add(token(1), 100), 501, "what is past is due at the next tick");
        assert_eq!(
            wheel.add(token(2), 5_000),
            500 + SLOTS as u32 - 1,
            "what is far is looked at earlier"
        );
        assert_eq!(due(&mut wheel, 501), [1]);
        assert_eq!(due(&mut wheel, 5_000), [2]);
    }

    #[test]
    fn a_jump_over_the_whole_ring_is_survived() {
        let mut wheel = Wheel::new(Duration::from_secs(1));
        wheel.add(token(1), 3);
        assert_eq!(due(&mut wheel, 1_000_000), [1]);
        wheel.add(token(2), 1_000_003);
        assert_eq!(wheel.next(), Some(1_000_003));
        assert!(due(&mut wheel, 1_000_002).is_empty());
        assert_eq!(due(&mut wheel, 1_000_003), [2]);
    }

    #[test]
    fn delays_are_rounded_up_to_ticks() {
        let wheel = Wheel::new(Duration::from_secs(15));
        assert_eq!(wheel.ticks(Duration::ZERO), 1);
        assert_eq!(wheel.begins(wheel.ticks(Duration::from_secs(15))).as_secs(), 15);
        assert_eq!(wheel.tick_at(wheel.begins(77)), 77);
    }
}
