//! The node as a whole.

use std::collections::BTreeMap;

use kinfolk_core::{Address, KademliaMode, Role, Scope};
use kinfolk_shell::api::types::{Status, TraceStatus};

use super::{
    bootstrap, nat, signal,
    text::{bytes, count, labelled, span},
};

/// `kinfolk status`.
pub(crate) fn status(status: &Status) -> String {
    let role = match status.role {
        Role::Family => "family",
        Role::Desktop => "desktop",
        Role::Server => "server",
    };
    let mut text = format!("{}\n", status.peer);
    let folder = status.data_dir.as_deref().map(|folder| format!(", data in {folder}")).unwrap_or_default();
    text += &labelled("  program", [format!("{}, network {}, role {role}", status.agent, status.network)]);
    text += &labelled("  running", [format!("for {}, process {}{folder}", span(status.uptime_s), status.pid)]);
    text += &labelled("  health", [format!("{} (for {})", status.health_text, span(status.health_for_s))]);
    text += &labelled("  reachable", [&status.reachability_text]);
    text += &labelled("  NAT", nat::nat(status));
    text += &labelled("  router", nat::router(status));
    text += &labelled("  relays", nat::relays(status));
    text += &labelled("  for others", nat::services(&status.services));
    let mut known =
        vec![format!("{} of {} known", count(status.connected.into(), "connected", "connected"), status.peers)];
    if status.dialing > 0 {
        known.push(format!("{} being dialled", status.dialing));
    }
    text += &labelled("  peers", [known.join(", ")]);
    text += &labelled("  listening", far_first(&status.listening));
    text += &labelled("  told others", &status.advertised);
    text += &labelled("  candidates", candidates(status));
    let mode = match (status.kademlia_server, status.kademlia) {
        (true, KademliaMode::Auto) => "served, as others can reach this node",
        (true, KademliaMode::Server | KademliaMode::Client) => "served",
        (false, KademliaMode::Auto) => "asked only, until others are known to reach this node",
        (false, KademliaMode::Client | KademliaMode::Server) => "asked only",
    };
    let entries = count(status.routing_table.into(), "entry", "entries");
    text += &labelled("  hash table", [format!("{mode}; {entries}")]);
    text += &labelled("  bootstrap", bootstrap::lines(&status.bootstrap));
    text += &labelled("  signal", signal::lines(&status.signal));
    text += &labelled("  traces", [trace(&status.trace)]);
    text += &labelled("  counted", counted(&status.counters));
    text
}

/// The recorder, in a line.
pub(crate) fn trace(trace: &TraceStatus) -> String {
    let state = if trace.recording { "recording" } else { "not recording" };
    let held = format!("{}, {}", count(trace.segments.into(), "segment", "segments"), bytes(trace.bytes));
    let lost = if trace.lost > 0 { format!(", {} lost", count(trace.lost, "input", "inputs")) } else { String::new() };
    let error = trace.error.as_deref().map(|error| format!("; {error}")).unwrap_or_default();
    format!("{state}; {held}{lost}{error}")
}

/// Own addresses that others are not told of, and what speaks for each.
fn candidates(status: &Status) -> Vec<String> {
    if status.own_addresses.is_empty() {
        return status.candidates.iter().map(ToString::to_string).collect();
    }
    let untold = status.own_addresses.iter().filter(|own| !own.advertised);
    let told = untold.map(|own| {
        let seen =
            (own.observers > 0).then(|| format!("seen from {}", count(own.observers.into(), "network", "networks")));
        let proven =
            (own.proofs > 0).then(|| format!("reached from {}", count(own.proofs.into(), "network", "networks")));
        let mapped = own.mapped.then(|| "given by the router".to_owned());
        let parts: Vec<String> = seen.into_iter().chain(proven).chain(mapped).collect();
        let parts = if parts.is_empty() { "nobody has seen this node there".to_owned() } else { parts.join(", ") };
        format!("{} ({parts})", own.address)
    });
    told.collect()
}

/// What others may use first, loopback last.
fn far_first(addresses: &[Address]) -> Vec<&Address> {
    let mut sorted: Vec<&Address> = addresses.iter().collect();
    sorted.sort_by_key(|address| match address.scope() {
        Some(Scope::Global) => 0,
        Some(Scope::Loopback) => 3,
        Some(Scope::LinkLocal) => 2,
        _ => 1,
    });
    sorted
}

/// For looking into trouble: one line, however long.
fn counted(counters: &BTreeMap<String, u64>) -> Option<String> {
    let counted = counters.iter().filter(|(_, number)| **number > 0);
    let texts: Vec<String> = counted.map(|(name, number)| format!("{name} {number}")).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}
