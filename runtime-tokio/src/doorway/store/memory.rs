//! Records in this process's memory: a backing of its own, and what the one on disk answers from.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::FutureExt;
use indexmap::{IndexMap, IndexSet};
use kinfolk_shell::signal::{
    key::PeerKey,
    types::{Backing, Service},
};

use super::{Answer, Ended, FLOOR_KEPT, Kept, Offer, Room, Sample, Services, Store, Taken, first_places};

/// Records that are gone with the process.
#[derive(Debug)]
pub struct Memory(Mutex<Shelf>);

impl Memory {
    /// Empty, for these networks.
    pub fn new(networks: &[String], room: Room) -> Self {
        Self(Mutex::new(Shelf::new(networks, room)))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn backing(&self) -> Backing {
        Backing::Memory
    }

    fn put<'a>(&'a self, offer: Offer<'a>, now: u64) -> Answer<'a, Taken> {
        async move { Ok(self.shelf().put(&offer, now)) }.boxed()
    }

    fn end<'a>(&'a self, network: &'a str, key: PeerKey, seq: u64, now: u64) -> Answer<'a, Ended> {
        async move { Ok(self.shelf().end(network, key, seq, now)) }.boxed()
    }

    fn get<'a>(&'a self, network: &'a str, key: PeerKey, now: u64) -> Answer<'a, Option<Kept>> {
        async move { Ok(self.shelf().get(network, key, now)) }.boxed()
    }

    fn sample<'a>(&'a self, network: &'a str, limit: usize, service: Option<Service>, now: u64) -> Answer<'a, Sample> {
        async move { Ok(self.shelf().sample(network, limit, service, now)) }.boxed()
    }

    fn total<'a>(&'a self, network: &'a str, now: u64) -> Answer<'a, u64> {
        async move { Ok(self.shelf().total(network, now)) }.boxed()
    }

    fn check(&self) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }

    fn close(&self) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }
}

/// All records and floors. What is over is put away before anything else is done, so nothing needs a timer.
#[derive(Debug)]
pub(super) struct Shelf {
    networks: HashMap<String, Shelves>,
    room: Room,
    dice: Dice,
}

#[derive(Debug, Default)]
struct Shelves {
    live: IndexMap<PeerKey, Live>,
    /// Those of them with services.
    serving: IndexSet<PeerKey>,
    /// What was the highest number of records that are over.
    floors: HashMap<PeerKey, Floor>,
    /// When records end.
    ends: BTreeSet<(u64, PeerKey)>,
    /// When floors are forgotten.
    forgotten: BTreeSet<(u64, PeerKey)>,
    /// Live records by where they came from.
    crowd: HashMap<IpAddr, u32>,
    /// What has changed since it was last written to disk. `None`: nobody writes.
    changed: Option<HashSet<PeerKey>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Live {
    record: Box<[u8]>,
    seq: u64,
    expires: u64,
    prefix: IpAddr,
    services: Services,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Floor {
    seq: u64,
    until: u64,
}

/// What is known of a peer, for the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// A live record.
    Live { seq: u64, expires: u64, services: u8, prefix: IpAddr, record: Box<[u8]> },
    /// A record that is over.
    Over { seq: u64, until: u64 },
}

impl Shelf {
    pub(super) fn new(networks: &[String], room: Room) -> Self {
        let networks = networks.iter().map(|name| (name.clone(), Shelves::default())).collect();
        Self { networks, room, dice: Dice::default() }
    }

    /// From now on, notes what changes.
    pub(super) fn note_changes(&mut self) {
        for shelves in self.networks.values_mut() {
            shelves.changed = Some(HashSet::new());
        }
    }

    /// What has changed since the last call; `None`: nothing is known of that peer any more.
    pub(super) fn take_changes(&mut self) -> Vec<(String, PeerKey, Option<Entry>)> {
        let mut all = Vec::new();
        for (name, shelves) in &mut self.networks {
            let Some(changed) = &mut shelves.changed else { continue };
            for key in std::mem::take(changed) {
                let live = shelves.live.get(&key).map(|live| Entry::Live {
                    seq: live.seq,
                    expires: live.expires,
                    services: live.services.bits(),
                    prefix: live.prefix,
                    record: live.record.clone(),
                });
                let over = || shelves.floors.get(&key).map(|floor| Entry::Over { seq: floor.seq, until: floor.until });
                all.push((name.clone(), key, live.or_else(over)));
            }
        }
        all
    }

    /// That these could not be written after all.
    pub(super) fn change_again(&mut self, keys: impl Iterator<Item = (String, PeerKey)>) {
        for (name, key) in keys {
            if let Some(changed) = self.networks.get_mut(&name).and_then(|shelves| shelves.changed.as_mut()) {
                changed.insert(key);
            }
        }
    }

