//! Servers that are offered, and what dials back. Without the guard: here this machine is the internet.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one event among all")]

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kinfolk_core::Audience;
use libp2p::{
    Swarm,
    autonat::{v1, v2},
    swarm::SwarmEvent,
};
use libp2p_swarm_test::SwarmExt;

use super::{
    super::{ids, members::Audiences},
    serving::{Offered, Served, Terms},
    *,
};

const PATIENCE: Duration = Duration::from_secs(60);

type ServerV2 = Offered<v2::server::Behaviour>;
type ServerV1 = Offered<v1::Behaviour>;

fn anywhere(_: &Multiaddr) -> bool {
    true
}

fn offer(terms: &Terms, probes: Audience) {
    terms.services.set(Audiences { relay: Audience::Nobody, probes });
}

/// A server of version 2, and a client that has dialled it.
struct Pair {
    server: Swarm<ServerV2>,
    client: Swarm<Reach>,
    /// Where the client listens.
    at: Multiaddr,
    /// How often the server has said so.
    refused: usize,
}

impl Pair {
    async fn new(terms: &Terms, may_dial: serving::Where) -> Self {
        Self::with(terms, |stock, terms| Offered::new(stock, terms, may_dial)).await
    }

    async fn with(terms: &Terms, offer: impl FnOnce(v2::server::Behaviour, Terms) -> ServerV2) -> Self {
        let offered = offer(v2::server::Behaviour::default(), terms.clone());
        let mut server = Swarm::new_ephemeral_tokio(move |_| offered);
        server.listen().with_tcp_addr_external().await;
        let mut client = Swarm::new_ephemeral_tokio(|_| Reach::default());
        let (_, at) = client.listen().with_tcp_addr_external().await;
        client.connect(&mut server).await;
        Self { server, client, at, refused: 0 }
    }

    /// One event of either; the client's, if it is one of its behaviour.
    async fn step(&mut self) -> Option<Told> {
        let step = async {
            tokio::select! {
                event = self.client.select_next_some() => match event {
                    SwarmEvent::Behaviour(told) => Some(told),
                    _ => None,
                },
                event = self.server.select_next_some() => {
                    self.refused += usize::from(matches!(event, SwarmEvent::Behaviour(Served::Count("probes.refused"))));
                    None
                }
            }
        };
        tokio::time::timeout(PATIENCE, step).await.expect("something happens in time")
    }

    async fn probe(&mut self, address: &Multiaddr) -> ProbeVerdict {
        let id = *self.server.local_peer_id();
        self.client.behaviour_mut().probe(CommandId(1), id, address.clone());
        loop {
            if let Some(Told::Probed { verdict, .. }) = self.step().await {
                return verdict;
            }
        }
    }

    async fn refused(&mut self, times: usize) {
        while self.refused < times {
            self.step().await;
        }
        assert_eq!(self.refused, times);
    }
}

