//! Relays: places that are asked for and lost, and circuits through them. The stock server forgets a place with its
//! connection, or after an hour.

use kinfolk_core::{
    Address, Audience, Circuit as CircuitAddress, CircuitLimit, CloseCause, CommandId, ConnectionId, DialError, Event,
    Origin, PeerId, Refusal, RelayLimits, ReserveError, Transport, network_of,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    What, World,
    connections::{Body, Circuit, limit_nanos},
    dialing::Asker,
    peer_id,
};
use crate::engine::{Key, MILLI, Moment, SECOND};

/// What a machine does for others.
#[derive(Default)]
pub(super) struct Serving {
    places: Vec<Place>,
    /// Circuits that are open here.
    circuits: Vec<Key>,
    by_peer: PerMinute<u32>,
    by_network: PerMinute<IpAddr>,
}

/// How often each has asked in this minute, as the shell's relay counts.
struct PerMinute<K> {
    since: Option<Moment>,
    counts: BTreeMap<K, u32>,
}

struct Place {
    peer: u32,
    conn: Key,
    until: Moment,
    network: IpAddr,
}

/// A place that a relay keeps for a machine, or is asked for.
pub(super) struct Reservation {
    relay: u32,
    conn: Key,
    command: CommandId,
}

/// What a relay says to a reservation.
pub(super) enum Answer {
    Yes { limit: Option<CircuitLimit>, addresses: Vec<Address>, expires: u64 },
    No(ReserveError),
}

/// The stock relay's reservation, in seconds.
const RESERVATION: u64 = 3_600;
/// Connections of one peer with a place each: the shell's `PER_PEER`.
const PER_PEER: usize = 2;
/// The shell tells of each tenth of a circuit's bytes.
const STEPS: u64 = 10;

impl<K: Ord> PerMinute<K> {
    fn take(&mut self, who: K, limit: u32, now: Moment) -> bool {
        if self.since.is_none_or(|since| now >= since + 60 * SECOND) {
            self.since = Some(now);
            self.counts.clear();
        }
        let count = self.counts.entry(who).or_default();
        *count += 1;
        *count <= limit
    }
}

impl<K> Default for PerMinute<K> {
    fn default() -> Self {
        Self { since: None, counts: BTreeMap::new() }
    }
}

impl Serving {
    fn may_ask(&mut self, peer: u32, network: IpAddr, limits: &RelayLimits, now: Moment) -> bool {
        self.by_network.take(network, limits.requests_per_network, now)
            && self.by_peer.take(peer, limits.requests_per_peer, now)
    }

    /// Whether a place is kept for a machine.
    pub(super) fn keeps(&self, peer: u32, now: Moment) -> bool {
        self.places.iter().any(|place| place.peer == peer && place.until > now)
    }
}

impl World {
    /// The core asks a relay for a place.
    pub(super) fn reserve(&mut self, node: u32, command: CommandId, relay: &PeerId) {
        let index = self.index(relay);
        let conn = index.and_then(|relay| self.direct_to(node, relay));
        let (Some(relay), Some(conn)) = (index, conn) else {
            let error = ReserveError::ConnectionLost;
            return self.say_now(node, Event::ReservationEnded { reservation: command, error });
        };
        let reservations = &mut self.machines[node as usize].reservations;
        match reservations.iter_mut().find(|one| one.relay == relay) {
            Some(known) => (known.command, known.conn) = (command, conn),
            None => reservations.push(Reservation { relay, conn, command }),
        }
        let side = self.conns.get(conn).map_or(0, |conn| conn.side_of(node));
        self.send(conn, side, Body::Reserve(command));
    }

    pub(super) fn unreserve(&mut self, node: u32, command: CommandId, reservation: CommandId) {
        let reservations = &mut self.machines[node as usize].reservations;
        match reservations.iter().position(|one| one.command == reservation) {
            Some(at) => {
                reservations.remove(at);
                let error = ReserveError::Ours;
                self.say_now(node, Event::ReservationEnded { reservation, error });
            }
            None => self.say_now(node, Event::Refused { command, refusal: Refusal::Gone }),
        }
    }

