//! `BootstrapPlanner`: where first peers come from, whether the routing table is healthy, and whether we are alone.
//!
//! All sources start at once and each has its own back-off, so a dead one blocks nothing. Bootstrap peers are *targets*,
//! wanted as long as no connection to them stands; the dialler serves them. The hash table is asked and told by *queries*,
//! a few at a time: look-ups that fill the routing table, our own signed record and membership, the members of our
//! network, and the records of peers that are wanted and can't be found otherwise.

mod health;
mod queries;
mod signals;
mod targets;

pub(crate) use targets::{TargetId, Want};

use health::Vigil;
use queries::Queries;
use signals::Signals;
use targets::Targets;

use crate::{
    cx::{Cx, Signal},
    lifecycle::{PeerLifecycle, is_believable},
    nat::NatPolicy,
    view::{BootstrapView, SignalView},
    vocabulary::{Action, Answer, Ask, AskError, Config, Event, Health, Reason, RequestId, SignalError, Source, Time},
};
use alloc::{borrow::ToOwned, collections::BTreeMap, string::ToString};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct BootstrapPlanner {
    targets: Targets,
    queries: Queries,
    #[cfg_attr(feature = "serde", serde(default))]
    signals: Signals,
    vigil: Vigil,
}

impl BootstrapPlanner {
    pub(crate) fn absorb(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, event: &Event) {
        match event {
            Event::Asked { request, ask: Ask::AddBootstrap(entry) } => {
                let usable = |address| is_believable(cx.here, Source::Configured, address);
                let added = if entry.address.is_none() {
                    Err(AskError::Incomplete("a bootstrap peer needs an address".to_owned()))
                } else if !entry.address.as_ref().is_some_and(usable) {
                    Err(AskError::UnusableAddress)
                } else if entry.peer == Some(cx.local) {
                    Err(AskError::OwnIdentity)
                } else {
                    self.targets.add(cx.now, entry)
                };
                self.answer(cx, *request, added);
            }
            Event::Asked { request, ask: Ask::RemoveBootstrap(entry) } => {
                let removed = self.targets.remove(lifecycle, entry);
                self.answer(cx, *request, Ok(removed));
            }
            Event::Routed { peer, present } => self.queries.routed(cx, *peer, *present),
            Event::QueryFound { query, peers, cut: _, record } => {
                self.queries.found(cx, lifecycle, *query, peers, *record);
            }
            Event::QueryEnded { query, successes, failures: _ } => {
                self.queries.ended(cx, lifecycle, *query, *successes);
            }
            Event::Refused { command, refusal } => {
                self.queries.ended(cx, lifecycle, *command, 0);
                self.signals.failed(cx, *command, &SignalError::Failed(refusal.to_string()));
            }
            Event::SignalFound { query, peers, cut: _, backing } => {
                self.signals.found(cx, lifecycle, *query, peers, *backing);
                self.vigil.stir();
            }
            Event::SignalPublished { publish, expires_in, backing } => {
                self.signals.published(cx, *publish, *expires_in, *backing);
            }
            Event::SignalFailed { command, error } => self.signals.failed(cx, *command, error),
            Event::Interfaces(_) | Event::Resumed { .. } => {
                self.targets.rearm(cx.now);
                self.queries.rearm(cx.now);
                self.signals.rearm(cx.now);
                self.vigil.rearm(cx.now);
            }
            Event::Wake
            | Event::Probed { .. }
            | Event::Reserved { .. }
            | Event::ReservedAt { .. }
            | Event::ReservationEnded { .. }
            | Event::CircuitLimited { .. }
            | Event::CircuitUsed { .. }
            | Event::Serving { .. }
            | Event::PunchOffered { .. }
            | Event::PunchAnswered { .. }
            | Event::PunchFailed { .. }
            | Event::Gateway { .. }
            | Event::PortMapped { .. }
            | Event::PortUnmapped { .. }
            | Event::Started(_)
            | Event::Configured(_)
            | Event::StoreLoaded { .. }
            | Event::Asked { .. }
            | Event::WallClock { .. }
            | Event::Listening { .. }
            | Event::ListenAddressGone { .. }
            | Event::ListenFailed { .. }
            | Event::Found { .. }
            | Event::Lost { .. }
            | Event::OwnIdentitySeen { .. }
            | Event::Connected { .. }
            | Event::Disconnected { .. }
            | Event::DialFailed { .. }
            | Event::InboundFailed { .. }
            | Event::DialHeld { .. }
            | Event::HeldFailed { .. }
            | Event::Identified { .. }
            | Event::IdentifyFailed { .. }
            | Event::Pinged { .. }
            | Event::SyncHeads { .. }
            | Event::SyncTold { .. }
            | Event::SyncFetched { .. }
            | Event::SyncFailed { .. }
            | Event::SyncPressure { .. }
            | Event::Candidate { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. } => {}
        }
    }

