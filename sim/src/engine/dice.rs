/// What is drawn for. Each has a stream of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Purpose {
    /// How the scenario is laid out: addresses, places, NAT kinds.
    Layout = 1,
    /// Delays and losses on the way.
    Links = 2,
    /// Ports that NATs and operating systems choose.
    Ports = 3,
    /// What a node's program does at random.
    Program = 4,
    /// What goes wrong, and when.
    Faults = 5,
    /// Node's own seeds.
    Seeds = 6,
    /// Settings that are drawn in sweeps.
    Swarm = 7,
    /// What hostile nodes invent.
    Malice = 8,
}

/// A stream of random numbers. The n-th number of a stream is a function of seed, node, purpose and n alone.
///
/// ```
/// use kinfolk_sim::engine::{Dice, Purpose};
///
/// let mut dice = Dice::new(7, 1, Purpose::Links);
/// let first = dice.next();
/// assert_eq!(Dice::new(7, 1, Purpose::Links).next(), first);
/// assert_ne!(Dice::new(7, 2, Purpose::Links).next(), first);
/// assert!(dice.below(10) < 10);
/// ```
#[derive(Clone, Debug)]
pub struct Dice {
    key: u64,
    drawn: u64,
}

impl Dice {
    /// The stream for this purpose of this node.
    pub const fn new(seed: u64, node: u32, purpose: Purpose) -> Self {
        let key = mix(mix(seed ^ 0x6b69_6e66_6f6c_6b21).wrapping_add(mix((node as u64) << 8 | purpose as u64)));
        Self { key, drawn: 0 }
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.key.wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low { low } else { low + self.below(high - low + 1) }
    }

    /// Whether something happens that happens so many times in a million. Draws nothing when it never does.
    pub const fn happens(&mut self, parts_per_million: u32) -> bool {
        parts_per_million > 0 && self.below(1_000_000) < parts_per_million as u64
    }

    /// A span whose mean is about `mean` and that is, now and then, several times as long: each halving of a random number
    /// adds one more mean. At most 20 means.
    pub const fn tailed(&mut self, mean: u64) -> u64 {
        let draw = self.next();
        let halvings = draw.leading_zeros() as u64;
        let halvings = if halvings > 19 { 19 } else { halvings };
        // E[halvings] = 1, and a uniform part below one mean takes its place for smoothness.
        let part = ((draw & 0xffff_ffff) as u128 * mean as u128) >> 32;
        (mean * halvings).saturating_add(part as u64) / 3 * 2
    }
}

/// A bijection on 64 bits that scatters well (Pelle Evensen's moremur).
pub(crate) const fn mix(mut x: u64) -> u64 {
    x ^= x >> 27;
    x = x.wrapping_mul(0x3c79_ac49_2ba7_b653);
    x ^= x >> 33;
    x = x.wrapping_mul(0x1c69_b3f7_4ac4_ae35);
    x ^ (x >> 27)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_apart_and_even() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..4 {
            for node in 0..64 {
                for purpose in [Purpose::Links, Purpose::Ports] {
                    let mut dice = Dice::new(seed, node, purpose);
                    seen.extend((0..16).map(|_| dice.next()));
                }
            }
        }
        assert_eq!(seen.len(), 4 * 64 * 2 * 16);
        let mut dice = Dice::new(1, 1, Purpose::Links);
        let heads = (0..100_000).filter(|_| dice.happens(500_000)).count();
        assert!((49_000..51_000).contains(&heads), "{heads}");
        let sum: u64 = (0..100_000).map(|_| dice.tailed(1_000)).sum();
        assert!((900..1_100).contains(&(sum / 100_000)), "mean {}", sum / 100_000);
    }

    #[test]
    fn a_draw_more_in_one_stream_shifts_no_other() {
        let mut one = Dice::new(9, 3, Purpose::Links);
        let other = Dice::new(9, 3, Purpose::Ports).next();
        one.next();
        assert_eq!(Dice::new(9, 3, Purpose::Ports).next(), other);
        assert!(!one.happens(0));
        assert_eq!(one.drawn, 1, "what never happens draws nothing");
    }
}