    /// Puts back what was on disk, as far as there is room.
    pub(super) fn restore(&mut self, network: &str, key: PeerKey, entry: Entry) {
        let room = self.room.records as usize;
        let Some(shelves) = self.networks.get_mut(network) else { return };
        match entry {
            Entry::Live { seq, expires, services, prefix, record } if shelves.live.len() < room => {
                shelves.insert(key, Live { record, seq, expires, prefix, services: Services::from_bits(services) });
            }
            Entry::Over { seq, until } => shelves.keep_floor(key, seq, until, room),
            Entry::Live { .. } => {}
        }
    }

    pub(super) fn put(&mut self, offer: &Offer<'_>, now: u64) -> Taken {
        let Room { records, per_prefix } = self.room;
        let Some(shelves) = self.networks.get_mut(offer.network) else { return Taken::Full };
        shelves.sweep(now, records as usize);
        let before = shelves.live.get(&offer.key);
        match (before, shelves.floors.get(&offer.key)) {
            (Some(live), _) if live.seq == offer.seq && *live.record == *offer.record => {
                return Taken::Before { expires: live.expires };
            }
            (Some(Live { seq, .. }), _) | (None, Some(Floor { seq, .. })) if *seq >= offer.seq => {
                return Taken::Stale { seq: *seq };
            }
            _ => {}
        }
        if before.is_none() && shelves.live.len() >= records as usize {
            return Taken::Full;
        }
        let moved = before.is_none_or(|live| live.prefix != offer.prefix);
        if moved && shelves.crowd.get(&offer.prefix).copied().unwrap_or_default() >= per_prefix {
            return Taken::Crowded;
        }
        shelves.remove(&offer.key);
        let Offer { key, seq, expires, prefix, services, .. } = *offer;
        shelves.insert(key, Live { record: offer.record.into(), seq, expires, prefix, services });
        Taken::Yes
    }

    pub(super) fn end(&mut self, network: &str, key: PeerKey, seq: u64, now: u64) -> Ended {
        let room = self.room.records as usize;
        let Some(shelves) = self.networks.get_mut(network) else { return Ended::Nothing };
        shelves.sweep(now, room);
        match (shelves.live.get(&key), shelves.floors.get(&key)) {
            (Some(Live { seq: known, .. }), _) if *known >= seq => Ended::Stale { seq: *known },
            (None, Some(Floor { seq: known, .. })) if *known > seq => Ended::Stale { seq: *known },
            // Nothing is remembered of what was never there: anybody can make keys.
            (None, None) => Ended::Nothing,
            (live, _) => {
                let ended = if live.is_some() { Ended::Yes } else { Ended::Nothing };
                shelves.remove(&key);
                shelves.keep_floor(key, seq, now + FLOOR_KEPT.as_secs(), room);
                ended
            }
        }
    }

    pub(super) fn get(&mut self, network: &str, key: PeerKey, now: u64) -> Option<Kept> {
        let live = self.networks.get(network)?.live.get(&key).filter(|live| live.expires > now)?;
        Some(live.kept(key))
    }

    pub(super) fn sample(&mut self, network: &str, limit: usize, service: Option<Service>, now: u64) -> Sample {
        let room = self.room.records as usize;
        let Some(shelves) = self.networks.get_mut(network) else { return Sample::default() };
        shelves.sweep(now, room);
        let total = shelves.live.len() as u64;
        let mut drawn = IndexMap::new();
        let first = if service.is_some() { limit } else { first_places(limit) };
        let serving = shelves.serving.len();
        for at in self.dice.distinct(serving, if service.is_some() { serving } else { first }) {
            let Some((key, live)) = shelves.serving.get_index(at).and_then(|key| shelves.live.get_key_value(key))
            else {
                continue;
            };
            if drawn.len() < first && service.is_none_or(|service| live.services.has(service)) {
                drawn.insert(*key, live.kept(*key));
            }
        }
        if service.is_none() {
            for at in self.dice.distinct(shelves.live.len(), limit) {
                let Some((key, live)) = shelves.live.get_index(at) else { continue };
                if drawn.len() < limit {
                    drawn.entry(*key).or_insert_with(|| live.kept(*key));
                }
            }
        }
        (drawn.into_values().collect(), total)
    }

    pub(super) fn total(&mut self, network: &str, now: u64) -> u64 {
        let room = self.room.records as usize;
        self.networks.get_mut(network).map_or(0, |shelves| {
            shelves.sweep(now, room);
            shelves.live.len() as u64
        })
    }
}

impl Shelves {
    fn insert(&mut self, key: PeerKey, live: Live) {
        if let Some(floor) = self.floors.remove(&key) {
            self.forgotten.remove(&(floor.until, key));
        }
        self.ends.insert((live.expires, key));
        if !live.services.is_empty() {
            self.serving.insert(key);
        }
        *self.crowd.entry(live.prefix).or_default() += 1;
        self.live.insert(key, live);
        self.note(key);
    }

