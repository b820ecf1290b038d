//! Whether two channel templates can give the same name.

use super::program::{Op, Program, Takes};

/// One byte of a template, or any number of bytes where `repeats`.
#[derive(Clone, Copy)]
struct Unit {
    takes: Bytes,
    repeats: bool,
}

#[derive(Clone, Copy)]
enum Bytes {
    One(u8),
    NotColon,
    All,
}

impl Bytes {
    fn meets(self, other: Bytes) -> bool {
        match (self, other) {
            (Bytes::One(a), Bytes::One(b)) => a == b,
            (Bytes::One(byte), Bytes::NotColon) | (Bytes::NotColon, Bytes::One(byte)) => byte != b':',
            _ => true,
        }
    }
}

/// Whether there is a byte string that both take. A wildcard byte is seen as any byte, so for patterns with sets this
/// may say yes wrongly, never no; templates have none.
pub(super) fn overlap(a: &Program, b: &Program) -> bool {
    let (prefix, suffix) = (shared(a.prefix(), b.prefix()), shared(a.suffix(), b.suffix()));
    if a.prefix()[..prefix] != b.prefix()[..prefix]
        || a.suffix()[a.suffix().len() - suffix..] != b.suffix()[b.suffix().len() - suffix..]
    {
        return false;
    }
    let (a, b) = (units(a), units(b));
    // Walks both at once: `(i, j)` is reached if some byte string leads to the i-th unit of one and the j-th of the other.
    let columns = b.len() + 1;
    let mut reached = vec![false; (a.len() + 1) * columns];
    let mut todo = vec![(0, 0)];
    while let Some((i, j)) = todo.pop() {
        if std::mem::replace(&mut reached[i * columns + j], true) {
            continue;
        }
        if i == a.len() && j == b.len() {
            return true;
        }
        let (left, right) = (a.get(i), b.get(j));
        if left.is_some_and(|unit| unit.repeats) {
            todo.push((i + 1, j));
        }
        if right.is_some_and(|unit| unit.repeats) {
            todo.push((i, j + 1));
        }
        if let (Some(left), Some(right)) = (left, right)
            && left.takes.meets(right.takes)
        {
            todo.push((i + usize::from(!left.repeats), j + usize::from(!right.repeats)));
        }
    }
    false
}

fn shared(a: &[u8], b: &[u8]) -> usize {
    a.len().min(b.len())
}

fn units(program: &Program) -> Vec<Unit> {
    let mut units = Vec::new();
    for op in program.ops() {
        match op {
            Op::Literal(bytes) => {
                units.extend(bytes.iter().map(|&byte| Unit {
                    takes: Bytes::One(byte),
                    repeats: false,
                }));
            }
            Op::Any | Op::OneOf(..) => units.push(Unit {
                takes: Bytes::All,
                repeats: false,
            }),
            Op::Gap(gap) => {
                let takes = if gap.takes == Takes::Segment {
                    Bytes::NotColon
                } else {
                    Bytes::All
                };
                if gap.takes != Takes::Any {
                    units.push(Unit { takes, repeats: false });
                }
                units.push(Unit { takes, repeats: true });
            }
        }
    }
    units
}
