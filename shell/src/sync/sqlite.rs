//! Kinfolk's own store of logs: SQLite, in the file `logs.sqlite` of the data folder.
//!
//! What is stored is synced to the disk before anybody hears of it: a power cut loses nothing that was acknowledged. A
//! damaged file is set aside as `logs.damaged-<unix time>`; the logs come back from other nodes, and this node's own
//! entries then begin a new epoch. Opening reads the whole file once: about a second for 150 MB.

use std::path::{Path, PathBuf};

use kinfolk_core::{EntryHash, Head, LogHead, LogId, PeerId};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::log::{Entry, Fork, Log, LogError};
use crate::store::{StoreError, migrate, open_file, set_aside};

/// The name of the file.
pub const FILE: &str = "logs.sqlite";

/// Entries that are kept of each author's other branches.
const MAX_APART: u32 = 256;

/// Entries have `log * PLACES + position` as their row: those of one log lie side by side.
const PLACES: i64 = 1 << 41;

/// So that each has its rows.
const MAX_LOGS: i64 = 1 << 21;

/// What an entry takes besides its data: its hash, a share of a signature, its row.
const ENTRY_BYTES: u64 = 64;

/// One entry per version of the schema: what leads to it from the one before.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY,
        author BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        position INTEGER NOT NULL,
        hash BLOB NOT NULL,
        UNIQUE (author, epoch)
    ) STRICT;
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        hash BLOB NOT NULL,
        signature BLOB,
        data BLOB NOT NULL
    ) STRICT;
    CREATE TABLE forks (
        author BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        position INTEGER NOT NULL,
        other BLOB NOT NULL,
        PRIMARY KEY (author, epoch)
    ) STRICT;
    CREATE TABLE apart (
        author BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        position INTEGER NOT NULL,
        hash BLOB NOT NULL,
        signature BLOB,
        data BLOB NOT NULL,
        PRIMARY KEY (author, epoch, position, hash)
    ) STRICT;
    CREATE TABLE own (begins_anew INTEGER NOT NULL) STRICT;
    INSERT INTO own VALUES (0);
",
    "
    ALTER TABLE logs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE logs SET bytes = (
        SELECT coalesce(sum(length(data) + 64), 0) FROM entries
        WHERE entries.id BETWEEN logs.id << 41 AND (logs.id + 1 << 41) - 1
    );
",
];

/// What it is called where it is spoken of.
const WHAT: &str = "the store of logs";

/// A store of logs in SQLite.
#[derive(Debug)]
pub struct SqliteLog {
    connection: Connection,
    room: Option<Room>,
}

/// What the logs of others may take.
#[derive(Debug)]
struct Room {
    own: PeerId,
    bytes: u64,
    taken: u64,
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub log: SqliteLog,
    /// What the user should know, if anything.
    pub warning: Option<String>,
}

impl SqliteLog {
    /// Opens the store of a data folder, and makes it if need be. `new`: the node's identity is as new as the store may
    /// be, so there can't be earlier entries of its own elsewhere.
    ///
    /// # Errors
    /// When it is another version's, or the file system says no. A damaged store is no error, but a warning.
    pub fn open(folder: &Path, new: bool, unix_time: u64) -> Result<Opened, StoreError> {
        let path = folder.join(FILE);
        let there = path.exists();
        let (connection, warning) = match open(&path) {
            Ok(connection) => (connection, None),
            Err(StoreError::Sql { source, .. }) if is_damage(&source) => {
                let aside = set_aside(&path, unix_time)?;
                let warning = format!(
                    "the store of logs was damaged ({source}) and is set aside as {}; what other nodes have comes back \
                     from them",
                    aside.display()
                );
                (open(&path)?, Some(warning))
            }
            Err(error) => return Err(error),
        };
        if warning.is_some() || !(there || new) {
            let sql = |source| StoreError::Sql { what: WHAT, path, source };
            connection.execute("UPDATE own SET begins_anew = 1", []).map_err(sql)?;
        }
        Ok(Opened { log: Self { connection, room: None }, warning })
    }

