//! Dials: addresses ranked and staggered as libp2p's smart dialling does it, first packets through the NATs, handshakes,
//! refusals and silence.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use kinfolk_core::{Address, CommandId, DialError, Event, HeldId, Origin, PeerId, Scope, Transport};
use smallvec::SmallVec;

use super::{
    What, World,
    connections::{Body, Conn, protocol},
    peer_id,
    punch::Through,
};
use crate::{
    engine::{Key, MILLI, Moment, SECOND},
    internet::{Flight, HostId, NotArrived, Protocol, Stuck},
};

/// Whose dial it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// The core's.
    Core(CommandId),
    /// A look-up's, released by the core.
    Held(HeldId),
    /// Part of a punch.
    Punch(Key, CommandId),
    /// An AutoNAT server's, to try an address.
    Probe(Key, HeldId),
}

pub(super) struct Dial {
    pub(super) node: HostId,
    pub(super) asker: Asker,
    pub(super) peer: Option<PeerId>,
    pub(super) began: Moment,
    attempts: SmallVec<[Attempt; 2]>,
    /// Without a known peer, one address is dialled after the other.
    one_by_one: bool,
    failures: Vec<(Address, DialError)>,
}

struct Attempt {
    address: Address,
    transport: Transport,
    to: SocketAddr,
    port: u16,
    state: State,
    tries: u8,
    began: Moment,
    sent: Moment,
    through: Option<Through>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    /// The first packet is out.
    Sent,
    /// The other side has answered.
    Shaking {
        other: HostId,
        /// Where the other side sees us.
        seen: SocketAddr,
        at: u16,
        rtt: u64,
    },
    /// A way through a relay is asked for.
    Relaying,
    /// It is being opened.
    Through,
    Failed,
}

/// A first packet, or its answer.
pub(super) struct Packet {
    flight: Flight,
    kind: Kind,
    dial: Key,
    at: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// QUIC's Initial, TCP's SYN.
    Open,
    /// Its answer: who answers, at which port, and where it sees us.
    Opened { other: HostId, at: u16, seen: SocketAddr },
    /// Nobody listens.
    Refused,
    /// Anything to open a hole with; nobody reads it.
    Hole,
}

/// The shell gives one address this long; QUIC gives up by itself earlier.
const TCP_PATIENCE: u64 = 10 * SECOND;
const QUIC_PATIENCE: u64 = 5 * SECOND;
/// Linux says that nobody is there after this.
const NOBODY_THERE: u64 = 3 * SECOND;
/// When a first packet is sent again, after the one before (TCP: RFC 6298; QUIC: quinn's first time-out is 1 s).
const AGAIN: [u64; 3] = [SECOND, 2 * SECOND, 4 * SECOND];
/// Round trips after the first one until TCP, Noise and Yamux stand on the dialling side; measured: three in all.
const TCP_ROUNDS: u64 = 2;
/// A name server's answer.
const LOOKUP: u64 = 30 * MILLI;

/// libp2p-swarm's `dial_ranker`: how much later a public, and a private, address is tried than the one before.
const PUBLIC_DELAY: u64 = 250 * MILLI;
const PRIVATE_DELAY: u64 = 30 * MILLI;

