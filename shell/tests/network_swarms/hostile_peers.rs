use std::time::Duration;

use futures::StreamExt;
use kinfolk_core::{Action, Address, DialError, Event, Identity, PeerId, Query};
use kinfolk_shell::network::ids;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, Transport,
    core::{PeerRecord, transport::MemoryTransport, upgrade::Version},
    identify,
    identity::Keypair,
    kad::{self, Quorum, Record, store::MemoryStore},
    noise,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    yamux,
};
use libp2p_swarm_test::SwarmExt;

use crate::{
    harness::{connect, failed, in_memory, in_memory_with, peer, until, wait},
    hash_table::{ask, route, server},
};

/// A peer that obeys nobody.
#[derive(NetworkBehaviour)]
struct Rogue {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

fn rogue() -> Swarm<Rogue> {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let config = kad::Config::new(StreamProtocol::new("/elohim/kad/1.0.0"));
    let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
    kad.set_mode(Some(kad::Mode::Server));
    let identify = identify::Behaviour::new(identify::Config::new("/rogue".to_owned(), key.public()));
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
    Swarm::new(transport, Rogue { kad, identify }, peer, config)
}

async fn rogue_listens(rogue: &mut Swarm<Rogue>) -> Address {
    rogue.listen_on("/memory/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = rogue.select_next_some().await {
            return ids::address_to_core(&address);
        }
    }
}

fn let_loose(rogue: Swarm<Rogue>) {
    tokio::spawn(rogue.loop_on_next());
}

fn key_of(peer: &PeerId) -> kad::RecordKey {
    kad::RecordKey::from([b"/pr/", peer.as_bytes()].concat())
}

fn signed(key: &Keypair, addresses: &[&str]) -> Vec<u8> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    PeerRecord::new_interop(key, addresses).unwrap().into_signed_envelope().into_protobuf_encoding()
}

#[tokio::test]
async fn a_server_keeps_no_forged_and_no_old_records() {
    let (mut s, at) = server().await;
    let key = Keypair::generate_ed25519();
    let old = signed(&key, &["/ip4/45.10.20.66/tcp/1"]);
    let mut a = in_memory_with(key, swarm::dummy::Behaviour);
    let mut b = in_memory();
    for client in [&mut a, &mut b] {
        connect(client, &mut s, &at).await;
        route(client, &s, &at).await;
    }
    let member = a.id();
    let home: Address = "/ip4/45.10.20.1/tcp/4001".parse().unwrap();
    // The second is newer than `old` for sure: it is one second ahead of the first.
    for _ in 0..2 {
        ask(&mut [&mut s, &mut a], 1, Query::Publish { addresses: vec![home.clone()] }).await.1.unwrap();
    }

    let mut rogue = rogue();
    let forged = signed(&Keypair::generate_ed25519(), &["/ip4/45.10.20.66/tcp/1"]);
    let server_id = ids::peer_to_libp2p(&s.id());
    rogue.behaviour_mut().kad.add_address(&server_id, ids::address_to_libp2p(&at).unwrap());
    rogue.dial(ids::address_to_libp2p(&at).unwrap()).unwrap();
    let no_record = b"not a record at all".to_vec();
    for (key, value) in [
        (key_of(&member), forged.clone()),
        (key_of(&member), no_record.clone()),
        (kad::RecordKey::from(b"/whatever".to_vec()), no_record),
        (key_of(&member), old),
    ] {
        rogue.behaviour_mut().kad.put_record(Record::new(key, value), Quorum::One).unwrap();
        // Each in its turn: the rogue's own store has one record per key.
        let ended = async {
            loop {
                if let SwarmEvent::Behaviour(RogueEvent::Kad(kad::Event::OutboundQueryProgressed {
                    result: kad::QueryResult::PutRecord(_),
                    ..
                })) = rogue.select_next_some().await
                {
                    return;
                }
            }
        };
        tokio::select! {
            () = ended => {}
            () = s.wait("never", |_| None) => {}
        }
    }
    assert_eq!(s.network.counters().get("refused.forged_records"), 3);
    assert_eq!(s.network.counters().get("refused.old_records"), 1);
    let_loose(rogue);
    let (found, _) = ask(&mut [&mut s, &mut b], 1, Query::Record { peer: member }).await;
    assert_eq!(found, [(member, vec![home])]);
}

