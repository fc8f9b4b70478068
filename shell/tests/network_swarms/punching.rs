use kinfolk_core::{
    Action, Address, CommandId, DialError, Direction, Event, Mapping, Origin, PunchError, PunchRole, PunchWire,
    Refusal, Transport,
};

use crate::{
    harness::Peer,
    relayed::{Node, Offer, Pair, Relay, punch_failed, punched},
};

/// Nobody answers there, and nothing is sent back: a port of our own that is not libp2p's.
fn nowhere() -> (std::net::UdpSocket, Address) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = format!("/ip4/127.0.0.1/udp/{}/quic-v1", socket.local_addr().unwrap().port());
    (socket, at.parse().unwrap())
}

/// What the peer has said, before anything has come of it.
fn answered(punch: CommandId) -> impl FnMut(&Event) -> Option<(Option<Mapping>, Vec<Address>)> {
    move |event| match event {
        Event::PunchAnswered { punch: of, mapping, candidates } if *of == punch => Some((*mapping, candidates.clone())),
        Event::Connected { .. } => panic!("{event:?}"),
        _ => None,
    }
}

fn refused(command: CommandId) -> impl FnMut(&Event) -> Option<Refusal> {
    move |event| match event {
        Event::Refused { command: of, refusal } if *of == command => Some(refusal.clone()),
        _ => None,
    }
}

/// Tries in Kinfolk's own protocol, from `a`.
async fn try_out(transport: Transport, role: PunchRole) -> [Direction; 2] {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), transport);
    let offer = pair.offer(1).await;
    assert_eq!((offer.peer, offer.connection), (pair.a.id(), pair.at_b));
    assert_eq!((offer.mapping, &offer.candidates), (Some(Mapping::Independent), &pair.a.at(transport)));
    let answer = pair.b.answer(&offer, transport, role, &offer.candidates);
    let directions = pair.direct([punch, answer]).await;
    assert_eq!(failures(&mut pair.a.peer) + failures(&mut pair.b.peer), 0);
    directions
}

fn failures<A: libp2p::swarm::NetworkBehaviour>(peer: &mut Peer<A>) -> usize {
    peer.events.iter().filter(|event| matches!(event, Event::PunchFailed { .. })).count()
}

#[tokio::test]
async fn the_answering_side_accepts_by_quic() {
    assert_eq!(try_out(Transport::Quic, PunchRole::Accept).await, [Direction::Outbound, Direction::Inbound]);
}

#[tokio::test]
async fn the_answering_side_dials_by_quic() {
    assert_eq!(try_out(Transport::Quic, PunchRole::Dial).await, [Direction::Inbound, Direction::Outbound]);
}

#[tokio::test]
async fn the_answering_side_dials_by_tcp() {
    assert_eq!(try_out(Transport::Tcp, PunchRole::Dial).await, [Direction::Inbound, Direction::Outbound]);
}

#[tokio::test]
async fn the_answering_side_accepts_by_tcp() {
    assert_eq!(try_out(Transport::Tcp, PunchRole::Accept).await, [Direction::Outbound, Direction::Inbound]);
}

#[tokio::test]
async fn the_side_that_the_circuit_came_to_proposes_too() {
    let mut pair = Pair::start().await;
    let punch = pair.b.propose(pair.at_b, pair.a.id(), Transport::Quic);
    let offer = pair.offer(0).await;
    let answer = pair.a.answer(&offer, Transport::Quic, PunchRole::Accept, &offer.candidates);
    assert_eq!(pair.direct([answer, punch]).await, [Direction::Inbound, Direction::Outbound]);
}

#[tokio::test]
async fn the_proposer_hears_the_answer_before_anything_comes_of_it() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &offer.candidates);
    let said = pair.wait(0, "the answer", answered(punch)).await;
    assert_eq!(said, (Some(Mapping::PerDestination), vec![pair.b.quic.clone()]));
    pair.wait(0, "the connection", punched(punch)).await;
}

/// Tries in the standard protocol, from `b`, to which the circuit came.
async fn try_the_standard(transport: Transport, proposer: PunchRole, answerer: PunchRole) -> [Direction; 2] {
    let mut pair = Pair::start().await;
    let punch = pair.b.propose_by(pair.at_b, pair.a.id(), PunchWire::Dcutr { role: proposer }, transport);
    let offer = pair.offer(0).await;
    assert_eq!((offer.mapping, &offer.candidates), (None, &pair.b.at(transport)));
    let answer = pair.a.answer(&offer, transport, answerer, &offer.candidates);
    pair.direct([answer, punch]).await
}

#[tokio::test]
async fn the_standard_way_by_quic() {
    let directions = try_the_standard(Transport::Quic, PunchRole::Accept, PunchRole::Dial).await;
    assert_eq!(directions, [Direction::Outbound, Direction::Inbound]);
}