    fn answer(&mut self, cx: &mut Cx<'_>, request: RequestId, changed: Result<bool, AskError>) {
        let answer = changed.map(|changed| if changed { Answer::Done } else { Answer::NothingToDo });
        cx.command(Action::Answer { request, answer }, Reason::Asked);
        self.vigil.stir();
    }

    /// Takes over the bootstrap peers and signal servers of the settings.
    pub(crate) fn configure(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        self.targets.configure(cx, lifecycle);
        self.signals.configure(cx);
        self.vigil.stir();
    }

    /// What the other machines' work means here.
    pub(crate) fn hear(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, signal: Signal) {
        match signal {
            Signal::TargetConnected(target, peer) => self.targets.connected(cx.now, lifecycle, target, peer),
            Signal::TargetFailed(target, address, error) => {
                self.targets.failed(cx, target, address, error);
                self.vigil.stir();
            }
            Signal::TargetPutOff(target) => self.targets.put_off(cx.now, target),
            Signal::Up(slot) => {
                self.targets.up(cx.now, lifecycle, slot);
                self.vigil.stir();
            }
            Signal::Down(peer) => {
                self.targets.down(cx, &peer);
                self.queries.down(cx, lifecycle, &peer);
                self.signals.down(cx, lifecycle, &peer);
                self.vigil.stir();
            }
            Signal::Identified(slot) => queries::route(cx, lifecycle, slot),
            Signal::Removed(peer) => self.queries.removed(&peer),
            Signal::Sought(peer) => {
                let asked = self.signals.seek(cx.now, peer);
                if !self.queries.seek(cx.now, peer) && !asked {
                    lifecycle.seek_ended(cx, &peer);
                }
            }
            Signal::SeekEnded(peer) => {
                if !self.signals.is_seeking(&peer) && !self.queries.is_seeking(&peer) {
                    lifecycle.seek_ended(cx, &peer);
                }
            }
            Signal::Known | Signal::Pinned => self.vigil.stir(),
            Signal::AddressesChanged => {
                self.queries.addresses_changed(cx.now);
                self.signals.addresses_changed(cx.now);
            }
        }
    }

    pub(crate) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, nat: &NatPolicy) {
        let others = self.targets.has_others() || self.signals.is_in_the_dark();
        self.vigil.step(cx, lifecycle, others);
        self.targets.step(cx, lifecycle);
        self.queries.step(cx, lifecycle, nat);
        self.signals.step(cx, lifecycle, nat);
    }

    pub(crate) fn deadline(&self, config: &Config, nat: &NatPolicy) -> Option<Time> {
        let targets = self.targets.deadline(config.role);
        let queries = self.queries.deadline(config, nat);
        let signals = self.signals.deadline(config, nat);
        targets.into_iter().chain(queries).chain(signals).chain(self.vigil.deadline(config)).min()
    }

    /// The targets that are wanted now.
    pub(crate) const fn wants(&self) -> &BTreeMap<TargetId, Want> {
        self.targets.wants()
    }

    pub(crate) const fn health(&self) -> (Health, Time) {
        self.vigil.health()
    }

    pub(crate) fn routing_table(&self) -> u32 {
        self.queries.table_len()
    }

    pub(crate) fn signal_servers(&self) -> impl Iterator<Item = SignalView<'_>> {
        self.signals.views()
    }

    pub(crate) fn views(&self, config: &Config) -> impl Iterator<Item = BootstrapView<'_>> {
        self.targets.views(config.role)
    }
}
