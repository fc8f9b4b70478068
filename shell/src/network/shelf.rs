//! What others ask this node to keep in the hash table: signed peer records, who belongs to which network, and who
//! relays for it.
//!
//! Bounded, and nothing gets in unverified. libp2p's own store keeps whatever came last, so an old record could replace
//! a newer one; it gives no room back when records expire; and to each question it names the same providers first, so
//! the 21st member of a network would never be found.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{HashMap, hash_map},
    iter,
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{
        K_VALUE, ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result},
    },
};

use super::{
    behaviour::NetworkKeys,
    ids::{self, told_address},
    record::{self, BadRecord, MAX_ADDRESSES},
};

/// Keys with providers, the network's own not counted.
const MAX_KEYS: usize = 64;
/// Providers of one key other than the network's.
const MAX_PROVIDERS: usize = K_VALUE.get();

/// Why something is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotKept {
    /// The record is none, or forged.
    Bad(BadRecord),
    /// The same or a newer one is there.
    Old,
    /// It is our own: of an earlier run, or of a machine that has our identity.
    Own {
        /// Its sequence number.
        seq: u64,
    },
    /// No room.
    Full,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shelf {
    local: PeerId,
    /// The keys of the network's members and relays, which get more room.
    network: NetworkKeys,
    max_records: usize,
    max_members: usize,
    records: HashMap<RecordKey, Record>,
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
    /// Where the next answer about providers begins.
    turn: Cell<usize>,
}

impl Shelf {
    /// Room for the records of `max_peers` peers (2 KiB each at most), and for as many members and relays.
    pub(super) fn new(local: PeerId, network: NetworkKeys, max_peers: usize) -> Self {
        Self {
            local,
            network,
            max_records: max_peers,
            max_members: max_peers,
            records: HashMap::new(),
            providers: HashMap::new(),
            turn: Cell::new(0),
        }
    }

    /// Keeps a record that somebody brought, if it is verified and newer than what is there. Who brought it does not
    /// matter.
    pub(super) fn offer(&mut self, record: Record) -> std::result::Result<(), NotKept> {
        let new = record::verify(&record.key, &record.value).map_err(NotKept::Bad)?;
        if new.peer_id() == self.local {
            return Err(NotKept::Own { seq: new.seq() });
        }
        if let Some(kept) = self.records.get(&record.key)
            && !kept.is_expired(Instant::now())
            && record::verify(&kept.key, &kept.value).is_ok_and(|kept| kept.seq() >= new.seq())
        {
            return Err(NotKept::Old);
        }
        self.put(record).map_err(|_| NotKept::Full)
    }

    /// Where a provider said that it is.
    pub(super) fn addresses_of(&self, key: &RecordKey, provider: &PeerId) -> &[Multiaddr] {
        let mut providers = self.providers.get(key).into_iter().flatten();
        providers.find(|kept| kept.provider == *provider).map_or(&[], |kept| &kept.addresses)
    }

    /// Keeps a provider that announced itself, with those of its addresses that mean something to others.
    pub(super) fn offer_provider(&mut self, mut provider: ProviderRecord) -> std::result::Result<(), NotKept> {
        provider.addresses.retain(|address| match ids::endpoint(address) {
            Some((ip, ..)) => kinfolk_core::Scope::of(ip).is_global(),
            None => told_address(address).is_some(),
        });
        provider.addresses.truncate(MAX_ADDRESSES);
        self.add_provider(provider).map_err(|_| NotKept::Full)
    }

    fn strange_keys(&self) -> usize {
        self.providers.keys().filter(|key| !self.network.contain(key)).count()
    }
}

impl RecordStore for Shelf {
    type RecordsIter<'a> = iter::Map<hash_map::Values<'a, RecordKey, Record>, fn(&'a Record) -> Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.records.get(key).map(Cow::Borrowed)
    }

    fn put(&mut self, record: Record) -> Result<()> {
        if record.value.len() > record::MAX_RECORD {
            return Err(Error::ValueTooLarge);
        }
        // Our own always has room.
        let own = record.key == record::key_of(&self.local);
        if !own && self.records.len() >= self.max_records && !self.records.contains_key(&record.key) {
            let now = Instant::now();
            self.records.retain(|_, record| !record.is_expired(now));
            if self.records.len() >= self.max_records {
                return Err(Error::MaxRecords);
            }
        }
        self.records.insert(record.key.clone(), record);
        Ok(())
    }

    fn remove(&mut self, key: &RecordKey) {
        self.records.remove(key);
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        self.records.values().map(Cow::Borrowed)
    }

    fn add_provider(&mut self, provider: ProviderRecord) -> Result<()> {
        let now = Instant::now();
        let network = self.network.contain(&provider.key);
        if !network && !self.providers.contains_key(&provider.key) && self.strange_keys() >= MAX_KEYS {
            self.providers.retain(|_, of_key| {
                of_key.retain(|provider| !provider.is_expired(now));
                !of_key.is_empty()
            });
            if self.strange_keys() >= MAX_KEYS {
                return Err(Error::MaxProvidedKeys);
            }
        }
        let max = if network { self.max_members } else { MAX_PROVIDERS };
        let of_key = self.providers.entry(provider.key.clone()).or_default();
        if let Some(kept) = of_key.iter_mut().find(|kept| kept.provider == provider.provider) {
            *kept = provider;
            return Ok(());
        }
        if of_key.len() >= max && provider.provider != self.local {
            of_key.retain(|provider| !provider.is_expired(now));
            if of_key.len() >= max {
                return Err(Error::MaxRecords);
            }
        }
        of_key.push(provider);
        Ok(())
    }

