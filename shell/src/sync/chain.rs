//! How the entries of a log hang together.
//!
//! An entry's hash covers its author, epoch, number, the hash of the entry before, and its data. So one signature vouches
//! for everything before it in the same log: the author signs the last entry of each batch, and at least every 64th.
//! A range that ends in a signed entry can be checked by whoever knows the hash that it begins with, and two hashes of
//! one number, both under a signature, prove a fork.

use aws_lc_rs::digest::{Context, SHA256};
use kinfolk_core::{EntryHash, LogId, PeerId};
use libp2p::identity::{Keypair, PublicKey};

use super::log::Entry;

/// Bytes of one entry's data.
pub const MAX_ENTRY: usize = 64 * 1024;

/// At least every so many entries one is signed.
pub(crate) const BLOCK: usize = 64;

/// After so many bytes of data the next entry is signed.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;

/// Entries of one log: far more than anybody writes, and a number that every store can hold.
pub(crate) const MAX_POSITION: u64 = 1 << 40;

/// Epochs: as many as SQLite can count.
pub(crate) const MAX_EPOCH: u64 = i64::MAX as u64;

/// Ed25519 needs 64 bytes.
const MAX_SIGNATURE: usize = 128;

/// Why a range is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// It breaks a bound that every author keeps.
    Malformed,
    /// It is not signed by the author.
    Forged,
}

/// The place of a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) log: &'a LogId,
    /// The number of the entry before the first.
    pub(crate) since: u64,
    /// Its hash.
    pub(crate) before: EntryHash,
}

/// The hash of an entry.
fn hash(log: &LogId, position: u64, before: &EntryHash, data: &[u8]) -> EntryHash {
    let mut context = Context::new(&SHA256);
    context.update(b"kinfolk log entry 1\0");
    let author = log.author.as_bytes();
    context.update(&[u8::try_from(author.len()).unwrap_or(u8::MAX)]);
    context.update(author);
    context.update(&log.epoch.to_be_bytes());
    context.update(&position.to_be_bytes());
    context.update(&before.0);
    context.update(data);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    EntryHash(hash)
}

/// What the author signs. The hash covers everything else.
fn statement(hash: &EntryHash) -> [u8; 52] {
    let mut statement = [0; 52];
    statement[..20].copy_from_slice(b"kinfolk log head 1\0\0");
    statement[20..].copy_from_slice(&hash.0);
    statement
}

/// Makes entries of data: hashed, and signed where they have to be.
///
/// # Errors
/// When the key can't sign; the library's words.
pub(crate) fn write(place: Place<'_>, key: &Keypair, data: Vec<Vec<u8>>) -> Result<Vec<Entry>, String> {
    let Place { log, since, mut before } = place;
    let last = data.len().saturating_sub(1);
    let (mut unsigned, mut bytes) = (0, 0);
    let mut entries = Vec::with_capacity(data.len());
    for (at, (position, data)) in (since + 1..).zip(data).enumerate() {
        before = hash(log, position, &before, &data);
        unsigned += 1;
        bytes += data.len();
        let signature = if at == last || unsigned == BLOCK || bytes >= BLOCK_BYTES {
            (unsigned, bytes) = (0, 0);
            Some(key.sign(&statement(&before)).map_err(|error| error.to_string())?)
        } else {
            None
        };
        entries.push(Entry { position, hash: before, signature, data });
    }
    Ok(entries)
}

/// Checks a range that somebody sent: data, and signatures where there are any.
///
/// # Errors
/// When it is not the author's, does not end in a signature, or breaks a bound.
pub(crate) fn check(place: Place<'_>, items: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<Vec<Entry>, Wrong> {
    let Place { log, since, mut before } = place;
    let key = public_key(&log.author).ok_or(Wrong::Forged)?;
    let end = since.checked_add(items.len() as u64).ok_or(Wrong::Malformed)?;
    if log.epoch > MAX_EPOCH || end > MAX_POSITION || items.last().is_none_or(|(_, signature)| signature.is_none()) {
        return Err(Wrong::Malformed);
    }
    let (mut unsigned, mut bytes) = (0, 0);
    let mut entries = Vec::with_capacity(items.len());
    for (position, (data, signature)) in (since + 1..).zip(items) {
        unsigned += 1;
        bytes += data.len();
        if data.len() > MAX_ENTRY || unsigned > BLOCK || bytes > BLOCK_BYTES + MAX_ENTRY {
            return Err(Wrong::Malformed);
        }
        before = hash(log, position, &before, &data);
        if let Some(signature) = &signature {
            if signature.len() > MAX_SIGNATURE || !key.verify(&statement(&before), signature) {
                return Err(Wrong::Forged);
            }
            (unsigned, bytes) = (0, 0);
        }
        entries.push(Entry { position, hash: before, signature, data });
    }
    Ok(entries)
}

