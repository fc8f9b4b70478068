//! A peer's addresses, signed by it: what members publish in the hash table and at doorways.
//!
//! The format is libp2p's peer record in a signed envelope, as go-libp2p and js-libp2p read it. It is put together
//! here, because libp2p's own constructor takes the wall clock for the sequence number: two records in one second would
//! be equal, and a clock that was set back would make a node's records older than the ones it has to replace.

use libp2p::{
    Multiaddr, PeerId,
    core::{PeerRecord, SignedEnvelope},
    identity::{Keypair, SigningError},
};
use prost::Message;

/// The longest record that is taken, in bytes. 16 addresses need about 1 KiB.
pub const MAX_RECORD: usize = 2048;

/// More addresses are not taken from one record.
pub const MAX_ADDRESSES: usize = 16;

/// The highest sequence number that doorways take: nanoseconds of the year 2262, as Go counts them. Above it are the
/// numbers that nobody could exceed any more.
pub const MAX_SEQ: u64 = i64::MAX as u64;

const DOMAIN: &str = "libp2p-peer-record";
const PAYLOAD_TYPE: [u8; 2] = [0x03, 0x01];

/// Why a record is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRecord {
    /// Not under a peer's id.
    #[error("it is not under a peer's id")]
    Key,
    /// Too long, or too many addresses.
    #[error("it is longer than {MAX_RECORD} bytes, or has more than {MAX_ADDRESSES} addresses")]
    Size,
    /// Not signed by that peer.
    #[error("it is no libp2p peer record that this peer has signed")]
    Signature,
}

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Who.
    pub peer: PeerId,
    /// Which of its records this is: a later one has a higher number.
    pub seq: u64,
    /// Where; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<Multiaddr>,
}

/// Signs `addresses`, at most [`MAX_ADDRESSES`] of them.
///
/// # Errors
/// When the key can't sign.
pub fn sign(key: &Keypair, seq: u64, addresses: &[Multiaddr]) -> Result<Vec<u8>, SigningError> {
    let addresses = addresses.iter().take(MAX_ADDRESSES).map(|address| AddressInfo { address: address.to_vec() });
    let payload = Payload { peer: key.public().to_peer_id().to_bytes(), seq, addresses: addresses.collect() };
    let envelope = SignedEnvelope::new(key, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload.encode_to_vec())?;
    Ok(envelope.into_protobuf_encoding())
}

/// The record, if it is one and signed by `peer`. Costs a check of a signature.
///
/// # Errors
/// Why it is not taken.
pub fn verify(peer: &PeerId, record: &[u8]) -> Result<PeerRecord, BadRecord> {
    if record.len() > MAX_RECORD {
        return Err(BadRecord::Size);
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(record).map_err(|_| BadRecord::Signature)?;
    let record = PeerRecord::from_signed_envelope_interop(envelope).map_err(|_| BadRecord::Signature)?;
    if record.peer_id() != *peer {
        return Err(BadRecord::Signature);
    }
    if record.addresses().len() > MAX_ADDRESSES {
        return Err(BadRecord::Size);
    }
    Ok(record)
}

/// What a record says, without a look at its signature: for what was verified before, and for messages about what was
/// not.
///
/// # Errors
/// When it is no record.
pub fn read(record: &[u8]) -> Result<Said, BadRecord> {
    if record.len() > MAX_RECORD {
        return Err(BadRecord::Size);
    }
    let envelope = Envelope::decode(record).map_err(|_| BadRecord::Signature)?;
    let payload = Payload::decode(envelope.payload.as_slice()).map_err(|_| BadRecord::Signature)?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(BadRecord::Signature);
    }
    if payload.addresses.len() > MAX_ADDRESSES {
        return Err(BadRecord::Size);
    }
    let peer = PeerId::from_bytes(&payload.peer).map_err(|_| BadRecord::Signature)?;
    let addresses = payload.addresses.into_iter().map(|info| Multiaddr::try_from(info.address));
    let addresses = addresses.collect::<Result<_, _>>().map_err(|_| BadRecord::Signature)?;
    Ok(Said { peer, seq: payload.seq, addresses })
}

