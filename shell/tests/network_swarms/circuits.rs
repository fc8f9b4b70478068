use std::time::Duration;

use kinfolk_core::{
    Action, Address, Asker, CircuitLimit, ConnectionId, DialError, Direction, Event, HeldId, Origin, PeerId,
    RelayLimits,
};
use libp2p::{
    StreamProtocol,
    identity::Keypair,
    request_response::{self, ProtocolSupport, cbor},
    swarm::NetworkBehaviour,
};

use crate::{
    harness::{Failure, Peer, connect, in_memory, in_memory_with, peer, until, wait},
    reservations::{relay, relay_with, take_place, through},
};

/// Has the first of three dial the last one through the second, and gives the connection's number on both sides.
pub(crate) async fn dial_through(
    peers: &mut [&mut Peer; 3],
    at: &Address,
) -> Result<(ConnectionId, ConnectionId), Failure> {
    let address = through(&peers[1].id(), at);
    dial_at(peers, address).await
}

async fn dial_at(peers: &mut [&mut Peer; 3], address: Address) -> Result<(ConnectionId, ConnectionId), Failure> {
    let (from, relay, to) = (peers[0].id(), peers[1].id(), peers[2].id());
    let dial = peers[0].dial(to, std::slice::from_ref(&address));
    let here = wait(peers, 0, "the circuit", |event| match event {
        Event::Connected { connection, peer, direction, address: at, origin, .. } if *peer == to => {
            assert_eq!((*direction, at, *origin), (Direction::Outbound, &address, Origin::Dial(dial)));
            Some(Ok(*connection))
        }
        Event::DialFailed { dial: of, failures, error } if *of == dial => Some(Err((failures.clone(), error.clone()))),
        _ => None,
    })
    .await?;
    let there = wait(peers, 2, "the circuit to arrive", |event| match event {
        Event::Connected { connection, peer, direction, address, .. } if *peer == from => {
            assert_eq!((*direction, address), (Direction::Inbound, &Address::relayed(relay)));
            Some(*connection)
        }
        _ => None,
    })
    .await;
    Ok((here, there))
}

fn limited(of: ConnectionId) -> impl FnMut(&Event) -> Option<CircuitLimit> {
    move |event| match event {
        Event::CircuitLimited { connection, limit } if *connection == of => Some(*limit),
        _ => None,
    }
}

fn held(event: &Event) -> Option<(HeldId, Asker, Option<PeerId>)> {
    match event {
        Event::DialHeld { held, asker, peer } => Some((*held, *asker, *peer)),
        _ => None,
    }
}

#[tokio::test]
async fn a_circuit_is_a_connection_with_a_limit_on_both_sides() {
    let limits = RelayLimits { duration: Duration::from_secs(600), bytes: 1 << 20, ..RelayLimits::default() };
    let (mut r, at) = relay_with(limits).await;
    let (mut a, mut b) = (in_memory(), in_memory());
    take_place(&mut a, &mut r, &at).await;
    connect(&mut b, &mut r, &at).await;
    let limit = CircuitLimit { duration: Some(Duration::from_secs(600)), bytes: Some(1 << 20) };
    for _ in 0..2 {
        let (here, there) = dial_through(&mut [&mut b, &mut r, &mut a], &at).await.unwrap();
        assert_eq!(wait(&mut [&mut b, &mut r, &mut a], 0, "its limit", limited(here)).await, limit);
        assert_eq!(wait(&mut [&mut b, &mut r, &mut a], 2, "its limit", limited(there)).await, limit);
        wait(&mut [&mut b, &mut r, &mut a], 0, "a ping through it", |event| match event {
            Event::Pinged { connection, result: Ok(_), .. } if *connection == here => Some(()),
            _ => None,
        })
        .await;
    }
}

#[tokio::test]
async fn the_limit_comes_right_after_the_connection() {
    let (mut r, at) = relay().await;
    let (mut a, mut b) = (in_memory(), in_memory());
    take_place(&mut a, &mut r, &at).await;
    connect(&mut b, &mut r, &at).await;
    b.dial(a.id(), &[through(&r.id(), &at)]);
    until(&mut [&mut b, &mut r, &mut a], "both limits", |peers| {
        let told = |peer: &Peer| peer.events.iter().any(|event| matches!(event, Event::CircuitLimited { .. }));
        (told(peers[0]) && told(peers[2])).then_some(())
    })
    .await;
    for peer in [&a, &b] {
        let at = peer.events.iter().position(|event| matches!(event, Event::CircuitLimited { .. })).unwrap();
        assert!(matches!(&peer.events[at - 1], Event::Connected { address, .. } if address.is_relayed()));
    }
}

