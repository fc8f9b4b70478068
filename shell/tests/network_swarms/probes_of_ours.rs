use kinfolk_core::{Action, Address, CommandId, ConnectionId, Direction, Event, Origin, PeerId, ProbeVerdict};
use kinfolk_shell::network::ids;
use libp2p::{
    autonat::v2,
    request_response,
    swarm::{SwarmEvent, dummy},
};

use crate::{
    foreign::{Foreign, actor, actor_with, foreign, meanwhile, running},
    harness::{Peer, peer, until, wait},
};

const DIAL_REQUEST: &str = "/libp2p/autonat/2/dial-request";
const DIAL_BACK: &str = "/libp2p/autonat/2/dial-back";
/// Messages of the protocol, with their lengths: `DialResponse`s with a status and a dial status, `DialDataRequest`s.
const SAYS_OK: [u8; 9] = [8, 0x12, 6, 0x08, 0xc8, 0x01, 0x18, 0xc8, 0x01];
const REFUSES: [u8; 5] = [4, 0x12, 2, 0x08, 101];
const FAILS_INSIDE: [u8; 3] = [2, 0x12, 0];
const WANTS_MUCH: [u8; 8] = [7, 0x1a, 5, 0x10, 0xa1, 0x8d, 0x06, 0];
const WANTS_DATA: [u8; 7] = [6, 0x1a, 4, 0x10, 0xe0, 0xd4, 0x03];

async fn stock_server() -> Foreign {
    running(foreign(|_| v2::server::Behaviour::default()), |_, _| {}).await
}

/// Connects to a foreign peer.
async fn meet(peer: &mut Peer, other: &Foreign) -> ConnectionId {
    let dial = peer.dial(other.id, std::slice::from_ref(&other.at));
    peer.wait("the connection", |event| match event {
        Event::Connected { connection, origin: Origin::Dial(of), .. } if *of == dial => Some(*connection),
        _ => None,
    })
    .await
}

fn probe(peer: &mut Peer, server: PeerId, address: &Address) -> CommandId {
    peer.run(Action::Probe { server, address: address.clone() })
}

fn verdict(probe: CommandId) -> impl FnMut(&Event) -> Option<ProbeVerdict> {
    move |event| match event {
        Event::Probed { probe: of, verdict } if *of == probe => Some(verdict.clone()),
        _ => None,
    }
}

async fn ends(peer: &mut Peer, probe: CommandId) -> ProbeVerdict {
    peer.wait("the verdict", verdict(probe)).await
}

async fn closed_port() -> Address {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap()
}

#[tokio::test]
async fn a_stock_server_tells_what_leads_here_and_what_does_not() {
    let server = stock_server().await;
    let mut a = peer();
    let tcp = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let quic = a.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
    meet(&mut a, &server).await;
    let closed = closed_port().await;
    for (address, expected) in [
        (&tcp, ProbeVerdict::Reachable),
        (&quic, ProbeVerdict::Reachable),
        (&closed, ProbeVerdict::DialFailed),
        (&tcp, ProbeVerdict::Reachable),
    ] {
        let probe = probe(&mut a, server.id, address);
        assert_eq!(ends(&mut a, probe).await, expected, "{address}");
    }
    // TCP listens where we dialled from, which proves itself; the others are paid for.
    let paid = a.network.counters().get("probes.paid_bytes");
    assert!((60_000..=200_000).contains(&paid), "{paid}");
    assert_eq!(a.network.counters().get("probes.strays"), 0);
}

#[tokio::test]
async fn the_connection_that_a_server_comes_by_is_told_apart() {
    let server = stock_server().await;
    let mut a = peer();
    let at = a.listen("/ip4/127.0.0.1/tcp/0").await;
    meet(&mut a, &server).await;
    let probe = probe(&mut a, server.id, &at);
    let origin = a
        .wait("the server", |event| match event {
            Event::Connected { direction: Direction::Inbound, origin, .. } => Some(*origin),
            _ => None,
        })
        .await;
    assert_eq!(origin, Origin::Probe(probe));
    assert_eq!(ends(&mut a, probe).await, ProbeVerdict::Reachable);
    // Once that is told, it comes like anybody else.
    let mut again = peer();
    again.dial(a.id(), &[at]);
    let origin = wait(&mut [&mut a, &mut again], 0, "somebody else", |event| match event {
        Event::Connected { origin, .. } => Some(*origin),
        _ => None,
    })
    .await;
    assert_eq!(origin, Origin::Inbound);
}

#[tokio::test]
async fn three_at_once_are_told_by_number() {
    let server = stock_server().await;
    let mut a = peer();
    let first = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let second = a.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let closed = closed_port().await;
    meet(&mut a, &server).await;
    let probes = [&first, &closed, &second].map(|address| probe(&mut a, server.id, address));
    for (probe, expected) in
        probes.into_iter().zip([ProbeVerdict::Reachable, ProbeVerdict::DialFailed, ProbeVerdict::Reachable])
    {
        assert_eq!(ends(&mut a, probe).await, expected);
    }
}

