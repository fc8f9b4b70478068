//! Bootstrap peers: named by address, with or without the peer's id.

use alloc::{borrow::ToOwned, collections::BTreeMap, string::ToString, vec::Vec};
use core::time::Duration;

use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    lifecycle::{PeerLifecycle, is_dialable},
    peers::{Peer, Slot},
    view::BootstrapView,
    vocabulary::{Address, AskError, Notice, PeerAddress, PeerId, Reason, Time},
};

/// A bootstrap peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct TargetId(pub(crate) u32);

/// A connection that is wanted now.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Want {
    pub(crate) peer: Option<PeerId>,
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
    entries: Vec<PeerAddress>,
    /// The id that the settings name.
    expected: Option<PeerId>,
    /// Who is there.
    peer: Option<PeerId>,
    connected: bool,
    failures: u32,
    failing_since: Option<Time>,
    retry_at: Time,
    by_settings: bool,
}

const MAX_TARGETS: usize = 64;
/// A target that is down is tried often for this long, then seldom.
const PATIENCE: Duration = Duration::from_secs(600);
const REDIAL_WITHIN: Duration = Duration::from_secs(1);

impl Targets {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) const fn wants(&self) -> &BTreeMap<TargetId, Want> {
        &self.wants
    }

    pub(super) fn configure(&mut self, cx: &Cx<'_>, lifecycle: &mut PeerLifecycle) {
        let named = |entry: &PeerAddress| cx.config.bootstrap.contains(entry);
        let gone: Vec<PeerAddress> = self
            .all
            .values()
            .filter(|target| target.by_settings)
            .flat_map(|target| target.entries.iter())
            .filter(|entry| !named(entry))
            .cloned()
            .collect();
        for entry in gone {
            self.remove(lifecycle, &entry);
        }
        for entry in &cx.config.bootstrap {
            if entry.peer != Some(cx.local) && self.add(cx.now, entry) == Ok(true) {
                let added = self.all.values_mut().find(|target| target.entries.contains(entry));
                added.into_iter().for_each(|target| target.by_settings = true);
            }
        }
    }

    /// Whether it is new.
    pub(super) fn add(&mut self, now: Time, entry: &PeerAddress) -> Result<bool, AskError> {
        if self.all.values().any(|target| target.entries.contains(entry)) {
            return Ok(false);
        }
        let same = |target: &&mut Target| entry.peer.is_some() && target.expected == entry.peer;
        if let Some(target) = self.all.values_mut().find(same) {
            target.entries.push(entry.clone());
            target.retry_at = target.retry_at.min(now);
            return Ok(true);
        }
        if self.all.len() >= MAX_TARGETS {
            return Err(AskError::Limit("bootstrap peers".to_owned()));
        }
        self.minted += 1;
        let target = Target {
            entries: [entry.clone()].into(),
            expected: entry.peer,
            peer: entry.peer,
            connected: false,
            failures: 0,
            failing_since: None,
            retry_at: now,
            by_settings: false,
        };
        self.all.insert(TargetId(self.minted), target);
        Ok(true)
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, lifecycle: &mut PeerLifecycle, entry: &PeerAddress) -> bool {
        let Some((&id, target)) = self.all.iter_mut().find(|(_, target)| target.entries.contains(entry)) else {
            return false;
        };
        target.entries.retain(|other| other != entry);
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
        for (&id, target) in &mut self.all {
            if target.connected || self.wants.contains_key(&id) || target.retry_at > cx.now {
                continue;
            }
            // It may have come to us, or be here already for another reason.
            if target.peer.is_some_and(|peer| lifecycle.is_connected(&peer)) {
                target.connected = true;
                continue;
            }
            let reason = match target.failures {
                0 => Reason::BootstrapPeer,
                failures => Reason::Retry { attempt: failures + 1 },
            };
            let addresses = target.entries.iter().filter_map(|entry| entry.address.clone()).collect();
            self.wants.insert(id, Want { peer: target.expected, addresses, reason });
            lifecycle.want_target(cx.now, id);
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let waiting = |(id, target): &(&TargetId, &Target)| !target.connected && !self.wants.contains_key(id);
        self.all.iter().filter(waiting).map(|(_, target)| target.retry_at).min()
    }

    pub(super) fn connected(&mut self, lifecycle: &mut PeerLifecycle, id: TargetId, peer: PeerId) {
        self.wants.remove(&id);
        let Some(target) = self.all.get_mut(&id) else { return };
        target.peer = Some(peer);
        target.connected = true;
        target.failures = 0;
        target.failing_since = None;
        lifecycle.set_bootstrap(&peer, true);
    }

    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, id: TargetId) {
        self.wants.remove(&id);
        let Some(target) = self.all.get_mut(&id) else { return };
        let config = &cx.config.planner;
        let since = *target.failing_since.get_or_insert(cx.now);
        let longest = if cx.now.since(since) < PATIENCE { config.retry_max } else { config.retry_slow };
        let wait = config.retry_min.saturating_mul(1 << target.failures.min(12)).min(longest);
        target.failures = target.failures.saturating_add(1);
        let draw = jitter::draw(cx.seed, Purpose::Target, id.0.into(), target.failures.into());
        target.retry_at = cx.now + jitter::vary(wait, draw);
        // The first failure, and then each time the wait has doubled: a log line each 30 s helps nobody.
        if target.failures.is_power_of_two()
            && let Some(entry) = target.entries.first()
        {
            let notice = Notice::BootstrapFailed { address: entry.to_string(), wait: target.retry_at.since(cx.now) };
            cx.tell(notice, Reason::BootstrapPeer);
        }
    }

    pub(super) fn up(&mut self, lifecycle: &mut PeerLifecycle, slot: Slot) {
        let Some(peer) = lifecycle.peers.get(slot).map(|peer| peer.id) else { return };
        for target in self.all.values_mut().filter(|target| target.peer == Some(peer)) {
            target.connected = true;
            target.failures = 0;
            target.failing_since = None;
            lifecycle.set_bootstrap(&peer, true);
        }
    }

    pub(super) fn down(&mut self, cx: &Cx<'_>, peer: &PeerId) {
        for (id, target) in &mut self.all {
            if target.peer == Some(*peer) && target.connected {
                target.connected = false;
                let draw = jitter::draw(cx.seed, Purpose::Target, id.0.into(), cx.now.as_nanos());
                target.retry_at = cx.now + jitter::within(REDIAL_WITHIN, draw);
            }
        }
    }

    pub(super) fn rearm(&mut self, now: Time) {
        for target in self.all.values_mut() {
            target.failures = 0;
            target.failing_since = None;
            target.retry_at = target.retry_at.min(now);
        }
    }

    pub(super) fn views(&self) -> impl Iterator<Item = BootstrapView<'_>> {
        self.all.values().flat_map(|target| {
            target.entries.iter().map(|entry| BootstrapView {
                address: entry,
                peer: target.peer,
                connected: target.connected,
                failures: target.failures,
                retry_at: (!target.connected).then_some(target.retry_at),
            })
        })
    }
}

impl PeerLifecycle {
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
}