#[tokio::test]
async fn a_relay_that_is_connected_need_not_be_named_by_address() {
    for (mut r, at, mut a, mut b) in [
        {
            let (r, at) = relay().await;
            (r, at, in_memory(), in_memory())
        },
        {
            let mut r = peer();
            let at = r.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
            r.run(Action::Advertise { address: at.clone() });
            let anyone = kinfolk_core::Audience::Anyone;
            r.run(Action::SetServices { relay: anyone, probes: kinfolk_core::Audience::Nobody });
            (r, at, peer(), peer())
        },
    ] {
        take_place(&mut a, &mut r, &at).await;
        let unnamed = Address::relayed(r.id());
        let unconnected = dial_at(&mut [&mut b, &mut r, &mut a], unnamed.clone()).await.unwrap_err();
        let error = DialError::Other("there is no connection to the relay".to_owned());
        assert_eq!(unconnected, (vec![(unnamed.clone(), error.clone())], error));
        connect(&mut b, &mut r, &at).await;
        dial_at(&mut [&mut b, &mut r, &mut a], unnamed).await.unwrap();
    }
}

#[tokio::test]
async fn whose_place_is_by_a_connection_that_the_relay_has_made_is_reached_too() {
    let (mut r, at) = relay().await;
    let (mut a, mut b) = (in_memory(), in_memory());
    let home = a.listen("/memory/0").await;
    connect(&mut r, &mut a, &home).await;
    let command = crate::reservations::ask(&mut a, r.id(), &at);
    wait(&mut [&mut a, &mut r], 0, "a place", crate::reservations::accepted(command)).await;
    connect(&mut b, &mut r, &at).await;
    dial_through(&mut [&mut b, &mut r, &mut a], &at).await.unwrap();
}

