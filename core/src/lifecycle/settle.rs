//! What follows from a peer's record: state, place in the queue, next deadline, and what is overdue.

use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

use super::{Class, PeerLifecycle, dialer::Job, discovery::is_usable, relaying::is_apart};
use crate::{
    cx::{Cx, Here, Signal},
    peers::{Connection, Dialing, Known, Lane, Peer, RelayUse, Slot},
    view::Capabilities,
    vocabulary::{Action, ConnectionId, LifecycleConfig, Notice, PeerId, Reason, Source, Time},
};

/// A peer for which nothing else is due is looked at this often; of very many one every `REVIEW_ONE`.
const REVIEW: Duration = Duration::from_secs(300);
const REVIEW_ONE: Duration = Duration::from_secs(1);
/// A connection without any sign of life for this long is dead: pings come every 15 to 60 s, with low power every 100 s.
const SILENCE: Duration = Duration::from_secs(120);
/// The shell has this long to close a connection.
const CLOSING: Duration = Duration::from_secs(30);
/// A connection made for a look-up to a stranger is kept this long.
const LOOKUP: Duration = Duration::from_secs(120);
/// A connection made for a probe is kept this long: its nonce is delivered at once.
const PROBE: Duration = Duration::from_secs(15);
/// A relayed dial waits this long for a direct one that is under way (DESIGN: up to 500 ms).
const HEAD_START: Duration = Duration::from_millis(300);

/// Whether a peer is to be dialled.
enum Stance {
    /// It is wanted and may be dialled now.
    Ready(Class),
    /// It is wanted, not before then.
    Waiting(Time),
    /// It is wanted, once the dial to its relay has ended.
    AwaitingRelay,
    /// It is wanted, and there is no way to it.
    Nowhere,
    /// Nothing to do.
    Idle,
}

impl PeerLifecycle {
    /// Does what is due for this peer and derives the rest anew. Bounded by its addresses and connections.
    pub(crate) fn settle(&mut self, cx: &mut Cx<'_>, slot: Slot) {
        self.act(cx, slot);
        if self.expire_if_forgotten(cx, slot) {
            return;
        }
        let (stance, awaits) = self.stance(cx, slot);
        keep(&mut self.awaiting_relay, slot, awaits);
        let peer = self.peers.at_mut(slot);
        if matches!(stance, Stance::Nowhere) && peer.is_kept() && !core::mem::replace(&mut peer.deferred, true) {
            let reason = if peer.book.is_empty() { Reason::NoAddress } else { Reason::NoUsableAddress };
            let peer = peer.id;
            cx.tell(Notice::PeerUnreachable { peer }, reason);
        }
        let config = &cx.config.lifecycle;

        let peer = self.peers.at_mut(slot);
        let state = peer.derived_state();
        if state != peer.state {
            peer.state = state;
            peer.since = cx.now;
        }
        keep(&mut self.pinned, slot, peer.pinned);
        keep(&mut self.apart, slot, is_apart(peer));
        keep(&mut self.members, slot, peer.member);
        keep(&mut self.relays, slot, peer.relay_by_settings || peer.relay_known);
        if peer.is_connected() {
            self.connected.insert(slot);
            self.note_grace(slot);
        } else if self.connected.remove(&slot) {
            let peer = self.peers.at(slot).id;
            cx.signal(Signal::Down(peer));
        }

        let peer = self.peers.at_mut(slot);
        let (queue, mut wake) = match stance {
            Stance::Ready(class) => (Some(class), Time::MAX),
            Stance::Waiting(until) => (None, until),
            Stance::AwaitingRelay | Stance::Nowhere | Stance::Idle => (None, Time::MAX),
        };
        match (peer.queued, queue) {
            (Some((old, _)), Some(new)) if old == new => {}
            (old, new) => {
                peer.queued = new.map(|class| (class, cx.now));
                if let Some((class, since)) = old {
                    self.dialer.dequeue(class, since, Job::Peer(slot));
                }
                if let Some(class) = new {
                    self.dialer.enqueue(class, cx.now, Job::Peer(slot));
                }
            }
        }

        let peer = self.peers.at(slot);
        wake = wake.min(deadline(peer, &cx.local, cx.now, config));
        if wake == Time::MAX {
            wake = cx.now + REVIEW.max(REVIEW_ONE * self.peers.len());
        }
        self.peers.set_timer(slot, wake, cx.now);
    }