    /// Lets the logs of all authors but `own` take so many bytes. The log of one author may grow as long as it is not larger
    /// than what is free then: nobody takes the room of all others.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn with_room(mut self, own: PeerId, bytes: u64) -> Result<Self, LogError> {
        let taken = self
            .connection
            .query_row("SELECT coalesce(sum(bytes), 0) FROM logs WHERE author != ?1", [own.as_bytes()], |row| {
                count(row, 0)
            })
            .map_err(failed)?;
        self.room = Some(Room { own, bytes, taken });
        Ok(self)
    }

    /// A store that is gone when it is dropped.
    ///
    /// # Errors
    /// When SQLite has no memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let made = || {
            let mut connection = Connection::open_in_memory()?;
            set_up(&connection)?;
            migrate(&mut connection, 0, &MIGRATIONS)?;
            Ok(Self { connection, room: None })
        };
        made().map_err(|source| StoreError::Sql { what: WHAT, path: PathBuf::from("in memory"), source })
    }

    fn id(&self, log: &LogId) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT id FROM logs WHERE author = ?1 AND epoch = ?2")?
            .query_row(params![log.author.as_bytes(), number(log.epoch)], |row| row.get(0))
            .optional()
    }

    fn read_rows(&self, id: i64, since: u64, limit: u32, bytes: usize) -> rusqlite::Result<Vec<Entry>> {
        let mut rows = self.connection.prepare_cached(
            "SELECT id, hash, signature, data FROM entries WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = rows.query(params![row_of(id, since), row_of(id + 1, 0), limit])?;
        let (mut entries, mut read) = (vec![], 0);
        while let Some(row) = rows.next()? {
            let at: i64 = row.get(0)?;
            let position = u64::try_from(at % PLACES).unwrap_or_default();
            let entry = Entry { position, hash: EntryHash(row.get(1)?), signature: row.get(2)?, data: row.get(3)? };
            read += entry.data.len();
            entries.push(entry);
            if read >= bytes {
                break;
            }
        }
        Ok(entries)
    }
}

impl Log for SqliteLog {
    fn heads(&mut self) -> Result<Vec<LogHead>, LogError> {
        let heads = || -> rusqlite::Result<Vec<LogHead>> {
            let mut logs = self.connection.prepare_cached("SELECT author, epoch, position, hash FROM logs")?;
            let heads = logs.query_map([], |row| {
                let head = Head { position: count(row, 2)?, hash: EntryHash(row.get(3)?) };
                Ok(log_id(row)?.map(|log| LogHead { log, head }))
            })?;
            heads.filter_map(Result::transpose).collect()
        };
        heads().map_err(failed)
    }

    fn hash(&mut self, log: &LogId, position: u64) -> Result<Option<EntryHash>, LogError> {
        let hash = || -> rusqlite::Result<Option<EntryHash>> {
            let Some(id) = self.id(log)? else { return Ok(None) };
            self.connection
                .prepare_cached("SELECT hash FROM entries WHERE id = ?1")?
                .query_row([row_of(id, position)], |row| row.get(0).map(EntryHash))
                .optional()
        };
        hash().map_err(failed)
    }

    fn read(&mut self, log: &LogId, since: u64, limit: u32, bytes: usize) -> Result<Vec<Entry>, LogError> {
        let read = || match self.id(log)? {
            Some(id) => self.read_rows(id, since, limit, bytes),
            None => Ok(vec![]),
        };
        read().map_err(failed)
    }

    fn append(&mut self, log: &LogId, entries: &[Entry]) -> Result<(), LogError> {
        let Some(last) = entries.last() else { return Ok(()) };
        let bytes = entries.iter().map(|entry| entry.data.len() as u64 + ENTRY_BYTES).sum();
        let room = self.room.as_mut().filter(|room| room.own != log.author);
        let transaction = self.connection.transaction().map_err(failed)?;
        if let Some(room) = &room {
            let held = held(&transaction, &log.author)?;
            let free = room.bytes.saturating_sub(room.taken);
            if held + bytes > free {
                return Err(LogError::Full(format!("{} has {held} bytes, and {free} are free", log.author)));
            }
        }
        let id = begin_log(&transaction, log)?;
        let append = || -> rusqlite::Result<()> {
            let mut insert = transaction
                .prepare_cached("INSERT INTO entries (id, hash, signature, data) VALUES (?1, ?2, ?3, ?4)")?;
            for entry in entries {
                insert.execute(params![row_of(id, entry.position), entry.hash.0, entry.signature, entry.data])?;
            }
            transaction
                .prepare_cached("UPDATE logs SET position = ?2, hash = ?3, bytes = bytes + ?4 WHERE id = ?1")?
                .execute(params![id, number(last.position), last.hash.0, number(bytes)])?;
            Ok(())
        };
        append().and_then(|()| transaction.commit()).map_err(failed)?;
        if let Some(room) = room {
            room.taken += bytes;
        }
        Ok(())
    }

