//! The data folder: private to its user, and one node's at a time.
//!
//! | file | what |
//! |---|---|
//! | `identity` | the private key |
//! | `peers.sqlite` | the peer store |
//! | `traces/` | recorded segments |
//! | `api.sock` | the local API, while the node runs |
//! | `lock` | held while the node runs; its process id |

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held, not read: the lock goes with the file.
    _lock: File,
}

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another node has it.
    #[error("{} is in use by another node{}; stop that one, or choose another folder with --data-dir", path.display(), process(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other node's process, if it can be told.
        pid: Option<u32>,
    },
    /// Somebody else's folder.
    #[error("{} belongs to another user, and the node's private key must not; choose another folder with --data-dir", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// Anything else.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl DataDir {
    /// Makes the folder if need be, closes it to others, and takes its lock.
    ///
    /// # Errors
    /// When another node has it, it is another user's, or the file system says no.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        let io = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| DataDirError::Io { doing, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io("make the data folder", &path))?;
        let metadata = fs::metadata(&path).map_err(io("look into the data folder", &path))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(DataDirError::Foreign { path });
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(io("close to others", &path))?;
        }

        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Without it the message is only poorer.
                let _ = (&lock).take(16).read_to_string(&mut text);
                return Err(DataDirError::InUse { path, pid: text.trim().parse().ok() });
            }
            Err(error) => return Err(io("lock", &lock_path)(error.into())),
        }
        let pid = format!("{}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(pid.as_bytes()))
            .map_err(io("write", &lock_path))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a private file so that at any moment either the old one or the whole new one is there, also after a power
/// cut.
///
/// # Errors
/// What the operating system says; the old file, if any, is untouched then.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let mut file =
        tempfile::Builder::new().prefix(".kinfolk-").permissions(Permissions::from_mode(0o600)).tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn the_folder_is_made_and_closed_to_others() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b");
        let data = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        drop(data);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let _data = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_second_node_is_refused_and_told_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err().to_string();
        let us = format!("(process {})", std::process::id());
        assert!(refused.contains("in use by another node") && refused.contains(&us), "{refused}");
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_which() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDir::open(file.join("below")).unwrap_err().to_string();
        assert!(error.starts_with("can't make the data folder") && error.contains("file/below"), "{error}");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_atomically(&path, |file| file.write_all(b"old")).unwrap();
        let failed = write_atomically(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("power cut"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "power cut");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-written stays behind");
        assert_eq!(mode(&path), 0o600);
    }
}
