//! What is not worth an event is counted.

use std::collections::BTreeMap;

/// Counts by name, from the start of the run. The names are fixed: `identify.sent`, `cut.addresses`,
/// `refused.records` …; there are a few dozen of them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// How often this was seen.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All that was seen at least once, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }

    pub(super) fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    pub(super) fn add(&mut self, name: &'static str, more: u64) {
        if more > 0 {
            let count = self.0.entry(name).or_default();
            *count = count.saturating_add(more);
        }
    }
}
