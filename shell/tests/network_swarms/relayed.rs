//! Two networks that are connected through a relay.

use futures::{StreamExt, channel::mpsc};
use kinfolk_core::{
    Action, Address, CommandId, ConnectionId, Direction, Event, Mapping, OfferId, Origin, PeerId, PunchError,
    PunchRole, PunchWire, Transport,
};
use kinfolk_shell::network::ids;
use libp2p::{
    Swarm, SwarmBuilder, Transport as _,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    multiaddr::Protocol,
    noise, quic, relay,
    swarm::SwarmEvent,
    tcp, yamux,
};

use crate::harness::{Peer, peer, wait};

pub(crate) type Client = relay::client::Behaviour;

/// A relay for everybody.
pub(crate) struct Relay {
    pub(crate) id: libp2p::PeerId,
    pub(crate) address: libp2p::Multiaddr,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| {
                let config = relay::Config { max_circuit_bytes: u64::MAX, ..relay::Config::default() };
                relay::Behaviour::new(key.public().to_peer_id(), config)
            })
            .unwrap()
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        swarm.add_external_address(address.clone());
        let id = *swarm.local_peer_id();
        tokio::spawn(async move { while swarm.next().await.is_some() {} });
        Self { id, address }
    }

    /// The relayed address of whoever has a reservation here.
    pub(crate) fn circuit(&self) -> libp2p::Multiaddr {
        self.address.clone().with(Protocol::P2p(self.id)).with(Protocol::P2pCircuit)
    }
}

/// TCP, QUIC, and through relays, for those that are none of ours.
pub(crate) fn transport(key: &Keypair) -> (Boxed<(libp2p::PeerId, StreamMuxerBox)>, Client) {
    let (circuits, client) = relay::client::new(key.public().to_peer_id());
    let circuits = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let tcp = tcp::tokio::Transport::new(tcp::Config::default())
        .map_err(Plain)
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let quic = quic::tokio::Transport::new(quic::Config::new(key))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();
    let direct =
        quic.or_transport(tcp).map(|either, _| either.into_inner()).map_err(|either| either.into_inner()).boxed();
    let all = circuits.or_transport(direct).map(|either, _| either.into_inner()).map_err(|either| either.into_inner());
    (all.boxed(), client)
}

/// TCP's error as it is: libp2p's own wrapping hides it.
#[derive(Debug)]
struct Plain(std::io::Error);

impl std::fmt::Display for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Plain {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// A network, and where it listens.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) quic: Address,
    pub(crate) tcp: Address,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let mut peer = peer();
        let quic = peer.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
        let tcp = peer.listen("/ip4/127.0.0.1/tcp/0").await;
        Self { peer, quic, tcp }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.peer.id()
    }

    pub(crate) fn at(&self, transport: Transport) -> Vec<Address> {
        match transport {
            Transport::Quic => vec![self.quic.clone()],
            Transport::Tcp => vec![self.tcp.clone()],
        }
    }

    pub(crate) async fn join(&mut self, relay: &Relay) {
        let to = ids::peer_to_core(relay.id);
        self.peer.dial(to, &[ids::address_to_core(&relay.address)]);
        self.peer.wait("the relay", connected(to)).await;
    }

    /// Has a place at the relay.
    pub(crate) async fn reserve(&mut self, relay: &Relay) {
        self.join(relay).await;
        let address = ids::address_to_core(&relay.address);
        let place = self.peer.run(Action::Reserve { relay: ids::peer_to_core(relay.id), address });
        self.peer
            .wait("a place", |event| match event {
                Event::ReservedAt { reservation, .. } if *reservation == place => Some(()),
                _ => None,
            })
            .await;
    }

    /// Dials a peer that has a place at the relay.
    pub(crate) fn dial_through(&mut self, relay: &Relay, peer: PeerId) {
        self.peer.dial(peer, &[ids::address_to_core(&relay.circuit())]);
    }

    /// Proposes in Kinfolk's own protocol.
    pub(crate) fn propose(&mut self, on: ConnectionId, peer: PeerId, transport: Transport) -> CommandId {
        self.propose_by(on, peer, PunchWire::Kinfolk { mapping: Mapping::Independent }, transport)
    }

    pub(crate) fn propose_by(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        wire: PunchWire,
        transport: Transport,
    ) -> CommandId {
        let candidates = self.at(transport);
        self.peer.run(Action::Punch { connection, peer, wire, transport, candidates, near: true })
    }

    /// Takes up an offer, and does the part towards `targets`.
    pub(crate) fn answer(
        &mut self,
        offer: &Offer,
        transport: Transport,
        role: PunchRole,
        targets: &[Address],
    ) -> CommandId {
        let candidates = self.at(transport);
        self.peer.run(Action::AnswerPunch {
            offer: offer.number,
            peer: offer.peer,
            transport,
            role,
            mapping: Mapping::PerDestination,
            candidates,
            targets: targets.to_vec(),
        })
    }

    /// The direct connections of which nobody has taken the event yet.
    pub(crate) fn other_direct_ones(&mut self) -> Vec<Event> {
        let direct = |event: &Event| match event {
            Event::Connected { address: Address::Ip { .. }, .. } => Some(event.clone()),
            _ => None,
        };
        std::iter::from_fn(|| self.peer.take(direct)).collect()
    }
}

