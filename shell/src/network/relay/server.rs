//! The relay server: the library's, for those whom the core lets it serve, with a book of what it does for whom.
//!
//! Others are not even told that there is a relay. The library turns its service on and off for all connections at
//! once, by a message to each; here only the messages go on that are for connections whose case has changed.
//!
//! The library does not say which connection an event is about. Its events come out right after what has led to them,
//! so they are taken out at once.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    relay,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
    },
};

use super::quotas::Book;
use crate::network::ids::is_relayed;

type Out = ToSwarm<Served, THandlerInEvent<relay::Behaviour>>;

/// What the server says.
#[derive(Debug)]
pub(crate) enum Served {
    /// What we relay for a peer has changed.
    Changed {
        /// For whom.
        peer: PeerId,
        /// Whether it has a reservation here.
        reserved: bool,
        /// Open circuits from or to it.
        circuits: u32,
    },
    /// Something is to be counted.
    Count(&'static str),
}

/// See the module.
pub(crate) struct Server {
    inner: relay::Behaviour,
    book: Book,
    /// Connections that stand, and whether their peers are told of the relay.
    connections: HashMap<ConnectionId, (PeerId, bool)>,
    /// What was told of peers, where it is not nothing.
    told: HashMap<PeerId, (bool, u32)>,
    out: VecDeque<Out>,
}

impl Server {
    /// Reservations hold for `lifetime`.
    pub(super) fn new(local: PeerId, book: Book, lifetime: Duration) -> Self {
        let mut inner = relay::Behaviour::new(local, book.config(lifetime));
        // By itself it would serve as soon as an address is advertised, a circuit included.
        inner.set_status(Some(relay::Status::Disable));
        Self { inner, book, connections: HashMap::new(), told: HashMap::new(), out: VecDeque::new() }
    }

    /// Whom we relay for has changed: of this peer, or of anybody.
    pub(in crate::network) fn reconsider(&mut self, peer: Option<&PeerId>) {
        for serve in [true, false] {
            let mut changed = HashSet::new();
            for (id, (of, served)) in &mut self.connections {
                if peer.is_none_or(|peer| peer == of) && *served != serve && self.book.serves(of) == serve {
                    *served = serve;
                    changed.insert(*id);
                }
            }
            if !changed.is_empty() {
                self.set_status(!serve, &HashSet::new());
                self.set_status(serve, &changed);
            }
        }
    }

    /// Turns the library's service on or off, and says so to these connections only.
    fn set_status(&mut self, serve: bool, to: &HashSet<ConnectionId>) {
        self.inner.set_status(Some(if serve { relay::Status::Enable } else { relay::Status::Disable }));
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(out) = self.inner.poll(&mut cx) {
            if let ToSwarm::NotifyHandler { handler: NotifyHandler::One(id), .. } = &out
                && to.contains(id)
            {
                self.out.push_back(out.map_out(|_| Served::Count("unknown")));
            }
        }
    }

    /// Takes out what the library has to say about what it was just told.
    fn drain(&mut self, connection: ConnectionId) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(out) = self.inner.poll(&mut cx) {
            if let ToSwarm::GenerateEvent(event) = out {
                self.on_event(connection, event);
            } else {
                self.out.push_back(out.map_out(|_| Served::Count("unknown")));
            }
        }
        for why in self.book.refused() {
            self.count(why);
        }
    }

    #[expect(deprecated, reason = "some events are to go, but come still")]
    fn on_event(&mut self, connection: ConnectionId, event: relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, renewed } => {
                self.book.reserved(connection);
                self.count(if renewed { "relay.reservations_renewed" } else { "relay.reservations_accepted" });
                self.tell(src_peer_id);
            }
            relay::Event::ReservationReqAcceptFailed { src_peer_id, .. } => {
                self.book.not_reserved(connection);
                self.count("relay.answers_failed");
                self.tell(src_peer_id);
            }
            relay::Event::ReservationReqDenied { .. } => self.count("relay.reservations_denied"),
            relay::Event::ReservationTimedOut { src_peer_id } => {
                self.book.timed_out(connection);
                self.count("relay.reservations_timed_out");
                self.tell(src_peer_id);
                // The library has forgotten the connection. It would panic if an answer that it has granted before is
                // taken only now: whoever does not read can make it so.
                self.establish(src_peer_id, connection);
            }
            relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                self.book.opened(src_peer_id, connection, dst_peer_id);
                self.count("relay.circuits_opened");
                self.tell(src_peer_id);
                self.tell(dst_peer_id);
            }
            relay::Event::CircuitReqDenied { .. } => self.count("relay.circuits_denied"),
            relay::Event::CircuitReqOutboundConnectFailed { .. } => self.count("relay.circuits_failed"),
            relay::Event::CircuitClosed { src_peer_id, dst_peer_id, .. } => {
                self.book.closed(connection, &dst_peer_id);
                self.count("relay.circuits_closed");
                self.tell(src_peer_id);
                self.tell(dst_peer_id);
            }
            relay::Event::ReservationReqDenyFailed { .. }
            | relay::Event::CircuitReqDenyFailed { .. }
            | relay::Event::CircuitReqAcceptFailed { .. } => self.count("relay.answers_failed"),
            // Of every connection that ends.
            relay::Event::ReservationClosed { .. } | relay::Event::StatusChanged { .. } => {}
        }
    }

    fn establish(&mut self, peer_id: PeerId, connection_id: ConnectionId) {
        let endpoint = ConnectedPoint::Listener { local_addr: Multiaddr::empty(), send_back_addr: Multiaddr::empty() };
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        // What the library says of circuits now comes twice, for those that lead here, or not at all: the book knows.
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(out) = self.inner.poll(&mut cx) {
            if !matches!(out, ToSwarm::GenerateEvent(_)) {
                self.out.push_back(out.map_out(|_| Served::Count("unknown")));
            }
        }
        self.connections.remove(&connection);
        let (reserved, circuits) = self.book.gone(connection);
        if reserved {
            self.count("relay.reservations_closed");
        }
        self.tell(peer);
        for to in circuits {
            self.count("relay.circuits_closed");
            self.tell(to);
        }
    }

    fn tell(&mut self, peer: PeerId) {
        let now = self.book.of(&peer);
        let before = if now == (false, 0) { self.told.remove(&peer) } else { self.told.insert(peer, now) };
        if before.unwrap_or_default() != now {
            let (reserved, circuits) = now;
            self.out.push_back(ToSwarm::GenerateEvent(Served::Changed { peer, reserved, circuits }));
        }
    }

    fn count(&mut self, name: &'static str) {
        self.out.push_back(ToSwarm::GenerateEvent(Served::Count(name)));
    }
}

