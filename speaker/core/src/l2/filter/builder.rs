//! Puts a classic BPF program together from its end to its beginning, so that every jump is to a place that is known.
//!
//! Conditional jumps reach 255 instructions (`jt` and `jf` are bytes), a program may have 4,096. Where a target is
//! further away an *island* is laid just behind the jump: an unconditional jump, which reaches anything, or another copy
//! of the return. Nothing runs into an island from above, because what stands before it always jumps.

use super::{ALL, IF_AT_LEAST, Instruction, JUMP, LOAD_WORD, RETURN};

/// How far a conditional jump may go; less than 255, so that two islands fit between it and its targets.
const REACH: usize = 250;

/// A target of jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

pub(super) struct Builder {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// The nearest island for each place that was far away, newest last: (place, island).
    islands: Vec<(Label, Label)>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { reversed: Vec::new(), islands: Vec::new() }
    }

    /// Deliver the whole frame.
    pub(super) fn accept(&mut self) -> Label {
        self.put(RETURN, 0, 0, ALL)
    }

    /// Deliver nothing.
    pub(super) fn reject(&mut self) -> Label {
        self.put(RETURN, 0, 0, 0)
    }

    /// The instruction that stands first so far.
    pub(super) fn last(&self) -> Label {
        Label(self.reversed.len().saturating_sub(1))
    }

    /// Loads from this offset, then goes on with what stands first so far.
    pub(super) fn load(&mut self, code: u16, offset: u32) -> Label {
        self.put(code, 0, 0, offset)
    }

    /// Compares with `k`.
    pub(super) fn when(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let (yes, no) = (self.near(yes), self.near(no));
        let skip = |label: Label| self.reversed.len() - 1 - label.0;
        // `near` has seen to it that both fit.
        let (jt, jf) = (u8::try_from(skip(yes)), u8::try_from(skip(no)));
        self.put(code, jt.unwrap_or(u8::MAX), jf.unwrap_or(u8::MAX), k)
    }

    /// Whether the word at `offset` is in one of the ranges: a balanced tree over their ends, some ten comparisons for a
    /// thousand ranges.
    pub(super) fn lookup(&mut self, offset: u32, ranges: &[(u32, u32)], hit: Label, miss: Label) -> Label {
        let mut ends = Vec::with_capacity(ranges.len() * 2);
        for (first, last) in ranges {
            ends.push(*first);
            ends.extend(last.checked_add(1));
        }
        let root = self.tree(&ends, false, hit, miss);
        if root != self.last() {
            // No range at all: there is nothing to compare, and `load` would go on with something else.
            self.put(JUMP, 0, 0, (self.reversed.len() - 1 - root.0) as u32);
        }
        self.load(LOAD_WORD, offset)
    }

    /// `inside`: whether what is smaller than the first end is in a range. At each end that changes.
    fn tree(&mut self, ends: &[u32], inside: bool, hit: Label, miss: Label) -> Label {
        let (below, rest) = ends.split_at(ends.len() / 2);
        let Some((end, above)) = rest.split_first() else {
            return if inside { hit } else { miss };
        };
        let above = self.tree(above, inside ^ below.len().is_multiple_of(2), hit, miss);
        let below = self.tree(below, inside, hit, miss);
        self.when(IF_AT_LEAST, *end, above, below)
    }

    /// The program.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// The label itself, or an island that leads to it.
    fn near(&mut self, label: Label) -> Label {
        let island = self.islands.iter().rev().find(|(far, _)| *far == label).map(|(_, island)| *island);
        let nearest = island.unwrap_or(label);
        if self.reversed.len() - nearest.0 <= REACH {
            return nearest;
        }
        let island = match self.reversed.get(label.0) {
            Some(Instruction { code: RETURN, k, .. }) => self.put(RETURN, 0, 0, *k),
            _ => self.put(JUMP, 0, 0, (self.reversed.len() - 1 - label.0) as u32),
        };
        self.islands.retain(|(far, _)| *far != label);
        self.islands.push((label, island));
        island
    }

    fn put(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.last()
    }
}
