//! The NAT, the router, relays, and what this node does for others: the part of the status about being reached.

use std::collections::BTreeMap;

use kinfolk_core::{Audience, Mapping, Transport, view::GatewayView};
use kinfolk_shell::api::types::{CircuitLimit, Relay, Services, Status};

use super::text::{bytes, count, round_trip, span};
use crate::short_name;

/// What the NAT does, one line for each behaviour, and what kind of router it is.
pub(super) fn nat(status: &Status) -> Vec<String> {
    let mut kinds: BTreeMap<Mapping, Vec<String>> = BTreeMap::new();
    for seen in &status.mappings {
        kinds.entry(seen.mapping).or_default().push(format!("{} {}", seen.family, transport(seen.transport)));
    }
    let behaviours = kinds.into_iter().map(|(mapping, of)| format!("{mapping} ({})", of.join(", ")));
    behaviours.chain(status.nat_text.clone()).collect()
}

/// What the home router was asked for, and what it gave.
pub(super) fn router(status: &Status) -> Vec<String> {
    let speaks = status.gateway.map(|gateway| match languages(gateway).as_slice() {
        [] => "offers no port mapping (UPnP, NAT-PMP and PCP are off, or not there)".to_owned(),
        known => format!("offers port mapping ({})", known.join(", ")),
    });
    let ports = status.port_mappings.iter().map(|port| match &port.external {
        Some(external) => format!("lets {external} lead to this node"),
        None => format!("lets no {} port lead to this node", transport(port.transport)),
    });
    speaks.into_iter().chain(ports).collect()
}

/// What a router speaks.
pub(crate) fn languages(gateway: GatewayView) -> Vec<&'static str> {
    let GatewayView { upnp, nat_pmp, pcp } = gateway;
    [(upnp, "UPnP"), (nat_pmp, "NAT-PMP"), (pcp, "PCP")]
        .into_iter()
        .filter(|(spoken, _)| *spoken)
        .map(|(_, name)| name)
        .collect()
}

/// How many relays are held, and how it goes with each.
pub(super) fn relays(status: &Status) -> Vec<String> {
    let held = status.relays.iter().filter(|relay| relay.held_for_s.is_some()).count();
    if status.relays_wanted == 0 && status.relays.is_empty() {
        return vec!["none needed".to_owned()];
    }
    let keep = if held == 1 { "keeps" } else { "keep" };
    let sum = format!("{held} of {} wanted relays {keep} a place for this node", status.relays_wanted);
    let nobody = status.relays.is_empty().then(|| {
        "no relay is known so far: name one in the settings (nat.relays), or a server as bootstrap peer".to_owned()
    });
    [sum].into_iter().chain(status.relays.iter().map(relay)).chain(nobody).collect()
}

fn relay(relay: &Relay) -> String {
    let name = short_name(&relay.relay);
    let rtt = relay.rtt_us.map(|rtt| format!(", {}", round_trip(rtt))).unwrap_or_default();
    match relay.held_for_s {
        Some(held) => {
            let limit = relay.limit.as_ref().and_then(limit).map(|limit| format!("; {limit}")).unwrap_or_default();
            format!("{name}: for {}{rtt}{limit}", span(held))
        }
        None => {
            let why = relay.last_error.as_deref().unwrap_or("not asked so far");
            let next = relay.retry_in_s.map(|wait| format!("; next try in {}", span(wait))).unwrap_or_default();
            format!("{name}: {why}{rtt}{next}")
        }
    }
}

/// What a relay allows. `None`: everything.
pub(super) fn limit(limit: &CircuitLimit) -> Option<String> {
    let time = limit.duration_s.map(span);
    let size = limit.bytes.map(bytes);
    let parts: Vec<String> = time.into_iter().chain(size).collect();
    (!parts.is_empty()).then(|| format!("at most {} for each connection", parts.join(" and ")))
}

/// What this node does for others. `None`: nothing.
pub(super) fn services(services: &Services) -> Vec<String> {
    let relay = (services.relay != Audience::Nobody || services.reservations > 0).then(|| {
        let places = count(services.reservations.into(), "peer has a place", "peers have a place");
        let circuits = count(services.circuits.into(), "connection goes", "connections go");
        format!("relays for {}: {places}, {circuits} through here", services.relay)
    });
    let probes = (services.probes != Audience::Nobody).then(|| format!("tries addresses for {}", services.probes));
    relay.into_iter().chain(probes).collect()
}

/// A transport in the words of people who set up routers.
pub(crate) const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Quic => "QUIC",
    }
}