    /// A relay is asked for a place.
    pub(super) fn reserve_asked(&mut self, conn: Key, command: CommandId) {
        let Some(known) = self.conns.get(conn) else { return };
        let [a, b] = [known.ends[0].node, known.ends[1].node];
        // Whoever has an open command of this number on this connection is the one that asks.
        let asks = |node: u32| {
            let mut all = self.machines[node as usize].reservations.iter();
            all.any(|one| one.command == command && one.conn == conn)
        };
        let (client, relay) = if asks(a) { (a, b) } else { (b, a) };
        let network = network_of(known.ends[usize::from(known.side_of(relay))].remote.ip());
        let answer = self.judge(relay, client, conn, network);
        let side = self.conns.get(conn).map_or(0, |conn| conn.side_of(relay));
        self.send(conn, side, Body::ReserveAnswer(command, answer));
    }

    fn judge(&mut self, relay: u32, client: u32, conn: Key, network: IpAddr) -> Answer {
        let now = self.now;
        let machine = &mut self.machines[relay as usize];
        let limits = &machine.setup.config.relay;
        let global: Vec<Address> = machine.advertised.iter().filter(|address| !address.is_relayed()).cloned().collect();
        match machine.services.0 {
            // Without an address of its own a stock relay does not even name the protocol.
            Audience::Nobody => return Answer::No(ReserveError::Unsupported),
            _ if global.is_empty() => return Answer::No(ReserveError::Unsupported),
            Audience::Members if !machine.members.contains(&client) => return Answer::No(ReserveError::Forbidden),
            Audience::Members | Audience::Anyone => {}
        }
        if !machine.serving.may_ask(client, network, limits, now) {
            return Answer::No(ReserveError::Full);
        }
        let places = &mut machine.serving.places;
        places.retain(|place| place.until > now);
        let mine = places.iter().position(|place| place.peer == client && place.conn == conn);
        let known = places.iter().filter(|place| place.peer == client).count();
        let near = places.iter().filter(|place| place.network == network).count();
        let full = places.len() >= limits.reservations as usize || near >= limits.reservations_per_network as usize;
        if (known == 0 && full) || (mine.is_none() && known >= PER_PEER) {
            return Answer::No(ReserveError::Full);
        }
        let until = now + RESERVATION * SECOND;
        let limit = Some(CircuitLimit { duration: Some(limits.duration), bytes: Some(limits.bytes) });
        let place = Place { peer: client, conn, until, network };
        match mine {
            // It sits on the connection that it was asked for on; on another one it is a second one of the same peer.
            Some(at) => places[at].until = until,
            None => places.push(place),
        }
        let expires = machine.unix_time(now, self.unix_time) + RESERVATION;
        self.queue.push(until, relay, What::Reservation(client));
        let addresses = global
            .into_iter()
            .map(|via| Address::Relayed(Box::new(CircuitAddress { relay: peer_id(relay), via: Some(via) })));
        let addresses = addresses.collect();
        if known == 0 {
            self.tell_serving(relay, client);
        }
        Answer::Yes { limit, addresses, expires }
    }

    fn tell_serving(&mut self, relay: u32, peer: u32) {
        let serving = &self.machines[relay as usize].serving;
        let reserved = serving.places.iter().any(|place| place.peer == peer);
        let open = serving.circuits.iter().filter_map(|key| self.conns.get(*key));
        let circuits = open.filter(|conn| conn.ends.iter().any(|end| end.node == peer)).count() as u32;
        self.say_now(relay, Event::Serving { peer: peer_id(peer), reserved, circuits });
    }

    /// A relay has answered.
    pub(super) fn reserve_answered(&mut self, conn: Key, command: CommandId, answer: Answer) {
        let Some(known) = self.conns.get(conn) else { return };
        let [a, b] = [known.ends[0].node, known.ends[1].node];
        let asked = |node: u32| self.machines[node as usize].reservations.iter().any(|one| one.command == command);
        let node = if asked(a) { a } else { b };
        let unix_time = self.machines[node as usize].unix_time(self.now, self.unix_time);
        let reservations = &mut self.machines[node as usize].reservations;
        let Some(at) = reservations.iter().position(|one| one.command == command) else { return };
        match answer {
            Answer::Yes { limit, addresses, expires } => {
                let lasts = expires.checked_sub(unix_time).filter(|left| *left > 0).map(Duration::from_secs);
                self.tell(node, Event::Reserved { reservation: command, limit, lasts });
                for address in addresses {
                    self.tell(node, Event::ReservedAt { reservation: command, address });
                }
            }
            Answer::No(error) => {
                reservations.remove(at);
                self.tell(node, Event::ReservationEnded { reservation: command, error });
            }
        }
    }

