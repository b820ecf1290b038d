//! The last gaps, for operators: since when, why, how long it took to be sure again, and how much had changed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::upstream::NodeId;

/// Gaps that are remembered; the oldest are forgotten first. A server that comes and goes every minute fills it in more
/// than an hour.
pub const KEPT: usize = 100;

/// A stretch of upstream history that may have been missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its place in the order of all gaps of the process, from 1 on.
    pub number: u64,
    /// The node whose key events may have been missed; nothing where it is one channel that could not keep its happenings.
    pub node: Option<NodeId>,
    /// Where that node was when the gap began.
    pub address: String,
    /// Why, in the word that counts it.
    pub reason: &'static str,
    /// Why, in a sentence, where the word does not say it all.
    pub detail: Option<String>,
    /// When it began.
    pub since: SystemTime,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// The end of a gap: everything that may have been missed was read again, or told as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How long it took, the time that the server was away included.
    pub took: Duration,
    /// Values that were found to differ from what clients had. Of gaps that were ended together, each has the sum.
    pub differences: u64,
}

/// The last [`KEPT`] gaps.
#[derive(Debug, Default)]
pub struct Gaps(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    gaps: VecDeque<Gap>,
}

impl Gaps {
    /// All that are remembered, the newest first.
    pub fn all(&self) -> Vec<Gap> {
        self.kept().gaps.iter().rev().cloned().collect()
    }

    /// One begins.
    pub(super) fn begin(
        &self,
        node: Option<NodeId>,
        address: String,
        reason: &'static str,
        detail: Option<String>,
        since: SystemTime,
    ) {
        let mut kept = self.kept();
        kept.last += 1;
        let number = kept.last;
        if kept.gaps.len() == KEPT {
            kept.gaps.pop_front();
        }
        kept.gaps.push_back(Gap {
            number,
            node,
            address,
            reason,
            detail,
            since,
            end: None,
        });
    }

    /// All those that go on, and are of such a node, end. For those of no node, `None` is asked.
    pub(super) fn end(&self, now: SystemTime, differences: u64, is_over: impl Fn(Option<NodeId>) -> bool) {
        let mut kept = self.kept();
        let ending = kept
            .gaps
            .iter_mut()
            .filter(|gap| gap.end.is_none() && is_over(gap.node));
        for gap in ending {
            let took = now.duration_since(gap.since).unwrap_or_default();
            gap.end = Some(End { took, differences });
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_gap_ends_with_those_of_its_node() {
        let gaps = Gaps::default();
        let (first, second) = (NodeId(0), NodeId(1));
        gaps.begin(Some(first), "a".into(), "upstream-lost", Some("it went".into()), at(10));
        gaps.begin(Some(second), "b".into(), "upstream-lost", None, at(11));
        gaps.begin(Some(first), "a".into(), "upstream-flushed", None, at(12));
        gaps.end(at(15), 7, |node| node == Some(first));
        let all = gaps.all();
        let numbers: Vec<u64> = all.iter().map(|gap| gap.number).collect();
        assert_eq!(numbers, [3, 2, 1], "the newest first");
        let end = |seconds, differences| {
            let took = Duration::from_secs(seconds);
            Some(End { took, differences })
        };
        assert_eq!(
            all.iter().map(|gap| gap.end).collect::<Vec<_>>(),
            [end(3, 7), None, end(5, 7)]
        );
        // What has ended is not ended again.
        gaps.end(at(99), 1, |_| true);
        assert_eq!(
            gaps.all().iter().map(|gap| gap.end).collect::<Vec<_>>(),
            [end(3, 7), end(88, 1), end(5, 7)]
        );
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let gaps = Gaps::default();
        for _ in 0..KEPT + 3 {
            gaps.begin(None, String::new(), "overflow", None, at(1));
        }
        let all = gaps.all();
        assert_eq!(
            (all.len(), all[0].number, all[KEPT - 1].number),
            (KEPT, KEPT as u64 + 3, 4)
        );
    }
}
