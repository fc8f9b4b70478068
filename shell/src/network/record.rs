//! A peer's addresses, signed by it: what members publish in the hash table under their id.
//!
//! The format is libp2p's peer record in a signed envelope, as go-libp2p and js-libp2p read it. It is put together
//! here, because libp2p's own constructor takes the wall clock for the sequence number: two records in one second would
//! be equal, and a clock that was set back would make a node's records older than the ones it has to replace.

use libp2p::{
    Multiaddr, PeerId,
    core::{PeerRecord, SignedEnvelope},
    identity::{Keypair, SigningError},
    kad::RecordKey,
};

/// The longest record that is taken, in bytes. 16 addresses need about 1 KiB.
pub(super) const MAX_RECORD: usize = 2048;

/// More addresses are not taken from one record.
pub(super) const MAX_ADDRESSES: usize = 16;

const PREFIX: &[u8] = b"/pr/";
const DOMAIN: &str = "libp2p-peer-record";
const PAYLOAD_TYPE: [u8; 2] = [0x03, 0x01];

/// Why a record is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadRecord {
    /// Not under a peer's id.
    Key,
    /// Too long, or too many addresses.
    Size,
    /// Not signed by that peer.
    Signature,
}

/// Where a peer's record lies: `/pr/` and the bytes of its id.
pub(super) fn key_of(peer: &PeerId) -> RecordKey {
    let mut key = PREFIX.to_vec();
    key.extend_from_slice(&peer.to_bytes());
    RecordKey::from(key)
}

/// Whose record lies there.
pub(super) fn peer_of(key: &RecordKey) -> Option<PeerId> {
    PeerId::from_bytes(key.as_ref().strip_prefix(PREFIX)?).ok()
}

/// Signs `addresses`, at most 16 of them.
///
/// # Errors
/// When the key can't sign.
pub(super) fn sign(key: &Keypair, seq: u64, addresses: &[Multiaddr]) -> Result<Vec<u8>, SigningError> {
    let mut payload = vec![];
    bytes_field(&mut payload, 1, &key.public().to_peer_id().to_bytes());
    payload.push(2 << 3);
    varint(&mut payload, seq);
    for address in addresses.iter().take(MAX_ADDRESSES) {
        let mut info = vec![];
        bytes_field(&mut info, 1, &address.to_vec());
        bytes_field(&mut payload, 3, &info);
    }
    let envelope = SignedEnvelope::new(key, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload)?;
    Ok(envelope.into_protobuf_encoding())
}

/// The record that lies under `key`, if it is one and signed by the peer whose key that is.
///
/// # Errors
/// Why it is not taken.
pub(super) fn verify(key: &RecordKey, value: &[u8]) -> Result<PeerRecord, BadRecord> {
    let peer = peer_of(key).ok_or(BadRecord::Key)?;
    if value.len() > MAX_RECORD {
        return Err(BadRecord::Size);
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(value).map_err(|_| BadRecord::Signature)?;
    let record = PeerRecord::from_signed_envelope_interop(envelope).map_err(|_| BadRecord::Signature)?;
    if record.peer_id() != peer {
        return Err(BadRecord::Signature);
    }
    if record.addresses().len() > MAX_ADDRESSES {
        return Err(BadRecord::Size);
    }
    Ok(record)
}

/// A protobuf field of bytes.
fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(n: u16) -> Vec<Multiaddr> {
        (0..n).map(|n| format!("/ip4/45.10.20.1/tcp/{n}").parse().unwrap()).collect()
    }

    #[test]
    fn a_record_is_what_libp2p_itself_would_read() {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        for seq in [0, 127, 128, 1_800_000_000, u64::MAX] {
            let value = sign(&key, seq, &addresses(3)).unwrap();
            let record = verify(&key_of(&peer), &value).unwrap();
            assert_eq!((record.peer_id(), record.seq(), record.addresses()), (peer, seq, &addresses(3)[..]));
        }
        let own = PeerRecord::new_interop(&key, addresses(2)).unwrap();
        let again = sign(&key, own.seq(), own.addresses()).unwrap();
        assert_eq!(again, own.into_signed_envelope().into_protobuf_encoding());
    }

    #[test]
    fn forged_records_are_not_taken() {
        let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (peer, stranger) = (key.public().to_peer_id(), other.public().to_peer_id());
        let value = sign(&key, 1, &addresses(1)).unwrap();
        assert_eq!(verify(&key_of(&stranger), &value), Err(BadRecord::Signature));
        assert_eq!(verify(&RecordKey::from(peer.to_bytes()), &value), Err(BadRecord::Key));
        for at in 0..value.len() {
            let mut bent = value.clone();
            bent[at] ^= 1;
            assert!(verify(&key_of(&peer), &bent).is_err(), "byte {at}");
        }
        assert_eq!(verify(&key_of(&peer), &[]), Err(BadRecord::Signature));
        assert_eq!(verify(&key_of(&peer), &vec![0; MAX_RECORD + 1]), Err(BadRecord::Size));
        let legacy = PeerRecord::new(&key, addresses(1)).unwrap().into_signed_envelope().into_protobuf_encoding();
        assert_eq!(verify(&key_of(&peer), &legacy), Err(BadRecord::Signature));
    }

    #[test]
    fn too_many_addresses_are_cut_or_refused() {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let value = sign(&key, 1, &addresses(40)).unwrap();
        assert_eq!(verify(&key_of(&peer), &value).unwrap().addresses().len(), MAX_ADDRESSES);
        let many = PeerRecord::new_interop(&key, addresses(MAX_ADDRESSES as u16 + 1)).unwrap();
        let value = many.into_signed_envelope().into_protobuf_encoding();
        assert_eq!(verify(&key_of(&peer), &value), Err(BadRecord::Size));
    }
}
