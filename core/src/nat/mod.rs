//! `NatPolicy`: where this node listens, which addresses it has, and what others may be told of them.
//!
//! Three sets are kept apart. *Candidates* are what others see or behaviours guess: one observer is enough, they are for
//! trying. *Advertised* addresses are what everyone is told: an own interface has it on the internet, the operator vouches
//! for it, or observers in enough distinct networks see it. *Listening* addresses are never told as such.
//!
//! Relays, probes and hole punching build on these sets and belong here.

mod listeners;
mod punching;
mod relays;

pub(crate) use listeners::Listeners;
pub(crate) use punching::Punching;
pub(crate) use relays::{Relays, is_candidate as is_relay_candidate};

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use crate::{
    cx::{Cx, Signal},
    lifecycle::PeerLifecycle,
    view::CandidateView,
    vocabulary::{
        Action, Address, Config, Direction, Event, Interfaces, KademliaMode, Notice, Origin, Reachability, Reason,
        Role, Scope, Time, network_of,
    },
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct NatPolicy {
    listeners: Listeners,
    pub(crate) relays: Relays,
    pub(crate) punching: Punching,
    candidates: BTreeMap<Address, Candidate>,
    advertised: BTreeSet<Address>,
    /// Networks from which somebody came to us over the internet, and when last.
    visitors: BTreeMap<IpAddr, Time>,
    reachability: Reachability,
    /// A verdict that is not old enough to count.
    pending: Option<(Reachability, Time)>,
    kademlia_server: Option<bool>,
    /// The network on which all this was seen.
    seen_on: Interfaces,
    /// Something happened that the sets may follow from.
    stirred: bool,
}

/// An address that may be ours.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Candidate {
    /// Networks from which it was seen, and when last.
    observers: BTreeMap<IpAddr, Time>,
    /// A behaviour holds it for proven.
    confirmed: bool,
    /// When it was last spoken of.
    heard: Time,
}

/// Observers kept per candidate.
const MAX_OBSERVERS: usize = 8;
/// Visitors' networks kept.
const MAX_VISITORS: usize = 8;
/// Networks from which somebody has to come before we hold ourselves reachable.
const VISITORS: usize = 2;

impl NatPolicy {
    pub(crate) fn absorb(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, event: &Event) {
        self.relays.absorb(cx, lifecycle, event);
        self.punching.absorb(cx, lifecycle, event);
        match event {
            Event::Listening { listener, command, address } => {
                self.listeners.listening(cx, *listener, *command, address);
                self.stirred = true;
            }
            Event::ListenAddressGone { listener, address } => {
                self.listeners.gone(*listener, address);
                self.stirred = true;
            }
            Event::ListenFailed { command, error } => {
                self.listeners.failed(cx, *command, error);
                self.stirred = true;
            }
            Event::Identified { connection, peer: _, identity } => {
                let Some(observed) = &identity.observed else { return };
                if let Some((_, connection)) = lifecycle.connection(*connection)
                    && let Some(observer) = connection.address.host_ip()
                {
                    self.observed(cx, observed, observer);
                }
            }
            Event::Candidate { asker: _, address } => {
                if is_worth_keeping(address) {
                    self.candidate(cx, address);
                }
            }
            Event::Confirmed { asker: _, address } => {
                if is_worth_keeping(address) {
                    self.candidate(cx, address).confirmed = true;
                    self.stirred = true;
                }
            }
            Event::Unconfirmed { asker: _, address } => {
                if let Some(candidate) = self.candidates.get_mut(address) {
                    candidate.confirmed = false;
                    self.stirred = true;
                }
            }
            Event::Connected { peer, address, origin: Origin::Inbound, .. } => {
                if let Some(ip) = address.host_ip().filter(|ip| Scope::of(*ip).is_global() && !cx.here.is_near(*ip)) {
                    let dialled = lifecycle.peers.by_id(peer).is_some_and(|peer| {
                        peer.connections.iter().any(|connection| connection.direction == Direction::Outbound)
                    });
                    if !dialled {
                        self.visited(cx, ip);
                    }
                }
            }
            Event::Interfaces(_) => {
                self.listeners.retry(cx.now);
                self.forget_the_network(cx);
                self.stirred = true;
            }
            Event::Resumed { .. } => {
                self.listeners.retry(cx.now);
                self.stirred = true;
            }
            Event::Wake
            | Event::Probed { .. }
            | Event::Reserved { .. }
            | Event::ReservedAt { .. }
            | Event::ReservationEnded { .. }
            | Event::CircuitLimited { .. }
            | Event::CircuitUsed { .. }
            | Event::Serving { .. }
            | Event::PunchOffered { .. }
            | Event::PunchAnswered { .. }
            | Event::PunchFailed { .. }
            | Event::Gateway { .. }
            | Event::PortMapped { .. }
            | Event::PortUnmapped { .. }
            | Event::Started(_)
            | Event::Configured(_)
            | Event::StoreLoaded { .. }
            | Event::Asked { .. }
            | Event::WallClock { .. }
            | Event::Found { .. }
            | Event::Lost { .. }
            | Event::OwnIdentitySeen { .. }
            | Event::Connected { .. }
            | Event::Disconnected { .. }
            | Event::DialFailed { .. }
            | Event::InboundFailed { .. }
            | Event::DialHeld { .. }
            | Event::HeldFailed { .. }
            | Event::IdentifyFailed { .. }
            | Event::Pinged { .. }
            | Event::Routed { .. }
            | Event::QueryFound { .. }
            | Event::QueryEnded { .. }
            | Event::Refused { .. } => {}
        }
    }

