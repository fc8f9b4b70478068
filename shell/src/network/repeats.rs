//! Bounds how often one thing is told, whatever others do.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What the core is told of once in so many times.
const EVERY: u32 = 64;
/// Different things that are told apart.
const KINDS: usize = 32;

/// Counts repeats: the first of a kind is told, then each 64th, with the number since. A kind that has not come for
/// longest is forgotten when there are more than 32, so it may be told again.
#[derive(Debug, Default)]
pub(super) struct Repeats(VecDeque<(String, u32)>);

impl Repeats {
    /// How many to tell now; `None`: this one is only counted.
    pub(super) fn note(&mut self, kind: String) -> Option<u32> {
        let position = self.0.iter().position(|(known, _)| *known == kind);
        let Some((kind, count)) = position.and_then(|position| self.0.remove(position)) else {
            if self.0.len() == KINDS {
                self.0.pop_front();
            }
            self.0.push_back((kind, 0));
            return Some(1);
        };
        let count = count + 1;
        let (left, told) = if count == EVERY { (0, Some(EVERY)) } else { (count, None) };
        self.0.push_back((kind, left));
        told
    }
}

/// A budget that fills again with time.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    const BURST: u32 = 8;
    const REFILL: Duration = Duration::from_secs(5);

    pub(super) fn new(now: Instant) -> Self {
        Self { left: Self::BURST, since: now }
    }

    /// Whether once more is within the budget: 8 at once, then one in 5 s.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < Self::BURST && now.saturating_duration_since(self.since) >= Self::REFILL {
            self.left += 1;
            self.since += Self::REFILL;
        }
        if self.left == Self::BURST {
            self.since = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_every_64th_are_told() {
        let mut repeats = Repeats::default();
        let told: Vec<_> = (0..130).filter_map(|_| repeats.note("a".into())).collect();
        assert_eq!(told, [1, 64, 64]);
        assert_eq!(repeats.note("b".into()), Some(1));
        for n in 0..KINDS {
            repeats.note(n.to_string());
        }
        assert_eq!(repeats.0.len(), KINDS);
        assert_eq!(repeats.note("a".into()), Some(1));
    }

    #[test]
    fn a_budget_fills_again() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let taken = |pace: &mut Pace, now| (0..100).filter(|_| pace.take(now)).count();
        assert_eq!(taken(&mut pace, start), 8);
        assert_eq!(taken(&mut pace, start + Duration::from_secs(4)), 0);
        assert_eq!(taken(&mut pace, start + Duration::from_secs(11)), 2);
        assert_eq!(taken(&mut pace, start + Duration::from_secs(3600)), 8);
    }
}
