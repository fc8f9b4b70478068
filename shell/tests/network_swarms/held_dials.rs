use kinfolk_core::{Action, Address, Asker, DialError, Event, HeldId, Origin, PeerId, Query, Refusal};
use kinfolk_shell::network::ids;
use libp2p::{
    StreamProtocol,
    identity::Keypair,
    request_response::{self, ProtocolSupport, cbor},
};

use crate::{
    harness::{Peer, connect, in_memory, in_memory_with, peer_of, until, wait},
    hash_table::{answer, route, server},
};

type App = cbor::Behaviour<String, String>;

fn app() -> App {
    let protocols = [(StreamProtocol::new("/chat/1"), ProtocolSupport::Full)];
    App::new(protocols, request_response::Config::default())
}

fn chatting() -> Peer<App> {
    in_memory_with(Keypair::generate_ed25519(), app())
}

fn held(event: &Event) -> Option<(HeldId, Asker, Option<PeerId>)> {
    match event {
        Event::DialHeld { held, asker, peer } => Some((*held, *asker, *peer)),
        _ => None,
    }
}

fn held_failed(number: HeldId) -> impl FnMut(&Event) -> Option<DialError> {
    move |event| match event {
        Event::HeldFailed { held, error } if *held == number => Some(error.clone()),
        Event::Connected { .. } => panic!("connected after all: {event:?}"),
        _ => None,
    }
}

#[tokio::test]
async fn a_look_up_waits_for_the_core() {
    let (mut s, at) = server().await;
    let mut a = in_memory();
    route(&mut a, &s, &at).await;
    let near = a.id();
    let query = a.run(Action::Query(Query::LookUp { near }));
    let (number, asker, peer) = wait(&mut [&mut a, &mut s], 0, "the wish to dial", held).await;
    assert_eq!((asker, peer), (Asker::Kademlia, Some(s.id())));
    a.run(Action::Release { held: number, peer });
    let origin = wait(&mut [&mut a, &mut s], 0, "the connection", |event| match event {
        Event::Connected { origin, peer, .. } => Some((*origin, *peer)),
        _ => None,
    })
    .await;
    assert_eq!(origin, (Origin::Held(number), s.id()));
    let (found, ended) = answer(&mut [&mut a, &mut s], 0, query).await;
    assert_eq!((found, ended), (vec![(s.id(), vec![])], Ok((1, 0))));
    // Answered once.
    let again = a.run(Action::Release { held: number, peer });
    let refused = |event: &Event| match event {
        Event::Refused { command, refusal } if *command == again => Some(refusal.clone()),
        _ => None,
    };
    assert_eq!(a.wait("a refusal", refused).await, Refusal::Gone);
}

#[tokio::test]
async fn a_look_up_is_told_no() {
    let (s, at) = server().await;
    let mut a = in_memory();
    route(&mut a, &s, &at).await;
    let near = a.id();
    let query = a.run(Action::Query(Query::LookUp { near }));
    let (held, _, peer) = a.wait("the wish to dial", held).await;
    a.run(Action::Refuse { held, peer });
    assert_eq!(answer(&mut [&mut a], 0, query).await, (vec![], Ok((0, 1))));
}

#[tokio::test]
async fn refusing_a_dial_to_somebody_who_came_meanwhile_loses_nothing() {
    let (mut s, at) = server().await;
    let mut a = in_memory();
    route(&mut a, &s, &at).await;
    let near = a.id();
    let query = a.run(Action::Query(Query::LookUp { near }));
    let (held, _, peer) = a.wait("the wish to dial", held).await;
    connect(&mut a, &mut s, &at).await;
    a.run(Action::Refuse { held, peer });
    assert_eq!(answer(&mut [&mut a, &mut s], 0, query).await.1, Ok((1, 0)));
}