/// Whether stored entries still hang together: a disk may have changed them.
pub(crate) fn holds(place: Place<'_>, entries: &[Entry]) -> bool {
    let Place { log, since, mut before } = place;
    (since + 1..).zip(entries).all(|(position, entry)| {
        before = hash(log, position, &before, &entry.data);
        entry.position == position && entry.hash == before
    })
}

/// The key in an author's id. `None`: the id is the hash of a key, as those of RSA keys are; such authors have no log.
fn public_key(author: &PeerId) -> Option<PublicKey> {
    match author.as_bytes() {
        [0x00, _, key @ ..] => PublicKey::try_decode_protobuf(key).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ids::peer_to_core;

    struct Author(Keypair, LogId);

    impl Author {
        fn new() -> Self {
            let key = Keypair::generate_ed25519();
            let author = peer_to_core(key.public().to_peer_id());
            Self(key, LogId { author, epoch: 0 })
        }

        fn place(&self) -> Place<'_> {
            Place { log: &self.1, since: 0, before: EntryHash::default() }
        }

        fn write(&self, count: usize) -> Vec<Entry> {
            let data = (0..count).map(|at| at.to_string().into_bytes()).collect();
            write(self.place(), &self.0, data).unwrap()
        }
    }

    type Items = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn sent(entries: &[Entry]) -> Items {
        entries.iter().map(|entry| (entry.data.clone(), entry.signature.clone())).collect()
    }

    #[test]
    fn what_an_author_writes_is_believed() {
        let author = Author::new();
        let entries = author.write(150);
        let signed: Vec<u64> = entries.iter().filter(|e| e.signature.is_some()).map(|e| e.position).collect();
        assert_eq!(signed, [64, 128, 150]);
        assert_eq!(check(author.place(), sent(&entries)).unwrap(), entries);
        assert!(holds(author.place(), &entries));

        let rest = Place { since: 128, before: entries[127].hash, ..author.place() };
        assert_eq!(check(rest, sent(&entries[128..])).unwrap(), entries[128..]);
    }

    #[test]
    fn long_entries_are_signed_more_often() {
        let author = Author::new();
        let entries = write(author.place(), &author.0, vec![vec![7; MAX_ENTRY]; 9]).unwrap();
        let signed: Vec<u64> = entries.iter().filter(|e| e.signature.is_some()).map(|e| e.position).collect();
        assert_eq!(signed, [4, 8, 9]);
        assert!(check(author.place(), sent(&entries)).is_ok());
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let (author, other) = (Author::new(), Author::new());
        let good = author.write(70);
        let change = |change: &dyn Fn(&mut Items)| {
            let mut items = sent(&good);
            change(&mut items);
            check(author.place(), items)
        };
        assert_eq!(change(&|items| items[3].0[0] ^= 1), Err(Wrong::Forged));
        assert_eq!(change(&|items| items[63].1.as_mut().unwrap()[5] ^= 1), Err(Wrong::Forged));
        assert_eq!(change(&|items| drop(items.remove(1))), Err(Wrong::Forged));
        assert_eq!(change(&|items| items.swap(0, 1)), Err(Wrong::Forged));
        assert_eq!(change(&|items| drop(items.pop())), Err(Wrong::Malformed));
        assert_eq!(change(&|items| items[63].1 = None), Err(Wrong::Malformed));
        assert_eq!(change(&Vec::clear), Err(Wrong::Malformed));
        assert_eq!(change(&|items| items[0].0 = vec![0; MAX_ENTRY + 1]), Err(Wrong::Malformed));
        for place in [
            other.place(),
            Place { log: &LogId { epoch: 1, ..author.1 }, ..author.place() },
            Place { since: 1, ..author.place() },
            Place { before: EntryHash([1; 32]), ..author.place() },
        ] {
            assert_eq!(check(place, sent(&good)), Err(Wrong::Forged), "{place:?}");
        }
        let far = Place { since: u64::MAX - 1, ..author.place() };
        assert_eq!(check(far, sent(&good)), Err(Wrong::Malformed));
    }

    #[test]
    fn an_author_whose_id_holds_no_key_has_no_log() {
        let author = Author::new();
        let hashed = PeerId::from_bytes(&[&[0x12, 0x20][..], &[7; 32]].concat()).unwrap();
        let place = Place { log: &LogId { author: hashed, epoch: 0 }, ..author.place() };
        assert_eq!(check(place, sent(&author.write(1))), Err(Wrong::Forged));
    }

    #[test]
    fn what_a_disk_has_changed_does_not_hold() {
        let author = Author::new();
        let mut entries = author.write(3);
        entries[1].data[0] ^= 1;
        assert!(!holds(author.place(), &entries));
    }
}
