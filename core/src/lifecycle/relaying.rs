//! What the peer table knows of relays.

use alloc::vec::Vec;
use core::time::Duration;

use super::PeerLifecycle;
use crate::{
    cx::Cx,
    nat,
    peers::{Lane, Peer, RelayUse, Slot},
    vocabulary::{Address, ConnectionId, PeerAddress, Reason, Source, Time, Transport},
};

/// A pinned peer that is away for longer may be one that can't reach us, whatever probes have said.
const MISSED: Duration = Duration::from_secs(60);

impl PeerLifecycle {
    /// Takes over the relays of the settings.
    pub(super) fn configure_relays(&mut self, cx: &mut Cx<'_>) {
        for slot in self.peers.slots() {
            let peer = self.peers.at_mut(slot);
            let named = cx.config.nat.relays.iter().any(|relay| relay.peer == Some(peer.id));
            if peer.relay_by_settings && !named {
                peer.relay_by_settings = false;
                self.settle(cx, slot);
            }
        }
        for relay in &cx.config.nat.relays {
            let PeerAddress { peer: Some(peer), address: Some(address) } = relay else { continue };
            if let Some(slot) = self.admit(cx, *peer, Source::Configured) {
                self.peers.at_mut(slot).relay_by_settings = true;
                self.learn(cx, Source::Configured, *peer, core::slice::from_ref(address), 0);
                self.settle(cx, slot);
            }
        }
    }

    /// Peers that are here and can be asked to relay.
    pub(crate) fn relay_candidates(&self) -> impl Iterator<Item = (Slot, &Peer)> {
        let connected = self.connected.iter().map(|slot| (*slot, self.peers.at(*slot)));
        connected.filter(|(_, peer)| nat::is_relay_candidate(peer))
    }

