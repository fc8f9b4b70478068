//! Where peers' signed records lie in the hash table. The records themselves: [`crate::signal::record`].

use libp2p::{PeerId, core::PeerRecord, kad::RecordKey};

use crate::signal::record;
pub(super) use crate::signal::record::{BadRecord, MAX_ADDRESSES, MAX_RECORD, sign};

const PREFIX: &[u8] = b"/pr/";

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

/// The record that lies under `key`, if it is one and signed by the peer whose key that is.
///
/// # Errors
/// Why it is not taken.
pub(super) fn verify(key: &RecordKey, value: &[u8]) -> Result<PeerRecord, BadRecord> {
    record::verify(&peer_of(key).ok_or(BadRecord::Key)?, value)
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn a_record_lies_under_its_own_peer_only() {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let value = sign(&key, 1, &[]).unwrap();
        assert_eq!(verify(&key_of(&peer), &value).unwrap().peer_id(), peer);
        assert_eq!(verify(&key_of(&PeerId::random()), &value), Err(BadRecord::Signature));
        assert_eq!(verify(&RecordKey::from(peer.to_bytes()), &value), Err(BadRecord::Key));
    }
}
