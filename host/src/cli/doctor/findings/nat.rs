//! The NAT and the router, and whether others can begin connections.

use kinfolk_core::{Address, Mapping, NatFinding, Reachability, Role, Scope};
use kinfolk_shell::api::types::{Family, OwnAddress, Status};

use super::{Facts, Finding, Verdict};
use crate::cli::{
    doctor::facts::family,
    render::{languages, round_trip, span, transport},
};
use crate::short_name;

/// What the NAT does with ports.
pub(super) fn mappings(facts: &Facts) -> Vec<Finding> {
    let seen = &facts.status().mappings;
    if seen.is_empty() {
        return vec![
            Finding::new("mapping", Verdict::Unknown, "it is not known what the NAT does with ports")
                .advice("two servers in different networks are needed to tell; name them as bootstrap peers"),
        ];
    }
    let finding = |port: &kinfolk_shell::api::types::PortBehaviour| {
        let about = format!("{} {}", port.family, transport(port.transport));
        let finding = match port.mapping {
            Mapping::None => Finding::new("mapping", Verdict::Ok, "no NAT: this machine is on the internet itself"),
            Mapping::Independent => Finding::new(
                "mapping",
                Verdict::Ok,
                "the NAT uses one port for all destinations: direct connections are mostly possible",
            ),
            Mapping::PerDestination => Finding::new(
                "mapping",
                Verdict::Note,
                "the NAT uses another port for each destination: direct connections are possible only with peers whose \
                 NAT is easier, others are reached through a relay",
            )
            .advice(
                "switch on UPnP or PCP in the router, or have it forward this node's port; some routers call the kinder \
                 kind \"full cone\" or \"endpoint-independent\"",
            ),
            Mapping::Unknown => {
                Finding::new("mapping", Verdict::Unknown, "it is not known what the NAT does with ports")
                    .advice("two servers in different networks are needed to tell")
            }
        };
        finding.about(about)
    };
    seen.iter().map(finding).collect()
}

/// Whom the NAT lets in. A probe comes from another port of a server that we speak with.
pub(super) fn filtering(facts: &Facts) -> Finding {
    let status = facts.status();
    let own = |of: fn(&OwnAddress) -> bool| status.own_addresses.iter().any(of);
    if status.mappings.iter().any(|port| port.mapping == Mapping::None) && status.reachability == Reachability::Public {
        return Finding::new("filtering", Verdict::Ok, "nothing keeps others out");
    }
    if own(|own| own.proofs > 0 && !own.mapped) {
        return Finding::new("filtering", Verdict::Ok, "the NAT lets in packets from ports that nothing was sent to");
    }
    match status.reachability {
        Reachability::Private => Finding::new(
            "filtering",
            Verdict::Note,
            "the NAT or a firewall lets in only whom something was sent to",
        )
        .advice("that is usual, and no obstacle as long as the NAT uses one port for all destinations (see `mapping`)"),
        Reachability::Unknown | Reachability::Public => {
            Finding::new("filtering", Verdict::Unknown, "it is not known whom the NAT lets in")
        }
    }
}

/// NATs behind the NAT.
pub(super) fn kind(facts: &Facts) -> Finding {
    let status = facts.status();
    let shared = facts.interfaces.addresses.iter().any(|own| Scope::of(own.ip) == Scope::Shared);
    let found = status.nat.or(shared.then_some(NatFinding::CarrierGrade));
    let advice = match found {
        Some(NatFinding::CarrierGrade | NatFinding::RouterBehindCarrierGrade) => {
            "no setting of yours changes that: ask the provider for a public IPv4 address, or for IPv6"
        }
        Some(NatFinding::DoubleNat) => {
            "set the second router (mostly the provider's box) to bridge mode, or the first one to be an access point only; \
             or have both forward this node's port"
        }
        Some(NatFinding::NoMappingGiven) => {
            "see whether the router's address on the internet side is a public one; if not, ask the provider for one"
        }
        None if status.reachability == Reachability::Public => {
            return Finding::new("nat", Verdict::Ok, "no second NAT stands in the way");
        }
        None if status.port_mappings.iter().filter_map(|port| port.external.as_ref()).any(is_public) => {
            return Finding::new(
                "nat",
                Verdict::Ok,
                "neither carrier-grade nor double NAT: the router's address is public",
            );
        }
        None => {
            return Finding::new(
                "nat",
                Verdict::Unknown,
                "no carrier-grade and no double NAT was seen, but the router does not tell its address",
            );
        }
    };
    let text = found.map(|found| found.to_string()).unwrap_or_default();
    Finding::new("nat", Verdict::Note, text).advice(advice)
}

/// What the home router does when asked for a port.
pub(super) fn port_mapping(facts: &Facts) -> Finding {
    const SWITCH_ON: &str = "switch on UPnP, NAT-PMP or PCP in the router's settings, or have it forward this node's port by \
                             hand and name the result in `nat.external`";
    if !facts.settings.port_mapping {
        return Finding::new("port_mapping", Verdict::Note, "the router is not asked for ports: the settings say so");
    }
    let status = facts.status();
    let given: Vec<&Address> = status.port_mappings.iter().filter_map(|port| port.external.as_ref()).collect();
    if !given.is_empty() {
        let names: Vec<String> = given.iter().map(ToString::to_string).collect();
        let text = format!("the router lets {} lead here", names.join(" and "));
        return if given.into_iter().any(is_public) {
            Finding::new("port_mapping", Verdict::Ok, text)
        } else {
            let text = format!("{text}, which is no address on the internet");
            Finding::new("port_mapping", Verdict::Note, text)
                .advice("see `nat`: there is another NAT behind the router")
        };
    }
    // On the internet itself there is nothing to ask for.
    if status.mappings.iter().any(|port| port.mapping == Mapping::None) && status.gateway.is_none() {
        return Finding::new("port_mapping", Verdict::Ok, "not needed");
    }
    match status.gateway.map(languages).as_deref() {
        None => Finding::new("port_mapping", Verdict::Unknown, "no router has answered so far"),
        Some([]) => Finding::new("port_mapping", Verdict::Note, "the router offers no port mapping").advice(SWITCH_ON),
        Some(known) => {
            let text = format!("the router offers port mapping ({}), but gave no port", known.join(", "));
            Finding::new("port_mapping", Verdict::Note, text).advice(SWITCH_ON)
        }
    }
}

