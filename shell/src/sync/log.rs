//! What a store of logs has to do.

use std::fmt;

use kinfolk_core::{EntryHash, LogHead, LogId};

/// An entry of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number, from 1 on, without gaps.
    pub position: u64,
    /// Its hash, over author, epoch, number, the hash of the entry before, and data.
    pub hash: EntryHash,
    /// The author's signature of the hash. Not every entry has one: it vouches for all before it, too.
    pub signature: Option<Vec<u8>>,
    /// What the author says: at most 64 KiB, of a meaning that only the application knows.
    pub data: Vec<u8>,
}

/// An author has signed two different entries with the same number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fork {
    /// Which log.
    pub log: LogId,
    /// The number that both have.
    pub position: u64,
    /// The hash of the entry that is not in the log.
    pub other: EntryHash,
}

/// Why a store does not do what it should.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// It has no room for more of this log.
    #[error("the store of logs is full: {0}")]
    Full(String),
    /// What is in it makes no sense.
    #[error("the store of logs is damaged: {0}")]
    Damaged(String),
    /// Anything else: the disk is full, say.
    #[error("the store of logs has failed: {0}")]
    Failed(String),
}

/// A store of logs. Kinfolk's own is [`SqliteLog`](super::sqlite::SqliteLog).
///
/// Everything that comes in here was checked: it hangs together, and its author has signed it. All calls come from one
/// thread, and may block it. After a call that has written returns, a power cut must not undo it: others are told at once,
/// and a log that goes back is not believed.
pub trait Log: Send + 'static {
    /// How far each log goes.
    ///
    /// # Errors
    /// When it can't be read; so with the following.
    fn heads(&mut self) -> Result<Vec<LogHead>, LogError>;

    /// The hash of an entry; `None` when it is not there. Never asked for number 0.
    ///
    /// # Errors
    /// See [`Log::heads`].
    fn hash(&mut self, log: &LogId, position: u64) -> Result<Option<EntryHash>, LogError>;

    /// The entries after `since`: at most `limit`, and no more once their data is `bytes` long.
    ///
    /// # Errors
    /// See [`Log::heads`].
    fn read(&mut self, log: &LogId, since: u64, limit: u32, bytes: usize) -> Result<Vec<Entry>, LogError>;

    /// Adds entries, all or none; the first one follows the last that is there.
    ///
    /// # Errors
    /// When they are not stored. They will be offered again.
    fn append(&mut self, log: &LogId, entries: &[Entry]) -> Result<(), LogError>;

    /// Keeps the other branch of a fork apart, as a proof: entries from another branch than the log's, in order, the last
    /// one signed. How many are kept is the store's business.
    ///
    /// # Errors
    /// When they are not stored.
    fn keep_apart(&mut self, fork: &Fork, entries: &[Entry]) -> Result<(), LogError>;

    /// The forks that are known: one for each log.
    ///
    /// # Errors
    /// See [`Log::heads`].
    fn forks(&mut self) -> Result<Vec<Fork>, LogError>;

    /// Whether earlier entries of this node may be missing, because the store is new or was damaged. Then its next own
    /// entry begins a new epoch, so that it gets no number that was given before.
    ///
    /// # Errors
    /// See [`Log::heads`].
    fn begins_anew(&mut self) -> Result<bool, LogError> {
        Ok(false)
    }

    /// The new epoch has begun: its first entry is stored.
    ///
    /// # Errors
    /// When it can't be noted. Then another one begins after the next start, which does no harm.
    fn begun(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

impl fmt::Debug for dyn Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}