    /// A place here may be over.
    pub(super) fn reservation_due(&mut self, node: u32, other: u32) {
        let now = self.now;
        let machine = &mut self.machines[node as usize];
        if !machine.on {
            return;
        }
        let before = machine.serving.places.len();
        machine.serving.places.retain(|place| place.peer != other || place.until > now);
        if machine.serving.places.len() < before {
            self.tell_serving(node, other);
        }
    }

    /// A connection's end at `node` has closed: places on it are lost, on both sides of it.
    pub(super) fn reservations_on(&mut self, conn: Key, node: u32) {
        let machine = &mut self.machines[node as usize];
        let lost = machine.reservations.iter().position(|one| one.conn == conn);
        if let Some(at) = lost {
            let reservation = machine.reservations.remove(at).command;
            let error = ReserveError::ConnectionLost;
            self.say_now(node, Event::ReservationEnded { reservation, error });
        }
        let machine = &mut self.machines[node as usize];
        if let Some(at) = machine.serving.places.iter().position(|place| place.conn == conn) {
            let peer = machine.serving.places.remove(at).peer;
            self.tell_serving(node, peer);
        }
    }

    /// A relay is asked for a way to somebody.
    pub(super) fn circuit_asked(&mut self, leg: Key, dial: Key, at: u8) {
        let Some((source, peer, ..)) = self.dial_of(dial) else { return };
        let Some(known) = self.conns.get(leg) else { return };
        let to_relay = known.side_of(source);
        let relay = known.ends[usize::from(1 - to_relay)].node;
        let first = known.rtt;
        let network = network_of(known.ends[usize::from(1 - to_relay)].remote.ip());
        let target = peer.and_then(|peer| self.index(&peer));
        let machine = &mut self.machines[relay as usize];
        let limits = &machine.setup.config.relay;
        let open = machine.serving.circuits.iter().filter_map(|key| self.conns.get(*key));
        let of_source = open.filter(|conn| conn.ends.iter().any(|end| end.node == source)).count();
        let full = of_source >= limits.circuits_per_peer as usize
            || machine.serving.circuits.len() >= limits.circuits as usize
            || !machine.serving.may_ask(source, network, limits, self.now);
        let place = machine.serving.places.iter().find(|place| Some(place.peer) == target && place.until > self.now);
        let refused = match (machine.services.0, place) {
            (Audience::Nobody, _) => Some("it is no relay, or does not relay for this node"),
            (Audience::Members, _) if !machine.members.contains(&source) => {
                Some("it is no relay, or does not relay for this node")
            }
            (Audience::Members | Audience::Anyone, _) if full => Some("the relay has no room for another circuit"),
            (Audience::Members | Audience::Anyone, None) => Some("the peer has no place at the relay"),
            (Audience::Members | Audience::Anyone, Some(_)) => None,
        };
        let limit = Some(CircuitLimit { duration: Some(limits.duration), bytes: Some(limits.bytes) });
        if let Some(text) = refused {
            let error = DialError::Other(text.to_owned());
            return self.send(leg, 1 - to_relay, Body::CircuitDenied(dial, at, error));
        }
        let Some((target, second)) = place.map(|place| (place.peer, place.conn)) else { return };
        let side = self.conns.get(second).map_or(0, |conn| conn.side_of(relay));
        // STOP to the target and back, the relay's word back, and Noise over both legs.
        let Some(way) = self.one_way(second, side) else { return };
        let took = 2 * way + first / 2 + first + 2 * way + self.machines[source as usize].dice.below(3 * MILLI);
        let through = super::punch::Through { relay, legs: [leg, second], limit, target };
        self.open_circuit(dial, at, through, took);
    }

    /// The circuit stands, on both sides.
    pub(super) fn circuit_stands(&mut self, dial: Key, at: u8, through: super::punch::Through) {
        let Some((node, _, began, asker)) = self.dial_of(dial) else { return };
        let Some(address) = self.attempt_address(dial, at) else { return };
        let super::punch::Through { relay, legs, limit, target } = through;
        let whole = |key: &Key| self.conns.get(*key).is_some_and(super::connections::Conn::is_whole);
        if !legs.iter().all(whole) || !self.machines[target as usize].on || target == node {
            return;
        }
        let rtt = legs.iter().filter_map(|key| self.conns.get(*key)).map(|conn| conn.rtt).sum();
        let took = Duration::from_nanos(self.now - began);
        self.end_dial(dial);
        let origin = match asker {
            Asker::Core(command) => Origin::Dial(command),
            Asker::Held(held) | Asker::Probe(_, held) => Origin::Held(held),
            Asker::Punch(_, command) => Origin::Punch(command),
        };
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let via = Some(Circuit { relay, legs, limit, carried: 0 });
        let conn = self.establish(
            node,
            target,
            Transport::Quic,
            [0, 0],
            [nowhere; 2],
            address,
            [origin, Origin::Inbound],
            rtt,
            took,
            via,
        );
        self.machines[relay as usize].serving.circuits.push(conn);
        self.may_cut(relay, conn);
        if let Some(duration) = limit_nanos(limit) {
            self.queue.push(self.now.saturating_add(duration), relay, What::CircuitOver(conn));
        }
        for peer in [node, target] {
            self.tell_serving(relay, peer);
        }
    }

