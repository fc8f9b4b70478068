//! Our own addresses, in all their parts: what each event says to which part, and what they conclude together.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use super::{
    addresses::{OwnAddresses, is_global},
    mapping::{Sightings, listened},
    ports::Ports,
    prior::Prior,
    probing::{Outcome, Probing, hosts},
    services::Services,
    verdict::{Evidence, Verdict},
};
use crate::{
    cx::{Cx, Here, Signal},
    lifecycle::PeerLifecycle,
    peers::Peer,
    view::{CandidateView, GatewayView, MappingView, PortMappingView, ServiceView},
    vocabulary::{
        Action, Address, Audience, ConnectionId, Direction, Event, Identity, Mapping, NameKind, NatFinding, Origin,
        PeerId, Reachability, Reason, Role, Scope, Time, Transport,
    },
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Own {
    addresses: OwnAddresses,
    probing: Probing,
    sightings: Sightings,
    ports: Ports,
    services: Services,
    verdict: Verdict,
    #[cfg_attr(feature = "serde", serde(default))]
    prior: Prior,
    advertised: BTreeSet<Address>,
    /// Whether IPv4, and IPv6, had a way out when all this was seen.
    routes: (bool, bool),
    /// Something happened that the rest may follow from.
    stirred: bool,
    /// What is to be told may have changed.
    untold: bool,
    /// Whether circuits are told, too.
    #[cfg_attr(feature = "serde", serde(default))]
    relayed: bool,
    /// Nothing is due before, unless something happens.
    #[cfg_attr(feature = "serde", serde(default))]
    next: Time,
}

/// A family and a transport: what NATs and firewalls treat alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Kind {
    pub(super) ipv6: bool,
    pub(super) transport: Transport,
}

impl Own {
    pub(super) fn configure(&mut self, cx: &Cx<'_>) {
        self.routes = (cx.here.interfaces.default_v4, cx.here.interfaces.default_v6);
        self.services.stir();
        self.stirred = true;
    }

    pub(super) fn absorb(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle, event: &Event) {
        match event {
            Event::Listening { .. } | Event::ListenAddressGone { .. } | Event::ListenFailed { .. } => {
                self.stirred = true;
            }
            Event::Identified { connection, peer, identity } => {
                self.identified(cx, lifecycle, *connection, identity);
                self.look_at(cx, lifecycle, peer);
            }
            Event::Candidate { asker: _, address } => {
                if is_worth_keeping(address) {
                    self.stirred |= self.addresses.guessed(cx, address);
                }
            }
            Event::Confirmed { asker: _, address } => {
                if is_worth_keeping(address) {
                    self.addresses.confirmed(cx, address);
                    self.stirred = true;
                }
            }
            Event::Unconfirmed { asker: _, address } => {
                self.addresses.unconfirmed(address);
                self.stirred = true;
            }
            Event::Connected { peer, address, origin, .. } => {
                if *origin == Origin::Inbound {
                    self.came_in(cx, lifecycle, peer, address);
                }
                self.look_at(cx, lifecycle, peer);
            }
            Event::Disconnected { connection, peer, cause: _ } => {
                self.sightings.ended(*connection);
                self.look_at(cx, lifecycle, peer);
            }
            Event::Probed { probe, verdict } => {
                match self.probing.ended(cx, &mut self.addresses, *probe, verdict) {
                    Outcome::Reached => self.verdict.reached(),
                    Outcome::NotReached(network) => self.verdict.not_reached(cx.now, network),
                    Outcome::Nothing => {}
                }
                self.stirred = true;
            }
            Event::Gateway { upnp, nat_pmp, pcp } => {
                self.ports.gateway(*upnp, *nat_pmp, *pcp);
                self.stirred = true;
            }
            Event::PortMapped { transport, external } => {
                self.ports.given(cx, &mut self.addresses, *transport, external);
                self.stirred = true;
            }
            Event::PortUnmapped { transport } => {
                self.ports.taken_back(cx, &mut self.addresses, *transport);
                self.stirred = true;
            }
            Event::Serving { peer, reserved, circuits } => self.services.serving(peer, *reserved, *circuits),
            Event::Refused { command, refusal: _ } => {
                self.ports.refused(*command);
                self.probing.failed(cx, &mut self.addresses, *command);
                self.stirred = true;
            }
            Event::Interfaces(_) => {
                self.forget_the_network(cx);
                self.stirred = true;
            }
            Event::Resumed { .. } => {
                self.addresses.doubt(cx.now);
                self.stirred = true;
            }
            Event::StoreLoaded { nat, .. } => {
                if let Some(nat) = nat {
                    self.prior.recall(cx.here, nat);
                }
                self.services.stir();
            }
            Event::Asked { .. } => self.services.stir(),
            Event::Wake
            | Event::Reserved { .. }
            | Event::ReservedAt { .. }
            | Event::ReservationEnded { .. }
            | Event::CircuitLimited { .. }
            | Event::CircuitUsed { .. }
            | Event::PunchOffered { .. }
            | Event::PunchAnswered { .. }
            | Event::PunchFailed { .. }
            | Event::Started(_)
            | Event::Configured(_)
            | Event::WallClock { .. }
            | Event::Found { .. }
            | Event::Lost { .. }
            | Event::OwnIdentitySeen { .. }
            | Event::DialFailed { .. }
            | Event::InboundFailed { .. }
            | Event::DialHeld { .. }
            | Event::HeldFailed { .. }
            | Event::IdentifyFailed { .. }
            | Event::Pinged { .. }
            | Event::Routed { .. }
            | Event::SyncHeads { .. }
            | Event::SyncTold { .. }
            | Event::SyncFetched { .. }
            | Event::SyncFailed { .. }
            | Event::SyncPressure { .. }
            | Event::SignalFound { .. }
            | Event::SignalPublished { .. }
            | Event::SignalFailed { .. }
            | Event::QueryFound { .. }
            | Event::QueryEnded { .. } => {}
        }
    }

