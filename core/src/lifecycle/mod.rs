//! `PeerLifecycle`: who is there, in which state, when to dial, keep and drop.
//!
//! Owner of the peer table and the only dialler. What is told of a peer is written down at once; everything that follows
//! from it (its state, its place in the queue of dials, its next deadline, what is overdue) is derived anew by
//! `settle` whenever the peer is touched, so there is no timer to forget and no order of calls to know.

mod asks;
mod connections;
mod dialer;
mod dialing;
mod discovery;
mod reading;
mod relaying;
mod settle;
mod state;
mod trimming;

pub(crate) use asks::Asks;
pub(crate) use connections::SHORT_LIVED;
pub(crate) use dialer::{Class, Dialer};
pub(crate) use discovery::is_believable;
pub(crate) use settle::is_dialable;
pub use state::State;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use crate::{
    cx::{Cx, Signal},
    peers::{Connection, Known, Peer, PeerTable, RelayUse, Slot},
    vocabulary::{
        Action, CloseCause, CommandId, ConnectionId, DialError, Event, LifecycleConfig, Notice, PeerId, PinnedPeer,
        Reason, Scope, Source, StoredAddress, StoredPeer, Time,
    },
};

/// The user is told of a copied identity this often.
const OWN_IDENTITY: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct PeerLifecycle {
    pub(crate) peers: PeerTable,
    /// Whose connection a number is.
    connections: BTreeMap<ConnectionId, Slot>,
    /// Peers with a connection that is not about to be closed.
    connected: BTreeSet<Slot>,
    pinned: BTreeSet<Slot>,
    /// Pinned peers that are not directly connected, though nobody has said so.
    #[cfg_attr(feature = "serde", serde(default))]
    apart: BTreeSet<Slot>,
    members: BTreeSet<Slot>,
    /// Peers that are known to relay.
    relays: BTreeSet<Slot>,
    pub(crate) dialer: Dialer,
    asks: Asks,
    /// Closes under way: what to expect when the shell can't.
    closing: BTreeMap<CommandId, ConnectionId>,
    /// Nobody is there: every peer is worth a dial.
    isolated_since: Option<Time>,
    /// When the user was last told that our identity is in use elsewhere; `Time::ZERO` for never.
    own_identity_told: Time,
    /// Peers whose way leads through a relay that is being dialled: a circuit through it would fail now.
    awaiting_relay: BTreeSet<Slot>,
    /// Relays that keep a place for us, and how many are wanted: why relays are dialled.
    relays_held_and_wanted: (u32, u32),
    /// The relay that sees us by both transports, if no other does: only so others learn where to punch by either.
    witness: Option<Slot>,
    /// Whose turn it is next when isolation overrides back-offs.
    next_override: Slot,
    /// When the first connected peer's grace is over; earlier, if that one is gone.
    #[cfg_attr(feature = "serde", serde(default))]
    trim_at: Time,
}

