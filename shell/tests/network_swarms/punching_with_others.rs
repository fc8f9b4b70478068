//! libp2p's own hole punching at the other end.

use futures::{StreamExt, channel::mpsc};
use kinfolk_core::{
    Action, Address, CommandId, ConnectionId, Direction, Event, Mapping, PunchError, PunchRole, PunchWire, Transport,
};
use kinfolk_shell::network::ids;
use libp2p::{
    Multiaddr, PeerId, Swarm, identify,
    identity::Keypair,
    ping,
    swarm::{self, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate, SwarmEvent},
};
use libp2p_dcutr as dcutr;

use crate::relayed::{Client, Node, Relay, connected, let_run, offered, punch_failed, punched, transport};

/// As in the library's example.
#[derive(NetworkBehaviour)]
struct Stock {
    client: Client,
    dcutr: dcutr::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

type Events = mpsc::UnboundedReceiver<SwarmEvent<StockEvent>>;

/// A node of the stock kind that names this transport only, and where it listens.
async fn stock(by: Transport) -> (Swarm<Stock>, Multiaddr) {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let (transport, client) = transport(&key);
    let behaviour = Stock {
        client,
        dcutr: dcutr::Behaviour::new(peer),
        identify: identify::Behaviour::new(identify::Config::new("/stock".to_owned(), key.public())),
        ping: ping::Behaviour::default(),
    };
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(std::time::Duration::from_secs(60));
    let mut swarm = Swarm::new(transport, behaviour, peer, config);
    let address = match by {
        Transport::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        Transport::Tcp => "/ip4/127.0.0.1/tcp/0",
    };
    swarm.listen_on(address.parse().unwrap()).unwrap();
    let at = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let candidate = FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr: &at });
    swarm.behaviour_mut().dcutr.on_swarm_event(candidate);
    (swarm, at)
}

/// Waits for something of the stock node, and lets ours run meanwhile.
async fn hear<T>(events: &mut Events, ours: &mut Node, find: impl Fn(&SwarmEvent<StockEvent>) -> Option<T>) -> T {
    let heard = async {
        loop {
            if let Some(found) = find(&events.next().await.expect("it goes on")) {
                return found;
            }
        }
    };
    tokio::select! {
        heard = heard => heard,
        () = ours.peer.wait("the other one", |_| None::<()>) => unreachable!(),
    }
}

/// What the stock node thinks of its try.
async fn verdict(events: &mut Events, ours: &mut Node) -> bool {
    hear(events, ours, |event| match event {
        SwarmEvent::Behaviour(StockEvent::Dcutr(event)) => Some(event.result.is_ok()),
        _ => None,
    })
    .await
}

/// Waits for the direct connections, until the last one has been used: the directions.
async fn direct_ones(node: &mut Node, punch: CommandId) -> Vec<Direction> {
    let (number, direction) = node.peer.wait("the direct connection", punched(punch)).await;
    node.peer
        .wait("an answer on it", |event| match event {
            Event::Pinged { connection, result: Ok(_), .. } if *connection == number => Some(()),
            _ => None,
        })
        .await;
    let mut directions = vec![direction];
    directions.extend(node.other_direct_ones().iter().map(|event| match event {
        Event::Connected { direction, .. } => *direction,
        _ => unreachable!(),
    }));
    directions
}

/// A stock node to which a circuit of ours leads: it proposes.
async fn it_proposes(transport: Transport, role: PunchRole) -> Vec<Direction> {
    let relay = Relay::start().await;
    let mut ours = Node::start().await;
    let (mut theirs, at) = stock(transport).await;
    let peer = ids::peer_to_core(*theirs.local_peer_id());
    theirs.listen_on(relay.circuit()).unwrap();
    let mut events = let_run(theirs);
    hear(&mut events, &mut ours, |event| match event {
        SwarmEvent::Behaviour(StockEvent::Client(libp2p::relay::client::Event::ReservationReqAccepted { .. })) => {
            Some(())
        }
        _ => None,
    })
    .await;
    ours.join(&relay).await;
    ours.dial_through(&relay, peer);
    ours.peer.wait("the circuit", connected(peer)).await;
    let offer = ours.peer.wait("its proposal", offered).await;
    assert_eq!((offer.mapping, offer.peer), (None, peer));
    assert!(offer.candidates.contains(&ids::address_to_core(&at)), "{:?}", offer.candidates);
    let answer = ours.answer(&offer, transport, role, &[ids::address_to_core(&at)]);
    direct_ones(&mut ours, answer).await
}