    /// A peer says where it sees us. From the home network an address says nothing about the internet.
    fn identified(&mut self, cx: &Cx<'_>, lifecycle: &PeerLifecycle, id: ConnectionId, identity: &Identity) {
        let Some(observed) = identity.observed.as_ref().filter(|observed| is_worth_keeping(observed)) else { return };
        let Some((peer, connection)) = lifecycle.connection(id) else { return };
        let from_outside = |ip: &IpAddr| is_global(*ip) && !cx.here.is_near(*ip);
        let Some(observer) = dialled_host(peer, &connection.address).filter(from_outside) else { return };
        if Kind::of(observed).is_some_and(|kind| kind.is_meant(cx)) {
            self.stirred |= self.addresses.observed(cx, observed, observer);
            if connection.direction == Direction::Outbound {
                self.stirred |= self.sightings.seen(id, observer, observed);
            }
        }
    }

    fn look_at(&mut self, cx: &Cx<'_>, lifecycle: &PeerLifecycle, id: &PeerId) {
        if let Some(network) = self.probing.look_at(cx.here, id, lifecycle.peers.by_id(id)) {
            self.addresses.another_prober(cx, network);
            self.stirred = true;
        }
    }

    /// Somebody came to us. It shows that strangers can only if nothing of ours may have opened the way for it: no
    /// connection, no dial, no relayed connection over which a direct one was agreed on.
    fn came_in(&mut self, cx: &Cx<'_>, lifecycle: &PeerLifecycle, peer: &PeerId, from: &Address) {
        let (Some(ip), Some(transport)) = (from.host_ip(), from.transport()) else { return };
        if !is_global(ip) || cx.here.is_near(ip) {
            return;
        }
        let opened = lifecycle.peers.by_id(peer).is_some_and(|peer| {
            let mut all = peer.connections.iter();
            !peer.dials.is_empty() || all.any(|one| one.direction == Direction::Outbound || one.address.is_relayed())
        });
        if !opened && !lifecycle.dialer.is_dialing(ip) && self.addresses.visited(cx, ip, transport) {
            self.stirred = true;
        }
    }

    /// What was seen of us was seen on the network that we have left, if we have left one: an interface more is none.
    fn forget_the_network(&mut self, cx: &mut Cx<'_>) {
        let now = &cx.here.interfaces;
        let (v4, v6) = core::mem::replace(&mut self.routes, (now.default_v4, now.default_v6));
        let lost_route = (v4 && !now.default_v4) || (v6 && !now.default_v6);
        if cx.here.left || lost_route {
            let is_own = |ip| now.addresses.iter().any(|own| own.ip == ip);
            self.addresses.forget_the_network(cx.now, is_own);
            self.probing.forget_the_network(cx);
            self.sightings.forget_the_network();
            self.ports.forget_the_network(cx);
            self.verdict.forget_the_network();
            self.prior.forget_the_network();
        }
    }

