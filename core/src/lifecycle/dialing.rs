//! Serving the queue of dials, and what becomes of them.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::{cmp::Reverse, net::IpAddr, time::Duration};

use super::{
    Class, PeerLifecycle,
    dialer::{Dial, Held, Job},
    discovery::{is_believable, is_reachable},
};
use crate::{
    bootstrap::{TargetId, Want},
    cx::{Cx, Signal, is_silence},
    jitter::{self, Purpose},
    peers::{Dialing, Lane, Peer, RelayUse, Slot, Sources},
    vocabulary::{
        Action, Address, AskError, Asker, CommandId, ConnectionId, DialError, HeldId, LifecycleConfig, Notice, PeerId,
        Reason, Scope, Source, Time, Transport,
    },
};

/// Addresses in one dial: the library staggers them, best first.
const ADDRESSES: usize = 8;
/// Dials into one network of our own per minute: mDNS is believed more than the internet.
const NEAR_DIALS: u32 = 64;
/// A want that the budget does not allow is looked at again after this.
const OVER_BUDGET: Duration = Duration::from_secs(60);
/// A peer that waits for its relay to be there is looked at again after this, whatever becomes of the relay.
const AWAITING: Duration = Duration::from_secs(1);
/// Of the low water mark, the part up to which mere members and discoveries are dialled. As many again come by themselves,
/// and twice as many where half of all can't be dialled; if these were trimmed, they would push out others elsewhere.
const STRANGERS: u32 = 4;
/// Of all peers that wait for room, one asks so often.
const TURN: Duration = Duration::from_secs(2);
/// Relays in one dial.
const RELAYS: usize = 2;
/// A relay that was here a moment ago is dialled again at least this often: it may be restarting.
const RELAY_RETRY: Duration = Duration::from_secs(3);
/// See `RELAY_RETRY`: a moment.
const RELAY_MOMENT: Duration = Duration::from_secs(180);

/// An address that may be dialled now.
struct Due {
    address: Address,
    proven: bool,
    failures: u16,
}

/// What became of a dial for somebody else than a known peer.
pub(super) enum JobOutcome<'a> {
    /// A connection that may stay.
    Reached(Slot, ConnectionId),
    /// None.
    Failed(Option<&'a Address>, &'a DialError),
    /// A connection to somebody with whom there is to be none.
    Unwanted(AskError),
}

impl PeerLifecycle {
    /// Turns wants into dials, as far as slots, budget and limits allow.
    pub(crate) fn reconcile(&mut self, cx: &mut Cx<'_>, targets: &BTreeMap<TargetId, Want>) {
        while let Some((class, job)) = self.dialer.next_job(cx.config.lifecycle.dial_slots) {
            match job {
                Job::Peer(slot) => self.dial_peer(cx, class, slot, targets),
                Job::Target(target) => {
                    // It may have been wanted twice, with a connection in between, while there was no slot.
                    if let Some(want) = targets.get(&target).filter(|_| !self.dialer.has(job)) {
                        self.dial_target(cx, target, want);
                    }
                }
                Job::Ask(request) => {
                    if let Some(address) = self.asks.address(request) {
                        self.start(cx, job, class, None, vec![address], Reason::Asked);
                    }
                }
                Job::Held(held) => self.release(cx, held),
            }
        }
    }

    /// Whether members who are nothing more than that are dialled: in a crowd a few are enough.
    pub(crate) fn has_room_for_members(&self, config: &LifecycleConfig) -> bool {
        self.connected_count() < strangers(config)
    }

    /// The planner wants this target dialled.
    pub(crate) fn want_target(&mut self, now: Time, target: TargetId) {
        self.dialer.enqueue(Class::Bootstrap, now, Job::Target(target));
    }

