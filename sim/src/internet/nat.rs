//! A NAT as RFC 4787 (UDP) and RFC 5382 (TCP) describe them: how ports are mapped, who is let in, and for how long.

use std::net::{Ipv4Addr, SocketAddrV4};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::engine::{Dice, Moment, SECOND};

/// What a mapping, or a filter, depends on (RFC 4787, sections 4.1 and 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dependence {
    /// On nothing but the inner endpoint.
    Endpoint,
    /// On the other side's address, too.
    Address,
    /// On the other side's address and port, too.
    AddressAndPort,
}

/// What is carried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// Datagrams: QUIC.
    Udp,
    /// Streams.
    Tcp,
}

/// Which outer port a new mapping gets (RFC 4787, section 4.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortChoice {
    /// The inner one, if it is free; else the next free one.
    Preserve,
    /// One after the other.
    Sequential,
    /// Any.
    Random,
}

/// What keeps a mapping alive (RFC 4787, REQ-6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refresh {
    /// Packets from inside.
    Outbound,
    /// Packets in both directions.
    Both,
}

/// How a NAT behaves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NatKind {
    /// How ports are mapped.
    pub mapping: Dependence,
    /// Who is let in, by UDP.
    pub filtering: Dependence,
    /// The same by TCP.
    pub tcp_filtering: Dependence,
    /// Which port a mapping gets.
    pub ports: PortChoice,
    /// What keeps a mapping alive.
    pub refresh: Refresh,
    /// Whether two inside reach each other by their outer addresses.
    pub hairpin: bool,
    /// A UDP mapping without traffic lives this long, in nanoseconds. RFC 4787 wants two minutes; many give 30 s.
    pub udp_timeout: u64,
    /// The same for an established TCP connection; RFC 5382 wants 2 h 4 min.
    pub tcp_timeout: u64,
    /// The same for a TCP connection that is being opened; RFC 5382 wants 4 min.
    pub tcp_opening: u64,
    /// Whether UDP gets through at all.
    pub udp: bool,
    /// Whether a TCP connection that nobody inside wants is answered by a reset, at once, instead of by silence.
    pub resets: bool,
    /// Whether it gives port mappings to those who ask (UPnP, NAT-PMP, PCP).
    pub gives_ports: bool,
    /// Mappings at once.
    pub capacity: u32,
}

impl NatKind {
    /// Independent mapping and filtering.
    pub const fn full_cone() -> Self {
        Self::of(Dependence::Endpoint, Dependence::Endpoint)
    }

    /// Independent mapping; lets in whom somebody inside has sent to.
    pub const fn address_restricted() -> Self {
        Self::of(Dependence::Endpoint, Dependence::Address)
    }

    /// Independent mapping; lets in the endpoints that somebody inside has sent to. The usual home router.
    pub const fn port_restricted() -> Self {
        Self::of(Dependence::Endpoint, Dependence::AddressAndPort)
    }

    /// Another port for each destination, chosen at random.
    pub const fn symmetric() -> Self {
        let kind = Self::of(Dependence::AddressAndPort, Dependence::AddressAndPort);
        Self { ports: PortChoice::Random, ..kind }
    }

    /// A provider's: independent mapping and filtering with many ports, and inside meets inside (RFC 6888).
    pub const fn carrier_grade() -> Self {
        Self {
            ports: PortChoice::Random,
            gives_ports: false,
            hairpin: true,
            capacity: 60_000,
            ..Self::port_restricted()
        }
    }

