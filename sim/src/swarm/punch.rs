//! Proposals of direct connections over relayed ones, and the tries that follow: who begins when, as the shell's `punch`
//! has it.

use std::net::SocketAddr;

use kinfolk_core::{
    Address, CircuitLimit, CommandId, ConnectionId, DialError, Event, Mapping, OfferId, Origin, PunchError, PunchRole,
    PunchWire, Refusal, Scope, Transport,
};

use super::{What, World, connections::Body, dialing::Asker, peer_id};
use crate::engine::{Key, Moment, SECOND};

/// A try of two machines.
pub(super) struct Try {
    /// The proposer's, and the answerer's.
    parts: [Part; 2],
    conn: Key,
    offer: OfferId,
    transport: Transport,
    kinfolk: bool,
    near: bool,
}

struct Part {
    node: u32,
    command: Option<CommandId>,
    role: PunchRole,
    mapping: Option<Mapping>,
    candidates: Vec<Address>,
    targets: Vec<Address>,
    /// Dials under way.
    dials: usize,
    over: bool,
}

/// The way of a circuit that is being opened.
#[derive(Clone, Copy)]
pub(super) struct Through {
    pub(super) relay: u32,
    pub(super) legs: [Key; 2],
    pub(super) limit: Option<CircuitLimit>,
    pub(super) target: u32,
}

/// What a punch's messages are.
const OFFER: u8 = 0;
const ANSWER: u8 = 1;
const SIGNAL: u8 = 2;
const DECLINE: u8 = 3;
/// What a punch's timers are, beside a side's patience (0 and 1).
const PROPOSER_BEGINS: u8 = 2;
/// The shell's `accept_patience`: what a dial may take.
const QUIC: u64 = 5 * SECOND;
const TCP: u64 = 10 * SECOND;

/// A proposal, as the core words it.
pub(super) struct Proposal<'a> {
    pub(super) connection: ConnectionId,
    pub(super) wire: PunchWire,
    pub(super) transport: Transport,
    pub(super) candidates: &'a [Address],
    pub(super) near: bool,
}

/// An answer, as the core words it.
pub(super) struct Taken<'a> {
    pub(super) offer: OfferId,
    pub(super) transport: Transport,
    pub(super) role: PunchRole,
    pub(super) mapping: Mapping,
    pub(super) candidates: &'a [Address],
    pub(super) targets: &'a [Address],
}

impl World {
    /// The core proposes.
    pub(super) fn punch(&mut self, node: u32, command: CommandId, proposal: &Proposal<'_>) {
        self.counts.punches += 1;
        let conn = self.machines[node as usize].conn(proposal.connection);
        let other = conn.and_then(|key| {
            let conn = self.conns.get(key).filter(|conn| conn.via.is_some())?;
            Some((key, conn.side_of(node), conn.ends[usize::from(1 - conn.side_of(node))].node))
        });
        let Some((conn, side, other)) = other else {
            let error = PunchError::CircuitGone;
            return self.say_now(node, Event::PunchFailed { punch: command, error });
        };
        let (role, mapping) = match proposal.wire {
            PunchWire::Kinfolk { mapping } => (PunchRole::Dial, Some(mapping)),
            PunchWire::Dcutr { role } => (role, None),
        };
        let part = |node, command, role, mapping, candidates: &[Address]| Part {
            node,
            command,
            role,
            mapping,
            candidates: candidates.to_vec(),
            targets: vec![],
            dials: 0,
            over: false,
        };
        let parts = [
            part(node, Some(command), role, mapping, proposal.candidates),
            part(other, None, PunchRole::Accept, None, &[]),
        ];
        let kinfolk = mapping.is_some();
        let offer = OfferId(0);
        let (transport, near) = (proposal.transport, proposal.near);
        let key = self.punches.insert(Try { parts, conn, offer, transport, kinfolk, near });
        self.machines[node as usize].punches.push(key);
        self.send(conn, side, Body::Punch(key, OFFER));
    }