#[tokio::test]
async fn a_stock_node_that_proposes_comes_to_the_side_that_accepts() {
    // It dials as QUIC's client whatever its part: one connection, where two clients would make two.
    assert_eq!(it_proposes(Transport::Quic, PunchRole::Accept).await, [Direction::Inbound]);
}

#[tokio::test]
async fn a_stock_node_that_proposes_is_dialled() {
    let directions = it_proposes(Transport::Quic, PunchRole::Dial).await;
    assert!((1..=2).contains(&directions.len()), "two clients may make two connections: {directions:?}");
}

#[tokio::test]
async fn a_stock_node_that_proposes_is_dialled_by_tcp() {
    assert_eq!(it_proposes(Transport::Tcp, PunchRole::Dial).await, [Direction::Outbound]);
}

/// A stock node that has made a circuit to us: we propose.
async fn we_propose(transport: Transport, wire: PunchWire) -> (Node, Events, ConnectionId, CommandId, Multiaddr) {
    let relay = Relay::start().await;
    let mut ours = Node::start().await;
    let (mut theirs, at) = stock(transport).await;
    let peer = ids::peer_to_core(*theirs.local_peer_id());
    ours.reserve(&relay).await;
    let to: PeerId = ids::peer_to_libp2p(&ours.id());
    theirs.dial(relay.circuit().with_p2p(to).unwrap()).unwrap();
    let events = let_run(theirs);
    let connection = ours.peer.wait("the circuit", connected(peer)).await;
    let punch = ours.propose_by(connection, peer, wire, transport);
    (ours, events, connection, punch, at)
}

async fn answer_of(node: &mut Node, punch: CommandId) -> (Option<Mapping>, Vec<Address>) {
    node.peer
        .wait("its answer", |event| match event {
            Event::PunchAnswered { punch: of, mapping, candidates } if *of == punch => {
                Some((*mapping, candidates.clone()))
            }
            Event::PunchFailed { error, .. } => panic!("{error}"),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_stock_node_answers_and_dials() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let wire = PunchWire::Dcutr { role: PunchRole::Accept };
        let (mut ours, mut events, _, punch, at) = we_propose(transport, wire).await;
        let (mapping, candidates) = answer_of(&mut ours, punch).await;
        assert_eq!(mapping, None);
        assert!(candidates.contains(&ids::address_to_core(&at)), "{candidates:?}");
        assert_eq!(direct_ones(&mut ours, punch).await, [Direction::Inbound], "{transport}");
        assert!(verdict(&mut events, &mut ours).await);
    }
}

#[tokio::test]
async fn a_stock_node_does_not_speak_our_own_protocol() {
    let wire = PunchWire::Kinfolk { mapping: Mapping::None };
    let (mut ours, _events, connection, punch, _) = we_propose(Transport::Quic, wire).await;
    assert_eq!(ours.peer.wait("no", punch_failed(punch)).await, PunchError::NotSupported);
    // Nor does the side that the circuit came to take a proposal in the standard one.
    let relay = Relay::start().await;
    let (mut theirs, _) = stock(Transport::Quic).await;
    let peer = ids::peer_to_core(*theirs.local_peer_id());
    theirs.listen_on(relay.circuit()).unwrap();
    let mut events = let_run(theirs);
    hear(&mut events, &mut ours, |event| matches!(event, SwarmEvent::NewListenAddr { .. }).then_some(())).await;
    ours.join(&relay).await;
    ours.dial_through(&relay, peer);
    let second = ours.peer.wait("the circuit", connected(peer)).await;
    assert_ne!(connection, second);
    let wire = PunchWire::Dcutr { role: PunchRole::Accept };
    let punch = ours.propose_by(second, peer, wire, Transport::Quic);
    assert_eq!(ours.peer.wait("no", punch_failed(punch)).await, PunchError::NotSupported);
    // Its own is still there.
    let offer = ours.peer.wait("its proposal", offered).await;
    ours.peer.run(Action::RefusePunch { offer: offer.number, peer });
    assert!(!verdict(&mut events, &mut ours).await);
}
