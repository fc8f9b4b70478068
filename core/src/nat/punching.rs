//! Getting direct connections to peers that are reached through a relay only.

use crate::{
    cx::Cx,
    lifecycle::PeerLifecycle,
    view::PunchingView,
    vocabulary::{Event, PeerId, Time},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Punching {}

impl Punching {
    pub(super) fn absorb(&mut self, _cx: &mut Cx<'_>, _lifecycle: &mut PeerLifecycle, _event: &Event) {}

    pub(super) fn step(&mut self, _cx: &mut Cx<'_>, _lifecycle: &mut PeerLifecycle) {}

    pub(super) fn deadline(&self) -> Option<Time> {
        None
    }

    pub(crate) fn view(&self, _peer: &PeerId) -> Option<PunchingView> {
        None
    }
}