    fn dial_peer(&mut self, cx: &mut Cx<'_>, class: Class, slot: Slot, targets: &BTreeMap<TargetId, Want>) {
        self.peers.at_mut(slot).queued = None;
        let peer = self.peers.at(slot);
        let lanes = [Lane::Direct, Lane::Relayed];
        let Some(lane) = lanes.into_iter().find(|lane| self.is_ready(cx, peer, *lane)) else {
            return self.settle(cx, slot);
        };
        let Some((_, reason)) = self.want(cx.now, peer, lane) else { return };
        let config = &cx.config.lifecycle;
        let limit = match class {
            _ if peer.is_connected() => u32::MAX,
            Class::User | Class::Kept | Class::Bootstrap => u32::MAX,
            Class::Near => config.high_water,
            Class::Member | Class::Discovery => strangers(config),
        };
        let connections = self.connected_count();
        if connections >= limit {
            // However many wait, they ask every few moments together.
            let wait = OVER_BUDGET.max(TURN * self.peers.len());
            self.defer(cx, slot, cx.now + wait, Reason::OverBudget { connections, limit });
            return;
        }

        let due = self.due(cx, peer, lane);
        // A bootstrap peer that relays is dialled in this very moment: the circuit follows when it is there.
        let next =
            |via: &Address| targets.values().any(|want| want.addresses.iter().any(|at| at.host_ip() == via.host_ip()));
        let awaited = |due: &Due| match &due.address {
            Address::Relayed(circuit) => {
                let here = self.peers.by_id(&circuit.relay).is_some_and(|relay| relay.is_direct());
                !here && circuit.via.as_ref().is_some_and(|via| via.host_ip().is_some() && next(via))
            }
            Address::Ip { .. } | Address::Name { .. } | Address::DnsAddr(_) | Address::Other(_) => false,
        };
        if lane == Lane::Relayed && due.iter().all(awaited) {
            self.awaiting_relay.insert(slot);
            self.peers.set_timer(slot, cx.now + AWAITING, cx.now);
            return;
        }
        let attempt = due.iter().map(|due| u32::from(due.failures)).min().unwrap_or(0) + 1;
        let insistent = class == Class::User || class == Class::Kept || self.isolated_since.is_some();
        let mut chosen: Vec<Address> = Vec::new();
        let mut refused = None;
        for Due { address, proven, .. } in due {
            let enough = match lane {
                Lane::Direct => chosen.len() == ADDRESSES,
                // Each relay that is tried builds a circuit; the one by which the peer is reached is enough.
                Lane::Relayed => chosen.len() == RELAYS || chosen.iter().any(|other| other.relay() == address.relay()),
            };
            if enough {
                continue;
            }
            if !insistent && self.dialer.blackholes.skips(&address, config) {
                refused.get_or_insert((cx.now + OVER_BUDGET, Reason::TransportBlocked));
                continue;
            }
            if let Some(ip) = outer_ip(&address).filter(|_| !proven && class != Class::User) {
                let limit = if cx.here.is_near(ip) { NEAR_DIALS } else { config.dials_per_network };
                if let Err(until) = self.dialer.charge(ip, limit, cx.now) {
                    refused = Some((until, Reason::NetworkLimit));
                    continue;
                }
            }
            chosen.push(address);
        }
        if chosen.is_empty() {
            let (until, reason) = refused.unwrap_or((cx.now + OVER_BUDGET, Reason::NoUsableAddress));
            self.defer(cx, slot, until, reason);
            return;
        }
        let plain = class == Class::User || matches!(reason, Reason::OnlyRelayed | Reason::CircuitWorn);
        let reason = if attempt > 1 && !plain { Reason::Retry { attempt } } else { reason };
        let peer = self.peers.at(slot).id;
        let id = self.start(cx, Job::Peer(slot), class, Some(peer), chosen, reason);
        let peer = self.peers.at_mut(slot);
        peer.dials.push(Dialing { id, lane });
        peer.deferred = false;
        self.settle(cx, slot);
    }

    /// The addresses of a lane that may be dialled now, best first.
    fn due(&self, cx: &Cx<'_>, peer: &Peer, lane: Lane) -> Vec<Due> {
        let ready = self.usable(cx, peer, lane).filter(|known| known.retry_at <= cx.now);
        let mut due: Vec<Due> = ready
            .map(|known| Due {
                address: known.address.clone(),
                proven: known.proven || known.sources.by_hand(),
                failures: known.failures,
            })
            .collect();
        // A worn circuit is best replaced through another relay.
        let worn: Vec<&PeerId> = peer.standing().filter_map(|connection| connection.address.relay()).collect();
        due.sort_by_key(|Due { address, proven, failures }| {
            let near = address.host_ip().is_some_and(|ip| cx.here.is_near(ip));
            let quic = outer_transport(address) == Some(Transport::Quic);
            let relay = address.relay();
            let here = relay.and_then(|relay| self.peers.by_id(relay)).is_some_and(|relay| relay.is_direct());
            let same = relay.is_some_and(|relay| worn.contains(&relay));
            (same, *failures, relay.is_some() && !here, !near, !*proven, !quic, Reverse(address.clone()))
        });
        due
    }

