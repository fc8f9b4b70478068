use kinfolk_core::{Action, Address, Audience, Event, Identity, PeerId, RelayLimits, ReserveError};
use kinfolk_shell::network::NetworkSettings;
use libp2p::identity::Keypair;

use crate::{
    circuits::dial_through,
    harness::{Peer, config, connect, in_memory, peer, peer_with, until, valid, wait},
    reservations::{accepted, ask, ended, relay, relay_with, silent_relay, take_place},
};

const HOP: &str = "/libp2p/circuit/relay/0.2.0/hop";

fn identified(event: &Event) -> Option<Identity> {
    match event {
        Event::Identified { identity, .. } => Some((**identity).clone()),
        _ => None,
    }
}

async fn sees_relay(client: &mut Peer, relay: &mut Peer) -> bool {
    let identity = wait(&mut [client, relay], 0, "an introduction", identified).await;
    identity.protocols.iter().any(|protocol| protocol == HOP)
}

async fn serving(peers: &mut [&mut Peer], relay: usize, of: PeerId) -> (bool, u32) {
    wait(peers, relay, "news of what is relayed", |event| match event {
        Event::Serving { peer, reserved, circuits } if *peer == of => Some((*reserved, *circuits)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn strangers_see_no_relay_where_members_do() {
    let (mut r, at) = silent_relay(Keypair::generate_ed25519(), RelayLimits::default()).await;
    r.run(Action::SetServices { relay: Audience::Members, probes: Audience::Nobody });
    let (mut member, mut stranger) = (in_memory(), in_memory());
    r.run(Action::SetMember { peer: member.id(), member: true });
    take_place(&mut member, &mut r, &at).await;
    connect(&mut stranger, &mut r, &at).await;
    assert!(sees_relay(&mut member, &mut r).await);
    assert!(!sees_relay(&mut stranger, &mut r).await);
    let command = ask(&mut stranger, r.id(), &at);
    let error = wait(&mut [&mut stranger, &mut r], 0, "the refusal", ended(command)).await;
    assert_eq!(error, ReserveError::Unsupported);
    let (_, refusal) = dial_through(&mut [&mut stranger, &mut r, &mut member], &at).await.unwrap_err();
    assert_eq!(refusal.to_string(), "it is no relay, or does not relay for this node");

    // Who joins sees it at once, and who leaves no longer.
    r.run(Action::SetMember { peer: stranger.id(), member: true });
    assert!(sees_relay(&mut stranger, &mut r).await);
    let command = ask(&mut stranger, r.id(), &at);
    wait(&mut [&mut stranger, &mut r], 0, "a place", accepted(command)).await;
    r.run(Action::SetMember { peer: stranger.id(), member: false });
    assert!(!sees_relay(&mut stranger, &mut r).await);
    let command = ask(&mut stranger, r.id(), &at);
    wait(&mut [&mut stranger, &mut r], 0, "the refusal", |event| match event {
        Event::ReservationEnded { reservation, error } if *reservation == command => {
            assert_eq!(*error, ReserveError::Unsupported);
            Some(())
        }
        _ => None,
    })
    .await;
    // The member has noticed nothing.
    assert_eq!(member.take(identified), None);
    assert_eq!(member.take(|event| matches!(event, Event::ReservationEnded { .. }).then_some(())), None);
}

#[tokio::test]
async fn a_relay_that_stops_is_seen_no_more() {
    let (mut r, at) = relay().await;
    let mut a = in_memory();
    take_place(&mut a, &mut r, &at).await;
    assert!(sees_relay(&mut a, &mut r).await);
    r.run(Action::SetServices { relay: Audience::Nobody, probes: Audience::Nobody });
    assert!(!sees_relay(&mut a, &mut r).await);
    r.run(Action::SetServices { relay: Audience::Anyone, probes: Audience::Nobody });
    assert!(sees_relay(&mut a, &mut r).await);
}

#[tokio::test]
async fn a_full_relay_refuses_new_ones_and_renews_the_others() {
    let (mut r, at) = relay_with(RelayLimits { reservations: 1, ..RelayLimits::default() }).await;
    let (mut a, mut b) = (in_memory(), in_memory());
    take_place(&mut a, &mut r, &at).await;
    connect(&mut b, &mut r, &at).await;
    let command = ask(&mut b, r.id(), &at);
    let error = wait(&mut [&mut a, &mut r, &mut b], 2, "the refusal", ended(command)).await;
    assert_eq!(error, ReserveError::Full);
    assert_eq!(r.network.counters().get("relay.refused_full"), 1);
    let renewal = ask(&mut a, r.id(), &at);
    wait(&mut [&mut a, &mut r], 0, "the renewal", accepted(renewal)).await;
    // The place is free when its holder is gone.
    drop(a);
    let all = &mut [&mut b, &mut r];
    until(all, "the relay to notice", |peers| {
        (peers[1].network.counters().get("relay.reservations_closed") == 1).then_some(())
    })
    .await;
    let command = ask(all[0], all[1].id(), &at);
    wait(all, 0, "a place", accepted(command)).await;
}

#[tokio::test]
async fn one_network_gets_no_more_than_its_share() {
    let limits = RelayLimits { reservations_per_network: 1, ..RelayLimits::default() };
    let settings = NetworkSettings::new(valid(kinfolk_core::Config { relay: limits, ..config() }), "kinfolk/test");
    let mut r = peer_with(Keypair::generate_ed25519(), settings);
    let at = r.listen("/ip4/127.0.0.1/tcp/0").await;
    r.run(Action::Advertise { address: at.clone() });
    r.run(Action::SetServices { relay: Audience::Anyone, probes: Audience::Nobody });
    let (mut a, mut b) = (peer(), peer());
    take_place(&mut a, &mut r, &at).await;
    connect(&mut b, &mut r, &at).await;
    let command = ask(&mut b, r.id(), &at);
    let error = wait(&mut [&mut a, &mut r, &mut b], 2, "the refusal", ended(command)).await;
    assert_eq!(error, ReserveError::Full);
    assert_eq!(r.network.counters().get("relay.refused_network"), 1);
    let renewal = ask(&mut a, r.id(), &at);
    wait(&mut [&mut a, &mut r], 0, "the renewal", accepted(renewal)).await;
}

#[tokio::test]
async fn who_asks_too_often_is_refused_for_a_while() {
    let (mut r, at) = relay_with(RelayLimits { requests_per_peer: 3, ..RelayLimits::default() }).await;
    let (mut a, mut b) = (in_memory(), in_memory());
    take_place(&mut a, &mut r, &at).await;
    for _ in 0..2 {
        let command = ask(&mut a, r.id(), &at);
        wait(&mut [&mut a, &mut r], 0, "a renewal", accepted(command)).await;
    }
    let command = ask(&mut a, r.id(), &at);
    let error = wait(&mut [&mut a, &mut r], 0, "the refusal", ended(command)).await;
    assert_eq!(error, ReserveError::Full);
    assert_eq!(r.network.counters().get("relay.refused_too_often"), 1);
    take_place(&mut b, &mut r, &at).await;
}

#[tokio::test]
async fn circuits_are_counted_for_both_and_one_peer_gets_no_more_than_its_share() {
    let (mut r, at) = relay_with(RelayLimits { circuits_per_peer: 1, ..RelayLimits::default() }).await;
    let (mut a, mut b, mut c) = (in_memory(), in_memory(), in_memory());
    take_place(&mut a, &mut r, &at).await;
    take_place(&mut c, &mut r, &at).await;
    connect(&mut b, &mut r, &at).await;
    let (of_a, of_b, of_c) = (a.id(), b.id(), c.id());
    assert_eq!(serving(&mut [&mut a, &mut r], 1, of_a).await, (true, 0));
    assert_eq!(serving(&mut [&mut c, &mut r], 1, of_c).await, (true, 0));
    let (connection, _) = dial_through(&mut [&mut b, &mut r, &mut a], &at).await.unwrap();
    assert_eq!(serving(&mut [&mut b, &mut r, &mut a], 1, of_b).await, (false, 1));
    assert_eq!(serving(&mut [&mut b, &mut r, &mut a], 1, of_a).await, (true, 1));

    let (_, error) = dial_through(&mut [&mut b, &mut r, &mut c], &at).await.unwrap_err();
    assert_eq!(error.to_string(), "the relay has no room for another circuit");
    assert_eq!(r.network.counters().get("relay.circuits_denied"), 1);

    b.run(Action::Close { connection, peer: of_a });
    assert_eq!(serving(&mut [&mut b, &mut r, &mut a], 1, of_b).await, (false, 0));
    assert_eq!(serving(&mut [&mut b, &mut r, &mut a], 1, of_a).await, (true, 0));
    dial_through(&mut [&mut b, &mut r, &mut c], &at).await.unwrap();
    assert_eq!(serving(&mut [&mut b, &mut r, &mut c], 1, of_c).await, (true, 1));
    // Who goes takes its circuits along.
    drop(c);
    assert_eq!(serving(&mut [&mut b, &mut r], 1, of_b).await, (false, 1), "of the dial that was through");
    assert_eq!(serving(&mut [&mut b, &mut r], 1, of_b).await, (false, 0));
    let counters = r.network.counters();
    assert_eq!((counters.get("relay.circuits_opened"), counters.get("relay.circuits_closed")), (2, 2));
    let _: Address = at;
}