    /// The kinds that have names, for scenarios.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("full-cone", Self::full_cone()),
        // As Linux can be made one.
        ("full-cone-udp", Self { tcp_filtering: Dependence::AddressAndPort, ..Self::full_cone() }),
        ("address-restricted", Self::address_restricted()),
        ("port-restricted", Self::port_restricted()),
        ("symmetric", Self::symmetric()),
        ("carrier-grade", Self::carrier_grade()),
        ("udp-blocked", Self { udp: false, ..Self::port_restricted() }),
        ("hairpin", Self { hairpin: true, ..Self::port_restricted() }),
    ];

    const fn of(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            mapping,
            filtering,
            tcp_filtering: filtering,
            ports: PortChoice::Preserve,
            refresh: Refresh::Both,
            hairpin: false,
            udp_timeout: 30 * SECOND,
            tcp_timeout: 7_440 * SECOND,
            tcp_opening: 240 * SECOND,
            udp: true,
            resets: false,
            gives_ports: false,
            capacity: 16_384,
        }
    }

    /// Who is let in, by this protocol.
    pub const fn filters(&self, protocol: Protocol) -> Dependence {
        match protocol {
            Protocol::Udp => self.filtering,
            Protocol::Tcp => self.tcp_filtering,
        }
    }
}

/// Why a packet is not let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// Nobody inside has this port.
    NoMapping,
    /// Somebody has, and does not expect this sender.
    Filtered,
    /// This protocol is blocked.
    Blocked,
    /// All ports are taken.
    Full,
}

/// A NAT with all that it remembers.
#[derive(Clone, Debug)]
pub struct Nat {
    /// How it behaves.
    pub kind: NatKind,
    mappings: Vec<Mapping>,
    free: Vec<u32>,
    /// By protocol, inner endpoint and what of the destination counts.
    out: FxHashMap<(Protocol, SocketAddrV4, SocketAddrV4), u32>,
    /// By protocol and outer port.
    by_port: FxHashMap<(Protocol, u16), u32>,
    leases: FxHashMap<(Protocol, u16), Lease>,
    /// By protocol, inner and outer endpoint: what came in by a lease is answered from its port.
    answered: FxHashMap<(Protocol, SocketAddrV4, SocketAddrV4), Answered>,
    next_port: u16,
    sweep_at: Moment,
}

#[derive(Clone, Debug)]
struct Mapping {
    protocol: Protocol,
    inside: SocketAddrV4,
    /// What of the destination counts.
    to: SocketAddrV4,
    port: u16,
    last: Moment,
    established: bool,
    /// Whom the inside has sent to, and when last: who is let in.
    sent_to: SmallVec<[(SocketAddrV4, Moment); 4]>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    inside: SocketAddrV4,
    until: Moment,
}

/// A conversation that somebody outside began, by a lease.
#[derive(Clone, Copy, Debug)]
struct Answered {
    port: u16,
    last: Moment,
}

/// Ports that are given out.
const PORTS: std::ops::RangeInclusive<u16> = 1_024..=65_535;
/// How often what has expired is thrown away.
const SWEEP: u64 = 600 * SECOND;

impl Nat {
    /// A NAT that has just been switched on.
    pub fn new(kind: NatKind) -> Self {
        Self {
            kind,
            mappings: Vec::new(),
            free: Vec::new(),
            out: FxHashMap::default(),
            by_port: FxHashMap::default(),
            leases: FxHashMap::default(),
            answered: FxHashMap::default(),
            next_port: 0,
            sweep_at: 0,
        }
    }

