//! The peers that records are about: those with an Ed25519 key, of which the peer id is another spelling.

use std::str::FromStr;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use libp2p::PeerId;

/// No spelling of a peer id is longer, in characters.
pub const MAX_TEXT: usize = 128;

/// What stands before the key in a peer id: identity multihash, 36 bytes, key type Ed25519, key of 32 bytes.
const ID_OF_KEY: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// What stands before a multihash in a CID of version 1 of a libp2p key.
const CID_OF_KEY: [u8; 2] = [0x01, 0x72];

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerKey(pub [u8; 32]);

/// Why a text names no peer here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadKey {
    /// It is none of the four.
    #[error("a peer is named by its id (12D3KooW…), that as a CID (bafz…), or its Ed25519 key in hex or base64url")]
    NoPeer,
    /// A peer id, but its key is of another type, or can't be told from it.
    #[error("only peers with an Ed25519 key are known here (their ids begin with 12D3KooW)")]
    OtherType,
}

impl PeerKey {
    /// The key that is in a peer id. `None`: it is of another type.
    pub fn of(peer: &PeerId) -> Option<Self> {
        peer.to_bytes().strip_prefix(&ID_OF_KEY)?.try_into().ok().map(Self)
    }

    /// The peer id.
    pub fn peer(&self) -> PeerId {
        let mut bytes = ID_OF_KEY.to_vec();
        bytes.extend_from_slice(&self.0);
        PeerId::from_bytes(&bytes).expect("a short identity multihash is a peer id")
    }
}

impl FromStr for PeerKey {
    type Err = BadKey;

    /// Reads a peer id in base58 or as a CID of version 1 in any multibase, or the raw key in hex or base64url.
    fn from_str(text: &str) -> Result<Self, BadKey> {
        if text.len() > MAX_TEXT || !text.is_ascii() {
            return Err(BadKey::NoPeer);
        }
        let raw = match text.len() {
            64 => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
            43 | 44 => BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok(),
            _ => None,
        };
        if let Some(key) = raw.and_then(|raw| raw.try_into().ok()) {
            return Ok(Self(key));
        }
        let peer = match text.parse::<PeerId>() {
            Ok(peer) => peer,
            Err(_) => {
                let (_, cid) = multibase::decode(text).map_err(|_| BadKey::NoPeer)?;
                let multihash = cid.strip_prefix(&CID_OF_KEY).ok_or(BadKey::NoPeer)?;
                PeerId::from_bytes(multihash).map_err(|_| BadKey::NoPeer)?
            }
        };
        Self::of(&peer).ok_or(BadKey::OtherType)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use multibase::Base;

    use super::*;

    #[test]
    fn every_spelling_is_the_same_peer() {
        for _ in 0..32 {
            let peer = Keypair::generate_ed25519().public().to_peer_id();
            let key = PeerKey::of(&peer).unwrap();
            assert_eq!(key.peer(), peer);
            let cid = [&CID_OF_KEY[..], &peer.to_bytes()].concat();
            let hex = HEXLOWER_PERMISSIVE.encode(&key.0);
            for text in [
                peer.to_string(),
                hex.to_uppercase(),
                hex,
                BASE64URL_NOPAD.encode(&key.0),
                data_encoding::BASE64URL.encode(&key.0),
                multibase::encode(Base::Base32Lower, &cid),
                multibase::encode(Base::Base36Lower, &cid),
                multibase::encode(Base::Base58Btc, &cid),
            ] {
                assert_eq!(text.parse(), Ok(key), "{text}");
            }
        }
        // The example of libp2p's specification, "Encoding peer ids".
        let cid = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe";
        assert_eq!(cid.parse::<PeerKey>(), Err(BadKey::OtherType));
    }

    #[test]
    fn what_is_no_peer_is_none() {
        let peer = PeerKey([7; 32]).peer().to_string();
        for text in ["", "12D3KooW", "..", "%2e%2e", "bafz", &"a".repeat(64)[1..], &"1".repeat(500), "ü", &peer[1..]] {
            assert_eq!(text.parse::<PeerKey>(), Err(BadKey::NoPeer), "{text}");
        }
        let rsa = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        assert_eq!(rsa.parse::<PeerKey>(), Err(BadKey::OtherType));
    }
}
