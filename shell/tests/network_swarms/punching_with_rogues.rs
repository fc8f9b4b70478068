//! Peers that propose and answer whatever they like.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt, channel::mpsc};
use kinfolk_core::{
    Action, Address, CommandId, ConnectionId, Event, Mapping, PeerId, PunchError, PunchRole, PunchWire, Transport,
};
use kinfolk_shell::network::ids;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm,
    identity::Keypair,
    request_response::{self, Message, ProtocolSupport},
    swarm::{self, NetworkBehaviour, SwarmEvent},
};

use crate::relayed::{Client, Node, Relay, connected, offered, punch_failed, transport};

const OWN: StreamProtocol = StreamProtocol::new("/elohim/punch/1.0.0");
const STANDARD: StreamProtocol = StreamProtocol::new("/libp2p/dcutr");

/// What a rogue sends on a stream.
#[derive(Clone, Debug)]
struct Raw {
    bytes: Vec<u8>,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    /// The end.
    Close,
    /// Nothing, for ever.
    Hold,
    /// The same again, for ever.
    Repeat,
}

impl Raw {
    fn new(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { bytes: bytes.into(), then }
    }

    async fn write(self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        loop {
            stream.write_all(&self.bytes).await?;
            stream.flush().await?;
            match self.then {
                Then::Close => return stream.close().await,
                Then::Hold => futures::future::pending().await,
                Then::Repeat => {}
            }
        }
    }
}

/// Takes bytes for messages.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes;