    fn remove(&mut self, key: &PeerKey) -> Option<Live> {
        let live = self.live.swap_remove(key)?;
        self.ends.remove(&(live.expires, *key));
        self.serving.swap_remove(key);
        if let Some(crowd) = self.crowd.get_mut(&live.prefix) {
            *crowd -= 1;
            if *crowd == 0 {
                self.crowd.remove(&live.prefix);
            }
        }
        self.note(*key);
        Some(live)
    }

    fn keep_floor(&mut self, key: PeerKey, seq: u64, until: u64, room: usize) {
        if let Some(before) = self.floors.insert(key, Floor { seq, until }) {
            self.forgotten.remove(&(before.until, key));
        }
        self.forgotten.insert((until, key));
        self.note(key);
        if self.floors.len() > room {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.forgotten.pop_first() {
            self.floors.remove(&key);
            self.note(key);
        }
    }

    /// Turns what is over into floors, and forgets those that are due. Each record is swept once.
    fn sweep(&mut self, now: u64, room: usize) {
        while let Some(&(end, key)) = self.ends.first().filter(|(end, _)| *end <= now) {
            match self.remove(&key) {
                Some(live) => self.keep_floor(key, live.seq, end + FLOOR_KEPT.as_secs(), room),
                None => _ = self.ends.pop_first(),
            }
        }
        while self.forgotten.first().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn note(&mut self, key: PeerKey) {
        if let Some(changed) = &mut self.changed {
            changed.insert(key);
        }
    }
}

impl Live {
    fn kept(&self, key: PeerKey) -> Kept {
        Kept { key, record: self.record.to_vec(), services: self.services, expires: self.expires }
    }
}

/// Numbers that nobody outside can foresee: a keyed hash of a counter.
#[derive(Debug, Default)]
pub(super) struct Dice {
    key: RandomState,
    thrown: AtomicU64,
}

impl Dice {
    fn below(&self, n: usize) -> usize {
        let thrown = self.key.hash_one(self.thrown.fetch_add(1, Ordering::Relaxed));
        // The high half of the product: as even as 64 bits allow.
        ((u128::from(thrown) * n as u128) >> 64) as usize
    }

    /// `count` distinct numbers below `n`, in random order (Floyd); all of them if there are no more.
    fn distinct(&self, n: usize, count: usize) -> Vec<usize> {
        let count = count.min(n);
        let mut drawn = IndexSet::with_capacity(count);
        for upper in n - count..n {
            let at = self.below(upper + 1);
            if !drawn.insert(at) {
                drawn.insert(upper);
            }
        }
        let mut drawn: Vec<_> = drawn.into_iter().collect();
        self.shuffle(&mut drawn);
        drawn
    }

    /// Any order, each as likely as any other.
    pub(super) fn shuffle<T>(&self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_is_even() {
        let dice = Dice::default();
        let mut times = [0_u32; 20];
        for _ in 0..4_000 {
            let drawn = dice.distinct(20, 5);
            assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 5);
            for at in drawn {
                times[at] += 1;
            }
        }
        // 1 000 each on average, with a standard deviation of 27.
        assert!(times.iter().all(|times| (800..1_200).contains(times)), "{times:?}");
        assert_eq!(dice.distinct(3, 10).len(), 3);
        assert_eq!(dice.distinct(0, 10).len(), 0);
    }

    #[test]
    fn every_index_is_empty_when_everything_is_over() {
        let mut shelf = Shelf::new(&["n".to_owned()], Room { records: 50, per_prefix: 50 });
        for n in 0..100_u8 {
            let prefix = IpAddr::from([45, 0, n, 0]);
            let services = Services::from_bits(n);
            let offer = Offer {
                network: "n",
                key: PeerKey([n; 32]),
                seq: 1,
                record: b"r",
                services,
                expires: 100 + u64::from(n),
                prefix,
            };
            assert_eq!(shelf.put(&offer, 10), if n < 50 { Taken::Yes } else { Taken::Full });
        }
        assert_eq!(shelf.total("n", 100_000), 0);
        let shelves = &shelf.networks["n"];
        assert!(shelves.live.is_empty() && shelves.serving.is_empty() && shelves.ends.is_empty());
        assert!(shelves.crowd.is_empty() && shelves.floors.is_empty() == shelves.forgotten.is_empty());
        assert_eq!(shelf.total("n", 100_000 + FLOOR_KEPT.as_secs()), 0);
        assert!(shelf.networks["n"].floors.is_empty() && shelf.networks["n"].forgotten.is_empty());
    }
}
