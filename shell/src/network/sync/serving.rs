//! Who is answered, and how much at a time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kinfolk_core::Audience;
use libp2p::PeerId;

use super::super::members::Members;

/// Ranges that are read and sent at a time, to all peers: each is up to 2 MiB in memory.
const MAX_RANGES: usize = 16;
/// Of these, to one peer.
const MAX_RANGES_OF_PEER: usize = 3;

/// Requests of one connection: so many at once, then one in a while.
const BURST: u32 = 512;
const REFILL: Duration = Duration::from_millis(20);

/// For all peers. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Audiences {
    pub(super) members: Members,
    audience: Arc<Mutex<Audience>>,
    ranges: Arc<AtomicUsize>,
}

/// For one connection.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    all: Audiences,
    peer: PeerId,
    ranges: Arc<AtomicUsize>,
    pace: Arc<Mutex<(u32, Instant)>>,
}

/// A place for a range, until it is dropped.
#[derive(Debug)]
pub(super) struct Range([Arc<AtomicUsize>; 2]);

impl Audiences {
    pub(super) fn new(members: Members) -> Self {
        Self { members, ..Self::default() }
    }

    pub(super) fn set(&self, audience: Audience) {
        *self.audience.lock().unwrap_or_else(PoisonError::into_inner) = audience;
    }

    pub(super) fn serving(&self, peer: PeerId) -> Serving {
        let pace = Arc::new(Mutex::new((BURST, Instant::now())));
        Serving { all: self.clone(), peer, ranges: Arc::default(), pace }
    }
}

impl Serving {
    pub(super) fn is_for_peer(&self) -> bool {
        let audience = *self.all.audience.lock().unwrap_or_else(PoisonError::into_inner);
        self.all.members.are_served(audience, &self.peer)
    }

    /// Whether one more request is within the peer's budget.
    pub(super) fn in_time(&self) -> bool {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *pace;
        let refills = since.elapsed().as_millis() / REFILL.as_millis();
        if refills > 0 {
            *left = BURST.min(left.saturating_add(u32::try_from(refills).unwrap_or(BURST)));
            *since = Instant::now();
        }
        let some = *left > 0;
        *left = left.saturating_sub(1);
        some
    }

    /// A place for a range, if there is one.
    pub(super) fn place(&self) -> Option<Range> {
        let take = |count: &AtomicUsize, max| {
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < max).then_some(now + 1)).is_ok()
        };
        if !take(&self.ranges, MAX_RANGES_OF_PEER) {
            return None;
        }
        if !take(&self.all.ranges, MAX_RANGES) {
            self.ranges.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Range([Arc::clone(&self.ranges), Arc::clone(&self.all.ranges)]))
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_and_come_back() {
        let all = Audiences::default();
        let peers: Vec<Serving> = (0..10).map(|_| all.serving(PeerId::random())).collect();
        let mut places: Vec<Range> = peers.iter().flat_map(|peer| (0..5).filter_map(|_| peer.place())).collect();
        assert_eq!(places.len(), MAX_RANGES);
        assert!(peers[9].place().is_none() && peers[0].place().is_none());
        places.remove(0);
        assert!(peers[9].place().is_some());
        drop(places);
        let mut of_one: Vec<Range> = (0..5).filter_map(|_| peers[0].place()).collect();
        assert_eq!(of_one.len(), MAX_RANGES_OF_PEER);
        of_one.pop();
        assert!(peers[0].place().is_some());
    }

    #[test]
    fn a_flood_of_requests_is_cut() {
        let serving = Audiences::default().serving(PeerId::random());
        let taken = (0..10 * BURST).filter(|_| serving.in_time()).count();
        assert!(taken < 2 * BURST as usize, "{taken}");
    }

    #[test]
    fn nobody_is_answered_until_the_core_says_whom() {
        let members = Members::default();
        let all = Audiences::new(members.clone());
        let peer = PeerId::random();
        let serving = all.serving(peer);
        members.set(peer, true);
        assert!(!serving.is_for_peer());
        all.set(Audience::Members);
        assert!(serving.is_for_peer());
        members.set(peer, false);
        assert!(!serving.is_for_peer());
        all.set(Audience::Anyone);
        assert!(serving.is_for_peer());
    }
}
