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

/// New names for `keys`, which are sorted, each there once, and none the beginning of another. The new ones are in the
/// same order, two of them begin with as many equal bits as the old ones do, and the first `fixed(key)` bits of each
/// stay. Everything else is up to the coins: that leaves as little of the old ones as order and prefixes allow.
///
/// `fixed` must be the same for all keys that have so many bits in common.
///
/// The keys are the leaves of a binary tree. Where it forks, order says which way is 0 and which is 1; where it only
/// goes on, either will do.
pub(super) fn rename(keys: &[Vec<u8>], fixed: impl Fn(&[u8]) -> usize, coins: &mut Coins) -> Vec<Vec<u8>> {
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
            let new = if depth < fixed { old } else { (last && !old) || (!last && coins.toss()) };
            kept &= new == old;
            if new {
                set_all(&mut renamed[range.clone()], depth);
            }
            depth += 1;
        }
    }
    renamed
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

    fn common_bits(a: &[u8], b: &[u8]) -> usize {
        (0..a.len() * 8).take_while(|at| bit(a, *at) == bit(b, *at)).count()
    }

    #[test]
    fn somebody_alone_always_gets_another_name() {
        for _ in 0..200 {
            assert_ne!(rename(&[vec![7]], |_| 7, &mut Coins::new()), [vec![7]]);
        }
        assert_eq!(rename(&[vec![7]], |_| 8, &mut Coins::new()), [vec![7]]);
        assert!(rename(&[], |_| 0, &mut Coins::new()).is_empty());
    }

    proptest! {
        #[test]
        fn order_and_prefixes_stay(keys in proptest::collection::btree_set(any::<[u8; 3]>(), 1..60), fixed in 0_usize..24) {
            let keys: Vec<Vec<u8>> = keys.into_iter().map(|key| key.to_vec()).collect();
            let renamed = rename(&keys, |_| fixed, &mut Coins::new());
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