    /// What is overdue.
    fn act(&mut self, cx: &mut Cx<'_>, slot: Slot) {
        let (now, config) = (cx.now, &cx.config.lifecycle);
        let peer = self.peers.at_mut(slot);
        let mut book = core::mem::take(&mut peer.book);
        book.expire(now, config, |known| peer.holds_on_to(known));
        peer.book = book;
        if peer.denied && !peer.blocked && !peer.is_shunned(now) {
            peer.denied = false;
            let peer = peer.id;
            cx.command(Action::Admit { peer }, Reason::BanOver);
        }
        let peer = self.peers.at_mut(slot);
        if let Some(sync) = peer.sync.as_mut().filter(|sync| sync.pending > 0 && sync.until <= now) {
            sync.pending = 0;
            let notice = Notice::PeerSynced { peer: peer.id, position: sync.position };
            cx.tell(notice, Reason::TimedOut);
        }
        if self.peers.at(slot).connections.is_empty() {
            return;
        }
        let stuck = |connection: &Connection| connection.closing.is_some_and(|since| since + CLOSING <= now);
        let stuck: Vec<ConnectionId> =
            self.peers.at(slot).connections.iter().filter(|one| stuck(one)).map(|one| one.id).collect();
        for connection in stuck {
            self.lost(cx, slot, connection);
        }

        let worn_from = self.peers.at(slot).worn_from(&cx.local);
        for connection in &mut self.peers.at_mut(slot).connections {
            if connection.wears_at(worn_from).is_some_and(|at| at <= now)
                && let Some(limit) = &mut connection.limit
            {
                limit.worn = true;
            }
        }
        let peer = self.peers.at(slot);
        let first = peer.standing().map(|connection| connection.since).min();
        let unknown = peer.profile.is_none() && !peer.is_kept();
        if unknown && first.is_some_and(|since| since + config.identify_timeout <= now) {
            self.peers.at_mut(slot).shunned_until = now + config.flap_ban;
            self.deny(cx, slot, Reason::NeverIdentified);
            self.close_all(cx, slot, &Reason::NeverIdentified);
            self.distrust(cx, slot, Reason::NeverIdentified);
            return;
        }
        let stranger = !peer.capabilities().contains(Capabilities::NETWORK) && !peer.is_kept();
        let probe_is_over = |connection: &Connection| connection.for_probe && connection.since + PROBE <= now;
        if peer.is_kept() && peer.standing().all(probe_is_over) {
            // It is all there is to somebody who is wanted: it stays for its own sake.
            self.peers.at_mut(slot).connections.iter_mut().for_each(|connection| connection.for_probe = false);
        }
        let peer = self.peers.at(slot);
        let past_its_purpose = |connection: &Connection| {
            probe_is_over(connection) || (stranger && connection.for_lookup && connection.since + LOOKUP <= now)
        };
        let overdue: Vec<(ConnectionId, Reason)> = peer
            .standing()
            .filter_map(|connection| {
                if connection.alive + SILENCE <= now {
                    Some((connection.id, Reason::PingsLost))
                } else if past_its_purpose(connection) {
                    Some((connection.id, Reason::NotNeeded))
                } else {
                    None
                }
            })
            .collect();
        for (connection, reason) in overdue {
            self.close(cx, slot, connection, reason);
        }
        self.resolve_duplicates(cx, slot);
    }

    /// Drops a peer that nobody speaks of and nobody wants; says whether it did.
    fn expire_if_forgotten(&mut self, cx: &mut Cx<'_>, slot: Slot) -> bool {
        let peer = self.peers.at(slot);
        let forgotten = expiry(peer, &cx.config.lifecycle).is_some_and(|at| at <= cx.now);
        if forgotten {
            self.drop_peer(cx, slot, Reason::NoSource);
        }
        forgotten
    }