#[tokio::test]
async fn a_lying_server_is_not_believed() {
    let key = Keypair::generate_ed25519();
    let member = ids::peer_to_core(key.public().to_peer_id());
    let old = signed(&key, &["/ip4/45.10.20.66/tcp/1"]);
    let forged = signed(&Keypair::generate_ed25519(), &["/ip4/45.10.20.66/tcp/1"]);
    let (mut honest, honest_at) = server().await;
    let mut a = in_memory_with(key, swarm::dummy::Behaviour);
    connect(&mut a, &mut honest, &honest_at).await;
    route(&mut a, &honest, &honest_at).await;
    let home: Address = "/ip4/45.10.20.1/tcp/4001".parse().unwrap();
    for _ in 0..2 {
        ask(&mut [&mut honest, &mut a], 1, Query::Publish { addresses: vec![home.clone()] }).await.1.unwrap();
    }
    for (lie, known) in [(forged, None), (old, Some("/ip4/45.10.20.66/tcp/1".parse().unwrap()))] {
        let mut rogue = rogue();
        let rogue_at = rogue_listens(&mut rogue).await;
        let rogue_id = ids::peer_to_core(*rogue.local_peer_id());
        rogue.behaviour_mut().kad.put_record(Record::new(key_of(&member), lie), Quorum::One).unwrap();
        let_loose(rogue);

        // Only the rogue is asked: a forged record is none, an old one is the best there is.
        let mut b = in_memory();
        b.run(Action::Route { peer: rogue_id, addresses: vec![rogue_at] });
        let (found, ended) = ask(&mut [&mut b], 0, Query::Record { peer: member }).await;
        let expected: Vec<_> = known.into_iter().map(|address: Address| (member, vec![address])).collect();
        assert_eq!((found, ended), (expected, Ok((1, 0))));
        assert_eq!(b.network.counters().get("kademlia.older_answers"), 0);

        // Both are asked: the last word is the newest.
        connect(&mut b, &mut honest, &honest_at).await;
        b.run(Action::Route { peer: honest.id(), addresses: vec![honest_at.clone()] });
        let (found, ended) = ask(&mut [&mut b, &mut honest], 0, Query::Record { peer: member }).await;
        assert_eq!(ended, Ok((2, 0)));
        assert_eq!(found.last(), Some(&(member, vec![home.clone()])), "{found:?}");
    }
}

#[tokio::test]
async fn an_older_answer_is_passed_over() {
    let key = Keypair::generate_ed25519();
    let member = ids::peer_to_core(key.public().to_peer_id());
    let old = signed(&key, &["/ip4/45.10.20.66/tcp/1"]);
    // The one who asks has the newest record itself: that is the first answer.
    let (mut b, b_at) = server().await;
    let mut a = in_memory_with(key, swarm::dummy::Behaviour);
    connect(&mut a, &mut b, &b_at).await;
    route(&mut a, &b, &b_at).await;
    let home: Address = "/ip4/45.10.20.1/tcp/4001".parse().unwrap();
    for _ in 0..2 {
        ask(&mut [&mut b, &mut a], 1, Query::Publish { addresses: vec![home.clone()] }).await.1.unwrap();
    }
    let mut rogue = rogue();
    let rogue_at = rogue_listens(&mut rogue).await;
    let peer = ids::peer_to_core(*rogue.local_peer_id());
    rogue.behaviour_mut().kad.put_record(Record::new(key_of(&member), old), Quorum::One).unwrap();
    let_loose(rogue);
    b.run(Action::Route { peer, addresses: vec![rogue_at] });
    let (found, ended) = ask(&mut [&mut b], 0, Query::Record { peer: member }).await;
    assert_eq!((found, ended), (vec![(member, vec![home])], Ok((1, 0))));
    assert_eq!(b.network.counters().get("kademlia.older_answers"), 1);
}

fn identified(event: &Event) -> Option<Identity> {
    match event {
        Event::Identified { identity, .. } => Some((**identity).clone()),
        _ => None,
    }
}