/// A proposal that has come in.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) number: OfferId,
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) mapping: Option<Mapping>,
    pub(crate) candidates: Vec<Address>,
}

/// Two nodes and the relayed connection between them: `a` has made it, to `b`.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) at_a: ConnectionId,
    pub(crate) at_b: ConnectionId,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let relay = Relay::start().await;
        let (mut a, mut b) = (Node::start().await, Node::start().await);
        b.reserve(&relay).await;
        a.join(&relay).await;
        a.dial_through(&relay, b.id());
        let (from, to) = (a.id(), b.id());
        let peers = &mut [&mut a.peer, &mut b.peer];
        let at_a = wait(peers, 0, "the circuit", connected(to)).await;
        let at_b = wait(peers, 1, "the circuit", connected(from)).await;
        Self { a, b, at_a, at_b }
    }

    /// Waits for an event at `a` (0) or `b` (1).
    pub(crate) async fn wait<T>(&mut self, who: usize, what: &str, find: impl FnMut(&Event) -> Option<T>) -> T {
        wait(&mut [&mut self.a.peer, &mut self.b.peer], who, what, find).await
    }

    /// Waits for a proposal.
    pub(crate) async fn offer(&mut self, who: usize) -> Offer {
        self.wait(who, "a proposal", offered).await
    }

    /// Waits for the direct connections that come of these tries, one on each side, until both have been used, and
    /// makes sure that there are no others. Gives the directions.
    pub(crate) async fn direct(&mut self, tries: [CommandId; 2]) -> [Direction; 2] {
        let mut directions = vec![];
        let mut numbers = vec![];
        for (who, punch) in tries.into_iter().enumerate() {
            let (connection, direction) = self.wait(who, "the direct connection", punched(punch)).await;
            numbers.push(connection);
            directions.push(direction);
        }
        for (who, number) in numbers.into_iter().enumerate() {
            self.wait(who, "an answer on it", |event| match event {
                Event::Pinged { connection, result: Ok(_), .. } if *connection == number => Some(()),
                _ => None,
            })
            .await;
        }
        assert_eq!(self.a.other_direct_ones(), []);
        assert_eq!(self.b.other_direct_ones(), []);
        directions.try_into().unwrap()
    }
}

pub(crate) fn connected(to: PeerId) -> impl FnMut(&Event) -> Option<ConnectionId> {
    move |event| match event {
        Event::Connected { connection, peer, .. } if *peer == to => Some(*connection),
        Event::DialFailed { failures, error, .. } => panic!("{error}: {failures:?}"),
        _ => None,
    }
}

pub(crate) fn offered(event: &Event) -> Option<Offer> {
    match event {
        Event::PunchOffered { offer, connection, peer, mapping, candidates } => Some(Offer {
            number: *offer,
            peer: *peer,
            connection: *connection,
            mapping: *mapping,
            candidates: candidates.clone(),
        }),
        _ => None,
    }
}

/// The connection that has come of a try.
pub(crate) fn punched(punch: CommandId) -> impl FnMut(&Event) -> Option<(ConnectionId, Direction)> {
    move |event| match event {
        Event::Connected { connection, direction, origin: Origin::Punch(of), .. } if *of == punch => {
            Some((*connection, *direction))
        }
        Event::PunchFailed { punch: of, error } if *of == punch => panic!("the try failed: {error}"),
        _ => None,
    }
}

/// Why a try came to nothing.
pub(crate) fn punch_failed(punch: CommandId) -> impl FnMut(&Event) -> Option<PunchError> {
    move |event| match event {
        Event::PunchFailed { punch: of, error } if *of == punch => Some(error.clone()),
        Event::Connected { origin: Origin::Punch(of), .. } if *of == punch => panic!("connected after all: {event:?}"),
        _ => None,
    }
}

/// Lets a swarm run; what happens there comes out of the channel.
pub(crate) fn let_run<B>(mut swarm: Swarm<B>) -> mpsc::UnboundedReceiver<SwarmEvent<B::ToSwarm>>
where
    B: libp2p::swarm::NetworkBehaviour<ToSwarm: Send> + Send,
{
    let (events, out) = mpsc::unbounded();
    tokio::spawn(async move {
        while let Some(event) = swarm.next().await {
            // Nobody may be listening.
            let _ = events.unbounded_send(event);
        }
    });
    out
}
