//! The simulated internet: hosts, home networks, routers with NATs and firewalls, links, partitions, names.
//!
//! A packet is looked at twice: when it *departs* (its way out through the sender's routers, each of which opens or
//! refreshes a mapping) and when it *arrives* (its way in through the receiver's routers). Between the two lies its
//! delay, so what crosses on the way crosses here, too: that is what hole punching lives on. Networks nest: a home lies
//! behind its router, which may lie behind a provider's.

mod firewall;
mod links;
mod nat;
mod oracle;

pub use firewall::{Firewall, FirewallKind};
pub use links::{Links, Site, SiteId, Weather};
pub use nat::{Dependence, Dropped, Nat, NatKind, PortChoice, Protocol, Refresh};
pub use oracle::Reach;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use kinfolk_core::{Interfaces, Prefix};
use rustc_hash::FxHashMap;

use crate::engine::{Dice, MILLI, Moment};

/// A host's number.
pub type HostId = u32;
/// A network's number; 0 is the internet.
pub type SegmentId = u32;
/// A router's number.
pub type RouterId = u32;

/// The network that has no gateway.
pub const INTERNET: SegmentId = 0;
/// How long it takes across a home network, in nanoseconds.
const LAN_DELAY: u64 = MILLI / 2;
/// Routers between a host and the internet at most.
const MAX_DEPTH: usize = 4;

/// A machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// The network it is plugged into.
    pub segment: SegmentId,
    /// Its site: what fails together.
    pub site: SiteId,
    /// Its IPv4 address there.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Whether its cable is plugged in and its interface is up.
    pub plugged: bool,
}

/// Something between two networks.
#[derive(Clone, Debug)]
pub struct Router {
    inside: SegmentId,
    outside: SegmentId,
    site: SiteId,
    v4: Option<Ipv4Addr>,
    /// Translates IPv4.
    pub nat: Nat,
    /// Guards IPv6.
    pub firewall: Firewall,
    /// Whether it is switched on.
    pub on: bool,
}

#[derive(Clone, Debug)]
struct Segment {
    gateway: Option<RouterId>,
    /// Base and length of the IPv4 network.
    v4: (Ipv4Addr, u8),
    next: u32,
    owners: FxHashMap<u32, Owner>,
    hosts: Vec<HostId>,
}

/// Who has an address in a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Host(HostId),
    Router(RouterId),
}

/// A packet on its way.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// What is carried.
    pub protocol: Protocol,
    /// Whence, as the receiver's side sees it.
    pub from: SocketAddr,
    /// Whereto, as the sender's side sees it.
    pub to: SocketAddr,
    /// How long it takes, without what chance adds.
    pub delay: u64,
    sites: (SiteId, SiteId),
    owner: Owner,
}

/// Why a packet does not depart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stuck {
    /// The operating system knows no way: no interface, no route, no address of that family.
    NoRoute,
    /// Nobody on this network has the address; the operating system says so after some seconds.
    NobodyThere,
    /// It is lost without a word.
    Silence,
}

/// Where a packet has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// At which host.
    pub host: HostId,
    /// At which of its endpoints.
    pub at: SocketAddr,
}

/// Why a packet does not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotArrived {
    /// It is lost without a word.
    Silence,
    /// A router says no, at once (TCP only).
    Reset,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Internet {
    hosts: Vec<Host>,
    routers: Vec<Router>,
    segments: Vec<Segment>,
    v6: FxHashMap<u128, HostId>,
    /// Delays, losses, partitions.
    pub links: Links,
    names: FxHashMap<String, Vec<IpAddr>>,
    /// Protocols that a site's line carries to nobody and from nobody.
    blocked: Vec<(SiteId, Protocol)>,
    /// Whether names can be looked up.
    pub dns: bool,
    dice: Dice,
}

impl Internet {
    /// An empty one.
    pub fn new(dice: Dice) -> Self {
        let internet = Segment {
            gateway: None,
            v4: (Ipv4Addr::UNSPECIFIED, 0),
            next: 0,
            owners: FxHashMap::default(),
            hosts: Vec::new(),
        };
        Self {
            hosts: Vec::new(),
            routers: Vec::new(),
            segments: vec![internet],
            v6: FxHashMap::default(),
            links: Links::default(),
            names: FxHashMap::default(),
            blocked: Vec::new(),
            dns: true,
            dice,
        }
    }

