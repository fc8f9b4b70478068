//! Records on this machine's disk: `doorway.sqlite` in the data folder.
//!
//! Answers come from memory; a thread of its own writes what has changed, in batches, at the latest a second later. A
//! process that is killed loses that second: what peers have published in it, they publish again.

use std::{
    fs::{self, Permissions},
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use futures::{FutureExt, channel::oneshot};
use kinfolk_shell::{
    signal::{
        key::PeerKey,
        types::{Backing, Service},
    },
    store::{check, is_damage, set_aside},
};
use rusqlite::{Connection, ErrorCode, params};

use super::{
    Answer, Down, Ended, Kept, Offer, OpenError, Room, Sample, Store, Taken,
    memory::{Entry, Shelf},
};

/// The name of the file.
const FILE: &str = "doorway.sqlite";

/// What has changed is written this long after, at the latest.
const BATCH_TIME: Duration = Duration::from_secs(1);

const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE records (
        network TEXT NOT NULL,
        peer BLOB NOT NULL,
        seq INTEGER NOT NULL,
        due INTEGER NOT NULL,
        services INTEGER NOT NULL,
        prefix TEXT NOT NULL,
        record BLOB,
        PRIMARY KEY (network, peer)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// Records on disk.
#[derive(Debug)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug)]
struct State {
    shelf: Shelf,
    /// Why the last batch could not be written.
    error: Option<String>,
    /// To be told when everything is on disk.
    close: Option<oneshot::Sender<()>>,
    closed: bool,
}

impl Sqlite {
    /// Opens the file in `folder`, and makes it if need be. Blocks. A damaged one is set aside, of which the text tells.
    ///
    /// # Errors
    /// When another doorway has it, it is a later version's, or the file system says no.
    pub fn open(
        folder: &Path,
        networks: &[String],
        room: Room,
        longest: u64,
        now: u64,
    ) -> Result<(Self, Option<String>), OpenError> {
        let path = folder.join(FILE);
        let mut shelf = Shelf::new(networks, room);
        let (connection, warning) = match load(&path, &mut shelf, longest, now) {
            Ok(connection) => (connection, None),
            Err(Failed::Sql(error)) if is_damage(&error) => {
                let file = |source| OpenError::File { path: path.clone(), source };
                let aside = set_aside(&path, now).map_err(|error| file(error.into()))?;
                shelf = Shelf::new(networks, room);
                let connection = load(&path, &mut shelf, longest, now).map_err(|error| error.at(&path))?;
                let warning = format!(
                    "the doorway's store was damaged ({error}); it was set aside as {}, and an empty one was made",
                    aside.display()
                );
                (connection, Some(warning))
            }
            Err(error) => return Err(error.at(&path)),
        };
        shelf.note_changes();
        let state = State { shelf, error: None, close: None, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), woken: Condvar::new() });
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("kinfolk-doorway".into())
            .spawn(move || writer.write(connection))
            .map_err(|error| OpenError::File { path, source: error.into() })?;
        Ok((Self { shared }, warning))
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.woken.notify_one();
    }
}

impl Store for Sqlite {
    fn backing(&self) -> Backing {
        Backing::Sqlite
    }

    fn put<'a>(&'a self, offer: Offer<'a>, now: u64) -> Answer<'a, Taken> {
        async move { Ok(self.shared.lock().shelf.put(&offer, now)) }.boxed()
    }

    fn end<'a>(&'a self, network: &'a str, key: PeerKey, seq: u64, now: u64) -> Answer<'a, Ended> {
        async move { Ok(self.shared.lock().shelf.end(network, key, seq, now)) }.boxed()
    }

    fn get<'a>(&'a self, network: &'a str, key: PeerKey, now: u64) -> Answer<'a, Option<Kept>> {
        async move { Ok(self.shared.lock().shelf.get(network, key, now)) }.boxed()
    }

    fn sample<'a>(&'a self, network: &'a str, limit: usize, service: Option<Service>, now: u64) -> Answer<'a, Sample> {
        async move { Ok(self.shared.lock().shelf.sample(network, limit, service, now)) }.boxed()
    }

    fn total<'a>(&'a self, network: &'a str, now: u64) -> Answer<'a, u64> {
        async move { Ok(self.shared.lock().shelf.total(network, now)) }.boxed()
    }

