//! Connections as they come, live and go.

use alloc::{borrow::ToOwned, boxed::Box, collections::BTreeSet, string::String, vec::Vec};
use core::time::Duration;

use super::{
    PeerLifecycle,
    dialer::{Dial, Job},
    dialing::JobOutcome,
    discovery::is_believable,
};
use crate::{
    cx::{Cx, Signal},
    jitter::{self, Purpose},
    peers::{Connection, Limit, Peer, Profile, RelayUse, Slot},
    view::Capabilities,
    vocabulary::{
        Action, Address, Answer, AskError, Asker, CircuitLimit, CloseCause, ConnectionId, DialError, Direction,
        Identity, Notice, Origin, Path, PeerId, PingError, Protocols, Reason, Scope, Source, Time,
    },
};

/// A connection that ends sooner counts as a failure of its address: somebody who accepts and drops is no better than
/// somebody who does not answer. Longer than the grace that trimming gives.
pub(crate) const SHORT_LIVED: Duration = Duration::from_secs(60);
/// Both sides of a lost connection come back within this, not at the same moment.
const REDIAL_WITHIN: Duration = Duration::from_secs(1);
/// A peer that closes its last connection with us has its reasons, such as too many others: unless it is kept or near, it
/// is not dialled for this long, and each time for twice as long.
const TURNED_AWAY: Duration = Duration::from_secs(60);
const TURNED_AWAY_MAX: Duration = Duration::from_secs(3_600);
/// Whoever has kept a connection for this long has had room for us.
const WELCOME: Duration = Duration::from_secs(600);
/// Connections to one peer; any more are closed at once.
const MAX_CONNECTIONS: usize = 8;
/// After a sleep this long the other side has given the connection up.
const LONG_SLEEP: Duration = Duration::from_secs(60);
/// A node that does not serve the hash table may do so after this.
const NO_TABLE: Duration = Duration::from_secs(3_600);
/// A stranger of another network is left alone for this long.
const OTHER_NETWORK: Duration = Duration::from_secs(3_600);