impl NetworkBehaviour for Server {
    type ConnectionHandler = <relay::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Served;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.set_status(self.book.serves(&peer), &HashSet::new());
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.set_status(self.book.serves(&peer), &HashSet::new());
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // What is told to others as our address is not the relay's address if it leads through another relay.
        if let FromSwarm::ExternalAddrConfirmed(confirmed) = event
            && is_relayed(confirmed.addr)
        {
            return;
        }
        self.inner.on_swarm_event(event);
        if let FromSwarm::ConnectionEstablished(established) = event {
            let peer = established.peer_id;
            self.connections.insert(established.connection_id, (peer, self.book.serves(&peer)));
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.on_closed(closed.peer_id, closed.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.book.asking(connection);
        self.inner.on_connection_handler_event(peer, connection, event);
        self.drain(connection);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test looks for a few events among all")]
mod tests {
    use futures::StreamExt;
    use kinfolk_core::{Audience, RelayLimits};
    use libp2p::{
        Swarm, Transport,
        core::{transport::MemoryTransport, upgrade::Version},
        identity::Keypair,
        noise,
        swarm::{self, SwarmEvent},
        yamux,
    };

    use super::*;
    use crate::network::{
        members::{Audiences, Members, Services},
        relay::CircuitTransport,
    };

    fn swarm<B: NetworkBehaviour>(make: impl FnOnce(PeerId) -> (Option<CircuitTransport>, B)) -> Swarm<B> {
        let key = Keypair::generate_ed25519();
        let upgrade = |key: &Keypair| noise::Config::new(key).unwrap();
        let memory = MemoryTransport::default()
            .upgrade(Version::V1Lazy)
            .authenticate(upgrade(&key))
            .multiplex(yamux::Config::default())
            .boxed();
        let (circuits, behaviour) = make(key.public().to_peer_id());
        let transport = match circuits {
            Some(circuits) => {
                let circuits = circuits.upgrade(Version::V1Lazy).authenticate(upgrade(&key));
                let both = circuits.multiplex(yamux::Config::default()).or_transport(memory);
                both.map(|either, _| match either {
                    futures::future::Either::Left((peer, muxer)) => {
                        (peer, libp2p::core::muxing::StreamMuxerBox::new(muxer))
                    }
                    futures::future::Either::Right(output) => output,
                })
                .boxed()
            }
            None => memory,
        };
        let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
        Swarm::new(transport, behaviour, key.public().to_peer_id(), config)
    }

    /// The library forgets the connection of a reservation that is over, and panics if one that it has granted in the
    /// meantime is told only then.
    #[tokio::test]
    async fn a_renewal_just_when_the_time_is_over_harms_nobody() {
        let services = Services::default();
        services.set(Audiences { relay: Audience::Anyone, probes: Audience::Nobody });
        let limits =
            RelayLimits { requests_per_peer: u32::MAX, requests_per_network: u32::MAX, ..RelayLimits::default() };
        let book = Book::new(limits, Members::default(), services);
        let mut server = swarm(|local| (None, Server::new(local, book, Duration::from_millis(1))));
        server.listen_on("/memory/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = server.select_next_some().await {
                break address;
            }
        };
        server.add_external_address(address.clone());
        let relay = *server.local_peer_id();
        let mut client = swarm(|_| {
            let (transport, behaviour) = crate::network::relay::client();
            (Some(transport), behaviour)
        });
        client.dial(address.with_p2p(relay).unwrap()).unwrap();
        let mut command = kinfolk_core::CommandId(0);
        let (mut accepted, mut over) = (0, 0);
        let run = async {
            while accepted < 500 || over < 100 {
                tokio::select! {
                    event = server.select_next_some() => match event {
                        SwarmEvent::Behaviour(Served::Count("relay.reservations_timed_out")) => over += 1,
                        SwarmEvent::Behaviour(Served::Count("relay.reservations_accepted" | "relay.reservations_renewed")) => {
                            accepted += 1;
                        }
                        _ => {}
                    },
                    event = client.select_next_some() => match event {
                        SwarmEvent::ConnectionEstablished { .. } | SwarmEvent::Behaviour(_) => {
                            command.0 += 1;
                            assert!(client.behaviour_mut().reserve(command, relay));
                        }
                        _ => {}
                    },
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), run).await.unwrap();
    }
}