#[tokio::test]
async fn the_standard_way_by_quic_with_the_roles_turned() {
    let directions = try_the_standard(Transport::Quic, PunchRole::Dial, PunchRole::Accept).await;
    assert_eq!(directions, [Direction::Inbound, Direction::Outbound]);
}

#[tokio::test]
async fn the_standard_way_by_tcp() {
    let directions = try_the_standard(Transport::Tcp, PunchRole::Accept, PunchRole::Dial).await;
    assert_eq!(directions, [Direction::Outbound, Direction::Inbound]);
}

#[tokio::test]
async fn whoever_comes_from_elsewhere_than_expected_belongs_to_the_try_too() {
    let mut pair = Pair::start().await;
    let (_socket, elsewhere) = nowhere();
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    // The hole leads elsewhere: what comes is an ordinary connection.
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &[elsewhere]);
    assert_eq!(pair.direct([punch, answer]).await, [Direction::Outbound, Direction::Inbound]);
}

#[tokio::test]
async fn a_side_that_accepts_need_not_know_where_the_other_one_is() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &[]);
    pair.direct([punch, answer]).await;
}

#[tokio::test]
async fn a_side_that_accepts_waits_also_when_its_own_dial_has_failed() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    // Nothing listens by IPv6, so no hole can be made there: an error at once.
    let hopeless = ["/ip6/::1/udp/4001/quic-v1".parse().unwrap()];
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &hopeless);
    assert_eq!(pair.direct([punch, answer]).await, [Direction::Outbound, Direction::Inbound]);
}

#[tokio::test]
async fn of_several_addresses_one_leads_there() {
    let mut pair = Pair::start().await;
    let (_socket, elsewhere) = nowhere();
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    let targets = [elsewhere, pair.b.tcp.clone(), pair.a.quic.clone()];
    // The other side dials, and has a hole for each; the try is over with the first connection.
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Dial, &targets);
    pair.direct([punch, answer]).await;
}

#[tokio::test]
async fn somebody_else_at_a_home_address_of_the_peer_does_not_end_the_try() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Tcp);
    let offer = pair.offer(1).await;
    let mut targets = vec![];
    for _ in 0..3 {
        targets.push(Relay::start().await.address.to_string().parse().unwrap());
    }
    targets.push(pair.a.tcp.clone());
    let answer = pair.b.answer(&offer, Transport::Tcp, PunchRole::Dial, &targets);
    pair.direct([punch, answer]).await;
}

#[tokio::test]
async fn an_offer_is_declined() {
    let mut pair = Pair::start().await;
    for wire in [PunchWire::Kinfolk { mapping: Mapping::None }, PunchWire::Dcutr { role: PunchRole::Accept }] {
        let punch = pair.b.propose_by(pair.at_b, pair.a.id(), wire, Transport::Quic);
        let Offer { number: offer, peer, .. } = pair.offer(0).await;
        pair.a.peer.run(Action::RefusePunch { offer, peer });
        assert_eq!(pair.wait(1, "the refusal", punch_failed(punch)).await, PunchError::Declined);
        // There is no such offer any more.
        let again = pair.a.peer.run(Action::RefusePunch { offer, peer });
        assert_eq!(pair.wait(0, "no", refused(again)).await, Refusal::Gone);
    }
}

#[tokio::test]
async fn an_offer_is_answered_once_and_by_its_transport() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    let wrong = pair.b.answer(&offer, Transport::Tcp, PunchRole::Accept, &[]);
    assert_eq!(pair.wait(1, "no", punch_failed(wrong)).await, PunchError::NoCandidates);
    assert_eq!(pair.wait(0, "the refusal", punch_failed(punch)).await, PunchError::Declined);
    let late = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &[]);
    assert!(matches!(pair.wait(1, "no", punch_failed(late)).await, PunchError::Broken(_)));
}

#[tokio::test]
async fn the_circuit_closes_in_the_middle() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    let (connection, peer) = (pair.at_b, pair.a.id());
    pair.b.peer.run(Action::Close { connection, peer });
    assert_eq!(pair.wait(0, "the end", punch_failed(punch)).await, PunchError::CircuitGone);
    pair.wait(1, "the end", |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
    let late = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &offer.candidates);
    assert!(matches!(pair.wait(1, "no", punch_failed(late)).await, PunchError::Broken(_)));
    // Nothing is proposed on what is gone.
    let next = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    assert_eq!(pair.wait(0, "no", punch_failed(next)).await, PunchError::CircuitGone);
    assert_eq!(failures(&mut pair.a.peer) + failures(&mut pair.b.peer), 0);
}

