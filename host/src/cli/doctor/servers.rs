//! Known servers, each tried by each transport, each try by a small node of its own: a node that has one way to a peer
//! would not look for another.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use kinfolk_core::{
    Address, Config, KademliaMode, PeerAddress, PeerId, Scope, Service, Source, Transport, view::State,
};
use kinfolk_shell::api::types::Peer;
use tokio::time::{Instant, sleep, timeout_at};

use super::facts::{Kind, Reached, Server, Try, family};
use crate::{Control, Node, RequestError};

/// More servers than these are not tried.
const MAX_SERVERS: usize = 12;

/// A server that has connected says this soon who it is, and answers a ping.
const INTRODUCTION: Duration = Duration::from_secs(3);

/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// Tries all, at once.
pub(super) async fn try_all(config: &Config, until: Instant) -> Vec<Server> {
    let bootstrap = config.bootstrap.iter().map(|address| (Kind::Bootstrap, address));
    let relays = config.nat.relays.iter().map(|address| (Kind::Relay, address));
    let mut seen = BTreeSet::new();
    let servers = bootstrap.chain(relays).filter(|(_, address)| seen.insert(address.to_string())).take(MAX_SERVERS);
    join_all(servers.map(|(kind, address)| try_server(config, kind, address, until))).await
}

async fn try_server(config: &Config, kind: Kind, given: &PeerAddress, until: Instant) -> Server {
    let (first, peer) = try_one(config, given, true, until).await;
    let mut others: Vec<(Address, bool)> = vec![];
    let ways: &mut BTreeSet<_> = &mut first.address.iter().map(way).collect();
    let told = peer.iter().flat_map(|peer| &peer.addresses);
    let told = told.filter(|known| known.sources.contains(&Source::Identify)).map(|known| (&known.address, true));
    // Most servers listen on one port with both transports.
    let sibling = first.address.as_ref().and_then(sibling);
    for (address, certain) in told.chain(sibling.iter().map(|address| (address, false))) {
        // Its neighbours' addresses are of no use to us.
        let usable = !address.is_relayed() && is_as_far(address, first.address.as_ref());
        if first.result.is_ok() && usable && address.transport().is_some() && ways.insert(way(address)) {
            others.push((address.clone(), certain));
        }
    }
    let who = first.result.as_ref().ok().map(|reached| reached.peer).or(given.peer);
    let targets: Vec<_> = others
        .into_iter()
        .map(|(address, certain)| (PeerAddress { peer: who, address: Some(address) }, certain))
        .collect();
    let tries = join_all(targets.iter().map(|(target, certain)| try_one(config, target, *certain, until))).await;
    let tries = [first].into_iter().chain(tries.into_iter().map(|(one, _)| one)).collect();
    Server { given: given.to_string(), kind, tries }
}

fn way(address: &Address) -> (Option<kinfolk_shell::api::types::Family>, Option<Transport>) {
    (family(address), address.transport())
}

/// The same host and port by the other transport.
fn sibling(address: &Address) -> Option<Address> {
    let other = match address.transport()? {
        Transport::Tcp => Transport::Quic,
        Transport::Quic => Transport::Tcp,
    };
    Some(Address::ip(address.host_ip()?, address.port()?, other))
}

/// A server on the internet is not tried at addresses of its home network, which may be somebody else's here.
fn is_as_far(address: &Address, first: Option<&Address>) -> bool {
    let scope = |address: &Address| address.scope();
    scope(address) == Some(Scope::Global) || first.is_some_and(|first| scope(first) == scope(address))
}

/// One try, and the peer if it came to one.
async fn try_one(config: &Config, to: &PeerAddress, certain: bool, until: Instant) -> (Try, Option<Peer>) {
    let tried = async {
        let node = Node::builder().ephemeral().configure(|own| *own = quiet(config)).start().await;
        let node = node.map_err(|error| error.to_string())?;
        let connected = match timeout_at(until, node.connect(to.clone())).await {
            Ok(Ok(_)) => Ok(introduced(&node, until).await),
            Ok(Err(RequestError::Declined(error))) => Err(error.to_string()),
            Ok(Err(RequestError::Gone(gone))) => Err(gone.to_string()),
            Err(_) => Err(kinfolk_core::DialError::TimedOut.to_string()),
        };
        node.shutdown().await;
        connected
    };
    let known = to.address.as_ref().filter(|address| address.host_ip().is_some()).cloned();
    match tried.await {
        Ok(Some(peer)) => {
            let stands = peer.connections.first().map(|connection| connection.address.clone());
            let reached = Reached { peer: peer.peer, rtt_us: peer.rtt_us };
            (Try { address: stands.or(known), certain, result: Ok(reached) }, Some(peer))
        }
        Ok(None) => (Try { address: known, certain, result: Err("the connection ended at once".to_owned()) }, None),
        Err(error) => (Try { address: known, certain, result: Err(error) }, None),
    }
}

/// The peer that is connected, once it has introduced itself and answered a ping, or as it is when that takes too long.
async fn introduced(node: &Control, until: Instant) -> Option<Peer> {
    let until = until.min(Instant::now() + INTRODUCTION);
    loop {
        let peers = node.peers().await.unwrap_or_default();
        let there = peers.into_iter().find(|peer| peer.path.is_some())?;
        let complete = there.rtt_us.is_some() && matches!(there.state, State::Identified | State::Syncing);
        if complete || Instant::now() >= until {
            return Some(there);
        }
        sleep(LOOK).await;
    }
}

/// Settings of a node that does nothing by itself, and is in nobody's way.
fn quiet(config: &Config) -> Config {
    let mut own = unlisted(config);
    own.listen.clear();
    own.bootstrap.clear();
    own.nat.relays.clear();
    own.nat.external.clear();
    own.mdns = false;
    own.nat.port_mapping = false;
    own.nat.want_relays = 0;
    own.nat.punching = false;
    own
}

/// Settings of a node that nobody is to hear of: it is in no hash table, serves nobody and pins nobody.
pub(super) fn unlisted(config: &Config) -> Config {
    let mut own = Config::desktop();
    own.network.clone_from(&config.network);
    own.protocols.clone_from(&config.protocols);
    // Whoever publishes in the network's own table is known there for hours.
    own.protocols.kademlia = "/kinfolk-doctor/kad/1.0.0".to_owned();
    own.kademlia = KademliaMode::Client;
    own.listen.clone_from(&config.listen);
    own.bootstrap.clone_from(&config.bootstrap);
    own.mdns = config.mdns;
    own.nat.clone_from(&config.nat);
    own.nat.relay_service = Service::Off;
    own.nat.probe_service = Service::Off;
    own
}

/// Who it is that nobody asked for.
pub(super) fn stranger(peers: &[Peer], known: Option<PeerId>) -> impl Iterator<Item = &Peer> {
    peers.iter().filter(move |peer| Some(peer.peer) != known)
}
