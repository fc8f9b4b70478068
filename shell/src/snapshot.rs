//! A node's view, copied into the shapes that leave the driver.

use std::{collections::BTreeMap, time::Duration};

use kinfolk_core::{
    Config, Time, View,
    view::{
        AddressView, BootstrapView, CandidateView, ConnectionView, LogView, MappingView, NodeView, PeerSyncView,
        PeerView, PortMappingView, PunchingView, RelayView, ServiceView, SignalView,
    },
};

use crate::api::{
    logs::{Sync, SyncLog, SyncPeer},
    types::{
        Bootstrap, Connection, Family, KnownAddress, OwnAddress, Peer, PortBehaviour, PortMapping, Punching, Relay,
        Services, SignalServer, SignalState, Status, TraceStatus,
    },
};

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
        own_addresses: node.candidates.iter().map(own_address).collect(),
        mappings: node.mappings.iter().map(port_behaviour).collect(),
        nat: node.nat,
        nat_text: node.nat.map(|finding| finding.to_string()),
        gateway: node.gateway,
        port_mappings: node.port_mappings.iter().map(port_mapping).collect(),
        relays: node.relays.iter().map(|seen| relay(now, seen)).collect(),
        relays_wanted: node.relays_wanted,
        services: services(node.services),
        kademlia: around.config.kademlia,
        kademlia_server: node.kademlia_server,
        routing_table: node.routing_table,
        bootstrap: node.bootstrap.iter().map(|bootstrap| bootstrap_peer(now, bootstrap)).collect(),
        signal: node.signal.iter().map(|server| signal_server(now, server)).collect(),
        peers: node.peers,
        connected: node.connected,
        dialing: node.dialing,
        trace: around.trace,
        counters: around.counters,
    }
}

pub(crate) fn sync(view: &View<'_>, now: Time) -> Sync {
    let sync = view.sync();
    let log = |seen: &LogView| SyncLog {
        author: seen.log.author,
        epoch: seen.log.epoch,
        position: seen.position,
        missing: seen.missing,
        fetching_from: seen.fetching_from,
        forked_at: seen.forked_at,
    };
    let peer = |peer, seen: PeerSyncView| SyncPeer {
        peer,
        position: seen.position,
        missing_here: seen.ours,
        missing_there: seen.theirs,
        pending: seen.pending,
        compared_s: seen.compared.map(|at| age(now, at)),
        rests_for_s: seen.rests_until.map(|at| wait(now, at)),
        last_error: seen.last_error.map(|error| error.to_string()),
    };
    Sync {
        with: sync.with,
        partners: sync.partners,
        fetching: sync.fetching,
        paused_for_s: sync.paused_until.map(|at| wait(now, at)),
        logs: sync.logs.iter().map(log).collect(),
        peers: view.peers().filter_map(|seen| Some(peer(seen.peer, seen.sync?))).collect(),
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
        punching: seen.punching.as_ref().map(|seen| punching(now, seen)),
        served: seen.served,
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
        limit: seen.limit.map(Into::into),
    }
}

fn punching(now: Time, seen: &PunchingView) -> Punching {
    Punching {
        trying: seen.trying,
        attempts: seen.attempts,
        last_error: seen.last_error.as_ref().map(ToString::to_string),
        next_in_s: seen.next.map(|at| wait(now, at)),
        impasse: seen.impasse,
        impasse_text: seen.impasse.map(|impasse| impasse.to_string()),
    }
}

fn own_address(seen: &CandidateView<'_>) -> OwnAddress {
    OwnAddress {
        address: seen.address.clone(),
        advertised: seen.advertised,
        observers: seen.observers,
        proofs: seen.proofs,
        confidence: seen.confidence,
        mapped: seen.mapped,
    }
}

fn port_behaviour(seen: &MappingView) -> PortBehaviour {
    PortBehaviour {
        family: if seen.ipv6 { Family::Ipv6 } else { Family::Ipv4 },
        transport: seen.transport,
        mapping: seen.mapping,
        mapping_text: seen.mapping.to_string(),
    }
}

