//! Who gets what of our relay: the book that the server keeps, and the limiters that read it.
//!
//! The library bounds circuits, and reservations by number alone: once that is reached, it refuses renewals, too, and
//! the reservations that are there are lost one by one. So it gets no such number; the book counts peers, in all and by
//! network, and refuses new ones only.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kinfolk_core::{RelayLimits, network_of};
use libp2p::{Multiaddr, PeerId, relay, swarm::ConnectionId};

use crate::network::{
    ids,
    members::{Members, Services},
};

/// Peers, and networks, whose requests are counted in a minute. Of more, the requests are refused until the next.
const MAX_COUNTED: usize = 4_096;
const MINUTE: Duration = Duration::from_secs(60);
/// Connections of one peer with a reservation: the one that it has, and the next, after its network has changed. The
/// library allows one more than it is told.
const PER_PEER: usize = 2;

/// See the module. A clone is the same book.
#[derive(Clone, Debug)]
pub(super) struct Book(Arc<Mutex<Pages>>);

#[derive(Debug)]
struct Pages {
    limits: RelayLimits,
    members: Members,
    services: Services,
    /// The connection whose request the library is looking at.
    asking: Option<ConnectionId>,
    reservations: HashMap<ConnectionId, Reservation>,
    /// Open circuits, by the connection they come from: where they lead.
    circuits: HashMap<ConnectionId, Vec<PeerId>>,
    /// Who is at the other end of the connections with circuits.
    sources: HashMap<ConnectionId, PeerId>,
    by_peer: PerMinute<PeerId>,
    by_network: PerMinute<IpAddr>,
    refused: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Reservation {
    peer: PeerId,
    network: Option<IpAddr>,
    /// The answer that grants or renews it is on its way.
    granted: bool,
    active: bool,
}

impl Book {
    pub(super) fn new(limits: RelayLimits, members: Members, services: Services) -> Self {
        Self(Arc::new(Mutex::new(Pages {
            limits,
            members,
            services,
            asking: None,
            reservations: HashMap::new(),
            circuits: HashMap::new(),
            sources: HashMap::new(),
            by_peer: PerMinute::default(),
            by_network: PerMinute::default(),
            refused: vec![],
        })))
    }

    /// What the library's server is made with, whose reservations hold for `lifetime`.
    pub(super) fn config(&self, lifetime: Duration) -> relay::Config {
        let limits = self.lock().limits.clone();
        let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        let (to_reserve, to_connect) = (self.clone(), self.clone());
        let reserve = move |peer, address: &Multiaddr, now| to_reserve.lock().may_reserve(peer, address, now);
        let connect = move |peer, address: &Multiaddr, now| to_connect.lock().may_ask(peer, address, now);
        relay::Config {
            max_reservations: usize::MAX,
            max_reservations_per_peer: PER_PEER - 1,
            reservation_duration: lifetime,
            reservation_rate_limiters: vec![Box::new(reserve)],
            max_circuits: if limits.circuits_per_peer == 0 { 0 } else { number(limits.circuits) },
            // It allows one more.
            max_circuits_per_peer: number(limits.circuits_per_peer).saturating_sub(1),
            max_circuit_duration: limits.duration,
            max_circuit_bytes: limits.bytes,
            circuit_src_rate_limiters: vec![Box::new(connect)],
        }
    }

    /// Whether the peer is one whom we relay for.
    pub(super) fn serves(&self, peer: &PeerId) -> bool {
        self.lock().serves(peer)
    }

    /// Which connection's request the library looks at from now on.
    pub(super) fn asking(&self, connection: ConnectionId) {
        self.lock().asking = Some(connection);
    }

    /// A reservation was granted, and the peer knows.
    pub(super) fn reserved(&self, connection: ConnectionId) {
        if let Some(reservation) = self.lock().reservations.get_mut(&connection) {
            reservation.granted = false;
            reservation.active = true;
        }
    }

    /// A reservation was granted, and the peer could not be told.
    pub(super) fn not_reserved(&self, connection: ConnectionId) {
        self.end(connection, |reservation| reservation.granted = false);
    }

    /// A reservation's time is over.
    pub(super) fn timed_out(&self, connection: ConnectionId) {
        self.end(connection, |reservation| reservation.active = false);
    }

