//! Bootstrap peers: named by address, with or without the peer's id.

use alloc::{borrow::ToOwned, collections::BTreeMap, string::ToString, vec::Vec};
use core::time::Duration;

use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    lifecycle::{PeerLifecycle, SHORT_LIVED, is_dialable},
    peers::{Peer, Slot},
    view::BootstrapView,
    vocabulary::{Address, AskError, DialError, Notice, PeerAddress, PeerId, Reason, Role, Source, Time},
};

/// A bootstrap peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct TargetId(pub(crate) u32);

/// A connection that is wanted now.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Want {
    /// Who has to be there.
    pub(crate) peer: Option<PeerId>,
    /// Who is there, or was.
    pub(crate) likely: Option<PeerId>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) reason: Reason,
}

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Targets {
    all: BTreeMap<TargetId, Target>,
    wants: BTreeMap<TargetId, Want>,
    minted: u32,
}

/// One peer, with all the addresses that name its id; or one address without an id.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Target {
    entries: Vec<Entry>,
    /// The id that the settings name.
    expected: Option<PeerId>,
    /// Who is there.
    peer: Option<PeerId>,
    connected: bool,
    connected_since: Time,
    failures: u32,
    failing_since: Option<Time>,
    retry_at: Time,
    /// It turned out to be this node itself.
    is_us: bool,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Entry {
    at: PeerAddress,
    by_settings: bool,
}

const MAX_TARGETS: usize = 64;
/// So many are enough: one more than relays are wanted. Each of them holds a connection to each of its guests. Servers keep up
/// all, so that none of them is an island.
const ENOUGH: usize = 3;
/// So many are dialled at once.
const AT_ONCE: usize = 2 * ENOUGH;
/// A target that is down is tried often for this long, then seldom.
const PATIENCE: Duration = Duration::from_secs(600);
/// One that is due while others are dialled, or enough are there, is looked at again after this, once there is room.
const SOON: Duration = Duration::from_millis(1);
const REDIAL_WITHIN: Duration = Duration::from_secs(1);
/// A target that can't be dialled now, through no fault of its own, is looked at again after this.
const PUT_OFF: Duration = Duration::from_secs(10);

impl Targets {
    /// Whether anybody else is among them.
    pub(super) fn has_others(&self) -> bool {
        self.all.values().any(|target| !target.is_us)
    }

    pub(super) const fn wants(&self) -> &BTreeMap<TargetId, Want> {
        &self.wants
    }

    pub(super) fn configure(&mut self, cx: &Cx<'_>, lifecycle: &mut PeerLifecycle) {
        let named = |entry: &PeerAddress| cx.config.bootstrap.contains(entry);
        let gone: Vec<PeerAddress> = self
            .all
            .values()
            .flat_map(|target| target.entries.iter())
            .filter(|entry| entry.by_settings && !named(&entry.at))
            .map(|entry| entry.at.clone())
            .collect();
        for entry in gone {
            self.remove(lifecycle, &entry);
        }
        for entry in &cx.config.bootstrap {
            if entry.peer != Some(cx.local) && self.add(cx.now, entry).is_ok() {
                let entries = self.all.values_mut().flat_map(|target| target.entries.iter_mut());
                entries.filter(|one| one.at == *entry).for_each(|one| one.by_settings = true);
            }
        }
    }

    fn position(&self, entry: &PeerAddress) -> Option<TargetId> {
        self.all.iter().find(|(_, target)| target.entries.iter().any(|one| one.at == *entry)).map(|(id, _)| *id)
    }

