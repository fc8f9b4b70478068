//! Which of our addresses is probed by whom, and when.
//!
//! A server serves if we have dialled it, directly and over the internet, from a network that is not ours; if not by the
//! connection that stands, then by an earlier one: whoever only comes to us may be anybody, in any number. It is asked
//! about one address at a time; of two servers the one whose network has not answered for the address yet comes first,
//! then the one whose answer is oldest.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use super::{
    addresses::{Candidate, OwnAddresses, Standing, is_global},
    own::{Kind, dialled_host},
};
use crate::{
    cx::{Cx, Here},
    lifecycle::PeerLifecycle,
    peers::Peer,
    view::Capabilities,
    vocabulary::{Action, Address, CommandId, Direction, NatConfig, PeerId, ProbeVerdict, Reason, Time, network_of},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Probing {
    servers: BTreeMap<PeerId, Server>,
    /// Servers that are not asked for a while.
    resting: BTreeMap<PeerId, Rest>,
    open: BTreeMap<CommandId, Probe>,
    /// When a probe may begin that could not so far, unless something happens before.
    wake: Option<Time>,
    /// Probes of the current window, and when it ends.
    spent: u32,
    window: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Server {
    ip: IpAddr,
    v4: bool,
    v6: bool,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Rest {
    until: Time,
    errors: u8,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Probe {
    server: PeerId,
    network: IpAddr,
    address: Address,
    until: Time,
}

/// What a probe that has ended means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// One of our addresses is proven.
    Reached,
    /// A server in that network could not get to it.
    NotReached(IpAddr),
    /// Nothing.
    Nothing,
}

/// Servers kept; of the others nothing is asked.
const MAX_SERVERS: usize = 64;
/// Probes under way at once.
const MAX_OPEN: usize = 2;
/// Unproven addresses of one family and transport that are probed: others wait until these are judged.
const MAX_UNJUDGED: usize = 3;
/// Probes begun within `WINDOW`: each may cost 100 kB, and liars name ever new addresses.
const MAX_PROBES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(600);
/// A server that says yes without proof is not asked again for this long.
const LIAR: Duration = Duration::from_secs(3_600);

impl Probing {
    /// Looks at a peer anew. The network, where it can probe from now on and could not before.
    pub(super) fn look_at(&mut self, here: &Here, id: &PeerId, peer: Option<&Peer>) -> Option<IpAddr> {
        match peer.and_then(|peer| server_of(here, peer)) {
            Some(server) if self.servers.len() < MAX_SERVERS || self.servers.contains_key(id) => {
                let before = self.servers.insert(*id, server);
                (before != Some(server)).then(|| network_of(server.ip))
            }
            Some(_) | None => {
                self.servers.remove(id);
                None
            }
        }
    }

    /// Drops servers to which no connection stands that would do.
    pub(super) fn check(&mut self, here: &Here, lifecycle: &PeerLifecycle) {
        self.servers.retain(|id, _| lifecycle.peers.by_id(id).and_then(|peer| server_of(here, peer)).is_some());
    }

    /// Whether a network could prove this address that has not said anything about it yet.
    pub(super) fn could_prove(
        &self,
        now: Time,
        own: &BTreeSet<IpAddr>,
        address: &Address,
        candidate: &Candidate,
    ) -> bool {
        self.fit(own, address)
            .any(|(id, server)| !self.rests(id, now) && candidate.answered(network_of(server.ip)).is_none())
    }

    /// Whether anybody can probe one of our addresses now.
    pub(super) fn has_server(&self, now: Time, own: &OwnAddresses) -> bool {
        self.has_server_beyond(now, own, |_| false)
    }

    /// Whether somebody can probe one of our addresses from a network that is not `known`.
    pub(super) fn has_server_beyond(&self, now: Time, own: &OwnAddresses, known: impl Fn(&IpAddr) -> bool) -> bool {
        let ips = hosts(own);
        let news = |(id, server): (&PeerId, &Server)| !self.rests(id, now) && !known(&network_of(server.ip));
        own.iter().any(|(address, _)| self.fit(&ips, address).any(news))
    }

    fn rests(&self, id: &PeerId, now: Time) -> bool {
        self.resting.get(id).is_some_and(|rest| rest.until > now)
    }

    /// Servers that may prove something about an address: not those that come from there themselves.
    fn fit<'a>(
        &'a self,
        own: &'a BTreeSet<IpAddr>,
        address: &'a Address,
    ) -> impl Iterator<Item = (&'a PeerId, &'a Server)> {
        let ip = address.host_ip();
        self.servers.iter().filter(move |(_, server)| {
            let family = if ip.is_some_and(|ip| ip.is_ipv6()) { server.v6 } else { server.v4 };
            family && Some(server.ip) != ip && !own.contains(&server.ip)
        })
    }

    /// Begins what is due. `skip` names candidates that are not worth a probe.
    pub(super) fn step(
        &mut self,
        cx: &mut Cx<'_>,
        own: &mut OwnAddresses,
        skip: impl Fn(&Address, &Candidate) -> bool,
    ) {
        let late: Vec<CommandId> =
            self.open.iter().filter(|(_, probe)| probe.until <= cx.now).map(|(id, _)| *id).collect();
        for id in late {
            cx.command(Action::CancelProbe { probe: id }, Reason::TimedOut);
            self.failed(cx, own, id);
        }
        if self.window <= cx.now {
            self.spent = 0;
            self.window = cx.now + WINDOW;
        }
        self.wake = None;
        let ips = hosts(own);
        for address in self.worth_probing(own, skip) {
            let Some((_, candidate)) = own.iter().find(|(other, _)| **other == address) else { continue };
            if self.open.values().any(|probe| probe.address == address) {
                continue;
            }
            let Some(ready) = self.fit(&ips, &address).map(|(id, _)| self.ready(id)).min() else { continue };
            let at = candidate.probe_at().max(ready);
            if at > cx.now {
                self.wake_at(at);
                continue;
            }
            if self.open.len() >= MAX_OPEN {
                continue;
            }
            if self.spent >= MAX_PROBES {
                self.wake_at(self.window);
                continue;
            }
            let free = self
                .fit(&ips, &address)
                .filter(|(id, _)| self.ready(id) <= cx.now && !self.open.values().any(|probe| probe.server == **id));
            let Some((server, network)) = free
                .map(|(id, server)| (*id, network_of(server.ip)))
                .min_by_key(|(id, network)| (candidate.answered(*network), *id))
            else {
                continue;
            };
            let reason = if candidate.was_probed() { Reason::ProbeAgain } else { Reason::Unproven };
            self.spent += 1;
            let until = cx.now + cx.config.nat.probe_timeout;
            let probe = cx.command(Action::Probe { server, address: address.clone() }, reason);
            self.open.insert(probe, Probe { server, network, address, until });
        }
    }

    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn ready(&self, id: &PeerId) -> Time {
        self.resting.get(id).map_or(Time::ZERO, |rest| rest.until)
    }

    /// Addresses that may be probed: of those that are not judged yet, the best.
    fn worth_probing(&self, own: &OwnAddresses, skip: impl Fn(&Address, &Candidate) -> bool) -> Vec<Address> {
        let mut all: Vec<_> = own.iter().filter(|(address, candidate)| !skip(address, candidate)).collect();
        all.sort_by_key(|(_, candidate)| core::cmp::Reverse(candidate.probe_worth()));
        let mut unjudged: BTreeMap<Kind, usize> = BTreeMap::new();
        let mut may = |address: &Address, candidate: &Candidate| {
            let Some(kind) = Kind::of(address) else { return false };
            if candidate.standing() != Standing::Unjudged {
                return true;
            }
            let count = unjudged.entry(kind).or_default();
            *count += 1;
            *count <= MAX_UNJUDGED
        };
        all.retain(|(address, candidate)| may(address, candidate));
        // Whoever waits longest comes first, so that none starves.
        all.sort_by_key(|(_, candidate)| candidate.probe_at());
        all.into_iter().map(|(address, _)| address.clone()).collect()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.open.values().map(|probe| probe.until).chain(self.wake).min()
    }

    pub(super) fn ended(
        &mut self,
        cx: &Cx<'_>,
        own: &mut OwnAddresses,
        id: CommandId,
        verdict: &ProbeVerdict,
    ) -> Outcome {
        if !self.open.contains_key(&id) {
            return Outcome::Nothing;
        }
        match verdict {
            ProbeVerdict::Reachable => {
                let Some(probe) = self.answered(id) else { return Outcome::Nothing };
                let ips = hosts(own);
                let more = own.iter().find(|(address, _)| **address == probe.address).is_some_and(|(_, candidate)| {
                    self.fit(&ips, &probe.address).any(|(id, server)| {
                        let network = network_of(server.ip);
                        network != probe.network && !self.rests(id, cx.now) && candidate.answered(network).is_none()
                    })
                });
                own.reached(cx, &probe.address, probe.network, more);
                Outcome::Reached
            }
            ProbeVerdict::DialFailed => {
                let Some(probe) = self.answered(id) else { return Outcome::Nothing };
                own.not_reached(cx, &probe.address, probe.network);
                Outcome::NotReached(probe.network)
            }
            ProbeVerdict::Unproven => {
                if let Some(probe) = self.open.remove(&id) {
                    self.rest(cx.now, probe.server, Rest { until: cx.now + LIAR, errors: 0 });
                    own.put_off(cx, &probe.address);
                }
                Outcome::Nothing
            }
            // A server that claims to have connected says nothing against the address, and proves nothing.
            ProbeVerdict::DialBackFailed
            | ProbeVerdict::Refused
            | ProbeVerdict::NotSupported
            | ProbeVerdict::NotConnected
            | ProbeVerdict::Broken(_) => {
                self.failed(cx, own, id);
                Outcome::Nothing
            }
        }
    }

    fn answered(&mut self, id: CommandId) -> Option<Probe> {
        let probe = self.open.remove(&id)?;
        self.resting.remove(&probe.server);
        Some(probe)
    }

    /// A probe came to nothing: the server rests, the address is taken to another one soon.
    pub(super) fn failed(&mut self, cx: &Cx<'_>, own: &mut OwnAddresses, id: CommandId) {
        let Some(probe) = self.open.remove(&id) else { return };
        let errors = self.resting.get(&probe.server).map_or(0, |rest| rest.errors);
        let NatConfig { probe_retry, probe_retry_max, .. } = &cx.config.nat;
        let wait = probe_retry.saturating_mul(1 << errors.min(16)).min(*probe_retry_max);
        let rest = Rest { until: cx.now + wait, errors: errors.saturating_add(1) };
        self.rest(cx.now, probe.server, rest);
        own.put_off(cx, &probe.address);
    }

    fn rest(&mut self, now: Time, server: PeerId, rest: Rest) {
        if self.resting.len() >= MAX_SERVERS && !self.resting.contains_key(&server) {
            self.resting.retain(|_, rest| rest.until > now);
            if self.resting.len() >= MAX_SERVERS
                && let Some(first) = self.resting.iter().min_by_key(|(_, rest)| rest.until).map(|(id, _)| *id)
            {
                self.resting.remove(&first);
            }
        }
        self.resting.insert(server, rest);
    }

    /// What is under way asks about a network that we have left.
    pub(super) fn forget_the_network(&mut self, cx: &mut Cx<'_>) {
        for probe in core::mem::take(&mut self.open).into_keys() {
            cx.command(Action::CancelProbe { probe }, Reason::NetworkChanged);
        }
        self.spent = 0;
    }
}

/// The hosts of our addresses, as far as more than one stranger's word speaks for them: else a liar could say that we are
/// where an honest server is, and so keep it from being asked.
pub(super) fn hosts(own: &OwnAddresses) -> BTreeSet<IpAddr> {
    own.iter().filter(|(_, candidate)| candidate.is_founded()).filter_map(|(address, _)| address.host_ip()).collect()
}

/// A peer as a server that probes for us, if it can.
fn server_of(here: &Here, peer: &Peer) -> Option<Server> {
    if !peer.capabilities().contains(Capabilities::PROBE) {
        return None;
    }
    let chosen = peer.book.iter().any(|known| known.proven && !known.address.is_relayed());
    let by = |direction: Direction| {
        let connections = peer.direct().filter(move |connection| connection.direction == direction);
        let mut hosts = connections.filter_map(|connection| dialled_host(peer, &connection.address));
        hosts.find(|ip| is_global(*ip) && !here.is_near(*ip))
    };
    let ip = by(Direction::Outbound).or_else(|| by(Direction::Inbound).filter(|_| chosen))?;
    let has = |ipv6: bool| {
        ip.is_ipv6() == ipv6
            || peer
                .book
                .iter()
                .filter_map(|known| known.address.host_ip())
                .any(|ip| ip.is_ipv6() == ipv6 && is_global(ip))
    };
    Some(Server { ip, v4: has(false), v6: has(true) })
}