    fn dial_target(&mut self, cx: &mut Cx<'_>, target: TargetId, want: &Want) {
        let known = want.likely.and_then(|peer| self.peers.by_id(&peer));
        if known.is_some_and(|peer| peer.blocked || peer.held_off || !peer.dials.is_empty()) {
            cx.signal(Signal::TargetPutOff(target));
            return;
        }
        let by_hand = Sources::one(Source::Configured);
        let mut addresses: Vec<Address> = want
            .addresses
            .iter()
            .filter(|address| is_believable(cx.here, Source::Configured, address))
            .filter(|address| is_reachable(cx.here, address, by_hand))
            .take(ADDRESSES)
            .cloned()
            .collect();
        if addresses.is_empty() {
            let ours = want.addresses.iter().any(|address| cx.here.is_own(address));
            let us = Signal::TargetFailed(target, None, DialError::OwnIdentity);
            cx.signal(if ours { us } else { Signal::TargetPutOff(target) });
            return;
        }
        if let Some(peer) = known.filter(|peer| want.peer == Some(peer.id)) {
            // The peer's own dial in one with it: where it once was, as far as a try is due there.
            let due = self.due(cx, peer, Lane::Direct).into_iter().filter(|due| due.proven).map(|due| due.address);
            addresses.extend(due.filter(|address| !want.addresses.contains(address)));
            addresses.truncate(ADDRESSES);
        }
        let id = self.start(cx, Job::Target(target), Class::Bootstrap, want.peer, addresses, want.reason.clone());
        if let Some(peer) = want.likely {
            self.dialer.started_to_target(id, peer);
            if let Some(slot) = self.peers.find(&peer) {
                self.settle(cx, slot);
            }
        }
    }

    fn start(
        &mut self,
        cx: &mut Cx<'_>,
        job: Job,
        class: Class,
        peer: Option<PeerId>,
        addresses: Vec<Address>,
        reason: Reason,
    ) -> CommandId {
        let places = addresses.iter().map(|address| self.through(cx.here, address)).collect();
        let id = cx.command(Action::Dial { peer, addresses: places }, reason.clone());
        self.dialer.started(id, Dial { job, class, addresses, since: cx.now, reason });
        id
    }

    /// Says that a wanted connection will not be tried before `until`, and why.
    fn defer(&mut self, cx: &mut Cx<'_>, slot: Slot, until: Time, reason: Reason) {
        let peer = self.peers.at_mut(slot);
        // Whoever waits for the same limit does not come back at the same moment.
        let draw = jitter::draw(cx.seed, Purpose::Defer, peer.arrival, cx.now.as_nanos());
        let until = until + jitter::within(OVER_BUDGET, draw);
        peer.hold_until = until;
        let who = peer.id;
        // Said once, not each minute.
        if core::mem::replace(&mut peer.deferred, true) {
            self.settle(cx, slot);
            return;
        }
        cx.tell(Notice::PeerDeferred { peer: who, wait: until.since(cx.now) }, reason);
        self.settle(cx, slot);
    }

    pub(super) fn dial_failed(
        &mut self,
        cx: &mut Cx<'_>,
        id: CommandId,
        failures: &[(Address, DialError)],
        error: &DialError,
    ) {
        let whose = self.dialer.target_of(id);
        let Some(dial) = self.dialer.ended(id) else { return };
        let outcomes: Vec<(&Address, &DialError)> = dial
            .addresses
            .iter()
            .map(|address| {
                let same =
                    |failed: &Address| failed == address || (failed.is_relayed() && failed.relay() == address.relay());
                let own = failures.iter().find(|(failed, _)| same(failed)).map(|(_, error)| error);
                (address, own.unwrap_or(error))
            })
            .collect();
        for (address, error) in &outcomes {
            if is_silence(error) && self.others_work(address) {
                self.dialer.blackholes.failed(address);
            } else if matches!(error, DialError::ConnectionRefused | DialError::WrongPeer(_)) {
                self.dialer.blackholes.succeeded(address);
            }
        }
        if let Job::Peer(slot) = dial.job {
            self.peers.at_mut(slot).dials.retain(|other| other.id != id);
            self.blame(cx, slot, &outcomes);
        }
        match dial.job {
            Job::Peer(slot) => {
                self.settle(cx, slot);
                // The dial may have been all that the peer was still known for. A request is answered when everything was
                // tried, look-ups included.
                let tried = |peer: &Peer| peer.asks > 0 && peer.queued.is_none() && peer.dials.is_empty();
                if self.peers.get(slot).is_some_and(tried) && !self.awaiting_relay.contains(&slot) {
                    let words = in_words(&outcomes, error);
                    self.all_tried(cx, slot, words);
                }
            }
            Job::Target(_) | Job::Held(_) => {
                if let Some(slot) = whose.and_then(|peer| self.peers.find(&peer)) {
                    self.write_down(cx, slot, &outcomes);
                    self.settle(cx, slot);
                }
                let (address, error) = outcomes.first().copied().map_or((None, error), |(at, error)| (Some(at), error));
                self.settle_job(cx, dial.job, JobOutcome::Failed(address, error));
            }
            Job::Ask(request) => {
                self.answer_ask(cx, request, Err(AskError::Failed(in_words(&outcomes, error))), &Reason::Asked);
            }
        }
        self.go_on_awaiting(cx);
    }