    /// Whether it is new.
    pub(super) fn add(&mut self, now: Time, entry: &PeerAddress) -> Result<bool, AskError> {
        if self.position(entry).is_some() {
            return Ok(false);
        }
        let new = Entry { at: entry.clone(), by_settings: false };
        let same = |target: &&mut Target| entry.peer.is_some() && target.expected == entry.peer;
        if let Some(target) = self.all.values_mut().find(same) {
            target.entries.push(new);
            target.retry_at = target.retry_at.min(now);
            return Ok(true);
        }
        if self.all.len() >= MAX_TARGETS {
            return Err(AskError::Limit("bootstrap peers".to_owned()));
        }
        self.minted += 1;
        let target = Target {
            entries: [new].into(),
            expected: entry.peer,
            peer: entry.peer,
            connected: false,
            connected_since: now,
            failures: 0,
            failing_since: None,
            retry_at: now,
            is_us: false,
        };
        self.all.insert(TargetId(self.minted), target);
        Ok(true)
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, lifecycle: &mut PeerLifecycle, entry: &PeerAddress) -> bool {
        let Some(id) = self.position(entry) else { return false };
        let Some(target) = self.all.get_mut(&id) else { return false };
        target.entries.retain(|other| other.at != *entry);
        if let (Some(peer), Some(address)) = (target.peer, &entry.address) {
            lifecycle.unconfigured(&peer, address);
        }
        if target.entries.is_empty() {
            if let Some(peer) = target.peer {
                lifecycle.set_bootstrap(&peer, false);
            }
            self.all.remove(&id);
            self.wants.remove(&id);
        }
        true
    }

    pub(super) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        let due = self.all.iter().filter(|(id, target)| self.is_waiting(**id, target) && target.retry_at <= cx.now);
        let mut due: Vec<TargetId> = due.map(|(id, _)| *id).collect();
        if due.len() > AT_ONCE {
            // Each node begins with others, and the dead ones don't keep the others waiting.
            let first = jitter::draw(cx.seed, Purpose::Target, 0, 0) as usize % due.len();
            due.rotate_left(first);
            due.sort_by_key(|id| self.all.get(id).map(|target| target.failures));
        }
        for id in due {
            let is_sated = self.is_sated(cx.config.role);
            let Some(target) = self.all.get_mut(&id) else { continue };
            // It may have come to us, or be here already for another reason.
            if target.peer.is_some_and(|peer| lifecycle.is_connected(&peer)) {
                target.connected = true;
                target.connected_since = cx.now;
                continue;
            }
            if is_sated {
                // Its turn may come while this pass is still under way: then it is in the next.
                target.retry_at = cx.now + SOON;
                continue;
            }
            let reason = match target.failures {
                0 => Reason::BootstrapPeer,
                failures => Reason::Retry { attempt: failures + 1 },
            };
            let addresses = target.entries.iter().filter_map(|entry| entry.at.address.clone()).collect();
            self.wants.insert(id, Want { peer: target.expected, likely: target.peer, addresses, reason });
            lifecycle.want_target(cx.now, id);
        }
    }

    fn is_waiting(&self, id: TargetId, target: &Target) -> bool {
        !target.connected && !target.is_us && !self.wants.contains_key(&id)
    }

    /// Whether nobody more is dialled until a dial ends or somebody goes.
    fn is_sated(&self, role: Role) -> bool {
        self.has_enough(role) || (role != Role::Server && self.wants.len() >= AT_ONCE)
    }

    fn has_enough(&self, role: Role) -> bool {
        role != Role::Server && self.all.values().filter(|target| target.connected).count() >= ENOUGH
    }

    pub(super) fn deadline(&self, role: Role) -> Option<Time> {
        if self.is_sated(role) {
            return None;
        }
        let waiting = self.all.iter().filter(|(id, target)| self.is_waiting(**id, target));
        waiting.map(|(_, target)| target.retry_at).min()
    }

    pub(super) fn connected(&mut self, now: Time, lifecycle: &mut PeerLifecycle, id: TargetId, peer: PeerId) {
        self.wants.remove(&id);
        let Some(target) = self.all.get_mut(&id) else { return };
        if let Some(before) = target.peer.replace(peer).filter(|before| *before != peer) {
            lifecycle.set_bootstrap(&before, false);
        }
        target.connected = true;
        target.connected_since = now;
        lifecycle.set_bootstrap(&peer, true);
    }

    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, id: TargetId, address: Option<Address>, error: DialError) {
        self.wants.remove(&id);
        let Some(target) = self.all.get_mut(&id).filter(|target| !target.connected) else { return };
        target.is_us = error == DialError::OwnIdentity;
        target.back_off(cx, id);
        // The first failure, and then each time their number has doubled: a line each 30 s helps nobody.
        if target.failures.is_power_of_two()
            && let Some(entry) = target.entries.first()
        {
            let notice = Notice::BootstrapFailed { address: entry.at.to_string(), wait: target.retry_at.since(cx.now) };
            cx.tell(notice, Reason::DialFailed { address, error });
        }
    }

    /// It can't be dialled now; that is no failure of it.
    pub(super) fn put_off(&mut self, now: Time, id: TargetId) {
        self.wants.remove(&id);
        if let Some(target) = self.all.get_mut(&id) {
            target.retry_at = now + PUT_OFF;
        }
    }

    pub(super) fn up(&mut self, now: Time, lifecycle: &mut PeerLifecycle, slot: Slot) {
        let Some(peer) = lifecycle.peers.get(slot).map(|peer| peer.id) else { return };
        for (id, target) in self.all.iter_mut().filter(|(_, target)| target.peer == Some(peer) && !target.connected) {
            self.wants.remove(id);
            target.connected = true;
            target.connected_since = now;
            lifecycle.set_bootstrap(&peer, true);
        }
    }

    pub(super) fn down(&mut self, cx: &Cx<'_>, peer: &PeerId) {
        for (id, target) in self.all.iter_mut().filter(|(_, target)| target.peer == Some(*peer) && target.connected) {
            target.connected = false;
            if cx.now.since(target.connected_since) < SHORT_LIVED {
                // It accepts and drops: no better than not answering.
                target.back_off(cx, *id);
                continue;
            }
            target.failures = 0;
            target.failing_since = None;
            let draw = jitter::draw(cx.seed, Purpose::Target, id.0.into(), cx.now.as_nanos());
            target.retry_at = cx.now + jitter::within(REDIAL_WITHIN, draw);
        }
    }

    pub(super) fn rearm(&mut self, now: Time) {
        for target in self.all.values_mut() {
            target.failures = 0;
            target.failing_since = None;
            target.is_us = false;
            target.retry_at = target.retry_at.min(now);
        }
    }

    pub(super) fn views(&self, role: Role) -> impl Iterator<Item = BootstrapView<'_>> {
        let has_enough = self.has_enough(role);
        self.all.values().flat_map(move |target| {
            target.entries.iter().map(move |entry| BootstrapView {
                address: &entry.at,
                peer: target.peer,
                connected: target.connected,
                failures: target.failures,
                retry_at: (!target.connected && !has_enough).then_some(target.retry_at),
            })
        })
    }
}