    /// A packet from inside: from which outer port it goes on.
    ///
    /// # Errors
    /// When it does not.
    pub fn outbound(
        &mut self,
        now: Moment,
        protocol: Protocol,
        inside: SocketAddrV4,
        to: SocketAddrV4,
        dice: &mut Dice,
    ) -> Result<u16, Dropped> {
        if protocol == Protocol::Udp && !self.kind.udp {
            return Err(Dropped::Blocked);
        }
        if now >= self.sweep_at {
            self.sweep(now);
        }
        if let Some(port) = self.answers(now, protocol, inside, to) {
            return Ok(port);
        }
        let key = (protocol, inside, significant(self.kind.mapping, to));
        let known = self.out.get(&key).copied();
        let live = known.filter(|at| !self.has_expired(*at, now));
        let at = match (live, known) {
            (Some(at), _) => at,
            (None, expired) => {
                if let Some(expired) = expired {
                    self.remove(expired);
                }
                self.open(now, key, dice)?
            }
        };
        let counts = significant(self.kind.filters(protocol), to);
        let timeout = self.timeout(at);
        let mapping = &mut self.mappings[at as usize];
        mapping.last = now;
        match mapping.sent_to.iter_mut().find(|(other, _)| *other == counts) {
            Some((_, last)) => *last = now,
            None => {
                if mapping.sent_to.len() >= 16 {
                    mapping.sent_to.retain(|(_, last)| *last + timeout > now);
                }
                mapping.sent_to.push((counts, now));
            }
        }
        Ok(mapping.port)
    }

    /// A packet from outside to one of our ports: to which inner endpoint it goes on.
    ///
    /// # Errors
    /// When it does not.
    pub fn inbound(
        &mut self,
        now: Moment,
        protocol: Protocol,
        port: u16,
        from: SocketAddrV4,
    ) -> Result<SocketAddrV4, Dropped> {
        if protocol == Protocol::Udp && !self.kind.udp {
            return Err(Dropped::Blocked);
        }
        let mapped = self.by_port.get(&(protocol, port)).copied().filter(|at| !self.has_expired(*at, now));
        if let Some(at) = mapped {
            let timeout = self.timeout(at);
            let filtering = self.kind.filters(protocol);
            let independent = filtering == Dependence::Endpoint;
            let counts = significant(filtering, from);
            let refresh = self.kind.refresh == Refresh::Both;
            let mapping = &mut self.mappings[at as usize];
            let allowed = mapping.sent_to.iter_mut().find(|(other, last)| *other == counts && *last + timeout > now);
            let passes = independent || allowed.is_some();
            if passes {
                mapping.established = true;
                if refresh {
                    mapping.last = now;
                    if let Some((_, last)) = allowed {
                        *last = now;
                    }
                }
                return Ok(mapping.inside);
            }
        }
        match self.leases.get(&(protocol, port)) {
            Some(lease) if lease.until > now => {
                let inside = lease.inside;
                // Unless the two talk already, by a mapping of their own.
                let own = self.out.get(&(protocol, inside, significant(self.kind.mapping, from)));
                let talks = |at: &u32| !self.has_expired(*at, now) && self.mappings[*at as usize].established;
                if !own.is_some_and(talks) {
                    self.answered.insert((protocol, inside, from), Answered { port, last: now });
                }
                Ok(inside)
            }
            Some(_) | None => Err(if mapped.is_some() { Dropped::Filtered } else { Dropped::NoMapping }),
        }
    }

    /// Somebody inside asks for an outer port that leads to it, for everyone: the one it wants, if that is free.
    ///
    /// # Errors
    /// When none is given.
    pub fn lease(
        &mut self,
        now: Moment,
        protocol: Protocol,
        inside: SocketAddrV4,
        wanted: u16,
        until: Moment,
    ) -> Result<u16, Dropped> {
        if !self.kind.gives_ports {
            return Err(Dropped::Blocked);
        }
        let mut port = wanted.max(*PORTS.start());
        for _ in 0..64 {
            let leased = self.leases.get(&(protocol, port)).filter(|lease| lease.until > now);
            let by_other =
                leased.is_some_and(|lease| lease.inside != inside) || self.is_taken(now, protocol, port, inside);
            if !by_other {
                self.leases.insert((protocol, port), Lease { inside, until });
                return Ok(port);
            }
            port = port.checked_add(1).unwrap_or(*PORTS.start());
        }
        Err(Dropped::Full)
    }

    /// Somebody inside gives a port back.
    pub fn unlease(&mut self, protocol: Protocol, inside: SocketAddrV4) {
        self.leases.retain(|(of, _), lease| *of != protocol || lease.inside != inside);
    }