    /// Bytes go over a connection. Whether they get through: a relay cuts a circuit that has carried more than it may,
    /// and what was on its way is lost.
    pub(super) fn carry(&mut self, key: Key, bytes: u64) -> bool {
        self.counts.bytes += bytes;
        let Some(conn) = self.conns.get_mut(key) else { return true };
        let Some(circuit) = &mut conn.via else { return true };
        let Some(most) = circuit.limit.and_then(|limit| limit.bytes) else { return true };
        let (before, relay) = (circuit.carried, circuit.relay);
        circuit.carried += bytes;
        let carried = circuit.carried;
        if before > most {
            return false;
        }
        if carried > most {
            self.queue.push(self.now + MILLI, relay, What::CircuitOver(key));
            return false;
        }
        let tenths = (carried / (most / STEPS).max(1)) as u8;
        for side in 0..2 {
            let Some(end) = self.conns.get_mut(key).map(|conn| &mut conn.ends[side]) else { break };
            // Not before its program has heard that it stands.
            let hears = end.open && end.opened < self.now && !self.machines[end.node as usize].asleep;
            if hears && end.tenths_told < tenths {
                end.tenths_told = tenths;
                let (node, connection) = (end.node, ConnectionId(end.number));
                self.tell(node, Event::CircuitUsed { connection, bytes: carried });
            }
        }
        true
    }

    /// A circuit's time or bytes are used up: the relay cuts it, without a warning.
    pub(super) fn circuit_over(&mut self, conn: Key) {
        if self.conns.get(conn).is_none() {
            return;
        }
        for side in [0, 1] {
            self.end_side(conn, side, CloseCause::Remote);
        }
        self.circuit_closed(conn);
    }

    fn circuit_closed(&mut self, conn: Key) {
        let Some(known) = self.conns.get(conn) else { return };
        let Some(circuit) = &known.via else { return };
        let (relay, peers) = (circuit.relay, [known.ends[0].node, known.ends[1].node]);
        let circuits = &mut self.machines[relay as usize].serving.circuits;
        let before = circuits.len();
        circuits.retain(|other| *other != conn);
        if circuits.len() < before {
            for peer in peers {
                self.tell_serving(relay, peer);
            }
        }
    }

    /// A connection's end has closed: circuits over it end, on each side as soon as that can be known there. If the
    /// connection is a circuit itself, its relay notices.
    pub(super) fn circuits_on(&mut self, conn: Key) {
        self.circuit_closed(conn);
        let Some(known) = self.conns.get(conn) else { return };
        for relay in [known.ends[0].node, known.ends[1].node] {
            let over: Vec<Key> = self.machines[relay as usize]
                .serving
                .circuits
                .iter()
                .copied()
                .filter(|key| {
                    let via = self.conns.get(*key).and_then(|conn| conn.via.as_ref());
                    via.is_some_and(|via| via.relay == relay && via.legs.contains(&conn))
                })
                .collect();
            for circuit in over {
                self.queue.push(self.now + MILLI, relay, What::CircuitOver(circuit));
            }
        }
    }

    /// A relay's program has ended: what is cut with it.
    pub(super) fn relay_gone(&mut self, node: u32) {
        let circuits = std::mem::take(&mut self.machines[node as usize].serving.circuits);
        for circuit in circuits {
            // Both sides would learn it from their legs; over QUIC, late.
            self.queue.push(self.now + 2 * SECOND, node, What::CircuitOver(circuit));
        }
    }

