//! The table of peers: who is known, where, and what stands.
//!
//! Peers sit in numbered slots; timers and queues speak of slots, so the order in which things fall due never depends
//! on peer ids (a trace can be redacted and still replays). Finding a slot by id is one look-up in a keyed hash table
//! that is never iterated.

mod book;
mod index;
mod peer;

pub(crate) use book::{Book, Known, Sources, Told};
pub(crate) use peer::{Connection, Dialing, Lane, Limit, Peer, Profile, RelayUse, Sync};

use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

use index::Index;

use crate::{
    jitter,
    vocabulary::{PeerId, Time},
};

/// A slot of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(into = "StoredTable", from = "StoredTable")
)]
pub(crate) struct PeerTable {
    slots: Vec<Option<Peer>>,
    free: Vec<Slot>,
    index: Index,
    key: u64,
    /// When each peer is looked at again. What is due within `SOON` is kept apart: it belongs to the few peers that
    /// something happens to, and costs the same however many others are known.
    soon: BTreeSet<(Time, Slot)>,
    later: BTreeSet<(Time, Slot)>,
    /// Running number of arrivals.
    arrivals: u64,
}

const SOON: Duration = Duration::from_secs(600);

impl PeerTable {
    pub(crate) fn new(key: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: Index::default(),
            key,
            soon: BTreeSet::new(),
            later: BTreeSet::new(),
            arrivals: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    pub(crate) fn find(&self, peer: &PeerId) -> Option<Slot> {
        let slots = &self.slots;
        let same = |slot: Slot| matches!(&slots[slot.0 as usize], Some(found) if found.id == *peer);
        self.index.find(jitter::file(self.key, peer), same)
    }

    /// The peer in a slot that is in use. Slots come from `find`, `insert`, timers and sets that are cleared with the
    /// peer, so an empty one is a fault of this crate.
    pub(crate) fn at(&self, slot: Slot) -> &Peer {
        self.get(slot).expect("the slot is in use")
    }

    pub(crate) fn at_mut(&mut self, slot: Slot) -> &mut Peer {
        self.slots[slot.0 as usize].as_mut().expect("the slot is in use")
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Peer> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub(crate) fn by_id(&self, peer: &PeerId) -> Option<&Peer> {
        self.find(peer).map(|slot| self.at(slot))
    }

    pub(crate) fn insert(&mut self, id: PeerId, now: Time) -> Slot {
        self.arrivals += 1;
        let peer = Peer::new(id, self.arrivals, now);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot.0 as usize] = Some(peer);
                slot
            }
            None => {
                let slot = Slot(self.slots.len() as u32);
                if self.slots.len() == self.slots.capacity() {
                    // Doubling would leave up to half of a large table empty.
                    self.slots.reserve_exact((self.slots.len() / 8).max(4));
                }
                self.slots.push(Some(peer));
                slot
            }
        };
        self.index.insert(jitter::file(self.key, &id), slot);
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Peer {
        let peer = self.slots[slot.0 as usize].take().expect("the slot is in use");
        self.index.remove(jitter::file(self.key, &peer.id), slot);
        self.soon.remove(&(peer.wake_soon, slot));
        self.later.remove(&(peer.wake_later, slot));
        self.free.push(slot);
        peer
    }

    /// Has the peer looked at again at `at` or earlier. A timer that is earlier, and still to come, is left alone: to
    /// move it on each sign of life would cost more than to look once in vain.
    pub(crate) fn set_timer(&mut self, slot: Slot, at: Time, now: Time) {
        let peer = self.slots[slot.0 as usize].as_mut().expect("the slot is in use");
        let is_soon = at < now + SOON;
        if peer.wake_soon != Time::MAX && (!is_soon || peer.wake_soon > at || peer.wake_soon <= now) {
            self.soon.remove(&(peer.wake_soon, slot));
            peer.wake_soon = Time::MAX;
        }
        if peer.wake_later <= now {
            self.later.remove(&(peer.wake_later, slot));
            peer.wake_later = Time::MAX;
        }
        if is_soon && peer.wake_soon == Time::MAX {
            peer.wake_soon = at;
            self.soon.insert((at, slot));
        }
        if !is_soon && peer.wake_later > at {
            self.later.remove(&(peer.wake_later, slot));
            peer.wake_later = at;
            self.later.insert((at, slot));
        }
    }

    pub(crate) fn next_timer(&self) -> Option<(Time, Slot)> {
        self.soon.first().into_iter().chain(self.later.first()).min().copied()
    }

    /// Slots, those whose timers fall due last first.
    pub(crate) fn by_timer_latest(&self) -> impl Iterator<Item = Slot> {
        self.later.iter().rev().chain(self.soon.iter().rev()).map(|(_, slot)| *slot)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Peer)> {
        self.iter_from(Slot::FIRST)
    }

    pub(crate) fn iter_from(&self, first: Slot) -> impl Iterator<Item = (Slot, &Peer)> {
        let slots = self.slots.iter().enumerate().skip(first.0 as usize);
        slots.filter_map(|(at, peer)| Some((Slot(at as u32), peer.as_ref()?)))
    }

    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.iter().map(|(slot, _)| slot).collect()
    }
}

/// The table as a checkpoint holds it: index and timers follow from the rest.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct StoredTable {
    slots: Vec<Option<Peer>>,
    free: Vec<Slot>,
    key: u64,
    arrivals: u64,
}

#[cfg(feature = "serde")]
impl From<PeerTable> for StoredTable {
    fn from(table: PeerTable) -> Self {
        let PeerTable { slots, free, key, arrivals, index: _, soon: _, later: _ } = table;
        Self { slots, free, key, arrivals }
    }
}

#[cfg(feature = "serde")]
impl From<StoredTable> for PeerTable {
    fn from(stored: StoredTable) -> Self {
        let StoredTable { slots, free, key, arrivals } = stored;
        let mut table = Self { slots, free, key, arrivals, ..Self::new(key) };
        let mut index = Index::default();
        let (mut soon, mut later) = (BTreeSet::new(), BTreeSet::new());
        for (slot, peer) in table.iter() {
            index.insert(jitter::file(key, &peer.id), slot);
            if peer.wake_soon != Time::MAX {
                soon.insert((peer.wake_soon, slot));
            }
            if peer.wake_later != Time::MAX {
                later.insert((peer.wake_later, slot));
            }
        }
        table.index = index;
        table.soon = soon;
        table.later = later;
        table
    }
}