    /// Relays that are known, not here, and could be dialled, the settings' first.
    pub(crate) fn absent_relays(&self, cx: &Cx<'_>, may_ask: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let absent = |slot: &Slot| {
            let peer = self.peers.at(*slot);
            !peer.is_connected() && super::is_dialable(cx.here, peer) && may_ask(*slot)
        };
        let mut absent: Vec<Slot> = self.relays.iter().copied().filter(absent).collect();
        absent.sort_by_key(|slot| {
            let peer = self.peers.at(*slot);
            (!peer.relay_by_settings, peer.book.iter().map(|known| known.failures).min(), *slot)
        });
        absent
    }

    /// What a peer is to us as a relay from now on.
    pub(crate) fn use_relay(&mut self, cx: &mut Cx<'_>, slot: Slot, usage: RelayUse) {
        let peer = self.peers.at_mut(slot);
        if peer.relay != usage {
            peer.relay = usage;
            self.settle(cx, slot);
        }
    }

    /// A relay keeps a place for us; worth remembering across restarts.
    pub(crate) fn relay_held(&mut self, cx: &mut Cx<'_>, slot: Slot) {
        let peer = self.peers.at_mut(slot);
        peer.relay = RelayUse::Held;
        if !core::mem::replace(&mut peer.relay_known, true) {
            self.remember(cx, slot, Reason::ConnectionMade);
        }
        self.settle(cx, slot);
    }

    /// Whether every way to this peer leads through a relay that is being dialled: the library has a circuit fail while
    /// another dial to its relay is under way.
    pub(super) fn awaits_relay(&self, cx: &Cx<'_>, peer: &Peer) -> bool {
        let mut ways = self.usable(cx, peer, Lane::Relayed).filter(|known| known.retry_at <= cx.now).peekable();
        ways.peek().is_some() && ways.all(|known| self.is_relay_dialled(&known.address))
    }

    fn is_relay_dialled(&self, address: &Address) -> bool {
        let Address::Relayed(circuit) = address else { return false };
        let relay = self.peers.by_id(&circuit.relay);
        if relay.is_some_and(|relay| relay.is_direct()) {
            return false;
        }
        let by_us = relay.is_some_and(|relay| relay.is_dialing(Lane::Direct) || relay.queued.is_some());
        by_us || circuit.via.as_ref().and_then(Address::host_ip).is_some_and(|ip| self.dialer.is_dialing(ip))
    }

    /// A dial has ended: whoever waits for a relay may go on.
    pub(super) fn go_on_awaiting(&mut self, cx: &mut Cx<'_>) {
        for slot in core::mem::take(&mut self.awaiting_relay) {
            self.settle(cx, slot);
        }
    }

    /// From when on a pinned peer counts as missed, the first one: it is not here for so long, or relayed only. `None`
    /// while all are directly connected.
    pub(crate) fn misses_pinned_from(&self) -> Option<Time> {
        let all = || self.pinned.iter().filter(|slot| is_apart(self.peers.at(**slot)));
        debug_assert!(all().eq(&self.apart), "a peer was touched and not settled");
        let from = |peer: &Peer| {
            if peer.is_connected() { Time::ZERO } else { peer.last_seen.unwrap_or(Time::ZERO) + MISSED }
        };
        self.apart.iter().map(|slot| from(self.peers.at(*slot))).min()
    }

    /// How many relays are held and wanted: the reason for which relays are dialled.
    pub(crate) const fn set_relays(&mut self, held: u32, wanted: u32) {
        self.relays_held_and_wanted = (held, wanted);
    }

    /// The relay that is to see us by both transports, from now on.
    pub(crate) fn set_witness(&mut self, cx: &mut Cx<'_>, witness: Option<Slot>) {
        let before = core::mem::replace(&mut self.witness, witness);
        if before == witness {
            return;
        }
        for slot in before.into_iter().chain(witness) {
            if self.peers.get(slot).is_some() {
                self.settle(cx, slot);
            }
        }
    }

    /// A relay that keeps a place for us is connected by both transports where the settings name it (TCP shows at once that
    /// its program has ended, QUIC in a minute) or it is the witness. With others one connection will do: they may be nodes
    /// of the family.
    fn takes_both(&self, peer: &Peer) -> bool {
        let witness = self.witness.and_then(|slot| self.peers.get(slot)).is_some_and(|witness| witness.id == peer.id);
        peer.relay == RelayUse::Held && (peer.relay_by_settings || peer.bootstrap || witness)
    }

    /// A relay is to be dialled by this transport, too.
    pub(super) fn missing_transport(&self, peer: &Peer) -> Option<Transport> {
        if !self.takes_both(peer) {
            return None;
        }
        let has = |transport| peer.direct().any(|connection| connection.address.transport() == Some(transport));
        match (has(Transport::Quic), has(Transport::Tcp)) {
            (true, false) => Some(Transport::Tcp),
            (false, true) => Some(Transport::Quic),
            (true, true) | (false, false) => None,
        }
    }

    /// Where one side relays for the other, the reservation sits on the oldest direct connection; and the client may need one
    /// by each transport.
    pub(super) fn connections_of_a_relay(&self, peer: &Peer) -> Vec<ConnectionId> {
        let oldest = |transport: Option<Transport>| {
            let fitting = peer.direct().filter(|one| transport.is_none() || one.address.transport() == transport);
            fitting.min_by_key(|one| (one.since, one.id)).map(|one| one.id)
        };
        let held = peer.relay == RelayUse::Held;
        let kinds: &[Option<Transport>] = if peer.served || self.takes_both(peer) {
            &[None, Some(Transport::Quic), Some(Transport::Tcp)]
        } else if held {
            &[None]
        } else {
            &[]
        };
        kinds.iter().copied().filter_map(oldest).collect()
    }

    /// A try to get a direct connection to this peer is under way, or over.
    pub(crate) fn set_punching(&mut self, slot: Slot, punching: bool) {
        self.peers.at_mut(slot).punching = punching;
        self.note_grace(slot);
    }

    /// Closes the direct connections to a peer.
    pub(crate) fn close_direct(&mut self, cx: &mut Cx<'_>, slot: Slot, reason: &Reason) {
        let direct: Vec<ConnectionId> = self.peers.at(slot).direct().map(|connection| connection.id).collect();
        for connection in direct {
            self.close(cx, slot, connection, reason.clone());
        }
        self.settle(cx, slot);
    }
}

/// Whether somebody who is to be here is not, or by a relay only.
pub(super) fn is_apart(peer: &Peer) -> bool {
    peer.pinned && !(peer.is_direct() || peer.blocked || peer.held_off)
}