    /// All of them, beginning with others each time: an answer has room for 20.
    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let Some(of_key) = self.providers.get(key) else { return vec![] };
        let mut providers = of_key.clone();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(K_VALUE.get()));
        let start = turn % providers.len().max(1);
        providers.rotate_left(start);
        providers
    }

    /// None: the core announces membership again, not Kademlia.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if let hash_map::Entry::Occupied(mut entry) = self.providers.entry(key.clone()) {
            entry.get_mut().retain(|kept| &kept.provider != provider);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use libp2p::identity::Keypair;

    use super::*;

    fn shelf(max: usize) -> (Shelf, RecordKey) {
        let network = NetworkKeys::of("test");
        (Shelf::new(PeerId::random(), network.clone(), max), network.members)
    }

    fn record(key: &Keypair, seq: u64, expires: Option<Instant>) -> Record {
        let address: Multiaddr = "/ip4/45.10.20.1/tcp/1".parse().unwrap();
        let value = record::sign(key, seq, &[address]).unwrap();
        let mut record = Record::new(record::key_of(&key.public().to_peer_id()), value);
        record.expires = expires;
        record
    }

    fn past() -> Option<Instant> {
        Some(Instant::now() - Duration::from_secs(1))
    }

    #[test]
    fn an_old_record_never_replaces_a_newer_one() {
        let (mut shelf, _) = shelf(8);
        let key = Keypair::generate_ed25519();
        assert_eq!(shelf.offer(record(&key, 5, None)), Ok(()));
        assert_eq!(shelf.offer(record(&key, 4, None)), Err(NotKept::Old));
        assert_eq!(shelf.offer(record(&key, 5, None)), Err(NotKept::Old));
        assert_eq!(shelf.offer(record(&key, 6, past())), Ok(()));
        assert_eq!(shelf.offer(record(&key, 1, None)), Ok(()), "an expired one counts no more");
    }

    #[test]
    fn a_forged_record_never_gets_in() {
        let (mut shelf, _) = shelf(8);
        let key = Keypair::generate_ed25519();
        let mut forged = record(&key, 5, None);
        forged.key = record::key_of(&PeerId::random());
        assert_eq!(shelf.offer(forged), Err(NotKept::Bad(BadRecord::Signature)));
        assert_eq!(shelf.records().count(), 0);
    }

    #[test]
    fn expired_records_make_room_and_our_own_always_has_it() {
        let (mut shelf, _) = shelf(2);
        let keys: Vec<_> = (0..4).map(|_| Keypair::generate_ed25519()).collect();
        assert_eq!(shelf.offer(record(&keys[0], 1, None)), Ok(()));
        assert_eq!(shelf.offer(record(&keys[1], 1, past())), Ok(()));
        assert_eq!(shelf.offer(record(&keys[2], 1, None)), Ok(()));
        assert_eq!(shelf.offer(record(&keys[3], 1, None)), Err(NotKept::Full));
        shelf.local = keys[3].public().to_peer_id();
        assert!(shelf.put(record(&keys[3], 1, None)).is_ok());
    }

    #[test]
    fn every_member_is_named_in_some_answer() {
        let (mut shelf, network) = shelf(100);
        let members: HashSet<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        for member in &members {
            shelf.offer_provider(ProviderRecord::new(network.clone(), *member, vec![])).unwrap();
        }
        let mut named = HashSet::new();
        for _ in 0..5 {
            named.extend(shelf.providers(&network).into_iter().take(K_VALUE.get()).map(|provider| provider.provider));
        }
        assert_eq!(named, members);
    }

    #[test]
    fn strangers_keys_leave_room_for_the_network() {
        let (mut shelf, network) = shelf(2);
        for key in 0..MAX_KEYS as u8 {
            let key = RecordKey::from(vec![key]);
            assert_eq!(shelf.offer_provider(ProviderRecord::new(key, PeerId::random(), vec![])), Ok(()));
        }
        let other = || ProviderRecord::new(RecordKey::from(b"one more".to_vec()), PeerId::random(), vec![]);
        let member = || ProviderRecord::new(network.clone(), PeerId::random(), vec![]);
        assert_eq!(shelf.offer_provider(other()), Err(NotKept::Full));
        assert_eq!(shelf.offer_provider(member()), Ok(()));
        assert_eq!(shelf.offer_provider(member()), Ok(()));
        assert_eq!(shelf.offer_provider(member()), Err(NotKept::Full));
        let mut expired = shelf.providers(&network).remove(0);
        expired.expires = past();
        assert_eq!(shelf.offer_provider(expired), Ok(()));
        assert_eq!(shelf.offer_provider(member()), Ok(()));
    }

    #[test]
    fn a_provider_is_kept_with_few_and_useful_addresses() {
        let (mut shelf, network) = shelf(2);
        let mut addresses: Vec<Multiaddr> = vec!["/ip4/192.168.1.1/tcp/1".parse().unwrap()];
        addresses.extend((1..40).map(|n| -> Multiaddr { format!("/ip4/45.10.20.1/tcp/{n}").parse().unwrap() }));
        shelf.offer_provider(ProviderRecord::new(network.clone(), PeerId::random(), addresses.clone())).unwrap();
        assert_eq!(shelf.providers(&network)[0].addresses, addresses[1..=MAX_ADDRESSES]);
    }
}