    pub(super) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle) {
        if !core::mem::take(&mut self.stirred) && !self.services.is_stirred() && cx.now < self.next {
            return;
        }
        self.ports.step(cx, &mut self.addresses, self.sightings.public_v4());
        self.probing.check(cx.here, lifecycle);
        let Self { addresses, probing, verdict, sightings, .. } = self;
        let ips = hosts(addresses);
        addresses.settle(cx, |address, candidate| probing.could_prove(cx.now, &ips, address, candidate));

        // Behind a NAT that gives each destination another port, what others see leads nowhere for anybody else.
        let here = cx.here;
        let refuted = verdict.is_refuted();
        probing.step(cx, addresses, |address, candidate| {
            let own_port = || here.listening.iter().any(|own| own.port() == address.port());
            let is_moving = |kind| sightings.mapping(here, kind) == Mapping::PerDestination;
            refuted && candidate.is_hearsay() && !own_port() && Kind::of(address).is_some_and(is_moving)
        });

        let direct = self.direct(cx);
        let evidence = Evidence {
            solid: !cx.config.nat.external.is_empty()
                || self.addresses.is_proven()
                || (cx.config.role == Role::Server && !direct.is_empty()),
            visitors: self.addresses.has_visitors(),
            visited: self.addresses.has_recent_visitor(cx.now),
            servers: self.probing.has_server(cx.now, &self.addresses),
            more_servers: self
                .probing
                .has_server_beyond(cx.now, &self.addresses, |network| self.verdict.failed_from(network)),
        };
        self.verdict.judge(cx, evidence);
        self.services.step(cx, lifecycle, self.verdict.reachability());
        let mappings: Vec<(Kind, Mapping)> =
            listened(cx.here).into_iter().map(|kind| (kind, self.sightings.mapping(cx.here, kind))).collect();
        self.prior.keep(cx, self.verdict.reachability(), mappings.into_iter());
        self.untold = true;
        self.next = self.next_due(cx);
    }

    /// Tells everyone where we can be reached: at our own addresses and, while there is a reason why these may not do, through
    /// relays. `moved`: the circuits may have changed.
    pub(super) fn advertise<'a>(
        &mut self,
        cx: &mut Cx<'_>,
        circuits: impl Iterator<Item = &'a Address>,
        moved: bool,
        why: Option<Reason>,
    ) {
        let relayed = why.is_some();
        let turned = core::mem::replace(&mut self.relayed, relayed) != relayed;
        if !core::mem::take(&mut self.untold) && !moved && !turned {
            return;
        }
        let mut wanted = self.direct(cx);
        if let Some(why) = why {
            wanted.extend(circuits.map(|circuit| (circuit.clone(), why.clone())));
        }
        let gone: Vec<Address> =
            self.advertised.iter().filter(|address| !wanted.contains_key(*address)).cloned().collect();
        let mut changed = !gone.is_empty();
        for address in gone {
            self.advertised.remove(&address);
            let reason = match address.is_relayed() {
                true if relayed => Reason::RelayLost,
                true => Reason::NoRelayNeeded,
                false => self.addresses.why_not(&address),
            };
            cx.command(Action::Withdraw { address }, reason);
        }
        for (address, reason) in wanted {
            if self.advertised.insert(address.clone()) {
                cx.command(Action::Advertise { address }, reason);
                changed = true;
            }
        }
        if changed {
            cx.command(Action::PushIdentity, Reason::AddressesChanged);
            cx.signal(Signal::AddressesChanged);
        }
    }

    fn direct(&self, cx: &Cx<'_>) -> BTreeMap<Address, Reason> {
        let mut direct = self.addresses.worth_telling(cx);
        direct.extend(cx.config.nat.external.iter().map(|address| (address.clone(), Reason::Settings)));
        direct
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        Some(self.next).filter(|at| *at < Time::MAX)
    }

    fn next_due(&self, cx: &Cx<'_>) -> Time {
        let addresses = self.addresses.next_due(cx.now, &cx.config.nat);
        let verdict = self.verdict.deadline(cx.config.nat.dwell);
        let parts = [addresses, verdict, self.probing.deadline(), self.ports.deadline(), self.prior.deadline()];
        parts.into_iter().flatten().min().unwrap_or(Time::MAX)
    }

    pub(crate) const fn reachability(&self) -> Reachability {
        self.verdict.reachability()
    }

    /// The same, or what it was in an earlier run if nobody has shown anything yet: that it was private is enough to look for
    /// relays, that it was public is no reason to do without.
    pub(super) fn likely_reachability(&self) -> Reachability {
        match (self.reachability(), self.prior.reachability()) {
            (Reachability::Unknown, Reachability::Private) => Reachability::Private,
            (now, _) => now,
        }
    }

    /// Where a peer may try to reach us while we send to it: addresses on the internet, the best first, at most 8.
    pub(crate) fn punch_candidates(&self, here: &Here, transport: Transport) -> Vec<Address> {
        self.addresses.punch_candidates(here, transport)
    }

    /// What the NAT does with ports of this family and transport, or did in an earlier run.
    pub(crate) fn mapping(&self, here: &Here, ipv6: bool, transport: Transport) -> Mapping {
        let kind = Kind { ipv6, transport };
        let seen = self.sightings.mapping(here, kind);
        if seen == Mapping::Unknown { self.prior.mapping(kind) } else { seen }
    }

    pub(crate) const fn advertised(&self) -> &BTreeSet<Address> {
        &self.advertised
    }

    /// Whether this node relays for others, in its own opinion.
    pub(crate) fn offers_relay(&self) -> bool {
        self.services.relay() != Audience::Nobody
    }

    pub(crate) fn is_kademlia_server(&self) -> bool {
        self.services.is_kademlia_server()
    }

    pub(crate) fn candidates(&self) -> impl Iterator<Item = CandidateView<'_>> {
        self.addresses.views(&self.advertised)
    }

    pub(crate) fn mappings(&self, here: &Here) -> Vec<MappingView> {
        let view =
            |Kind { ipv6, transport }| MappingView { ipv6, transport, mapping: self.mapping(here, ipv6, transport) };
        listened(here).into_iter().map(view).collect()
    }

    pub(crate) fn finding(&self) -> Option<NatFinding> {
        self.ports.finding()
    }

    pub(crate) const fn gateway(&self) -> Option<GatewayView> {
        self.ports.gateway_view()
    }

    pub(crate) fn port_mappings(&self) -> impl Iterator<Item = PortMappingView<'_>> {
        self.ports.views()
    }

    pub(crate) fn services(&self) -> ServiceView {
        self.services.view()
    }

    /// Whether the peer has a reservation at this node.
    pub(crate) fn is_served(&self, peer: &PeerId) -> bool {
        self.services.is_served(peer)
    }
}