    pub(crate) fn configure(&mut self, cx: &mut Cx<'_>) {
        self.listeners.configure(cx);
        self.seen_on = cx.here.interfaces.clone();
        self.stirred = true;
    }

    pub(crate) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        self.listeners.step(cx);
        self.relays.step(cx, lifecycle, self.reachability);
        self.punching.step(cx, lifecycle);
        let due = self.deadline(cx.config).is_some_and(|at| at <= cx.now);
        if !core::mem::take(&mut self.stirred) && !due {
            return;
        }
        let ttl = cx.config.nat.observation_ttl;
        for candidate in self.candidates.values_mut() {
            candidate.observers.retain(|_, at| *at + ttl > cx.now);
        }
        self.candidates.retain(|_, candidate| candidate.confirmed || candidate.heard + ttl > cx.now);
        self.visitors.retain(|_, at| *at + ttl > cx.now);
        self.advertise(cx);
        self.judge(cx);
        self.set_kademlia_mode(cx);
    }

    pub(crate) fn deadline(&self, config: &Config) -> Option<Time> {
        let ttl = config.nat.observation_ttl;
        let observed = self.candidates.values().flat_map(|candidate| candidate.observers.values()).min();
        let heard = self.candidates.values().filter(|candidate| !candidate.confirmed).map(|candidate| &candidate.heard);
        let old = observed.into_iter().chain(heard).chain(self.visitors.values()).min().map(|at| *at + ttl);
        let verdict = self.pending.map(|(_, since)| since + config.nat.dwell);
        let parts = [self.listeners.deadline(), self.relays.deadline(), self.punching.deadline()];
        old.into_iter().chain(verdict).chain(parts.into_iter().flatten()).min()
    }

    pub(crate) const fn reachability(&self) -> Reachability {
        self.reachability
    }

    pub(crate) const fn advertised(&self) -> &BTreeSet<Address> {
        &self.advertised
    }

    pub(crate) fn is_kademlia_server(&self) -> bool {
        self.kademlia_server == Some(true)
    }

    pub(crate) fn candidates(&self) -> impl Iterator<Item = CandidateView<'_>> {
        self.candidates.iter().map(|(address, candidate)| CandidateView {
            address,
            advertised: self.advertised.contains(address),
            observers: candidate.observers.len() as u32,
            proofs: 0,
            confidence: 0,
            mapped: false,
        })
    }

    /// A peer sees us there.
    fn observed(&mut self, cx: &mut Cx<'_>, observed: &Address, observer: IpAddr) {
        // Seen from the home network an address says nothing about the internet.
        let from_outside = Scope::of(observer).is_global() && !cx.here.is_near(observer);
        if !is_worth_keeping(observed) || !from_outside {
            return;
        }
        let ours = cx.here.listening.iter().any(|own| own.transport() == observed.transport());
        if !ours {
            return;
        }
        let now = cx.now;
        let network = network_of(observer);
        // An observer has one opinion per family and transport: the last one.
        let kind = |address: &Address| (address.host_ip().map(|ip| ip.is_ipv4()), address.transport());
        for (address, candidate) in &mut self.candidates {
            if address != observed && kind(address) == kind(observed) && candidate.observers.remove(&network).is_some()
            {
                candidate.heard = if candidate.observers.is_empty() { Time::ZERO } else { candidate.heard };
            }
        }
        let candidate = self.candidate(cx, observed);
        if candidate.observers.len() >= MAX_OBSERVERS && !candidate.observers.contains_key(&network) {
            return;
        }
        candidate.observers.insert(network, now);
        self.stirred = true;
    }

    fn candidate(&mut self, cx: &Cx<'_>, address: &Address) -> &mut Candidate {
        let full = self.candidates.len() >= usize::from(cx.config.nat.max_candidates);
        if full && !self.candidates.contains_key(address) {
            let worth = |candidate: &Candidate| (candidate.confirmed, candidate.observers.len(), candidate.heard);
            let least = self.candidates.iter().min_by_key(|(_, candidate)| worth(candidate));
            if let Some(least) = least.map(|(address, _)| address.clone()) {
                self.candidates.remove(&least);
            }
        }
        let candidate = self.candidates.entry(address.clone()).or_default();
        candidate.heard = cx.now;
        candidate
    }

    /// Somebody whom we had not dialled came to us over the internet.
    fn visited(&mut self, cx: &Cx<'_>, ip: IpAddr) {
        let network = network_of(ip);
        if self.visitors.len() < MAX_VISITORS || self.visitors.contains_key(&network) {
            self.visitors.insert(network, cx.now);
            self.stirred = true;
        }
    }

    /// What was seen of us was seen on the network that we have left, if we have left one: an interface more is none.
    fn forget_the_network(&mut self, cx: &Cx<'_>) {
        let now = &cx.here.interfaces;
        let before = core::mem::replace(&mut self.seen_on, now.clone());
        let lost_address = before.addresses.iter().any(|own| !now.addresses.contains(own));
        let lost_route = (before.default_v4 && !now.default_v4) || (before.default_v6 && !now.default_v6);
        if lost_address || lost_route {
            let is_own = |ip| now.addresses.iter().any(|own| own.ip == ip);
            self.candidates.retain(|address, _| address.host_ip().is_some_and(is_own));
            self.visitors.clear();
        }
    }

    fn advertise(&mut self, cx: &mut Cx<'_>) {
        let mut wanted: BTreeMap<Address, Reason> = BTreeMap::new();
        for (address, candidate) in &self.candidates {
            let observers = candidate.observers.len();
            if observers >= usize::from(cx.config.nat.observers) {
                wanted.insert(address.clone(), Reason::Observed { observers: observers as u32 });
            } else if candidate.confirmed {
                wanted.insert(address.clone(), Reason::Confirmed);
            }
        }
        for address in cx.here.listening.iter().filter(|address| address.scope().is_some_and(Scope::is_global)) {
            wanted.insert(address.clone(), Reason::OwnAddress);
        }
        for address in &cx.config.nat.external {
            wanted.insert(address.clone(), Reason::Settings);
        }
        let gone: Vec<Address> =
            self.advertised.iter().filter(|address| !wanted.contains_key(*address)).cloned().collect();
        let mut changed = !gone.is_empty();
        for address in gone {
            self.advertised.remove(&address);
            cx.command(Action::Withdraw { address }, Reason::NotObserved);
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

    /// Without probes there is evidence for being reachable (an operator's word, visitors from several networks), none
    /// against it. A change counts once it has held for a while.
    fn judge(&mut self, cx: &mut Cx<'_>) {
        let public = !cx.config.nat.external.is_empty()
            || self.visitors.len() >= VISITORS
            || (cx.config.role == Role::Server && !self.advertised.is_empty());
        let verdict = if public { Reachability::Public } else { Reachability::Unknown };
        if verdict == self.reachability {
            self.pending = None;
            return;
        }
        let since = match self.pending {
            Some((pending, since)) if pending == verdict => since,
            Some(_) | None => cx.now,
        };
        if since + cx.config.nat.dwell > cx.now {
            self.pending = Some((verdict, since));
            return;
        }
        self.pending = None;
        self.reachability = verdict;
        let reason = if public { Reason::Reachable } else { Reason::NotReachable };
        cx.tell(Notice::ReachabilityChanged { reachability: verdict }, reason);
    }

    fn set_kademlia_mode(&mut self, cx: &mut Cx<'_>) {
        let (server, reason) = match (cx.config.kademlia, self.reachability) {
            (KademliaMode::Server, _) => (true, Reason::Settings),
            (KademliaMode::Client, _) => (false, Reason::Settings),
            (KademliaMode::Auto, _) if cx.config.role == Role::Server => (true, Reason::Settings),
            (KademliaMode::Auto, Reachability::Public) => (true, Reason::Reachable),
            (KademliaMode::Auto, Reachability::Unknown | Reachability::Private) => (false, Reason::NotReachable),
        };
        if self.kademlia_server != Some(server) {
            self.kademlia_server = Some(server);
            cx.command(Action::SetKademliaServer { server }, reason);
        }
    }
}

/// An address of ours that is worth a thought: on the internet, with a port, by TCP or QUIC.
fn is_worth_keeping(address: &Address) -> bool {
    address.scope().is_some_and(Scope::is_global) && address.transport().is_some() && address.port() != Some(0)
}