    /// A word of the talk arrives.
    pub(super) fn punch_message(&mut self, key: Key, word: u8, conn: Key) {
        let Some(known) = self.punches.get(key) else { return };
        let [proposer, answerer] = [known.parts[0].node, known.parts[1].node];
        match word {
            OFFER => {
                let machine = &mut self.machines[answerer as usize];
                machine.last_offer += 1;
                machine.punches.push(key);
                let offer = OfferId(machine.last_offer);
                let number = self.conns.get(conn).map(|conn| {
                    let side = conn.side_of(answerer);
                    ConnectionId(conn.ends[usize::from(side)].number)
                });
                let Some(connection) = number else { return };
                let Some(known) = self.punches.get_mut(key) else { return };
                known.offer = offer;
                let (mapping, candidates) = (known.parts[0].mapping, known.parts[0].candidates.clone());
                let peer = peer_id(proposer);
                // After the connection itself, which may be told in this very moment.
                self.say_now(answerer, Event::PunchOffered { offer, connection, peer, mapping, candidates });
            }
            ANSWER => {
                let (answer, kinfolk, transport, near) = (&known.parts[1], known.kinfolk, known.transport, known.near);
                let candidates = answer.candidates.clone();
                let (mapping, theirs) = (answer.mapping.filter(|_| kinfolk), answer.role);
                let Some(command) = known.parts[0].command.filter(|_| !known.parts[0].over) else { return };
                let fits = |address: &&Address| {
                    address.transport() == Some(transport) && (near || address.scope().is_some_and(Scope::is_global))
                };
                let machine = &self.machines[proposer as usize];
                let others = candidates.iter().filter(fits).filter(|address| !machine.is_own(address));
                let targets: Vec<Address> = others.cloned().collect();
                if let Some(known) = self.punches.get_mut(key) {
                    known.parts[0].targets = targets;
                    known.parts[0].role = match theirs {
                        PunchRole::Dial => PunchRole::Accept,
                        PunchRole::Accept => PunchRole::Dial,
                    };
                }
                self.tell(proposer, Event::PunchAnswered { punch: command, mapping, candidates });
                self.proposer_goes(key, conn);
            }
            SIGNAL => self.begin_part(key, 1),
            DECLINE => self.fail_part(key, 0, PunchError::Declined),
            _ => {}
        }
    }

    fn proposer_goes(&mut self, key: Key, conn: Key) {
        let Some(known) = self.punches.get(key) else { return };
        let (kinfolk, transport, role) = (known.kinfolk, known.transport, known.parts[0].role);
        let rtt = self.conns.get(conn).map_or(0, |conn| conn.rtt);
        let side = self.conns.get(conn).map_or(0, |one| one.side_of(known.parts[0].node));
        let node = known.parts[0].node;
        let signals = !kinfolk || (transport == Transport::Tcp && role == PunchRole::Dial);
        let first = kinfolk || (transport == Transport::Quic && role == PunchRole::Accept);
        if first {
            self.begin_part(key, 0);
        }
        if signals {
            self.send(conn, side, Body::Punch(key, SIGNAL));
        }
        if !first {
            // Both packets must cross.
            self.queue.push(self.now + rtt / 2, node, What::Punch(key, PROPOSER_BEGINS));
        }
    }

    /// The core takes a proposal up.
    pub(super) fn answer_punch(&mut self, node: u32, command: CommandId, taken: &Taken<'_>) {
        let Some(key) = self.offered(node, taken.offer) else {
            return self.say_now(node, Event::Refused { command, refusal: Refusal::Gone });
        };
        let Some(known) = self.punches.get_mut(key) else { return };
        known.transport = taken.transport;
        let part = &mut known.parts[1];
        part.command = Some(command);
        part.role = taken.role;
        part.mapping = Some(taken.mapping);
        part.candidates = taken.candidates.to_vec();
        let fits = |address: &&Address| address.transport() == Some(taken.transport);
        part.targets = taken.targets.iter().filter(fits).cloned().collect();
        let (conn, kinfolk) = (known.conn, known.kinfolk);
        let quic = taken.transport == Transport::Quic;
        let first =
            if kinfolk { quic || taken.role == PunchRole::Dial } else { quic && taken.role == PunchRole::Accept };
        if first {
            self.begin_part(key, 1);
        }
        let side = self.conns.get(conn).map_or(1, |conn| conn.side_of(node));
        self.send(conn, side, Body::Punch(key, ANSWER));
    }

    pub(super) fn refuse_punch(&mut self, node: u32, command: CommandId, offer: OfferId) {
        let Some(key) = self.offered(node, offer) else {
            return self.say_now(node, Event::Refused { command, refusal: Refusal::Gone });
        };
        let Some(known) = self.punches.get_mut(key) else { return };
        known.parts[1].over = true;
        let conn = known.conn;
        let side = self.conns.get(conn).map_or(1, |conn| conn.side_of(node));
        self.send(conn, side, Body::Punch(key, DECLINE));
    }

    pub(super) fn cancel_punch(&mut self, node: u32, punch: CommandId) {
        let keys = self.machines[node as usize].punches.clone();
        for key in keys {
            if let Some(known) = self.punches.get_mut(key) {
                let mut parts = known.parts.iter_mut();
                if let Some(part) = parts.find(|part| part.node == node && part.command == Some(punch)) {
                    part.over = true;
                }
            }
            self.drop_if_over(key);
        }
    }