    pub(super) fn direct_to(&self, node: u32, peer: u32) -> Option<Key> {
        let conn = self.connection_to(node, peer)?;
        self.conns.get(conn).is_some_and(|conn| conn.via.is_none()).then_some(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Plan, parse};

    const HOUR: u64 = 3_600 * SECOND;

    /// Two whom only a relay connects, one that allows each circuit so much.
    fn two(circuits: &str) -> Plan {
        let home = |name: &str| {
            format!(
                "[[home]]\nname = \"{name}\"\nnat = \"symmetric\"\nfamily = \"f\"\nbootstrap = [\"server\"]\nrelays = [\"server\"]\n"
            )
        };
        let server = format!("[[server]]\nname = \"server\"\ncircuits = {circuits}\n");
        let text = format!(
            "name = \"two\"\nduration = \"8h\"\n{server}{}{}[expect]\nfamilies = \"best\"\nnobody-alone = true\n",
            home("alice"),
            home("bob")
        );
        Plan::new(&parse("two", &text).unwrap(), 1)
    }

    fn circuits(world: &World) -> u64 {
        world.counts().connections.get("relayed").copied().unwrap_or(0)
    }

    /// The circuit that stands, if it is one.
    fn circuit(world: &World) -> Option<Key> {
        let mut all = world.machines.iter().flat_map(|machine| machine.serving.circuits.iter().copied());
        all.next().filter(|_| all.next().is_none())
    }

    #[test]
    fn circuits_follow_one_another_as_their_time_or_their_bytes_are_used_up() {
        // The first as the library's relays are; of both, the first that is reached counts.
        for (limits, at_least, at_most) in [
            ("{ for = \"2m\", bytes = 131072 }", 8 * 3_600 / 96, 8 * 3_600 / 96 + 4),
            ("{ for = \"8h\", bytes = 65536 }", 4, 100),
            ("{ for = \"8h\", bytes = 134217728 }", 1, 2),
        ] {
            let mut plan = two(limits);
            assert!(plan.run_until(8 * HOUR), "{limits}: {:?}", plan.world.findings());
            let made = circuits(&plan.world);
            assert!((at_least..=at_most).contains(&made), "{limits}: {made}");
            let pair = &plan.world.pairs()[0];
            let together = pair.relayed(plan.world.now()) + pair.since.unwrap() + pair.first.unwrap();
            assert_eq!(together, plan.world.now(), "{limits}: they were apart");
        }
    }

    #[test]
    fn what_is_more_than_a_circuit_may_carry_ends_it_and_is_lost() {
        let mut plan = two("{ for = \"8h\", bytes = 65536 }");
        assert!(plan.run_until(60 * SECOND));
        let cut = circuit(&plan.world).unwrap();
        assert!(plan.world.carry(cut, 1_000), "that much is left");
        assert!(!plan.world.carry(cut, 65_536) && !plan.world.carry(cut, 1));
        assert!(plan.run_until(90 * SECOND), "{:?}", plan.world.findings());
        assert!(plan.world.conns.get(cut).is_none());
        assert!(circuit(&plan.world).is_some(), "they have another");
    }

    #[test]
    fn who_asks_too_often_waits_for_the_next_minute() {
        let limits = RelayLimits { requests_per_peer: 2, requests_per_network: 3, ..RelayLimits::default() };
        let mut serving = Serving::default();
        let near = IpAddr::from([192, 0, 2, 0]);
        let mut asks = |peer, now: Moment| serving.may_ask(peer, near, &limits, now);
        assert!(asks(1, 5) && asks(1, 6) && !asks(1, 7), "two of one peer");
        assert!(!asks(2, 8), "a fourth of the network");
        assert!(asks(2, 5 + 60 * SECOND));
    }

    #[test]
    fn a_relay_has_a_second_place_for_a_peer_on_its_next_connection_and_no_third() {
        let mut plan = two("{ bytes = 131072 }");
        assert!(plan.run_until(60 * SECOND));
        let world = &mut plan.world;
        let relay = world.machines.iter().position(|machine| !machine.serving.places.is_empty()).unwrap();
        let network = IpAddr::from([192, 0, 2, 0]);
        let (client, kept) =
            (world.machines[relay].serving.places[0].peer, world.machines[relay].serving.places[0].conn);
        let standing = world.machines.iter().flat_map(|machine| machine.conns.iter().map(|one| one.key));
        let others: Vec<Key> = standing.filter(|key| *key != kept).take(2).collect();
        let granted = |answer: &Answer| matches!(answer, Answer::Yes { .. });
        assert!(granted(&world.judge(relay as u32, client, others[0], network)));
        assert!(!granted(&world.judge(relay as u32, client, others[1], network)));
        assert!(granted(&world.judge(relay as u32, client, kept, network)), "a renewal");
    }
}
