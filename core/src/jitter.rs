//! Randomness without state: a value is a function of seed, purpose, key and attempt, so that one more draw somewhere
//! shifts no other.

use core::{hash::Hasher, time::Duration};

use crate::vocabulary::PeerId;

/// What a value is drawn for. The numbers are part of the trace format: replay draws the same.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Purpose {
    Backoff = 1,
    Redial = 2,
    Target = 3,
    Refresh = 4,
    Members = 5,
    Publish = 6,
    Place = 7,
    Isolation = 8,
    Listen = 9,
    Record = 10,
    Defer = 11,
    Relay = 12,
    Reserve = 13,
    Punch = 14,
    Probe = 15,
    MapPort = 16,
    Sync = 17,
    Signal = 18,
}

pub(crate) fn draw(seed: u64, purpose: Purpose, key: u64, attempt: u64) -> u64 {
    let mut hasher = siphash(seed, purpose as u64);
    hasher.write(&key.to_le_bytes());
    hasher.write(&attempt.to_le_bytes());
    hasher.finish()
}

/// `span`, shorter or longer by up to a fifth.
pub(crate) fn vary(span: Duration, draw: u64) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let fifth = nanos / 5;
    Duration::from_nanos(nanos - fifth + below(draw, fifth.saturating_mul(2)))
}

/// A part of `span`.
pub(crate) fn within(span: Duration, draw: u64) -> Duration {
    Duration::from_nanos(below(draw, u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
}

/// Where a peer is filed. Keyed, so that nobody outside can choose ids that collide.
pub(crate) fn file(key: u64, peer: &PeerId) -> u64 {
    let mut hasher = siphash(key, 0);
    hasher.write(peer.as_bytes());
    hasher.finish()
}

fn below(draw: u64, bound: u64) -> u64 {
    ((u128::from(draw) * u128::from(bound)) >> 64) as u64
}

#[expect(deprecated, reason = "SipHash 2-4 with a fixed key is what is wanted; std's replacement has neither")]
fn siphash(key0: u64, key1: u64) -> core::hash::SipHasher {
    core::hash::SipHasher::new_with_keys(key0, key1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_the_same_on_every_machine() {
        assert_eq!(draw(1, Purpose::Backoff, 2, 3), 6_711_604_947_187_614_004);
        assert_eq!(vary(Duration::from_secs(10), 0), Duration::from_secs(8));
        assert!(vary(Duration::from_secs(10), u64::MAX) <= Duration::from_secs(12));
        assert!(within(Duration::from_secs(1), u64::MAX) < Duration::from_secs(1));
    }
}
