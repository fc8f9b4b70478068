//! Which relays are held, so that others reach a node that they can't reach directly.

use alloc::vec::Vec;

use crate::{
    cx::Cx,
    lifecycle::PeerLifecycle,
    view::RelayView,
    vocabulary::{Address, Event, Reachability, Time},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Relays {}

impl Relays {
    pub(super) fn absorb(&mut self, _cx: &mut Cx<'_>, _lifecycle: &mut PeerLifecycle, _event: &Event) {}

    pub(super) fn step(&mut self, _cx: &mut Cx<'_>, _lifecycle: &mut PeerLifecycle, _reachability: Reachability) {}

    pub(super) fn deadline(&self) -> Option<Time> {
        None
    }

    /// Where others reach us through the relays that are held.
    pub(super) fn circuits(&self) -> impl Iterator<Item = &Address> + Clone {
        core::iter::empty()
    }

    pub(crate) fn views(&self, _lifecycle: &PeerLifecycle) -> Vec<RelayView> {
        Vec::new()
    }

    /// How many are wanted now.
    pub(crate) fn wanted(&self) -> u32 {
        0
    }
}
