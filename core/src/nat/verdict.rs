//! Whether others can reach this node: `Unknown`, `Public` or `Private`.
//!
//! Public: the operator says so, an address is proven by more than one probe, visitors came from two networks, or it is a
//! server with an address. Private: probes from every network that can probe have failed, at least two of them, and
//! nobody came. A change counts once it has held for the dwell time; from Unknown to Public a proof counts at once, unless
//! the verdict has just changed, and for Private the time runs from the first failure.
//!
//! What has shown it ages, and that alone changes nothing while somebody can be asked to look again.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use crate::{
    cx::Cx,
    vocabulary::{Notice, Reachability, Reason, Time},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Verdict {
    reachability: Reachability,
    /// One that is not old enough to count.
    pending: Option<(Reachability, Time)>,
    /// Networks whose probes have failed since the last one that came in.
    failures: BTreeMap<IpAddr, Failures>,
    /// The network has changed: what was thought no longer counts.
    anew: bool,
    /// When it last changed on this network; `Time::ZERO` for never.
    #[cfg_attr(feature = "serde", serde(default))]
    changed: Time,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Failures {
    first: Time,
    last: Time,
}

/// What speaks for and against being reachable, at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// The operator's word, proofs, or a server's address.
    pub(super) solid: bool,
    /// Enough visitors.
    pub(super) visitors: bool,
    /// Somebody has come lately.
    pub(super) visited: bool,
    /// Somebody can probe.
    pub(super) servers: bool,
    /// Somebody can probe from a network whose probes have not failed.
    pub(super) more_servers: bool,
}

/// Failed networks kept.
const MAX_FAILURES: usize = 8;

impl Verdict {
    pub(super) const fn reachability(&self) -> Reachability {
        self.reachability
    }

    pub(super) fn reached(&mut self) {
        self.failures.clear();
    }

    pub(super) fn not_reached(&mut self, now: Time, network: IpAddr) {
        if self.failures.len() < MAX_FAILURES || self.failures.contains_key(&network) {
            self.failures.entry(network).or_insert(Failures { first: now, last: now }).last = now;
        }
    }

    pub(super) fn failed_from(&self, network: &IpAddr) -> bool {
        self.failures.contains_key(network)
    }

    /// Whether probes at two moments have failed since the last one that came in.
    pub(super) fn is_refuted(&self) -> bool {
        let first = self.failures.values().map(|failures| failures.first).min();
        let last = self.failures.values().map(|failures| failures.last).max();
        first < last
    }

    pub(super) fn forget_the_network(&mut self) {
        self.failures.clear();
        self.anew = true;
    }

    pub(super) fn judge(&mut self, cx: &mut Cx<'_>, evidence: Evidence) {
        let Evidence { solid, visitors, visited, servers, more_servers } = evidence;
        let failed_first = self.failures.values().map(|failures| failures.first).min();
        let refuted = self.is_refuted() && (!more_servers || self.reachability == Reachability::Private);
        let (verdict, since) = if solid || visitors {
            (Reachability::Public, cx.now)
        } else if refuted && !visited {
            (Reachability::Private, failed_first.unwrap_or(cx.now))
        } else if self.reachability == Reachability::Public && servers && !self.anew {
            (Reachability::Public, cx.now)
        } else {
            (Reachability::Unknown, cx.now)
        };
        let anew = core::mem::take(&mut self.anew);
        let settled = self.changed == Time::ZERO || self.changed + cx.config.nat.dwell <= cx.now;
        let at_once = anew || (self.reachability == Reachability::Unknown && solid && settled);
        if verdict == self.reachability {
            self.pending = None;
            return;
        }
        let since = match self.pending {
            Some((pending, since)) if pending == verdict => since,
            Some(_) | None => since,
        };
        if since + cx.config.nat.dwell > cx.now && !at_once {
            self.pending = Some((verdict, since));
            return;
        }
        self.pending = None;
        if self.reachability == Reachability::Private {
            // Refuted by who has come in: it takes new failures to go back.
            self.failures.clear();
        }
        self.reachability = verdict;
        self.changed = if anew { Time::ZERO } else { cx.now };
        let public = verdict == Reachability::Public;
        let reason = if public { Reason::Reachable } else { Reason::NotReachable };
        cx.tell(Notice::ReachabilityChanged { reachability: verdict }, reason);
    }

    pub(super) fn deadline(&self, dwell: core::time::Duration) -> Option<Time> {
        self.pending.map(|(_, since)| since + dwell)
    }
}
