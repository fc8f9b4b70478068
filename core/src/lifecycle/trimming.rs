//! Keeping the number of connected peers within the budget.

use alloc::vec::Vec;
use core::{cmp::Reverse, time::Duration};

use super::PeerLifecycle;
use crate::{
    cx::Cx,
    peers::{Peer, Slot},
    view::Capabilities,
    vocabulary::{LifecycleConfig, Reason, Source, Time},
};

/// A new peer is given this long to show what it is worth, unless the budget is far exceeded.
const GRACE: Duration = Duration::from_secs(20);
/// A peer that was trimmed is not dialled for this long.
const PAUSE: Duration = Duration::from_secs(60);

impl PeerLifecycle {
    /// When somebody's grace is over, while there are too many.
    pub(super) fn next_trim(&self, config: &LifecycleConfig) -> Option<Time> {
        let surplus = self.connected_count() > config.high_water;
        Some(self.trim_at).filter(|at| surplus && *at < Time::MAX)
    }

    /// Notes when the grace of a connected peer is over: a look at all of them on each step would cost more than all else.
    pub(super) fn note_grace(&mut self, slot: Slot) {
        let peer = self.peers.at(slot);
        if let Some(ripe) = next_ripe(peer).filter(|_| peer.is_connected() && !peer.is_protected()) {
            self.trim_at = self.trim_at.min(ripe);
        }
    }

    /// After what the other machines do in a pass: whom they have let go in it may have been here for long.
    pub(crate) fn trim_if_due(&mut self, cx: &mut Cx<'_>) {
        if self.next_trim(&cx.config.lifecycle).is_some_and(|at| at <= cx.now) {
            self.trim(cx);
        }
    }

    /// Above the high water mark, closes the least useful peers down to the low one. Never: pinned, asked for, syncing, or
    /// protected by the application.
    pub(super) fn trim(&mut self, cx: &mut Cx<'_>) {
        let config = &cx.config.lifecycle;
        let connections = self.connected_count();
        if connections <= config.high_water {
            return;
        }
        let flooded = connections > config.high_water + config.dial_slots;
        let ripe = |peer: &Peer| flooded || next_ripe(peer).is_some_and(|at| at <= cx.now);
        let mut spare: Vec<Slot> = self
            .connected
            .iter()
            .copied()
            .filter(|slot| {
                let peer = self.peers.at(*slot);
                !peer.is_protected() && ripe(peer)
            })
            .collect();
        spare.sort_by_key(|slot| {
            let peer = self.peers.at(*slot);
            (worth(peer), Reverse(connected_since(peer)), *slot)
        });
        let mut left = connections;
        for slot in spare {
            let peer = self.peers.at_mut(slot);
            if left <= if peer.served { config.high_water } else { config.low_water } {
                break;
            }
            left -= 1;
            peer.hold_until = peer.hold_until.max(cx.now + PAUSE);
            self.close_all(cx, slot, &Reason::OverBudget { connections, limit: config.high_water });
            self.settle(cx, slot);
        }
        let spare = self.connected.iter().map(|slot| self.peers.at(*slot)).filter(|peer| !peer.is_protected());
        self.trim_at = spare.filter_map(next_ripe).min().unwrap_or(Time::MAX);
    }
}

/// When a peer's grace is over. Who has a place at this relay, and may be found through it alone, goes only in a flood: those
/// who have just come and still have theirs would displace it.
fn next_ripe(peer: &Peer) -> Option<Time> {
    (!peer.served).then(|| connected_since(peer) + GRACE)
}

/// How useful a peer is, the least useful first. Among equals the newest goes: a flood then only displaces itself.
fn worth(peer: &Peer) -> u8 {
    let capabilities = peer.capabilities();
    let near = peer.book.has_source(Source::Mdns);
    u8::from(capabilities.contains(Capabilities::NETWORK))
        + u8::from(capabilities.contains(Capabilities::KADEMLIA))
        + 2 * u8::from(near)
        + 2 * u8::from(peer.member)
        + 4 * u8::from(peer.bootstrap || peer.manual)
        + 4 * u8::from(peer.served)
}

fn connected_since(peer: &Peer) -> Time {
    peer.standing().map(|connection| connection.since).min().unwrap_or(Time::MAX)
}