    /// A disk that can't be written is told here, and harms nobody until the next start.
    fn check(&self) -> Answer<'_, ()> {
        let error = self.shared.lock().error.clone();
        async move { error.map_or(Ok(()), |error| Err(Down(error))) }.boxed()
    }

    fn close(&self) -> Answer<'_, ()> {
        async move {
            let (done, wait) = oneshot::channel();
            {
                let mut state = self.shared.lock();
                state.close = Some(done);
                state.closed = true;
            }
            self.shared.woken.notify_one();
            // An error is a writer that had ended before.
            let _ = wait.await;
            self.shared.lock().error.clone().map_or(Ok(()), |error| Err(Down(error)))
        }
        .boxed()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until the end; then once more.
    fn write(&self, mut connection: Connection) {
        loop {
            let mut state = self.lock();
            if !state.closed {
                let waited = self.woken.wait_timeout_while(state, BATCH_TIME, |state| !state.closed);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let (closed, changes) = (state.closed, state.shelf.take_changes());
            drop(state);
            let written = if changes.is_empty() { Ok(()) } else { write(&mut connection, &changes) };
            let mut state = self.lock();
            match written {
                Ok(()) if !changes.is_empty() => state.error = None,
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "the doorway's records can't be written");
                    state.error = Some(format!("the doorway's records can't be written: {error}"));
                    state.shelf.change_again(changes.into_iter().map(|(network, key, _)| (network, key)));
                }
            }
            if closed {
                // Whoever is told may open the file again at once.
                drop(connection);
                if let Some(done) = state.close.take() {
                    // Nobody waits for it any more: nothing is lost by that.
                    let _ = done.send(());
                }
                return;
            }
        }
    }
}

fn write(connection: &mut Connection, changes: &[(String, PeerKey, Option<Entry>)]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut put = transaction.prepare_cached(
            "INSERT OR REPLACE INTO records (network, peer, seq, due, services, prefix, record) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        let mut forget = transaction.prepare_cached("DELETE FROM records WHERE network = ? AND peer = ?")?;
        for (network, key, entry) in changes {
            match entry {
                Some(Entry::Live { seq, expires, services, prefix, record }) => {
                    let prefix = prefix.to_string();
                    put.execute(params![
                        network,
                        key.0,
                        seq.cast_signed(),
                        expires.cast_signed(),
                        services,
                        prefix,
                        record
                    ])?
                }
                Some(Entry::Over { seq, until }) => {
                    put.execute(params![network, key.0, seq.cast_signed(), until.cast_signed(), 0, "", None::<&[u8]>])?
                }
                None => forget.execute(params![network, key.0])?,
            };
        }
    }
    transaction.commit()
}

enum Failed {
    Sql(rusqlite::Error),
    Newer,
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Failed {
    fn at(self, path: &Path) -> OpenError {
        let path = PathBuf::from(path);
        match self {
            Self::Newer => OpenError::Newer { path },
            Self::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => OpenError::InUse { path },
            Self::Sql(source) => OpenError::File { path, source: source.into() },
        }
    }
}

/// Opens the file and reads it. What was written by a clock that ran ahead ends when it would with ours.
fn load(path: &Path, shelf: &mut Shelf, longest: u64, now: u64) -> Result<Connection, Failed> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::ZERO)?;
    // One doorway at a time: the lock goes with the process.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
    // Readable by no other user, like all that lies in the data folder; the folder itself is closed to them, too.
    if fs::set_permissions(path, Permissions::from_mode(0o600)).is_err() {
        tracing::warn!(path = %path.display(), "can't be closed to other users");
    }
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => connection.execute_batch(SCHEMA)?,
        VERSION => {}
        _ => return Err(Failed::Newer),
    }
    check(&connection)?;
    connection.execute("DELETE FROM records WHERE record IS NULL AND due <= ?", [now.cast_signed()])?;
    {
        let mut all = connection.prepare("SELECT network, peer, seq, due, services, prefix, record FROM records")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let network: String = row.get(0)?;
            let key = PeerKey(row.get(1)?);
            let (seq, due): (i64, i64) = (row.get(2)?, row.get(3)?);
            let (seq, due) = (seq.cast_unsigned(), due.cast_unsigned());
            let record: Option<Vec<u8>> = row.get(6)?;
            let entry = match (record, row.get::<_, String>(5)?.parse::<IpAddr>()) {
                (Some(record), Ok(prefix)) => Entry::Live {
                    seq,
                    expires: due.min(now + longest),
                    services: row.get(4)?,
                    prefix,
                    record: record.into(),
                },
                (Some(_), Err(_)) => continue,
                (None, _) => Entry::Over { seq, until: due.min(now + super::FLOOR_KEPT.as_secs()) },
            };
            shelf.restore(&network, key, entry);
        }
    }
    Ok(connection)
}