/// libp2p's signed envelope (its RFC 0002), as far as it is read here.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "2")]
    payload_type: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
}

/// libp2p's peer record (its RFC 0003).
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    peer: Vec<u8>,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(message, repeated, tag = "3")]
    addresses: Vec<AddressInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AddressInfo {
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            let record = verify(&peer, &value).unwrap();
            assert_eq!((record.peer_id(), record.seq(), record.addresses()), (peer, seq, &addresses(3)[..]));
            assert_eq!(read(&value), Ok(Said { peer, seq, addresses: addresses(3) }));
        }
        let own = PeerRecord::new_interop(&key, addresses(2)).unwrap();
        let again = sign(&key, own.seq(), own.addresses()).unwrap();
        assert_eq!(again, own.into_signed_envelope().into_protobuf_encoding());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        /// Whoever publishes what: everybody reads the same, under its own key only, and nobody can change a bit of it.
        #[test]
        fn a_record_says_what_was_signed_and_nothing_else(
            (seq, ports) in (any::<u64>(), prop::collection::vec(any::<u16>(), 0..20)),
            (at, bit, cut) in (any::<prop::sample::Index>(), 0..8_u8, any::<prop::sample::Index>()),
        ) {
            let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            let peer = key.public().to_peer_id();
            let all: Vec<Multiaddr> =
                ports.iter().map(|port| format!("/ip4/45.10.20.1/tcp/{port}").parse().unwrap()).collect();
            let value = sign(&key, seq, &all).unwrap();
            let said = read(&value).unwrap();
            prop_assert_eq!((said.peer, said.seq), (peer, seq));
            prop_assert_eq!(&said.addresses[..], &all[..all.len().min(MAX_ADDRESSES)]);
            let record = verify(&peer, &value).unwrap();
            prop_assert_eq!((record.seq(), record.addresses()), (seq, &said.addresses[..]));
            prop_assert!(verify(&other.public().to_peer_id(), &value).is_err());
            let mut bent = value.clone();
            bent[at.index(value.len())] ^= 1 << bit;
            prop_assert!(verify(&peer, &bent).is_err());
            prop_assert!(verify(&peer, &value[..cut.index(value.len())]).is_err());
        }

        #[test]
        fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            prop_assert!(verify(&PeerId::random(), &bytes).is_err());
        }
    }

    #[test]
    fn forged_records_are_not_taken() {
        let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (peer, stranger) = (key.public().to_peer_id(), other.public().to_peer_id());
        let value = sign(&key, 1, &addresses(1)).unwrap();
        assert_eq!(verify(&stranger, &value), Err(BadRecord::Signature));
        for at in 0..value.len() {
            let mut bent = value.clone();
            bent[at] ^= 1;
            assert!(verify(&peer, &bent).is_err(), "byte {at}");
        }
        assert_eq!(verify(&peer, &[]), Err(BadRecord::Signature));
        assert_eq!(verify(&peer, &vec![0; MAX_RECORD + 1]), Err(BadRecord::Size));
        assert_eq!(read(&vec![0; MAX_RECORD + 1]), Err(BadRecord::Size));
        assert_eq!(read(&[]), Err(BadRecord::Signature));
        let legacy = PeerRecord::new(&key, addresses(1)).unwrap().into_signed_envelope().into_protobuf_encoding();
        assert_eq!(verify(&peer, &legacy), Err(BadRecord::Signature));
    }

    #[test]
    fn too_many_addresses_are_cut_or_refused() {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let value = sign(&key, 1, &addresses(40)).unwrap();
        assert_eq!(verify(&peer, &value).unwrap().addresses().len(), MAX_ADDRESSES);
        let many = PeerRecord::new_interop(&key, addresses(MAX_ADDRESSES as u16 + 1)).unwrap();
        let value = many.into_signed_envelope().into_protobuf_encoding();
        assert_eq!(verify(&peer, &value), Err(BadRecord::Size));
        assert_eq!(read(&value), Err(BadRecord::Size));
    }
}