#[tokio::test]
async fn the_relay_is_dialled_when_the_core_says_so() {
    let (mut r, at) = relay().await;
    let (mut a, mut b) = (in_memory(), in_memory());
    take_place(&mut a, &mut r, &at).await;
    let (to, via) = (a.id(), r.id());
    b.dial(to, &[through(&via, &at)]);
    let all = &mut [&mut b, &mut r, &mut a];
    let (number, asker, peer) = wait(all, 0, "the wish to dial", held).await;
    assert_eq!((asker, peer), (Asker::Relay, Some(via)));
    all[0].run(Action::Release { held: number, peer });
    wait(all, 0, "the relay's connection", |event| match event {
        Event::Connected { peer, origin, .. } if *peer == via => {
            assert_eq!(*origin, Origin::Held(number));
            Some(())
        }
        _ => None,
    })
    .await;
    wait(all, 0, "the circuit", |event| match event {
        Event::Connected { peer, .. } if *peer == to => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn what_stands_in_a_circuits_way_is_said() {
    let (mut r, at) = relay().await;
    let (mut a, mut b) = (in_memory(), in_memory());
    connect(&mut b, &mut r, &at).await;
    connect(&mut a, &mut r, &at).await;
    let says = |failure: Failure| failure.1.to_string();
    let all = &mut [&mut b, &mut r, &mut a];
    assert_eq!(says(dial_through(all, &at).await.unwrap_err()), "the peer has no place at the relay");

    // A relay that can't be reached, and one that may not be.
    let nobody = ids_of_nobody();
    for release in [true, false] {
        let to = all[2].id();
        let dial = all[0].dial(to, &[through(&nobody, &"/memory/1".parse().unwrap())]);
        let (held, _, peer) = wait(all, 0, "the wish to dial", held).await;
        all[0].run(if release { Action::Release { held, peer } } else { Action::Refuse { held, peer } });
        let failed = wait(all, 0, "the failure", crate::harness::failed(dial)).await;
        assert_eq!(says(failed), "the relay can't be reached");
    }
}

fn ids_of_nobody() -> PeerId {
    kinfolk_shell::network::ids::peer_to_core(libp2p::PeerId::random())
}

#[tokio::test]
async fn the_guard_lets_nobody_but_the_core_reach_a_relay_in_the_home_network() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let inside: Address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let (relay, to) = (ids_of_nobody(), ids_of_nobody());
    // An application's dial, and the relay client's for it.
    let mut a = crate::harness::peer_of(app());
    let known = kinfolk_shell::network::ids::address_to_libp2p(&through(&relay, &inside)).unwrap();
    let id = kinfolk_shell::network::ids::peer_to_libp2p(&to);
    a.network.app_mut().send_request_with_addresses(&id, vec![], vec![known]);
    for asker in [Asker::Application, Asker::Relay] {
        let (held, who, peer) = a.wait("the wish to dial", held).await;
        assert_eq!(who, asker);
        a.run(Action::Release { held, peer });
    }
    let failed = a.wait("the guard", |event| match event {
        Event::HeldFailed { error, .. } if *error == DialError::Denied => Some(()),
        Event::Connected { .. } => panic!("connected"),
        _ => None,
    });
    failed.await;
    assert_eq!(a.network.counters().get("refused.by_guard"), 1);
    // The core's own dial opens it.
    a.dial(to, &[through(&relay, &inside)]);
    let (held, who, peer) = a.wait("the wish to dial", held).await;
    assert_eq!(who, Asker::Relay);
    a.run(Action::Release { held, peer });
    tokio::select! {
        accepted = listener.accept() => drop(accepted.unwrap()),
        _ = a.wait("never", |_| None::<()>) => unreachable!(),
    };
}

type App = cbor::Behaviour<Vec<u8>, ()>;

fn app() -> App {
    let protocols = [(StreamProtocol::new("/bulk/1"), ProtocolSupport::Full)];
    App::new(protocols, request_response::Config::default())
}

fn used(of: ConnectionId) -> impl FnMut(&Event) -> Option<Result<u64, ()>> {
    move |event| match event {
        Event::CircuitUsed { connection, bytes } if *connection == of => Some(Ok(*bytes)),
        Event::Disconnected { connection, .. } if *connection == of => Some(Err(())),
        _ => None,
    }
}

async fn use_of<A: NetworkBehaviour>(peers: &mut [&mut Peer<A>], who: usize, of: ConnectionId) -> Vec<u64> {
    let mut told = vec![];
    while let Ok(bytes) = wait(peers, who, "use, or the end", used(of)).await {
        told.push(bytes);
    }
    told
}

#[tokio::test]
async fn every_tenth_of_the_bytes_is_told_until_the_relay_cuts() {
    const BYTES: u64 = 1 << 16;
    let limits = RelayLimits { bytes: BYTES, ..RelayLimits::default() };
    let config = kinfolk_core::Config { relay: limits, ..crate::harness::config() };
    let settings = kinfolk_shell::network::NetworkSettings::new(crate::harness::valid(config), "kinfolk/test");
    let mut r = crate::harness::in_memory_as(Keypair::generate_ed25519(), settings, app());
    let at = r.listen("/memory/0").await;
    r.run(Action::Advertise { address: at.clone() });
    let anyone = kinfolk_core::Audience::Anyone;
    r.run(Action::SetServices { relay: anyone, probes: kinfolk_core::Audience::Nobody });
    let mut a = in_memory_with(Keypair::generate_ed25519(), app());
    let mut b = in_memory_with(Keypair::generate_ed25519(), app());
    connect(&mut a, &mut r, &at).await;
    connect(&mut b, &mut r, &at).await;
    let command = crate::reservations::ask(&mut a, r.id(), &at);
    wait(&mut [&mut a, &mut r], 0, "a place", crate::reservations::accepted(command)).await;
    let (from, to) = (b.id(), a.id());
    b.dial(to, &[through(&r.id(), &at)]);
    let all = &mut [&mut b, &mut r, &mut a];
    let relayed = |peer: PeerId| {
        move |event: &Event| match event {
            Event::Connected { connection, peer: of, .. } if *of == peer => Some(*connection),
            _ => None,
        }
    };
    let here = wait(all, 0, "the circuit", relayed(to)).await;
    let there = wait(all, 2, "the circuit", relayed(from)).await;
    let id = kinfolk_shell::network::ids::peer_to_libp2p(&to);
    // Three messages and what goes with them in each tenth.
    for _ in 0..40 {
        all[0].network.app_mut().send_request(&id, vec![7; 1_900]);
        until(all, "the message to come, or the end", |peers| {
            let over = peers[2].events.iter().any(|event| matches!(event, Event::Disconnected { .. }));
            let arrived =
                |event: &request_response::Event<Vec<u8>, ()>| matches!(event, request_response::Event::Message { .. });
            (peers[2].app_events.drain(..).any(|event| arrived(&event)) || over).then_some(())
        })
        .await;
    }
    let (sent, received) = (use_of(all, 0, here).await, use_of(all, 2, there).await);
    for told in [&sent, &received] {
        // One step may be passed within a bigger one, but none is told twice.
        assert!((8..=10).contains(&told.len()), "{told:?}");
        assert!(
            told.iter().zip(told.iter().skip(1)).all(|(one, next)| one / (BYTES / 10) < next / (BYTES / 10)),
            "{told:?}"
        );
    }
    assert!(received.last().unwrap() <= &(BYTES + (1 << 14)), "what came through is what the relay let through");
}
