//! What is said about peers, by whom, and what of it is believed.

use alloc::{boxed::Box, vec::Vec};
use core::cmp::Reverse;

use super::PeerLifecycle;
use crate::{
    cx::{Cx, Here},
    peers::{Peer, Slot, Sources, Told},
    vocabulary::{
        Action, Address, Circuit, Notice, PeerId, Reason, Scope, SignalPeer, Source, StoredAddress, StoredPeer, Time,
    },
};

impl PeerLifecycle {
    /// `source` says that `peer` is at `addresses`. Returns its slot, if there is one.
    pub(crate) fn learn(
        &mut self,
        cx: &mut Cx<'_>,
        source: Source,
        peer: PeerId,
        addresses: &[Address],
        cut: u32,
    ) -> Option<Slot> {
        let here = cx.here;
        let mut believed = addresses.iter().filter(|address| is_believable(here, source, address)).peekable();
        let slot = match self.peers.find(&peer) {
            Some(slot) => slot,
            None => {
                believed.peek()?;
                self.admit(cx, peer, source)?
            }
        };
        let known = self.peers.at_mut(slot);
        let (mut ignored, mut news) = (cut, false);
        for address in believed {
            let leads = |address: &Address, sources| is_reachable(here, address, sources);
            match known.book.told(source, address, cx.now, &cx.config.lifecycle, leads) {
                Told::Again => continue,
                Told::Known => {}
                // Whoever has turned us away is where it was.
                Told::New if known.turned_away > 0 => {}
                Told::New => known.hold_until = known.hold_until.min(cx.now),
                Told::Ignored => ignored += 1,
            }
            news = true;
        }
        if !news && ignored == 0 {
            return Some(slot);
        }
        if ignored > 0 {
            self.distrust(cx, slot, Reason::TooManyAddresses { ignored });
        }
        self.settle(cx, slot);
        Some(slot)
    }

    /// `source` no longer says so.
    pub(crate) fn unlearn(&mut self, cx: &mut Cx<'_>, source: Source, peer: &PeerId, addresses: &[Address]) {
        let Some(slot) = self.peers.find(peer) else { return };
        for address in addresses {
            self.peers.at_mut(slot).book.untold(source, address);
        }
        self.settle(cx, slot);
    }

    /// Whether the relay that an address leads through could be reached: it is here, or it is known where it is.
    pub(super) fn has_relay_for(&self, here: &Here, address: &Address) -> bool {
        let Address::Relayed(circuit) = address else { return false };
        let relay = self.peers.by_id(&circuit.relay);
        if relay.is_some_and(|relay| relay.blocked || relay.held_off) {
            return false;
        }
        let known = |relay: &Peer| {
            relay.is_direct()
                || relay
                    .book
                    .iter()
                    .any(|known| !known.address.is_relayed() && is_usable(here, relay, &known.address, known.sources))
        };
        circuit.via.is_some() || relay.is_some_and(known)
    }

    /// The same way through a relay, with the place of the relay: where a connection to it stands, or as it is known.
    pub(super) fn through(&self, here: &Here, address: &Address) -> Address {
        let Address::Relayed(circuit) = address else { return address.clone() };
        let relay = self.peers.by_id(&circuit.relay);
        let standing = relay.and_then(|relay| relay.direct().next()).map(|connection| &connection.address);
        let known = || {
            let usable = relay?.book.iter().filter(|known| !known.address.is_relayed());
            let usable = usable.filter(|known| is_reachable(here, &known.address, known.sources));
            usable.min_by_key(|known| (known.failures, !known.proven)).map(|known| &known.address)
        };
        let via = standing.or(circuit.via.as_ref()).or_else(known).cloned();
        Address::Relayed(Box::new(Circuit { relay: circuit.relay, via }))
    }

