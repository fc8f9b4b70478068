use std::time::Duration;

use kinfolk_core::{Action, Asker, Audience, DialError, Event, HeldId};
use kinfolk_shell::network::ids;
use libp2p::{
    Multiaddr, Swarm,
    autonat::{v1, v2},
    identify, request_response,
    swarm::{NetworkBehaviour, SwarmEvent},
};

use crate::{
    foreign::{actor, foreign, listen, meanwhile},
    harness::{Peer, peer, until},
};

const DIAL_REQUEST: &str = "/libp2p/autonat/2/dial-request";
/// A `DialRequest` for /ip4/127.0.0.1/tcp/80, with its length.
const ASKS_FOR_LOOPBACK: [u8; 22] = [21, 0x0a, 10, 0x0a, 8, 4, 127, 0, 0, 1, 6, 0, 80, 0x11, 1, 2, 3, 4, 5, 6, 7, 8];

#[derive(NetworkBehaviour)]
struct Client {
    identify: identify::Behaviour,
    autonat: v2::client::Behaviour,
}

/// A stock client of version 2, connected to a peer of ours. It listens on loopback, hears from others that it is
/// there, and has those probe it who serve: every 5 s.
async fn client_of(server: &mut Peer, at: &Multiaddr) -> Swarm<Client> {
    let mut client = foreign(|key| Client {
        identify: identify::Behaviour::new(identify::Config::new("/foreign".to_owned(), key.public())),
        autonat: v2::client::Behaviour::default(),
    });
    listen(&mut client, "/ip4/127.0.0.1/tcp/0").await;
    client.dial(at.clone()).unwrap();
    let offered = told_protocols(server, &mut client).await;
    assert!(!offered, "not before the core says so");
    client
}

/// Whether the next introduction of the peer of ours names the service.
async fn told_protocols(server: &mut Peer, client: &mut Swarm<Client>) -> bool {
    meanwhile(server, client, "an introduction", |event| match event {
        SwarmEvent::Behaviour(ClientEvent::Identify(identify::Event::Received { info, .. })) => {
            Some(info.protocols.iter().any(|protocol| protocol.as_ref() == DIAL_REQUEST))
        }
        _ => None,
    })
    .await
}

async fn server() -> (Peer, Multiaddr) {
    let mut server = peer();
    let at = server.listen("/ip4/127.0.0.1/tcp/0").await;
    (server, ids::address_to_libp2p(&at).unwrap())
}

fn serve(server: &mut Peer, probes: Audience) {
    server.run(Action::SetServices { relay: Audience::Nobody, probes });
}

/// Waits until the server wants to dial back.
async fn held(server: &mut Peer, client: &mut Swarm<Client>) -> HeldId {
    let id = ids::peer_to_core(*client.local_peer_id());
    loop {
        let found = server.take(|event| match event {
            Event::DialHeld { held, asker, peer } => Some((*held, *asker, *peer)),
            _ => None,
        });
        if let Some((held, asker, peer)) = found {
            assert_eq!((asker, peer), (Asker::Autonat, Some(id)));
            return held;
        }
        tokio::select! {
            _ = futures::StreamExt::next(client) => {}
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            () = server.wait("never", |_| None) => {}
        }
    }
}

async fn hears_no(server: &mut Peer, client: &mut Swarm<Client>) {
    let tested = meanwhile(server, client, "the verdict", |event| match event {
        SwarmEvent::Behaviour(ClientEvent::Autonat(event)) => Some(event.result.is_ok()),
        _ => None,
    })
    .await;
    assert!(!tested);
}