impl World {
    /// Begins a dial. Answers come as events.
    pub(super) fn dial(&mut self, node: HostId, asker: Asker, peer: Option<PeerId>, addresses: &[Address]) {
        self.counts.dials += u64::from(matches!(asker, Asker::Core(_)));
        let mut dial = Dial {
            node,
            asker,
            peer,
            began: self.now,
            attempts: SmallVec::new(),
            one_by_one: peer.is_none(),
            failures: vec![],
        };
        let mut starts: SmallVec<[u64; 8]> = SmallVec::new();
        let mut ranked: Vec<&Address> = addresses.iter().take(32).collect();
        if peer.is_some() {
            ranked.sort_by_key(|address| rank(address));
        }
        let (mut private, mut public, mut relayed) = (0, 0, 0);
        let any_public = ranked.iter().any(|address| is_public(address));
        for address in ranked {
            if self.machines[node as usize].is_own(address) {
                dial.failures.push((address.clone(), DialError::OwnIdentity));
                continue;
            }
            let (to, transport, wait) = match self.destination(node, address) {
                Ok(found) => found,
                Err((error, 0)) => {
                    dial.failures.push((address.clone(), error));
                    continue;
                }
                // What the name server says comes later; the attempt fails then.
                Err((_, wait)) => (SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0), Transport::Tcp, wait),
            };
            let start = if address.is_relayed() {
                relayed += 1;
                (if any_public { PUBLIC_DELAY } else { 0 }) + (relayed - 1) * PUBLIC_DELAY
            } else if is_public(address) {
                public += 1;
                (public - 1) * PUBLIC_DELAY
            } else {
                private += 1;
                (private - 1) * PRIVATE_DELAY
            };
            starts.push(start + wait);
            let address = address.clone();
            dial.attempts.push(Attempt {
                address,
                transport,
                to,
                port: 0,
                state: State::Waiting,
                tries: 0,
                began: 0,
                sent: 0,
                through: None,
            });
        }
        let key = self.dials.insert(dial);
        self.machines[node as usize].dials.push(key);
        if starts.is_empty() {
            return self.dial_over(key);
        }
        let in_turn = peer.is_none();
        for (at, start) in starts.iter().enumerate().take(if in_turn { 1 } else { usize::MAX }) {
            self.queue.push(self.now + start, node, What::Attempt(key, at as u8));
        }
    }

    /// Where an address leads. `Err`: it leads nowhere, known at once or after a while.
    fn destination(&self, node: HostId, address: &Address) -> Result<(SocketAddr, Transport, u64), (DialError, u64)> {
        match address {
            Address::Ip { ip, port, transport } => Ok((SocketAddr::new(*ip, *port), *transport, 0)),
            Address::Name { kind, name, port, transport } => {
                let found = self.net.resolve(name).ok_or((DialError::TimedOut, 10 * SECOND))?;
                let host = self.net.host(node);
                let usable = |ip: &&IpAddr| match kind {
                    kinfolk_core::NameKind::V4 => ip.is_ipv4(),
                    kinfolk_core::NameKind::V6 => ip.is_ipv6(),
                    kinfolk_core::NameKind::Any => ip.is_ipv4() || host.v6.is_some(),
                };
                let ip = found.iter().find(usable).ok_or((DialError::NameNotFound, LOOKUP))?;
                Ok((SocketAddr::new(*ip, *port), *transport, LOOKUP))
            }
            Address::Relayed(_) => Ok((SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0), Transport::Quic, 0)),
            Address::DnsAddr(_) => Err((DialError::NameNotFound, LOOKUP)),
            Address::Other(_) => Err((DialError::Unsupported, 0)),
        }
    }

    /// An address is tried, for the first time or again.
    pub(super) fn attempt(&mut self, key: Key, at: u8) {
        let Some(dial) = self.dials.get_mut(key) else { return };
        let (node, asker) = (dial.node, dial.asker);
        let Some(attempt) = dial.attempts.get_mut(usize::from(at)) else { return };
        match attempt.state {
            State::Waiting => {}
            State::Sent => return self.send_open(key, at),
            State::Shaking { .. } | State::Relaying | State::Through | State::Failed => return,
        }
        attempt.began = self.now;
        if let Some(relay) = attempt.address.relay().copied() {
            attempt.state = State::Relaying;
            return self.ask_relay(key, at, node, relay);
        }
        if matches!(attempt.address, Address::Name { .. } | Address::DnsAddr(_)) && attempt.to.port() == 0 {
            let answers = self.net.resolve("").is_some();
            let error = if answers { DialError::NameNotFound } else { DialError::TimedOut };
            return self.attempt_failed(key, at, error);
        }
        let (to, transport) = (attempt.to, attempt.transport);
        // QUIC leaves from its listener's socket; TCP shares its listener's port, unless that way is taken.
        let machine = &self.machines[node as usize];
        let own_port = matches!(asker, Asker::Probe(..));
        let shared = machine.listens(transport, to.is_ipv6()).filter(|port| {
            let taken = |conn: &Conn| {
                let end = &conn.ends[usize::from(conn.side_of(node))];
                conn.transport == Transport::Tcp && conn.via.is_none() && end.local == *port && end.remote == to
            };
            let mut conns = machine.conns.iter().filter_map(|one| self.conns.get(one.key));
            !own_port && (transport == Transport::Quic || !conns.any(taken))
        });
        let port = shared.unwrap_or_else(|| self.machines[node as usize].free_port());
        let patience = if transport == Transport::Quic { QUIC_PATIENCE } else { TCP_PATIENCE };
        self.queue.push(self.now + patience, node, What::AttemptOver(key, at));
        if let Some(attempt) = self.dials.get_mut(key).and_then(|dial| dial.attempts.get_mut(usize::from(at))) {
            attempt.port = port;
            attempt.state = State::Sent;
        }
        self.send_open(key, at);
    }

    fn send_open(&mut self, key: Key, at: u8) {
        let Some(dial) = self.dials.get_mut(key) else { return };
        let node = dial.node;
        let Some(attempt) = dial.attempts.get_mut(usize::from(at)) else { return };
        let (to, port, transport) = (attempt.to, attempt.port, attempt.transport);
        attempt.sent = self.now;
        if let Some(wait) = AGAIN.get(usize::from(attempt.tries)) {
            self.queue.push(self.now + wait, node, What::Attempt(key, at));
        }
        attempt.tries += 1;
        self.counts.bytes += if transport == Transport::Quic { 1_200 } else { 60 };
        match self.net.depart(self.now, node, protocol(transport), port, to) {
            Ok(flight) => self.fly(node, flight, Packet { flight, kind: Kind::Open, dial: key, at }),
            Err(Stuck::NoRoute) => self.attempt_failed(key, at, DialError::Unreachable),
            Err(Stuck::NobodyThere) => {
                if let Some(attempt) = self.dials.get_mut(key).and_then(|dial| dial.attempts.get_mut(usize::from(at))) {
                    attempt.tries = AGAIN.len() as u8 + 1;
                    self.queue.push(self.now + NOBODY_THERE, node, What::AttemptOver(key, at));
                }
            }
            Err(Stuck::Silence) => {}
        }
    }

    /// A packet that opens a hole and nothing else.
    pub(super) fn open_hole(&mut self, node: HostId, transport: Transport, port: u16, to: SocketAddr, dial: Key) {
        if let Ok(flight) = self.net.depart(self.now, node, protocol(transport), port, to) {
            self.fly(node, flight, Packet { flight, kind: Kind::Hole, dial, at: 0 });
        }
    }

    fn fly(&mut self, node: HostId, flight: Flight, packet: Packet) {
        let dice = &mut self.machines[node as usize].dice;
        let Some(late) = self.net.luck(self.now, &flight, dice) else { return };
        let twice = self.net.links.comes_twice(dice);
        let key = self.packets.insert(Packet { ..packet });
        self.queue.push(self.now + flight.delay + late, node, What::Arrives(key));
        if twice {
            let key = self.packets.insert(packet);
            self.queue.push(self.now + flight.delay + late + MILLI, node, What::Arrives(key));
        }
    }

    /// A packet reaches the network of its destination.
    pub(super) fn arrives(&mut self, key: Key) {
        let Some(packet) = self.packets.remove(key) else { return };
        let arrived = match self.net.arrive(self.now, &packet.flight) {
            Ok(arrived) => arrived,
            Err(NotArrived::Reset) => {
                if let Some(dial) = self.dials.get(packet.dial) {
                    let back = self.now + packet.flight.delay;
                    self.queue.push(back, dial.node, What::Refused(packet.dial, packet.at));
                }
                return;
            }
            Err(NotArrived::Silence) => return,
        };
        // On a signal server's machine nobody else listens.
        if arrived.host as usize >= self.machines.len() {
            return;
        }
        match packet.kind {
            Kind::Open => self.knock(&packet, arrived.host, arrived.at),
            Kind::Opened { other, at, seen } => self.opened(&packet, arrived.host, other, at, seen),
            Kind::Refused => self.refused(packet.dial, packet.at),
            Kind::Hole => {}
        }
    }

    /// A first packet arrives at a machine.
    fn knock(&mut self, packet: &Packet, host: HostId, at: SocketAddr) {
        let transport = match packet.flight.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Quic,
        };
        let machine = &self.machines[host as usize];
        let listens = machine.on && !machine.asleep && machine.listens_at(transport, at.is_ipv6(), at.port());
        let kind = if listens {
            if transport == Transport::Tcp && self.crosses(packet, host, at) {
                return;
            }
            Kind::Opened { other: host, at: at.port(), seen: packet.flight.from }
        } else if transport == Transport::Tcp {
            Kind::Refused
        } else {
            return;
        };
        if let Ok(flight) = self.net.depart(self.now, host, packet.flight.protocol, at.port(), packet.flight.from) {
            self.fly(host, flight, Packet { flight, kind, dial: packet.dial, at: packet.at });
        }
    }

    /// Two SYNs cross: both sides hold themselves for the dialler, and Noise fails on both, unless a punch has dealt the
    /// roles. Says whether it was so.
    fn crosses(&mut self, packet: &Packet, host: HostId, at: SocketAddr) -> bool {
        let dials = self.machines[host as usize].dials.clone();
        let mirrored = dials.into_iter().find_map(|key| {
            let dial = self.dials.get(key)?;
            let found = dial.attempts.iter().position(|mine| {
                mine.transport == Transport::Tcp
                    && mine.state == State::Sent
                    && mine.port == at.port()
                    && mine.to == packet.flight.from
            })?;
            Some((key, found as u8))
        });
        let Some((mine, place)) = mirrored else { return false };
        let punched = |key| self.dials.get(key).is_some_and(|dial| matches!(dial.asker, Asker::Punch(..)));
        if punched(mine) && punched(packet.dial) {
            // One connection: the side that was told to dial is its dialler, the other one's attempt becomes part of it.
            return false;
        }
        self.attempt_failed(mine, place, DialError::Handshake);
        self.attempt_failed(packet.dial, packet.at, DialError::Handshake);
        true
    }

    /// The first packet was answered.
    fn opened(&mut self, packet: &Packet, host: HostId, other: HostId, at: u16, seen: SocketAddr) {
        let (key, place) = (packet.dial, packet.at);
        let now = self.now;
        let Some(dial) = self.dials.get_mut(key) else { return };
        let Some(attempt) = dial.attempts.get_mut(usize::from(place)) else { return };
        if dial.node != host || attempt.state != State::Sent {
            return;
        }
        let rtt = (now - attempt.sent).max(1);
        attempt.state = State::Shaking { other, seen, at, rtt };
        let rounds = if attempt.transport == Transport::Tcp { TCP_ROUNDS } else { 0 };
        // A processor's time for the handshake on both sides.
        let work = self.machines[host as usize].dice.between(MILLI, 6 * MILLI);
        self.queue.push(now + rounds * rtt + work, host, What::Shaken(key, place));
    }

    /// A handshake is done, if there still is a way.
    pub(super) fn shaken(&mut self, key: Key, place: u8) {
        let Some(dial) = self.dials.get(key) else { return };
        let Some(attempt) = dial.attempts.get(usize::from(place)) else { return };
        if let (State::Through, Some(through)) = (attempt.state, attempt.through) {
            return self.circuit_stands(key, place, through);
        }
        let State::Shaking { other, seen, at, rtt } = attempt.state else { return };
        let (node, transport, to, port) = (dial.node, attempt.transport, attempt.to, attempt.port);
        let (asker, began, address) = (dial.asker, dial.began, attempt.address.clone());
        let expected = dial.peer;
        let there = self.net.depart(self.now, node, protocol(transport), port, to).ok();
        let gets_there = there.is_some_and(|flight| {
            let arrives = self.net.arrive(self.now, &flight).is_ok_and(|arrived| arrived.host == other);
            arrives && self.net.links.is_open(self.net.host(node).site, self.net.host(other).site)
        });
        let theirs = &self.machines[other as usize];
        if !gets_there || !theirs.on || theirs.asleep {
            return;
        }
        let found = theirs.id;
        if other == node {
            return self.attempt_failed(key, place, DialError::OwnIdentity);
        }
        if expected.is_some_and(|expected| expected != found) {
            let from = Address::ip(seen.ip(), seen.port(), transport);
            let half = rtt / 2;
            let error = DialError::Handshake;
            self.say(self.now + half, other, Event::InboundFailed { address: from, peer: None, error, count: 1 });
            return self.attempt_failed(key, place, DialError::WrongPeer(found));
        }
        if self.machines[node as usize].denied.contains(&other) {
            return self.attempt_failed(key, place, DialError::Denied);
        }
        let took = Duration::from_nanos(self.now - began);
        let ends = [port, at];
        let remotes = [to, seen];
        self.end_dial(key);
        let origins = match asker {
            Asker::Core(command) => [Origin::Dial(command), Origin::Inbound],
            Asker::Held(held) => [Origin::Held(held), Origin::Inbound],
            Asker::Punch(punch, command) => [Origin::Punch(command), self.punch_origin(punch, other)],
            Asker::Probe(probe, held) => {
                return self.probe_connected(probe, held, node, other, ends, remotes, transport, address, rtt, took);
            }
        };
        self.establish(node, other, transport, ends, remotes, address, origins, rtt, took, None);
        if let Asker::Punch(punch, _) = asker {
            self.punch_won(punch);
        }
    }

    /// Nothing came of an address in time.
    pub(super) fn attempt_over(&mut self, key: Key, at: u8) {
        let Some(attempt) = self.dials.get(key).and_then(|dial| dial.attempts.get(usize::from(at))) else { return };
        let nobody = attempt.tries > AGAIN.len() as u8 && self.now < attempt.began + QUIC_PATIENCE;
        let error = match attempt.state {
            State::Sent if nobody => DialError::Unreachable,
            State::Sent | State::Shaking { .. } | State::Relaying | State::Through => DialError::TimedOut,
            State::Waiting | State::Failed => return,
        };
        self.attempt_failed(key, at, error);
    }

    /// A reset comes back.
    pub(super) fn refused(&mut self, key: Key, at: u8) {
        let attempt = self.dials.get(key).and_then(|dial| dial.attempts.get(usize::from(at)));
        if attempt.is_some_and(|attempt| attempt.state == State::Sent) {
            self.attempt_failed(key, at, DialError::ConnectionRefused);
        }
    }

    /// An address has failed.
    pub(super) fn attempt_failed(&mut self, key: Key, at: u8, error: DialError) {
        let Some(dial) = self.dials.get_mut(key) else { return };
        let node = dial.node;
        let Some(attempt) = dial.attempts.get_mut(usize::from(at)) else { return };
        if attempt.state == State::Failed {
            return;
        }
        attempt.state = State::Failed;
        dial.failures.push((attempt.address.clone(), error));
        let next = usize::from(at) + 1;
        if dial.one_by_one && next < dial.attempts.len() {
            self.queue.push(self.now + 1, node, What::Attempt(key, next as u8));
        } else if dial.attempts.iter().all(|attempt| attempt.state == State::Failed) {
            self.dial_over(key);
        }
    }

    fn dial_over(&mut self, key: Key) {
        let Some(dial) = self.end_dial(key) else { return };
        let error = telling(dial.failures.iter().map(|(_, error)| error)).unwrap_or(DialError::NoAddresses);
        match dial.asker {
            Asker::Core(command) => {
                self.say_now(dial.node, Event::DialFailed { dial: command, failures: dial.failures, error });
            }
            Asker::Held(held) => {
                self.say_now(dial.node, Event::HeldFailed { held, error });
                if let Some(peer) = dial.peer.and_then(|peer| self.index(&peer)) {
                    self.kademlia_unreachable(dial.node, peer);
                }
            }
            Asker::Punch(punch, command) => self.punch_dial_failed(punch, command, error),
            Asker::Probe(probe, held) => self.probe_dial_failed(dial.node, probe, held, error),
        }
    }

    pub(super) fn end_dial(&mut self, key: Key) -> Option<Dial> {
        let dial = self.dials.remove(key)?;
        self.machines[dial.node as usize].dials.retain(|other| *other != key);
        Some(dial)
    }

    /// Whether a dial to this peer is under way.
    pub(super) fn is_dialling(&self, node: HostId, peer: HostId) -> bool {
        let id = peer_id(peer);
        let mut dials = self.machines[node as usize].dials.iter();
        dials.any(|key| self.dials.get(*key).is_some_and(|dial| dial.peer == Some(id)))
    }

    /// A way through a relay: over the connection to it, or not at all.
    fn ask_relay(&mut self, key: Key, at: u8, node: HostId, relay: PeerId) {
        let conn = self.index(&relay).and_then(|relay| self.connection_to(node, relay));
        let conn = conn.filter(|conn| self.conns.get(*conn).is_some_and(|conn| conn.via.is_none()));
        let Some(conn) = conn else {
            // The relay client would dial it; the core has every dial wait for itself.
            return self.attempt_failed(key, at, DialError::Other("no connection to the relay".to_owned()));
        };
        self.queue.push(self.now + TCP_PATIENCE, node, What::AttemptOver(key, at));
        let side = self.conns.get(conn).map_or(0, |conn| conn.side_of(node));
        self.send(conn, side, Body::Circuit(key, at));
    }

    /// The peer that a dial expects, who dials, and since when.
    pub(super) fn dial_of(&self, key: Key) -> Option<(HostId, Option<PeerId>, Moment, Asker)> {
        self.dials.get(key).map(|dial| (dial.node, dial.peer, dial.began, dial.asker))
    }

    /// A way through a relay is being opened for a dial's attempt. Says whether somebody still waits for it.
    pub(super) fn set_through(&mut self, key: Key, at: u8, through: Through) -> bool {
        let attempt = self.dials.get_mut(key).and_then(|dial| dial.attempts.get_mut(usize::from(at)));
        let Some(attempt) = attempt.filter(|attempt| attempt.state == State::Relaying) else { return false };
        (attempt.state, attempt.through) = (State::Through, Some(through));
        true
    }

    /// The address of a dial's attempt.
    pub(super) fn attempt_address(&self, key: Key, at: u8) -> Option<Address> {
        self.dials.get(key)?.attempts.get(usize::from(at)).map(|attempt| attempt.address.clone())
    }
}