impl Kind {
    pub(super) fn of(address: &Address) -> Option<Self> {
        Some(Self { ipv6: address.host_ip()?.is_ipv6(), transport: address.transport()? })
    }

    pub(super) fn is_listened(self, here: &Here) -> bool {
        here.listening.iter().any(|own| Self::of(own) == Some(self))
    }

    /// The node listens by it, or is about to: a near peer may say where it sees us before the listener is up.
    pub(super) fn is_meant(self, cx: &Cx<'_>) -> bool {
        self.is_listened(cx.here) || cx.config.listen.iter().any(|own| Self::of(own) == Some(self))
    }
}

/// An address of ours that is worth a thought: on the internet, with a port, by TCP or QUIC.
pub(super) fn is_worth_keeping(address: &Address) -> bool {
    address.scope().is_some_and(Scope::is_global) && address.transport().is_some() && address.port() != Some(0)
}

/// The IP address at the other end of a direct connection. One that was dialled by name is looked for among the peer's
/// addresses: with the same port and transport, and of the name's family.
pub(super) fn dialled_host(peer: &Peer, dialled: &Address) -> Option<IpAddr> {
    let Address::Name { kind, port, transport, .. } = dialled else { return dialled.host_ip() };
    let fits = |address: &Address| {
        let ip = address.host_ip().filter(|ip| is_global(*ip))?;
        let family = match kind {
            NameKind::Any => true,
            NameKind::V4 => ip.is_ipv4(),
            NameKind::V6 => ip.is_ipv6(),
        };
        (family && address.port() == Some(*port) && address.transport() == Some(*transport)).then_some(ip)
    };
    peer.book.iter().find_map(|known| fits(&known.address))
}