#[tokio::test]
async fn only_who_was_dialled_and_serves_can_probe() {
    let mut a = peer();
    let at = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let nobody = foreign(|_| dummy::Behaviour);
    let absent = probe(&mut a, ids::peer_to_core(*nobody.local_peer_id()), &at);
    assert_eq!(ends(&mut a, absent).await, ProbeVerdict::NotConnected);

    let plain = running(nobody, |_, _| {}).await;
    meet(&mut a, &plain).await;
    let unserved = probe(&mut a, plain.id, &at);
    assert_eq!(ends(&mut a, unserved).await, ProbeVerdict::NotSupported);

    let mut guest = foreign(|_| v2::server::Behaviour::default());
    guest.dial(ids::address_to_libp2p(&at).unwrap()).unwrap();
    let guest = running(guest, |_, _| {}).await;
    a.wait("the guest", |event| matches!(event, Event::Connected { peer, .. } if *peer == guest.id).then_some(()))
        .await;
    let inbound = probe(&mut a, guest.id, &at);
    assert_eq!(ends(&mut a, inbound).await, ProbeVerdict::NotConnected);
}

#[tokio::test]
async fn what_a_server_claims_is_no_proof() {
    let mut a = peer();
    let at = a.listen("/ip4/127.0.0.1/tcp/0").await;
    for (line, expected) in [
        (SAYS_OK.to_vec(), ProbeVerdict::Unproven),
        (REFUSES.to_vec(), ProbeVerdict::Refused),
        (FAILS_INSIDE.to_vec(), ProbeVerdict::Broken("it has failed inside".to_owned())),
    ] {
        let liar = actor_with(DIAL_REQUEST, Some(line)).await;
        meet(&mut a, &liar).await;
        let probe = probe(&mut a, liar.id, &at);
        assert_eq!(ends(&mut a, probe).await, expected);
    }
    assert_eq!(a.network.counters().get("probes.paid_bytes"), 0);
}

#[tokio::test]
async fn nonsense_ends_the_probe_and_costs_no_more_than_the_protocol_allows() {
    let mut a = peer();
    let at = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let again_and_again: Vec<u8> = WANTS_DATA.iter().copied().cycle().take(7 * 1_000).collect();
    for line in [
        vec![0xff; 64],
        vec![0; 1_000],
        vec![0xff, 0xff, 0x7f],
        [vec![5], b"abcde".to_vec()].concat(),
        WANTS_MUCH.to_vec(),
        again_and_again,
    ] {
        let fool = actor_with(DIAL_REQUEST, Some(line.clone())).await;
        meet(&mut a, &fool).await;
        let probe = probe(&mut a, fool.id, &at);
        let verdict = ends(&mut a, probe).await;
        assert!(matches!(verdict, ProbeVerdict::Broken(_)), "{verdict:?} after {:?}", &line[..line.len().min(9)]);
    }
    assert!(a.network.counters().get("probes.paid_bytes") <= 100_000);
}

#[tokio::test]
async fn a_dropped_probe_is_never_answered_and_others_go_on() {
    let silent = actor_with(DIAL_REQUEST, None).await;
    let server = stock_server().await;
    let mut a = peer();
    let at = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let connection = meet(&mut a, &silent).await;
    meet(&mut a, &server).await;
    let dropped = probe(&mut a, silent.id, &at);
    let early = probe(&mut a, silent.id, &at);
    a.run(Action::CancelProbe { probe: early });
    let fine = probe(&mut a, server.id, &at);
    assert_eq!(ends(&mut a, fine).await, ProbeVerdict::Reachable);
    a.run(Action::CancelProbe { probe: dropped });
    a.run(Action::CancelProbe { probe: dropped });
    let cut = probe(&mut a, silent.id, &at);
    a.run(Action::Close { connection, peer: silent.id });
    assert_eq!(
        ends(&mut a, cut).await,
        ProbeVerdict::Broken("the connection to the server has ended".to_owned()),
        "a server that says nothing is waited for as long as it stands"
    );
    assert_eq!(a.take(|event| matches!(event, Event::Probed { .. }).then_some(())), None);
}

#[tokio::test]
async fn dial_backs_that_nobody_waits_for_are_turned_away() {
    const A_NUMBER: [u8; 10] = [9, 0x09, 1, 2, 3, 4, 5, 6, 7, 8];
    let silent = actor_with(DIAL_REQUEST, None).await;
    let mut a = peer();
    let at = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let to = ids::peer_to_libp2p(&a.id());
    let mut stranger = foreign(|_| actor(DIAL_BACK));
    stranger.dial(ids::address_to_libp2p(&at).unwrap()).unwrap();
    meanwhile(&mut a, &mut stranger, "the connection", |event| {
        matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())
    })
    .await;
    let mut open = None;
    for round in 1..=2 {
        for _ in 0..8 {
            stranger.behaviour_mut().send_request(&to, A_NUMBER.to_vec());
        }
        for _ in 0..8 {
            meanwhile(&mut a, &mut stranger, "to be turned away", |event| match event {
                SwarmEvent::Behaviour(request_response::Event::OutboundFailure { error, .. }) => {
                    assert!(matches!(error, request_response::OutboundFailure::Io(_)), "{error}");
                    Some(())
                }
                SwarmEvent::Behaviour(event) => panic!("{event:?}"),
                _ => None,
            })
            .await;
        }
        until(&mut [&mut a], "the count", |peers| {
            (peers[0].network.counters().get("probes.strays") == 8 * round).then_some(())
        })
        .await;
        // The second time while a probe is open: it is another number's.
        meet(&mut a, &silent).await;
        open = Some(probe(&mut a, silent.id, &at));
    }
    assert_eq!(a.take(verdict(open.unwrap())), None);
}