    /// A signal server tells of a peer. A signed record is all that the peer says of itself: it takes the place of an
    /// older one, and of whatever is only the server's word.
    pub(crate) fn signalled(&mut self, cx: &mut Cx<'_>, told: &SignalPeer) {
        if let Some(slot) = self.peers.find(&told.peer) {
            let known = self.peers.at_mut(slot);
            match told.seq {
                Some(seq) if is_outdated(known, seq) => return,
                Some(seq) if seq == known.record => {}
                Some(_) => known.book.untold_all(Source::Signal, &told.addresses),
                None if known.record > 0 && known.book.has_source(Source::Signal) => return,
                None => {}
            }
        }
        let Some(slot) = self.learn(cx, Source::Signal, told.peer, &told.addresses, 0) else { return };
        // Told too much, it may be gone again.
        let Some(slot) = self.peers.find(&told.peer).filter(|found| *found == slot) else { return };
        if let Some(seq) = told.seq {
            self.note_record(cx, slot, seq, Source::Signal);
        }
        if told.services.relay && !core::mem::replace(&mut self.peers.at_mut(slot).relay_known, true) {
            self.settle(cx, slot);
        }
    }

    /// A peer's own record lies in the hash table; without a number nobody knows how old it is.
    pub(crate) fn published(&mut self, cx: &mut Cx<'_>, peer: PeerId, addresses: &[Address], record: Option<u64>) {
        let known = self.peers.by_id(&peer);
        if known.zip(record).is_some_and(|(known, seq)| is_outdated(known, seq)) {
            return;
        }
        let slot = self.learn(cx, Source::Kademlia, peer, addresses, 0);
        let slot = slot.filter(|slot| self.peers.find(&peer) == Some(*slot));
        if let Some((slot, seq)) = slot.zip(record) {
            self.note_record(cx, slot, seq, Source::Kademlia);
        }
    }

    /// The number is remembered with those peers that the store has, so that the next run takes no older one.
    fn note_record(&mut self, cx: &mut Cx<'_>, slot: Slot, seq: u64, source: Source) {
        let peer = self.peers.at_mut(slot);
        let news = core::mem::replace(&mut peer.record, seq) != seq;
        let stored = peer.manual || (!peer.unstored && peer.book.iter().any(|known| known.proven));
        if news && stored {
            self.remember(cx, slot, Reason::FoundBy(source));
        }
    }

    /// It is said to relay for our network.
    pub(crate) fn mark_relay(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        if let Some(slot) = self.admit(cx, peer, Source::Kademlia) {
            self.peers.at_mut(slot).relay_known = true;
            self.settle(cx, slot);
        }
    }

    /// It is said to belong to our network.
    pub(crate) fn mark_member(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        if let Some(slot) = self.admit(cx, peer, Source::Kademlia) {
            self.peers.at_mut(slot).member = true;
            self.settle(cx, slot);
        }
    }

    /// What an earlier run knew.
    pub(super) fn recall(&mut self, cx: &mut Cx<'_>, stored: &StoredPeer) {
        let Some(slot) = self.admit(cx, stored.peer, Source::Store) else { return };
        let peer = self.peers.at_mut(slot);
        peer.pinned |= stored.pinned;
        peer.relay_known |= stored.relay;
        peer.record = peer.record.max(stored.record);
        let mut addresses: Vec<&StoredAddress> = stored.addresses.iter().collect();
        // What has worked lately comes first, and has room.
        addresses.sort_by_key(|told| Reverse(told.last_success));
        for told in addresses {
            let source = if told.source == Source::Manual { Source::Manual } else { Source::Store };
            if !is_believable(cx.here, source, &told.address) {
                continue;
            }
            peer.manual |= source == Source::Manual;
            peer.book.told(source, &told.address, cx.now, &cx.config.lifecycle, |_, _| true);
            if let Some(known) = peer.book.get_mut(&told.address) {
                known.proven |= told.proven;
                known.success_before = known.success_before.max(told.last_success);
            }
        }
        if stored.blocked {
            self.block(cx, slot);
        }
        self.settle(cx, slot);
    }

