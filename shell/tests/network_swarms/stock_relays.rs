use std::time::Duration;

use futures::StreamExt;
use kinfolk_core::{Address, Event, PeerId};
use kinfolk_shell::network::{NetworkSettings, ids};
use libp2p::{
    Swarm, Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identity::Keypair,
    noise, relay,
    swarm::{self, SwarmEvent},
    yamux,
};

use crate::{
    harness::{Peer, in_memory_as, settings, until, wait},
    reservations::{accepted, ask, through},
};

/// rust-libp2p's relay with all its defaults, but less idle time than the usual 10 s: a second after the 10 in which a
/// relay waits for a wish.
async fn stock_relay() -> (PeerId, Address) {
    let key = Keypair::generate_ed25519();
    let id = key.public().to_peer_id();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(1));
    let behaviour = relay::Behaviour::new(id, relay::Config::default());
    let mut swarm = Swarm::new(transport, behaviour, id, config);
    swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(address.clone());
    let at = ids::address_to_core(&address);
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    (ids::peer_to_core(id), at)
}

/// A peer whose pings make the relay look at its connections often.
fn lively() -> Peer {
    let settings = NetworkSettings { ping_interval: Duration::from_secs(2), ..settings() };
    in_memory_as(Keypair::generate_ed25519(), settings, swarm::dummy::Behaviour)
}

fn connected(to: PeerId) -> impl FnMut(&Event) -> Option<()> {
    move |event| matches!(event, Event::Connected { peer, .. } if *peer == to).then_some(())
}

/// Longer than a stock peer keeps what nothing uses.
async fn a_while(peers: &mut [&mut Peer]) {
    let end = tokio::time::sleep(Duration::from_secs(14));
    tokio::select! {
        () = end => {}
        () = until(peers, "never", |_| None) => {}
    }
}

#[tokio::test]
async fn a_place_and_a_circuit_keep_a_stock_relays_connections() {
    let (relay, at) = stock_relay().await;
    let (mut a, mut b, mut c) = (lively(), lively(), lively());
    for peer in [&mut a, &mut b, &mut c] {
        peer.dial(relay, std::slice::from_ref(&at));
        peer.wait("the relay", connected(relay)).await;
    }
    let place = ask(&mut a, relay, &at);
    a.wait("a place", accepted(place)).await;
    let (from, to) = (b.id(), a.id());
    b.dial(to, &[through(&relay, &at)]);
    wait(&mut [&mut b, &mut a], 0, "the circuit", connected(to)).await;
    wait(&mut [&mut b, &mut a], 1, "the circuit", connected(from)).await;

    let all = &mut [&mut a, &mut b, &mut c];
    a_while(all).await;
    let ended = |peer: &mut Peer| peer.take(|event| matches!(event, Event::Disconnected { .. }).then_some(()));
    assert_eq!(ended(all[0]), None, "who has a place keeps the connection, and the circuit");
    assert_eq!(ended(all[1]), None, "so does who has dialled through it");
    assert_eq!(ended(all[2]), Some(()), "who does neither loses it");
    let lost = all[0].take(|event| matches!(event, Event::ReservationEnded { .. }).then_some(()));
    assert_eq!(lost, None);
}