impl PeerLifecycle {
    pub(super) fn connected(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConnectionId,
        peer: PeerId,
        direction: Direction,
        address: &Address,
        origin: Origin,
    ) {
        if self.connections.contains_key(&id) {
            return;
        }
        let asker = match origin {
            Origin::Held(held) => self.dialer.unhold(held).map(|held| held.asker),
            Origin::Inbound | Origin::Dial(_) | Origin::Punch(_) | Origin::Probe(_) => None,
        };
        let dial = match origin {
            Origin::Dial(command) => self.dialer.ended(command).map(|dial| (command, dial)),
            Origin::Inbound | Origin::Held(_) | Origin::Punch(_) | Origin::Probe(_) => None,
        };
        let for_lookup = asker == Some(Asker::Kademlia);
        let for_probe = asker == Some(Asker::Autonat) || matches!(origin, Origin::Probe(_));
        if let Some((command, Dial { job: Job::Peer(slot), .. })) = &dial {
            self.peers.at_mut(*slot).dials.retain(|other| other.id != *command);
        }
        if direction == Direction::Outbound {
            self.dialer.blackholes.succeeded(address);
        }
        let source = match (&dial, origin) {
            (Some((_, dial)), _) if matches!(dial.job, Job::Target(_)) => Source::Configured,
            (Some(_), _) => Source::Manual,
            (None, Origin::Held(_)) if for_lookup => Source::Kademlia,
            (None, Origin::Held(_)) => Source::Manual,
            (None, Origin::Inbound | Origin::Dial(_) | Origin::Punch(_) | Origin::Probe(_)) => Source::Inbound,
        };
        let Some(slot) = self.admit(cx, peer, source) else {
            let own = peer == cx.local;
            let reason = if own { Reason::OwnIdentity } else { Reason::TableFull };
            cx.command(Action::Close { connection: id, peer }, reason);
            if let Some((_, dial)) = dial {
                let full = AskError::Limit("the peer table is full".to_owned());
                let error = if own { AskError::OwnIdentity } else { full };
                self.settle_job(cx, dial.job, JobOutcome::Unwanted(error));
            }
            return;
        };

        self.connections.insert(id, slot);
        let now = cx.now;
        let known = self.peers.at_mut(slot);
        let before = known.path();
        // Most peers have one, and room for four would stay.
        known.connections.reserve_exact(1);
        known.connections.push(Connection {
            id,
            direction,
            address: address.clone(),
            since: now,
            alive: now,
            rtt: None,
            pongs: 0,
            closing: None,
            for_lookup,
            for_probe,
            limit: None,
        });
        let unasked = known.asks == 0 && !matches!(&dial, Some((_, Dial { job: Job::Ask(_), .. })));
        let crowded = known.connections.len() > MAX_CONNECTIONS;
        let unwanted = if crowded {
            let kept = known.best().map_or(id, |best| best.id);
            Some((Reason::Duplicate { kept }, AskError::Limit("connections to one peer".to_owned())))
        } else if known.blocked {
            Some((Reason::Blocked, AskError::Blocked))
        } else if known.denied && direction == Direction::Inbound {
            Some((Reason::TurnedAway, AskError::Blocked))
        } else if known.held_off && direction == Direction::Outbound && unasked {
            Some((Reason::Asked, AskError::UnknownPeer))
        } else {
            None
        };
        if let Some((reason, error)) = unwanted {
            self.close(cx, slot, id, reason);
            if let Some((_, dial)) = dial {
                self.settle_job(cx, dial.job, JobOutcome::Unwanted(error));
            }
            self.settle(cx, slot);
            return;
        }
        let reason = match &dial {
            Some((_, dial)) => dial.reason.clone(),
            None if for_lookup => Reason::LookUp,
            None => Reason::ConnectionMade,
        };
        self.arrived(cx, slot, id, before, reason);
        if let Some((_, dial)) = dial {
            self.proven(cx, slot, address, dial.job);
            self.settle_job(cx, dial.job, JobOutcome::Reached(slot, id));
        }
        self.answer_asks(cx, slot, &Ok(Answer::Connected { peer, connection: id, address: address.clone() }));
        self.settle(cx, slot);
        self.go_on_awaiting(cx);
        self.trim(cx);
    }

    /// Writes down that a connection stands, and says what it means.
    fn arrived(&mut self, cx: &mut Cx<'_>, slot: Slot, id: ConnectionId, before: Option<Path>, reason: Reason) {
        let peer = self.peers.at_mut(slot);
        peer.ever_connected = true;
        peer.last_seen = Some(cx.now);
        if peer.shunned_until > cx.now && !peer.denied {
            // It came to us, or somebody insisted: a new chance.
            peer.shunned_until = cx.now;
        }
        let (who, after) = (peer.id, peer.path());
        let Some(connection) = peer.connection_mut(id) else { return };
        let (path, direction, address) = (connection.path(), connection.direction, connection.address.clone());
        match before {
            None => {
                cx.tell(Notice::PeerConnected { peer: who, path, direction, address }, reason);
                cx.signal(Signal::Up(slot));
            }
            Some(from) => {
                if let Some(to) = after.filter(|to| *to != from) {
                    cx.tell(Notice::PathChanged { peer: who, from, to }, reason);
                }
            }
        }
    }

