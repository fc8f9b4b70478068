//! The home router: ports of its own that lead to ours, and what it tells of itself.

use alloc::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use super::addresses::OwnAddresses;
use crate::{
    cx::{Cx, Here},
    jitter::{self, Purpose},
    view::{GatewayView, PortMappingView},
    vocabulary::{Action, Address, CommandId, NatFinding, Notice, Prefix, Reason, Scope, Time, Transport},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Ports {
    asked: BTreeMap<Transport, Port>,
    gateway: Option<GatewayView>,
    findings: BTreeSet<NatFinding>,
    /// What the user was told of this network.
    told: BTreeSet<NatFinding>,
}

/// A port of ours that the router was asked for.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Port {
    number: u16,
    command: CommandId,
    answer: Answer,
    /// How often it was asked for in vain.
    misses: u32,
    /// Asked for again then, if there is none by then.
    again_at: Time,
}

/// A router that gave nothing is asked again after this, doubled each time up to `ASK_AGAIN_MAX`: it may have been busy,
/// or restarting. One that has taken its word back is asked sooner.
const ASK_AGAIN: Duration = Duration::from_secs(600);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(6 * 3_600);
const ASK_SOON: Duration = Duration::from_secs(15);

#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum Answer {
    /// None so far; until then it may come.
    Awaited(Time),
    /// The router leads this address of its own here.
    Given(Address),
    /// None came.
    Missing,
    /// What was given was taken back.
    TakenBack,
    /// This node can't ask.
    CannotAsk,
}

impl Ports {
    pub(super) fn step(&mut self, cx: &mut Cx<'_>, own: &mut OwnAddresses, public_v4: Option<IpAddr>) {
        self.ask(cx, own);
        let late = |port: &Port| matches!(port.answer, Answer::Awaited(until) if until <= cx.now);
        let late: Vec<Transport> =
            self.asked.iter().filter(|(_, port)| late(port)).map(|(transport, _)| *transport).collect();
        for transport in late {
            self.missing(cx, transport, Reason::TimedOut);
        }
        self.findings = self.find(cx.here, public_v4);
        for finding in &self.findings {
            if self.told.insert(*finding) {
                cx.tell(Notice::NatFound { finding: *finding }, Reason::BehindNat);
            }
        }
    }

    /// Asks for what is wanted and not asked for yet, and gives back what is no longer wanted.
    fn ask(&mut self, cx: &mut Cx<'_>, own: &mut OwnAddresses) {
        let wanted = if cx.config.nat.port_mapping { wanted(cx.here) } else { BTreeMap::new() };
        let stale = |(transport, port): (&Transport, &Port)| {
            (wanted.get(transport) != Some(&port.number)).then_some(*transport)
        };
        for transport in self.asked.iter().filter_map(stale).collect::<Vec<_>>() {
            self.asked.remove(&transport);
            own.mapped(cx, transport, None);
            let reason = if cx.config.nat.port_mapping { Reason::NotNeeded } else { Reason::Settings };
            cx.command(Action::UnmapPort { transport }, reason);
        }
        for (transport, port) in &mut self.asked {
            if matches!(port.answer, Answer::Missing | Answer::TakenBack) && port.again_at <= cx.now {
                cx.command(Action::UnmapPort { transport: *transport }, Reason::Retry { attempt: port.misses + 1 });
                let ask = Action::MapPort { transport: *transport, port: port.number };
                port.command = cx.command(ask, Reason::Retry { attempt: port.misses + 1 });
                port.answer = Answer::Awaited(cx.now + cx.config.nat.port_mapping_timeout);
            }
        }
        for (transport, number) in wanted {
            if let Entry::Vacant(entry) = self.asked.entry(transport) {
                let command = cx.command(Action::MapPort { transport, port: number }, Reason::BehindNat);
                let answer = Answer::Awaited(cx.now + cx.config.nat.port_mapping_timeout);
                entry.insert(Port { number, command, answer, misses: 0, again_at: Time::MAX });
            }
        }
    }

    pub(super) fn gateway(&mut self, upnp: bool, nat_pmp: bool, pcp: bool) {
        self.gateway = Some(GatewayView { upnp, nat_pmp, pcp });
    }

    pub(super) fn given(&mut self, cx: &mut Cx<'_>, own: &mut OwnAddresses, transport: Transport, external: &Address) {
        let Some(port) = self.asked.get_mut(&transport) else { return };
        let makes_sense = external.transport() == Some(transport)
            && external.port() != Some(0)
            && external.host_ip().is_some_and(|ip| ip.is_ipv4() && !ip.is_unspecified() && !ip.is_loopback());
        if !makes_sense || port.answer == Answer::Given(external.clone()) {
            return;
        }
        port.answer = Answer::Given(external.clone());
        port.misses = 0;
        own.mapped(cx, transport, Some(external));
        if external.scope().is_some_and(Scope::is_global) {
            cx.tell(Notice::PortMapped { address: external.clone() }, Reason::BehindNat);
        }
    }