impl PeerLifecycle {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            peers: PeerTable::new(seed),
            connections: BTreeMap::new(),
            connected: BTreeSet::new(),
            pinned: BTreeSet::new(),
            apart: BTreeSet::new(),
            members: BTreeSet::new(),
            relays: BTreeSet::new(),
            dialer: Dialer::default(),
            asks: Asks::default(),
            closing: BTreeMap::new(),
            isolated_since: None,
            own_identity_told: Time::ZERO,
            awaiting_relay: BTreeSet::new(),
            relays_held_and_wanted: (0, 0),
            witness: None,
            next_override: Slot::FIRST,
            trim_at: Time::MAX,
        }
    }

    pub(crate) fn absorb(&mut self, cx: &mut Cx<'_>, event: &Event) {
        match event {
            Event::Found { source, peer, addresses, cut } => {
                self.learn(cx, *source, *peer, addresses, *cut);
            }
            Event::Lost { source, peer, addresses } => self.unlearn(cx, *source, peer, addresses),
            Event::StoreLoaded { peers, nat: _, last: _ } => {
                for stored in peers {
                    self.recall(cx, stored);
                }
            }
            Event::OwnIdentitySeen { address } => {
                if self.own_identity_told + OWN_IDENTITY <= cx.now || self.own_identity_told == Time::ZERO {
                    self.own_identity_told = cx.now;
                    cx.tell(Notice::OwnIdentitySeen { address: address.clone() }, Reason::SeenElsewhere);
                }
            }
            Event::Connected { connection, peer, direction, address, origin, took: _ } => {
                self.connected(cx, *connection, *peer, *direction, address, *origin);
            }
            Event::Disconnected { connection, peer: _, cause } => self.disconnected(cx, *connection, cause),
            Event::DialFailed { dial, failures, error } => self.dial_failed(cx, *dial, failures, error),
            Event::DialHeld { held, asker, peer } => self.dial_held(cx, *held, *asker, *peer),
            Event::HeldFailed { held, error: _ } => {
                self.dialer.unhold(*held);
            }
            Event::Identified { connection, peer: _, identity } => self.identified(cx, *connection, identity),
            Event::Pinged { connection, peer: _, result } => self.pinged(cx, *connection, result),
            Event::Asked { request, ask } => self.asked(cx, *request, ask),
            Event::Interfaces(_) => {
                if cx.here.left {
                    self.leave(cx);
                }
                self.rearm(cx);
            }
            Event::Resumed { asleep } => self.resumed(cx, *asleep),
            Event::Refused { command, refusal: _ } => self.refused(cx, *command),
            Event::CircuitLimited { connection, limit } => self.limited(cx, *connection, *limit),
            Event::CircuitUsed { connection, bytes } => self.used(cx, *connection, *bytes),
            Event::Serving { peer, reserved, circuits: _ } => {
                if let Some(slot) = self.peers.find(peer) {
                    self.peers.at_mut(slot).served = *reserved;
                    self.note_grace(slot);
                }
            }
            Event::Routed { peer, present } => {
                if let Some(slot) = self.peers.find(peer) {
                    self.peers.at_mut(slot).routed = *present;
                }
            }
            Event::Wake
            | Event::Probed { .. }
            | Event::Reserved { .. }
            | Event::ReservedAt { .. }
            | Event::ReservationEnded { .. }
            | Event::PunchOffered { .. }
            | Event::PunchAnswered { .. }
            | Event::PunchFailed { .. }
            | Event::Gateway { .. }
            | Event::PortMapped { .. }
            | Event::PortUnmapped { .. }
            | Event::Started(_)
            | Event::Configured(_)
            | Event::WallClock { .. }
            | Event::Listening { .. }
            | Event::ListenAddressGone { .. }
            | Event::ListenFailed { .. }
            | Event::InboundFailed { .. }
            | Event::IdentifyFailed { .. }
            | Event::Candidate { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::SyncHeads { .. }
            | Event::SyncTold { .. }
            | Event::SyncFetched { .. }
            | Event::SyncFailed { .. }
            | Event::SyncPressure { .. }
            | Event::SignalFound { .. }
            | Event::SignalPublished { .. }
            | Event::SignalFailed { .. }
            | Event::QueryFound { .. }
            | Event::QueryEnded { .. } => {}
        }
    }

    /// Takes over the pinned peers of the settings.
    pub(crate) fn configure(&mut self, cx: &mut Cx<'_>) {
        self.dialer.stir();
        self.configure_relays(cx);
        for slot in self.peers.slots() {
            let peer = self.peers.at_mut(slot);
            if peer.pinned_by_settings && !cx.config.pinned.iter().any(|pinned| pinned.peer == peer.id) {
                peer.pinned_by_settings = false;
                peer.pinned = false;
                peer.book.untold_all(Source::Configured, &[]);
                self.settle(cx, slot);
            }
        }
        for PinnedPeer { peer, addresses } in &cx.config.pinned {
            if let Some(slot) = self.admit(cx, *peer, Source::Configured) {
                let known = self.peers.at_mut(slot);
                known.pinned = true;
                known.pinned_by_settings = true;
                self.learn(cx, Source::Configured, *peer, addresses, 0);
                self.settle(cx, slot);
            }
        }
    }

    /// Everything that is due. What a late call finds overdue is done once, not as often as it was missed.
    pub(crate) fn step(&mut self, cx: &mut Cx<'_>) {
        while let Some((at, slot)) = self.peers.next_timer() {
            if at > cx.now {
                break;
            }
            self.settle(cx, slot);
        }
        while let Some(dial) = self.dialer.overdue_dial(cx.now, &cx.config.lifecycle) {
            self.dial_failed(cx, dial, &[], &DialError::TimedOut);
        }
        while let Some(held) = self.dialer.overdue_held(cx.now, &cx.config.lifecycle) {
            self.refuse_held(cx, held, Reason::TimedOut);
        }
        self.expire_asks(cx);
    }

    pub(crate) fn deadline(&self, config: &LifecycleConfig) -> Option<Time> {
        let timer = self.peers.next_timer().map(|(at, _)| at);
        let dials = self.dialer.deadline(config);
        timer.into_iter().chain(dials).chain(self.asks.deadline()).chain(self.next_trim(config)).min()
    }

    /// The slot of a peer that is known or, if there is room, known from now on.
    pub(crate) fn admit(&mut self, cx: &mut Cx<'_>, peer: PeerId, source: Source) -> Option<Slot> {
        if peer == cx.local {
            return None;
        }
        if let Some(slot) = self.peers.find(&peer) {
            return Some(slot);
        }
        if self.peers.len() >= cx.config.lifecycle.max_peers && !self.evict(cx, source) {
            return None;
        }
        let slot = self.peers.insert(peer, cx.now);
        cx.signal(Signal::Known);
        cx.tell(Notice::PeerDiscovered { peer, source }, Reason::FoundBy(source));
        Some(slot)
    }

    /// Makes room by dropping whoever is worth least: somebody that nobody wants to reach, before somebody who was here
    /// or may be dialled. Talk about peers pushes out only talk about others.
    fn evict(&mut self, cx: &mut Cx<'_>, source: Source) -> bool {
        let idle = |peer: &Peer| !peer.is_kept() && peer.connections.is_empty() && peer.dials.is_empty();
        let talk = |slot: &Slot| {
            let peer = self.peers.at(*slot);
            idle(peer) && !peer.ever_connected && !peer.is_shunned(cx.now) && !self.is_wanted(cx.now, peer)
        };
        let spare = |slot: &Slot| idle(self.peers.at(*slot)) && !self.peers.at(*slot).is_shunned(cx.now);
        // The rarely looked at first: they are the ones to which nothing happens.
        let mut found = self.peers.by_timer_latest().find(talk);
        if found.is_none() && source != Source::Kademlia {
            found = self.peers.by_timer_latest().find(spare);
        }
        match found {
            Some(slot) => {
                self.drop_peer(cx, slot, Reason::TableFull);
                true
            }
            None => false,
        }
    }

    pub(crate) fn drop_peer(&mut self, cx: &mut Cx<'_>, slot: Slot, reason: Reason) {
        let peer = self.peers.remove(slot);
        if let Some((class, since)) = peer.queued {
            self.dialer.dequeue(class, since, dialer::Job::Peer(slot));
        }
        let Self { connected, pinned, apart, members, relays, awaiting_relay, .. } = self;
        for set in [connected, pinned, apart, members, relays, awaiting_relay] {
            set.remove(&slot);
        }
        if peer.routed {
            cx.command(Action::Unroute { peer: peer.id }, reason.clone());
        }
        if peer.denied {
            cx.command(Action::Admit { peer: peer.id }, reason.clone());
        }
        cx.tell(Notice::PeerExpired { peer: peer.id }, reason);
        cx.signal(Signal::Removed(peer.id));
    }

    /// Connections over a network that this machine has left are dead, and would not show it for a minute. Those to
    /// relays in use are looked after by themselves: QUIC may have survived.
    fn leave(&mut self, cx: &mut Cx<'_>) {
        for slot in self.connected.clone() {
            let peer = self.peers.at(slot);
            if peer.relay == RelayUse::Held {
                continue;
            }
            let dead = |connection: &&Connection| {
                connection.address.host_ip().is_some_and(|ip| !Scope::of(ip).is_loopback() && !cx.here.is_near(ip))
            };
            let dead: Vec<ConnectionId> = peer.direct().filter(dead).map(|connection| connection.id).collect();
            for connection in dead {
                self.close(cx, slot, connection, Reason::NetworkChanged);
            }
        }
    }

    /// Everything may be different now: no back-off counts.
    fn rearm(&mut self, cx: &mut Cx<'_>) {
        self.dialer.blackholes.forget();
        for slot in self.peers.slots() {
            let peer = self.peers.at_mut(slot);
            peer.book.forgive(cx.now);
            peer.hold_until = peer.hold_until.min(cx.now);
            self.settle(cx, slot);
        }
    }

    pub(crate) fn set_isolated(&mut self, since: Option<Time>) {
        self.isolated_since = since;
    }

    /// Isolated: the next `count` peers are dialled whatever their back-offs say, in turn.
    pub(crate) fn override_backoffs(&mut self, cx: &mut Cx<'_>, count: usize) {
        let waits = |peer: &Peer| !peer.book.is_empty() && !peer.is_connected() && self.is_wanted(cx.now, peer);
        let from = |start: Slot| self.peers.iter_from(start).filter(|(_, peer)| waits(peer)).map(|(slot, _)| slot);
        let mut turn: Vec<Slot> = from(self.next_override).take(count).collect();
        let again = from(Slot::FIRST).take_while(|slot| *slot < self.next_override).take(count - turn.len());
        turn.extend(again);
        self.next_override = turn.last().map_or(Slot::FIRST, |slot| slot.next());
        for slot in turn {
            let peer = self.peers.at_mut(slot);
            peer.book.override_waits(cx.now);
            peer.hold_until = peer.hold_until.min(cx.now);
            self.settle(cx, slot);
        }
    }

    fn refused(&mut self, cx: &mut Cx<'_>, command: CommandId) {
        if let Some(connection) = self.closing.remove(&command) {
            self.disconnected(cx, connection, &CloseCause::Ours);
        } else if self.dialer.dial(command).is_some() {
            self.dial_failed(cx, command, &[], &DialError::Cancelled);
        }
    }

    /// Has the store remember what matters of a peer across restarts.
    fn remember(&mut self, cx: &mut Cx<'_>, slot: Slot, reason: Reason) {
        let peer = self.peers.at_mut(slot);
        peer.unstored = false;
        let addresses = peer.book.iter().filter(|known| known.proven || known.sources.contains(Source::Manual));
        let addresses = addresses
            .map(|known| StoredAddress {
                address: known.address.clone(),
                source: said_by(known),
                proven: known.proven,
                last_success: match known.success {
                    Time::ZERO => known.success_before,
                    success => u32::try_from(cx.here.unix_time(success)).unwrap_or(u32::MAX),
                },
            })
            .collect();
        let stored = StoredPeer {
            peer: peer.id,
            pinned: peer.pinned && !peer.pinned_by_settings,
            blocked: peer.blocked,
            relay: peer.relay == RelayUse::Held || peer.relay_known,
            record: peer.record,
            addresses,
        };
        cx.command(Action::Remember(stored), reason);
    }
}

/// Who says that the address is right: people, or whoever else has said so in this run.
fn said_by(known: &Known) -> Source {
    if known.sources.contains(Source::Manual) {
        return Source::Manual;
    }
    known.sources.iter().find(|source| *source != Source::Store).unwrap_or(Source::Store)
}
