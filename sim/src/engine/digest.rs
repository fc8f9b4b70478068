use std::{
    fmt,
    hash::{Hash, Hasher},
};

use super::dice::mix;

/// A running hash of everything that happened: equal for equal runs, on every machine.
///
/// Sizes and discriminants count as 64 bits and bytes in little-endian order, whatever the machine. Not for enemies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Digest {
    a: u64,
    b: u64,
    words: u64,
}

impl Digest {
    /// Takes in one word.
    #[inline]
    pub fn word(&mut self, word: u64) {
        self.words = self.words.wrapping_add(1);
        self.a = (self.a ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(31);
        self.b = self.b.wrapping_add(self.a ^ (word << 1)).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(27);
    }

    /// Takes in a value.
    #[inline]
    pub fn value<T: Hash + ?Sized>(&mut self, value: &T) {
        value.hash(self);
    }

    /// The hash so far: 128 bits.
    pub fn sum(&self) -> u128 {
        let a = mix(self.a ^ self.words);
        let b = mix(self.b ^ a);
        (u128::from(a) << 64) | u128::from(b)
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word) ^ ((rest.len() as u64) << 60));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.word(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.word(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.word(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_u128(&mut self, value: u128) {
        self.word(value as u64);
        self.word((value >> 64) as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }

    fn write_i64(&mut self, value: i64) {
        self.word(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.word(value as i64 as u64);
    }

    fn finish(&self) -> u64 {
        self.sum() as u64
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> String {
        let mut digest = Digest::default();
        values.iter().for_each(|value| digest.value(*value));
        digest.to_string()
    }

    #[test]
    fn every_bit_and_the_order_count() {
        let sums = [of(&[]), of(&["a"]), of(&["b"]), of(&["a", "b"]), of(&["b", "a"]), of(&["ab"]), of(&["", "ab"])];
        let distinct: std::collections::BTreeSet<&String> = sums.iter().collect();
        assert_eq!(distinct.len(), sums.len(), "{sums:?}");
    }

    /// The same number on every machine: a change of it is a change of all recorded hashes.
    #[test]
    fn it_is_the_same_everywhere() {
        let mut digest = Digest::default();
        digest.value(&(1u8, 2u16, 3u32, 4u64, 5usize, Some("six"), [7u8; 11]));
        insta::assert_snapshot!(digest.to_string(), @"6b8ce00266183d92a9d0686f54846ded");
    }
}