    /// The stance by both lanes, and whether the peer waits for its relay to be there.
    fn stance(&self, cx: &Cx<'_>, slot: Slot) -> (Stance, bool) {
        let peer = self.peers.at(slot);
        let [direct, relayed] = [Lane::Direct, Lane::Relayed].map(|lane| self.stance_of(cx, peer, lane));
        let awaits = matches!(relayed, Stance::AwaitingRelay);
        let stance = match (direct, relayed) {
            (Stance::Ready(one), Stance::Ready(other)) => Stance::Ready(one.min(other)),
            (Stance::Ready(class), _) | (_, Stance::Ready(class)) => Stance::Ready(class),
            (Stance::Waiting(one), Stance::Waiting(other)) => Stance::Waiting(one.min(other)),
            (Stance::Waiting(at), _) | (_, Stance::Waiting(at)) => Stance::Waiting(at),
            (Stance::AwaitingRelay, _) | (_, Stance::AwaitingRelay) => Stance::AwaitingRelay,
            (Stance::Nowhere, Stance::Nowhere) if !peer.is_connected() => Stance::Nowhere,
            (Stance::Nowhere | Stance::Idle, Stance::Nowhere | Stance::Idle) => Stance::Idle,
        };
        (stance, awaits)
    }

    fn stance_of(&self, cx: &Cx<'_>, peer: &Peer, lane: Lane) -> Stance {
        let Some((class, _)) = self.want(cx.now, peer, lane) else { return Stance::Idle };
        let usable = self.usable(cx, peer, lane);
        let Some(earliest) = usable.map(|known| known.retry_at).min() else { return Stance::Nowhere };
        if lane == Lane::Relayed && self.awaits_relay(cx, peer) {
            return Stance::AwaitingRelay;
        }
        let at = earliest.max(peer.hold_until).max(self.head_start(peer, lane));
        if at <= cx.now { Stance::Ready(class) } else { Stance::Waiting(at) }
    }

    pub(super) fn is_ready(&self, cx: &Cx<'_>, peer: &Peer, lane: Lane) -> bool {
        matches!(self.stance_of(cx, peer, lane), Stance::Ready(_))
    }

    /// The addresses of a lane that could be dialled from here.
    pub(super) fn usable<'a>(&'a self, cx: &Cx<'a>, peer: &'a Peer, lane: Lane) -> impl Iterator<Item = &'a Known> {
        let (here, missing) = (cx.here, self.missing_transport(peer));
        peer.book.iter().filter(move |known| {
            let address = &known.address;
            let fits = match lane {
                Lane::Direct if missing.is_some() => !address.is_relayed() && address.transport() == missing,
                Lane::Direct => !address.is_relayed(),
                Lane::Relayed => address.is_relayed() && self.has_relay_for(here, address),
            };
            fits && is_usable(here, peer, address, known.sources)
        })
    }

    /// Direct before relayed: a relayed dial waits a moment for the direct one that is under way.
    fn head_start(&self, peer: &Peer, lane: Lane) -> Time {
        let ahead = |dialing: &&Dialing| lane == Lane::Relayed && dialing.lane == Lane::Direct;
        let begun = peer.dials.iter().find(ahead).and_then(|dialing| self.dialer.dial(dialing.id));
        begun.map_or(Time::ZERO, |dial| dial.since + HEAD_START)
    }

    /// Whether a connection more to this peer is wanted, by any lane.
    pub(super) fn is_wanted(&self, now: Time, peer: &Peer) -> bool {
        [Lane::Direct, Lane::Relayed].into_iter().any(|lane| self.want(now, peer, lane).is_some())
    }

    /// How much a connection to this peer is wanted, by this lane, and why.
    pub(super) fn want(&self, now: Time, peer: &Peer, lane: Lane) -> Option<(Class, Reason)> {
        if peer.blocked || peer.is_dialing(lane) {
            return None;
        }
        if lane == Lane::Direct && self.dialer.is_target_dialled(&peer.id) {
            return None;
        }
        if !peer.is_connected() {
            let closing = !peer.connections.is_empty() && peer.asks == 0;
            return if closing { None } else { self.want_any(now, peer) };
        }
        let direct = peer.is_direct();
        match lane {
            Lane::Direct if direct => {
                self.missing_transport(peer)?;
                Some((Class::Kept, self.relay_wanted()))
            }
            Lane::Direct => {
                let class = self.want_any(now, peer).map_or(Class::Discovery, |(class, _)| class);
                Some((class, Reason::OnlyRelayed))
            }
            Lane::Relayed if direct || !peer.standing().all(|connection| connection.is_worn()) => None,
            Lane::Relayed => {
                let class = self.want_any(now, peer).map_or(Class::Member, |(class, _)| class);
                Some((class, Reason::CircuitWorn))
            }
        }
    }

    /// How much this peer is wanted, whether it is connected or not, and why.
    fn want_any(&self, now: Time, peer: &Peer) -> Option<(Class, Reason)> {
        if peer.asks > 0 {
            return Some((Class::User, Reason::Asked));
        }
        if peer.held_off || peer.is_shunned(now) {
            return None;
        }
        if peer.pinned {
            return Some((Class::Kept, Reason::Pinned));
        }
        if peer.manual {
            return Some((Class::Kept, Reason::FoundBy(Source::Manual)));
        }
        if peer.relay != RelayUse::None {
            return Some((Class::Kept, self.relay_wanted()));
        }
        if peer.book.has_source(Source::Mdns) {
            return Some((Class::Near, Reason::FoundBy(Source::Mdns)));
        }
        if peer.bootstrap {
            // A target of the planner, which has its own back-off.
            return None;
        }
        if peer.member {
            return Some((Class::Member, Reason::Member));
        }
        for source in [Source::Signal, Source::Store] {
            if peer.book.has_source(source) {
                return Some((Class::Discovery, Reason::FoundBy(source)));
            }
        }
        let since = self.isolated_since.filter(|_| !peer.book.is_empty())?;
        Some((Class::Discovery, Reason::Isolated { since: now.since(since) }))
    }

    fn relay_wanted(&self) -> Reason {
        let (have, want) = self.relays_held_and_wanted;
        Reason::RelayWanted { have, want }
    }
}

