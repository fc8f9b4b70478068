//! Which relays are held, so that others reach a node that they can't reach directly.
//!
//! A level: so many are wanted, in distinct networks and near; what is missing is asked for, what is too much is given
//! back. Relays that the settings, the store or the network name are asked as soon as a connection to them stands, others
//! once they have said that they relay. A reservation is renewed, by our own clock, at half of its time; wall clocks are
//! only believed when they make that time shorter. Whenever something makes a reservation doubtful (a circuit through it timed
//! out, one of two connections to the relay broke, the network changed) it is asked for again: an answer within moments
//! says that all is well, and silence that the relay is gone, long before a transport would notice.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    lifecycle::PeerLifecycle,
    peers::{Peer, RelayUse, Slot},
    view::{Capabilities, RelayView},
    vocabulary::{
        Action, Address, CircuitLimit, CloseCause, CommandId, Config, ConnectionId, DialError, Event, Notice, PeerId,
        Reachability, Reason, ReserveError, Role, Scope, Time, network_of,
    },
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Relays {
    places: BTreeMap<Slot, Place>,
    wanted: u32,
    /// Fewer are held than wanted, and nobody is left to ask.
    lacking: bool,
    /// When it is next seen whether a nearer relay is to be had.
    improve_at: Time,
    /// When something is due; `None` for never.
    next: Option<Time>,
    /// Something happened that the level may follow from.
    stirred: bool,
}

/// What is known of a relay that was asked.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Place {
    /// Whose: slots are used again.
    arrival: u64,
    /// The latest `Reserve`, while it is not over.
    reservation: Option<CommandId>,
    /// The connection on which the reservation sits.
    on: Option<ConnectionId>,
    /// An answer is awaited until then.
    until: Option<Time>,
    /// The place was doubtful when it was asked for.
    doubted: bool,
    /// Since when the relay keeps a place for us.
    held: Option<Time>,
    renew_at: Time,
    addresses: BTreeSet<Address>,
    limit: Option<CircuitLimit>,
    failures: u32,
    error: Option<ReserveError>,
    /// Not asked before.
    retry_at: Time,
}

/// Relays whose answers are remembered.
const MAX_PLACES: usize = 32;
/// Addresses of one relay that are told to others.
const MAX_ADDRESSES: usize = 4;
/// A relay whose place is doubtful has this long to answer: several round trips to anywhere.
const DOUBT: Duration = Duration::from_secs(3);
/// The same after a change of network, when most places are gone for certain.
const DOUBT_MOVED: Duration = Duration::from_millis(1_200);
/// A place that lasts less is renewed no more often: it would keep us busy.
const SHORTEST: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);
const RETRY_FULL: Duration = Duration::from_secs(30);
const RETRY_FULL_MAX: Duration = Duration::from_secs(600);
/// A full relay is left alone for so long where there are others.
const REST_FULL: Duration = Duration::from_secs(3_600);
/// One that does not want us.
const REST_FORBIDDEN: Duration = Duration::from_secs(86_400);
/// How often it is seen whether a nearer relay is to be had.
const IMPROVE: Duration = Duration::from_secs(300);
/// A relay is nearer when it saves half of the round trip, and at least this.
const WORTH: Duration = Duration::from_millis(20);
/// Relays that are known, not connected, and dialled at once to be asked.
const LOOK_FOR: usize = 2;