#[tokio::test]
async fn an_introduction_with_too_much_in_it_is_cut() {
    let mut a = in_memory();
    let at = a.listen("/memory/0").await;
    let mut rogue = rogue();
    for _ in 0..40 {
        rogue_listens(&mut rogue).await;
    }
    rogue.dial(ids::address_to_libp2p(&at).unwrap()).unwrap();
    let_loose(rogue);
    let identity = a.wait("the introduction", identified).await;
    assert_eq!((identity.addresses.len(), identity.cut), (32, 8));
    assert_eq!(a.network.counters().get("cut.addresses"), 8);
    assert_eq!(identity.protocol_version, "/rogue");
}

#[tokio::test]
async fn a_peer_that_talks_of_itself_all_the_time_is_not_listened_to_each_time() {
    let mut a = in_memory();
    let at = a.listen("/memory/0").await;
    let own = ids::peer_to_libp2p(&a.id());
    let mut rogue = rogue();
    rogue.dial(ids::address_to_libp2p(&at).unwrap()).unwrap();
    tokio::spawn(async move {
        let mut port = 0u16;
        loop {
            if let SwarmEvent::Behaviour(RogueEvent::Identify(
                identify::Event::Received { .. } | identify::Event::Pushed { .. },
            )) = rogue.select_next_some().await
            {
                port += 1;
                let address: Multiaddr = format!("/ip4/45.10.20.1/tcp/{port}").parse().unwrap();
                rogue.add_external_address(address);
                rogue.behaviour_mut().identify.push([own]);
            }
        }
    });
    let ignored = until(&mut [&mut a], "enough to be enough", |peers| {
        Some(peers[0].network.counters().get("identify.too_often")).filter(|ignored| *ignored >= 50)
    })
    .await;
    let told = a.events.iter().filter(|event| identified(event).is_some()).count();
    // One more for each 5 s that this takes.
    assert!((8..20).contains(&told), "{told} told, {ignored} ignored");
}

#[tokio::test]
async fn silent_strangers_at_the_door_are_few() {
    let mut a = peer();
    let at = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let target = std::net::SocketAddr::new(at.host_ip().unwrap(), at.port().unwrap());
    let mut silent = vec![];
    for _ in 0..40 {
        silent.push(tokio::net::TcpStream::connect(target).await.unwrap());
    }
    let limit = |event: &Event| match event {
        Event::InboundFailed { error: DialError::Limit, count, .. } => Some(*count),
        _ => None,
    };
    assert_eq!(a.wait("the limit", limit).await, 1);
    until(&mut [&mut a], "all to be turned away", |peers| {
        (peers[0].network.counters().get("refused.over_limit") == 8).then_some(())
    })
    .await;
    drop(silent);
    until(&mut [&mut a], "all to be gone", |peers| {
        (peers[0].network.counters().get("knocks.failed") == 32).then_some(())
    })
    .await;
    connect(&mut peer(), &mut a, &at).await;
}

#[tokio::test]
async fn one_peer_can_not_have_all_connections() {
    let mut a = in_memory();
    let at = a.listen("/memory/0").await;
    let mut rogue = rogue();
    let rogue_id = ids::peer_to_core(*rogue.local_peer_id());
    for _ in 0..9 {
        rogue.dial(ids::address_to_libp2p(&at).unwrap()).unwrap();
    }
    let_loose(rogue);
    let (from, error) = a
        .wait("one too many", |event| match event {
            Event::InboundFailed { peer, error, .. } => Some((*peer, error.clone())),
            _ => None,
        })
        .await;
    assert_eq!((from, error), (Some(rogue_id), DialError::Limit));
    let connected = |event: &&Event| matches!(event, Event::Connected { .. });
    assert_eq!(a.events.iter().filter(connected).count(), 8);

    // Nor do we make more than that ourselves.
    let (mut b, mut c) = (in_memory(), in_memory());
    let at = c.listen("/memory/0").await;
    for _ in 0..8 {
        connect(&mut b, &mut c, &at).await;
    }
    let ninth = b.dial(c.id(), &[at]);
    assert_eq!(wait(&mut [&mut b, &mut c], 0, "a refusal", failed(ninth)).await, (vec![], DialError::Limit));
}