    fn offered(&self, node: u32, offer: OfferId) -> Option<Key> {
        let mut keys = self.machines[node as usize].punches.iter().copied();
        keys.find(|key| self.punches.get(*key).is_some_and(|known| known.offer == offer && known.parts[1].node == node))
    }

    /// A side does its part.
    fn begin_part(&mut self, key: Key, side: usize) {
        let Some(known) = self.punches.get(key) else { return };
        let part = &known.parts[side];
        let (node, transport, targets) = (part.node, known.transport, part.targets.clone());
        let peer = peer_id(known.parts[1 - side].node);
        let Some(command) = part.command.filter(|_| !part.over) else { return };
        if targets.is_empty() {
            return self.fail_part(key, side, PunchError::NoCandidates);
        }
        match part.role {
            PunchRole::Dial => {
                let (far, near): (Vec<Address>, Vec<Address>) =
                    targets.into_iter().partition(|target| target.scope().is_some_and(Scope::is_global));
                // Each of their home's by a dial of its own, as the shell does.
                let mut dials: Vec<&[Address]> = near.chunks(1).collect();
                if !far.is_empty() {
                    dials.insert(0, &far);
                }
                if let Some(known) = self.punches.get_mut(key) {
                    known.parts[side].dials = dials.len();
                }
                for targets in dials {
                    self.dial(node, Asker::Punch(key, command), Some(peer), targets);
                }
            }
            PunchRole::Accept => {
                for target in &targets {
                    let (Some(ip), Some(port)) = (target.host_ip(), target.port()) else { continue };
                    let Some(local) = self.machines[node as usize].listens(transport, ip.is_ipv6()) else { continue };
                    self.open_hole(node, transport, local, SocketAddr::new(ip, port), key);
                }
                let patience = if transport == Transport::Quic { QUIC } else { TCP };
                self.queue.push(self.now + patience, node, What::Punch(key, side as u8));
            }
        }
    }

    /// A timer of a try.
    pub(super) fn punch_step(&mut self, key: Key, step: u8) {
        if step == PROPOSER_BEGINS {
            self.begin_part(key, 0);
        } else {
            self.fail_part(key, usize::from(step), PunchError::Dial(DialError::TimedOut));
        }
    }

    fn fail_part(&mut self, key: Key, side: usize, error: PunchError) {
        let Some(known) = self.punches.get_mut(key) else { return };
        let part = &mut known.parts[side];
        if !std::mem::replace(&mut part.over, true)
            && let Some(punch) = part.command
        {
            let node = part.node;
            self.say_now(node, Event::PunchFailed { punch, error });
        }
        self.drop_if_over(key);
    }

    pub(super) fn punch_dial_failed(&mut self, key: Key, command: CommandId, error: DialError) {
        let Some(known) = self.punches.get(key) else { return };
        let Some(side) = known.parts.iter().position(|part| part.command == Some(command)) else { return };
        let Some(known) = self.punches.get_mut(key) else { return };
        known.parts[side].dials = known.parts[side].dials.saturating_sub(1);
        if known.parts[side].dials == 0 {
            self.fail_part(key, side, PunchError::Dial(error));
        }
    }

    /// What the other side's connection comes from.
    pub(super) fn punch_origin(&self, key: Key, node: u32) -> Origin {
        let part = self.punches.get(key).and_then(|known| known.parts.iter().find(|part| part.node == node));
        part.filter(|part| !part.over).and_then(|part| part.command).map_or(Origin::Inbound, Origin::Punch)
    }

    /// A direct connection came of it.
    pub(super) fn punch_won(&mut self, key: Key) {
        self.counts.punched += 1;
        if let Some(known) = self.punches.get_mut(key) {
            known.parts.iter_mut().for_each(|part| part.over = true);
        }
        self.drop_if_over(key);
    }

    fn drop_if_over(&mut self, key: Key) {
        let Some(known) = self.punches.get(key) else { return };
        // An answerer that was never asked has nothing to end.
        let over = |part: &Part| part.over || part.command.is_none();
        if known.parts[0].over && over(&known.parts[1]) {
            let nodes = [known.parts[0].node, known.parts[1].node];
            self.punches.remove(key);
            for node in nodes {
                self.machines[node as usize].punches.retain(|other| *other != key);
            }
        }
    }

    /// A circuit will stand after this long.
    pub(super) fn open_circuit(&mut self, dial: Key, at: u8, through: Through, took: Moment) {
        if self.set_through(dial, at, through)
            && let Some((node, ..)) = self.dial_of(dial)
        {
            self.queue.push(self.now + took, node, What::Shaken(dial, at));
        }
    }
}
