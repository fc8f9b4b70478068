//! Reachability: asks others whether addresses of ours can be reached (AutoNAT v2), and offers them the same.
//!
//! libp2p's own client of AutoNAT v2 tries each address once, for ever, at a server of its own choice. [`Reach`] speaks
//! the same protocol, for any address and server, as often as the core likes. The servers are libp2p's, each behind an
//! [`Offered`](serving::Offered), which says to whom.

mod handlers;
mod nonces;
pub(super) mod quota;
pub(super) mod serving;
mod talk;
#[cfg(test)]
mod tests;
mod told;
mod wire;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    task::{Context, Poll},
};

use either::Either;
use kinfolk_core::{CommandId, ProbeVerdict};
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, StreamProtocol, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

use handlers::{Ask, Asks, Hears, Order};
use nonces::Nonces;

const DIAL_REQUEST: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");
const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

/// The client. See the module.
#[derive(Debug, Default)]
pub(super) struct Reach {
    nonces: Nonces,
    /// Direct connections that we have dialled: servers answer on no others.
    dialled: HashMap<PeerId, Vec<ConnectionId>>,
    open: BTreeMap<CommandId, Open>,
    out: VecDeque<ToSwarm<Told, THandlerInEvent<Self>>>,
}

#[derive(Debug)]
struct Open {
    server: PeerId,
    connection: ConnectionId,
    nonce: u64,
}

/// What [`Reach`] says.
#[derive(PartialEq, Debug)]
pub(super) enum Told {
    /// A probe has ended: once for each that was not dropped.
    Probed {
        /// Which.
        probe: CommandId,
        /// What it has shown.
        verdict: ProbeVerdict,
        /// Bytes that the server wanted before it dialled.
        paid: u64,
    },
    /// A dial-back came that nobody waits for.
    Stray,
}

impl Reach {
    /// Has `server` probe `address`.
    pub(super) fn probe(&mut self, probe: CommandId, server: PeerId, address: Multiaddr) {
        let Some(connection) = self.dialled.get(&server).and_then(|of_peer| of_peer.first()).copied() else {
            return self.tell(probe, ProbeVerdict::NotConnected, 0);
        };
        let Some(nonce) = self.nonces.begin(&address) else {
            return self.tell(probe, ProbeVerdict::Broken("no random numbers".to_owned()), 0);
        };
        self.open.insert(probe, Open { server, connection, nonce });
        self.order(server, connection, Order::Ask(Ask { probe, address, nonce }));
    }

    /// Drops a probe. Nothing more is said of it.
    pub(super) fn cancel(&mut self, probe: CommandId) {
        if let Some(open) = self.open.remove(&probe) {
            self.nonces.end(open.nonce);
            self.order(open.server, open.connection, Order::Drop(probe));
        }
    }

    /// The oldest open probe for which `peer` may come to us.
    pub(super) fn expects(&self, peer: &PeerId) -> Option<CommandId> {
        self.open.iter().find(|(_, open)| open.server == *peer).map(|(probe, _)| *probe)
    }

    fn order(&mut self, peer_id: PeerId, connection: ConnectionId, order: Order) {
        let handler = NotifyHandler::One(connection);
        self.out.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: Either::Left(order) });
    }

    /// What the server says is not believed without its number, and not needed with it.
    fn over(&mut self, probe: CommandId, said: ProbeVerdict, paid: u64) {
        let Some(open) = self.open.remove(&probe) else { return };
        let verdict = match (self.nonces.end(open.nonce), said) {
            (true, _) => ProbeVerdict::Reachable,
            (false, ProbeVerdict::Reachable) => ProbeVerdict::Unproven,
            (false, said) => said,
        };
        self.tell(probe, verdict, paid);
    }

    fn tell(&mut self, probe: CommandId, verdict: ProbeVerdict, paid: u64) {
        self.out.push_back(ToSwarm::GenerateEvent(Told::Probed { probe, verdict, paid }));
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(of_peer) = self.dialled.get_mut(&peer) {
            of_peer.retain(|known| *known != connection);
            if of_peer.is_empty() {
                self.dialled.remove(&peer);
            }
        }
        let cut = self.open.iter().filter(|(_, open)| open.connection == connection).map(|(probe, _)| *probe);
        for probe in cut.collect::<Vec<_>>() {
            self.over(probe, ProbeVerdict::Broken("the connection to the server has ended".to_owned()), 0);
        }
    }
}

impl NetworkBehaviour for Reach {
    type ConnectionHandler = Either<Asks, Either<Hears, dummy::ConnectionHandler>>;
    type ToSwarm = Told;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Either::Right(if is_circuit(local) {
            Either::Right(dummy::ConnectionHandler)
        } else {
            Either::Left(Hears::new(self.nonces.clone(), self.nonces.arrival(local)))
        }))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(if is_circuit(address) || role == Endpoint::Listener {
            Either::Right(Either::Right(dummy::ConnectionHandler))
        } else {
            Either::Left(Asks::new())
        })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            if let ConnectedPoint::Dialer { address, role_override: Endpoint::Dialer, .. } = established.endpoint
                && !is_circuit(address)
            {
                self.dialled.entry(established.peer_id).or_default().push(established.connection_id);
            }
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.on_closed(closed.peer_id, closed.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(outcome) => self.over(outcome.probe, outcome.verdict, outcome.paid),
            Either::Right(Either::Left(handlers::Stray)) => self.out.push_back(ToSwarm::GenerateEvent(Told::Stray)),
            Either::Right(Either::Right(never)) => match never {},
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Told, THandlerInEvent<Self>>> {
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}