    /// Silence says something about a family and transport only while the internet works by another one, and not by this.
    fn others_work(&self, address: &Address) -> bool {
        let kind = |address: &Address| Some((address.host_ip()?.is_ipv6(), address.transport()?));
        let standing =
            || self.connected.iter().flat_map(|slot| self.peers.at(*slot).standing()).map(|one| &one.address);
        let mut global = standing().filter(|other| other.scope().is_some_and(Scope::is_global)).map(kind).peekable();
        global.peek().is_some() && global.all(|other| other != kind(address))
    }

    /// Everything that was known of a peer has failed: somebody else may know better; if not, who asked is told.
    fn all_tried(&mut self, cx: &mut Cx<'_>, slot: Slot, words: String) {
        if self.asks.may_seek(slot, &words) {
            let peer = self.peers.at(slot).id;
            cx.signal(Signal::Sought(peer));
        } else {
            self.answer_asks(cx, slot, &Err(AskError::Failed(words)));
            self.settle(cx, slot);
        }
    }

    /// Writes the failures down where they belong.
    fn write_down(&mut self, cx: &mut Cx<'_>, slot: Slot, outcomes: &[(&Address, &DialError)]) {
        let mut wrong = None;
        for (address, error) in outcomes {
            let peer = self.peers.at_mut(slot);
            let arrival = peer.arrival;
            // Whichever address of a relay was named: what failed is the way through it.
            for known in peer.book.like_mut(address) {
                known.failed(cx.now, (*error).clone(), &cx.config.lifecycle, cx.seed, arrival);
            }
            let Some(by_hand) = peer.book.get_mut(address).map(|known| known.sources.by_hand()) else { continue };
            if let DialError::WrongPeer(actual) = error {
                wrong = Some(*actual);
            }
            if matches!(error, DialError::WrongPeer(_) | DialError::OwnIdentity) && !by_hand {
                peer.book.remove(address);
            }
        }
        if let Some(actual) = wrong {
            self.distrust(cx, slot, Reason::WrongPeer { actual });
        }
        let peer = self.peers.at_mut(slot);
        if peer.relay != RelayUse::None && peer.last_seen.is_some_and(|seen| seen + RELAY_MOMENT > cx.now) {
            let soon = jitter::vary(
                RELAY_RETRY * 4 / 5,
                jitter::draw(cx.seed, Purpose::Relay, peer.arrival, cx.now.as_nanos()),
            );
            peer.book.wait_at_most(cx.now + soon);
        }
    }

    /// Writes the failures down and says when the peer is tried again.
    fn blame(&mut self, cx: &mut Cx<'_>, slot: Slot, outcomes: &[(&Address, &DialError)]) {
        self.write_down(cx, slot, outcomes);
        let peer = self.peers.at(slot);
        let next = peer.book.iter().map(|known| known.retry_at).min().unwrap_or(cx.now);
        let first = outcomes.first();
        let reason = Reason::DialFailed {
            address: first.map(|(address, _)| (*address).clone()),
            error: first.map_or(DialError::NoAddresses, |(_, error)| (*error).clone()),
        };
        let peer = peer.id;
        cx.tell(Notice::PeerDeferred { peer, wait: next.since(cx.now) }, reason);
    }