#[tokio::test]
async fn a_dropped_query_is_never_answered() {
    let (s, at) = server().await;
    let mut a = in_memory();
    route(&mut a, &s, &at).await;
    let near = a.id();
    let dropped = a.run(Action::Query(Query::LookUp { near }));
    let (first, _, peer) = a.wait("the wish to dial", held).await;
    a.run(Action::CancelQuery { query: dropped });
    a.run(Action::Refuse { held: first, peer });
    let next = a.run(Action::Query(Query::LookUp { near }));
    let (second, _, peer) = a.wait("the next wish", held).await;
    a.run(Action::Refuse { held: second, peer });
    answer(&mut [&mut a], 0, next).await.1.unwrap();
    assert_eq!(a.take(|event| matches!(event, Event::QueryEnded { .. }).then_some(())), None);
}

#[tokio::test]
async fn a_released_dial_that_fails_says_so() {
    let (s, at) = server().await;
    let mut a = in_memory();
    route(&mut a, &s, &at).await;
    drop(s);
    let near = a.id();
    let query = a.run(Action::Query(Query::LookUp { near }));
    let (number, _, peer) = a.wait("the wish to dial", held).await;
    a.run(Action::Release { held: number, peer });
    a.wait("the failure", held_failed(number)).await;
    assert_eq!(answer(&mut [&mut a], 0, query).await, (vec![], Ok((0, 1))));
}

#[tokio::test]
async fn an_applications_dial_waits_too_and_finds_what_the_core_has_routed() {
    let (mut a, mut b) = (chatting(), chatting());
    let at = b.listen("/memory/0").await;
    a.run(Action::Route { peer: b.id(), addresses: vec![at] });
    let to = ids::peer_to_libp2p(&b.id());
    a.network.app_mut().send_request(&to, "hello".to_owned());
    let (number, asker, peer) = wait(&mut [&mut a, &mut b], 0, "the wish to dial", |event| {
        held(event).filter(|(_, asker, _)| *asker == Asker::Application)
    })
    .await;
    assert_eq!((asker, peer), (Asker::Application, Some(b.id())));
    a.run(Action::Release { held: number, peer });
    let from = ids::peer_to_libp2p(&a.id());
    until(&mut [&mut a, &mut b], "the message", |peers| {
        peers[1].app_events.pop_front().map(|event| match event {
            request_response::Event::Message {
                peer,
                message: request_response::Message::Request { request, .. },
                ..
            } => assert_eq!((peer, request.as_str()), (from, "hello")),
            other => panic!("{other:?}"),
        })
    })
    .await;
}

#[tokio::test]
async fn the_guard_stops_an_applications_dial_into_the_home_network() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut a = peer_of(app());
    let nobody = in_memory().id();
    let inside = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let to = ids::peer_to_libp2p(&nobody);
    a.network.app_mut().send_request_with_addresses(&to, "GET /".to_owned(), vec![inside]);
    let (number, _, peer) = a.wait("the wish to dial", held).await;
    assert_eq!(peer, Some(nobody));
    a.run(Action::Release { held: number, peer });
    assert_eq!(a.wait("the guard", held_failed(number)).await, DialError::Denied);
    assert_eq!(a.network.counters().get("refused.by_guard"), 1);
    // While the core itself dials there, it may; the listener sees that one only.
    let address: Address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    a.dial(nobody, &[address]);
    let accepted = tokio::select! {
        accepted = listener.accept() => accepted.unwrap(),
        _ = a.wait("never", |_| None::<()>) => unreachable!(),
    };
    drop(accepted);
}

#[tokio::test]
async fn the_oldest_of_too_many_is_refused() {
    let mut a = chatting();
    let peers: Vec<PeerId> = (0..66).map(|_| ids::peer_to_core(libp2p::PeerId::random())).collect();
    for peer in &peers {
        a.network.app_mut().send_request(&ids::peer_to_libp2p(peer), String::new());
    }
    for number in 1..=66 {
        let (held, _, peer) = a.wait("a wish", held).await;
        assert_eq!((held, peer), (HeldId(number), Some(peers[number as usize - 1])));
    }
    for number in 1..=2 {
        assert_eq!(a.wait("a refusal", held_failed(HeldId(number))).await, DialError::Limit);
    }
    assert_eq!(a.take(|event| matches!(event, Event::HeldFailed { .. }).then_some(())), None);
    // The application hears of it as of any failed dial.
    until(&mut [&mut a], "the application", |peers| (peers[0].app_events.len() == 2).then_some(())).await;
}
