use std::time::Duration;

use kinfolk_core::{Action, Event, Identity};
use libp2p::identity::Keypair;

use crate::harness::{Peer, connect, peer, peer_with, settings, wait};

fn identified(event: &Event) -> Option<Identity> {
    match event {
        Event::Identified { identity, .. } => Some((**identity).clone()),
        _ => None,
    }
}

#[tokio::test]
async fn peers_introduce_themselves_and_push_changes() {
    let (mut a, mut b) = (peer(), peer());
    let address = b.listen("/ip4/127.0.0.1/tcp/0").await;
    connect(&mut a, &mut b, &address).await;
    let of_b = wait(&mut [&mut a, &mut b], 0, "b's introduction", identified).await;
    assert_eq!(of_b.agent, "kinfolk/test");
    assert_eq!(of_b.protocol_version, "/elohim/id/1.0.0");
    assert_eq!(of_b.addresses, [], "where we listen is nobody's business");
    assert_eq!(of_b.cut, 0);
    let mut protocols = of_b.protocols.clone();
    protocols.sort();
    assert_eq!(protocols, ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"]);
    let of_a = wait(&mut [&mut a, &mut b], 1, "a's introduction", identified).await;
    assert_eq!(of_a.observed, Some(address.clone()), "where it has dialled us");

    // What b begins to do, and where it can be reached, is pushed at once.
    b.run(Action::SetKademliaServer { server: true });
    let of_b = wait(&mut [&mut a, &mut b], 0, "the new protocol", |event| {
        identified(event).filter(|of_b| of_b.protocols.contains(&"/elohim/kad/1.0.0".to_owned()))
    })
    .await;
    assert_eq!(of_b.addresses, []);
    let public = "/ip4/45.10.20.1/tcp/4001".parse().unwrap();
    b.run(Action::Advertise { address: public });
    b.run(Action::PushIdentity);
    let of_b = wait(&mut [&mut a, &mut b], 0, "the new address", |event| {
        identified(event).filter(|of_b| !of_b.addresses.is_empty())
    })
    .await;
    assert_eq!(of_b.addresses, ["/ip4/45.10.20.1/tcp/4001".parse().unwrap()]);
    b.run(Action::SetKademliaServer { server: false });
    wait(&mut [&mut a, &mut b], 0, "the protocol to go", |event| {
        identified(event).filter(|of_b| !of_b.protocols.contains(&"/elohim/kad/1.0.0".to_owned()))
    })
    .await;
}

#[tokio::test]
async fn an_observed_address_is_a_candidate_and_never_advertised_by_itself() {
    let (mut a, mut b) = (peer(), peer());
    let own = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let address = b.listen("/ip4/127.0.0.1/tcp/0").await;
    connect(&mut a, &mut b, &address).await;
    let candidate = wait(&mut [&mut a, &mut b], 0, "a candidate", |event| match event {
        Event::Candidate { address, .. } => Some(address.clone()),
        _ => None,
    })
    .await;
    assert_eq!(candidate, own, "the dial left from the listener's port");
    let of_a = wait(&mut [&mut a, &mut b], 1, "a's introduction", identified).await;
    assert_eq!(of_a.addresses, []);
}

async fn pinged(a: &mut Peer, b: &mut Peer) -> Result<Duration, kinfolk_core::PingError> {
    wait(&mut [a, b], 0, "a ping", |event| match event {
        Event::Pinged { result, .. } => Some(result.clone()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn pings_come_back() {
    let mut quick = settings();
    quick.ping_interval = Duration::from_millis(50);
    let (mut a, mut b) = (peer_with(Keypair::generate_ed25519(), quick), peer());
    let address = b.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
    connect(&mut a, &mut b, &address).await;
    for _ in 0..3 {
        assert!(pinged(&mut a, &mut b).await.unwrap() > Duration::ZERO);
    }
}
