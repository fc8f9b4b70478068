//! Connections that stand: messages, pings, introductions, and how they end on each side.
//!
//! A connection has two ends that need not agree: a close that does not get through leaves the other end open until its
//! pings fail (or, for QUIC, until nothing came for 60 s). A NAT that forgets changes where an end seems to be: QUIC
//! moves along, TCP breaks.

use std::{net::SocketAddr, time::Duration};

use kinfolk_core::{
    Address, Asker, CircuitLimit, CloseCause, CommandId, ConnectionId, DialError, Direction, Event, Origin, PingError,
    Scope, Transport,
};

use super::{End, What, World, machine::Standing, nanos};
use crate::{
    engine::{Digest, Key, MILLI, Moment, SECOND},
    internet::{HostId, Protocol},
};

/// A connection between two machines; end 0 is the one that dialled.
pub(super) struct Conn {
    pub(super) ends: [Side; 2],
    pub(super) transport: Transport,
    /// The two connections to the relay, of end 0 and of end 1, if it leads through one.
    pub(super) via: Option<Circuit>,
    /// A round trip without chance, in nanoseconds.
    pub(super) rtt: u64,
    pub(super) since: Moment,
}

pub(super) struct Circuit {
    pub(super) relay: u32,
    pub(super) legs: [Key; 2],
    pub(super) limit: Option<CircuitLimit>,
    /// Bytes so far, both ways.
    pub(super) carried: u64,
}

pub(super) struct Side {
    pub(super) node: HostId,
    pub(super) number: u64,
    /// Its program holds it for a connection.
    pub(super) open: bool,
    pub(super) local: u16,
    /// Where it sends to; where the other end seems to be.
    pub(super) remote: SocketAddr,
    missed: u8,
    /// Tenths of a circuit's bytes of which its program knows.
    pub(super) tenths_told: u8,
    pub(super) opened: Moment,
    heard: Moment,
    /// Since when it waits for the other end's introduction.
    asks_since: Option<Moment>,
    /// The hash of the last introduction that was told, and when that was.
    told_identity: Option<(u128, Moment)>,
}

/// What is told over a connection.
pub(super) enum Body {
    /// The listening side's handshake is done.
    Established {
        origin: Origin,
        took: Duration,
    },
    /// The other side closes.
    Close,
    /// The other side tells of changes.
    Push,
    /// About a punch: which step of it.
    Punch(Key, u8),
    /// About logs.
    LogQuestion(CommandId, super::logs::Question),
    LogReply(CommandId, super::logs::Reply),
    /// Ask a relay for a place.
    Reserve(CommandId),
    /// The relay's answer.
    ReserveAnswer(CommandId, super::relay::Answer),
    /// Ask a relay for a way to somebody: the dial and which of its addresses.
    Circuit(Key, u8),
    /// The relay could not.
    CircuitDenied(Key, u8, DialError),
}

pub(super) struct Message {
    conn: Key,
    to: u8,
    body: Body,
    tries: u8,
}

/// The shell's `ping_interval` (and `ping_timeout`), `quic_ping_interval`, `quic_ping_heard` and `quic_idle`.
const PING_INTERVAL: u64 = 15 * SECOND;
const QUIC_PING_INTERVAL: u64 = 25 * SECOND;
const QUIC_PING_HEARD: u64 = 60 * SECOND;
const QUIC_IDLE: u64 = 60 * SECOND;
/// The library opens a substream within this, or not at all.
const SUBSTREAM: u64 = 10 * SECOND;
/// libp2p-identify asks again this often.
const IDENTIFY: u64 = 300 * SECOND;
/// The shell reports an introduction that says the same again no more often.
const SAME_AGAIN: u64 = 60 * SECOND;
/// The shell's `CLOSE_PATIENCE`.
const CLOSING: u64 = 5 * SECOND;
/// A first packet of a round that gets no answer is sent again after this, doubled each time.
const RESEND: u64 = 250 * MILLI;
/// Tries of a message before the way counts as gone; with the doubling about a minute.
const TRIES: u8 = 7;
/// The listening side's handshake ends within this, or not at all.
const HANDSHAKE: u64 = 10 * SECOND;
/// Bytes of what makes a connection, of a ping and its answer, of an introduction, and of any other message without what
/// it carries.
const HANDSHAKES: u64 = 5_000;
const PING: u64 = 300;
const INTRODUCTION: u64 = 600;
pub(super) const MESSAGE: u64 = 150;
/// Connections of one peer that the gate lets in.
const PER_PEER: usize = 8;

