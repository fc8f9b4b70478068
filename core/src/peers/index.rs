//! Finds a slot by the hash of its peer's id: open addressing, one cache line for most look-ups at any size. An entry holds
//! half of the hash, so a wrong peer is hardly ever looked at. Looked up only, never iterated.

use alloc::{boxed::Box, vec};

use super::Slot;

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// A power of two, at most three quarters in use. An entry: upper half of the hash, slot number + 1; 0 is free.
    entries: Box<[u64]>,
    used: usize,
}

impl Index {
    /// The slot under `hash` that is the right one.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(Slot) -> bool) -> Option<Slot> {
        self.position(hash, &mut is_it).map(|at| slot(self.entries[at]))
    }

    pub(super) fn insert(&mut self, hash: u64, slot: Slot) {
        if (self.used + 1) * 4 > self.entries.len() * 3 {
            self.grow();
        }
        self.used += 1;
        self.place(entry(hash, slot));
    }

    pub(super) fn remove(&mut self, hash: u64, wanted: Slot) {
        let Some(mut hole) = self.position(hash, &mut |slot| slot == wanted) else { return };
        self.used -= 1;
        let mask = self.entries.len() - 1;
        // Whoever was pushed on by the one that goes moves back, so look-ups may stop at a hole.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let moving = self.entries[at];
            if moving == 0 {
                break;
            }
            let home = home(moving, mask);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.entries[hole] = moving;
                hole = at;
            }
        }
        self.entries[hole] = 0;
    }

    fn position(&self, hash: u64, is_it: &mut impl FnMut(Slot) -> bool) -> Option<usize> {
        let mask = self.entries.len().checked_sub(1)?;
        let mut at = home(hash, mask);
        loop {
            match self.entries[at] {
                0 => return None,
                found if found >> 32 == hash >> 32 && is_it(slot(found)) => return Some(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        let larger = vec![0; (self.entries.len() * 2).max(16)].into_boxed_slice();
        for entry in core::mem::replace(&mut self.entries, larger) {
            if entry != 0 {
                self.place(entry);
            }
        }
    }

    fn place(&mut self, entry: u64) {
        let mask = self.entries.len() - 1;
        let mut at = home(entry, mask);
        while self.entries[at] != 0 {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
    }
}

const fn entry(hash: u64, slot: Slot) -> u64 {
    (hash >> 32 << 32) | (slot.0 as u64 + 1)
}

const fn slot(entry: u64) -> Slot {
    Slot(entry as u32 - 1)
}

/// Where an entry belongs: by the half of the hash that it holds, so it can be moved without its peer.
const fn home(hash_or_entry: u64, mask: usize) -> usize {
    (hash_or_entry >> 32) as usize & mask
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let mut index = Index::default();
        let mut model = BTreeMap::new();
        let mut dice = 1u64;
        for step in 0..20_000u32 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Few different hashes: collisions are the rule.
            let hash = (dice >> 40 & 0xff) << 32;
            let number = (dice >> 50) as u32 & 0x3ff;
            match model.get(&number).copied() {
                Some(filed) if step % 3 != 0 => {
                    index.remove(filed, Slot(number));
                    model.remove(&number);
                }
                Some(_) => {}
                None => {
                    index.insert(hash, Slot(number));
                    model.insert(number, hash);
                }
            }
            for (number, hash) in model.iter().take(8) {
                assert_eq!(index.find(*hash, |slot| slot.0 == *number), Some(Slot(*number)));
            }
            assert_eq!(index.find(hash, |slot| slot.0 == 5_000), None);
        }
        assert_eq!(index.used, model.len());
    }
}
