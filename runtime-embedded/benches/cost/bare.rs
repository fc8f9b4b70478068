//! What Kinfolk is held against: libp2p with the same transports and protocols, in its default settings, on the same kind of
//! runtime, and nothing that decides.

use std::{error::Error, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, autonat, identify,
    identity::Keypair,
    kad, mdns, noise, ping, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use tokio::sync::oneshot;

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: relay::client::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
    mdns: mdns::tokio::Behaviour,
    dcutr: libp2p_dcutr::Behaviour,
    probing: autonat::v2::client::Behaviour,
    probed: autonat::v2::server::Behaviour,
}

fn swarm() -> Result<Swarm<Behaviour>, Box<dyn Error>> {
    let swarm = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_dns()?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key, relay| {
            let peer = key.public().to_peer_id();
            Ok(Behaviour {
                relay,
                ping: ping::Behaviour::default(),
                identify: identify::Behaviour::new(identify::Config::new("/bare/1".to_owned(), key.public())),
                kad: kad::Behaviour::new(peer, kad::store::MemoryStore::new(peer)),
                mdns: mdns::tokio::Behaviour::new(mdns::Config::default(), peer)?,
                dcutr: libp2p_dcutr::Behaviour::new(peer),
                probing: autonat::v2::client::Behaviour::default(),
                probed: autonat::v2::server::Behaviour::default(),
            })
        })?
        // A connection that nobody uses stays, as Kinfolk's do.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(1 << 30)))
        .build();
    Ok(swarm)
}

/// The process of its own that is measured: prints where it listens.
#[expect(clippy::print_stdout, reason = "the benchmark reads it")]
pub(crate) async fn listen() -> Result<(), Box<dyn Error>> {
    let mut swarm = swarm()?;
    for address in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        swarm.listen_on(address.parse()?)?;
    }
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            println!("{address}/p2p/{}", swarm.local_peer_id());
        }
    }
}

/// A peer that keeps its connection to `address` until this is dropped.
pub(crate) async fn peer(address: Multiaddr, of: PeerId) -> Result<oneshot::Sender<()>, Box<dyn Error>> {
    let mut swarm = swarm()?;
    swarm.dial(address)?;
    while !swarm.is_connected(&of) {
        swarm.next().await;
    }
    let (alive, ended) = oneshot::channel();
    tokio::spawn(async move {
        let run = async {
            loop {
                swarm.next().await;
            }
        };
        tokio::select! { () = run => {}, _ = ended => {} }
    });
    Ok(alive)
}