    /// A dial for somebody else than a known peer has ended.
    pub(super) fn settle_job(&mut self, cx: &mut Cx<'_>, job: Job, outcome: JobOutcome<'_>) {
        match (job, outcome) {
            (Job::Target(target), JobOutcome::Reached(slot, _)) => {
                let peer = self.peers.at(slot).id;
                cx.signal(Signal::TargetConnected(target, peer));
            }
            (Job::Target(target), JobOutcome::Failed(address, error)) => {
                cx.signal(Signal::TargetFailed(target, address.cloned(), error.clone()));
            }
            (Job::Target(target), JobOutcome::Unwanted(_)) => cx.signal(Signal::TargetPutOff(target)),
            (Job::Ask(request), JobOutcome::Reached(slot, connection)) => {
                self.ask_reached(cx, request, slot, connection);
            }
            (Job::Ask(request), JobOutcome::Unwanted(error)) => {
                self.answer_ask(cx, request, Err(error), &Reason::Asked);
            }
            (Job::Ask(_), JobOutcome::Failed(..)) | (Job::Peer(_) | Job::Held(_), _) => {}
        }
    }

    pub(super) fn dial_held(&mut self, cx: &mut Cx<'_>, id: HeldId, asker: Asker, peer: Option<PeerId>) {
        let known = peer.and_then(|peer| self.peers.by_id(&peer));
        let reason = if peer == Some(cx.local) {
            Some(Reason::OwnIdentity)
        } else if known.is_some_and(|peer| peer.blocked) {
            Some(Reason::Blocked)
        } else if known.is_some_and(|peer| peer.held_off) {
            Some(Reason::Asked)
        } else if known.is_some_and(|peer| peer.is_shunned(cx.now)) {
            Some(Reason::NotNeeded)
        } else if asker == Asker::Kademlia && known.is_some_and(|peer| peer.no_table_until > cx.now) {
            // Whoever has a record is asked in a look-up, too, though only servers answer.
            Some(Reason::NoServer)
        } else {
            None
        };
        let held = Held { asker, peer, since: cx.now, released: false };
        let full = reason.is_none() && !self.dialer.hold(id, held);
        let reason = if full {
            let limit = cx.config.lifecycle.dial_slots;
            Some(Reason::OverBudget { connections: self.dialer.dialing(), limit })
        } else {
            reason
        };
        if let Some(reason) = reason {
            cx.command(Action::Refuse { held: id, peer }, reason);
        }
    }

    fn release(&mut self, cx: &mut Cx<'_>, id: HeldId) {
        let limit = cx.config.lifecycle.high_water;
        let connections = self.connected_count();
        // A circuit's dial to its relay is part of a dial of ours.
        if connections >= limit && self.dialer.asker(id) != Some(Asker::Relay) {
            self.refuse_held(cx, id, Reason::OverBudget { connections, limit });
        } else if let Some(held) = self.dialer.release(id, cx.now) {
            let peer = held.peer;
            let reason = match held.asker {
                Asker::Application => Reason::Asked,
                Asker::Relay => Reason::Circuit,
                Asker::Autonat => Reason::ProbeAsked,
                Asker::Kademlia | Asker::Identify => Reason::LookUp,
            };
            cx.command(Action::Release { held: id, peer }, reason);
        }
    }

    /// Ends a held dial: refuses it if it still waits; if it was released, nobody counts on it any more.
    pub(super) fn refuse_held(&mut self, cx: &mut Cx<'_>, id: HeldId, reason: Reason) {
        if let Some(held) = self.dialer.unhold(id).filter(|held| !held.released) {
            cx.command(Action::Refuse { held: id, peer: held.peer }, reason);
        }
    }
}

fn in_words(outcomes: &[(&Address, &DialError)], error: &DialError) -> String {
    if outcomes.is_empty() {
        return error.to_string();
    }
    let each: Vec<String> = outcomes.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    each.join("; ")
}

/// Connections up to which mere members and discoveries are dialled.
const fn strangers(config: &LifecycleConfig) -> u32 {
    config.low_water.div_ceil(STRANGERS)
}

/// Where the first packet of a dial goes: the peer, or the relay.
fn outer_ip(address: &Address) -> Option<IpAddr> {
    match address {
        Address::Relayed(circuit) => circuit.via.as_ref()?.host_ip(),
        Address::Ip { .. } | Address::Name { .. } | Address::DnsAddr(_) | Address::Other(_) => address.host_ip(),
    }
}

fn outer_transport(address: &Address) -> Option<Transport> {
    match address {
        Address::Relayed(circuit) => circuit.via.as_ref()?.transport(),
        Address::Ip { .. } | Address::Name { .. } | Address::DnsAddr(_) | Address::Other(_) => address.transport(),
    }
}