impl Target {
    fn back_off(&mut self, cx: &Cx<'_>, id: TargetId) {
        let config = &cx.config.planner;
        let since = *self.failing_since.get_or_insert(cx.now);
        let longest = if cx.now.since(since) < PATIENCE { config.retry_max } else { config.retry_slow };
        let wait = config.retry_min.saturating_mul(1 << self.failures.min(12)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let draw = jitter::draw(cx.seed, Purpose::Target, id.0.into(), self.failures.into());
        self.retry_at = cx.now + jitter::vary(wait, draw);
    }
}

impl PeerLifecycle {
    /// The settings, or a user, no longer say that a bootstrap peer is there.
    fn unconfigured(&mut self, peer: &PeerId, address: &Address) {
        if let Some(slot) = self.peers.find(peer) {
            self.peers.at_mut(slot).book.untold(Source::Configured, address);
        }
    }

    fn set_bootstrap(&mut self, peer: &PeerId, bootstrap: bool) {
        if let Some(slot) = self.peers.find(peer) {
            self.peers.at_mut(slot).bootstrap = bootstrap;
        }
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.peers.by_id(peer).is_some_and(Peer::is_connected)
    }

    /// Whether a look-up could help to reach this peer: it is not here, and what is known of it did not lead there.
    pub(super) fn needs_record(&self, cx: &Cx<'_>, peer: &PeerId) -> bool {
        self.peers.by_id(peer).is_some_and(|peer| {
            let promising = is_dialable(cx.here, peer) && peer.book.iter().all(|known| known.failures == 0);
            !(peer.blocked || peer.is_connected() || promising)
        })
    }

    /// The same, of a peer that would be dialled: not any member in a crowd.
    pub(super) fn misses_record(&self, cx: &Cx<'_>, peer: &PeerId) -> bool {
        let wanted = |peer: &Peer| peer.is_kept() || self.has_room_for_members(&cx.config.lifecycle);
        self.peers.by_id(peer).is_some_and(wanted) && self.needs_record(cx, peer)
    }
}