    /// A dial of ours led to the peer at this address.
    fn proven(&mut self, cx: &mut Cx<'_>, slot: Slot, address: &Address, job: Job) {
        let peer = self.peers.at_mut(slot);
        let source = match job {
            Job::Peer(_) | Job::Held(_) => None,
            Job::Target(_) => Some(Source::Configured),
            Job::Ask(_) => Some(Source::Manual),
        };
        if let Some(source) = source {
            peer.manual |= source == Source::Manual;
        }
        if let Some(source) = source.filter(|source| is_believable(cx.here, *source, address)) {
            peer.book.told(source, address, cx.now, &cx.config.lifecycle, |_, _| true);
        }
        let news = peer.book.get_mut(address).map(|known| {
            let news = !known.proven;
            known.succeeded(cx.now);
            news
        });
        peer.unstored |= news == Some(true);
        if source == Some(Source::Manual) {
            self.remember(cx, slot, Reason::Asked);
        }
    }

    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, id: ConnectionId, cause: &CloseCause) {
        let Some(&slot) = self.connections.get(&id) else { return };
        let peer = self.peers.at(slot);
        let (before, was_up) = (peer.path(), peer.is_connected());
        let Some(connection) = self.lost(cx, slot, id) else { return };
        let peer = self.peers.at_mut(slot);
        let ours = connection.closing.is_some() || *cause == CloseCause::Ours;
        let short = cx.now.since(connection.since) < SHORT_LIVED;
        peer.last_seen = Some(cx.now);

        let arrival = peer.arrival;
        if let Some(known) = peer.book.get_mut(&connection.address) {
            if !short {
                known.lasted(cx.now);
            } else if !ours && connection.direction == Direction::Outbound {
                let error = DialError::Other(String::from("the connection ended soon"));
                known.failed(cx.now, error, &cx.config.lifecycle, cx.seed, arrival);
            }
        }
        let near = peer.book.has_source(Source::Mdns);
        if !ours && *cause == CloseCause::Remote && peer.connections.is_empty() && !peer.is_kept() && !near {
            if cx.now.since(connection.since) >= WELCOME {
                peer.turned_away = 0;
            }
            let wait = TURNED_AWAY.saturating_mul(1 << peer.turned_away.min(12)).min(TURNED_AWAY_MAX);
            peer.turned_away = peer.turned_away.saturating_add(1);
            let draw = jitter::draw(cx.seed, Purpose::Redial, arrival, cx.now.as_nanos());
            peer.hold_until = peer.hold_until.max(cx.now + jitter::vary(wait, draw));
        }
        let who = peer.id;
        match (before, peer.path()) {
            // Told when it was asked to close, if it was the last one.
            (None, None) if !was_up => {}
            (_, None) => {
                cx.tell(Notice::PeerDisconnected { peer: who, cause: cause.clone() }, Reason::ConnectionLost);
            }
            (Some(from), Some(to)) if from != to => {
                cx.tell(Notice::PathChanged { peer: who, from, to }, Reason::ConnectionLost);
            }
            (_, Some(_)) => {}
        }
        // While others stand it has only ended what it no longer needs: a circuit, or one of two.
        let left = self.peers.at(slot).connections.is_empty();
        if !ours && left && connection.direction == Direction::Inbound {
            self.count_drop(cx, slot, connection.since);
        }
        self.settle(cx, slot);
    }

    /// Strikes a connection from the books.
    pub(super) fn lost(&mut self, cx: &Cx<'_>, slot: Slot, id: ConnectionId) -> Option<Connection> {
        self.connections.remove(&id);
        self.closing.retain(|_, connection| *connection != id);
        let peer = self.peers.at_mut(slot);
        let at = peer.connections.iter().position(|connection| connection.id == id)?;
        let connection = peer.connections.remove(at);
        if peer.connections.is_empty() {
            peer.profile = None;
            peer.fetching = 0;
            if let Some(sync) = &mut peer.sync {
                sync.pending = 0;
            }
            let draw = jitter::draw(cx.seed, Purpose::Redial, peer.arrival, id.0);
            peer.hold_until = peer.hold_until.max(cx.now + jitter::within(REDIAL_WITHIN, draw));
        }
        Some(connection)
    }

    /// A peer that connects and drops in a loop is turned away for a while.
    fn count_drop(&mut self, cx: &mut Cx<'_>, slot: Slot, since: Time) {
        let config = &cx.config.lifecycle;
        if cx.now.since(since) > config.flap_window {
            return;
        }
        let peer = self.peers.at_mut(slot);
        if cx.now.since(peer.drops_since) > config.flap_window {
            peer.drops = 0;
            peer.drops_since = cx.now;
        }
        peer.drops = peer.drops.saturating_add(1);
        if u32::from(peer.drops) < config.flap_limit || peer.is_kept() {
            return;
        }
        let closes = u32::from(core::mem::take(&mut peer.drops));
        peer.shunned_until = cx.now + config.flap_ban;
        self.deny(cx, slot, Reason::Flapping { closes });
        self.distrust(cx, slot, Reason::Flapping { closes });
    }

    pub(super) fn identified(&mut self, cx: &mut Cx<'_>, id: ConnectionId, identity: &Identity) {
        let Some(&slot) = self.connections.get(&id) else { return };
        let mut capabilities = capabilities_of(identity, &cx.config.protocols);
        let peer = self.peers.at_mut(slot);
        // Servers that probe offer it only on connections that we have dialled: by which they dial back they name it not.
        let dialled = |one: &Connection| one.direction == Direction::Outbound && !one.address.is_relayed();
        let elsewhere = peer.connections.iter().any(|one| one.id == id && !dialled(one));
        if elsewhere && peer.standing().any(dialled) {
            capabilities =
                capabilities.with(peer.capabilities().only(Capabilities::PROBE.with(Capabilities::PROBE_V1)));
        }
        if let Some(connection) = peer.connection_mut(id) {
            connection.alive = cx.now;
        }
        let who = peer.id;
        let first = peer.profile.is_none();
        let news = peer
            .profile
            .as_ref()
            .is_none_or(|profile| profile.capabilities != capabilities || profile.agent != identity.agent);
        let serves_table = capabilities.contains(Capabilities::KADEMLIA);
        peer.no_table_until = if serves_table { Time::ZERO } else { cx.now + NO_TABLE };
        if news {
            let agent = identity.agent.clone();
            peer.profile = Some(Box::new(Profile { agent: agent.clone(), capabilities }));
            let protocols = identity.protocols.clone();
            let reason = if first { Reason::Introduced } else { Reason::StateChanged };
            cx.tell(Notice::PeerIdentified { peer: who, agent, protocols }, reason);
        }
        let believed: Vec<Address> = identity
            .addresses
            .iter()
            .filter(|address| is_believable(cx.here, Source::Identify, address))
            .cloned()
            .collect();
        self.peers.at_mut(slot).book.untold_all(Source::Identify, &believed);
        self.learn(cx, Source::Identify, who, &believed, identity.cut);

        let peer = self.peers.at(slot);
        let ours = capabilities.contains(Capabilities::NETWORK);
        let ours_to_end = |one: &Connection| one.direction == Direction::Outbound && !one.for_probe;
        let dialled = peer.standing().any(ours_to_end);
        if !ours && dialled && !peer.is_kept() && !peer.standing().any(|connection| connection.for_lookup) {
            self.peers.at_mut(slot).shunned_until = cx.now + OTHER_NETWORK;
            self.close_all(cx, slot, &Reason::OtherNetwork);
        } else if ours && peer.unstored {
            self.remember(cx, slot, Reason::ConnectionMade);
        }
        cx.signal(Signal::Identified(slot));
        self.settle(cx, slot);
    }

    pub(super) fn pinged(&mut self, cx: &mut Cx<'_>, id: ConnectionId, result: &Result<Duration, PingError>) {
        let Some(&slot) = self.connections.get(&id) else { return };
        let peer = self.peers.at_mut(slot);
        let Some(connection) = peer.connection_mut(id) else { return };
        match result {
            Ok(rtt) => {
                connection.rtt = Some(*rtt);
                connection.pongs = connection.pongs.saturating_add(1);
                connection.alive = cx.now;
                peer.last_seen = Some(cx.now);
            }
            // It answered, if only to say no.
            Err(PingError::Unsupported) => {
                connection.pongs = connection.pongs.saturating_add(1);
                connection.alive = cx.now;
                peer.last_seen = Some(cx.now);
            }
            Err(PingError::TimedOut | PingError::Other(_)) => {
                self.close(cx, slot, id, Reason::PingsLost);
            }
        }
        self.settle(cx, slot);
    }

    pub(super) fn resumed(&mut self, cx: &mut Cx<'_>, asleep: Duration) {
        if asleep >= LONG_SLEEP {
            for slot in self.connected.clone() {
                self.close_all(cx, slot, &Reason::Resumed);
            }
        }
        self.rearm(cx);
    }

    pub(super) fn limited(&mut self, cx: &mut Cx<'_>, id: ConnectionId, limit: CircuitLimit) {
        let Some(&slot) = self.connections.get(&id) else { return };
        if let Some(connection) = self.peers.at_mut(slot).connection_mut(id).filter(|one| one.address.is_relayed()) {
            connection.limit = Some(Box::new(Limit { limit, used: 0, worn: false }));
            self.settle(cx, slot);
        }
    }

    pub(super) fn used(&mut self, cx: &mut Cx<'_>, id: ConnectionId, bytes: u64) {
        let Some(&slot) = self.connections.get(&id) else { return };
        let peer = self.peers.at_mut(slot);
        let worn_from = u64::from(peer.worn_from(&cx.local));
        if let Some(limit) = peer.connection_mut(id).and_then(|connection| connection.limit.as_mut()) {
            limit.used = bytes;
            limit.worn |= limit.limit.bytes.is_some_and(|all| bytes >= all / 10 * worn_from);
            self.settle(cx, slot);
        }
    }

    /// One side closes what is double: the smaller id, or we alone where the other side is no Kinfolk. It keeps the best
    /// connection, once that has proven itself. Who has a place at a relay knows best which connections it needs, and
    /// closes the others whatever its id.
    pub(super) fn resolve_duplicates(&mut self, cx: &mut Cx<'_>, slot: Slot) {
        let peer = self.peers.at(slot);
        if peer.standing().filter(|connection| !connection.for_probe).count() < 2 {
            return;
        }
        let alone = peer.profile.as_ref().is_some_and(|profile| !profile.agent.starts_with("kinfolk/"));
        let at_a_relay = peer.relay == RelayUse::Held;
        if cx.local > peer.id && !alone && !at_a_relay {
            return;
        }
        let needed = self.connections_of_a_relay(peer);
        let reserved = needed.first().filter(|_| at_a_relay);
        let best = match reserved {
            Some(id) => peer.standing().find(|connection| connection.id == *id),
            None => peer.best(),
        };
        let Some(best) = best.filter(|best| best.is_proven(cx.now, &cx.config.lifecycle)) else { return };
        let (kept, direct) = (best.id, !best.address.is_relayed());
        let others: Vec<(ConnectionId, bool)> = peer
            .standing()
            .filter(|connection| connection.id != kept && !connection.for_probe && !needed.contains(&connection.id))
            .map(|connection| (connection.id, connection.address.is_relayed()))
            .collect();
        for (other, relayed) in others {
            let reason = if direct && relayed { Reason::DirectProven { kept } } else { Reason::Duplicate { kept } };
            self.close(cx, slot, other, reason);
        }
    }

    pub(super) fn close_all(&mut self, cx: &mut Cx<'_>, slot: Slot, reason: &Reason) {
        let standing: Vec<ConnectionId> = self.peers.at(slot).standing().map(|connection| connection.id).collect();
        for connection in standing {
            self.close(cx, slot, connection, reason.clone());
        }
    }

    /// Has a connection closed. From here on it does not count any more.
    pub(super) fn close(&mut self, cx: &mut Cx<'_>, slot: Slot, id: ConnectionId, reason: Reason) {
        let peer = self.peers.at_mut(slot);
        let who = peer.id;
        let Some(connection) = peer.connection_mut(id).filter(|connection| connection.closing.is_none()) else {
            return;
        };
        connection.closing = Some(cx.now);
        let last = !peer.is_connected();
        let command = cx.command(Action::Close { connection: id, peer: who }, reason.clone());
        self.closing.insert(command, id);
        if last && self.connected.contains(&slot) {
            cx.tell(Notice::PeerDisconnected { peer: who, cause: CloseCause::Ours }, reason);
        }
    }

    /// The peers with a connection, for counting.
    pub(crate) fn connected_count(&self) -> u32 {
        self.connected.len() as u32
    }

    pub(crate) fn connected_peers(&self) -> Vec<PeerId> {
        self.connected.iter().map(|slot| self.peers.at(*slot).id).collect()
    }

    /// So many ranges of a peer's logs are under way now.
    pub(crate) fn set_fetching(&mut self, cx: &mut Cx<'_>, peer: &PeerId, fetching: u32) {
        let Some(slot) = self.peers.find(peer) else { return };
        let peer = self.peers.at_mut(slot);
        peer.fetching = if peer.is_connected() { fetching } else { 0 };
        self.settle(cx, slot);
    }

    pub(crate) fn missing_pinned(&self) -> u32 {
        self.missing(&self.pinned)
    }

    pub(crate) fn missing_members(&self) -> u32 {
        self.missing(&self.members)
    }

    /// Whether one of them is here.
    pub(crate) fn has_members(&self) -> bool {
        self.members.intersection(&self.connected).next().is_some()
    }

    /// Whether any connection stays on this machine.
    pub(crate) fn has_loopback(&self) -> bool {
        let local = |connection: &Connection| connection.address.scope().is_some_and(Scope::is_loopback);
        self.connected.iter().any(|slot| self.peers.at(*slot).standing().any(local))
    }

    fn missing(&self, of: &BTreeSet<Slot>) -> u32 {
        of.difference(&self.connected).count() as u32
    }

    pub(crate) fn pinned_peers(&self) -> Vec<PeerId> {
        self.pinned.iter().map(|slot| self.peers.at(*slot).id).collect()
    }

    /// Where the other end of a connection is, and which side began.
    pub(crate) fn connection(&self, id: ConnectionId) -> Option<(&Peer, &Connection)> {
        let peer = self.peers.at(*self.connections.get(&id)?);
        peer.connections.iter().find(|connection| connection.id == id).map(|connection| (peer, connection))
    }
}

/// What a peer can do, by what it speaks.
fn capabilities_of(identity: &Identity, names: &Protocols) -> Capabilities {
    let mut all = Capabilities::default();
    if identity.protocol_version == names.identify {
        all = all.with(Capabilities::NETWORK);
    }
    for protocol in &identity.protocols {
        let one = match protocol.as_str() {
            name if name == names.kademlia => Capabilities::KADEMLIA.with(Capabilities::NETWORK),
            "/libp2p/circuit/relay/0.2.0/hop" => Capabilities::RELAY,
            "/libp2p/circuit/relay/0.2.0/stop" => Capabilities::RELAYED,
            "/libp2p/dcutr" => Capabilities::PUNCH,
            "/libp2p/autonat/2/dial-request" => Capabilities::PROBE,
            "/libp2p/autonat/1.0.0" => Capabilities::PROBE_V1,
            "/ipfs/ping/1.0.0" => Capabilities::PING,
            name if name == names.punch => Capabilities::FAST_PUNCH,
            name if name == names.sync => Capabilities::SYNC,
            _ => continue,
        };
        all = all.with(one);
    }
    all
}