#[tokio::test]
async fn anyone_is_served_and_the_core_decides_about_each_dial() {
    let (mut s, at) = server().await;
    let mut client = client_of(&mut s, &at).await;
    serve(&mut s, Audience::Anyone);
    assert!(told_protocols(&mut s, &mut client).await, "those who are connected hear of it");
    let number = held(&mut s, &mut client).await;
    s.run(Action::Release { held: number, peer: None });
    hears_no(&mut s, &mut client).await;
    // This machine's loopback is never dialled for others.
    let error = s.take(|event| match event {
        Event::HeldFailed { held, error } if *held == number => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error, Some(DialError::Denied));
    let count = |name| s.network.counters().get(name);
    assert_eq!((count("probes.asked"), count("probes.served"), count("probes.refused")), (1, 1, 1));
    assert_eq!(count("probes.bytes"), 0, "it asks for the address that it comes from");
}

#[tokio::test]
async fn members_are_served_once_they_are_known_as_such() {
    let (mut s, at) = server().await;
    let mut client = client_of(&mut s, &at).await;
    serve(&mut s, Audience::Members);
    let peer = ids::peer_to_core(*client.local_peer_id());
    s.run(Action::SetMember { peer, member: true });
    assert!(told_protocols(&mut s, &mut client).await);
    let held = held(&mut s, &mut client).await;
    s.run(Action::Refuse { held, peer: None });
    hears_no(&mut s, &mut client).await;
    s.run(Action::SetMember { peer, member: false });
    assert!(!told_protocols(&mut s, &mut client).await);
}

#[tokio::test]
async fn an_older_client_on_the_home_network_is_refused_in_its_own_words() {
    let (mut s, at) = server().await;
    serve(&mut s, Audience::Anyone);
    let id = ids::peer_to_libp2p(&s.id());
    let mut client = foreign(|key| {
        let config = v1::Config { boot_delay: Duration::from_secs(1), use_connected: false, ..v1::Config::default() };
        let mut client = v1::Behaviour::new(key.public().to_peer_id(), config);
        client.add_server(id, None);
        client
    });
    listen(&mut client, "/ip4/127.0.0.1/tcp/0").await;
    client.dial(at).unwrap();
    meanwhile(&mut s, &mut client, "the answer", |event| match event {
        SwarmEvent::Behaviour(v1::Event::OutboundProbe(v1::OutboundProbeEvent::Error {
            error: v1::OutboundProbeError::Response(v1::ResponseError::DialRefused),
            ..
        })) => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(s.network.counters().get("probes.refused"), 1);
    assert_eq!(s.take(|event| matches!(event, Event::DialHeld { .. }).then_some(())), None);
}

#[tokio::test]
async fn a_flood_of_probes_is_bounded_and_counted() {
    const FLOOD: u64 = 200;
    let (mut s, at) = server().await;
    serve(&mut s, Audience::Anyone);
    let to = ids::peer_to_libp2p(&s.id());
    let mut flood = foreign(|_| actor(DIAL_REQUEST));
    flood.dial(at).unwrap();
    meanwhile(&mut s, &mut flood, "the connection", |event| {
        matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())
    })
    .await;
    for _ in 0..FLOOD {
        flood.behaviour_mut().send_request(&to, ASKS_FOR_LOOPBACK.to_vec());
    }
    let (mut heard, mut turned_away) = (0, 0);
    while heard + turned_away < FLOOD {
        let answered = meanwhile(&mut s, &mut flood, "what becomes of each", |event| match event {
            // It is asked for the data that it never sends.
            SwarmEvent::Behaviour(request_response::Event::Message { .. }) => Some(true),
            SwarmEvent::Behaviour(request_response::Event::OutboundFailure { .. }) => Some(false),
            _ => None,
        })
        .await;
        *(if answered { &mut heard } else { &mut turned_away }) += 1;
    }
    assert!(heard <= 12, "{heard}");
    let refused = until(&mut [&mut s], "the count", |peers| {
        let refused = peers[0].network.counters().get("probes.refused");
        (refused >= FLOOD - 12).then_some(refused)
    })
    .await;
    assert!(refused <= FLOOD - heard, "{refused} refused, {heard} heard");
    assert_eq!(s.take(|event| matches!(event, Event::DialHeld { .. }).then_some(())), None);
}
