use std::time::Duration;

use kinfolk_core::{Action, Address, Event, Identity, PeerId, PingError};
use kinfolk_shell::network::ids;
use libp2p::{Swarm, Transport, core::upgrade::Version, identity::Keypair, noise, swarm, tcp, yamux};
use libp2p_swarm_test::SwarmExt;

use crate::harness::{Peer, connect, peer, peer_with, settings, until, wait};

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
    let stop = "/libp2p/circuit/relay/0.2.0/stop";
    let dial_back = "/libp2p/autonat/2/dial-back";
    assert_eq!(protocols, ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", dial_back, stop]);
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
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let (mut quick, mut slow) = (settings(), settings());
        quick.ping_interval = Duration::from_millis(20);
        quick.quic_ping_interval = Duration::from_millis(20);
        quick.ping_timeout = Duration::from_secs(600);
        // Its own pings would hide that it answers others' only when something else wakes it.
        slow.ping_interval = Duration::from_secs(600);
        slow.quic_ping_interval = Duration::from_secs(600);
        slow.quic_ping_heard = Duration::from_secs(600);
        let new = Keypair::generate_ed25519;
        let (mut a, mut b) = (peer_with(new(), quick), peer_with(new(), slow));
        let address = b.listen(listen).await;
        connect(&mut a, &mut b, &address).await;
        for _ in 0..8 {
            assert!(pinged(&mut a, &mut b).await.unwrap() > Duration::ZERO, "{listen}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_speaks_nothing_of_this_says_nothing() {
    let mut quick = settings();
    quick.ping_interval = Duration::from_millis(20);
    let mut a = peer_with(Keypair::generate_ed25519(), quick);
    let at = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let mute = mute_peer_dials(&at);
    let failed = |event: &Event| match event {
        Event::IdentifyFailed { peer, error, .. } => Some((*peer, error.clone())),
        _ => None,
    };
    let (peer, error) = a.wait("no introduction", failed).await;
    assert_eq!(peer, mute);
    assert!(!error.is_empty() && error.len() <= 200, "{error}");
    let unsupported = |event: &Event| match event {
        Event::Pinged { result: Err(error), .. } => Some(error.clone()),
        _ => None,
    };
    assert_eq!(a.wait("no ping", unsupported).await, PingError::Unsupported);
    until(&mut [&mut a], "more tries", |peers| {
        (peers[0].network.counters().get("pings.unsupported") >= 3).then_some(())
    })
    .await;
    assert_eq!(a.take(unsupported), None, "told once");
}

/// A peer that comes and speaks no protocol at all.
fn mute_peer_dials(at: &Address) -> PeerId {
    let key = Keypair::generate_ed25519();
    let transport = tcp::tokio::Transport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
    let peer = key.public().to_peer_id();
    let mut swarm = Swarm::new(transport, swarm::dummy::Behaviour, peer, config);
    swarm.dial(ids::address_to_libp2p(at).unwrap()).unwrap();
    tokio::spawn(swarm.loop_on_next());
    ids::peer_to_core(peer)
}
