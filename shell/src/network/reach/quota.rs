//! How many probes others may ask for.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// A new node asks for six addresses or so at once, and for one now and then.
const PER_PEER: u32 = 12;
/// A household, or a small provider.
const PER_NETWORK: u32 = 24;
/// Each may be a dial, and 100 kB from the other side.
const IN_ALL: u32 = 60;
const SPAN: Duration = Duration::from_secs(60);

/// Probes within a minute: 12 of one peer, 24 of one network (/24 or /48), 60 in all. A clone is the same quota.
#[derive(Clone, Debug, Default)]
pub(in crate::network) struct Quota(Arc<Mutex<Minute>>);

#[derive(Debug, Default)]
struct Minute {
    began: Option<Instant>,
    all: u32,
    by_peer: HashMap<PeerId, u32>,
    by_network: HashMap<IpAddr, u32>,
}

impl Quota {
    /// Whether one more is within the quota, which it then uses up.
    pub(super) fn take(&self, peer: PeerId, network: Option<IpAddr>, now: Instant) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.began.is_none_or(|began| now.saturating_duration_since(began) >= SPAN) {
            *minute = Minute { began: Some(now), ..Minute::default() };
        }
        let of_peer = minute.by_peer.get(&peer).copied().unwrap_or(0);
        let of_network = network.and_then(|network| minute.by_network.get(&network).copied()).unwrap_or(0);
        if minute.all >= IN_ALL || of_peer >= PER_PEER || of_network >= PER_NETWORK {
            return false;
        }
        minute.all += 1;
        *minute.by_peer.entry(peer).or_default() += 1;
        if let Some(network) = network {
            *minute.by_network.entry(network).or_default() += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_uses_up_what_others_need() {
        let quota = Quota::default();
        let start = Instant::now();
        let at = |last: u8| Some(IpAddr::from([45, 10, last, 0]));
        let taken = |peer, network, now| (0..100).filter(|_| quota.take(peer, network, now)).count();
        let greedy = PeerId::random();
        assert_eq!(taken(greedy, at(1), start), 12);
        assert_eq!(taken(greedy, at(2), start), 0, "from elsewhere it is the same peer");
        assert_eq!(taken(PeerId::random(), at(1), start), 12);
        assert_eq!(taken(PeerId::random(), at(1), start), 0, "its network has had its part");
        assert_eq!(taken(PeerId::random(), at(2), start), 12);
        let rest: usize = (3..60).map(|n| taken(PeerId::random(), at(n), start)).sum();
        assert_eq!(rest, 60 - 36);
        let memory = quota.0.lock().unwrap();
        assert!(memory.by_peer.len() <= 60 && memory.by_network.len() <= 60);
        drop(memory);
        assert_eq!(taken(greedy, at(1), start + SPAN - Duration::from_millis(1)), 0);
        assert_eq!(taken(greedy, at(1), start + SPAN), 12);
    }
}