    pub(super) fn taken_back(&mut self, cx: &mut Cx<'_>, own: &mut OwnAddresses, transport: Transport) {
        own.mapped(cx, transport, None);
        self.missing(cx, transport, Reason::StateChanged);
    }

    fn missing(&mut self, cx: &mut Cx<'_>, transport: Transport, reason: Reason) {
        let Some(port) = self.asked.get_mut(&transport) else { return };
        let (answer, wait) = match port.answer {
            Answer::Awaited(_) => {
                (Answer::Missing, ASK_AGAIN.saturating_mul(1 << port.misses.min(12)).min(ASK_AGAIN_MAX))
            }
            Answer::Given(_) => (Answer::TakenBack, ASK_SOON),
            Answer::Missing | Answer::TakenBack | Answer::CannotAsk => return,
        };
        port.answer = answer;
        port.again_at = cx.now
            + jitter::vary(wait, jitter::draw(cx.seed, Purpose::MapPort, port.number.into(), port.misses.into()));
        // Said once; that it is still so is no news.
        if port.misses == 0 {
            cx.tell(Notice::PortNotMapped { transport }, reason);
        }
        port.misses = port.misses.saturating_add(1);
    }

    pub(super) fn refused(&mut self, command: CommandId) {
        if let Some(port) = self.asked.values_mut().find(|port| port.command == command) {
            port.answer = Answer::CannotAsk;
        }
    }

    /// Another router may stand there now.
    pub(super) fn forget_the_network(&mut self, cx: &mut Cx<'_>) {
        for transport in core::mem::take(&mut self.asked).into_keys() {
            cx.command(Action::UnmapPort { transport }, Reason::NetworkChanged);
        }
        *self = Self::default();
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let until = |port: &Port| match port.answer {
            Answer::Awaited(until) => Some(until),
            Answer::Missing | Answer::TakenBack => Some(port.again_at),
            Answer::Given(_) | Answer::CannotAsk => None,
        };
        self.asked.values().filter_map(until).min()
    }

    fn find(&self, here: &Here, public_v4: Option<IpAddr>) -> BTreeSet<NatFinding> {
        let mut all = BTreeSet::new();
        // A virtual private network hands out single addresses of that range: /32.
        let shared = |own: &Prefix| own.len < 32 && Scope::of(own.ip) == Scope::Shared;
        if here.interfaces.default_v4 && here.interfaces.addresses.iter().any(shared) {
            all.insert(NatFinding::CarrierGrade);
        }
        let external = self.asked.values().filter_map(|port| match &port.answer {
            Answer::Given(external) => external.host_ip(),
            Answer::Awaited(_) | Answer::Missing | Answer::TakenBack | Answer::CannotAsk => None,
        });
        for ip in external {
            match Scope::of(ip) {
                Scope::Shared => all.insert(NatFinding::RouterBehindCarrierGrade),
                Scope::Global if public_v4.is_none_or(|seen| seen == ip) => false,
                Scope::Global
                | Scope::Private
                | Scope::LinkLocal
                | Scope::Unspecified
                | Scope::Loopback
                | Scope::UniqueLocal
                | Scope::Nat64
                | Scope::Benchmarking
                | Scope::Documentation
                | Scope::Multicast
                | Scope::Reserved => all.insert(NatFinding::DoubleNat),
            };
        }
        let speaks = self.gateway.is_some_and(|gateway| gateway.upnp || gateway.nat_pmp || gateway.pcp);
        let none_given = !self.asked.is_empty() && self.asked.values().all(|port| port.answer == Answer::Missing);
        if speaks && none_given {
            all.insert(NatFinding::NoMappingGiven);
        }
        all
    }

    /// The finding that says most.
    pub(super) fn finding(&self) -> Option<NatFinding> {
        self.findings.first().copied()
    }

    pub(super) const fn gateway_view(&self) -> Option<GatewayView> {
        self.gateway
    }

    pub(super) fn views(&self) -> impl Iterator<Item = PortMappingView<'_>> {
        self.asked.iter().map(|(transport, port)| PortMappingView {
            transport: *transport,
            external: match &port.answer {
                Answer::Given(external) => Some(external),
                Answer::Awaited(_) | Answer::Missing | Answer::TakenBack | Answer::CannotAsk => None,
            },
        })
    }
}

/// The ports that a router should let lead here: those of our IPv4 listeners, where a router stands in between.
fn wanted(here: &Here) -> BTreeMap<Transport, u16> {
    let mut ports = BTreeMap::new();
    let of_v4 = |address: &&Address| address.host_ip().is_some_and(|ip| ip.is_ipv4());
    let mut listening = here.listening.iter().filter(of_v4);
    if !here.interfaces.default_v4 || listening.clone().any(|address| address.scope().is_some_and(Scope::is_global)) {
        return ports;
    }
    let inside = |address: &&Address| matches!(address.scope(), Some(Scope::Private | Scope::Shared));
    while let Some(address) = listening.find(inside) {
        if let (Some(transport), Some(port)) = (address.transport(), address.port()) {
            ports.entry(transport).or_insert(port);
        }
    }
    ports
}
