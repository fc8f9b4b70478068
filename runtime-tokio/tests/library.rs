//! The library: a node inside a program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use futures::StreamExt;
use kinfolk::{
    Event, EventStream, Fed, Node, NodeBuilder, Running, StartError,
    core::Config,
    libp2p::{
        self, StreamProtocol,
        request_response::{self, Message, ProtocolSupport, cbor},
        swarm::{NetworkBehaviour, dummy},
    },
    peer_to_libp2p,
};

/// A node of this machine only, without anything on disk.
fn here() -> NodeBuilder<kinfolk::NoBehaviour> {
    Node::builder().ephemeral().listen("/ip4/127.0.0.1/tcp/0").mdns(false)
}

/// The first notice that `pick` takes.
async fn until<T>(events: &mut EventStream, pick: impl Fn(&Event) -> Option<T>) -> T {
    loop {
        match events.next().await.unwrap() {
            Fed::Item(told) => match pick(&told.notice) {
                Some(found) => return found,
                None => continue,
            },
            Fed::Lost(lost) => panic!("{lost} events were lost"),
        }
    }
}

async fn address<A: NetworkBehaviour>(node: &Running<A>) -> String {
    let listening =
        |event: &Event| if let Event::Listening { address } = event { Some(address.to_string()) } else { None };
    let address = until(&mut node.events(), listening).await;
    format!("{address}/p2p/{}", node.peer_id())
}

#[tokio::test]
async fn what_is_wrong_is_told_at_once() {
    let error = Node::builder()
        .network("a b")
        .listen("/ip4/127.0.0.1/tcp/x")
        .bootstrap("node.example")
        .pin("/ip4/192.0.2.1/tcp/1")
        .configure(|config: &mut Config| config.lifecycle.high_water = 1)
        .start()
        .await
        .unwrap_err();
    let StartError::Settings(text) = error else { panic!("{error:?}") };
    insta::assert_snapshot!(text.replace("; ", "\n"), @"
    listen: '/ip4/127.0.0.1/tcp/x': 'x' is no value for '/tcp'
    bootstrap: 'node.example': an address is a multiaddr and begins with '/', such as /ip4/192.0.2.1/tcp/4001
    pin: '/ip4/192.0.2.1/tcp/1' does not say whom it means: …/p2p/12D3KooW…
    network: must be 1 to 64 letters, digits, '-', '_' or '.'
    protocols.identify: must begin with '/', be at most 128 bytes, and hold no spaces: /elohim/kad/1.0.0
    protocols.kademlia: must begin with '/', be at most 128 bytes, and hold no spaces: /elohim/kad/1.0.0
    protocols.punch: must begin with '/', be at most 128 bytes, and hold no spaces: /elohim/kad/1.0.0
    protocols.sync: must begin with '/', be at most 128 bytes, and hold no spaces: /elohim/kad/1.0.0
    lifecycle.high_water: must be 2 to 100 000
    lifecycle.low_water: must be 1 to lifecycle.high_water
    say where the node keeps its identity: `.data_dir(..)`, or `.ephemeral()`
    ");
}

#[tokio::test]
async fn a_folder_has_one_node_at_a_time_which_keeps_its_identity() {
    let folder = tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap();
    let there = || Node::builder().data_dir(folder.path()).listen("/ip4/127.0.0.1/tcp/0").mdns(false);
    let first = there().start().await.unwrap();
    let peer = first.peer_id();
    let second = there().start().await.unwrap_err();
    assert!(matches!(&second, StartError::NodeRunning(text) if text.contains("in use")), "{second:?}");
    let handle = first.handle().clone();
    first.shutdown().await;
    assert!(handle.peers().await.is_err(), "a handle outlives its node, and says so");

    let again = there().start().await.unwrap();
    assert_eq!(again.peer_id(), peer);
    // Dropped, not shut down: it ends in the background.
    let handle = again.handle().clone();
    let mut events = again.events();
    drop(again);
    while events.next().await.is_some() {}
    assert!(handle.status().await.is_err());
    let after = loop {
        match there().start().await {
            Ok(node) => break node,
            Err(StartError::NodeRunning(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(after.peer_id(), peer);
    after.shutdown().await;
}

#[tokio::test]
async fn the_first_stream_of_events_begins_with_the_start() {
    let node = here().start().await.unwrap();
    // Whatever is asked, the node lives on meanwhile.
    while node.status().await.unwrap().listening.is_empty() {}
    assert!(address(&node).await.starts_with("/ip4/127.0.0.1/tcp/"));
    assert!(node.warnings().is_empty());
    node.shutdown().await;
}

/// Counts what passes by, and exchanges numbers.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Numbers {
    exchange: cbor::Behaviour<u64, u64>,
    nothing: dummy::Behaviour,
}

impl Numbers {
    fn new() -> Self {
        let protocol = (StreamProtocol::new("/numbers/1"), ProtocolSupport::Full);
        let exchange = cbor::Behaviour::new([protocol], request_response::Config::default());
        Self { exchange, nothing: dummy::Behaviour }
    }
}

/// The next message of the exchange.
async fn message(node: &mut Running<Numbers>) -> Message<u64, u64> {
    loop {
        let event = node.next_app_event().await.unwrap();
        if let Fed::Item(NumbersEvent::Exchange(request_response::Event::Message { message, .. })) = event {
            return message;
        }
        let sent = matches!(event, Fed::Item(NumbersEvent::Exchange(request_response::Event::ResponseSent { .. })));
        assert!(sent, "{event:?}");
    }
}

async fn numbers_are_exchanged() {
    let mut ada = here().behaviour(Numbers::new()).start().await.unwrap();
    let mut bob = here()
        .behaviour_with(|key| {
            assert!(key.public().to_peer_id().to_string().starts_with("12D3KooW"));
            Numbers::new()
        })
        .start()
        .await
        .unwrap();
    let mut of_bob = bob.events();
    bob.connect(address(&ada).await.parse().unwrap()).await.unwrap();
    let identified = |event: &Event| {
        if let Event::PeerIdentified { protocols, .. } = event { Some(protocols.clone()) } else { None }
    };
    let protocols = until(&mut of_bob, identified).await;
    assert!(protocols.iter().any(|protocol| protocol == "/numbers/1"), "{protocols:?}");

    let to = peer_to_libp2p(&ada.peer_id());
    bob.with_behaviour(move |app| app.exchange.send_request(&to, 20)).await.unwrap();
    let Message::Request { request, channel, .. } = message(&mut ada).await else { panic!("no request") };
    ada.with_behaviour(move |app| app.exchange.send_response(channel, request + 1)).await.unwrap().unwrap();
    let Message::Response { response, .. } = message(&mut bob).await else { panic!("no response") };
    assert_eq!(response, 21);
    bob.shutdown().await;
    ada.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_behaviour_runs_inside() {
    numbers_are_exchanged().await;
}

#[tokio::test(flavor = "current_thread")]
async fn one_thread_is_enough() {
    numbers_are_exchanged().await;
}

#[tokio::test]
async fn what_nobody_answers_comes_to_an_end() {
    let node = here().configure(|config| config.lifecycle.ask_timeout = Duration::from_secs(1)).start().await.unwrap();
    // Takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    let error = node.connect(to.parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "it took too long");
    node.shutdown().await;
}