    fn keep_apart(&mut self, fork: &Fork, entries: &[Entry]) -> Result<(), LogError> {
        let Fork { log, position, other } = fork;
        let (author, epoch) = (log.author.as_bytes(), number(log.epoch));
        let mut keep = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            transaction.execute(
                "INSERT INTO forks VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET position = excluded.position, other = excluded.other
                 WHERE excluded.position < position",
                params![author, epoch, number(*position), other.0],
            )?;
            let kept: u32 =
                transaction.query_row("SELECT count(*) FROM apart WHERE author = ?1", [author], |row| row.get(0))?;
            let mut insert = transaction.prepare("INSERT OR IGNORE INTO apart VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
            for entry in entries.iter().take(MAX_APART.saturating_sub(kept) as usize) {
                let Entry { position, hash, signature, data } = entry;
                insert.execute(params![author, epoch, number(*position), hash.0, signature, data])?;
            }
            drop(insert);
            transaction.commit()
        };
        keep().map_err(failed)
    }

    fn forks(&mut self) -> Result<Vec<Fork>, LogError> {
        let forks = || -> rusqlite::Result<Vec<Fork>> {
            let mut forks = self.connection.prepare("SELECT author, epoch, position, other FROM forks")?;
            let forks = forks.query_map([], |row| {
                let (position, other) = (count(row, 2)?, EntryHash(row.get(3)?));
                Ok(log_id(row)?.map(|log| Fork { log, position, other }))
            })?;
            forks.filter_map(Result::transpose).collect()
        };
        forks().map_err(failed)
    }

    fn begins_anew(&mut self) -> Result<bool, LogError> {
        self.connection.query_row("SELECT begins_anew FROM own", [], |row| row.get(0)).map_err(failed)
    }

    fn begun(&mut self) -> Result<(), LogError> {
        self.connection.execute("UPDATE own SET begins_anew = 0", []).map(drop).map_err(failed)
    }
}

/// Bytes of an author's logs.
fn held(transaction: &Transaction<'_>, author: &PeerId) -> Result<u64, LogError> {
    transaction
        .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM logs WHERE author = ?1")
        .and_then(|mut held| held.query_row([author.as_bytes()], |row| count(row, 0)))
        .map_err(failed)
}

/// The number of a log, which is made if it is not there.
fn begin_log(transaction: &Transaction<'_>, log: &LogId) -> Result<i64, LogError> {
    let (author, epoch) = (log.author.as_bytes(), number(log.epoch));
    let known = transaction
        .prepare_cached("SELECT id FROM logs WHERE author = ?1 AND epoch = ?2")
        .and_then(|mut id| id.query_row(params![author, epoch], |row| row.get(0)).optional())
        .map_err(failed)?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction
        .execute("INSERT INTO logs VALUES (NULL, ?1, ?2, 0, zeroblob(32), 0)", params![author, epoch])
        .map_err(failed)?;
    let id = transaction.last_insert_rowid();
    if id > MAX_LOGS { Err(LogError::Full(format!("it has {MAX_LOGS} logs"))) } else { Ok(id) }
}

/// Numbers and epochs were checked: they are small enough.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn row_of(log: i64, position: u64) -> i64 {
    log * PLACES + number(position).min(PLACES - 1)
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or_default())
}

/// From the first two columns. `None`: the author is no id; such rows are passed over.
fn log_id(row: &Row<'_>) -> rusqlite::Result<Option<LogId>> {
    let author = PeerId::from_bytes(row.get_ref(0)?.as_blob()?).ok();
    let epoch = count(row, 1)?;
    Ok(author.map(|author| LogId { author, epoch }))
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let connection = open_file(path, WHAT, &MIGRATIONS, set_up)?;
    // "No such table" in a file that claims our version shows here.
    let whole = connection
        .query_row("SELECT count(*) FROM logs, own", [], |_| Ok(()))
        .and_then(|()| connection.query_row("SELECT begins_anew FROM own", [], |_| Ok(())));
    whole.map_err(|source| StoreError::Sql { what: WHAT, path: path.to_path_buf(), source })?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Each commit is synced: that is what an acknowledgement means.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Of 1 KiB each. Entries are written and read in order, so little memory is enough.
    connection.pragma_update(None, "cache_size", -2_048)?;
    connection.pragma_update(None, "journal_size_limit", 4 << 20)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    crate::store::is_damage(error) || matches!(error, rusqlite::Error::QueryReturnedNoRows)
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(error: rusqlite::Error) -> LogError {
    if is_damage(&error) {
        return LogError::Damaged(error.to_string());
    }
    LogError::Failed(error.to_string())
}