/// Runs both until the first one says what is looked for.
async fn heard<A: NetworkBehaviour, B: NetworkBehaviour, T>(
    a: &mut Swarm<A>,
    b: &mut Swarm<B>,
    mut find: impl FnMut(SwarmEvent<A::ToSwarm>) -> Option<T>,
) -> T {
    let run = async {
        loop {
            tokio::select! {
                event = a.select_next_some() => if let Some(found) = find(event) { return found },
                _ = b.select_next_some() => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, run).await.expect("it is said in time")
}

async fn closed_port() -> Multiaddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap()
}

#[tokio::test]
async fn whom_it_is_for_may_change_while_connections_stand() {
    let terms = Terms::default();
    let mut pair = Pair::new(&terms, anywhere).await;
    let at = pair.at.clone();
    assert_eq!(pair.probe(&at).await, ProbeVerdict::NotSupported);
    offer(&terms, Audience::Anyone);
    assert_eq!(pair.probe(&at).await, ProbeVerdict::Reachable);
    assert_eq!(pair.probe(&closed_port().await).await, ProbeVerdict::DialFailed);
    offer(&terms, Audience::Members);
    assert_eq!(pair.probe(&at).await, ProbeVerdict::NotSupported);
    terms.members.set(*pair.client.local_peer_id(), true);
    assert_eq!(pair.probe(&at).await, ProbeVerdict::Reachable);
    offer(&terms, Audience::Nobody);
    assert_eq!(pair.probe(&at).await, ProbeVerdict::NotSupported);
    pair.refused(0).await;
}

#[tokio::test]
async fn no_packet_goes_where_the_server_may_not_dial() {
    let terms = Terms::default();
    offer(&terms, Audience::Anyone);
    let mut pair = Pair::new(&terms, ids::on_the_internet).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let addresses = [
        pair.at.to_string(),
        format!("/ip4/127.0.0.1/tcp/{port}"),
        format!("/ip4/45.10.20.1/tcp/1/ip4/127.0.0.1/tcp/{port}"),
        format!("/dns4/localhost/tcp/{port}"),
        format!("/ip6/::ffff:127.0.0.1/tcp/{port}"),
        "/ip4/192.168.1.1/tcp/80".to_owned(),
    ];
    for address in &addresses {
        assert_eq!(pair.probe(&address.parse().unwrap()).await, ProbeVerdict::DialFailed, "{address}");
    }
    pair.refused(addresses.len()).await;
    assert!(listener.accept().now_or_never().is_none());
}

/// As a NAT that drops packets does.
#[tokio::test]
async fn an_address_that_never_answers_is_said_to_be_shut_while_somebody_listens() {
    let terms = Terms::default();
    offer(&terms, Audience::Anyone);
    let patience = Duration::from_millis(500);
    let mut pair = Pair::with(&terms, |stock, terms| Offered::new(stock, terms, anywhere).within(patience)).await;
    // Taken by the system, and never spoken to.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    assert_eq!(pair.probe(&silent.parse().unwrap()).await, ProbeVerdict::DialFailed);
    let at = pair.at.clone();
    assert_eq!(pair.probe(&at).await, ProbeVerdict::Reachable);
}

#[tokio::test]
async fn who_asks_too_often_is_not_heard_and_is_counted() {
    let terms = Terms::default();
    offer(&terms, Audience::Anyone);
    let mut pair = Pair::new(&terms, anywhere).await;
    let at = pair.at.clone();
    for _ in 0..12 {
        assert_eq!(pair.probe(&at).await, ProbeVerdict::Reachable);
    }
    let verdict = pair.probe(&at).await;
    assert!(matches!(verdict, ProbeVerdict::Broken(_)), "not a word about the address: {verdict:?}");
    pair.refused(1).await;
}

fn server_v1(terms: &Terms) -> Swarm<ServerV1> {
    let terms = terms.clone();
    Swarm::new_ephemeral_tokio(move |key| {
        let config = v1::Config { only_global_ips: false, use_connected: false, ..v1::Config::default() };
        Offered::new(v1::Behaviour::new(key.public().to_peer_id(), config), terms, anywhere)
    })
}

fn client_v1(server: PeerId) -> Swarm<v1::Behaviour> {
    Swarm::new_ephemeral_tokio(move |key| {
        let config = v1::Config {
            boot_delay: Duration::ZERO,
            retry_interval: Duration::from_millis(100),
            refresh_interval: Duration::from_millis(100),
            throttle_server_period: Duration::ZERO,
            use_connected: false,
            ..v1::Config::default()
        };
        let mut client = v1::Behaviour::new(key.public().to_peer_id(), config);
        client.add_server(server, None);
        client
    })
}

#[tokio::test]
async fn older_peers_are_served_in_their_own_words() {
    let terms = Terms::default();
    offer(&terms, Audience::Members);
    let mut server = server_v1(&terms);
    server.listen().with_tcp_addr_external().await;
    let mut client = client_v1(*server.local_peer_id());
    // It may try to probe before it listens.
    client.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let listens = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = client.select_next_some().await {
            break address;
        }
    };
    client.add_external_address(listens);
    client.connect(&mut server).await;
    heard(&mut client, &mut server, |event| match event {
        SwarmEvent::Behaviour(v1::Event::OutboundProbe(v1::OutboundProbeEvent::Error {
            error: v1::OutboundProbeError::OutboundRequest(v1::OutboundFailure::UnsupportedProtocols),
            ..
        })) => Some(()),
        _ => None,
    })
    .await;
    terms.members.set(*client.local_peer_id(), true);
    heard(&mut client, &mut server, |event| match event {
        SwarmEvent::Behaviour(v1::Event::OutboundProbe(v1::OutboundProbeEvent::Response { .. })) => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn the_server_knows_only_of_connections_that_it_is_offered_on() {
    let terms = Terms::default();
    let mut server = server_v1(&terms);
    let mut peer = Swarm::new_ephemeral_tokio(|_| Reach::default());
    server.listen().with_tcp_addr_external().await;
    peer.listen().with_tcp_addr_external().await;
    // One that the server is not told of, and one that it is; in debug builds it panics when its count is wrong.
    for ours_first in [true, false] {
        if ours_first {
            server.connect(&mut peer).await;
        }
        peer.connect(&mut server).await;
        if !ours_first {
            server.connect(&mut peer).await;
        }
        let id = *server.local_peer_id();
        peer.disconnect_peer_id(id).unwrap();
        heard(&mut server, &mut peer, |event| match event {
            SwarmEvent::ConnectionClosed { num_established: 0, .. } => Some(()),
            _ => None,
        })
        .await;
    }
}
