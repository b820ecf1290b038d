//! Which slots a sweep sent above its base, so that nothing is sent twice.

/// A sweep takes each slot at its newest value, which may be newer than the sequence that the sweep establishes as the
/// new base. What follows must not send those again. As a sweep visits the slots in order under a watermark that only
/// grows, "visited up to which watermark" is a step function of the place: a few steps however many slots there are.
#[derive(Debug, Default)]
pub(super) struct Marks {
    steps: Vec<Mark>,
}

/// Everything behind the previous step and before `(place, slot)` was visited at watermark `upto`.
#[derive(Clone, Copy, Debug)]
struct Mark {
    place: u32,
    slot: u32,
    upto: u64,
}

/// A slow client makes one step per burst that its socket took; beyond this many, neighbours are merged, which at worst
/// sends a value again that the client has.
const STEPS: usize = 64;

impl Marks {
    /// Notes that everything before `(place, slot)` that had no mark yet was visited at this watermark.
    pub(super) fn visit(&mut self, place: u32, slot: u32, upto: u64) {
        match self.steps.last_mut() {
            Some(last) if last.upto == upto => (last.place, last.slot) = (place, slot),
            _ => self.steps.push(Mark { place, slot, upto }),
        }
        if self.steps.len() > STEPS {
            let merged = self.steps.chunks(2).map(|pair| Mark {
                upto: pair[0].upto,
                ..pair[pair.len() - 1]
            });
            self.steps = merged.collect();
        }
    }

    /// Whether this slot was visited when its message of this sequence was already visible.
    pub(super) fn covers(&self, place: u32, slot: u32, sequence: u64) -> bool {
        let step = self
            .steps
            .partition_point(|mark| (mark.place, mark.slot) <= (place, slot));
        self.steps.get(step).is_some_and(|mark| mark.upto >= sequence)
    }

    /// Forgets all steps if none reaches above the base: then the base says it all.
    pub(super) fn settle(&mut self, base: u64) {
        if self.steps.last().is_none_or(|last| last.upto <= base) {
            self.clear();
        }
    }

    /// Forgets all steps.
    pub(super) fn clear(&mut self) {
        self.steps = Vec::new();
    }

    /// A place was taken out; those behind it move up.
    pub(super) fn remove(&mut self, place: u32) {
        for mark in self.steps.iter_mut().filter(|mark| mark.place >= place) {
            if mark.place == place {
                // The step now ends where the place began; it still covers what lies before.
                mark.slot = 0;
            } else {
                mark.place -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_covered_by_the_watermark_it_was_visited_at() {
        let mut marks = Marks::default();
        marks.visit(0, 3, 10);
        marks.visit(0, 5, 10);
        marks.visit(1, 2, 20);
        assert!(marks.covers(0, 4, 10) && !marks.covers(0, 4, 11));
        assert!(
            marks.covers(0, 5, 20),
            "the slot behind the first step was visited later"
        );
        assert!(marks.covers(1, 1, 20) && !marks.covers(1, 2, 1));
        marks.settle(19);
        assert!(marks.covers(1, 1, 20));
        marks.settle(20);
        assert!(!marks.covers(1, 1, 1));
    }

    #[test]
    fn a_place_that_is_removed_leaves_the_others_as_they_were() {
        let mut marks = Marks::default();
        marks.visit(0, 9, 10);
        marks.visit(1, 9, 20);
        marks.visit(2, 9, 30);
        marks.remove(1);
        assert!(marks.covers(0, 8, 10) && !marks.covers(0, 8, 11));
        assert!(marks.covers(1, 8, 30));
    }

    #[test]
    fn steps_are_bounded_and_never_claim_too_much() {
        let mut marks = Marks::default();
        for slot in 0..10_000u32 {
            marks.visit(0, slot + 1, u64::from(slot) + 1);
            assert!(marks.steps.len() <= STEPS);
        }
        for slot in 0..10_000u32 {
            assert!(
                !marks.covers(0, slot, u64::from(slot) + 2),
                "slot {slot} was visited at {}",
                slot + 1
            );
        }
    }
}
