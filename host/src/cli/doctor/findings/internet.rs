//! The way to the internet, as known servers show it.

use kinfolk_core::{DialError, Transport};
use kinfolk_shell::api::types::{Family, SignalServer, SignalState};

use super::{Facts, Finding, Verdict};
use crate::cli::{
    doctor::facts::{Kind, Server, Try},
    program::typed,
    render::{count, round_trip, transport},
};

/// Each known server.
pub(super) fn servers(facts: &Facts) -> Vec<Finding> {
    if facts.servers.is_empty() && !facts.status().signal.is_empty() {
        return vec![];
    }
    if facts.servers.is_empty() {
        let text = "no server is known: neither `bootstrap` nor `nat.relays` are set, so nothing beyond the home network \
                    could be tried";
        return vec![
            Finding::new("bootstrap", Verdict::Note, text).advice(format!(
                "name a server for the others to begin with: {}",
                typed("doctor --bootstrap MULTIADDR")
            )),
        ];
    }
    facts.servers.iter().map(server).collect()
}

/// Each signal server.
pub(super) fn signal(facts: &Facts) -> Vec<Finding> {
    let finding = |server: &SignalServer| {
        let (verdict, text, advice) = match server.state {
            SignalState::Answered if server.peers == 0 => {
                (Verdict::Ok, "the signal server answers, and knows nobody else".to_owned(), None)
            }
            SignalState::Answered => {
                let peers = count(server.peers.into(), "peer", "peers");
                (Verdict::Ok, format!("the signal server tells {peers}"), None)
            }
            SignalState::Failed => {
                let error = server.error.as_deref().unwrap_or("no answer");
                let advice = "is the URL right, and does it open in a browser on this machine?";
                (Verdict::Problem, format!("the signal server does not tell peers: {error}"), Some(advice))
            }
            SignalState::NotAsked => (Verdict::Unknown, "the signal server has not answered yet".to_owned(), None),
        };
        let finding = Finding::new("signal", verdict, text).about(&server.server);
        match advice {
            Some(advice) => finding.advice(advice),
            None => finding,
        }
    };
    facts.status().signal.iter().map(finding).collect()
}

fn server(server: &Server) -> Finding {
    let (id, name) = match server.kind {
        Kind::Bootstrap => ("bootstrap", "bootstrap peer"),
        Kind::Relay => ("relay_server", "relay"),
    };
    let given = server.tries.first();
    let ways = server.tries.iter().filter_map(|one| {
        let reached = one.result.as_ref().ok()?;
        let family = one.family().map(|family| family.to_string());
        let by = one.transport().map(|by| transport(by).to_owned());
        let parts: Vec<String> = family.into_iter().chain(by).chain(reached.rtt_us.map(round_trip)).collect();
        Some(parts.join(" "))
    });
    let ways: Vec<String> = ways.collect();
    match given.map(|given| &given.result) {
        Some(Ok(_)) => {
            Finding::new(id, Verdict::Ok, format!("the {name} answers ({})", ways.join(", "))).about(&server.given)
        }
        Some(Err(error)) => Finding::new(id, Verdict::Problem, format!("the {name} was not reached: {error}"))
            .about(&server.given)
            .advice(mend(error)),
        None => Finding::new(id, Verdict::Unknown, format!("the {name} was not tried")).about(&server.given),
    }
}

/// What to do about a dial that failed, by the words of the failure.
fn mend(error: &str) -> &'static str {
    let is = |kind: DialError| error.contains(&kind.to_string());
    if is(DialError::ConnectionRefused) {
        "the machine is there, but no node listens on that port: is the server running, and is the port right?"
    } else if is(DialError::NameNotFound) {
        "is the name spelt right, and does name resolution (DNS) work on this machine?"
    } else if error.contains("another peer answered") {
        "the peer id at the end of the address is not that of the node there: ask its owner for the present address"
    } else if is(DialError::Unreachable) {
        "there is no route there from here: is this machine on the internet, and with that family of addresses?"
    } else if is(DialError::Handshake) {
        "something answers there, but no node of this kind: is the port right?"
    } else {
        "is the server on, is the address right, and does no firewall on the way drop such packets?"
    }
}

/// IPv4 to the internet.
pub(super) fn ipv4(facts: &Facts) -> Finding {
    let none = "this machine has no way to the internet by IPv4";
    let missing = if facts.interfaces.default_v6 {
        Finding::new("ipv4", Verdict::Note, none).advice("servers must be named with their IPv6 addresses, or by name")
    } else {
        Finding::new("ipv4", Verdict::Problem, none).advice("see `network` above")
    };
    family(facts, Family::Ipv4, facts.interfaces.default_v4, missing)
}

/// IPv6 to the internet.
pub(super) fn ipv6(facts: &Facts) -> Finding {
    let missing = Finding::new("ipv6", Verdict::Note, "this machine has no way to the internet by IPv6").advice(
        "nothing has to be done; where the provider offers IPv6, switching it on in the router makes direct connections \
         easier, since it needs no NAT",
    );
    family(facts, Family::Ipv6, facts.interfaces.default_v6, missing)
}

fn family(facts: &Facts, family: Family, has_way_out: bool, missing: Finding) -> Finding {
    let id = missing.id;
    if !has_way_out {
        return missing;
    }
    let tries: Vec<&Try> = facts.tries().filter(|one| one.is_far() && one.family() == Some(family)).collect();
    if tries.iter().any(|one| one.result.is_ok()) {
        return Finding::new(id, Verdict::Ok, format!("the internet can be reached by {family}"));
    }
    match tries.iter().filter(|one| one.certain).count() {
        0 => Finding::new(
            id,
            Verdict::Unknown,
            format!("no server on the internet is known that could be tried by {family}"),
        ),
        _ if facts.reached() => {
            Finding::new(id, Verdict::Problem, format!("no server was reached by {family}, while others were"))
                .advice(format!("{family} seems to be broken on the way: restart the router, or ask the provider"))
        }
        _ => Finding::new(id, Verdict::Problem, format!("no server was reached by {family}"))
            .advice("is the internet there at all: can another program on this machine use it?"),
    }
}

/// TCP.
pub(super) fn tcp(facts: &Facts) -> Finding {
    by(
        facts,
        Transport::Tcp,
        "tcp",
        "allow outgoing TCP connections in the firewall; without them, networks that block \
                                      UDP can't be crossed",
    )
}

/// UDP, by way of QUIC.
pub(super) fn udp(facts: &Facts) -> Finding {
    by(
        facts,
        Transport::Quic,
        "udp",
        "allow outgoing UDP in the firewall (QUIC); until then connections run over TCP, and \
                                       getting through NATs works far less often",
    )
}

fn by(facts: &Facts, by: Transport, id: &'static str, open: &str) -> Finding {
    let name = match by {
        Transport::Tcp => "TCP",
        Transport::Quic => "UDP (QUIC)",
    };
    let tries: Vec<&Try> = facts.tries().filter(|one| one.transport() == Some(by)).collect();
    let certain = tries.iter().any(|one| one.certain);
    if tries.iter().any(|one| one.result.is_ok()) {
        Finding::new(id, Verdict::Ok, format!("connections by {name} work"))
    } else if certain && facts.reached() {
        Finding::new(id, Verdict::Problem, format!("{name} does not get through, while the other transport does"))
            .advice(open)
    } else if certain {
        Finding::new(id, Verdict::Unknown, format!("no server was reached, by {name} or otherwise"))
    } else {
        Finding::new(id, Verdict::Unknown, format!("no server is known that speaks {name}"))
    }
}
