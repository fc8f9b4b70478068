//! Peers: the table of all, and all about one.

use kinfolk_core::view::State;
use kinfolk_shell::api::types::{KnownAddress, PathKind, Peer};

use super::{
    super::program::typed,
    nat::limit,
    table::Table,
    text::{count, labelled, round_trip, span, way},
    ways::{situation, why_relayed},
};
use crate::{plain_text, short_name};

/// The table of peers: connected ones first, then those who were here last.
pub(crate) fn peers(peers: &[Peer], long: bool, width: Option<usize>) -> String {
    if peers.is_empty() {
        return format!("nobody is known so far; {} makes a first acquaintance\n", typed("connect MULTIADDR"));
    }
    let mut sorted: Vec<&Peer> = peers.iter().collect();
    sorted.sort_by_key(|peer| (rank(peer), peer.last_seen_s.unwrap_or(u64::MAX), peer.peer));
    let mut table = Table::new()
        .column("PEER", 0)
        .column("", 3)
        .column("STATE", 0)
        .column("WAY", 1)
        .number("RTT", 2)
        .number("SINCE", 4)
        .number("SYNC", 5)
        .column("AGENT", 6)
        .column("REMARK", 7);
    for peer in sorted {
        table.row([
            if long { peer.peer.to_string() } else { short_name(&peer.peer) },
            marks(peer),
            peer.state.name().to_owned(),
            peer.path.as_ref().map(way).unwrap_or_default(),
            peer.rtt_us.map(round_trip).unwrap_or_default(),
            span(peer.state_for_s),
            peer.sync_position.map(|position| position.to_string()).unwrap_or_default(),
            peer.agent.as_deref().map(plain_text).unwrap_or_default(),
            remark(peer),
        ]);
    }
    table.render(width)
}

fn rank(peer: &Peer) -> u8 {
    match peer.state {
        State::Connected | State::Identified | State::Syncing => 0,
        State::Dialing => 1,
        State::Disconnected => 2,
        State::Discovered => 3,
        State::Expired => 4,
    }
}

fn marks(peer: &Peer) -> String {
    match (peer.blocked, peer.pinned) {
        (true, _) => "blocked".to_owned(),
        (false, true) => "pinned".to_owned(),
        (false, false) => String::new(),
    }
}

/// What a person would ask next.
fn remark(peer: &Peer) -> String {
    if peer.path.is_some_and(|path| path.kind == PathKind::Relayed) {
        return why_relayed(peer.punching.as_ref());
    }
    match (peer.connections.len(), peer.next_dial_in_s) {
        (2.., _) => format!("{} connections", peer.connections.len()),
        (0, Some(wait)) => format!("dialled in {}", span(wait)),
        (0, None) => peer.last_seen_s.map(|ago| format!("seen {} ago", span(ago))).unwrap_or_default(),
        (1, _) => String::new(),
    }
}

/// All about one peer.
pub(crate) fn peer(peer: &Peer) -> String {
    let mut text = format!("{}\n", peer.peer);
    let mut state = format!("{} for {}", peer.state, span(peer.state_for_s));
    if !marks(peer).is_empty() {
        state.push_str(&format!(", {}", marks(peer)));
    }
    text += &labelled("  state", [state]);
    text += &labelled("  agent", peer.agent.as_deref());
    text += &labelled("  way", peer.path.is_some().then(|| situation(peer)));
    text += &labelled("  round trip", peer.rtt_us.map(round_trip));
    text += &labelled("  seen", (peer.connections.is_empty()).then(|| last_seen(peer)));
    text += &labelled("  next dial", peer.next_dial_in_s.map(|wait| format!("in {}", span(wait))));
    let sync = match (peer.sync_position, peer.pending_requests) {
        (None, 0) => None,
        (Some(position), 0) => Some(format!("up to {position}")),
        (position, open) => {
            let so_far = position.map(|position| format!("up to {position}, ")).unwrap_or_default();
            Some(format!("{so_far}{}", count(open.into(), "open request", "open requests")))
        }
    };
    text += &labelled("  data", sync);
    text += &labelled("  served", peer.served.then_some("others reach it through this node"));
    text += &labelled("  can", (!peer.capabilities.is_empty()).then(|| peer.capabilities.join(", ")));
    text += &labelled(
        "  connected",
        peer.connections.iter().map(|connection| {
            let rtt = connection.rtt_us.map(|rtt| format!(", {}", round_trip(rtt))).unwrap_or_default();
            let (way, direction, address) = (way(&connection.path), connection.direction, &connection.address);
            let limit = connection.limit.as_ref().and_then(limit).map(|limit| format!(", {limit}")).unwrap_or_default();
            let age = span(connection.age_s);
            format!("n{}: {way}, {direction}, {address}, for {age}{rtt}{limit}", connection.connection)
        }),
    );
    text += &labelled("  addresses", peer.addresses.iter().map(address));
    text
}

fn last_seen(peer: &Peer) -> String {
    peer.last_seen_s.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", span(ago)))
}

fn address(known: &KnownAddress) -> String {
    let sources: Vec<String> = known.sources.iter().map(ToString::to_string).collect();
    let mut text = format!("{} (found {})", known.address, sources.join(", "));
    if let Some(ago) = known.last_success_s {
        text.push_str(&format!("; worked {} ago", span(ago)));
    }
    if let Some(error) = &known.last_error {
        text.push_str(&format!("; failed: {}", error));
    }
    if let Some(wait) = known.retry_in_s {
        text.push_str(&format!("; not before {}", span(wait)));
    }
    text
}