    /// A home network, or a provider's, behind a router: `v4` is its base, such as 192.168.1.0/24, whose first address is
    /// the router's inner one. `outer` is the router's address in `outside`, if that is the internet; elsewhere it gets
    /// the next free one.
    pub fn add_network(
        &mut self,
        site: SiteId,
        outside: SegmentId,
        outer: Option<Ipv4Addr>,
        v4: (Ipv4Addr, u8),
        nat: NatKind,
        firewall: FirewallKind,
    ) -> (SegmentId, RouterId) {
        let inside = self.segments.len() as SegmentId;
        let router = self.routers.len() as RouterId;
        self.segments.push(Segment {
            gateway: Some(router),
            v4,
            next: 2,
            owners: FxHashMap::default(),
            hosts: Vec::new(),
        });
        let outer = outer.or_else(|| self.next_address(outside));
        if let Some(outer) = outer {
            self.segments[outside as usize].owners.insert(outer.into(), Owner::Router(router));
        }
        self.routers.push(Router {
            inside,
            outside,
            site,
            v4: outer,
            nat: Nat::new(nat),
            firewall: Firewall::new(firewall),
            on: true,
        });
        (inside, router)
    }

    /// A host in a network, with the next free IPv4 address unless `v4` names one. On the internet it must.
    pub fn add_host(&mut self, site: SiteId, segment: SegmentId, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> HostId {
        let host = self.hosts.len() as HostId;
        let v4 = v4.or_else(|| self.next_address(segment));
        let network = &mut self.segments[segment as usize];
        if let Some(v4) = v4 {
            network.owners.insert(v4.into(), Owner::Host(host));
        }
        network.hosts.push(host);
        if let Some(v6) = v6 {
            self.v6.insert(v6.into(), host);
        }
        self.hosts.push(Host { segment, site, v4, v6, plugged: true });
        host
    }

    /// A site's line no longer carries a protocol.
    pub fn block(&mut self, site: SiteId, protocol: Protocol) {
        self.blocked.push((site, protocol));
    }

    fn is_blocked(&self, site: SiteId, protocol: Protocol) -> bool {
        self.blocked.contains(&(site, protocol))
    }

    /// What a name stands for.
    pub fn add_name(&mut self, name: &str, addresses: Vec<IpAddr>) {
        self.names.insert(name.to_owned(), addresses);
    }

    /// Looks a name up. `None`: nobody answers; empty: there is no such name.
    pub fn resolve(&self, name: &str) -> Option<&[IpAddr]> {
        self.dns.then(|| self.names.get(name).map_or(&[][..], Vec::as_slice))
    }

    /// How many hosts there are.
    pub const fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether nobody is there.
    pub const fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// A host.
    pub fn host(&self, host: HostId) -> &Host {
        &self.hosts[host as usize]
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The hosts of a network.
    pub fn neighbours(&self, segment: SegmentId) -> &[HostId] {
        &self.segments[segment as usize].hosts
    }

    /// The router in front of a network.
    pub fn gateway(&self, segment: SegmentId) -> Option<RouterId> {
        self.segments[segment as usize].gateway
    }

    /// Whether a router is switched on.
    pub fn router_is_on(&self, router: RouterId) -> bool {
        self.routers[router as usize].on
    }

    /// A router.
    pub fn router(&mut self, router: RouterId) -> &mut Router {
        &mut self.routers[router as usize]
    }

    /// The outer address of a router.
    pub fn outer_address(&self, router: RouterId) -> Option<Ipv4Addr> {
        self.routers[router as usize].v4
    }

    /// The router behind which a host is, the nearest first.
    pub fn routers_of(&self, host: HostId) -> impl Iterator<Item = RouterId> {
        let mut segment = self.hosts[host as usize].segment;
        std::iter::from_fn(move || {
            let router = self.segments[segment as usize].gateway?;
            segment = self.routers[router as usize].outside;
            Some(router)
        })
    }

    /// Gives a router another outer address on the internet.
    pub fn readdress(&mut self, router: RouterId, outer: Ipv4Addr) {
        let known = &mut self.routers[router as usize];
        let owners = &mut self.segments[known.outside as usize].owners;
        if let Some(old) = known.v4.replace(outer) {
            owners.remove(&old.into());
        }
        owners.insert(outer.into(), Owner::Router(router));
    }

    /// Plugs a host into another network, or the same one again.
    pub fn plug(&mut self, host: HostId, segment: SegmentId, v6: Option<Ipv6Addr>) {
        let known = &mut self.hosts[host as usize];
        let old = &mut self.segments[known.segment as usize];
        old.hosts.retain(|other| *other != host);
        if let Some(v4) = known.v4 {
            old.owners.remove(&v4.into());
        }
        if let Some(v6) = known.v6 {
            self.v6.remove(&v6.into());
        }
        let v4 = self.next_address(segment);
        let network = &mut self.segments[segment as usize];
        network.hosts.push(host);
        if let Some(v4) = v4 {
            network.owners.insert(v4.into(), Owner::Host(host));
        }
        if let Some(v6) = v6 {
            self.v6.insert(v6.into(), host);
        }
        let known = &mut self.hosts[host as usize];
        (known.segment, known.v4, known.v6, known.plugged) = (segment, v4, v6, true);
    }

    /// Pulls or plugs a host's cable.
    pub fn set_plugged(&mut self, host: HostId, plugged: bool) {
        self.hosts[host as usize].plugged = plugged;
    }

    /// What a host's operating system says of its addresses and routes.
    pub fn interfaces(&self, host: HostId) -> Interfaces {
        let host = &self.hosts[host as usize];
        let prefix = |ip: IpAddr, len| Prefix { ip, len };
        let mut addresses = vec![prefix(Ipv4Addr::LOCALHOST.into(), 8), prefix(Ipv6Addr::LOCALHOST.into(), 128)];
        let (v4, v6) = if host.plugged { (host.v4, host.v6) } else { (None, None) };
        let segment = &self.segments[host.segment as usize];
        let len = if host.segment == INTERNET { 24 } else { segment.v4.1 };
        addresses.extend(v4.map(|ip| prefix(ip.into(), len)));
        addresses.extend(v6.map(|ip| prefix(ip.into(), 64)));
        let way = host.segment == INTERNET || segment.gateway.is_some();
        Interfaces { addresses, default_v4: v4.is_some() && way, default_v6: v6.is_some() && way }
    }

    /// Whether two hosts hear each other's multicasts.
    pub fn share_network(&self, a: HostId, b: HostId) -> bool {
        let (a, b) = (&self.hosts[a as usize], &self.hosts[b as usize]);
        a.segment == b.segment && a.segment != INTERNET && a.plugged && b.plugged
    }

    /// A packet leaves a host, from one of its ports.
    ///
    /// # Errors
    /// When it does not get as far as the network that it shares with its destination.
    pub fn depart(
        &mut self,
        now: Moment,
        host: HostId,
        protocol: Protocol,
        port: u16,
        to: SocketAddr,
    ) -> Result<Flight, Stuck> {
        let sender = &self.hosts[host as usize];
        if !sender.plugged {
            return Err(Stuck::NoRoute);
        }
        match to {
            SocketAddr::V4(to) => self.depart_v4(now, host, protocol, port, to),
            SocketAddr::V6(to) => self.depart_v6(now, host, protocol, port, to),
        }
    }

    fn depart_v4(
        &mut self,
        now: Moment,
        host: HostId,
        protocol: Protocol,
        port: u16,
        to: SocketAddrV4,
    ) -> Result<Flight, Stuck> {
        let sender = &self.hosts[host as usize];
        let mut from = SocketAddrV4::new(sender.v4.ok_or(Stuck::NoRoute)?, port);
        let (mut segment, site, mut hops) = (sender.segment, sender.site, 0);
        let owner = loop {
            let network = &self.segments[segment as usize];
            if let Some(owner) = network.owners.get(&u32::from(*to.ip())) {
                break *owner;
            }
            if hops == 0 && segment != INTERNET && lies_in(*to.ip(), network.v4) {
                return Err(Stuck::NobodyThere);
            }
            let Some(gateway) = network.gateway else { return Err(Stuck::Silence) };
            let router = &mut self.routers[gateway as usize];
            let (true, Some(outer)) = (router.on, router.v4) else { return Err(Stuck::Silence) };
            let port = router.nat.outbound(now, protocol, from, to, &mut self.dice).map_err(|_| Stuck::Silence)?;
            if outer == *to.ip() && !router.nat.kind.hairpin {
                return Err(Stuck::Silence);
            }
            from = SocketAddrV4::new(outer, port);
            segment = router.outside;
            hops += 1;
        };
        self.flight(protocol, from.into(), to.into(), site, segment, owner)
    }

    fn depart_v6(
        &mut self,
        now: Moment,
        host: HostId,
        protocol: Protocol,
        port: u16,
        to: SocketAddrV6,
    ) -> Result<Flight, Stuck> {
        let sender = &self.hosts[host as usize];
        let from = SocketAddrV6::new(sender.v6.ok_or(Stuck::NoRoute)?, port, 0, 0);
        let site = sender.site;
        let Some(receiver) = self.v6.get(&u128::from(*to.ip())).copied() else { return Err(Stuck::Silence) };
        let mut segment = sender.segment;
        if self.hosts[receiver as usize].segment != segment {
            while let Some(gateway) = self.segments[segment as usize].gateway {
                let router = &mut self.routers[gateway as usize];
                if !router.on {
                    return Err(Stuck::Silence);
                }
                router.firewall.outbound(now, protocol, from, to);
                segment = router.outside;
            }
        }
        self.flight(protocol, from.into(), to.into(), site, segment, Owner::Host(receiver))
    }

    fn flight(
        &self,
        protocol: Protocol,
        from: SocketAddr,
        to: SocketAddr,
        site: SiteId,
        segment: SegmentId,
        owner: Owner,
    ) -> Result<Flight, Stuck> {
        let other = match owner {
            Owner::Host(host) => self.hosts[host as usize].site,
            Owner::Router(router) => self.routers[router as usize].site,
        };
        if segment == INTERNET && (self.is_blocked(site, protocol) || self.is_blocked(other, protocol)) {
            return Err(Stuck::Silence);
        }
        let delay = if segment == INTERNET { self.links.delay(site, other) } else { LAN_DELAY };
        // What leaves a site and comes back to it has been at the provider's.
        Ok(Flight { protocol, from, to, delay, sites: (site, other), owner })
    }

    /// Whether chance and partitions let a packet through, and what it takes longer.
    pub fn luck(&self, now: Moment, flight: &Flight, dice: &mut Dice) -> Option<u64> {
        if flight.delay == LAN_DELAY {
            return Some(dice.below(LAN_DELAY));
        }
        self.links.luck(now, flight.sites.0, flight.sites.1, dice)
    }

    /// A packet reaches the network of its destination, and goes in.
    ///
    /// # Errors
    /// When it does not get to a host.
    pub fn arrive(&mut self, now: Moment, flight: &Flight) -> Result<Arrived, NotArrived> {
        let mut to = flight.to;
        let mut owner = flight.owner;
        for _ in 0..=MAX_DEPTH {
            match (owner, to, flight.from) {
                (Owner::Host(host), SocketAddr::V4(_), _) => {
                    let at = &self.hosts[host as usize];
                    let blocked = flight.delay != LAN_DELAY && self.is_blocked(at.site, flight.protocol);
                    let there = at.plugged && !blocked && at.v4.is_some_and(|ip| IpAddr::V4(ip) == to.ip());
                    return if there { Ok(Arrived { host, at: to }) } else { Err(NotArrived::Silence) };
                }
                (Owner::Host(host), SocketAddr::V6(inside), SocketAddr::V6(from)) => {
                    return self.arrive_v6(now, flight.protocol, host, inside, from);
                }
                (Owner::Router(router), SocketAddr::V4(outer), SocketAddr::V4(from)) => {
                    let router = &mut self.routers[router as usize];
                    if !router.on || router.v4 != Some(*outer.ip()) {
                        return Err(NotArrived::Silence);
                    }
                    match router.nat.inbound(now, flight.protocol, outer.port(), from) {
                        Ok(inside) => {
                            to = inside.into();
                            let inner = &self.segments[router.inside as usize];
                            let Some(next) = inner.owners.get(&u32::from(*inside.ip())) else {
                                return Err(NotArrived::Silence);
                            };
                            owner = *next;
                        }
                        Err(_) if flight.protocol == Protocol::Tcp && router.nat.kind.resets => {
                            return Err(NotArrived::Reset);
                        }
                        Err(_) => return Err(NotArrived::Silence),
                    }
                }
                (Owner::Router(_) | Owner::Host(_), ..) => return Err(NotArrived::Silence),
            }
        }
        Err(NotArrived::Silence)
    }

    fn arrive_v6(
        &mut self,
        now: Moment,
        protocol: Protocol,
        host: HostId,
        inside: SocketAddrV6,
        from: SocketAddrV6,
    ) -> Result<Arrived, NotArrived> {
        let receiver = &self.hosts[host as usize];
        if !receiver.plugged || receiver.v6 != Some(*inside.ip()) {
            return Err(NotArrived::Silence);
        }
        let sender = self.v6.get(&u128::from(*from.ip())).map(|host| self.hosts[*host as usize].segment);
        let mut segment = receiver.segment;
        if sender != Some(segment) {
            while let Some(gateway) = self.segments[segment as usize].gateway {
                let router = &mut self.routers[gateway as usize];
                if !router.on || !router.firewall.inbound(now, protocol, inside, from) {
                    return Err(NotArrived::Silence);
                }
                segment = router.outside;
            }
        }
        Ok(Arrived { host, at: inside.into() })
    }

    fn next_address(&mut self, segment: SegmentId) -> Option<Ipv4Addr> {
        let network = &mut self.segments[segment as usize];
        if segment == INTERNET {
            return None;
        }
        let (base, len) = network.v4;
        let size = 1u64 << (32 - u32::from(len.min(32)));
        for _ in 0..size {
            let offset = network.next;
            network.next = if u64::from(offset) + 2 >= size { 2 } else { offset + 1 };
            let address = u32::from(base) + offset;
            if !network.owners.contains_key(&address) {
                return Some(address.into());
            }
        }
        None
    }
}

fn lies_in(ip: Ipv4Addr, (base, len): (Ipv4Addr, u8)) -> bool {
    let shift = 32 - u32::from(len.min(32));
    u32::from(ip).checked_shr(shift).unwrap_or(0) == u32::from(base).checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests;