impl Conn {
    /// Whether both ends hold it for a connection.
    pub(super) fn is_whole(&self) -> bool {
        self.ends[0].open && self.ends[1].open
    }

    pub(super) fn side_of(&self, node: HostId) -> u8 {
        u8::from(self.ends[0].node != node)
    }

    const fn is_direct_quic(&self) -> bool {
        matches!(self.transport, Transport::Quic) && self.via.is_none()
    }

    /// When a side that pings now does so again. The second ping, which proves the connection, comes soon by QUIC, too.
    const fn ping_interval(&self, side: u8, now: Moment) -> u64 {
        if !self.is_direct_quic() || now < self.since + PING_INTERVAL {
            PING_INTERVAL
        } else if side == 0 {
            QUIC_PING_INTERVAL
        } else {
            QUIC_PING_HEARD
        }
    }

    /// Whether an end still waits for the last packet of its handshake: what is asked of it is answered after that.
    fn waits(&self, side: u8, now: Moment) -> bool {
        self.ends[usize::from(side)].number == 0 && now < self.since + HANDSHAKE
    }
}

impl World {
    /// A dial's handshake is done on the dialling side, at `now`.
    #[expect(clippy::too_many_arguments, reason = "everything that makes a connection")]
    pub(super) fn establish(
        &mut self,
        dialler: HostId,
        listener: HostId,
        transport: Transport,
        ports: [u16; 2],
        remotes: [SocketAddr; 2],
        address: Address,
        origins: [Origin; 2],
        rtt: u64,
        took: Duration,
        via: Option<Circuit>,
    ) -> Key {
        let end = |node, local, remote| Side {
            node,
            number: 0,
            open: false,
            local,
            remote,
            missed: 0,
            tenths_told: 0,
            opened: self.now,
            heard: self.now,
            asks_since: None,
            told_identity: None,
        };
        let ends = [end(dialler, ports[0], remotes[0]), end(listener, ports[1], remotes[1])];
        let kind = match (&via, transport) {
            (Some(_), _) => "relayed",
            (None, Transport::Quic) => "direct-quic",
            (None, Transport::Tcp) => "direct-tcp",
        };
        *self.counts.connections.entry(kind.into()).or_default() += 1;
        let key = self.conns.insert(Conn { ends, transport, via, rtt, since: self.now });
        self.carry(key, HANDSHAKES);
        self.open_end(key, 0, address, origins[0], took);
        if let Origin::Punch(_) = origins[1] {
            self.open_listening_end(key, origins[1], took);
        } else {
            self.send(key, 0, Body::Established { origin: origins[1], took });
        }
        key
    }

    fn open_listening_end(&mut self, key: Key, origin: Origin, took: Duration) {
        let Some(conn) = self.conns.get(key) else { return };
        let (end, other) = (&conn.ends[1], conn.ends[0].node);
        let (node, relay) = (end.node, conn.via.as_ref().map(|circuit| circuit.relay));
        let address = match relay {
            Some(relay) => Address::relayed(super::peer_id(relay)),
            None => Address::ip(end.remote.ip(), end.remote.port(), conn.transport),
        };
        let peer = super::peer_id(other);
        let machine = &self.machines[node as usize];
        if !machine.on {
            return;
        }
        // The gate: who is denied, and who is too many.
        let config = &machine.setup.config.lifecycle;
        let total = (config.high_water + config.dial_slots + 16) as usize;
        let pinned = machine.setup.config.pinned.iter().any(|pinned| pinned.peer == peer);
        let refused = if machine.denied.contains(&other) {
            Some(DialError::Denied)
        } else if machine.conns_to(other).count() >= PER_PEER || (machine.conns.len() >= total && !pinned) {
            Some(DialError::Limit)
        } else {
            None
        };
        if let Some(error) = refused {
            self.say_now(node, Event::InboundFailed { address, peer: Some(peer), error, count: 1 });
            self.send(key, 1, Body::Close);
            return;
        }
        self.open_end(key, 1, address, origin, took);
    }