#[tokio::test]
async fn nothing_is_proposed_on_a_direct_connection() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &offer.candidates);
    let (direct, _) = pair.wait(0, "the direct connection", punched(punch)).await;
    let next = pair.a.propose(direct, pair.b.id(), Transport::Tcp);
    assert_eq!(pair.wait(0, "no", punch_failed(next)).await, PunchError::CircuitGone);
}

#[tokio::test]
async fn addresses_of_home_networks_are_dialled_only_when_the_core_says_so() {
    let mut pair = Pair::start().await;
    let (connection, peer) = (pair.at_a, pair.b.id());
    let wire = PunchWire::Kinfolk { mapping: Mapping::Independent };
    let here = pair.a.at(Transport::Quic);
    let elsewhere = vec!["/ip4/45.10.20.1/udp/4001/quic-v1".parse().unwrap()];
    // Not told to; or told to, but not that the peer is on this machine.
    for (near, candidates) in [(false, here), (true, elsewhere)] {
        let transport = Transport::Quic;
        let punch = pair.a.peer.run(Action::Punch { connection, peer, wire, transport, candidates, near });
        let offer = pair.offer(1).await;
        let answer = pair.b.answer(&offer, transport, PunchRole::Accept, &[]);
        assert_eq!(pair.wait(0, "no", punch_failed(punch)).await, PunchError::NoCandidates);
        pair.b.peer.run(Action::CancelPunch { punch: answer });
    }
    assert_eq!(pair.a.peer.network.counters().get("refused.by_guard"), 0, "it was not even tried");
}

#[tokio::test]
async fn a_side_that_should_dial_needs_an_address() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    let tcp = pair.a.at(Transport::Tcp);
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Dial, &tcp);
    assert_eq!(pair.wait(1, "no", punch_failed(answer)).await, PunchError::NoCandidates);
    assert_eq!(pair.wait(0, "the refusal", punch_failed(punch)).await, PunchError::Declined);

    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    pair.b.peer.run(Action::AnswerPunch {
        offer: offer.number,
        peer: offer.peer,
        transport: Transport::Quic,
        role: PunchRole::Accept,
        mapping: Mapping::Unknown,
        candidates: vec![],
        targets: vec![],
    });
    assert_eq!(pair.wait(0, "no", punch_failed(punch)).await, PunchError::Declined);
}

#[tokio::test]
async fn both_sides_report_a_try_that_can_not_work() {
    let mut pair = Pair::start().await;
    let (_socket, elsewhere) = nowhere();
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    pair.b.quic = elsewhere.clone();
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &[elsewhere]);
    for (who, punch) in [(0, punch), (1, answer)] {
        let error = pair.wait(who, "the failure", punch_failed(punch)).await;
        assert_eq!(error, PunchError::Dial(DialError::TimedOut));
    }
    assert_eq!(failures(&mut pair.a.peer) + failures(&mut pair.b.peer), 0, "once each");
}

#[tokio::test]
async fn a_closed_port_says_so_at_once_to_the_side_that_dials() {
    let mut pair = Pair::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Tcp);
    let offer = pair.offer(1).await;
    let targets = [format!("/ip4/127.0.0.1/tcp/{}", closed.port()).parse().unwrap()];
    let answer = pair.b.answer(&offer, Transport::Tcp, PunchRole::Dial, &targets);
    let error = pair.wait(1, "the failure", punch_failed(answer)).await;
    assert_eq!(error, PunchError::Dial(DialError::ConnectionRefused));
    // What the other side still does is up to its core.
    pair.a.peer.run(Action::CancelPunch { punch });
}

#[tokio::test]
async fn what_comes_of_a_cancelled_try_is_a_connection_like_any_other() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &offer.candidates);
    pair.wait(0, "the answer", answered(punch)).await;
    // The dial is under way, and can't be stopped.
    pair.a.peer.run(Action::CancelPunch { punch });
    pair.direct([punch, answer]).await;
    assert_eq!(failures(&mut pair.a.peer), 0);
}

#[tokio::test]
async fn nothing_comes_of_a_cancelled_proposal() {
    let mut pair = Pair::start().await;
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    pair.a.peer.run(Action::CancelPunch { punch });
    // The answer comes too late.
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &[]);
    let error = pair.wait(1, "the end", punch_failed(answer)).await;
    assert!(matches!(error, PunchError::Declined | PunchError::NoCandidates), "{error}");
    // Whoever comes now is not the try's.
    let (at, a) = (pair.a.at(Transport::Quic), pair.a.id());
    pair.b.peer.dial(a, &at);
    let origin = pair.wait(0, "a connection", |event| match event {
        Event::Connected { origin, .. } => Some(*origin),
        Event::PunchAnswered { .. } | Event::PunchFailed { .. } => panic!("{event:?}"),
        _ => None,
    });
    assert_eq!(origin.await, Origin::Inbound);
    // The place is free for the next one.
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Tcp);
    let offer = pair.offer(1).await;
    let answer = pair.b.answer(&offer, Transport::Tcp, PunchRole::Dial, &offer.candidates);
    pair.wait(0, "the next connection", punched(punch)).await;
    pair.wait(1, "the next connection", punched(answer)).await;
}

