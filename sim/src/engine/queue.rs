use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
};

use super::Moment;

/// What happens at a moment, to a node (or whatever the number stands for).
#[derive(Clone, Debug)]
pub struct Due<T> {
    /// When.
    pub at: Moment,
    /// To whom. Of two things at one moment, the smaller number's comes first.
    pub node: u32,
    /// Of two things to one node at one moment, the one that was scheduled first comes first.
    pub seq: u64,
    /// What.
    pub what: T,
}

/// Everything that is going to happen, given out in the order (time, node, sequence).
///
/// A wheel of two levels over a heap: what is far away lies in unsorted slots (4 ms, 4 s, 73 minutes wide) and is looked at
/// once for each level; only what is next is sorted. A push or pop costs the logarithm of what falls into the same 4 ms.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    near: BinaryHeap<Due<T>>,
    /// The slot that `near` holds, in units of 2^22 ns.
    slot: u64,
    slots: Vec<Vec<Due<T>>>,
    used: Bits,
    wide: Vec<Vec<Due<T>>>,
    wide_used: Bits,
    far: BTreeMap<u64, Vec<Due<T>>>,
    pushed: u64,
    len: usize,
}

const SLOT: u32 = 22;
const WHEEL: u32 = 10;
const MASK: u64 = (1 << WHEEL) - 1;

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let slots = || (0..1 << WHEEL).map(|_| Vec::new()).collect();
        Self {
            near: BinaryHeap::new(),
            slot: 0,
            slots: slots(),
            used: Bits::default(),
            wide: slots(),
            wide_used: Bits::default(),
            far: BTreeMap::new(),
            pushed: 0,
            len: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Schedules something. What lies in the past comes next.
    #[inline]
    pub fn push(&mut self, at: Moment, node: u32, what: T) {
        self.pushed += 1;
        self.len += 1;
        self.place(Due { at, node, seq: self.pushed, what });
    }

    /// What comes next.
    #[inline]
    pub fn pop(&mut self) -> Option<Due<T>> {
        if self.near.is_empty() {
            self.advance();
        }
        let due = self.near.pop()?;
        self.len -= 1;
        Some(due)
    }

    /// When the next thing happens.
    pub fn next_at(&mut self) -> Option<Moment> {
        if self.near.is_empty() {
            self.advance();
        }
        self.near.peek().map(|due| due.at)
    }

    /// How much is scheduled.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is scheduled.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn place(&mut self, due: Due<T>) {
        let slot = due.at >> SLOT;
        if slot <= self.slot {
            self.near.push(due);
        } else if slot >> WHEEL == self.slot >> WHEEL {
            self.used.set(slot & MASK);
            self.slots[(slot & MASK) as usize].push(due);
        } else if slot >> (2 * WHEEL) == self.slot >> (2 * WHEEL) {
            let at = (slot >> WHEEL) & MASK;
            self.wide_used.set(at);
            self.wide[at as usize].push(due);
        } else {
            self.far.entry(slot >> (2 * WHEEL)).or_default().push(due);
        }
    }

    /// Sorts the next slot that holds something.
    fn advance(&mut self) {
        loop {
            if let Some(at) = self.used.take_first() {
                self.slot = (self.slot & !MASK) | at;
                self.near.extend(self.slots[at as usize].drain(..));
                return;
            }
            let (start, batch) = if let Some(at) = self.wide_used.take_first() {
                let start = (self.slot & !(MASK << WHEEL | MASK)) | (at << WHEEL);
                (start, std::mem::take(&mut self.wide[at as usize]))
            } else if let Some((at, batch)) = self.far.pop_first() {
                (at << (2 * WHEEL), batch)
            } else {
                return;
            };
            self.slot = start;
            batch.into_iter().for_each(|due| self.place(due));
            if !self.near.is_empty() {
                return;
            }
        }
    }
}

/// A set of numbers below 1 024.
#[derive(Clone, Debug, Default)]
struct Bits([u64; 16]);

impl Bits {
    #[inline]
    const fn set(&mut self, at: u64) {
        self.0[(at >> 6) as usize] |= 1 << (at & 63);
    }

    fn take_first(&mut self) -> Option<u64> {
        let word = self.0.iter().position(|word| *word != 0)?;
        let bit = self.0[word].trailing_zeros();
        self.0[word] &= self.0[word] - 1;
        Some((word as u64) << 6 | u64::from(bit))
    }
}

impl<T> Due<T> {
    const fn key(&self) -> (Moment, u32, u64) {
        (self.at, self.node, self.seq)
    }
}

// The heap gives out its greatest: the first one in time.
impl<T> Ord for Due<T> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<T> PartialOrd for Due<T> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Due<T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_moment_is_ordered_by_node_and_then_by_who_came_first() {
        let mut queue = Queue::default();
        for (at, node, what) in [(5, 2, 'd'), (5, 1, 'b'), (5, 2, 'e'), (4, 9, 'a'), (5, 1, 'c')] {
            queue.push(at, node, what);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|due| due.what).collect();
        assert_eq!(order, "abcde");
    }

    proptest! {
        /// As a list that is sorted each time, with pushes between pops, from nanoseconds to days ahead.
        #[test]
        fn it_is_a_sorted_list(steps in prop::collection::vec((0u32..48, 0u64..1_000, 0u32..3, any::<bool>()), 1..300)) {
            let mut queue = Queue::default();
            let mut list: Vec<(Moment, u32, u64)> = vec![];
            let (mut now, mut pushed) = (0, 0);
            for (scale, offset, node, pop) in steps {
                if pop {
                    list.sort_unstable();
                    let expected = if list.is_empty() { None } else { Some(list.remove(0)) };
                    prop_assert_eq!(queue.next_at(), expected.map(|(at, ..)| at));
                    let got = queue.pop();
                    prop_assert_eq!(got.as_ref().map(|due| (due.at, due.node, due.what)), expected);
                    now = got.map_or(now, |due| due.at);
                } else {
                    pushed += 1;
                    let at = now + (offset << scale.saturating_sub(10));
                    queue.push(at, node, pushed);
                    list.push((at, node, pushed));
                }
                prop_assert_eq!(queue.len(), list.len());
            }
        }
    }
}