    fn end(&self, connection: ConnectionId, change: impl FnOnce(&mut Reservation)) {
        let mut pages = self.lock();
        if let Some(reservation) = pages.reservations.get_mut(&connection) {
            change(reservation);
            if !reservation.granted && !reservation.active {
                pages.reservations.remove(&connection);
            }
        }
    }

    /// A circuit is open.
    pub(super) fn opened(&self, source: PeerId, connection: ConnectionId, to: PeerId) {
        let mut pages = self.lock();
        pages.circuits.entry(connection).or_default().push(to);
        pages.sources.insert(connection, source);
    }

    /// A circuit has ended.
    pub(super) fn closed(&self, connection: ConnectionId, to: &PeerId) {
        let mut pages = self.lock();
        if let Some(circuits) = pages.circuits.get_mut(&connection)
            && let Some(at) = circuits.iter().position(|peer| peer == to)
        {
            circuits.swap_remove(at);
            if circuits.is_empty() {
                pages.circuits.remove(&connection);
                pages.sources.remove(&connection);
            }
        }
    }

    /// A connection has ended, and all that came by it: whether it had a reservation, and where its circuits led.
    pub(super) fn gone(&self, connection: ConnectionId) -> (bool, Vec<PeerId>) {
        let mut pages = self.lock();
        pages.sources.remove(&connection);
        let reservation = pages.reservations.remove(&connection);
        (reservation.is_some_and(|one| one.active), pages.circuits.remove(&connection).unwrap_or_default())
    }

    /// Whether the peer has a reservation here, and how many circuits lead from or to it.
    pub(super) fn of(&self, peer: &PeerId) -> (bool, u32) {
        let pages = self.lock();
        let reserved = pages.reservations.values().any(|reservation| reservation.active && reservation.peer == *peer);
        let circuits = pages.circuits.iter().flat_map(|(connection, circuits)| {
            let source = pages.sources.get(connection);
            circuits.iter().filter(move |to| *to == peer || source == Some(peer))
        });
        (reserved, circuits.count() as u32)
    }

    /// Why requests were refused since this was last asked.
    pub(super) fn refused(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.lock().refused)
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn serves(&self, peer: &PeerId) -> bool {
        self.members.are_served(self.services.get().relay, peer)
    }

    /// The last word on a request for a reservation: if it is yes, the reservation is granted.
    fn may_reserve(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) -> bool {
        let Some(connection) = self.asking else { return false };
        if !self.may_ask(peer, address, now) {
            return false;
        }
        let network = ids::first_ip(address).map(network_of);
        let others: HashSet<(PeerId, Option<IpAddr>)> =
            self.reservations.values().map(|reservation| (reservation.peer, reservation.network)).collect();
        if !others.iter().any(|(other, _)| *other == peer) {
            let peers: HashSet<&PeerId> = others.iter().map(|(other, _)| other).collect();
            if peers.len() >= self.limits.reservations as usize {
                return self.refuse("relay.refused_full");
            }
            let neighbours = others.iter().filter(|(_, other)| network.is_some() && *other == network).count();
            if neighbours >= self.limits.reservations_per_network as usize {
                return self.refuse("relay.refused_network");
            }
        }
        let new = Reservation { peer, network, granted: true, active: false };
        self.reservations.entry(connection).or_insert(new).granted = true;
        true
    }

    /// Whether the peer may ask for anything now.
    fn may_ask(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) -> bool {
        if !self.serves(&peer) {
            return self.refuse("relay.refused_strangers");
        }
        // The network first: what it refuses takes no room in the table of peers.
        let network = ids::first_ip(address).map(network_of);
        let by_network =
            network.is_none_or(|network| self.by_network.take(network, self.limits.requests_per_network, now));
        if !by_network || !self.by_peer.take(peer, self.limits.requests_per_peer, now) {
            return self.refuse("relay.refused_too_often");
        }
        true
    }

    fn refuse(&mut self, why: &'static str) -> bool {
        self.refused.push(why);
        false
    }
}

/// How often each has asked in this minute.
#[derive(Debug)]
struct PerMinute<K> {
    since: Option<Instant>,
    counts: HashMap<K, u32>,
}

impl<K: Eq + Hash> PerMinute<K> {
    fn take(&mut self, who: K, limit: u32, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= MINUTE) {
            self.since = Some(now);
            self.counts.clear();
        }
        if self.counts.len() >= MAX_COUNTED && !self.counts.contains_key(&who) {
            return false;
        }
        let count = self.counts.entry(who).or_default();
        *count = count.saturating_add(1);
        *count <= limit
    }
}

