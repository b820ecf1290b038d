//! A parsed pattern as a sequence of steps, and the matcher that runs it.

use memchr::memchr;

/// Memory of a matcher above which it is given back after the match, in words: only keys of many KiB need it.
const KEPT_WORDS: usize = 8 * 1024;

/// What a gap may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `*`: any bytes, also none.
    Any,
    /// `{name...}`: one byte or more.
    Rest,
    /// `{name}`: one byte or more, none of them `:`.
    Segment,
}

/// A step of variable length.
#[derive(Debug, Clone)]
pub(crate) struct Gap {
    pub takes: Takes,
    /// Which capture it fills.
    pub capture: Option<usize>,
    /// Its place among the gaps of its program.
    number: usize,
    /// Length of all that follows, where no gap does: then there is only one place where this gap can end.
    tail: Option<usize>,
}

impl Gap {
    pub fn new(takes: Takes, capture: Option<usize>) -> Gap {
        Gap {
            takes,
            capture,
            number: 0,
            tail: None,
        }
    }
}

/// A set of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set([u64; 4]);

impl Set {
    pub fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub fn invert(&mut self) {
        self.0.iter_mut().for_each(|word| *word = !*word);
    }

    pub fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    /// The byte, if there is exactly one.
    pub fn only(&self) -> Option<u8> {
        let mut members = (0..=u8::MAX).filter(|&byte| self.has(byte));
        members.next().filter(|_| members.next().is_none())
    }
}

/// One step of a pattern.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// These bytes; never empty, and never two of them in a row.
    Literal(Box<[u8]>),
    /// Any one byte.
    Any,
    /// One byte of the set, which is written like this.
    OneOf(Set, Box<str>),
    /// A number of bytes; never two of them in a row.
    Gap(Gap),
}

impl Op {
    /// A `*`.
    pub fn anything() -> Op {
        Op::Gap(Gap::new(Takes::Any, None))
    }

    /// A gap of one byte or more.
    pub fn rest(capture: Option<usize>) -> Op {
        Op::Gap(Gap::new(Takes::Rest, capture))
    }
}

/// The bytes from `from` to before `to`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub from: usize,
    pub to: usize,
}

/// A gap that could end elsewhere.
#[derive(Debug, Clone, Copy)]
struct Choice {
    op: usize,
    from: usize,
    /// The first end that has not been tried.
    next: usize,
}

/// What a matcher needs; kept from match to match, it makes matching free of allocations.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What each capture took, in the order of the pattern; good after a match.
    pub spans: Vec<Span>,
    choices: Vec<Choice>,
    /// One bit for each gap and each end that was tried for it.
    tried: Vec<u64>,
}

#[cfg(test)]
impl Memory {
    /// How much room there is in its buffers together.
    pub fn capacity(&self) -> usize {
        self.spans.capacity() + self.choices.capacity() + self.tried.capacity()
    }
}

/// A pattern, ready to be run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    ops: Box<[Op]>,
    captures: usize,
    gaps: usize,
    /// Fewest bytes that it takes.
    shortest: usize,
    /// Whether a segment may have to be tried at several ends or from several starts. If not, every segment ends at the
    /// next `:` or with the key.
    tangled: bool,
}

impl Program {
    pub fn new(ops: Vec<Op>) -> Program {
        let mut ops = ops.into_boxed_slice();
        let mut tail = Some(0);
        for op in ops.iter_mut().rev() {
            match op {
                Op::Literal(bytes) => tail = tail.map(|tail| tail + bytes.len()),
                Op::Any | Op::OneOf(..) => tail = tail.map(|tail| tail + 1),
                Op::Gap(gap) => gap.tail = tail.take(),
            }
        }
        let (mut captures, mut gaps, mut shortest) = (0, 0, 0);
        let (mut tangled, mut floating) = (false, false);
        for at in 0..ops.len() {
            let ends_at_colon = match ops.get(at + 1) {
                None => true,
                Some(Op::Literal(bytes)) => bytes[0] == b':',
                Some(_) => false,
            };
            match &mut ops[at] {
                Op::Literal(bytes) => shortest += bytes.len(),
                Op::Any | Op::OneOf(..) => shortest += 1,
                Op::Gap(gap) => {
                    gap.number = gaps;
                    gaps += 1;
                    captures += usize::from(gap.capture.is_some());
                    shortest += usize::from(gap.takes != Takes::Any);
                    match gap.takes {
                        Takes::Segment => tangled |= floating || !ends_at_colon && gap.tail.is_none(),
                        Takes::Any | Takes::Rest => floating = true,
                    }
                }
            }
        }
        Program {
            ops,
            captures,
            gaps,
            shortest,
            tangled,
        }
    }

    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The literal that every match starts with.
    pub fn prefix(&self) -> &[u8] {
        match self.ops.first() {
            Some(Op::Literal(bytes)) => bytes,
            _ => b"",
        }
    }

    /// The literal that every match ends with.
    pub fn suffix(&self) -> &[u8] {
        match self.ops.last() {
            Some(Op::Literal(bytes)) => bytes,
            _ => b"",
        }
    }

