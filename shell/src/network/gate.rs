//! The first behaviour: nobody comes in or is dialled past it.
//!
//! It turns away denied peers in both directions, lets only such dials leave that the core asked for or released, and
//! bounds connections. The bounds are here and not in libp2p's own behaviour for them, because that one knows no
//! reserve for the core's dials and keeps an entry for every identity that ever connected.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    fmt,
    net::IpAddr,
    task::{Context, Poll},
};

use super::ids;
use kinfolk_core::network_of;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Above this many, nobody but pinned peers comes in, and no behaviour's dial gets through. The core's own dials
    /// always do: it keeps its own budget.
    pub(crate) total: u32,
    /// To one peer, pinned or not.
    pub(crate) per_peer: u32,
    /// Handshakes of strangers under way.
    pub(crate) pending: u32,
    /// Of these, from one /24 or /48.
    pub(crate) pending_per_network: u32,
}

/// Whose dial it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pass {
    /// The core's.
    Core,
    /// A behaviour's, released by the core.
    Released,
}

/// Why somebody was turned away, or a dial stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The peer is denied.
    Denied,
    /// The dial was not asked for.
    NotReleased,
    /// Too many connections, in the words of the limit.
    TooMany(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("this peer is turned away"),
            Self::NotReleased => f.write_str("nobody asked for this dial"),
            Self::TooMany(what) => write!(f, "too many {what}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    denied: HashSet<PeerId>,
    pinned: HashSet<PeerId>,
    passes: HashMap<ConnectionId, Pass>,
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    pending_by_network: HashMap<IpAddr, u32>,
    established: HashMap<PeerId, u32>,
    total: u32,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            denied: HashSet::new(),
            pinned: HashSet::new(),
            passes: HashMap::new(),
            pending: HashMap::new(),
            pending_by_network: HashMap::new(),
            established: HashMap::new(),
            total: 0,
        }
    }

    pub(crate) fn deny(&mut self, peer: PeerId) {
        self.denied.insert(peer);
    }

    pub(crate) fn admit(&mut self, peer: &PeerId) {
        self.denied.remove(peer);
    }

    /// A pinned peer comes in however many strangers are there.
    pub(crate) fn pin(&mut self, peer: PeerId, pinned: bool) {
        if pinned {
            self.pinned.insert(peer);
        } else {
            self.pinned.remove(&peer);
        }
    }

    /// Lets the dial with this id through, until `done`.
    pub(crate) fn pass(&mut self, dial: ConnectionId, pass: Pass) {
        self.passes.insert(dial, pass);
    }

    /// The dial has ended.
    pub(crate) fn done(&mut self, dial: ConnectionId) {
        self.passes.remove(&dial);
    }

    fn check_peer(&self, peer: &PeerId, reserved: bool) -> Result<(), ConnectionDenied> {
        let refuse = |refusal| Err(ConnectionDenied::new(refusal));
        if self.denied.contains(peer) {
            return refuse(Refusal::Denied);
        }
        if self.established.get(peer).copied().unwrap_or(0) >= self.limits.per_peer {
            return refuse(Refusal::TooMany("connections to one peer"));
        }
        if !reserved && self.total >= self.limits.total {
            return refuse(Refusal::TooMany("connections"));
        }
        Ok(())
    }

    fn no_longer_pending(&mut self, connection: ConnectionId) {
        if let Some(Some(network)) = self.pending.remove(&connection)
            && let Some(count) = self.pending_by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.pending_by_network.remove(&network);
            }
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        // What comes through a relay counts as the relay's.
        let network = ids::first_ip(if ids::is_relayed(local) { local } else { remote }).map(network_of);
        if self.pending.len() >= self.limits.pending as usize {
            return Err(ConnectionDenied::new(Refusal::TooMany("handshakes under way")));
        }
        if let Some(network) = network {
            let count = self.pending_by_network.entry(network).or_default();
            if *count >= self.limits.pending_per_network {
                return Err(ConnectionDenied::new(Refusal::TooMany("handshakes under way from one network")));
            }
            *count += 1;
        }
        self.pending.insert(connection, network);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.no_longer_pending(connection);
        self.check_peer(&peer, self.pinned.contains(&peer))?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        _addresses: &[Multiaddr],
        _role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if peer.is_some_and(|peer| self.denied.contains(&peer)) {
            return Err(ConnectionDenied::new(Refusal::Denied));
        }
        if !self.passes.contains_key(&connection) {
            return Err(ConnectionDenied::new(Refusal::NotReleased));
        }
        Ok(vec![])
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let reserved = self.passes.get(&connection) == Some(&Pass::Core) || self.pinned.contains(&peer);
        self.check_peer(&peer, reserved)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            self.total += 1;
            *self.established.entry(established.peer_id).or_default() += 1;
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.total = self.total.saturating_sub(1);
            if closed.remaining_established == 0 {
                self.established.remove(&closed.peer_id);
            } else if let Some(count) = self.established.get_mut(&closed.peer_id) {
                *count = count.saturating_sub(1);
            }
        } else if let FromSwarm::ListenFailure(failure) = event {
            self.no_longer_pending(failure.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total: 2, per_peer: 2, pending: 3, pending_per_network: 2 };

    fn knock(gate: &mut Gate, id: usize, from: &str) -> Result<(), Refusal> {
        let local = Multiaddr::empty();
        gate.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &local, &from.parse().unwrap())
            .map_err(|denied| denied.downcast().unwrap())
    }

    fn enter(gate: &mut Gate, id: usize, peer: PeerId) -> Result<(), Refusal> {
        let nowhere = Multiaddr::empty();
        let id = ConnectionId::new_unchecked(id);
        gate.handle_established_inbound_connection(id, peer, &nowhere, &nowhere)
            .map(|_| ())
            .map_err(|denied| denied.downcast().unwrap())
    }

    fn stand(gate: &mut Gate, peer: PeerId) {
        gate.total += 1;
        *gate.established.entry(peer).or_default() += 1;
    }

    #[test]
    fn strangers_leave_room_for_others_at_the_door() {
        let mut gate = Gate::new(LIMITS);
        assert_eq!(knock(&mut gate, 1, "/ip4/45.10.20.1/tcp/1"), Ok(()));
        assert_eq!(knock(&mut gate, 2, "/ip4/45.10.20.2/tcp/1"), Ok(()));
        assert!(knock(&mut gate, 3, "/ip4/45.10.20.3/tcp/1").is_err());
        assert_eq!(knock(&mut gate, 4, "/ip4/45.10.21.1/tcp/1"), Ok(()));
        assert!(knock(&mut gate, 5, "/ip4/45.10.22.1/tcp/1").is_err());
        assert_eq!(enter(&mut gate, 1, PeerId::random()), Ok(()));
        assert_eq!(knock(&mut gate, 6, "/ip4/45.10.20.3/tcp/1"), Ok(()));
        assert_eq!(gate.pending.len(), 3);
    }

    #[test]
    fn who_comes_through_a_relay_counts_as_the_relays() {
        let mut gate = Gate::new(LIMITS);
        let mut circuit = |id: usize, relay: &str| {
            let local = format!("{relay}/p2p/{}/p2p-circuit", PeerId::random()).parse().unwrap();
            let remote = format!("/p2p/{}", PeerId::random()).parse().unwrap();
            gate.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &local, &remote).is_ok()
        };
        assert!(circuit(1, "/ip4/45.10.20.1/tcp/1"));
        assert!(circuit(2, "/ip4/45.10.20.1/tcp/1"));
        assert!(!circuit(3, "/ip4/45.10.20.1/tcp/1"), "one relay does not fill the door");
        assert!(circuit(4, "/ip4/45.10.21.1/tcp/1"));
    }

    #[test]
    fn pinned_peers_and_the_core_have_a_reserve() {
        let mut gate = Gate::new(LIMITS);
        let (stranger, pinned) = (PeerId::random(), PeerId::random());
        gate.pin(pinned, true);
        stand(&mut gate, PeerId::random());
        stand(&mut gate, PeerId::random());
        assert_eq!(enter(&mut gate, 1, stranger), Err(Refusal::TooMany("connections")));
        assert_eq!(enter(&mut gate, 2, pinned), Ok(()));
        stand(&mut gate, pinned);
        stand(&mut gate, pinned);
        assert_eq!(enter(&mut gate, 3, pinned), Err(Refusal::TooMany("connections to one peer")));

        let dial = ConnectionId::new_unchecked(4);
        let out = |gate: &mut Gate| {
            gate.handle_established_outbound_connection(
                dial,
                stranger,
                &Multiaddr::empty(),
                Endpoint::Dialer,
                PortUse::Reuse,
            )
            .is_ok()
        };
        gate.pass(dial, Pass::Released);
        assert!(!out(&mut gate));
        gate.pass(dial, Pass::Core);
        assert!(out(&mut gate));
    }

    #[test]
    fn nobody_denied_gets_through_either_way() {
        let mut gate = Gate::new(LIMITS);
        let peer = PeerId::random();
        let dial = ConnectionId::new_unchecked(1);
        let out = |gate: &mut Gate| {
            gate.handle_pending_outbound_connection(dial, Some(peer), &[], Endpoint::Dialer)
                .map_err(|denied| denied.downcast::<Refusal>().unwrap())
        };
        assert_eq!(out(&mut gate), Err(Refusal::NotReleased));
        gate.pass(dial, Pass::Core);
        assert_eq!(out(&mut gate), Ok(vec![]));
        gate.deny(peer);
        assert_eq!(out(&mut gate), Err(Refusal::Denied));
        assert_eq!(enter(&mut gate, 2, peer), Err(Refusal::Denied));
        gate.admit(&peer);
        assert_eq!(enter(&mut gate, 3, peer), Ok(()));
    }
}
