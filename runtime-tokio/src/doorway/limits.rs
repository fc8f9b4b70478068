//! How often one network may ask.
//!
//! Each /24 (for IPv6 /48) has a bucket that holds a minute's requests and is refilled all the time (GCRA). The buckets
//! are two rows of fixed size, in which a network has one place each, by a keyed hash; the emptier of the two counts.
//! So a flood from ever new networks takes no memory, and nobody can aim at the places of others.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Places in a row. With 10 000 busy networks, one in 50 shares both of its places with others.
const PLACES: usize = 1 << 16;

const MINUTE: Duration = Duration::from_secs(60);

/// A limit per network. Takes 1 MiB.
#[derive(Debug)]
pub(super) struct Limiter {
    /// When the bucket is full again, in nanoseconds.
    rows: [Box<[AtomicU64]>; 2],
    key: RandomState,
    /// What one request takes; 0: no limit.
    each: u64,
}

impl Limiter {
    /// So many requests per minute; 0: as many as one likes.
    pub(super) fn per_minute(requests: u32) -> Self {
        let each = if requests == 0 { 0 } else { (MINUTE.as_nanos() as u64) / u64::from(requests) };
        let places = if requests == 0 { 0 } else { PLACES };
        let row = || (0..places).map(|_| AtomicU64::new(0)).collect();
        Self { rows: [row(), row()], key: RandomState::new(), each }
    }

    /// Takes a request of `network` at `now`, which is counted from any fixed moment.
    ///
    /// # Errors
    /// After how long there is room for one.
    pub(super) fn take(&self, network: IpAddr, now: Duration) -> Result<(), Duration> {
        if self.each == 0 {
            return Ok(());
        }
        let hash = self.key.hash_one(network);
        let [first, second] = &self.rows;
        let places = [&first[hash as usize % PLACES], &second[(hash >> 32) as usize % PLACES]];
        let now = now.as_nanos() as u64;
        let [a, b] = places.map(|place| place.load(Ordering::Relaxed).max(now));
        let full_again = a.min(b) + self.each;
        let over = full_again.saturating_sub(now + MINUTE.as_nanos() as u64);
        if over > 0 {
            return Err(Duration::from_nanos(over));
        }
        for place in places {
            place.fetch_max(full_again, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u32) -> IpAddr {
        IpAddr::from((n << 8).to_be_bytes())
    }

    #[test]
    fn a_network_has_its_minute_and_no_other_pays() {
        let limiter = Limiter::per_minute(60);
        let at = Duration::from_secs(1_000);
        for _ in 0..60 {
            assert_eq!(limiter.take(network(1), at), Ok(()));
        }
        let wait = limiter.take(network(1), at).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(limiter.take(network(2), at), Ok(()));
        assert_eq!(limiter.take(network(1), at + wait), Ok(()));
        assert!(limiter.take(network(1), at + wait).is_err());
        for _ in 0..60 {
            assert_eq!(limiter.take(network(1), at + Duration::from_secs(3_600)), Ok(()));
        }
        assert!(limiter.take(network(1), at + Duration::from_secs(3_600)).is_err());
    }

    #[test]
    fn ten_thousand_busy_networks_seldom_meet() {
        let limiter = Limiter::per_minute(2);
        let mut refused = 0;
        for n in 0..10_000 {
            for _ in 0..2 {
                refused += u32::from(limiter.take(network(n), Duration::ZERO).is_err());
            }
        }
        assert!(refused < 1_000, "{refused}");
    }

    #[test]
    fn no_limit_takes_nothing() {
        let limiter = Limiter::per_minute(0);
        for _ in 0..10_000 {
            assert_eq!(limiter.take(network(1), Duration::ZERO), Ok(()));
        }
        assert!(limiter.rows.iter().all(|row| row.is_empty()));
    }
}