fn is_public(address: &Address) -> bool {
    matches!(address, Address::Name { .. }) || address.scope().is_some_and(Scope::is_global)
}

/// libp2p's order: QUIC before TCP, IPv6 before IPv4, a relay last.
fn rank(address: &Address) -> (bool, bool, bool, bool, u16) {
    (
        address.is_relayed(),
        is_public(address),
        address.transport() != Some(Transport::Quic),
        address.host_ip().is_some_and(|ip| ip.is_ipv4()),
        address.port().unwrap_or(0),
    )
}

/// The one of several errors that says most: as the shell does.
pub(super) fn telling<'a>(errors: impl Iterator<Item = &'a DialError>) -> Option<DialError> {
    let worth = |error: &&DialError| match error {
        DialError::OwnIdentity => 0,
        DialError::WrongPeer(_) => 1,
        DialError::Denied => 2,
        DialError::Limit => 3,
        DialError::Handshake => 4,
        DialError::ConnectionRefused => 5,
        DialError::TimedOut => 6,
        DialError::NameNotFound => 7,
        DialError::Unreachable => 8,
        DialError::Other(_) => 9,
        DialError::Cancelled => 10,
        DialError::Unsupported => 11,
        DialError::NoAddresses => 12,
    };
    errors.min_by_key(worth).cloned()
}