impl Relays {
    pub(super) fn absorb(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, event: &Event) {
        match event {
            Event::Reserved { reservation, limit, lasts } => self.reserved(cx, lifecycle, *reservation, *limit, *lasts),
            Event::ReservedAt { reservation, address } => self.reserved_at(lifecycle, *reservation, address),
            Event::ReservationEnded { reservation, error } => {
                if let Some(slot) = self.by_reservation(*reservation) {
                    self.failed(cx, lifecycle, slot, error.clone());
                }
            }
            Event::Refused { command, refusal } => {
                if let Some(slot) = self.by_reservation(*command) {
                    self.failed(cx, lifecycle, slot, ReserveError::Other(alloc::format!("{refusal}")));
                }
            }
            Event::Disconnected { connection: _, peer, cause } => {
                if let Some(slot) = lifecycle.peers.find(peer).filter(|slot| self.places.contains_key(slot)) {
                    self.connection_lost(cx, lifecycle, slot, cause);
                }
            }
            Event::DialFailed { failures, .. } => {
                // The relay was there and did not answer: is it still?
                let timed_out = failures.iter().filter(|(_, error)| *error == DialError::TimedOut);
                let relays: BTreeSet<Slot> =
                    timed_out.filter_map(|(address, _)| lifecycle.peers.find(address.relay()?)).collect();
                for slot in relays {
                    self.doubt(cx, lifecycle, slot, DOUBT);
                }
            }
            Event::Interfaces(_) | Event::Resumed { .. } => {
                for place in self.places.values_mut() {
                    place.retry_at = place.retry_at.min(cx.now);
                    place.failures = 0;
                }
                let held: Vec<Slot> = self.held().map(|(slot, _)| slot).collect();
                for slot in held {
                    self.doubt(cx, lifecycle, slot, DOUBT_MOVED);
                }
                self.stirred = true;
            }
            // It may have begun to relay only now.
            Event::Identified { peer, .. } => self.try_anew(cx, lifecycle, peer, &ReserveError::Unsupported),
            // However often it was asked while its connections ended one after the other: this is a new one.
            Event::Connected { peer, .. } => self.try_anew(cx, lifecycle, peer, &ReserveError::ConnectionLost),
            Event::Configured(_) | Event::StoreLoaded { .. } => {
                self.stirred = true;
            }
            Event::QueryFound { .. } => self.stirred |= self.lacking,
            Event::Wake
            | Event::Started(_)
            | Event::Asked { .. }
            | Event::WallClock { .. }
            | Event::Listening { .. }
            | Event::ListenAddressGone { .. }
            | Event::ListenFailed { .. }
            | Event::Found { .. }
            | Event::Lost { .. }
            | Event::OwnIdentitySeen { .. }
            | Event::InboundFailed { .. }
            | Event::DialHeld { .. }
            | Event::HeldFailed { .. }
            | Event::IdentifyFailed { .. }
            | Event::Pinged { .. }
            | Event::Candidate { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Probed { .. }
            | Event::CircuitLimited { .. }
            | Event::CircuitUsed { .. }
            | Event::Serving { .. }
            | Event::PunchOffered { .. }
            | Event::PunchAnswered { .. }
            | Event::PunchFailed { .. }
            | Event::Gateway { .. }
            | Event::PortMapped { .. }
            | Event::PortUnmapped { .. }
            | Event::Routed { .. }
            | Event::SyncHeads { .. }
            | Event::SyncTold { .. }
            | Event::SyncFetched { .. }
            | Event::SyncFailed { .. }
            | Event::SyncPressure { .. }
            | Event::SignalFound { .. }
            | Event::SignalPublished { .. }
            | Event::SignalFailed { .. }
            | Event::QueryEnded { .. } => {}
        }
    }

    /// Gives up those that have not answered in time.
    pub(super) fn let_go(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        if self.next.is_some_and(|at| at <= cx.now) {
            self.forget(lifecycle);
            self.give_up_waiting(cx, lifecycle);
        }
    }

    /// Does what is due, and brings what is held nearer to what is wanted. Bounded by the connected peers.
    /// `why`: others need to reach us through relays. Says whether anything was to do: else the circuits are what they were.
    pub(super) fn step(
        &mut self,
        cx: &mut Cx<'_>,
        lifecycle: &mut PeerLifecycle,
        reachability: Reachability,
        why: Option<&Reason>,
    ) -> bool {
        let wanted = wanted(cx, reachability, why);
        let due = self.next.is_some_and(|at| at <= cx.now);
        if wanted == self.wanted && !core::mem::take(&mut self.stirred) && !due {
            return false;
        }
        self.wanted = wanted;
        self.forget(lifecycle);
        self.renew(cx, lifecycle);
        self.ask(cx, lifecycle);
        self.give_back(cx, lifecycle);
        self.improve(cx, lifecycle);
        self.look_for(cx, lifecycle);
        lifecycle.set_relays(self.held_count(), wanted);
        lifecycle.set_witness(cx, self.witness(lifecycle));
        self.next = self.next_due(cx);
        true
    }

    pub(super) const fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// Where others reach us through the relays that are held.
    pub(super) fn circuits(&self) -> impl Iterator<Item = &Address> {
        self.held().flat_map(|(_, place)| &place.addresses)
    }

    pub(crate) fn views(&self, lifecycle: &PeerLifecycle) -> Vec<RelayView> {
        let known = self.places.iter().filter_map(|(slot, place)| Some((lifecycle.peers.get(*slot)?, place)));
        known
            .map(|(peer, place)| RelayView {
                relay: peer.id,
                held_since: place.held,
                asked: place.until.is_some(),
                rtt: rtt(peer),
                limit: place.limit,
                last_error: place.error.clone(),
                retry_at: Some(place.retry_at).filter(|_| place.reservation.is_none() && place.error.is_some()),
            })
            .collect()
    }

    /// How many are wanted now.
    pub(crate) const fn wanted(&self) -> u32 {
        self.wanted
    }

    /// How many are held.
    pub(crate) fn held_count(&self) -> u32 {
        self.held().count() as u32
    }

    /// Whether relays are wanted, and nobody is known to ask.
    pub(crate) const fn is_lacking(&self) -> bool {
        self.lacking
    }

    fn held(&self) -> impl Iterator<Item = (Slot, &Place)> {
        self.places.iter().filter(|(_, place)| place.held.is_some()).map(|(slot, place)| (*slot, place))
    }

    /// The one of those held that is to see us by both transports: rather a server than one of the family, whose nodes are
    /// content with one connection.
    fn witness(&self, lifecycle: &PeerLifecycle) -> Option<Slot> {
        let held = self.held().filter_map(|(slot, _)| Some((slot, lifecycle.peers.get(slot)?)));
        held.min_by_key(|(slot, peer)| (!peer.relay_by_settings, !peer.bootstrap, peer.member, *slot))
            .map(|(slot, _)| slot)
    }

    /// What a relay said last may no longer hold: if it was this, the relay need not be waited for.
    fn try_anew(&mut self, cx: &Cx<'_>, lifecycle: &PeerLifecycle, peer: &PeerId, said: &ReserveError) {
        let place = lifecycle.peers.find(peer).and_then(|slot| self.places.get_mut(&slot));
        if let Some(place) = place.filter(|place| place.error.as_ref() == Some(said)) {
            place.retry_at = place.retry_at.min(cx.now);
        }
        self.stirred = true;
    }

    /// How many are held, or asked.
    fn asked_count(&self) -> u32 {
        self.places.values().filter(|place| place.reservation.is_some()).count() as u32
    }

    fn by_reservation(&self, reservation: CommandId) -> Option<Slot> {
        self.places.iter().find(|(_, place)| place.reservation == Some(reservation)).map(|(slot, _)| *slot)
    }

    fn reserved(
        &mut self,
        cx: &mut Cx<'_>,
        lifecycle: &mut PeerLifecycle,
        reservation: CommandId,
        limit: Option<CircuitLimit>,
        lasts: Option<Duration>,
    ) {
        let Some(slot) = self.by_reservation(reservation) else { return };
        let Some(place) = self.places.get_mut(&slot) else { return };
        let ttl = cx.config.nat.reservation_ttl;
        let half = lasts.map_or(ttl, |lasts| lasts.max(SHORTEST).min(ttl)) / 2;
        place.renew_at = cx.now + jitter::vary(half, jitter::draw(cx.seed, Purpose::Reserve, reservation.0, 0));
        place.until = None;
        place.doubted = false;
        place.limit = limit;
        place.failures = 0;
        place.error = None;
        if place.held.is_none() {
            place.held = Some(cx.now);
            let relay = lifecycle.peers.at(slot).id;
            cx.tell(Notice::RelayHeld { relay }, Reason::NotReachable);
            lifecycle.relay_held(cx, slot);
        }
        self.stirred = true;
    }

    fn reserved_at(&mut self, lifecycle: &PeerLifecycle, reservation: CommandId, address: &Address) {
        let Some(slot) = self.by_reservation(reservation) else { return };
        let peer = lifecycle.peers.at(slot);
        let Address::Relayed(circuit) = address else { return };
        // A relay speaks of its own place on the internet only; one that a person named may be anywhere.
        let via = circuit.via.as_ref().filter(|via| !via.is_relayed());
        let global = via.is_some_and(|via| via.scope().is_none_or(Scope::is_global));
        let trusted = peer.relay_by_settings && via.is_some();
        if circuit.relay != peer.id || !(global || trusted) {
            return;
        }
        if let Some(place) = self.places.get_mut(&slot).filter(|place| place.addresses.len() < MAX_ADDRESSES) {
            place.addresses.insert(address.clone());
            self.stirred = true;
        }
    }

    /// A connection to a relay has ended.
    fn connection_lost(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, slot: Slot, cause: &CloseCause) {
        let Some(place) = self.places.get_mut(&slot) else { return };
        let peer = lifecycle.peers.at(slot);
        if place.reservation.is_none() {
            // It broke off because its program was ending, and not because of us.
            if matches!(place.error, Some(ReserveError::Other(_))) && peer.direct().next().is_none() {
                place.error = Some(ReserveError::ConnectionLost);
            }
            return;
        }
        let stands = peer.direct().any(|connection| Some(connection.id) == place.on);
        if !stands {
            self.failed(cx, lifecycle, slot, ReserveError::ConnectionLost);
        } else if matches!(cause, CloseCause::Remote | CloseCause::Broken(_)) {
            // A program that was killed shows by TCP at once, by QUIC in a minute.
            self.doubt(cx, lifecycle, slot, DOUBT);
        }
    }

    /// Asks again for a place that is held, to see whether it still is.
    fn doubt(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, slot: Slot, patience: Duration) {
        let Some(place) = self.places.get(&slot).filter(|place| place.held.is_some()) else { return };
        if place.until.is_none() && !self.reserve(cx, lifecycle, slot, Reason::Doubtful) {
            return;
        }
        if let Some(place) = self.places.get_mut(&slot) {
            let by = cx.now + patience;
            place.until = Some(place.until.map_or(by, |until| until.min(by)));
            place.doubted = true;
            self.stirred = true;
        }
    }

    /// Asks for a place, or for the same one again. `false` when there is no connection to ask on.
    fn reserve(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, slot: Slot, reason: Reason) -> bool {
        let peer = lifecycle.peers.at(slot);
        // The shell asks on the oldest connection.
        let Some(connection) = peer.direct().min_by_key(|connection| (connection.since, connection.id)) else {
            return false;
        };
        let (relay, arrival, address, on) = (peer.id, peer.arrival, connection.address.clone(), connection.id);
        let id = cx.command(Action::Reserve { relay, address }, reason);
        let place = self.places.entry(slot).or_default();
        place.arrival = arrival;
        place.reservation = Some(id);
        place.on = Some(on);
        self.stirred = true;
        place.until = Some(cx.now + cx.config.nat.reserve_timeout);
        if lifecycle.peers.at(slot).relay == RelayUse::None {
            lifecycle.use_relay(cx, slot, RelayUse::Wanted);
        }
        true
    }

    /// The relay keeps no place for us, or no longer.
    fn failed(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, slot: Slot, error: ReserveError) {
        let others = lifecycle.relay_candidates().any(|(other, _)| other != slot && self.may_ask(cx.now, other));
        let peer = lifecycle.peers.at(slot);
        let known = peer.relay_by_settings || peer.relay_known;
        let Some(place) = self.places.get_mut(&slot) else { return };
        let was_held = place.held.take().is_some();
        let news = was_held || place.error.as_ref() != Some(&error);
        place.reservation = None;
        place.on = None;
        place.until = None;
        place.doubted = false;
        place.addresses.clear();
        place.limit = None;
        let doubled = |first: Duration, longest: Duration, n: u32| first.saturating_mul(1 << n.min(12)).min(longest);
        let wait = match &error {
            // Both connections to a relay that ends are lost one after the other; the way back is the dialler's to pace.
            ReserveError::ConnectionLost if was_held || place.failures <= 1 => Duration::ZERO,
            ReserveError::Full if others => REST_FULL,
            ReserveError::Full => doubled(RETRY_FULL, RETRY_FULL_MAX, place.failures),
            // A relay that has just started does not relay yet, or does not know its members yet.
            ReserveError::Unsupported if known => doubled(RETRY, RETRY_MAX, place.failures),
            ReserveError::Forbidden | ReserveError::Unsupported => REST_FORBIDDEN,
            ReserveError::Ours => REST_FULL,
            ReserveError::Malformed
            | ReserveError::ConnectionLost
            | ReserveError::TimedOut
            | ReserveError::Other(_) => doubled(RETRY, RETRY_MAX, place.failures),
        };
        place.failures = place.failures.saturating_add(1);
        let draw = jitter::draw(cx.seed, Purpose::Reserve, lifecycle.peers.at(slot).arrival, place.failures.into());
        place.retry_at = cx.now + jitter::vary(wait, draw);
        place.error = Some(error.clone());
        if news {
            let relay = lifecycle.peers.at(slot).id;
            cx.tell(Notice::RelayNotHeld { relay, error }, Reason::RelayLost);
        }
        lifecycle.use_relay(cx, slot, if was_held { RelayUse::Wanted } else { RelayUse::None });
        self.stirred = true;
    }

    fn give_up_waiting(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        let late = |place: &Place| place.until.is_some_and(|until| until <= cx.now);
        let late: Vec<(Slot, bool)> =
            self.places.iter().filter(|(_, place)| late(place)).map(|(slot, place)| (*slot, place.doubted)).collect();
        for (slot, doubted) in late {
            self.failed(cx, lifecycle, slot, ReserveError::TimedOut);
            if doubted {
                // It does not answer on what stands; a new connection shows whether it is there.
                lifecycle.close_direct(cx, slot, &Reason::PingsLost);
                if let Some(place) = self.places.get_mut(&slot) {
                    place.retry_at = cx.now;
                }
            }
        }
    }

    fn renew(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        let due = |place: &Place| place.until.is_none() && place.renew_at <= cx.now;
        let due: Vec<Slot> = self.held().filter(|(_, place)| due(place)).map(|(slot, _)| slot).collect();
        for slot in due {
            if !self.reserve(cx, lifecycle, slot, Reason::Renewal) {
                self.failed(cx, lifecycle, slot, ReserveError::ConnectionLost);
            }
        }
    }

    fn may_ask(&self, now: Time, slot: Slot) -> bool {
        self.places.get(&slot).is_none_or(|place| place.reservation.is_none() && place.retry_at <= now)
    }

    /// Asks as many as are missing.
    fn ask(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        loop {
            let have = self.asked_count();
            if have >= self.wanted {
                return;
            }
            let Some(slot) = self.choose(cx, lifecycle) else { return };
            let reason = Reason::RelayWanted { have, want: self.wanted };
            if self.places.len() >= MAX_PLACES && !self.places.contains_key(&slot)
                || !self.reserve(cx, lifecycle, slot, reason)
            {
                return;
            }
        }
    }

    /// The best relay that is not held: in a network of its own, named by the settings, among the near ones, the nearest.
    fn choose(&self, cx: &Cx<'_>, lifecycle: &PeerLifecycle) -> Option<Slot> {
        let taken: BTreeSet<IpAddr> = self
            .places
            .iter()
            .filter(|(_, place)| place.reservation.is_some())
            .filter_map(|(slot, _)| network(lifecycle.peers.get(*slot)?))
            .collect();
        let usual = usual_rtt(lifecycle.relay_candidates().filter_map(|(_, peer)| rtt(peer)).collect());
        let free = lifecycle.relay_candidates().filter(|(slot, _)| self.may_ask(cx.now, *slot));
        free.min_by_key(|(slot, peer)| {
            let shared = network(peer).is_none_or(|network| taken.contains(&network));
            let rtt = rtt(peer).unwrap_or(Duration::MAX);
            (shared, !peer.relay_by_settings, rtt > usual, rtt, *slot)
        })
        .map(|(slot, _)| slot)
    }

    /// Gives back what is too much: first one of two in the same network, then the farthest. What is awaited is given back once it is there.
    fn give_back(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        loop {
            if self.held_count() <= self.wanted {
                return;
            }
            let settled = |place: &Place| place.held.is_some() && place.until.is_none();
            let networks: Vec<IpAddr> =
                self.held().filter_map(|(slot, _)| network(lifecycle.peers.get(slot)?)).collect();
            let worth = |slot: Slot| {
                let peer = lifecycle.peers.get(slot);
                let own = peer.and_then(network);
                let shared = own.is_some_and(|own| networks.iter().filter(|other| **other == own).count() > 1);
                (shared, peer.and_then(rtt).unwrap_or(Duration::MAX), slot)
            };
            let settled = self.held().filter(|(_, place)| settled(place));
            let most = settled.max_by_key(|(slot, _)| worth(*slot));
            let Some((slot, reservation)) = most.and_then(|(slot, place)| Some((slot, place.reservation?))) else {
                return;
            };
            let reason = if self.wanted == 0 { Reason::NoRelayNeeded } else { Reason::BetterRelay };
            cx.command(Action::Unreserve { reservation }, reason);
            self.places.remove(&slot);
            lifecycle.use_relay(cx, slot, RelayUse::None);
        }
    }

    /// Asks for a nearer relay, or one in another network, although enough are held; the farthest is then given back.
    fn improve(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        let held = self.held_count();
        let enough = self.wanted > 0 && held == self.wanted && self.asked_count() == held;
        if !enough || self.improve_at > cx.now {
            return;
        }
        if core::mem::replace(&mut self.improve_at, cx.now + IMPROVE) == Time::ZERO {
            return;
        }
        let Some(best) = self.choose(cx, lifecycle) else { return };
        let candidate = lifecycle.peers.at(best);
        let Some(near) = rtt(candidate) else { return };
        let networks: BTreeSet<IpAddr> =
            self.held().filter_map(|(slot, _)| network(lifecycle.peers.get(slot)?)).collect();
        let crowded = networks.len() < held as usize;
        let elsewhere = network(candidate).is_some_and(|network| !networks.contains(&network));
        let farthest = self.held().filter_map(|(slot, _)| rtt(lifecycle.peers.get(slot)?)).max();
        let nearer = farthest.is_some_and(|far| near <= far / 2 && near + WORTH <= far);
        if (crowded && elsewhere) || nearer {
            self.reserve(cx, lifecycle, best, Reason::BetterRelay);
        }
    }

    /// Has relays dialled that are known and not here, while some are missing and nobody here can be asked.
    fn look_for(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        let have = self.asked_count();
        let missing = have < self.wanted;
        let absent = lifecycle.absent_relays(cx, |slot| self.may_ask(cx.now, slot));
        for (at, slot) in absent.iter().enumerate() {
            let usage = if missing && at < LOOK_FOR { RelayUse::Wanted } else { RelayUse::None };
            lifecycle.use_relay(cx, *slot, usage);
        }
        self.lacking = missing && absent.is_empty();
    }

    /// Peers that are gone.
    fn forget(&mut self, lifecycle: &PeerLifecycle) {
        self.places.retain(|slot, place| lifecycle.peers.get(*slot).is_some_and(|peer| peer.arrival == place.arrival));
    }

    fn next_due(&self, cx: &Cx<'_>) -> Option<Time> {
        let answers = self.places.values().filter_map(|place| place.until);
        let renewals = self.held().filter(|(_, place)| place.until.is_none()).map(|(_, place)| place.renew_at);
        let missing = self.asked_count() < self.wanted;
        // Also of those that are not here: they are dialled when they may be asked again.
        let waiting = self.places.values().filter(|place| missing && place.reservation.is_none());
        let retries = waiting.map(|place| place.retry_at);
        let improve = Some(self.improve_at).filter(|_| self.wanted > 0 && !missing);
        let first = Some(Time::ZERO + cx.config.nat.relay_after).filter(|_| self.wanted == 0);
        answers.chain(renewals).chain(retries).chain(improve).chain(first).filter(|at| *at > cx.now).min()
    }
}

/// How many relays a node needs that is reachable so.
fn wanted(cx: &Cx<'_>, reachability: Reachability, why: Option<&Reason>) -> u32 {
    let config: &Config = cx.config;
    let global = cx.here.interfaces.addresses.iter().any(|own| Scope::of(own.ip).is_global());
    let needed = match reachability {
        Reachability::Public => why.is_some(),
        Reachability::Private => true,
        Reachability::Unknown if config.role == Role::Server => false,
        // Without an address on the internet of its own there is a NAT; with one, somebody may yet show that it works.
        Reachability::Unknown => !global || cx.now >= Time::ZERO + config.nat.relay_after,
    };
    if needed { config.nat.want_relays.into() } else { 0 }
}

/// The network that a relay is in.
fn network(peer: &Peer) -> Option<IpAddr> {
    peer.direct().find_map(|connection| connection.address.host_ip()).map(network_of)
}

fn rtt(peer: &Peer) -> Option<Duration> {
    peer.direct().filter_map(|connection| connection.rtt).min()
}

/// A round trip that is not unusually long: the median and three times the median deviation from it.
fn usual_rtt(mut all: Vec<Duration>) -> Duration {
    let median = |all: &mut Vec<Duration>| {
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    let Some(middle) = median(&mut all) else { return Duration::MAX };
    let mut deviations: Vec<Duration> = all.iter().map(|rtt| rtt.abs_diff(middle)).collect();
    middle + median(&mut deviations).unwrap_or_default() * 3
}

/// Whether a peer that is here can be asked to relay.
pub(crate) fn is_candidate(peer: &Peer) -> bool {
    let named = peer.relay_by_settings;
    let reachable = peer.direct().any(|connection| named || connection.address.scope().is_none_or(Scope::is_global));
    let relays = match &peer.profile {
        Some(_) => peer.capabilities().contains(Capabilities::RELAY),
        None => named || peer.relay_known,
    };
    reachable && relays && !peer.blocked && !peer.held_off
}
