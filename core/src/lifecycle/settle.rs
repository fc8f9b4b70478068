//! What follows from a peer's record: state, place in the queue, next deadline, and what is overdue.

use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

use super::{Class, PeerLifecycle, dialer::Job, discovery::is_usable};
use crate::{
    cx::{Cx, Here, Signal},
    peers::{Connection, Peer, Slot},
    view::Capabilities,
    vocabulary::{Action, ConnectionId, LifecycleConfig, Notice, Reason, Source, Time},
};

/// A peer for which nothing else is due is looked at this often.
const REVIEW: Duration = Duration::from_secs(300);
/// A connection without any sign of life for this long is dead: pings come every 15 s and fail after 20 s.
const SILENCE: Duration = Duration::from_secs(120);
/// The shell has this long to close a connection.
const CLOSING: Duration = Duration::from_secs(30);
/// A connection made for a look-up to a stranger is kept this long.
const LOOKUP: Duration = Duration::from_secs(120);

/// Whether a peer is to be dialled.
enum Stance {
    /// It is wanted and may be dialled now.
    Ready(Class),
    /// It is wanted, not before then.
    Waiting(Time),
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
        let stance = self.stance(cx, slot);
        let config = &cx.config.lifecycle;
        let peer = self.peers.at_mut(slot);

        let state = peer.derived_state();
        if state != peer.state {
            peer.state = state;
            peer.since = cx.now;
        }
        keep(&mut self.pinned, slot, peer.pinned);
        keep(&mut self.members, slot, peer.member);
        if peer.is_connected() {
            self.connected.insert(slot);
        } else if self.connected.remove(&slot) {
            let peer = self.peers.at(slot).id;
            cx.signal(Signal::Down(peer));
        }

        let peer = self.peers.at_mut(slot);
        let (queue, mut wake) = match stance {
            Stance::Ready(class) => (Some(class), Time::MAX),
            Stance::Waiting(until) => (None, until),
            Stance::Idle => (None, Time::MAX),
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
        wake = wake.min(deadline(peer, cx.now, config));
        if wake == Time::MAX {
            wake = cx.now + REVIEW;
        }
        self.peers.set_timer(slot, wake, cx.now);
    }

    /// What is overdue.
    fn act(&mut self, cx: &mut Cx<'_>, slot: Slot) {
        let (now, config) = (cx.now, &cx.config.lifecycle);
        let peer = self.peers.at_mut(slot);
        peer.book.expire(now, config);
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
            self.lost(slot, connection);
        }

        let peer = self.peers.at(slot);
        let first = peer.standing().map(|connection| connection.since).min();
        let unknown = peer.profile.is_none() && !peer.is_kept();
        if unknown && first.is_some_and(|since| since + config.identify_timeout <= now) {
            self.peers.at_mut(slot).shunned_until = now + config.flap_ban;
            self.close_all(cx, slot, &Reason::NeverIdentified);
            self.distrust(cx, slot, Reason::NeverIdentified);
            return;
        }
        let stranger = !peer.capabilities().contains(Capabilities::NETWORK) && !peer.is_kept();
        let overdue: Vec<(ConnectionId, Reason)> = peer
            .standing()
            .filter_map(|connection| {
                if connection.alive + SILENCE <= now {
                    Some((connection.id, Reason::PingsLost))
                } else if stranger && connection.for_lookup && connection.since + LOOKUP <= now {
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

    fn stance(&self, cx: &Cx<'_>, slot: Slot) -> Stance {
        let peer = self.peers.at(slot);
        let Some((class, _)) = self.want(cx.now, peer) else { return Stance::Idle };
        let usable = peer.book.iter().filter(|known| is_usable(cx.here, peer, &known.address, known.sources));
        let Some(earliest) = usable.map(|known| known.retry_at).min() else { return Stance::Idle };
        let at = earliest.max(peer.hold_until);
        if at <= cx.now { Stance::Ready(class) } else { Stance::Waiting(at) }
    }

    /// How much a connection to this peer is wanted, and why.
    pub(super) fn want(&self, now: Time, peer: &Peer) -> Option<(Class, Reason)> {
        if peer.blocked || !peer.dials.is_empty() || !peer.connections.is_empty() {
            return None;
        }
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
        if peer.book.has_source(Source::Mdns) {
            return Some((Class::Near, Reason::FoundBy(Source::Mdns)));
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
fn deadline(peer: &Peer, now: Time, config: &LifecycleConfig) -> Time {
    let mut at = expiry(peer, config).unwrap_or(Time::MAX);
    let mut by = |time: Time| at = at.min(time);
    for known in peer.book.iter() {
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
