//! What an earlier run found out about the NATs in front of this machine: a guess, for as long as nothing better is known.
//!
//! It counts on the networks where it was found out, and for little. Who was private then asks for relays at once, and
//! what a NAT did with ports says who had better dial in a try for a direct connection. Nobody is told that this node can
//! be reached because it could be once.

use alloc::vec::Vec;
use core::time::Duration;

use super::own::Kind;
use crate::{
    cx::{Cx, Here},
    vocabulary::{Action, Mapping, Reachability, Reason, StoredMapping, StoredNat, Time},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Prior {
    /// What the store remembers of the networks where this machine is.
    stored: Option<StoredNat>,
    /// When what is known now, and is not what the store remembers, is old enough to be remembered.
    due: Option<Time>,
}

/// What has held for so long is worth a write.
const SETTLED: Duration = Duration::from_secs(120);
/// Own addresses that say which networks these are.
const MAX_ADDRESSES: usize = 32;
/// Both families by each transport.
const MAX_MAPPINGS: usize = 8;

impl Prior {
    pub(super) fn recall(&mut self, here: &Here, nat: &StoredNat) {
        if self.stored.is_none() && here.is_where(&nat.addresses) {
            let mut nat = nat.clone();
            nat.addresses.truncate(MAX_ADDRESSES);
            nat.mappings.truncate(MAX_MAPPINGS);
            self.stored = Some(nat);
        }
    }

    pub(super) fn forget_the_network(&mut self) {
        *self = Self::default();
    }

    pub(super) fn reachability(&self) -> Reachability {
        self.stored.as_ref().map_or(Reachability::Unknown, |stored| stored.reachability)
    }

    pub(super) fn mapping(&self, kind: Kind) -> Mapping {
        let mut stored = self.stored.iter().flat_map(|stored| &stored.mappings);
        stored.find(|stored| kind_of(stored) == kind).map_or(Mapping::Unknown, |stored| stored.mapping)
    }

    /// Has the store remember what is known now, when it has held for a while. What is not known changes nothing.
    pub(super) fn keep(
        &mut self,
        cx: &mut Cx<'_>,
        reachability: Reachability,
        mappings: impl Iterator<Item = (Kind, Mapping)>,
    ) {
        let known: Vec<(Kind, Mapping)> = mappings.filter(|(_, mapping)| *mapping != Mapping::Unknown).collect();
        let same_verdict = reachability == Reachability::Unknown || reachability == self.reachability();
        if same_verdict && known.iter().all(|(kind, mapping)| self.mapping(*kind) == *mapping) {
            self.due = None;
            return;
        }
        if cx.now < *self.due.get_or_insert(cx.now + SETTLED) {
            return;
        }
        self.due = None;
        let before = self.stored.take();
        let (reached_before, mut kept) =
            before.map_or((Reachability::Unknown, Vec::new()), |before| (before.reachability, before.mappings));
        kept.retain(|kept| known.iter().all(|(kind, _)| *kind != kind_of(kept)));
        kept.extend(known.iter().map(|(kind, mapping)| StoredMapping {
            ipv6: kind.ipv6,
            transport: kind.transport,
            mapping: *mapping,
        }));
        kept.sort_unstable();
        kept.truncate(MAX_MAPPINGS);
        let known = StoredNat {
            addresses: cx.here.interfaces.addresses.iter().take(MAX_ADDRESSES).copied().collect(),
            reachability: if reachability == Reachability::Unknown { reached_before } else { reachability },
            mappings: kept,
        };
        cx.command(Action::RememberNat(known.clone()), Reason::StateChanged);
        self.stored = Some(known);
    }

    pub(super) const fn deadline(&self) -> Option<Time> {
        self.due
    }
}

const fn kind_of(stored: &StoredMapping) -> Kind {
    Kind { ipv6: stored.ipv6, transport: stored.transport }
}