fn port_mapping(seen: &PortMappingView<'_>) -> PortMapping {
    PortMapping { transport: seen.transport, external: seen.external.cloned() }
}

fn relay(now: Time, seen: &RelayView) -> Relay {
    Relay {
        relay: seen.relay,
        held_for_s: seen.held_since.map(|since| age(now, since)),
        rtt_us: seen.rtt.map(micros),
        limit: seen.limit.map(Into::into),
        last_error: seen.last_error.as_ref().map(ToString::to_string),
        retry_in_s: seen.retry_at.map(|at| wait(now, at)),
    }
}

fn services(seen: ServiceView) -> Services {
    Services { relay: seen.relay, probes: seen.probes, reservations: seen.reservations, circuits: seen.circuits }
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

fn signal_server(now: Time, seen: &SignalView<'_>) -> SignalServer {
    let state = match (seen.failures, seen.answered) {
        (0, None) => SignalState::NotAsked,
        (0, Some(_)) => SignalState::Answered,
        (_, _) => SignalState::Failed,
    };
    SignalServer {
        server: seen.server.to_owned(),
        state,
        answered_s_ago: seen.answered.map(|at| age(now, at)),
        peers: seen.peers,
        failures: seen.failures,
        error: seen.error.map(ToString::to_string),
        retry_in_s: seen.retry_at.map(|at| wait(now, at)),
        published_for_s: seen.published.filter(|until| *until > now).map(|until| wait(now, until)),
        publish_error: seen.publish_error.map(ToString::to_string),
        backing: seen.backing,
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

#[cfg(test)]
mod tests {
    use kinfolk_core::{CircuitLimit, Impasse, Mapping, PeerId, PunchError, ReserveError, Transport};
    use serde_json::json;

    use super::*;

    #[test]
    fn ways_through_nats_leave_the_driver_with_words_and_waits() {
        let now = Time::from_secs(100);
        let seen = PunchingView {
            trying: false,
            attempts: 3,
            last_error: Some(PunchError::TimedOut),
            next: Some(Time::from_secs(220)),
            impasse: Some(Impasse::BothPerDestination),
        };
        assert_eq!(
            serde_json::to_value(punching(now, &seen)).unwrap(),
            json!({ "trying": false, "attempts": 3, "last_error": "it took too long", "next_in_s": 120,
                "impasse": "both_per_destination",
                "impasse_text": "your NAT gives each destination another port, and so does theirs" })
        );
        let who: PeerId = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        let limit = CircuitLimit { duration: Some(Duration::from_secs(120)), bytes: None };
        let held = RelayView {
            relay: who,
            held_since: Some(Time::from_secs(40)),
            asked: false,
            rtt: Some(Duration::from_millis(23)),
            limit: Some(limit),
            last_error: None,
            retry_at: None,
        };
        assert_eq!(
            serde_json::to_value(relay(now, &held)).unwrap(),
            json!({ "relay": who, "held_for_s": 60, "rtt_us": 23_000,
                "limit": { "duration_s": 120, "bytes": null }, "last_error": null, "retry_in_s": null })
        );
        let full = RelayView {
            held_since: None,
            rtt: None,
            limit: None,
            last_error: Some(ReserveError::Full),
            retry_at: Some(Time::from_secs(101) + Duration::from_millis(500)),
            ..held
        };
        assert_eq!(
            serde_json::to_value(relay(now, &full)).unwrap(),
            json!({ "relay": who, "held_for_s": null, "rtt_us": null, "limit": null,
                "last_error": "the relay is full", "retry_in_s": 2 })
        );
        let nat = MappingView { ipv6: true, transport: Transport::Quic, mapping: Mapping::PerDestination };
        assert_eq!(
            serde_json::to_value(port_behaviour(&nat)).unwrap(),
            json!({ "family": "ipv6", "transport": "quic", "mapping": "per_destination",
                "mapping_text": "another port for each destination" })
        );
    }
}