fn is_public(address: &Address) -> bool {
    address.scope().is_some_and(Scope::is_global)
}

/// Whether others can begin connections.
pub(super) fn reachable(facts: &Facts) -> Finding {
    let status = facts.status();
    let proven = status.own_addresses.iter().filter(|own| own.proofs > 0 || own.confidence > 0);
    let proven: Vec<String> = proven.map(|own| own.address.to_string()).collect();
    let text = status.reachability_text.clone();
    match (status.reachability, facts.settings.role) {
        (Reachability::Public, _) if proven.is_empty() => Finding::new("reachable", Verdict::Ok, text),
        (Reachability::Public, _) => Finding::new("reachable", Verdict::Ok, format!("{text}, at {}", proven.join(", "))),
        (Reachability::Private, Role::Server) => Finding::new("reachable", Verdict::Problem, text)
            .advice("a server must be reachable: open its port (TCP and UDP) in the firewall, and name its address in `nat.external`"),
        (Reachability::Private, Role::Family | Role::Desktop) => Finding::new("reachable", Verdict::Note, text).advice(
            "that is usual at home: others come through a relay, and directly where the NATs allow it",
        ),
        (Reachability::Unknown, _) => Finding::new("reachable", Verdict::Unknown, text)
            .advice("peers on the internet have to try it; with a server as bootstrap peer this is known after half a minute"),
    }
}

/// Relays: how many, and each.
pub(super) fn relays(facts: &Facts) -> Vec<Finding> {
    let status = facts.status();
    let held = status.relays.iter().filter(|relay| relay.held_for_s.is_some()).count();
    let wanted = status.relays_wanted;
    let sum = match (held, wanted) {
        (0, 0) => Finding::new("relays", Verdict::Ok, "no relay is needed"),
        (0, _) => Finding::new(
            "relays",
            if status.reachability == Reachability::Private { Verdict::Problem } else { Verdict::Note },
            "no relay keeps a place for this node: nobody outside of the home network can reach it",
        )
        .advice("name a relay in `nat.relays`, or a server as bootstrap peer; servers of the network are relays, too"),
        (held, wanted) => {
            let keep = if held == 1 { "keeps" } else { "keep" };
            Finding::new(
                "relays",
                Verdict::Ok,
                format!("{held} of {wanted} wanted relays {keep} a place for this node"),
            )
        }
    };
    let each = status.relays.iter().map(|relay| {
        let rtt = relay.rtt_us.map(|rtt| format!(", {} away", round_trip(rtt))).unwrap_or_default();
        let finding = match (relay.held_for_s, &relay.last_error) {
            (Some(held), _) => {
                Finding::new("relay", Verdict::Ok, format!("keeps a place for this node for {}{rtt}", span(held)))
            }
            (None, Some(error)) => Finding::new("relay", Verdict::Note, format!("{error}{rtt}")),
            (None, None) => Finding::new("relay", Verdict::Unknown, format!("was not asked so far{rtt}")),
        };
        finding.about(short_name(&relay.relay))
    });
    [sum].into_iter().chain(each).collect()
}

/// What to open, where nobody gets in.
pub(super) fn firewall(facts: &Facts) -> Option<Finding> {
    let status = facts.status();
    if status.reachability == Reachability::Public {
        return None;
    }
    let ports = ports(status);
    let open_v6 = status.own_addresses.iter().any(|own| family(&own.address) == Some(Family::Ipv6) && own.proofs > 0);
    let v6 = facts.interfaces.addresses.iter().any(|own| own.ip.is_ipv6() && Scope::of(own.ip).is_global());
    if status.reachability == Reachability::Unknown || ports.is_empty() {
        return None;
    }
    let text = if v6 && !open_v6 {
        "this machine has a public IPv6 address, and a firewall seems to keep others out"
    } else {
        "others get in only if the router and this machine's firewall let them"
    };
    let advice = if v6 && !open_v6 {
        format!("allow incoming {ports} to this machine for IPv6 in the router; there is no NAT to get through then")
    } else {
        format!("to be reached directly, have the router forward {ports} to this machine, and allow it in its firewall")
    };
    Some(Finding::new("firewall", Verdict::Note, text).advice(advice))
}

/// The ports that the node listens on, in the words of routers: `UDP port 4001 and TCP port 4001`.
fn ports(status: &Status) -> String {
    let far = status
        .listening
        .iter()
        .filter(|address| !matches!(address.scope(), Some(Scope::Loopback | Scope::LinkLocal | Scope::Unspecified)));
    let mut ports: Vec<String> = far
        .filter_map(|address| {
            let kind = match address.transport()? {
                kinfolk_core::Transport::Tcp => "TCP",
                kinfolk_core::Transport::Quic => "UDP",
            };
            Some(format!("{kind} port {}", address.port()?))
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports.join(" and ")
}
