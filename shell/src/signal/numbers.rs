//! The sequence numbers of our own records: one counter for the hash table and for signal servers.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Higher numbers are not taken over from others: seconds until the year 36 812. So whoever makes numbers up can't drive
/// ours to where none is higher.
const HIGHEST: u64 = 1 << 40;

/// The sequence numbers of our own records: the wall clock in seconds, or one more than the last where that is not
/// higher. They go on rising when the clock is set back, and in the next run.
#[derive(Clone)]
pub struct Numbers(Arc<Inner>);

struct Inner {
    last: Mutex<u64>,
    keep: Box<dyn Fn(u64) + Send + Sync>,
}

impl Numbers {
    /// Goes on after `last`. `keep` is called with each number that is used: for the next run.
    pub fn after(last: u64, keep: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { last: Mutex::new(last), keep: Box::new(keep) }))
    }

    /// A number that was not used before.
    pub fn next(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.advance(|last| now.min(HIGHEST).max(last.saturating_add(1)))
    }

    /// The next number is above `seq`, which somebody says that we have used. Not if we never can have.
    pub fn raise(&self, seq: u64) -> bool {
        let can_be = seq <= HIGHEST;
        if can_be {
            self.advance(|last| last.max(seq));
        }
        can_be
    }

    fn advance(&self, to: impl FnOnce(u64) -> u64) -> u64 {
        // Nothing in here leaves it half changed.
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = to(*last);
        (self.0.keep)(*last);
        *last
    }
}

impl Default for Numbers {
    /// From the wall clock on, for a node that keeps nothing.
    fn default() -> Self {
        Self::after(0, |_| {})
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_whatever_the_clock_and_others_say() {
        let kept = Arc::new(Mutex::new(vec![]));
        let numbers = Numbers::after(0, {
            let kept = Arc::clone(&kept);
            move |seq| kept.lock().unwrap().push(seq)
        });
        let first = numbers.next();
        assert!(first > 1_700_000_000);
        assert_eq!(numbers.next(), first + 1);
        assert!(numbers.raise(first + 100) && numbers.raise(5));
        assert_eq!(numbers.next(), first + 101);
        assert!(!numbers.raise(u64::MAX) && !numbers.raise(i64::MAX as u64));
        assert_eq!(numbers.next(), first + 102);
        // At worst there is room for ever.
        assert!(numbers.raise(HIGHEST));
        assert_eq!((numbers.next(), numbers.next()), (HIGHEST + 1, HIGHEST + 2));
        assert_eq!(kept.lock().unwrap().last(), Some(&(HIGHEST + 2)));
        assert_eq!(Numbers::after(HIGHEST + 2, |_| {}).next(), HIGHEST + 3);
    }
}
