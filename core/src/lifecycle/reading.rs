use super::PeerLifecycle;
use crate::{
    peers::Peer,
    view::{AddressView, ConnectionView, PeerView},
    vocabulary::{PeerId, Time},
};

impl PeerLifecycle {
    pub(crate) fn views(&self) -> impl Iterator<Item = PeerView<'_>> {
        let mut peers: alloc::vec::Vec<&Peer> = self.peers.iter().map(|(_, peer)| peer).collect();
        peers.sort_by_key(|peer| peer.id);
        peers.into_iter().map(view)
    }

    pub(crate) fn view(&self, peer: &PeerId) -> Option<PeerView<'_>> {
        self.peers.by_id(peer).map(view)
    }
}

fn view(peer: &Peer) -> PeerView<'_> {
    let waiting = peer.book.iter().map(|known| known.retry_at).min().map(|at| at.max(peer.hold_until));
    PeerView {
        peer: peer.id,
        state: peer.state,
        since: peer.since,
        pinned: peer.pinned,
        blocked: peer.blocked,
        path: peer.path(),
        agent: peer.profile.as_ref().map(|profile| profile.agent.as_str()),
        capabilities: peer.capabilities(),
        last_seen: peer.last_seen,
        sync_position: peer.sync.as_ref().and_then(|sync| sync.position),
        pending_requests: peer.sync.as_ref().map_or(0, |sync| sync.pending),
        next_dial: waiting.filter(|at| !peer.is_connected() && *at > Time::ZERO && peer.dials.is_empty()),
        punching: None,
        sync: None,
        served: peer.served,
        connections: peer
            .standing()
            .map(|connection| ConnectionView {
                connection: connection.id,
                path: connection.path(),
                direction: connection.direction,
                address: &connection.address,
                since: connection.since,
                rtt: connection.rtt,
                limit: connection.limit.as_ref().map(|limit| limit.limit),
            })
            .collect(),
        addresses: peer
            .book
            .iter()
            .map(|known| AddressView {
                address: &known.address,
                sources: known.sources.iter().collect(),
                last_success: Some(known.success).filter(|at| *at > Time::ZERO),
                last_error: known.error.as_deref(),
                retry_at: (known.failures > 0).then_some(known.retry_at),
            })
            .collect(),
    }
}
