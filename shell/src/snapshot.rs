//! A node's view, copied into the shapes that leave the driver.

use std::{collections::BTreeMap, time::Duration};

use kinfolk_core::{
    Config, Time, View,
    view::{AddressView, BootstrapView, ConnectionView, NodeView, PeerView},
};

use crate::api::types::{Bootstrap, Connection, KnownAddress, Peer, Status, TraceStatus};

/// What a status tells beside the core's view.
#[derive(Clone, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) now: Time,
    pub(crate) config: &'a Config,
    pub(crate) agent: &'a str,
    pub(crate) data_dir: Option<&'a str>,
    pub(crate) trace: TraceStatus,
    pub(crate) counters: BTreeMap<String, u64>,
}

pub(crate) fn status(view: &View<'_>, around: Around<'_>) -> Status {
    let now = around.now;
    let node: NodeView<'_> = view.node();
    let addresses = |addresses: Vec<&kinfolk_core::Address>| addresses.into_iter().cloned().collect();
    Status {
        peer: node.local,
        agent: around.agent.to_owned(),
        role: around.config.role,
        network: around.config.network.clone(),
        pid: std::process::id(),
        data_dir: around.data_dir.map(str::to_owned),
        uptime_s: now.as_secs(),
        health: node.health,
        health_text: node.health.to_string(),
        health_for_s: age(now, node.health_since),
        reachability: node.reachability,
        reachability_text: node.reachability.to_string(),
        listening: addresses(node.listening),
        advertised: addresses(node.advertised),
        candidates: node.candidates.iter().filter(|own| !own.advertised).map(|own| own.address.clone()).collect(),
        kademlia: around.config.kademlia,
        kademlia_server: node.kademlia_server,
        routing_table: node.routing_table,
        bootstrap: node.bootstrap.iter().map(|bootstrap| bootstrap_peer(now, bootstrap)).collect(),
        peers: node.peers,
        connected: node.connected,
        dialing: node.dialing,
        trace: around.trace,
        counters: around.counters,
    }
}

pub(crate) fn peers(view: &View<'_>, now: Time) -> Vec<Peer> {
    view.peers().map(|seen| peer(now, seen)).collect()
}

pub(crate) fn peer(now: Time, seen: PeerView<'_>) -> Peer {
    let mut connections: Vec<&ConnectionView<'_>> = seen.connections.iter().collect();
    connections.sort_by_key(|connection| (connection.since, connection.connection));
    // The best connection is the one with the best path; the core names the path, not the connection.
    let rtt = connections.iter().filter(|connection| Some(connection.path) == seen.path).find_map(|best| best.rtt);
    Peer {
        peer: seen.peer,
        state: seen.state,
        state_for_s: age(now, seen.since),
        pinned: seen.pinned,
        blocked: seen.blocked,
        path: seen.path.map(Into::into),
        rtt_us: rtt.map(micros),
        agent: seen.agent.map(str::to_owned),
        capabilities: seen.capabilities.names().map(str::to_owned).collect(),
        last_seen_s: if connections.is_empty() { seen.last_seen.map(|last| age(now, last)) } else { Some(0) },
        sync_position: seen.sync_position,
        pending_requests: seen.pending_requests,
        next_dial_in_s: seen.next_dial.map(|at| wait(now, at)),
        connections: connections.into_iter().map(|one| connection(now, one)).collect(),
        addresses: seen.addresses.iter().map(|known| address(now, known)).collect(),
    }
}

fn connection(now: Time, seen: &ConnectionView<'_>) -> Connection {
    Connection {
        connection: seen.connection.0,
        path: seen.path.into(),
        direction: seen.direction,
        address: seen.address.clone(),
        age_s: age(now, seen.since),
        rtt_us: seen.rtt.map(micros),
    }
}

fn address(now: Time, known: &AddressView<'_>) -> KnownAddress {
    KnownAddress {
        address: known.address.clone(),
        sources: known.sources.clone(),
        last_success_s: known.last_success.map(|last| age(now, last)),
        last_error: known.last_error.map(ToString::to_string),
        retry_in_s: known.retry_at.filter(|at| *at > now).map(|at| wait(now, at)),
    }
}

fn bootstrap_peer(now: Time, seen: &BootstrapView<'_>) -> Bootstrap {
    Bootstrap {
        address: seen.address.to_string(),
        peer: seen.peer,
        connected: seen.connected,
        failures: seen.failures,
        retry_in_s: seen.retry_at.map(|at| wait(now, at)),
    }
}

fn age(now: Time, since: Time) -> u64 {
    now.since(since).as_secs()
}

/// Rounded up: "in 0 s" would be now.
fn wait(now: Time, at: Time) -> u64 {
    let wait = at.since(now);
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
