//! The relay client's behaviour, which tells the limit of a circuit by its connection, and can't be made to panic.
//!
//! The library forgets a reservation when its listener closes, and panics when the relay's answer comes after that: by
//! a slow relay, or to a renewal of the library's own, which nobody here knows of. So it is not told that listeners
//! close. What it keeps of them, it forgets with the connection to the relay.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::Duration,
};

use kinfolk_core::CircuitLimit;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay::client,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};

use super::circuits::{Circuits, Limit};
use crate::network::ids::is_relayed;

/// What the client says.
#[derive(Debug)]
pub(crate) enum Told {
    /// A relay keeps a place for us, or has renewed it.
    Reserved {
        /// Which relay.
        relay: PeerId,
        /// What it allows each circuit.
        limit: Limit,
    },
    /// A circuit is open. Its limit is told when it is a connection.
    Opened,
    /// What a connection's relay allows it.
    Limited {
        /// Which connection.
        connection: ConnectionId,
        /// The limit.
        limit: CircuitLimit,
    },
    /// Another tenth of the bytes is used.
    Used {
        /// Of which connection.
        connection: ConnectionId,
        /// In all.
        bytes: u64,
    },
}

/// See the module.
pub(crate) struct Client {
    inner: client::Behaviour,
    circuits: Circuits,
    /// The relays that the inner behaviour's next events are about: it makes one of each event of a handler.
    sources: VecDeque<PeerId>,
    out: VecDeque<Told>,
}

impl Client {
    pub(super) fn new(inner: client::Behaviour, circuits: Circuits) -> Self {
        Self { inner, circuits, sources: VecDeque::new(), out: VecDeque::new() }
    }

    fn on_inner(&mut self, event: client::Event) -> Told {
        let source = self.sources.pop_front();
        let (from, limit) = match event {
            client::Event::ReservationReqAccepted { relay_peer_id: relay, limit, .. } => {
                let limit = limit.and_then(|limit| limit_of(limit.duration(), limit.data_in_bytes()));
                return Told::Reserved { relay, limit };
            }
            client::Event::OutboundCircuitEstablished { limit, .. } => (None, limit),
            client::Event::InboundCircuitEstablished { src_peer_id, limit } => (Some(src_peer_id), limit),
        };
        let limit = limit.and_then(|limit| limit_of(limit.duration(), limit.data_in_bytes()));
        let standing = source.and_then(|relay| self.circuits.limit(relay, from, limit));
        match (standing, limit) {
            (Some(connection), Some(limit)) => Told::Limited { connection, limit },
            (Some(_) | None, _) => Told::Opened,
        }
    }
}

/// The protocol says "no limit" by nothing or by zero.
pub(super) fn limit_of(duration: Option<Duration>, bytes: Option<u64>) -> Limit {
    let duration = duration.filter(|duration| !duration.is_zero());
    let bytes = bytes.filter(|bytes| *bytes > 0);
    (duration.is_some() || bytes.is_some()).then_some(CircuitLimit { duration, bytes })
}

impl NetworkBehaviour for Client {
    type ConnectionHandler = <client::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Told;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if is_relayed(local) {
            self.circuits.arrived(connection);
        }
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.circuits.dialling(connection);
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some((connection, limit)) = self.circuits.on_swarm_event(&event) {
            self.out.push_back(Told::Limited { connection, limit });
        }
        if !matches!(event, FromSwarm::ListenerClosed(_)) {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.sources.push_back(peer);
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(told) = self.out.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(told));
        }
        if let Poll::Ready(out) = self.inner.poll(cx) {
            return Poll::Ready(out.map_out(|event| self.on_inner(event)));
        }
        if self.circuits.said() {
            return Poll::Ready(ToSwarm::GenerateEvent(Told::Opened));
        }
        let used = self.circuits.poll_used(cx);
        used.map(|(connection, bytes)| ToSwarm::GenerateEvent(Told::Used { connection, bytes }))
    }
}
