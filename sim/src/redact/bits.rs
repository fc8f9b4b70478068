//! Renaming bit strings so that their order stays, and with it what they have in common at the beginning.

use std::hash::{BuildHasher, RandomState};

/// Coins that nobody can foresee or repeat who does not have them.
#[derive(Clone, Debug)]
pub(super) struct Coins {
    secret: RandomState,
    tossed: u64,
}

impl Coins {
    pub(super) fn new() -> Self {
        Self { secret: RandomState::new(), tossed: 0 }
    }

    fn toss(&mut self) -> bool {
        self.tossed += 1;
        self.secret.hash_one(self.tossed) & 1 == 1
    }
}

/// Which bits of a key stay as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fixed {
    /// These first ones.
    pub(super) head: usize,
    /// All from this one on, if any.
    pub(super) tail: Option<usize>,
}

/// New names for `keys`, which are sorted, each there once, and none the beginning of another. The new ones are in the
/// same order, two of them begin with as many equal bits as the old ones do, and each bit that is `fixed` stays.
/// Everything else is up to the coins: that leaves as little of the old ones as order and prefixes allow.
///
/// `fixed` is asked for the smallest of all keys that begin alike, and its answer is taken for all.
///
/// The keys are the leaves of a binary tree. Where it forks, order says which way is 0 and which is 1; where it only
/// goes on, either will do.
pub(super) fn rename(keys: &[Vec<u8>], fixed: impl Fn(&[u8]) -> Fixed, coins: &mut Coins) -> Vec<Vec<u8>> {
    let mut renamed: Vec<Vec<u8>> = keys.iter().map(|key| vec![0; key.len()]).collect();
    // Parts of the tree that are still to be done: which keys, from which depth on.
    let mut todo = vec![(0..keys.len(), 0)];
    while let Some((range, mut depth)) = todo.pop() {
        let Some(first) = keys.get(range.start) else { continue };
        let end = first.len() * 8;
        let fixed = fixed(first);
        let mut kept = true;
        while depth < end {
            let ones = range.start + keys[range.clone()].partition_point(|key| !bit(key, depth));
            if ones > range.start && ones < range.end {
                set_all(&mut renamed[ones..range.end], depth);
                todo.extend([(range.start..ones, depth + 1), (ones..range.end, depth + 1)]);
                break;
            }
            let old = ones == range.start;
            // Somebody who is alone on the last bit, with all before it as it was, had better change.
            let last = depth + 1 == end && kept;
            let new = if fixed.holds(depth) { old } else { (last && !old) || (!last && coins.toss()) };
            kept &= new == old;
            if new {
                set_all(&mut renamed[range.clone()], depth);
            }
            depth += 1;
        }
    }
    renamed
}

impl Fixed {
    fn holds(self, depth: usize) -> bool {
        depth < self.head || self.tail.is_some_and(|tail| depth >= tail)
    }
}

fn bit(key: &[u8], at: usize) -> bool {
    key[at / 8] >> (7 - at % 8) & 1 == 1
}

fn set_all(keys: &mut [Vec<u8>], at: usize) {
    for key in keys {
        key[at / 8] |= 1 << (7 - at % 8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(head: usize) -> impl Fn(&[u8]) -> Fixed {
        move |_| Fixed { head, tail: None }
    }

    fn common_bits(a: &[u8], b: &[u8]) -> usize {
        (0..a.len() * 8).take_while(|at| bit(a, *at) == bit(b, *at)).count()
    }

    #[test]
    fn somebody_alone_always_gets_another_name() {
        for _ in 0..200 {
            assert_ne!(rename(&[vec![7]], head(7), &mut Coins::new()), [vec![7]]);
        }
        assert_eq!(rename(&[vec![7]], head(8), &mut Coins::new()), [vec![7]]);
        assert!(rename(&[], head(0), &mut Coins::new()).is_empty());
    }

    #[test]
    fn the_smallest_of_those_that_begin_alike_may_keep_its_end() {
        let keys = [vec![7, 0], vec![7, 9], vec![7, 200]];
        for _ in 0..50 {
            let new = rename(&keys, |key| Fixed { head: 4, tail: (key[1] == 0).then_some(8) }, &mut Coins::new());
            assert_eq!((new[0][0] >> 4, new[0][1]), (0, 0));
            assert!(new.iter().all(|key| key[0] == new[0][0]));
            assert!((8..16).contains(&new[1][1]) && new[2][1] >= 128, "{new:?}");
        }
    }

    proptest! {
        #[test]
        fn order_and_prefixes_stay(keys in proptest::collection::btree_set(any::<[u8; 3]>(), 1..60), fixed in 0_usize..24) {
            let keys: Vec<Vec<u8>> = keys.into_iter().map(|key| key.to_vec()).collect();
            let renamed = rename(&keys, head(fixed), &mut Coins::new());
            for at in 1..keys.len() {
                prop_assert!(renamed[at - 1] < renamed[at]);
                prop_assert_eq!(common_bits(&keys[at - 1], &keys[at]), common_bits(&renamed[at - 1], &renamed[at]));
            }
            for (key, new) in keys.iter().zip(&renamed) {
                prop_assert!(common_bits(key, new) >= fixed);
            }
        }
    }
}