impl<K> Default for PerMinute<K> {
    fn default() -> Self {
        Self { since: None, counts: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use kinfolk_core::Audience;

    use super::*;
    use crate::network::members::Audiences;

    fn book(limits: RelayLimits) -> Book {
        let services = Services::default();
        services.set(Audiences { relay: Audience::Anyone, probes: Audience::Nobody });
        Book::new(limits, Members::default(), services)
    }

    fn reserve(book: &Book, connection: usize, peer: PeerId, from: &str, now: Instant) -> bool {
        book.asking(ConnectionId::new_unchecked(connection));
        book.lock().may_reserve(peer, &from.parse().unwrap(), now)
    }

    /// Peers and networks whose requests are counted.
    fn counted(book: &Book) -> (usize, usize) {
        let pages = book.lock();
        (pages.by_peer.counts.len(), pages.by_network.counts.len())
    }

    #[test]
    fn a_flood_from_one_network_takes_no_room_and_nobody_elses_place() {
        let limits = RelayLimits { requests_per_network: 10, reservations_per_network: 4, ..RelayLimits::default() };
        let (book, now) = (book(limits), Instant::now());
        let granted = (0..10_000).filter(|n| {
            let from = format!("/ip4/45.10.20.{}/tcp/{n}", n % 250);
            reserve(&book, *n, PeerId::random(), &from, now)
        });
        assert_eq!(granted.count(), 4);
        assert_eq!(book.lock().reservations.len(), 4);
        assert_eq!(counted(&book), (10, 1));
        assert_eq!(book.refused().len(), 9_996);
        assert!(reserve(&book, 10_001, PeerId::random(), "/ip4/45.10.21.1/tcp/1", now));
    }

    #[test]
    fn a_flood_from_everywhere_is_refused_and_forgotten_in_a_minute() {
        let limits = RelayLimits { reservations: 100, ..RelayLimits::default() };
        let (book, now) = (book(limits), Instant::now());
        let flood = |n: u32| format!("/ip4/45.{}.{}.1/tcp/1", n / 256, n % 256);
        let granted = (0..20_000).filter(|n| reserve(&book, *n as usize, PeerId::random(), &flood(*n), now));
        assert_eq!(granted.count(), 100);
        assert_eq!(counted(&book), (MAX_COUNTED, MAX_COUNTED));
        let later = now + MINUTE;
        assert!(!reserve(&book, 20_001, PeerId::random(), "/ip4/46.0.0.1/tcp/1", later), "all places are taken");
        assert_eq!(book.lock().by_network.counts.len(), 1);
        for gone in 0..100 {
            book.gone(ConnectionId::new_unchecked(gone));
        }
        assert!(reserve(&book, 20_002, PeerId::random(), "/ip4/46.0.0.1/tcp/1", later));
    }

    #[test]
    fn a_peer_that_moves_keeps_its_place_and_one_that_was_not_told_has_none() {
        let limits = RelayLimits { reservations: 1, ..RelayLimits::default() };
        let (book, now, peer) = (book(limits), Instant::now(), PeerId::random());
        let id = ConnectionId::new_unchecked;
        assert!(reserve(&book, 1, peer, "/ip4/45.10.20.1/tcp/1", now));
        assert_eq!(book.of(&peer), (false, 0), "granted, but not told");
        book.reserved(id(1));
        assert_eq!(book.of(&peer), (true, 0));
        assert!(reserve(&book, 2, peer, "/ip4/45.10.21.1/tcp/1", now));
        assert!(!reserve(&book, 3, PeerId::random(), "/ip4/45.10.22.1/tcp/1", now));
        book.not_reserved(id(2));
        assert_eq!(book.gone(id(1)), (true, vec![]));
        assert_eq!(book.of(&peer), (false, 0));
        assert!(reserve(&book, 3, PeerId::random(), "/ip4/45.10.22.1/tcp/1", now));
        // A renewal on its way when the old time is over.
        book.reserved(id(3));
        let holder = book.lock().reservations[&id(3)].peer;
        assert!(reserve(&book, 3, holder, "/ip4/45.10.22.1/tcp/1", now));
        book.timed_out(id(3));
        assert_eq!(book.of(&holder), (false, 0));
        book.reserved(id(3));
        assert_eq!(book.of(&holder), (true, 0));
    }
}