#[tokio::test]
async fn a_proposal_that_is_withdrawn_makes_room_for_the_next() {
    let mut pair = Pair::start().await;
    let first = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let Offer { number: withdrawn, peer, .. } = pair.offer(1).await;
    // One at a time.
    let second = pair.a.propose(pair.at_a, pair.b.id(), Transport::Tcp);
    assert!(matches!(pair.wait(0, "no", punch_failed(second)).await, PunchError::Broken(_)));
    pair.a.peer.run(Action::CancelPunch { punch: first });
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic);
    let offer = pair.offer(1).await;
    let refuse = pair.b.peer.run(Action::RefusePunch { offer: withdrawn, peer });
    assert_eq!(pair.wait(1, "no", refused(refuse)).await, Refusal::Gone);
    let answer = pair.b.answer(&offer, Transport::Quic, PunchRole::Accept, &offer.candidates);
    pair.direct([punch, answer]).await;
}

/// Whether somebody else than the core can reach this address through `node`.
async fn is_open(node: &mut Node, address: &Address) -> bool {
    let [relay, nobody] = [0; 2].map(|_| libp2p::PeerId::random());
    // A name that no person has written opens nothing by itself.
    let named = address.to_string().replace("/ip4/127.0.0.1/", "/dns4/localhost/");
    let circuit = format!("{named}/p2p/{relay}/p2p-circuit");
    node.peer.dial(kinfolk_shell::network::ids::peer_to_core(nobody), &[circuit.parse().unwrap()]);
    let (held, peer) = node
        .peer
        .wait("the relay client to dial", |event| match event {
            Event::DialHeld { held, peer, .. } => Some((*held, *peer)),
            _ => None,
        })
        .await;
    node.peer.run(Action::Release { held, peer });
    let failed = |event: &Event| match event {
        Event::HeldFailed { held: of, error } if *of == held => Some(error.clone()),
        _ => None,
    };
    node.peer.wait("its dial to end", failed).await != DialError::Denied
}

#[tokio::test]
async fn the_home_network_is_open_to_a_try_only() {
    let mut pair = Pair::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent: Address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap();
    assert!(!is_open(&mut pair.b, &silent).await);
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Tcp);
    let offer = pair.offer(1).await;
    let answer = pair.b.answer(&offer, Transport::Tcp, PunchRole::Dial, std::slice::from_ref(&silent));
    tokio::select! {
        came = listener.accept() => drop(came.unwrap()),
        _ = pair.wait(1, "never", |_| None::<()>) => unreachable!(),
    }
    let error = pair.wait(1, "the failure", punch_failed(answer)).await;
    assert_eq!(error, PunchError::Dial(DialError::Handshake));
    assert!(!is_open(&mut pair.b, &silent).await);
    // Also after what has succeeded.
    pair.a.peer.run(Action::CancelPunch { punch });
    let punch = pair.a.propose(pair.at_a, pair.b.id(), Transport::Tcp);
    let offer = pair.offer(1).await;
    let answer = pair.b.answer(&offer, Transport::Tcp, PunchRole::Dial, &offer.candidates);
    pair.wait(1, "the connection", punched(answer)).await;
    pair.wait(0, "the connection", punched(punch)).await;
    assert!(!is_open(&mut pair.b, &pair.a.tcp).await);
}

#[tokio::test]
async fn two_proposals_that_cross_are_two_tries() {
    let mut pair = Pair::start().await;
    let punches = [
        pair.a.propose(pair.at_a, pair.b.id(), Transport::Quic),
        pair.b.propose(pair.at_b, pair.a.id(), Transport::Quic),
    ];
    let (at_a, at_b) = (pair.offer(0).await, pair.offer(1).await);
    let answers = [
        pair.a.answer(&at_a, Transport::Quic, PunchRole::Accept, &at_a.candidates),
        pair.b.answer(&at_b, Transport::Quic, PunchRole::Accept, &at_b.candidates),
    ];
    for (who, (punch, answer)) in punches.into_iter().zip(answers).enumerate() {
        pair.wait(who, "what was proposed", punched(punch)).await;
        pair.wait(who, "what was answered", punched(answer)).await;
    }
    assert_eq!(failures(&mut pair.a.peer) + failures(&mut pair.b.peer), 0);
}
