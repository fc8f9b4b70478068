use std::time::Duration;

use kinfolk_core::{
    Action, Address, Audience, CircuitLimit, CommandId, Config, Event, PeerId, Refusal, RelayLimits, ReserveError,
};
use kinfolk_shell::network::NetworkSettings;
use libp2p::{
    identity::Keypair,
    swarm::{NetworkBehaviour, dummy},
};

use crate::harness::{Peer, config, connect, in_memory, in_memory_as, until, valid, wait};

/// A relay, for nobody so far, and where it is.
pub(crate) async fn silent_relay(key: Keypair, limits: RelayLimits) -> (Peer, Address) {
    let config = Config { relay: limits, ..config() };
    let mut relay = in_memory_as(key, NetworkSettings::new(valid(config), "kinfolk/test"), dummy::Behaviour);
    let address = relay.listen("/memory/0").await;
    relay.run(Action::Advertise { address: address.clone() });
    (relay, address)
}

/// A relay for anyone, and where it is.
pub(crate) async fn relay_with(limits: RelayLimits) -> (Peer, Address) {
    let (mut relay, address) = silent_relay(Keypair::generate_ed25519(), limits).await;
    relay.run(Action::SetServices { relay: Audience::Anyone, probes: Audience::Nobody });
    (relay, address)
}

pub(crate) async fn relay() -> (Peer, Address) {
    relay_with(RelayLimits::default()).await
}

pub(crate) fn through(relay: &PeerId, at: &Address) -> Address {
    format!("{at}/p2p/{relay}/p2p-circuit").parse().unwrap()
}

pub(crate) fn accepted(command: CommandId) -> impl FnMut(&Event) -> Option<Option<CircuitLimit>> {
    move |event| match event {
        Event::Reserved { reservation, limit, .. } if *reservation == command => Some(*limit),
        Event::ReservationEnded { reservation, error } if *reservation == command => panic!("refused: {error:?}"),
        _ => None,
    }
}

pub(crate) fn ended(command: CommandId) -> impl FnMut(&Event) -> Option<ReserveError> {
    move |event| match event {
        Event::ReservationEnded { reservation, error } if *reservation == command => Some(error.clone()),
        Event::ReservedAt { reservation, .. } if *reservation == command => panic!("accepted after all"),
        _ => None,
    }
}

/// Has `client` ask `relay` for a place.
pub(crate) fn ask<A: NetworkBehaviour>(client: &mut Peer<A>, relay: PeerId, at: &Address) -> CommandId {
    client.run(Action::Reserve { relay, address: at.clone() })
}

/// Connects `client` to `relay` and waits until it has a place there.
pub(crate) async fn take_place(client: &mut Peer, relay: &mut Peer, at: &Address) -> CommandId {
    connect(client, relay, at).await;
    let command = ask(client, relay.id(), at);
    wait(&mut [client, relay], 0, "a place", accepted(command)).await;
    let expected = through(&relay.id(), at);
    wait(&mut [client, relay], 0, "the place's address", |event| match event {
        Event::ReservedAt { reservation, address } if *reservation == command => {
            assert_eq!(*address, expected);
            Some(())
        }
        _ => None,
    })
    .await;
    command
}

#[tokio::test]
async fn a_relay_keeps_a_place_and_both_sides_know() {
    let (mut r, at) = relay().await;
    let mut a = in_memory();
    connect(&mut a, &mut r, &at).await;
    let command = ask(&mut a, r.id(), &at);
    let (limit, lasts) = wait(&mut [&mut a, &mut r], 0, "a place", |event| match event {
        Event::Reserved { reservation, limit, lasts } if *reservation == command => Some((*limit, *lasts)),
        _ => None,
    })
    .await;
    assert_eq!(limit, Some(CircuitLimit { duration: Some(Duration::from_secs(86_400)), bytes: Some(1 << 30) }));
    assert!((3_500..=3_600).contains(&lasts.unwrap().as_secs()), "{lasts:?}");
    let place = through(&r.id(), &at);
    wait(&mut [&mut a, &mut r], 0, "the place's address", |event| match event {
        Event::ReservedAt { reservation, address } => {
            assert_eq!((*reservation, address), (command, &place));
            Some(())
        }
        _ => None,
    })
    .await;
    let client = a.id();
    wait(&mut [&mut a, &mut r], 1, "the relay to say so", |event| match event {
        Event::Serving { peer, reserved, circuits } => {
            assert_eq!((*peer, *reserved, *circuits), (client, true, 0));
            Some(())
        }
        _ => None,
    })
    .await;
    assert_eq!(r.network.counters().get("relay.reservations_accepted"), 1);
    // It is no listener, and an own address only when the core says so.
    assert_eq!(a.take(|event| matches!(event, Event::Listening { .. }).then_some(())), None);
    assert_eq!(a.network.counters().get("addresses.confirmed"), 0);
}

#[tokio::test]
async fn a_second_command_renews_the_place_and_takes_its_name() {
    let (mut r, at) = relay().await;
    let mut a = in_memory();
    let first = take_place(&mut a, &mut r, &at).await;
    for _ in 0..2 {
        let again = ask(&mut a, r.id(), &at);
        wait(&mut [&mut a, &mut r], 0, "a renewal", accepted(again)).await;
    }
    assert_eq!(r.network.counters().get("relay.reservations_renewed"), 2);
    assert_eq!(a.take(|event| matches!(event, Event::ReservationEnded { .. }).then_some(())), None);
    // The first name means nothing any more.
    let refused = a.run(Action::Unreserve { reservation: first });
    let refusal = a.wait("a refusal", |event| match event {
        Event::Refused { command, refusal } if *command == refused => Some(refusal.clone()),
        _ => None,
    });
    assert_eq!(refusal.await, Refusal::Gone);
}

