//! Own addresses: who says so, who has shown it, and what that is worth.
//!
//! A probe that came in with its nonce is proof; one that failed is a hint, for the server may not have tried. So one
//! success lifts an address' confidence to 3 (to 2 while another network could still prove it), one failure lowers it by
//! 1, and nothing lowers it while strangers come to us by the same family and transport.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use super::own::{Kind, is_worth_keeping};
use crate::{
    cx::{Cx, Here},
    jitter::{self, Purpose},
    view::CandidateView,
    vocabulary::{Address, Config, NatConfig, Reason, Role, Scope, Time, Transport, network_of},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct OwnAddresses {
    candidates: BTreeMap<Address, Candidate>,
    /// Networks from which somebody came to us over the internet, and when last.
    visitors: BTreeMap<Transport, BTreeMap<IpAddr, Time>>,
}

/// An address that may be ours.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Candidate {
    /// Networks from which it was seen, and when last.
    observers: BTreeMap<IpAddr, Time>,
    /// A behaviour holds it for proven.
    confirmed: bool,
    /// An interface of this machine has it.
    own: bool,
    /// The router lets it lead here.
    mapped: bool,
    /// The router's word is to be looked at then: with nobody to prove it, it will do.
    trust_at: Option<Time>,
    trusted: bool,
    standing: Standing,
    /// What probing networks said last.
    answers: BTreeMap<IpAddr, Answer>,
    successes: u8,
    /// Since the last success.
    failures: u8,
    confidence: u8,
    /// Not probed before.
    probe_at: Time,
    /// When it was last spoken of; `None`: nobody speaks of it any more.
    heard: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(super) enum Standing {
    /// Nothing was shown so far.
    #[default]
    Unjudged,
    /// It leads here.
    Proven,
    /// It does not: probes failed from everywhere, and nobody came.
    Closed,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Answer {
    at: Time,
    reached: bool,
}

/// Observers kept per candidate.
const MAX_OBSERVERS: usize = 8;
/// Probing networks kept per candidate.
const MAX_ANSWERS: usize = 8;
/// Visitors' networks kept per transport.
const MAX_VISITORS: usize = 8;
/// Networks from which somebody has to come before we hold ourselves reachable.
const VISITORS: usize = 2;
/// Failures cost an address nothing so long after a visitor.
const VISITED: Duration = Duration::from_secs(600);
/// Confidence in an address that was proven from everywhere it could be.
const CERTAIN: u8 = 3;
/// Failures in a row after which an address is looked at only as seldom as a proven one.
const GIVEN_UP: u8 = 3;
/// Candidates told to a peer that is to punch.
const MAX_PUNCH_CANDIDATES: usize = 8;

impl OwnAddresses {
    /// A peer in that network sees us there. Says whether anything may follow from that: that it still does is no news.
    pub(super) fn observed(&mut self, cx: &Cx<'_>, observed: &Address, observer: IpAddr) -> bool {
        let now = cx.now;
        let network = network_of(observer);
        let mut news = false;
        // An observer has one opinion per family and transport: the last one.
        for (address, candidate) in &mut self.candidates {
            if address != observed
                && Kind::of(address) == Kind::of(observed)
                && candidate.observers.remove(&network).is_some()
            {
                news = true;
                if candidate.observers.is_empty() {
                    candidate.heard = None;
                    candidate.probe_at = now;
                }
            }
        }
        let Some(candidate) = self.candidate(cx, observed) else { return news };
        if candidate.observers.len() < MAX_OBSERVERS || candidate.observers.contains_key(&network) {
            news |= candidate.observers.insert(network, now).is_none();
        }
        news
    }

    /// Says whether that is news.
    pub(super) fn guessed(&mut self, cx: &Cx<'_>, address: &Address) -> bool {
        let news = !self.candidates.contains_key(address);
        self.candidate(cx, address).is_some() && news
    }

    pub(super) fn confirmed(&mut self, cx: &Cx<'_>, address: &Address) {
        if let Some(candidate) = self.candidate(cx, address) {
            candidate.confirmed = true;
        }
    }

    pub(super) fn unconfirmed(&mut self, address: &Address) {
        if let Some(candidate) = self.candidates.get_mut(address) {
            candidate.confirmed = false;
        }
    }

    /// The router lets this address lead here; any other of the kind no longer.
    pub(super) fn mapped(&mut self, cx: &Cx<'_>, transport: Transport, external: Option<&Address>) {
        for (address, candidate) in &mut self.candidates {
            if candidate.mapped && Some(address) != external && address.transport() == Some(transport) {
                candidate.lose_mapping();
                candidate.doubt(cx.now);
            }
        }
        let Some(external) = external.filter(|external| is_worth_keeping(external)) else { return };
        if let Some(candidate) = self.candidate(cx, external)
            && !candidate.mapped
        {
            candidate.mapped = true;
            candidate.trust_at = Some(cx.now + cx.config.nat.port_mapping_timeout);
            candidate.doubt(cx.now);
        }
    }

    fn candidate(&mut self, cx: &Cx<'_>, address: &Address) -> Option<&mut Candidate> {
        if !self.candidates.contains_key(address) {
            self.make_room(cx.config)?;
            let probe_at = cx.now + cx.config.nat.probe_after;
            self.candidates.insert(address.clone(), Candidate { probe_at, ..Candidate::default() });
        }
        let candidate = self.candidates.get_mut(address)?;
        candidate.heard = Some(cx.now);
        Some(candidate)
    }

    fn make_room(&mut self, config: &Config) -> Option<()> {
        if self.candidates.len() < usize::from(config.nat.max_candidates) {
            return Some(());
        }
        let spare = self.candidates.iter().filter(|(_, candidate)| !candidate.own);
        let least = spare.min_by_key(|(_, candidate)| candidate.worth()).map(|(address, _)| address.clone())?;
        self.candidates.remove(&least);
        Some(())
    }

    /// Somebody whom we had not dialled came to us over the internet. Says whether anything may follow from that.
    pub(super) fn visited(&mut self, cx: &Cx<'_>, ip: IpAddr, transport: Transport) -> bool {
        let kind = Kind { ipv6: ip.is_ipv6(), transport };
        // One more of many shows nothing new.
        let was_clear = self.has_visitors() && self.is_visited(Some(kind), cx.now);
        let visitors = self.visitors.entry(transport).or_default();
        let network = network_of(ip);
        if visitors.len() >= MAX_VISITORS
            && !visitors.contains_key(&network)
            && let Some(oldest) = visitors.iter().min_by_key(|(_, at)| **at).map(|(network, _)| *network)
        {
            visitors.remove(&oldest);
        }
        visitors.insert(network, cx.now);
        let mut news = !was_clear;
        for (address, candidate) in &mut self.candidates {
            if candidate.standing == Standing::Closed && Kind::of(address) == Some(kind) {
                candidate.standing = Standing::Unjudged;
                candidate.doubt(cx.now);
                news = true;
            }
        }
        news
    }

    /// Whether visitors from enough networks have come to hold ourselves reachable.
    pub(super) fn has_visitors(&self) -> bool {
        let networks: BTreeSet<&IpAddr> = self.visitors.values().flat_map(BTreeMap::keys).collect();
        networks.len() >= VISITORS
    }

    /// Whether anybody has come lately, by whatever family and transport.
    pub(super) fn has_recent_visitor(&self, now: Time) -> bool {
        self.visitors.values().flat_map(BTreeMap::values).any(|at| *at + VISITED > now)
    }

    fn is_visited(&self, kind: Option<Kind>, now: Time) -> bool {
        kind.and_then(|kind| Some((kind, self.visitors.get(&kind.transport)?))).is_some_and(|(kind, visitors)| {
            visitors.iter().any(|(network, at)| network.is_ipv6() == kind.ipv6 && *at + VISITED > now)
        })
    }

    /// What was seen of us was seen on a network that we have left.
    pub(super) fn forget_the_network(&mut self, now: Time, is_own: impl Fn(IpAddr) -> bool) {
        self.candidates.retain(|address, _| address.host_ip().is_some_and(&is_own));
        for candidate in self.candidates.values_mut() {
            candidate.observers.clear();
            if candidate.mapped {
                candidate.lose_mapping();
            }
            candidate.doubt(now);
        }
        self.visitors.clear();
    }

    /// All that was shown may have changed.
    pub(super) fn doubt(&mut self, now: Time) {
        for candidate in self.candidates.values_mut() {
            candidate.doubt(now);
        }
    }

    /// Another network can probe: what is not proven gets another chance.
    pub(super) fn another_prober(&mut self, cx: &Cx<'_>, network: IpAddr) {
        let at = cx.now + cx.config.nat.probe_after;
        for candidate in self.candidates.values_mut() {
            let asked = candidate.answers.contains_key(&network) || candidate.answers.len() >= MAX_ANSWERS / 2;
            if candidate.standing != Standing::Proven && !asked {
                candidate.probe_at = candidate.probe_at.min(at);
            }
        }
    }

    /// Takes over what the interfaces say, and drops what is out of date. `could_prove` says whether somebody could
    /// probe an address who has not said anything about it yet.
    pub(super) fn settle(&mut self, cx: &Cx<'_>, could_prove: impl Fn(&Address, &Candidate) -> bool) {
        self.take_over_interfaces(cx);
        let (now, ttl) = (cx.now, cx.config.nat.observation_ttl);
        for visitors in self.visitors.values_mut() {
            visitors.retain(|_, at| *at + ttl > now);
        }
        for candidate in self.candidates.values_mut() {
            candidate.observers.retain(|_, at| *at + ttl > now);
        }
        let visited: BTreeSet<Kind> = self.kinds().filter(|kind| self.is_visited(Some(*kind), now)).collect();
        for (address, candidate) in &mut self.candidates {
            let more = could_prove(address, candidate);
            let visited = Kind::of(address).is_some_and(|kind| visited.contains(&kind));
            candidate.judge(more, visited);
            if candidate.trust_at.is_some_and(|at| at <= now) {
                candidate.trusted = !more && candidate.answers.is_empty();
                candidate.trust_at = (!candidate.trusted && candidate.answers.is_empty())
                    .then(|| now + cx.config.nat.port_mapping_timeout);
            }
        }
        self.candidates.retain(|address, candidate| {
            candidate.own
                || candidate.confirmed
                || (Kind::of(address).is_some_and(|kind| kind.is_meant(cx))
                    && (candidate.is_kept() || candidate.heard.is_some_and(|heard| heard + ttl > now)))
        });
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.candidates.keys().filter_map(Kind::of)
    }

    fn take_over_interfaces(&mut self, cx: &Cx<'_>) {
        for (address, candidate) in &mut self.candidates {
            if candidate.own && !cx.here.listening.contains(address) {
                candidate.own = false;
                candidate.standing = Standing::Unjudged;
                candidate.confidence = 0;
                candidate.heard = candidate.observers.values().max().copied();
                candidate.doubt(cx.now);
            }
        }
        // Some room is always left for what others say.
        let most = usize::from(cx.config.nat.max_candidates) * 3 / 4;
        for address in cx.here.listening.iter().filter(|address| is_worth_keeping(address)).take(most) {
            if self.candidates.get(address).is_some_and(|candidate| candidate.own) {
                continue;
            }
            if let Some(candidate) = self.candidate(cx, address) {
                candidate.own = true;
            }
        }
    }

    pub(super) fn next_due(&self, now: Time, config: &NatConfig) -> Option<Time> {
        let ttl = config.observation_ttl;
        let observed = self.candidates.values().flat_map(|candidate| candidate.observers.values());
        let heard = self
            .candidates
            .values()
            .filter(|candidate| !candidate.is_kept())
            .filter_map(|candidate| candidate.heard.as_ref());
        let visitors = self.visitors.values().flat_map(BTreeMap::values);
        let lately = visitors.clone().map(|at| *at + VISITED).filter(|at| *at > now).min();
        let old = observed.chain(heard).chain(visitors).min().map(|at| *at + ttl);
        let trust = self.candidates.values().filter_map(|candidate| candidate.trust_at).min();
        old.into_iter().chain(lately).chain(trust).min()
    }

    /// What everybody may be told, and why.
    pub(super) fn worth_telling(&self, cx: &Cx<'_>) -> BTreeMap<Address, Reason> {
        let is_told = |candidate: &Candidate| {
            let observers = candidate.observers.len();
            let server = cx.config.role == Role::Server;
            match candidate.standing {
                Standing::Closed if candidate.own && server => Some(Reason::OwnAddress),
                Standing::Closed => None,
                Standing::Unjudged | Standing::Proven if candidate.own => Some(Reason::OwnAddress),
                Standing::Proven if candidate.mapped => Some(Reason::Mapped),
                Standing::Proven => Some(Reason::Confirmed),
                Standing::Unjudged if observers >= usize::from(cx.config.nat.observers) => {
                    Some(Reason::Observed { observers: observers as u32 })
                }
                Standing::Unjudged if candidate.confirmed => Some(Reason::Confirmed),
                Standing::Unjudged if candidate.trusted => Some(Reason::Mapped),
                Standing::Unjudged => None,
            }
        };
        self.candidates.iter().filter_map(|(address, candidate)| Some((address.clone(), is_told(candidate)?))).collect()
    }

    /// Why an address is no longer told.
    pub(super) fn why_not(&self, address: &Address) -> Reason {
        match self.candidates.get(address).map(|candidate| candidate.standing) {
            Some(Standing::Closed) => Reason::NotReachable,
            Some(Standing::Unjudged | Standing::Proven) | None => Reason::NotObserved,
        }
    }

    /// Whether an address is proven by more than one probe.
    pub(super) fn is_proven(&self) -> bool {
        self.candidates.values().any(|candidate| candidate.standing == Standing::Proven && candidate.successes >= 2)
    }

    /// Where a peer may try to reach us while we send to it, the best first.
    pub(super) fn punch_candidates(&self, here: &Here, transport: Transport) -> Vec<Address> {
        let fits = |address: &Address| {
            address.transport() == Some(transport) && Kind::of(address).is_some_and(|kind| kind.is_listened(here))
        };
        let mut all: Vec<_> = self.candidates.iter().filter(|(address, _)| fits(address)).collect();
        all.sort_by_key(|(_, candidate)| core::cmp::Reverse(candidate.punch_worth()));
        all.into_iter().take(MAX_PUNCH_CANDIDATES).map(|(address, _)| address.clone()).collect()
    }

    pub(super) fn views(&self, advertised: &BTreeSet<Address>) -> impl Iterator<Item = CandidateView<'_>> {
        self.candidates.iter().map(|(address, candidate)| CandidateView {
            address,
            advertised: advertised.contains(address),
            observers: candidate.observers.len() as u32,
            proofs: candidate.proofs() as u32,
            confidence: candidate.confidence,
            mapped: candidate.mapped,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Address, &Candidate)> {
        self.candidates.iter()
    }

    /// A probe from that network came in there. `more`: somebody else could prove it too.
    pub(super) fn reached(&mut self, cx: &Cx<'_>, address: &Address, network: IpAddr, more: bool) {
        let Some(candidate) = self.candidates.get_mut(address) else { return };
        candidate.answer(network, Answer { at: cx.now, reached: true });
        candidate.successes = candidate.successes.saturating_add(1);
        candidate.failures = 0;
        candidate.confidence = if more { CERTAIN - 1 } else { CERTAIN };
        if candidate.standing == Standing::Closed {
            candidate.standing = Standing::Unjudged;
        }
        candidate.probe_at =
            if more || candidate.successes < 2 { cx.now + cx.config.nat.probe_after } else { seldom(cx, address) };
    }

    /// A server in that network says that it could not get there.
    pub(super) fn not_reached(&mut self, cx: &Cx<'_>, address: &Address, network: IpAddr) {
        let visited = self.is_visited(Kind::of(address), cx.now);
        let Some(candidate) = self.candidates.get_mut(address) else { return };
        candidate.answer(network, Answer { at: cx.now, reached: false });
        candidate.failures = candidate.failures.saturating_add(1);
        if !visited {
            candidate.confidence = candidate.confidence.saturating_sub(1);
        }
        let nat = &cx.config.nat;
        candidate.probe_at = if candidate.failures < GIVEN_UP {
            let wait = nat.probe_retry.saturating_mul(1 << (candidate.failures - 1)).min(nat.probe_retry_max);
            cx.now + wait
        } else {
            seldom(cx, address)
        };
    }

    /// A probe showed nothing.
    pub(super) fn put_off(&mut self, cx: &Cx<'_>, address: &Address) {
        if let Some(candidate) = self.candidates.get_mut(address) {
            candidate.probe_at = cx.now + cx.config.nat.probe_retry;
        }
    }
}

impl Candidate {
    fn answer(&mut self, network: IpAddr, answer: Answer) {
        if self.answers.len() >= MAX_ANSWERS
            && !self.answers.contains_key(&network)
            && let Some(oldest) = self.answers.iter().min_by_key(|(_, answer)| answer.at).map(|(network, _)| *network)
        {
            self.answers.remove(&oldest);
        }
        self.answers.insert(network, answer);
    }

    /// What follows from the probes so far. A proof holds until confidence is used up, whoever else appears.
    fn judge(&mut self, more: bool, visited: bool) {
        if self.confidence == 0 && self.successes > 0 {
            self.successes = 0;
            self.answers.retain(|_, answer| !answer.reached);
            self.standing = Standing::Unjudged;
        }
        if self.confidence > 0 && (self.proofs() >= 2 || self.proofs() == 1 && (!more || self.mapped)) {
            self.standing = Standing::Proven;
        } else if self.confidence == 0 && self.failures >= 2 && !more && !visited {
            self.standing = Standing::Closed;
        }
    }

    fn proofs(&self) -> usize {
        self.answers.values().filter(|answer| answer.reached).count()
    }

    fn lose_mapping(&mut self) {
        self.mapped = false;
        self.trusted = false;
        self.trust_at = None;
        self.standing = Standing::Unjudged;
        self.confidence = 0;
        self.heard = self.observers.values().max().copied();
    }

    fn doubt(&mut self, now: Time) {
        self.probe_at = self.probe_at.min(now);
        self.failures = 0;
    }

    /// Whether it stays, however long nobody has spoken of it.
    fn is_kept(&self) -> bool {
        self.own || self.mapped || self.confirmed || self.standing == Standing::Proven
    }

    fn worth(&self) -> (bool, bool, bool, usize, Option<Time>) {
        let proven = self.standing == Standing::Proven;
        (self.mapped, proven, self.confirmed, self.observers.len(), self.heard)
    }

    fn punch_worth(&self) -> (bool, bool, bool, Time) {
        let seen = self.observers.values().max().copied().unwrap_or_default();
        (self.standing == Standing::Proven, self.mapped || self.own, !self.observers.is_empty(), seen)
    }

    /// The better, the sooner it is probed.
    pub(super) fn probe_worth(&self) -> (bool, usize) {
        (self.own || self.mapped || self.confirmed, self.observers.len())
    }

    pub(super) const fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether nothing speaks for it but what others see or guess.
    pub(super) const fn is_hearsay(&self) -> bool {
        !self.own && !self.mapped && !self.confirmed
    }

    /// Whether more than one stranger's word speaks for it.
    pub(super) fn is_founded(&self) -> bool {
        !self.is_hearsay() || self.observers.len() >= 2
    }

    pub(super) const fn probe_at(&self) -> Time {
        self.probe_at
    }

    /// When that network last said anything about it.
    pub(super) fn answered(&self, network: IpAddr) -> Option<Time> {
        self.answers.get(&network).map(|answer| answer.at)
    }

    pub(super) fn was_probed(&self) -> bool {
        !self.answers.is_empty()
    }
}

/// A proven address, or one that leads nowhere, is looked at so often.
fn seldom(cx: &Cx<'_>, address: &Address) -> Time {
    let key = match address.host_ip() {
        Some(IpAddr::V4(ip)) => u64::from(u32::from(ip)),
        Some(IpAddr::V6(ip)) => u128::from(ip) as u64,
        None => 0,
    };
    let draw = jitter::draw(cx.seed, Purpose::Probe, key, cx.now.as_secs());
    cx.now + jitter::vary(cx.config.nat.probe_again, draw)
}

/// An address of a scope that the internet does not know.
pub(super) fn is_global(ip: IpAddr) -> bool {
    Scope::of(ip).is_global()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cx::Out,
        vocabulary::{PeerId, Transport::Quic},
    };

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn to_punch_the_best_addresses_come_first_and_what_is_not_listened_on_never() {
        let here = Here {
            listening: ["/ip4/192.168.1.2/udp/4001/quic-v1", "/ip4/45.9.9.9/udp/4001/quic-v1"].map(address).into(),
            ..Here::default()
        };
        let mut own = OwnAddresses::default();
        let (config, mut out, mut signals) = (Config::desktop(), Out::default(), Vec::new());
        let mut cx = Cx {
            now: Time::from_secs(1),
            config: &config,
            seed: 1,
            local: PeerId::from_bytes(&[0, 1, 7]).unwrap(),
            here: &here,
            out: &mut out,
            signals: &mut signals,
        };
        let observer = |n: u8| IpAddr::from([46, n, 1, 1]);
        own.guessed(&cx, &address("/ip4/91.1.1.1/udp/4001/quic-v1"));
        own.guessed(&cx, &address("/ip4/91.1.1.1/tcp/4001"));
        own.guessed(&cx, &address("/ip6/2a02:8100::1/udp/4001/quic-v1"));
        for n in 1..=9 {
            cx.now = Time::from_secs(1 + u64::from(n));
            own.observed(&cx, &address(&std::format!("/ip4/91.1.1.1/udp/500{n}/quic-v1")), observer(n));
        }
        own.mapped(&cx, Quic, Some(&address("/ip4/91.1.1.1/udp/41540/quic-v1")));
        own.reached(&cx, &address("/ip4/91.1.1.1/udp/5004/quic-v1"), observer(4), false);
        own.settle(&cx, |_, _| false);
        let ports: Vec<_> = own.punch_candidates(&here, Quic).iter().filter_map(Address::port).collect();
        assert_eq!(ports, [5004, 4001, 41540, 5009, 5008, 5007, 5006, 5005]);
        assert_eq!(own.punch_candidates(&here, Transport::Tcp), []);
    }
}
