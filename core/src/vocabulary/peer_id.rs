use alloc::string::String;
use core::{fmt, str::FromStr};

/// A peer's id: the multihash of its public key, as libp2p defines it. Its text is base58.
///
/// At most 44 bytes: an Ed25519 key inlined (38), or a SHA-256 (34). That the bytes are a multihash is checked where
/// ids enter, not here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

/// Why bytes or text are no peer id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerIdError {
    /// Not base58.
    NotBase58,
    /// Empty, or longer than 44 bytes.
    Length,
    /// Not a multihash that libp2p takes: an inlined key (`00`) or a SHA-256 (`12 20`).
    NotAMultihash,
}

impl PeerId {
    /// The longest id in bytes.
    pub const MAX_LEN: usize = 44;

    /// From multihash bytes.
    ///
    /// # Errors
    /// When the bytes are no multihash that libp2p takes as a peer id.
    pub fn from_bytes(multihash: &[u8]) -> Result<Self, PeerIdError> {
        if multihash.is_empty() || multihash.len() > Self::MAX_LEN {
            return Err(PeerIdError::Length);
        }
        let digest = multihash.len() - 2.min(multihash.len());
        match multihash {
            [0x00, len, ..] if usize::from(*len) == digest => {}
            [0x12, 0x20, ..] if digest == 32 => {}
            _ => return Err(PeerIdError::NotAMultihash),
        }
        let mut bytes = [0; Self::MAX_LEN];
        bytes[..multihash.len()].copy_from_slice(multihash);
        Ok(Self { bytes, len: multihash.len() as u8 })
    }

    /// The multihash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let mut bytes = [0; Self::MAX_LEN];
        let len = bs58::decode(text).onto(&mut bytes[..]).map_err(|error| {
            let too_long = error == bs58::decode::Error::BufferTooSmall;
            if too_long { PeerIdError::Length } else { PeerIdError::NotBase58 }
        })?;
        Self::from_bytes(&bytes[..len])
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = bs58::encode(self.as_bytes()).into_string();
        f.write_str(&text)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PeerIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotBase58 => "a peer id is base58 text, such as 12D3KooW…; this has other characters",
            Self::Length => "too short or too long for a peer id",
            Self::NotAMultihash => "not a libp2p peer id (12D3KooW…, 16Uiu2HA… or Qm…)",
        })
    }
}

impl core::error::Error for PeerIdError {}

#[cfg(feature = "serde")]
impl serde::Serialize for PeerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for PeerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = alloc::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
