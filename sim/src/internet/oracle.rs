//! Can these two be direct? Said from what the routers are, without a packet.

use std::net::IpAddr;

use super::{Dependence, FirewallKind, HostId, INTERNET, Internet, Protocol};

/// How two hosts can come together directly at best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reach {
    /// They can't.
    Never,
    /// By a punched hole only.
    Punched,
    /// One of them can dial the other.
    Dialled,
    /// They share a network.
    Near,
}

/// What stands before a host, seen from outside: the routers taken together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Front {
    mapping: Dependence,
    filtering: Dependence,
    /// No router at all.
    open: bool,
}

impl Internet {
    /// How two hosts can come together directly at best, by any family and transport; `ports` says whether port mapping
    /// is asked for where a router gives it.
    pub fn reach(&self, a: HostId, b: HostId, ports: bool) -> Reach {
        let (one, other) = (self.host(a), self.host(b));
        if one.segment == other.segment && one.segment != INTERNET {
            return Reach::Near;
        }
        let passes = |protocol: &Protocol| ![one.site, other.site].iter().any(|site| self.is_blocked(*site, *protocol));
        let protocols = [Protocol::Udp, Protocol::Tcp].into_iter().filter(passes);
        let by_v6 = match (one.v6, other.v6) {
            (Some(_), Some(_)) if protocols.clone().next().is_some() => self.reach_v6(a, b),
            (Some(_) | None, _) => Reach::Never,
        };
        protocols.map(|protocol| self.reach_v4(a, b, protocol, ports)).fold(by_v6, Reach::max)
    }

    fn reach_v6(&self, a: HostId, b: HostId) -> Reach {
        let guarded = |host| {
            let mut routers = self.routers_of(host);
            routers.any(|router| self.routers[router as usize].firewall.kind == FirewallKind::Stateful)
        };
        // A stateful firewall translates nothing: both know each other's endpoint, so a hole can always be punched.
        if guarded(a) && guarded(b) { Reach::Punched } else { Reach::Dialled }
    }

    fn reach_v4(&self, a: HostId, b: HostId, protocol: Protocol, ports: bool) -> Reach {
        let (Some(one), Some(other)) = (self.front(a, b, protocol, ports), self.front(b, a, protocol, ports)) else {
            return Reach::Never;
        };
        let accepts = |front: Front| {
            front.open || (front.mapping == Dependence::Endpoint && front.filtering == Dependence::Endpoint)
        };
        if accepts(one) || accepts(other) {
            return Reach::Dialled;
        }
        // A hole: each side must let in what comes from the endpoint that it has sent to. Where a mapping depends on the
        // destination, the other side does not know the port that packets will come from, so its filter must not ask.
        let known = |front: Front| front.mapping == Dependence::Endpoint;
        let lets_in = |mine: Front, theirs: Front| known(theirs) || mine.filtering != Dependence::AddressAndPort;
        if (known(one) || known(other)) && lets_in(one, other) && lets_in(other, one) {
            Reach::Punched
        } else {
            Reach::Never
        }
    }

    /// What stands between a host and the network that it shares with another. `None`: nothing gets through.
    fn front(&self, host: HostId, other: HostId, protocol: Protocol, ports: bool) -> Option<Front> {
        self.host(host).v4?;
        let shared: Vec<_> = self.routers_of(other).collect();
        let mut front = Front { mapping: Dependence::Endpoint, filtering: Dependence::Endpoint, open: true };
        let mut alone = true;
        for router in self.routers_of(host) {
            let kind = &self.routers[router as usize].nat.kind;
            if shared.contains(&router) {
                // Behind the same provider's router they meet inside it, by its outer addresses, only if it hairpins.
                return kind.hairpin.then_some(front);
            }
            if protocol == Protocol::Udp && !kind.udp {
                return None;
            }
            let mapped = ports && kind.gives_ports && alone && self.is_outermost(router);
            let filtering = if mapped { Dependence::Endpoint } else { kind.filters(protocol) };
            let mapping = if mapped { Dependence::Endpoint } else { kind.mapping };
            front.open = false;
            front.mapping = stricter(front.mapping, mapping);
            front.filtering = stricter(front.filtering, filtering);
            alone = false;
        }
        Some(front)
    }

    fn is_outermost(&self, router: u32) -> bool {
        self.routers[router as usize].outside == INTERNET
    }

    /// Whether an address belongs to this host on the internet, without a router before it.
    pub fn is_public(&self, host: HostId, ip: IpAddr) -> bool {
        let host = self.host(host);
        host.segment == INTERNET && (host.v4.map(IpAddr::V4) == Some(ip) || host.v6.map(IpAddr::V6) == Some(ip))
    }
}

const fn stricter(a: Dependence, b: Dependence) -> Dependence {
    match (a, b) {
        (Dependence::AddressAndPort, _) | (_, Dependence::AddressAndPort) => Dependence::AddressAndPort,
        (Dependence::Address, _) | (_, Dependence::Address) => Dependence::Address,
        (Dependence::Endpoint, Dependence::Endpoint) => Dependence::Endpoint,
    }
}
