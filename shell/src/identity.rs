//! The node's private key: Ed25519, in libp2p's protobuf encoding, in the file `identity` of the data folder.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use kinfolk_core::PeerId;
use libp2p::identity::{KeyType, Keypair};

use crate::data_dir::write_atomically;

/// The name of the file.
pub const FILE: &str = "identity";

/// Larger than any key; such a file is not read.
const MAX_BYTES: u64 = 16 * 1024;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The key.
    pub keypair: Keypair,
    /// Its peer id.
    pub peer: PeerId,
    /// Whether it was made just now.
    pub created: bool,
    /// What the user should know about the file, if anything.
    pub warning: Option<String>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is not a key. It is never overwritten.
    #[error(
        "{} is damaged ({problem}); put a copy of it back if you have one, or delete it to get a new identity \
         (other peers then know this node no more)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It can't be read, made, or closed to others.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Identity {
    /// A new one, nowhere on disk.
    pub fn generate() -> Self {
        Self::of(Keypair::generate_ed25519(), true)
    }

    /// The one of this data folder; makes one if there is none.
    ///
    /// # Errors
    /// When the file is damaged, or can't be read, made or closed to others.
    pub fn load_or_create(folder: &Path) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(folder)? {
            return Ok(identity);
        }
        let path = folder.join(FILE);
        let new = Self::generate();
        let io = |source| IdentityError::Io { doing: "write", path: path.clone(), source };
        let bytes = new.keypair.to_protobuf_encoding().map_err(|error| io(io::Error::other(error)))?;
        write_atomically(&path, |file| file.write_all(&bytes)).map_err(io)?;
        Ok(new)
    }

    /// The one of this data folder, if it has one.
    ///
    /// # Errors
    /// When the file is damaged, or can't be read or closed to others.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let path = folder.join(FILE);
        let io = |doing, source| IdentityError::Io { doing, path: path.clone(), source };
        let damaged = |problem: String| IdentityError::Damaged { path: path.clone(), problem };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", error)),
        };
        if metadata.len() > MAX_BYTES {
            return Err(damaged(format!("{} bytes are too many for a key", metadata.len())));
        }
        let bytes = fs::read(&path).map_err(|error| io("read", error))?;
        let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(|_| {
            damaged(if bytes.is_empty() { "it is empty".to_owned() } else { "no private key in it".to_owned() })
        })?;
        if keypair.key_type() != KeyType::Ed25519 {
            return Err(damaged(format!("a key of kind {}, where Ed25519 is needed", keypair.key_type())));
        }
        let mut identity = Self::of(keypair, false);
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(0o600))
                .map_err(|error| io("close to other users", error))?;
            identity.warning = Some(format!(
                "{} holds the private key and was open to other users (mode {mode:o}); it is closed now, but if others \
                 may have read it, delete it to get a new identity",
                path.display()
            ));
        }
        Ok(Some(identity))
    }

    fn of(keypair: Keypair, created: bool) -> Self {
        let id = keypair.public().to_peer_id().to_bytes();
        // An Ed25519 key's id is its 36 inlined bytes.
        #[expect(clippy::expect_used, reason = "the library's ids of its own keys are ids for the core too")]
        let peer = PeerId::from_bytes(&id).expect("a peer id");
        Self { keypair, peer, created, warning: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Identity::load(folder.path()).unwrap().is_none());
        let first = Identity::load_or_create(folder.path()).unwrap();
        assert!(first.created && first.warning.is_none());
        assert_eq!(fs::metadata(folder.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
        let again = Identity::load_or_create(folder.path()).unwrap();
        assert_eq!((again.peer, again.created), (first.peer, false));
        assert!(first.peer.to_string().starts_with("12D3KooW"), "{}", first.peer);
    }

    #[test]
    fn a_file_that_others_can_read_is_closed_and_the_user_told() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let again = Identity::load_or_create(folder.path()).unwrap();
        assert_eq!(again.peer, first.peer);
        assert!(again.warning.unwrap().contains("mode 644"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Identity::load_or_create(folder.path()).unwrap().warning, None);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let whole = Identity::generate().keypair.to_protobuf_encoding().unwrap();
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        let cases = [
            (vec![], "it is empty"),
            (b"hello".to_vec(), "no private key"),
            (whole[..40].to_vec(), "no private key"),
            (flipped, "no private key"),
            (vec![0; 20_000], "too many"),
        ];
        for (bytes, problem) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(FILE);
            fs::write(&path, &bytes).unwrap();
            let error = Identity::load_or_create(folder.path()).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(&*path.to_string_lossy()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}