    /// Switched off and on: nothing is remembered.
    pub fn reboot(&mut self) {
        *self = Self::new(self.kind.clone());
    }

    /// How many mappings are remembered, the expired ones included.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether no mapping is remembered.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    fn answers(&mut self, now: Moment, protocol: Protocol, inside: SocketAddrV4, to: SocketAddrV4) -> Option<u16> {
        if self.answered.is_empty() {
            return None;
        }
        let timeout = self.answer_timeout(protocol);
        let answered = self.answered.get_mut(&(protocol, inside, to)).filter(|one| one.last + timeout > now)?;
        answered.last = now;
        Some(answered.port)
    }

    const fn answer_timeout(&self, protocol: Protocol) -> u64 {
        match protocol {
            Protocol::Udp => self.kind.udp_timeout,
            Protocol::Tcp => self.kind.tcp_timeout,
        }
    }

    fn open(
        &mut self,
        now: Moment,
        key: (Protocol, SocketAddrV4, SocketAddrV4),
        dice: &mut Dice,
    ) -> Result<u32, Dropped> {
        let (protocol, inside, to) = key;
        if self.out.len() >= self.kind.capacity as usize {
            self.sweep(now);
            if self.out.len() >= self.kind.capacity as usize {
                return Err(Dropped::Full);
            }
        }
        let port = self.choose(now, protocol, inside, dice).ok_or(Dropped::Full)?;
        if let Some(expired) = self.by_port.get(&(protocol, port)).copied() {
            self.remove(expired);
        }
        let mapping = Mapping { protocol, inside, to, port, last: now, established: false, sent_to: SmallVec::new() };
        let at = match self.free.pop() {
            Some(at) => {
                self.mappings[at as usize] = mapping;
                at
            }
            None => {
                self.mappings.push(mapping);
                (self.mappings.len() - 1) as u32
            }
        };
        self.out.insert(key, at);
        self.by_port.insert((protocol, port), at);
        Ok(at)
    }

    /// RFC 4787, REQ-3: never a port that another inner endpoint has.
    fn choose(&mut self, now: Moment, protocol: Protocol, inside: SocketAddrV4, dice: &mut Dice) -> Option<u16> {
        let count = PORTS.end() - PORTS.start();
        let first = match self.kind.ports {
            PortChoice::Preserve => inside.port().max(*PORTS.start()),
            PortChoice::Sequential => {
                if self.next_port == 0 {
                    self.next_port = PORTS.start() + dice.below(u64::from(count)) as u16;
                }
                self.next_port
            }
            PortChoice::Random => PORTS.start() + dice.below(u64::from(count) + 1) as u16,
        };
        let mut port = first;
        for _ in 0..=count {
            let next = port.checked_add(1).unwrap_or(*PORTS.start());
            if !self.is_taken(now, protocol, port, inside) && !self.is_leased_away(now, protocol, port, inside) {
                if self.kind.ports == PortChoice::Sequential {
                    self.next_port = next;
                }
                return Some(port);
            }
            port = next;
        }
        None
    }

    fn is_taken(&self, now: Moment, protocol: Protocol, port: u16, inside: SocketAddrV4) -> bool {
        let Some(at) = self.by_port.get(&(protocol, port)) else { return false };
        let per_destination = self.kind.mapping != Dependence::Endpoint;
        !self.has_expired(*at, now) && (per_destination || self.mappings[*at as usize].inside != inside)
    }

    fn is_leased_away(&self, now: Moment, protocol: Protocol, port: u16, inside: SocketAddrV4) -> bool {
        self.leases.get(&(protocol, port)).is_some_and(|lease| lease.until > now && lease.inside != inside)
    }

    fn timeout(&self, at: u32) -> u64 {
        let mapping = &self.mappings[at as usize];
        match (mapping.protocol, mapping.established) {
            (Protocol::Udp, _) => self.kind.udp_timeout,
            (Protocol::Tcp, true) => self.kind.tcp_timeout,
            (Protocol::Tcp, false) => self.kind.tcp_opening,
        }
    }

    fn has_expired(&self, at: u32, now: Moment) -> bool {
        self.mappings[at as usize].last + self.timeout(at) <= now
    }

    fn remove(&mut self, at: u32) {
        let Mapping { protocol, inside, to, port, .. } = self.mappings[at as usize];
        self.out.remove(&(protocol, inside, to));
        self.by_port.remove(&(protocol, port));
        self.mappings[at as usize].sent_to = SmallVec::new();
        self.free.push(at);
    }

    fn sweep(&mut self, now: Moment) {
        self.sweep_at = now + SWEEP;
        let timeouts = [Protocol::Udp, Protocol::Tcp].map(|protocol| (protocol, self.answer_timeout(protocol)));
        self.answered.retain(|(protocol, ..), one| {
            timeouts.iter().any(|(of, timeout)| of == protocol && one.last + timeout > now)
        });
        for at in 0..self.mappings.len() as u32 {
            let Mapping { protocol, port, .. } = self.mappings[at as usize];
            let in_use = self.by_port.get(&(protocol, port)) == Some(&at);
            if in_use && self.has_expired(at, now) {
                self.remove(at);
            }
        }
    }
}

