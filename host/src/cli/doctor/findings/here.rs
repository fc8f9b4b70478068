//! This machine and its home network.

use std::net::IpAddr;

use kinfolk_core::{Health, Scope, Source};

use super::{Facts, Finding, Verdict};
use crate::cli::{
    doctor::{facts::Clock, servers::stranger},
    program::typed,
    render::count,
};

/// 2025-01-01: no machine that runs this has an earlier day.
const EARLIEST: u64 = 1_735_689_600;

/// 1975-01-01: the certificates of QUIC in libp2p begin here.
const CERTIFICATES: u64 = 157_766_400;

/// Whether a node runs here, and how it is.
pub(super) fn node(facts: &Facts) -> Finding {
    let Some(running) = &facts.running else {
        return Finding::new("node", Verdict::Note, "no node is running here; a temporary one has looked around")
            .advice(format!("{} starts one", typed("up")));
    };
    let status = &running.status;
    let text = format!("a node is running here: {}", status.health_text);
    match status.health {
        Health::Connected | Health::Starting | Health::Alone => Finding::new("node", Verdict::Ok, text),
        Health::Partial => Finding::new("node", Verdict::Note, text).advice(format!(
            "{} shows who is missing, {} why",
            typed("peers"),
            typed("why PEER")
        )),
        Health::Isolated | Health::Offline => Finding::new("node", Verdict::Problem, text)
            .advice(format!("see below what stands in the way; {} tells what was tried", typed("why"))),
    }
}

/// Addresses and default routes.
pub(super) fn network(facts: &Facts) -> Finding {
    let far = |ip: &IpAddr| !matches!(Scope::of(*ip), Scope::Loopback | Scope::LinkLocal | Scope::Unspecified);
    let addresses: Vec<String> =
        facts.interfaces.addresses.iter().map(|own| own.ip).filter(far).map(|ip| ip.to_string()).collect();
    let (v4, v6) = (facts.interfaces.default_v4, facts.interfaces.default_v6);
    if addresses.is_empty() {
        return Finding::new("network", Verdict::Problem, "this machine is in no network")
            .advice("plug in the cable, or join a wireless network");
    }
    let addresses = addresses.join(", ");
    let ways = match (v4, v6) {
        (true, true) => "a way to the internet for IPv4 and IPv6",
        (true, false) => "a way to the internet for IPv4, none for IPv6",
        (false, true) => "a way to the internet for IPv6, none for IPv4",
        (false, false) => {
            return Finding::new(
                "network",
                Verdict::Problem,
                format!("addresses {addresses}, but no way to the internet"),
            )
            .advice("this machine has no default route: is the router on, and does it give out addresses (DHCP)?");
        }
    };
    Finding::new("network", Verdict::Ok, format!("addresses {addresses}; {ways}"))
}

/// The wall clock.
pub(super) fn clock(facts: &Facts) -> Finding {
    const SET: &str = "switch time synchronisation on: `sudo timedatectl set-ntp true`";
    let Clock { unix, synced } = facts.clock;
    match synced {
        _ if unix < CERTIFICATES => Finding::new(
            "clock",
            Verdict::Problem,
            "the clock stands before 1975: nodes connect by TCP only, not by QUIC, and not to names with certificates",
        )
        .advice(SET),
        _ if unix < EARLIEST => Finding::new(
            "clock",
            Verdict::Problem,
            "the clock is years behind: connections to names with certificates fail, and times in logs are wrong",
        )
        .advice(SET),
        Some(true) => Finding::new("clock", Verdict::Ok, "the clock is kept right by a time service"),
        Some(false) => Finding::new("clock", Verdict::Note, "no time service keeps the clock right").advice(SET),
        None => Finding::new("clock", Verdict::Unknown, "it is not known whether a time service keeps the clock right")
            .advice("`timedatectl` or `chronyc tracking` may tell; nodes connect with a wrong clock too"),
    }
}

/// Finding others on the home network.
pub(super) fn mdns(facts: &Facts) -> Finding {
    if !facts.settings.mdns {
        return Finding::new(
            "mdns",
            Verdict::Note,
            "others on the home network are not looked for: the settings say so",
        )
        .advice("set `mdns = true` to find them without being told where they are");
    }
    let joined = facts.multicast.iter().filter(|(_, result)| result.is_ok()).count();
    let Some((ip, first)) = facts.multicast.first() else {
        return Finding::new("mdns", Verdict::Unknown, "there is no home network to look for others on");
    };
    if let (0, Err(error)) = (joined, first) {
        return Finding::new(
            "mdns",
            Verdict::Problem,
            format!("nobody can be found by multicast (mDNS) from {ip}: {error}"),
        )
        .advice("allow multicast to 224.0.0.251, UDP port 5353, in this machine's firewall");
    }
    let itself = facts.running.as_ref().map(|running| running.status.peer);
    let found = stranger(&facts.temporary.peers, itself);
    let found = found.filter(|peer| peer.addresses.iter().any(|known| known.sources.contains(&Source::Mdns)));
    match found.count() as u64 {
        0 => Finding::new("mdns", Verdict::Ok, "others on the home network can be looked for; nobody else was found").advice(
            "if another node runs there: do both use the same `network` name, and does the wireless router keep its \
             devices apart (\"client isolation\", \"guest network\")?",
        ),
        number => {
            let nodes = count(number, "other node", "other nodes");
            Finding::new("mdns", Verdict::Ok, format!("{nodes} found on the home network"))
        }
    }
}