#[tokio::test]
async fn two_commands_at_once_are_one_place() {
    let (mut r, at) = relay().await;
    let mut a = in_memory();
    connect(&mut a, &mut r, &at).await;
    ask(&mut a, r.id(), &at);
    let second = ask(&mut a, r.id(), &at);
    wait(&mut [&mut a, &mut r], 0, "a place", accepted(second)).await;
    assert_eq!(a.take(|event| matches!(event, Event::ReservationEnded { .. }).then_some(())), None);
}

#[tokio::test]
async fn the_place_is_lost_with_the_connection_and_had_again_after_a_restart() {
    let key = Keypair::generate_ed25519();
    for _ in 0..2 {
        let (mut r, at) = silent_relay(key.clone(), RelayLimits::default()).await;
        r.run(Action::SetServices { relay: Audience::Anyone, probes: Audience::Nobody });
        let mut a = in_memory();
        let command = take_place(&mut a, &mut r, &at).await;
        drop(r);
        let lost = a.wait("the loss", |event| match event {
            Event::ReservationEnded { reservation, error } => Some((*reservation, error.clone())),
            _ => None,
        });
        assert_eq!(lost.await, (command, ReserveError::ConnectionLost));
    }
    // The same client, too.
    let (mut first, at) = relay().await;
    let mut a = in_memory();
    take_place(&mut a, &mut first, &at).await;
    drop(first);
    a.wait("the loss", |event| matches!(event, Event::ReservationEnded { .. }).then_some(())).await;
    let (mut second, at) = relay().await;
    take_place(&mut a, &mut second, &at).await;
}

#[tokio::test]
async fn a_place_that_the_relay_ends_by_closing_the_connection_is_lost() {
    let (mut r, at) = relay().await;
    let mut a = in_memory();
    let command = take_place(&mut a, &mut r, &at).await;
    let client = a.id();
    let connection = r.take(|event| match event {
        Event::Connected { connection, .. } => Some(*connection),
        _ => None,
    });
    // The harness has taken the event; the number is the first one.
    let connection = connection.unwrap_or(kinfolk_core::ConnectionId(1));
    r.run(Action::Close { connection, peer: client });
    let all = &mut [&mut a, &mut r];
    let error = wait(all, 0, "the loss", |event| match event {
        Event::ReservationEnded { reservation, error } if *reservation == command => Some(error.clone()),
        _ => None,
    })
    .await;
    assert_eq!(error, ReserveError::ConnectionLost);
    wait(all, 1, "the relay to know", |event| match event {
        Event::Serving { reserved: false, circuits: 0, .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(r.network.counters().get("relay.reservations_closed"), 1);
}

#[tokio::test]
async fn a_place_is_given_back() {
    let (mut r, at) = relay().await;
    let mut a = in_memory();
    let command = take_place(&mut a, &mut r, &at).await;
    a.run(Action::Unreserve { reservation: command });
    assert_eq!(wait(&mut [&mut a, &mut r], 0, "the end", ended(command)).await, ReserveError::Ours);
    // And taken again.
    let again = ask(&mut a, r.id(), &at);
    wait(&mut [&mut a, &mut r], 0, "a place", accepted(again)).await;
}

#[tokio::test]
async fn a_request_that_is_given_up_at_once_is_answered_and_what_comes_after_harms_nobody() {
    let (mut r, at) = relay().await;
    let mut a = in_memory();
    connect(&mut a, &mut r, &at).await;
    let command = ask(&mut a, r.id(), &at);
    a.run(Action::Unreserve { reservation: command });
    assert_eq!(wait(&mut [&mut a, &mut r], 0, "the end", ended(command)).await, ReserveError::Ours);
    until(&mut [&mut a, &mut r], "the relay's answer", |peers| {
        (peers[0].network.counters().get("relays.late_answers") == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_connection_the_answer_comes_at_once() {
    let (r, at) = relay().await;
    let mut a = in_memory();
    let command = ask(&mut a, r.id(), &at);
    assert_eq!(a.wait("the answer", ended(command)).await, ReserveError::ConnectionLost);
    assert_eq!(a.take(|event| matches!(event, Event::DialHeld { .. }).then_some(())), None, "it does not dial itself");
}

#[tokio::test]
async fn who_does_not_relay_is_no_relay() {
    let (mut r, at) = silent_relay(Keypair::generate_ed25519(), RelayLimits::default()).await;
    let mut a = in_memory();
    connect(&mut a, &mut r, &at).await;
    let command = ask(&mut a, r.id(), &at);
    assert_eq!(wait(&mut [&mut a, &mut r], 0, "the refusal", ended(command)).await, ReserveError::Unsupported);
}

#[tokio::test]
async fn a_relay_that_knows_no_address_of_its_own_is_no_use() {
    let (mut r, at) = relay().await;
    let mut a = in_memory();
    connect(&mut a, &mut r, &at).await;
    r.run(Action::Withdraw { address: at.clone() });
    // A circuit through another relay is none, though it is told to others.
    let elsewhere = through(&a.id(), &"/ip4/45.10.20.1/tcp/4001".parse().unwrap());
    r.run(Action::Advertise { address: elsewhere });
    let command = ask(&mut a, r.id(), &at);
    assert_eq!(wait(&mut [&mut a, &mut r], 0, "the refusal", ended(command)).await, ReserveError::Malformed);
}