    /// Whether the program takes `key`; if so, `memory.spans` says what each capture took.
    ///
    /// Each gap is tried from its shortest end on. Time is at most (bytes of the key) × (bytes of the pattern): a `*`
    /// or `{name...}` once reached makes all earlier choices final, since whatever they could lead to, it can reach
    /// too; and a segment is never tried twice at the same end, since what follows would fail again.
    pub fn run(&self, key: &[u8], memory: &mut Memory) -> bool {
        if key.len() < self.shortest {
            return false;
        }
        if key.is_empty() {
            return matches!(&*self.ops, [Op::Gap(_)]);
        }
        memory.spans.clear();
        memory.spans.resize(self.captures, Span::default());
        memory.choices.clear();
        if self.tangled {
            memory.tried.clear();
            memory.tried.resize((self.gaps * (key.len() + 1)).div_ceil(64), 0);
        }
        let taken = self.search(key, memory);
        if memory.tried.capacity() > KEPT_WORDS {
            memory.tried = Vec::new();
        }
        taken
    }

    fn search(&self, key: &[u8], memory: &mut Memory) -> bool {
        let (mut op, mut at) = (0, 0);
        loop {
            let fits = match self.ops.get(op) {
                None if at == key.len() => return true,
                None => false,
                Some(Op::Literal(bytes)) => {
                    let fits = key[at..].starts_with(bytes);
                    at += bytes.len();
                    fits
                }
                Some(Op::Any) => {
                    at += 1;
                    at <= key.len()
                }
                Some(Op::OneOf(set, _)) => {
                    at += 1;
                    key.get(at - 1).is_some_and(|&byte| set.has(byte))
                }
                Some(Op::Gap(gap)) => {
                    if gap.takes != Takes::Segment {
                        memory.choices.clear();
                    }
                    memory.choices.push(Choice {
                        op,
                        from: at,
                        next: at + usize::from(gap.takes != Takes::Any),
                    });
                    false
                }
            };
            if fits {
                op += 1;
                continue;
            }
            // Let the last gap take more; if it cannot, the one before.
            loop {
                let Some(choice) = memory.choices.last_mut() else {
                    return false;
                };
                if let Some(end) = self.next_end(key, choice, &mut memory.tried) {
                    if let Op::Gap(Gap {
                        capture: Some(capture), ..
                    }) = self.ops[choice.op]
                    {
                        memory.spans[capture] = Span {
                            from: choice.from,
                            to: end,
                        };
                    }
                    (op, at) = (choice.op + 1, end);
                    break;
                }
                memory.choices.pop();
            }
        }
    }

    /// The next end of the gap of `choice` behind which its following step may fit.
    fn next_end(&self, key: &[u8], choice: &mut Choice, tried: &mut [u64]) -> Option<usize> {
        let Op::Gap(gap) = &self.ops[choice.op] else {
            return None;
        };
        let last = match gap.tail {
            Some(tail) => key.len().checked_sub(tail)?,
            None => key.len(),
        };
        if choice.next > last {
            return None;
        }
        let end = match (gap.takes, gap.tail) {
            (Takes::Segment, _) if self.tangled => return self.next_segment_end(key, gap, last, choice, tried),
            (Takes::Any | Takes::Rest, Some(_)) => last,
            (Takes::Segment, Some(_)) => memchr(b':', &key[choice.from..last]).is_none().then_some(last)?,
            (Takes::Segment, None) => {
                // The only end there is: the next try finds none.
                let end = choice.from + memchr(b':', &key[choice.from..])?;
                if end < choice.next {
                    return None;
                }
                choice.next = usize::MAX;
                return Some(end);
            }
            (Takes::Any | Takes::Rest, None) => match self.ops.get(choice.op + 1) {
                Some(Op::Literal(bytes)) => choice.next + memchr(bytes[0], &key[choice.next..])?,
                _ => choice.next,
            },
        };
        choice.next = end + 1;
        Some(end)
    }

    fn next_segment_end(
        &self,
        key: &[u8],
        gap: &Gap,
        last: usize,
        choice: &mut Choice,
        tried: &mut [u64],
    ) -> Option<usize> {
        let follows = match self.ops.get(choice.op + 1) {
            Some(Op::Literal(bytes)) => Some(bytes[0]),
            _ => None,
        };
        let row = gap.number * (key.len() + 1);
        for end in choice.next..=last {
            let (word, bit) = ((row + end) / 64, 1 << ((row + end) % 64));
            if key[end - 1] == b':' || tried[word] & bit != 0 {
                // A try that came by here went on to the end of the segment, and failed.
                choice.next = usize::MAX;
                return None;
            }
            tried[word] |= bit;
            let may_fit = match gap.tail {
                Some(_) => end == last,
                None => follows.is_none_or(|byte| key.get(end) == Some(&byte)),
            };
            if may_fit {
                choice.next = end + 1;
                return Some(end);
            }
        }
        choice.next = usize::MAX;
        None
    }
}