    pub(super) fn deny(&mut self, cx: &mut Cx<'_>, slot: Slot, reason: Reason) {
        let peer = self.peers.at_mut(slot);
        if !peer.denied {
            peer.denied = true;
            let (peer, routed) = (peer.id, core::mem::take(&mut peer.routed));
            if routed {
                cx.command(Action::Unroute { peer }, reason.clone());
            }
            cx.command(Action::Deny { peer }, reason);
        }
    }

    /// Says, at most once a minute and peer, that something was not taken.
    pub(super) fn distrust(&mut self, cx: &mut Cx<'_>, slot: Slot, reason: Reason) {
        let peer = self.peers.at_mut(slot);
        let said = peer.distrusted > Time::ZERO && peer.distrusted + cx.config.lifecycle.flap_window > cx.now;
        if !said {
            peer.distrusted = cx.now;
            let peer = peer.id;
            cx.tell(Notice::PeerDistrusted { peer }, reason);
        }
    }
}

/// Whether a record with this number says where the peer was before, and it is known where it is since: an old word is
/// better than none.
fn is_outdated(known: &Peer, seq: u64) -> bool {
    seq < known.record && !known.book.is_empty()
}

/// Whether a source can be believed in saying this. People may name anything that can be dialled at all; the home network
/// speaks only of itself; everyone else only of the internet, so nobody can make us scan our own network.
pub(crate) fn is_believable(here: &Here, source: Source, address: &Address) -> bool {
    let by_hand = Sources::one(source).by_hand();
    match address {
        Address::Ip { port: 0, .. } | Address::Name { port: 0, .. } => false,
        Address::Ip { ip, .. } => {
            let scope = Scope::of(*ip);
            match source {
                Source::Manual | Source::Configured | Source::Store => scope.is_dialable(),
                Source::Mdns => scope.is_dialable() && here.is_near(*ip) && !here.is_own(address) && !is_zoned(address),
                Source::Kademlia | Source::Signal | Source::Identify => scope.is_global(),
                Source::Inbound => false,
            }
        }
        Address::Name { .. } | Address::DnsAddr(_) => by_hand || source == Source::Store,
        Address::Relayed(circuit) => {
            by_hand || circuit.via.as_ref().is_none_or(|via| is_believable_relay(here, source, via))
        }
        Address::Other(_) => by_hand,
    }
}

fn is_believable_relay(here: &Here, source: Source, via: &Address) -> bool {
    !via.is_relayed() && source != Source::Inbound && is_believable(here, source, via)
}

/// An IPv6 link-local address says nothing without its interface, which multiaddrs of peers don't name.
fn is_zoned(address: &Address) -> bool {
    address.host_ip().is_some_and(|ip| ip.is_ipv6() && Scope::of(ip) == Scope::LinkLocal)
}

/// Whether an address of this peer that was believed can be dialled from where this machine is now.
pub(super) fn is_usable(here: &Here, peer: &Peer, address: &Address, sources: Sources) -> bool {
    address.relay() != Some(&peer.id) && is_reachable(here, address, sources)
}

/// Whether there is a way to an address from where this machine is now.
pub(super) fn is_reachable(here: &Here, address: &Address, sources: Sources) -> bool {
    if here.is_own(address) {
        return false;
    }
    match address {
        Address::Ip { ip, .. } => {
            let scope = Scope::of(*ip);
            let routed = (scope.is_global() || sources.by_hand()) && here.has_route(*ip);
            scope.is_loopback() || here.is_near(*ip) || routed
        }
        Address::Name { .. } | Address::DnsAddr(_) => here.is_online(),
        Address::Relayed(circuit) => circuit.via.as_ref().is_none_or(|via| is_reachable(here, via, sources)),
        Address::Other(_) => true,
    }
}