const fn significant(dependence: Dependence, to: SocketAddrV4) -> SocketAddrV4 {
    match dependence {
        Dependence::Endpoint => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        Dependence::Address => SocketAddrV4::new(*to.ip(), 0),
        Dependence::AddressAndPort => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Purpose;

    const A: &str = "192.168.1.2:4001";
    const B: &str = "192.168.1.3:4001";
    const X: &str = "45.0.0.1:1000";
    const X2: &str = "45.0.0.1:2000";
    const Y: &str = "46.0.0.1:1000";

    struct Rig {
        nat: Nat,
        dice: Dice,
        now: Moment,
    }

    impl Rig {
        fn new(kind: NatKind) -> Self {
            Self { nat: Nat::new(kind), dice: Dice::new(1, 0, Purpose::Ports), now: 0 }
        }

        fn out(&mut self, protocol: Protocol, inside: &str, to: &str) -> u16 {
            self.nat.outbound(self.now, protocol, at(inside), at(to), &mut self.dice).unwrap()
        }

        fn r#in(&mut self, protocol: Protocol, port: u16, from: &str) -> Result<SocketAddrV4, Dropped> {
            self.nat.inbound(self.now, protocol, port, at(from))
        }
    }

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    use Dependence::{Address, AddressAndPort, Endpoint};
    use Protocol::{Tcp, Udp};

    /// RFC 4787, section 4.1: whether X1':x1' equals X2':x2', by what differs in the destination.
    #[test]
    fn mapping_follows_the_table_of_rfc_4787() {
        for (mapping, other_port, other_address) in
            [(Endpoint, true, true), (Address, true, false), (AddressAndPort, false, false)]
        {
            for ports in [PortChoice::Preserve, PortChoice::Sequential, PortChoice::Random] {
                for protocol in [Udp, Tcp] {
                    let mut rig = Rig::new(NatKind { mapping, ports, ..NatKind::full_cone() });
                    let first = rig.out(protocol, A, X);
                    assert_eq!(rig.out(protocol, A, X), first, "{mapping:?}, the same destination");
                    assert_eq!(rig.out(protocol, A, X2) == first, other_port, "{mapping:?} {ports:?}, other port");
                    assert_eq!(rig.out(protocol, A, Y) == first, other_address, "{mapping:?} {ports:?}, other address");
                }
            }
        }
    }

    /// RFC 4787, section 5, and RFC 5382, section 4.3: who gets in after A has sent to X.
    #[test]
    fn filtering_follows_the_table_of_rfc_4787() {
        for (filtering, other_port, other_address) in
            [(Endpoint, true, true), (Address, true, false), (AddressAndPort, false, false)]
        {
            for protocol in [Udp, Tcp] {
                let mut rig = Rig::new(NatKind { filtering, tcp_filtering: filtering, ..NatKind::full_cone() });
                let port = rig.out(protocol, A, X);
                let passes = |result: Result<_, _>| match result {
                    Ok(inside) => inside == at(A),
                    Err(dropped) => {
                        assert_eq!(dropped, Dropped::Filtered);
                        false
                    }
                };
                assert!(passes(rig.r#in(protocol, port, X)), "{filtering:?}: the answer");
                assert_eq!(passes(rig.r#in(protocol, port, X2)), other_port, "{filtering:?}: other port");
                assert_eq!(passes(rig.r#in(protocol, port, Y)), other_address, "{filtering:?}: other address");
                let other = rig.r#in(protocol, port.wrapping_add(7), X);
                assert_eq!(other, Err(Dropped::NoMapping));
                let other_protocol = if protocol == Udp { Tcp } else { Udp };
                assert_eq!(rig.r#in(other_protocol, port, X), Err(Dropped::NoMapping), "protocols are apart");
            }
        }
    }

    /// RFC 4787, REQ-3: no port overloading, whatever is wished.
    #[test]
    fn ports_are_preserved_until_they_clash() {
        let mut rig = Rig::new(NatKind::port_restricted());
        assert_eq!(rig.out(Udp, A, X), 4001);
        assert_eq!(rig.out(Udp, B, X), 4002, "two nodes behind one NAT want the same port");
        assert_eq!(rig.out(Tcp, B, X), 4001, "protocols have their own ports");
        assert_eq!(rig.r#in(Udp, 4002, X), Ok(at(B)));
        let mut symmetric = Rig::new(NatKind { ports: PortChoice::Preserve, ..NatKind::symmetric() });
        assert_eq!((symmetric.out(Udp, A, X), symmetric.out(Udp, A, Y)), (4001, 4002), "its own mappings clash, too");
    }

    #[test]
    fn sequential_ports_come_one_after_the_other() {
        let mut rig = Rig::new(NatKind { ports: PortChoice::Sequential, ..NatKind::symmetric() });
        let first = rig.out(Udp, A, X);
        assert_eq!(rig.out(Udp, A, Y), first + 1);
        assert_eq!(rig.out(Udp, B, Y), first + 2);
    }

    /// RFC 4787, REQ-5 and REQ-6; RFC 5382, REQ-5.
    #[test]
    fn mappings_live_as_long_as_their_traffic() {
        for (refresh, kept) in [(Refresh::Both, true), (Refresh::Outbound, false)] {
            let mut rig = Rig::new(NatKind { refresh, ..NatKind::port_restricted() });
            let port = rig.out(Udp, A, X);
            rig.now += 20 * SECOND;
            assert!(rig.r#in(Udp, port, X).is_ok());
            rig.now += 20 * SECOND;
            assert_eq!(rig.r#in(Udp, port, X).is_ok(), kept, "{refresh:?}: inbound packets only");
        }
        let mut rig = Rig::new(NatKind::port_restricted());
        let port = rig.out(Tcp, A, X);
        rig.now += 200 * SECOND;
        assert!(rig.r#in(Tcp, port, X).is_ok(), "a connection is being opened");
        rig.now += 7_000 * SECOND;
        assert!(rig.r#in(Tcp, port, X).is_ok(), "it stands");
        rig.now += 7_440 * SECOND;
        assert_eq!(rig.r#in(Tcp, port, X), Err(Dropped::NoMapping));
    }

    #[test]
    fn a_filter_forgets_an_endpoint_that_is_not_talked_to() {
        let mut rig = Rig::new(NatKind::port_restricted());
        let port = rig.out(Udp, A, X);
        rig.now += 20 * SECOND;
        assert_eq!(rig.out(Udp, A, Y), port);
        rig.now += 20 * SECOND;
        assert_eq!(rig.r#in(Udp, port, X), Err(Dropped::Filtered));
        assert_eq!(rig.r#in(Udp, port, Y), Ok(at(A)));
    }

    /// RFC 5382, REQ-2: an inbound SYN that crosses the outbound one gets in.
    #[test]
    fn tcp_opens_simultaneously() {
        let mut rig = Rig::new(NatKind::port_restricted());
        let port = rig.out(Tcp, A, X);
        assert_eq!(rig.r#in(Tcp, port, X), Ok(at(A)));
    }

    #[test]
    fn leases_let_everyone_in_until_they_end() {
        let mut rig = Rig::new(NatKind { gives_ports: true, ..NatKind::port_restricted() });
        let end = 3_600 * SECOND;
        assert_eq!(rig.nat.lease(0, Udp, at(A), 4001, end), Ok(4001));
        assert_eq!(rig.nat.lease(0, Udp, at(B), 4001, end), Ok(4002), "taken");
        assert_eq!(rig.nat.lease(1, Udp, at(A), 4001, end), Ok(4001), "renewed");
        assert_eq!(rig.r#in(Udp, 4001, Y), Ok(at(A)));
        assert_eq!(rig.out(Udp, B, X), 4002, "a lease keeps its port from others");
        rig.now = end;
        assert_eq!(rig.r#in(Udp, 4001, Y), Err(Dropped::NoMapping));
        let mut stingy = Rig::new(NatKind::port_restricted());
        assert_eq!(stingy.nat.lease(0, Udp, at(A), 4001, end), Err(Dropped::Blocked));
        rig.now = 0;
        rig.nat.unlease(Udp, at(A));
        assert!(rig.r#in(Udp, 4001, Y).is_err());
    }

    #[test]
    fn what_came_by_a_lease_is_answered_from_its_port() {
        let mut rig = Rig::new(NatKind { gives_ports: true, ..NatKind::symmetric() });
        assert_eq!(rig.nat.lease(0, Tcp, at(A), 4001, 3_600 * SECOND), Ok(4001));
        assert_ne!(rig.out(Tcp, A, X), 4001, "a port for each destination");
        assert_eq!(rig.r#in(Tcp, 4001, Y), Ok(at(A)));
        assert_eq!(rig.out(Tcp, A, Y), 4001);
        assert_ne!(rig.out(Tcp, A, X2), 4001);
    }

    #[test]
    fn a_reboot_forgets_everything() {
        let mut rig = Rig::new(NatKind::full_cone());
        let port = rig.out(Udp, A, X);
        rig.nat.reboot();
        assert_eq!(rig.r#in(Udp, port, X), Err(Dropped::NoMapping));
        assert!(rig.nat.is_empty());
    }

    #[test]
    fn blocked_udp_stays_blocked() {
        let mut rig = Rig::new(NatKind { udp: false, ..NatKind::full_cone() });
        let udp = rig.nat.outbound(0, Udp, at(A), at(X), &mut rig.dice);
        assert_eq!(udp, Err(Dropped::Blocked));
        assert!(rig.nat.outbound(0, Tcp, at(A), at(X), &mut rig.dice).is_ok());
    }

    #[test]
    fn a_full_table_makes_room_by_what_has_expired_only() {
        let mut rig = Rig::new(NatKind { capacity: 2, ..NatKind::symmetric() });
        rig.out(Udp, A, X);
        rig.out(Udp, A, X2);
        assert_eq!(rig.nat.outbound(0, Udp, at(A), at(Y), &mut rig.dice), Err(Dropped::Full));
        rig.now = 31 * SECOND;
        rig.out(Udp, A, Y);
        assert_eq!(rig.nat.len(), 1);
    }
}
