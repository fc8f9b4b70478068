//! libp2p's ping, made to answer in time.
//!
//! When its handler (libp2p-ping 0.48) has answered a ping, it does not ask for the next one until something else polls
//! it. Over TCP any packet does. Over QUIC, where each stream has its own wake-up, nothing does: answers then wait for
//! the next timer, up to 15 s, and look like a dead link to the other side. Here the handler is polled once more before
//! the connection goes to sleep.
//!
//! And by two intervals: QUIC notices by itself that nobody is there, so pings only tell how far away the peer is.

use std::task::{Context, Poll};

use kinfolk_core::Transport;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    ping,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, handler::ConnectionEvent,
    },
};

use super::ids::endpoint;

/// See the module.
pub(super) struct Pings {
    any: ping::Behaviour,
    quic: ping::Behaviour,
}

/// The handler of one connection.
pub(super) struct Twice<H>(H);

impl Pings {
    /// For connections of any kind, and for those that are QUIC's all the way.
    pub(super) fn new(any: ping::Config, quic: ping::Config) -> Self {
        Self { any: ping::Behaviour::new(any), quic: ping::Behaviour::new(quic) }
    }

    fn of(&mut self, address: &Multiaddr) -> &mut ping::Behaviour {
        match endpoint(address) {
            Some((.., Transport::Quic)) => &mut self.quic,
            Some((.., Transport::Tcp)) | None => &mut self.any,
        }
    }
}

impl NetworkBehaviour for Pings {
    type ConnectionHandler = Twice<THandler<ping::Behaviour>>;
    type ToSwarm = ping::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.of(local).handle_established_inbound_connection(connection, peer, local, remote).map(Twice)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.of(address).handle_established_outbound_connection(connection, peer, address, role, port).map(Twice)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.any.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        // It only passes them on, whoever's they are.
        self.any.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.any.poll(cx)
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Twice<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.0.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.0.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        match self.0.poll(cx) {
            Poll::Pending => self.0.poll(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.0.poll_close(cx)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.0.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        self.0.on_connection_event(event);
    }
}