impl request_response::Codec for Bytes {
    type Protocol = StreamProtocol;
    type Request = Raw;
    type Response = Raw;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Raw> {
        let mut some = [0; 4096];
        let count = io.read(&mut some).await?;
        Ok(Raw::new(&some[..count], Then::Close))
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Raw> {
        let mut all = vec![];
        io.read_to_end(&mut all).await?;
        Ok(Raw::new(all, Then::Close))
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        raw: Raw,
    ) -> io::Result<()> {
        raw.write(io).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        raw: Raw,
    ) -> io::Result<()> {
        raw.write(io).await
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    client: Client,
    own: request_response::Behaviour<Bytes>,
    standard: request_response::Behaviour<Bytes>,
}

enum Order {
    Propose(StreamProtocol, Raw),
    Answer(Raw),
}

/// A rogue with a circuit to us.
struct Rogue {
    peer: PeerId,
    orders: mpsc::UnboundedSender<Order>,
}

impl Rogue {
    fn let_loose(relay: &Relay, victim: PeerId) -> Self {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let (transport, client) = transport(&key);
        let talk = |name| {
            let config = request_response::Config::default()
                .with_request_timeout(Duration::from_secs(600))
                .with_max_concurrent_streams(200);
            request_response::Behaviour::with_codec(Bytes, [(name, ProtocolSupport::Full)], config)
        };
        let behaviour = Behaviour { client, own: talk(OWN), standard: talk(STANDARD) };
        let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
        let mut swarm = Swarm::new(transport, behaviour, peer, config);
        let victim = ids::peer_to_libp2p(&victim);
        swarm.dial(relay.circuit().with_p2p(victim).unwrap()).unwrap();
        let (orders, mut inbox) = mpsc::unbounded();
        tokio::spawn(async move {
            let mut answer = Raw::new([], Then::Close);
            loop {
                let event = tokio::select! {
                    event = swarm.select_next_some() => event,
                    Some(order) = inbox.next() => {
                        match order {
                            Order::Propose(name, raw) => {
                                let own = name == OWN;
                                let behaviour = swarm.behaviour_mut();
                                let talk = if own { &mut behaviour.own } else { &mut behaviour.standard };
                                talk.send_request(&victim, raw);
                            }
                            Order::Answer(raw) => answer = raw,
                        }
                        continue;
                    }
                };
                let own = matches!(event, SwarmEvent::Behaviour(BehaviourEvent::Own(_)));
                if let SwarmEvent::Behaviour(BehaviourEvent::Own(event) | BehaviourEvent::Standard(event)) = event
                    && let request_response::Event::Message { message: Message::Request { channel, .. }, .. } = event
                {
                    let behaviour = swarm.behaviour_mut();
                    let talk = if own { &mut behaviour.own } else { &mut behaviour.standard };
                    // An error means that the victim is gone.
                    let _ = talk.send_response(channel, answer.clone());
                }
            }
        });
        Self { peer: ids::peer_to_core(peer), orders }
    }

    fn propose(&self, name: StreamProtocol, raw: Raw) {
        self.orders.unbounded_send(Order::Propose(name, raw)).unwrap();
    }

    fn answer(&self, raw: Raw) {
        self.orders.unbounded_send(Order::Answer(raw)).unwrap();
    }
}

/// One of ours that can be reached through a relay, and a rogue that has done so.
async fn beset() -> (Node, Rogue, ConnectionId) {
    let relay = Relay::start().await;
    let mut ours = Node::start().await;
    ours.reserve(&relay).await;
    let rogue = Rogue::let_loose(&relay, ours.id());
    let connection = ours.peer.wait("the rogue", connected(rogue.peer)).await;
    (ours, rogue, connection)
}

async fn counted(node: &mut Node, name: &str, count: u64) {
    crate::harness::until(&mut [&mut node.peer], name, |peers| {
        (peers[0].network.counters().get(name) == count).then_some(())
    })
    .await;
}

/// A message, after its length.
fn message(content: &[u8]) -> Vec<u8> {
    let mut message = vec![];
    let mut length = content.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(content);
    message
}

/// Addresses, as a field of a message.
fn addresses(field: u8, texts: &[String]) -> Vec<u8> {
    let mut content = vec![];
    for text in texts {
        let address: Multiaddr = text.parse().unwrap();
        content.push(field << 3 | 2);
        content.push(address.len() as u8);
        content.extend_from_slice(address.as_ref());
    }
    content
}

/// A proposal in our own protocol: by QUIC, from this address.
fn proposal(texts: &[String]) -> Vec<u8> {
    message(&[&[8, 1, 16, 1][..], &addresses(5, texts)].concat())
}

/// An answer in our own protocol.
fn answer(role: u8, texts: &[String]) -> Vec<u8> {
    message(&[&[8, 2, 24, role][..], &addresses(5, texts)].concat())
}

/// CONNECT.
fn connect(texts: &[String]) -> Vec<u8> {
    message(&[&[8, 100][..], &addresses(2, texts)].concat())
}

fn global() -> Vec<String> {
    vec!["/ip4/45.10.20.1/udp/4001/quic-v1".to_owned()]
}

#[tokio::test]
async fn nonsense_is_no_proposal() {
    let (mut ours, rogue, _) = beset().await;
    let endless = [0xff; 64].to_vec();
    let oversize = message(&vec![0; 5000]);
    let nonsense: [(StreamProtocol, Raw); 10] = [
        (OWN, Raw::new(b"\x05hello".to_vec(), Then::Hold)),
        (OWN, Raw::new(endless.clone(), Then::Repeat)),
        (OWN, Raw::new(oversize.clone(), Then::Repeat)),
        (OWN, Raw::new(answer(1, &global()), Then::Hold)),
        (OWN, Raw::new(proposal(&global())[..9].to_vec(), Then::Close)),
        (OWN, Raw::new([], Then::Close)),
        (STANDARD, Raw::new(b"\x05hello".to_vec(), Then::Hold)),
        (STANDARD, Raw::new(endless, Then::Repeat)),
        (STANDARD, Raw::new(oversize, Then::Repeat)),
        // SYNC.
        (STANDARD, Raw::new([3, 8, 0xac, 2], Then::Hold)),
    ];
    for (number, (name, raw)) in (1..).zip(nonsense) {
        rogue.propose(name, raw);
        counted(&mut ours, "punch.unreadable_offers", number).await;
    }
    assert_eq!(ours.peer.take(offered).map(|offer| offer.number), None);
    // It may still say something sensible.
    rogue.propose(OWN, Raw::new(proposal(&global()), Then::Hold));
    ours.peer.wait("a proposal", offered).await;
}

#[tokio::test]
async fn of_what_a_peer_names_eight_addresses_are_told() {
    let (mut ours, rogue, _) = beset().await;
    let mut named: Vec<String> = [
        "/dns4/node.example/tcp/4001",
        "/ip4/0.0.0.0/udp/1/quic-v1",
        "/ip4/224.0.0.1/udp/1/quic-v1",
        "/ip4/45.10.20.1/tcp/1/ws",
    ]
    .map(str::to_owned)
    .to_vec();
    named.extend((1..=20).map(|port| format!("/ip4/45.10.20.1/udp/{port}/quic-v1")));
    let expected: Vec<Address> = named[4..12].iter().map(|text| text.parse().unwrap()).collect();
    for (name, bytes, mapping) in [(OWN, proposal(&named), Some(Mapping::Unknown)), (STANDARD, connect(&named), None)] {
        rogue.propose(name, Raw::new(bytes, Then::Hold));
        let offer = ours.peer.wait("a proposal", offered).await;
        assert_eq!((offer.mapping, offer.candidates), (mapping, expected.clone()));
        ours.peer.run(Action::RefusePunch { offer: offer.number, peer: rogue.peer });
    }
}

#[tokio::test]
async fn one_proposal_waits_on_each_connection() {
    let (mut ours, rogue, _) = beset().await;
    for _ in 0..40 {
        rogue.propose(OWN, Raw::new(proposal(&global()), Then::Hold));
    }
    counted(&mut ours, "punch.too_many_offers", 39).await;
    let offer = ours.peer.wait("a proposal", offered).await;
    assert_eq!(ours.peer.take(offered).map(|offer| offer.number), None);
    // A silent one takes the place, too.
    ours.peer.run(Action::RefusePunch { offer: offer.number, peer: rogue.peer });
    rogue.propose(STANDARD, Raw::new([], Then::Hold));
    rogue.propose(STANDARD, Raw::new([], Then::Hold));
    counted(&mut ours, "punch.too_many_offers", 40).await;
}

#[tokio::test]
async fn whoever_speaks_out_of_turn_has_withdrawn() {
    let (mut ours, rogue, _) = beset().await;
    for then in [Then::Close, Then::Repeat] {
        rogue.propose(OWN, Raw::new(proposal(&global()), then));
        let offer = ours.peer.wait("a proposal", offered).await;
        // Once the next one comes, the handler has noticed.
        rogue.propose(OWN, Raw::new(proposal(&global()), Then::Hold));
        let next = ours.peer.wait("the next", offered).await;
        let candidates = offer.candidates.clone();
        let late = ours.answer(&offer, Transport::Quic, PunchRole::Accept, &candidates);
        let error = ours.peer.wait("no", punch_failed(late)).await;
        assert!(matches!(error, PunchError::Broken(_)), "{error}");
        ours.peer.run(Action::RefusePunch { offer: next.number, peer: rogue.peer });
    }
}

/// Whether this is how the try should have ended.
type Expected = fn(&PunchError) -> bool;

fn propose(ours: &mut Node, rogue: &Rogue, connection: ConnectionId, wire: PunchWire) -> CommandId {
    ours.propose_by(connection, rogue.peer, wire, Transport::Quic)
}

#[tokio::test]
async fn a_nonsensical_answer_ends_the_try() {
    let (mut ours, rogue, connection) = beset().await;
    let own = PunchWire::Kinfolk { mapping: Mapping::None };
    let standard = PunchWire::Dcutr { role: PunchRole::Dial };
    let lan = vec!["/ip4/127.0.0.1/tcp/22".to_owned(), "/dns4/node.example/udp/1/quic-v1".to_owned()];
    let broken: Expected = |error| matches!(error, PunchError::Broken(_));
    let declined: Expected = |error| *error == PunchError::Declined;
    let no_candidates: Expected = |error| *error == PunchError::NoCandidates;
    let answers: [(PunchWire, Vec<u8>, Then, Expected); 11] = [
        (own, b"\x05hello".to_vec(), Then::Hold, broken),
        (own, [0xff; 64].to_vec(), Then::Repeat, broken),
        (own, message(&vec![0; 3000]), Then::Repeat, broken),
        (own, proposal(&global()), Then::Hold, broken),
        (own, answer(7, &global()), Then::Hold, broken),
        (own, vec![], Then::Close, declined),
        (own, answer(2, &[]), Then::Hold, declined),
        (own, answer(2, &lan), Then::Hold, no_candidates),
        (standard, vec![3, 8, 0xac, 2], Then::Hold, broken),
        (standard, connect(&[]), Then::Hold, declined),
        (standard, connect(&lan), Then::Hold, no_candidates),
    ];
    for (wire, bytes, then, expected) in answers {
        rogue.answer(Raw::new(bytes.clone(), then));
        let punch = propose(&mut ours, &rogue, connection, wire);
        let error = ours.peer.wait("the end", punch_failed(punch)).await;
        assert!(expected(&error), "{:?}: {error:?}", &bytes[..bytes.len().min(32)]);
    }
    assert_eq!(ours.peer.take(|event| matches!(event, Event::PunchFailed { .. }).then_some(())), None, "once each");
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let (mut ours, rogue, connection) = beset().await;
    // Three at once: a silent answer, a proposal that the core does not answer, and one whose signal never comes.
    rogue.answer(Raw::new([], Then::Hold));
    let silent = propose(&mut ours, &rogue, connection, PunchWire::Kinfolk { mapping: Mapping::None });
    rogue.propose(STANDARD, Raw::new(connect(&global()), Then::Hold));
    let offer = ours.peer.wait("a proposal", offered).await;
    let candidates = offer.candidates.clone();
    let unsignalled = ours.answer(&offer, Transport::Quic, PunchRole::Dial, &candidates);
    rogue.propose(OWN, Raw::new(proposal(&global()), Then::Hold));
    let unanswered = ours.peer.wait("another proposal", offered).await;
    for punch in [silent, unsignalled] {
        assert_eq!(ours.peer.wait("the end", punch_failed(punch)).await, PunchError::TimedOut);
    }
    counted(&mut ours, "punch.unanswered_offers", 1).await;
    let late = ours.answer(&unanswered, Transport::Quic, PunchRole::Accept, &[]);
    assert!(matches!(ours.peer.wait("no", punch_failed(late)).await, PunchError::Broken(_)));
}

#[tokio::test]
async fn a_newer_proposal_takes_the_place_of_one_that_is_being_answered() {
    let (mut ours, rogue, _) = beset().await;
    let mut answers = vec![];
    for _ in 0..2 {
        rogue.propose(STANDARD, Raw::new(connect(&global()), Then::Hold));
        let offer = ours.peer.wait("a proposal", offered).await;
        let candidates = offer.candidates.clone();
        answers.push(ours.answer(&offer, Transport::Quic, PunchRole::Dial, &candidates));
    }
    let error = ours.peer.wait("the end", punch_failed(answers[0])).await;
    assert!(matches!(error, PunchError::Broken(_)), "{error}");
    assert_eq!(ours.peer.take(|event| matches!(event, Event::PunchFailed { .. }).then_some(())), None);
}