    fn open_end(&mut self, key: Key, side: u8, address: Address, origin: Origin, took: Duration) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (rtt, limit) = (conn.rtt, conn.via.as_ref().and_then(|circuit| circuit.limit));
        let (other, relayed) = (conn.ends[usize::from(1 - side)].node, conn.via.is_some());
        let peer = super::peer_id(other);
        let end = &mut conn.ends[usize::from(side)];
        let node = end.node;
        let machine = &mut self.machines[node as usize];
        machine.last_connection += 1;
        end.number = machine.last_connection;
        end.open = true;
        (end.opened, end.heard) = (self.now, self.now);
        let anew = machine.conns_to(other).next().is_none();
        machine.conns.push(Standing { number: end.number, peer: other, relayed, key });
        let connection = ConnectionId(end.number);
        let dialled = matches!(origin, Origin::Dial(_) | Origin::Held(_));
        let direction = if side == 0 { Direction::Outbound } else { Direction::Inbound };
        if dialled {
            self.counts.dials_won += 1;
        }
        // Whether the ping or the introduction is there first is the scheduler's whim.
        let machine = &mut self.machines[node as usize];
        let (first, second) =
            (self.now + rtt + machine.dice.below(2 * MILLI), self.now + rtt + machine.dice.below(2 * MILLI));
        self.queue.push(first, node, What::Ping(key, side));
        self.queue.push(second, node, What::Identify(key, side));
        self.say_now(node, Event::Connected { connection, peer, direction, address, origin, took });
        if let Some(limit) = limit {
            self.say_now(node, Event::CircuitLimited { connection, limit });
        }
        if anew {
            self.kademlia_moved(node, other);
        }
        self.kademlia_connected(node, key, side);
    }

    /// Sends a message; it arrives if there is a way, or is tried again for a while.
    pub(super) fn send(&mut self, conn: Key, from: u8, body: Body) {
        self.deliver(Message { conn, to: 1 - from, body, tries: 0 });
    }

    fn deliver(&mut self, mut message: Message) {
        let Some(conn) = self.conns.get(message.conn) else { return };
        let to = conn.ends[usize::from(message.to)].node;
        let way = self.one_way(message.conn, 1 - message.to);
        message.tries += 1;
        let at = match way {
            Some(delay) => {
                message.tries = 0;
                self.now + delay
            }
            None if message.tries > TRIES => return,
            None => self.now + (RESEND << message.tries),
        };
        if !self.carry(message.conn, MESSAGE) {
            return;
        }
        let key = self.messages.insert(message);
        self.queue.push(at, to, What::Message(key));
    }

    pub(super) fn message(&mut self, key: Key) {
        let Some(message) = self.messages.remove(key) else { return };
        if message.tries > 0 {
            // It did not get through, and is sent again.
            return self.deliver(message);
        }
        let Message { conn, to, body, .. } = message;
        let Some(known) = self.conns.get(conn) else { return };
        let end = &known.ends[usize::from(to)];
        let (node, open) = (end.node, end.open);
        let machine = &self.machines[node as usize];
        if !machine.on {
            return;
        }
        match body {
            Body::Established { origin, took } => {
                let half = Duration::from_nanos(known.rtt / 2);
                self.open_listening_end(conn, origin, took + half);
            }
            // It has overtaken the last packet of the handshake.
            body if known.waits(to, self.now) && !matches!(body, Body::Close) => {
                let later = self.messages.insert(Message { conn, to, body, tries: 0 });
                self.queue.push(self.now + RESEND, node, What::Message(later));
            }
            _ if !open && !matches!(body, Body::Close) => {}
            Body::Close => self.end_side(conn, to, CloseCause::Remote),
            Body::Push => self.introduce(conn, to),
            Body::Punch(punch, stage) => self.punch_message(punch, stage, conn),
            Body::LogQuestion(command, question) => self.log_question(conn, to, command, question),
            Body::LogReply(command, reply) => self.log_reply(conn, to, command, reply),
            Body::Reserve(command) => self.reserve_asked(conn, command),
            Body::ReserveAnswer(command, answer) => self.reserve_answered(conn, command, answer),
            Body::Circuit(dial, at) => self.circuit_asked(conn, dial, at),
            Body::CircuitDenied(dial, at, error) => self.attempt_failed(dial, at, error),
        }
    }

    /// How long something takes from one end to the other now; `None`: there is no way. Refreshes the NATs on it.
    pub(super) fn one_way(&mut self, key: Key, from: u8) -> Option<u64> {
        let conn = self.conns.get(key)?;
        if let Some(circuit) = &conn.via {
            let legs = circuit.legs;
            let relay = circuit.relay;
            let mut total = 0;
            for (leg, towards_relay) in [(legs[usize::from(from)], true), (legs[usize::from(1 - from)], false)] {
                let known = self.conns.get(leg).filter(|leg| leg.is_whole())?;
                let at_relay = known.side_of(relay);
                total += self.one_way(leg, if towards_relay { 1 - at_relay } else { at_relay })?;
            }
            return Some(total);
        }
        let (me, other) = (&conn.ends[usize::from(from)], &conn.ends[usize::from(1 - from)]);
        let (node, local, remote) = (me.node, me.local, me.remote);
        let (there, there_port, seen) = (other.node, other.local, other.remote);
        let transport = conn.transport;
        let flight = self.net.depart(self.now, node, protocol(transport), local, remote).ok()?;
        let arrived = self.net.arrive(self.now + flight.delay, &flight).ok()?;
        if arrived.host != there || arrived.at.port() != there_port || !self.machines[there as usize].on {
            return None;
        }
        if flight.from != seen {
            if transport == Transport::Tcp {
                // Nobody there knows this connection: a reset comes back.
                self.break_soon(key, from, flight.delay);
                return None;
            }
            if let Some(conn) = self.conns.get_mut(key) {
                conn.ends[usize::from(1 - from)].remote = flight.from;
            }
        }
        let dice = &mut self.machines[node as usize].dice;
        let mut late = 0;
        for again in 0..6 {
            match self.net.luck(self.now, &flight, dice) {
                Some(more) => return Some(flight.delay + more + late),
                None => late += (flight.delay * 3).max(RESEND) << again,
            }
            if late > 20 * SECOND {
                break;
            }
        }
        None
    }

    /// A reset comes back.
    fn break_soon(&mut self, key: Key, side: u8, delay: u64) {
        let Some(end) = self.conns.get(key).map(|conn| &conn.ends[usize::from(side)]).filter(|end| end.open) else {
            return;
        };
        let node = end.node;
        let reset = self.messages.insert(Message { conn: key, to: side, body: Body::Close, tries: 0 });
        self.queue.push(self.now + 2 * delay, node, What::Message(reset));
    }

    /// A ping's answer, or its absence: both ways are looked at in the moment of the answer.
    pub(super) fn ping(&mut self, key: Key, side: u8) {
        let Some(conn) = self.conns.get(key) else { return };
        let end = &conn.ends[usize::from(side)];
        let (node, number, open) = (end.node, end.number, end.open);
        if !open {
            return;
        }
        if self.machines[node as usize].asleep {
            self.queue.push(self.now + conn.ping_interval(side, self.now), node, What::Ping(key, side));
            return;
        }
        if conn.waits(1 - side, self.now) {
            self.queue.push(self.now + RESEND, node, What::Ping(key, side));
            return;
        }
        let through = self.carry(key, PING);
        let there = self.one_way(key, side).filter(|_| through);
        let back = there.and_then(|_| self.one_way(key, 1 - side));
        let Some(conn) = self.conns.get_mut(key) else { return };
        let [here, other] = if side == 0 { [0, 1] } else { [1, 0] };
        match there.zip(back) {
            Some((there, back)) if conn.ends[other].open => {
                let (rtt, interval) = (there + back, conn.ping_interval(side, self.now));
                conn.ends[here].missed = 0;
                conn.ends[here].heard = self.now;
                conn.ends[other].heard = self.now;
                let peer = super::peer_id(conn.ends[other].node);
                self.queue.push(self.now + interval + rtt, node, What::Ping(key, side));
                let result = Ok(Duration::from_nanos(rtt));
                self.tell(node, Event::Pinged { connection: ConnectionId(number), peer, result });
            }
            Some(_) | None => {
                if !conn.ends[here].open {
                    return;
                }
                conn.ends[here].missed += 1;
                let first = conn.ends[here].missed == 1;
                let (quic, interval) = (conn.is_direct_quic(), conn.ping_interval(side, self.now));
                if quic && first {
                    let quiet = (conn.ends[here].heard + QUIC_IDLE).max(self.now + 1);
                    self.queue.push(quiet, node, What::QuietCheck(key, side));
                }
                // The first is forgiven, each further one told when it is time for the next.
                if !first {
                    self.queue.push(self.now + interval, node, What::PingLost(key, side));
                }
                self.queue.push(self.now + interval, node, What::Ping(key, side));
            }
        }
    }

    pub(super) fn ping_lost(&mut self, key: Key, side: u8) {
        let Some(conn) = self.conns.get(key) else { return };
        let end = &conn.ends[usize::from(side)];
        if end.open && end.missed > 1 {
            let peer = super::peer_id(conn.ends[usize::from(1 - side)].node);
            let (node, connection) = (end.node, ConnectionId(end.number));
            self.tell(node, Event::Pinged { connection, peer, result: Err(PingError::TimedOut) });
        }
    }

    pub(super) fn quiet_check(&mut self, key: Key, side: u8) {
        let Some(conn) = self.conns.get(key) else { return };
        let end = &conn.ends[usize::from(side)];
        if !end.open || end.missed == 0 {
            return;
        }
        if end.heard + QUIC_IDLE <= self.now {
            self.end_side(key, side, CloseCause::Broken("timed out".to_owned()));
        }
    }

    /// The other side's introduction comes.
    pub(super) fn identify(&mut self, key: Key, side: u8) {
        let Some(conn) = self.conns.get(key) else { return };
        let end = &conn.ends[usize::from(side)];
        let node = end.node;
        if !end.open {
            return;
        }
        let asleep = self.machines[node as usize].asleep;
        if asleep || conn.waits(1 - side, self.now) {
            let wait = if asleep { PING_INTERVAL } else { RESEND };
            self.queue.push(self.now + wait, node, What::Identify(key, side));
            return;
        }
        let heard = self.one_way(key, 1 - side).is_some();
        let Some(conn) = self.conns.get_mut(key) else { return };
        let peer = super::peer_id(conn.ends[usize::from(1 - side)].node);
        let end = &mut conn.ends[usize::from(side)];
        if heard {
            end.asks_since = None;
        } else if *end.asks_since.get_or_insert(self.now) + SUBSTREAM > self.now {
            self.queue.push(self.now + SECOND, node, What::Identify(key, side));
            return;
        } else {
            end.asks_since = None;
            let (connection, error) = (ConnectionId(end.number), "Timeout error while opening a substream".to_owned());
            self.queue.push(self.now + IDENTIFY, node, What::Identify(key, side));
            return self.tell(node, Event::IdentifyFailed { connection, peer, error });
        }
        self.carry(key, INTRODUCTION);
        self.queue.push(self.now + IDENTIFY, node, What::Identify(key, side));
        self.introduce(key, side);
    }

    fn introduce(&mut self, key: Key, side: u8) {
        let Some(conn) = self.conns.get(key) else { return };
        let (end, other) = (&conn.ends[usize::from(side)], &conn.ends[usize::from(1 - side)]);
        if !end.open || !other.open || !self.machines[other.node as usize].on {
            return;
        }
        let (node, peer, number) = (end.node, other.node, end.number);
        let observed = match &conn.via {
            Some(circuit) => Address::relayed(super::peer_id(circuit.relay)),
            None => Address::ip(other.remote.ip(), other.remote.port(), conn.transport),
        };
        let observed = self.observed_by(peer, observed);
        let mut identity = self.machines[peer as usize].identity();
        self.introduced(peer, &mut identity);
        identity.observed = Some(observed.clone());
        let now = self.now;
        let mut said = Digest::default();
        said.value(&identity);
        let said = said.sum();
        let Some(conn) = self.conns.get_mut(key) else { return };
        let told = &mut conn.ends[usize::from(side)].told_identity;
        if told.as_ref().is_some_and(|(known, at)| *known == said && *at + SAME_AGAIN > now) {
            return;
        }
        *told = Some((said, now));
        let connection = ConnectionId(number);
        let peer = super::peer_id(peer);
        self.tell(node, Event::Identified { connection, peer, identity: Box::new(identity) });
        for address in self.candidates(node, &observed) {
            self.tell(node, Event::Candidate { asker: Asker::Identify, address });
        }
    }

    /// What libp2p-identify makes of an observed address: itself if its port is one that is listened on, else one
    /// for each listener's port of that transport.
    fn candidates(&self, node: HostId, observed: &Address) -> Vec<Address> {
        let machine = &self.machines[node as usize];
        let (Some(ip), Some(port), Some(transport)) = (observed.host_ip(), observed.port(), observed.transport())
        else {
            return vec![];
        };
        let mut found: Vec<Address> = if machine.listeners.iter().any(|listener| listener.port == port) {
            vec![observed.clone()]
        } else {
            let listeners = machine.listeners.iter();
            let like = listeners.filter(|one| one.transport == transport && one.ipv6 == ip.is_ipv6());
            like.map(|one| Address::ip(ip, one.port, transport)).collect()
        };
        found.dedup();
        found.retain(|address| !machine.advertised.contains(address));
        found
    }

    /// The core has a connection closed.
    pub(super) fn close(&mut self, node: HostId, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let side = conn.side_of(node);
        let way = self.one_way(key, side).is_some();
        // A reset may just have ended it.
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.ends[usize::from(side)].open) else { return };
        let end = &mut conn.ends[usize::from(side)];
        end.open = false;
        let number = end.number;
        let peer = super::peer_id(conn.ends[usize::from(1 - side)].node);
        self.forget_number(node, number);
        let at = self.now + if way { MILLI } else { CLOSING };
        let cause = CloseCause::Ours;
        self.say(at, node, Event::Disconnected { connection: ConnectionId(number), peer, cause });
        if way {
            self.send(key, side, Body::Close);
        }
        self.circuits_on(key);
        self.reservations_on(key, node);
        self.free_if_done(key);
    }

    /// One side learns that a connection has ended.
    pub(super) fn end_side(&mut self, key: Key, side: u8, cause: CloseCause) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let end = &mut conn.ends[usize::from(side)];
        if !end.open {
            return self.free_if_done(key);
        }
        end.open = false;
        let (node, number, opened) = (end.node, end.number, end.opened);
        let peer = super::peer_id(conn.ends[usize::from(1 - side)].node);
        self.forget_number(node, number);
        let ended = Event::Disconnected { connection: ConnectionId(number), peer, cause };
        if opened == self.now {
            // After the word that it stands, which is still to come.
            self.say_now(node, ended);
        } else {
            self.tell(node, ended);
        }
        self.circuits_on(key);
        self.reservations_on(key, node);
        self.free_if_done(key);
    }

    /// A program has ended: what its connections' other sides hear of it.
    pub(super) fn abandon(&mut self, key: Key, node: HostId, end: End) {
        let Some(conn) = self.conns.get(key) else { return };
        let side = conn.side_of(node);
        let heard = match end {
            End::Farewell => true,
            End::Killed => conn.transport == Transport::Tcp && conn.via.is_none(),
            End::Power => false,
        };
        if heard {
            self.send(key, side, Body::Close);
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.ends[usize::from(side)].open = false;
        }
        self.circuits_on(key);
        self.free_if_done(key);
    }

    fn forget_number(&mut self, node: HostId, number: u64) {
        let machine = &mut self.machines[node as usize];
        if let Ok(at) = machine.conns.binary_search_by_key(&number, |one| one.number) {
            let peer = machine.conns.remove(at).peer;
            if machine.conns_to(peer).next().is_none() {
                self.kademlia_moved(node, peer);
            }
        }
        self.logs_on(node, number);
    }

    /// Both ends are gone: nothing more comes of it. Messages on their way find nothing.
    fn free_if_done(&mut self, key: Key) {
        let done = self.conns.get(key).is_some_and(|conn| !conn.ends[0].open && !conn.ends[1].open);
        // A listening end that is not open yet may still be told of its beginning.
        let fresh =
            self.conns.get(key).is_some_and(|conn| conn.ends[1].number == 0 && conn.since + 10 * SECOND > self.now);
        if done && !fresh {
            self.conns.remove(key);
        }
    }

    /// Tells all connected peers of changes.
    pub(super) fn push_identity(&mut self, node: HostId) {
        let conns: Vec<Key> = self.machines[node as usize].conns.iter().map(|one| one.key).collect();
        #[cfg(feature = "museum")]
        let conns = self.walk(conns);
        for key in conns {
            if let Some(conn) = self.conns.get(key) {
                let side = conn.side_of(node);
                self.send(key, side, Body::Push);
            }
        }
    }

    /// A connection to a peer that stands on this side, direct before relayed.
    pub(super) fn connection_to(&self, node: HostId, peer: HostId) -> Option<Key> {
        self.machines[node as usize].conns_to(peer).min_by_key(|one| one.relayed).map(|one| one.key)
    }

    /// Whether an address may be looked up and dialled on a look-up's behalf: on the internet only.
    pub(super) fn is_global(address: &Address) -> bool {
        address.scope().is_some_and(Scope::is_global)
    }
}

pub(super) const fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Quic => Protocol::Udp,
    }
}

/// A limit's duration, in nanoseconds.
pub(super) fn limit_nanos(limit: Option<CircuitLimit>) -> Option<u64> {
    limit.and_then(|limit| limit.duration).map(nanos)
}