fn keep(set: &mut BTreeSet<Slot>, slot: Slot, belongs: bool) {
    if belongs {
        set.insert(slot);
    } else if !set.is_empty() {
        set.remove(&slot);
    }
}

/// When a peer leaves the table, if nothing happens until then.
fn expiry(peer: &Peer, config: &LifecycleConfig) -> Option<Time> {
    let idle = peer.connections.is_empty() && peer.dials.is_empty() && !peer.is_kept();
    let unheard = peer.since.max(peer.last_seen.unwrap_or(Time::ZERO));
    (idle && peer.book.is_empty()).then(|| (unheard + config.expire_after).max(peer.shunned_until))
}

/// The next moment at which something is due for this peer.
fn deadline(peer: &Peer, local: &PeerId, now: Time, config: &LifecycleConfig) -> Time {
    let mut at = expiry(peer, config).unwrap_or(Time::MAX);
    let mut by = |time: Time| at = at.min(time);
    for known in peer.book.iter().filter(|known| !peer.holds_on_to(known)) {
        by(known.expires(config));
    }
    if peer.denied && !peer.blocked {
        by(peer.shunned_until);
    }
    if let Some(sync) = peer.sync.as_ref().filter(|sync| sync.pending > 0) {
        by(sync.until);
    }
    let several = peer.connections.len() > 1;
    for connection in &peer.connections {
        match connection.closing {
            Some(since) => by(since + CLOSING),
            None => {
                by(connection.alive + SILENCE);
                if peer.profile.is_none() && !peer.is_kept() {
                    by(connection.since + config.identify_timeout);
                }
                if connection.for_lookup && !peer.capabilities().contains(Capabilities::NETWORK) && !peer.is_kept() {
                    by(connection.since + LOOKUP);
                }
                if connection.for_probe {
                    by(connection.since + PROBE);
                }
                if let Some(at) = connection.wears_at(peer.worn_from(local)) {
                    by(at);
                }
                if several {
                    // Not what has passed: `resolve_duplicates` has dealt with that.
                    let proof = connection.proof_due(config);
                    by(if proof > now { proof } else { Time::MAX });
                }
            }
        }
    }
    at
}

/// Whether an address of this peer could be dialled from here at all.
pub(crate) fn is_dialable(here: &Here, peer: &Peer) -> bool {
    peer.book.iter().any(|known| is_usable(here, peer, &known.address, known.sources))
}
