use std::time::Duration;

use futures::StreamExt;
use kinfolk_core::{Action, Address, Audience, Event, PeerId};
use kinfolk_shell::network::{NetworkSettings, ids};
use libp2p::{
    Swarm, SwarmBuilder, Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identify,
    identity::Keypair,
    noise, relay,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    yamux,
};

use crate::{
    harness::{Peer, connect, in_memory_as, peer, settings, until, wait},
    reservations::{accepted, ask, through},
};

#[derive(NetworkBehaviour)]
struct Stock {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
}

/// rust-libp2p's relay client with all its defaults, which asks `relay` for a place, and is let run when it has one.
async fn stock_client(r: &mut Peer, at: &Address) -> PeerId {
    let key = Keypair::generate_ed25519();
    let id = key.public().to_peer_id();
    let behaviour = |key: &Keypair, relay| Stock {
        relay,
        identify: identify::Behaviour::new(identify::Config::new("/stock".to_owned(), key.public())),
    };
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(Default::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(behaviour)
        .unwrap()
        .build();
    swarm.listen_on(ids::address_to_libp2p(&through(&r.id(), at)).unwrap()).unwrap();
    let has_place = async {
        loop {
            if let SwarmEvent::NewListenAddr { .. } = swarm.select_next_some().await {
                return;
            }
        }
    };
    tokio::select! {
        () = has_place => {}
        () = r.wait("never", |_| None) => {}
    }
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    ids::peer_to_core(id)
}

#[tokio::test]
async fn our_relay_serves_stock_clients() {
    let mut r = peer();
    let at = r.listen("/ip4/127.0.0.1/tcp/0").await;
    r.run(Action::Advertise { address: at.clone() });
    r.run(Action::SetServices { relay: Audience::Anyone, probes: Audience::Nobody });
    let stock = stock_client(&mut r, &at).await;
    let mut b = peer();
    connect(&mut b, &mut r, &at).await;
    b.dial(stock, &[through(&r.id(), &at)]);
    wait(&mut [&mut b, &mut r], 0, "the circuit", connected(stock)).await;
    wait(&mut [&mut b, &mut r], 0, "an introduction through it", |event| match event {
        Event::Identified { peer, identity, .. } if *peer == stock => {
            assert_eq!((identity.protocol_version.as_str(), &identity.observed), ("/stock", &None));
            Some(())
        }
        _ => None,
    })
    .await;
    assert_eq!(
        b.take(|event| matches!(event, Event::Candidate { address, .. } if address.is_relayed()).then_some(())),
        None
    );
}

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
