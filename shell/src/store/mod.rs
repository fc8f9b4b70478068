//! The peer store: what the node remembers across restarts, in SQLite (`peers.sqlite` in the data folder).
//!
//! The driver never waits for the disk: [`Store`] keeps what is to be written, one entry per peer, and the [`Disk`] writes
//! it in batches, when [`Store::due_in`] says so: by default a second later. What a user said by hand (pinned, blocked,
//! manual addresses) is written at once and synced, and whoever asked for it is answered when that is done. A process
//! killed at any point loses at most the last batch; a power cut may lose some more of what can be found again.
//!
//! A damaged file is set aside as `peers.damaged-<unix time>`, and the node goes on with an empty one.

mod file;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use kinfolk_core::{Event, PeerId, Source, StoredNat, StoredPeer};
use rusqlite::Connection;

pub use self::file::{check, is_damage, set_aside};
pub(crate) use self::file::{migrate, open_file};
use crate::disk::{Disk, Worker};

/// The name of the file.
pub const FILE: &str = "peers.sqlite";

/// Peers in one `Event::StoreLoaded`.
pub const FRAME: usize = 32;

/// What can be found again is written this long after, unless somebody says otherwise.
pub const BATCH_TIME: Duration = Duration::from_secs(1);

/// So many peers are written at once, without waiting for more.
const BATCH: usize = 64;

/// After a failed write (disk full), the next try.
const RETRY: Duration = Duration::from_secs(10);

/// The peer store of a running node. Dropping it writes what is left.
#[derive(Debug)]
pub struct Store {
    todo: Arc<Mutex<Todo>>,
    worker: Worker,
    closed: oneshot::Receiver<()>,
    batch: Duration,
}

/// A store that was opened, and what was in it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What it remembers.
    pub remembered: Remembered,
    /// The last sequence number of our own records; 0 for none.
    pub number: u64,
    /// What the user should know, if anything.
    pub warning: Option<String>,
}

/// What a store remembers of earlier runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remembered {
    /// Peers.
    pub peers: Vec<StoredPeer>,
    /// What the NATs in front of this machine were like.
    pub nat: Option<StoredNat>,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Written by a later version of this program.
    #[error(
        "{} was written by a newer version of Kinfolk (its format is {found}, this program knows {known}); use that \
         version, or move the file away",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// It can't be opened, and not because it is damaged.
    #[error("can't open {what} {}: {source}", path.display())]
    Sql {
        /// Which store.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file system says no.
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

#[derive(Default)]
struct Todo {
    /// What is to be written; `None`: forget. One entry per peer, so this is bounded by the core's table.
    peers: BTreeMap<PeerId, Option<StoredPeer>>,
    /// The last sequence number of our own records, if it is to be written.
    number: Option<u64>,
    nat: Option<StoredNat>,
    /// Something a user said is among them.
    urgent: bool,
    /// Something a user said is just being written.
    writing: bool,
    /// To be called when all of `peers` is on disk.
    then: Vec<Box<dyn FnOnce() + Send>>,
    /// Peers about whom a user said something: what comes next about them is urgent too.
    by_hand: BTreeSet<PeerId>,
    /// When to write what is not urgent.
    due: Option<Instant>,
    error: Option<String>,
}

impl Store {
    /// Opens the store of a data folder, and makes it if need be.
    ///
    /// # Errors
    /// When it is another version's, or the file system says no. A damaged store is no error, but a warning.
    pub fn open(folder: &Path, unix_time: u64, disk: &Disk) -> Result<Opened, StoreError> {
        let path = folder.join(FILE);
        let (connection, remembered, number, warning) = match rows::open(&path) {
            Ok((connection, remembered, number)) => (connection, remembered, number, None),
            Err(StoreError::Sql { source, .. }) if is_damage(&source) => {
                let aside = set_aside(&path, unix_time)?;
                let (connection, remembered, number) = rows::open(&path)?;
                let warning = format!(
                    "the peer store was damaged ({source}) and is set aside as {}; peers are found anew, but those pinned \
                     or blocked by hand have to be named again",
                    aside.display()
                );
                (connection, remembered, number, Some(warning))
            }
            Err(error) => return Err(error),
        };
        let by_hand = remembered.peers.iter().filter(|stored| is_by_hand(stored)).map(|stored| stored.peer).collect();
        let todo = Arc::new(Mutex::new(Todo { by_hand, ..Todo::default() }));
        let (close, closed) = oneshot::channel();
        let mut writer = Writer { connection, todo: Arc::clone(&todo), _close: close };
        let worker = disk.worker(move || {
            writer.work();
            false
        });
        Ok(Opened { store: Self { todo, worker, closed, batch: BATCH_TIME }, remembered, number, warning })
    }

    /// Writes what can be found again so long after it was found, in place of [`BATCH_TIME`].
    pub fn with_batch_time(self, batch: Duration) -> Self {
        Self { batch, ..self }
    }

    /// Remembers a peer, in place of what was remembered about it. Never waits.
    pub fn remember(&self, stored: StoredPeer) {
        self.put(stored.peer, Some(stored));
    }

    /// Remembers what the NATs in front of this machine are like, in place of what was remembered. Never waits.
    pub fn remember_nat(&self, nat: StoredNat) {
        let mut todo = lock(&self.todo);
        todo.nat = Some(nat);
        todo.due.get_or_insert_with(|| Instant::now() + self.batch);
    }

    /// Forgets a peer. Never waits.
    pub fn forget(&self, peer: PeerId) {
        self.put(peer, None);
    }

    /// Keeps sequence numbers of our own records. Never waits; the highest stays.
    pub fn number_keeper(&self) -> impl Fn(u64) + Send + Sync + use<> {
        let (todo, batch) = (Arc::clone(&self.todo), self.batch);
        move |number| {
            let mut todo = lock(&todo);
            todo.number = todo.number.max(Some(number));
            todo.due.get_or_insert_with(|| Instant::now() + batch);
        }
    }

    /// Calls `then` when everything that a user said so far is on disk: at once, when nothing such waits.
    pub fn then(&self, then: impl FnOnce() + Send + 'static) {
        let mut todo = lock(&self.todo);
        if todo.urgent || todo.writing {
            todo.then.push(Box::new(then));
        } else {
            drop(todo);
            then();
        }
    }

    /// The last write's error, if it failed. It is tried again.
    pub fn error(&self) -> Option<String> {
        lock(&self.todo).error.clone()
    }

    /// After this there is something to write: call [`Store::write`] then. `None`: nothing waits.
    pub fn due_in(&self) -> Option<Duration> {
        lock(&self.todo).due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Has everything written that waits. Does not wait for it.
    pub fn write(&self) {
        lock(&self.todo).due = None;
        self.worker.wake();
    }

    /// Writes what is left, and ends. Done when the future is.
    pub async fn close(self) {
        let Self { todo: _, worker, closed, batch: _ } = self;
        drop(worker);
        // Nothing is ever sent: the other end is dropped when the file is closed.
        let _ = closed.await;
    }

    fn put(&self, peer: PeerId, stored: Option<StoredPeer>) {
        let mut todo = lock(&self.todo);
        let was = todo.by_hand.contains(&peer);
        let is = stored.as_ref().is_some_and(is_by_hand);
        if is {
            todo.by_hand.insert(peer);
        } else if was {
            todo.by_hand.remove(&peer);
        }
        todo.urgent |= was || is;
        todo.peers.insert(peer, stored);
        let now = was || is || todo.peers.len() >= BATCH;
        if !now {
            todo.due.get_or_insert_with(|| Instant::now() + self.batch);
        }
        drop(todo);
        if now {
            self.write();
        }
    }
}

impl Remembered {
    /// The same, as events for the core: at least one.
    pub fn frames(self) -> Vec<Event> {
        let Self { peers, mut nat } = self;
        let mut frames: Vec<Vec<StoredPeer>> = vec![];
        for (at, peer) in peers.into_iter().enumerate() {
            if at % FRAME == 0 {
                frames.push(Vec::with_capacity(FRAME));
            }
            if let Some(frame) = frames.last_mut() {
                frame.push(peer);
            }
        }
        if frames.is_empty() {
            frames.push(vec![]);
        }
        let last = frames.len() - 1;
        let event = |(at, peers)| Event::StoreLoaded { peers, nat: nat.take(), last: at == last };
        frames.into_iter().enumerate().map(event).collect()
    }
}

fn is_by_hand(stored: &StoredPeer) -> bool {
    stored.pinned || stored.blocked || stored.addresses.iter().any(|known| known.source == Source::Manual)
}

fn lock(todo: &Mutex<Todo>) -> MutexGuard<'_, Todo> {
    // Nothing leaves it half changed.
    todo.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Todo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Todo").field("peers", &self.peers.len()).field("urgent", &self.urgent).finish_non_exhaustive()
    }
}

struct Writer {
    connection: Connection,
    todo: Arc<Mutex<Todo>>,
    /// Dropped last.
    _close: oneshot::Sender<()>,
}

impl Writer {
    /// Writes everything that waits.
    fn work(&mut self) {
        let mut batch = {
            let mut todo = lock(&self.todo);
            todo.writing = todo.urgent;
            todo.due = None;
            Todo {
                peers: mem::take(&mut todo.peers),
                number: todo.number.take(),
                nat: todo.nat.take(),
                urgent: mem::take(&mut todo.urgent),
                then: mem::take(&mut todo.then),
                ..Todo::default()
            }
        };
        let failed = self.write(&batch).err();
        let mut todo = lock(&self.todo);
        todo.writing = false;
        todo.error = failed.as_ref().map(ToString::to_string);
        if let Some(error) = &failed {
            tracing::warn!(%error, "can't write the peer store; trying again");
            put_back(&mut todo, &mut batch);
        }
        // Whoever waits for it waits no longer, also if it failed: the node knows, only the disk does not. So do those who
        // came meanwhile, unless something more has to be written for them.
        let mut then = batch.then;
        if failed.is_some() || !todo.urgent {
            then.append(&mut todo.then);
        }
        drop(todo);
        for then in then {
            then();
        }
    }

    fn write(&mut self, batch: &Todo) -> rusqlite::Result<()> {
        if batch.peers.is_empty() && batch.number.is_none() && batch.nat.is_none() {
            return Ok(());
        }
        // In a WAL, NORMAL keeps the file sound through power cuts, and FULL also keeps this very batch.
        self.connection.pragma_update(None, "synchronous", if batch.urgent { "FULL" } else { "NORMAL" })?;
        let transaction = self.connection.transaction()?;
        for (peer, stored) in &batch.peers {
            match stored {
                Some(stored) => rows::replace(&transaction, stored)?,
                None => rows::remove(&transaction, peer)?,
            }
        }
        if let Some(number) = batch.number {
            rows::keep_number(&transaction, number)?;
        }
        if let Some(nat) = &batch.nat {
            rows::keep_nat(&transaction, nat)?;
        }
        transaction.commit()
    }
}

/// What could not be written is to be written still, unless newer word came.
fn put_back(todo: &mut Todo, batch: &mut Todo) {
    for (peer, stored) in mem::take(&mut batch.peers) {
        todo.peers.entry(peer).or_insert(stored);
    }
    todo.number = todo.number.max(batch.number);
    if todo.nat.is_none() {
        todo.nat = batch.nat.take();
    }
    todo.urgent |= batch.urgent;
    todo.due = Some(Instant::now() + RETRY);
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        os::unix::fs::PermissionsExt,
        path::{Path, PathBuf},
        sync::mpsc,
    };

    use futures::executor::block_on;
    use kinfolk_core::{Address, Mapping, Prefix, Reachability, StoredAddress, StoredMapping, Transport};

    use super::{
        rows::{MIGRATIONS, source_name, source_of},
        *,
    };

    fn peer(number: u32) -> PeerId {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend(number.to_be_bytes());
        bytes.resize(34, 0);
        PeerId::from_bytes(&bytes).unwrap()
    }

    fn stored(number: u32, pinned: bool) -> StoredPeer {
        let address = |port, source| StoredAddress {
            address: format!("/ip4/192.0.2.1/tcp/{port}").parse::<Address>().unwrap(),
            source,
            proven: port == 2,
            last_success: if port == 2 { u32::MAX } else { 0 },
        };
        let addresses = vec![address(2, Source::Mdns), address(1, Source::Identify)];
        StoredPeer { peer: peer(number), pinned, blocked: false, relay: false, record: 0, addresses }
    }

    fn open_store(folder: &Path, unix_time: u64) -> Result<Opened, StoreError> {
        Store::open(folder, unix_time, &Disk::default())
    }

    #[test]
    fn who_asks_while_something_is_written_is_told_when_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path(), 0).unwrap().store;
        for number in 0..300 {
            store.remember(stored(number, true));
            // Sometimes before it is taken, sometimes while it is written, sometimes after.
            std::thread::sleep(Duration::from_micros(u64::from(number)));
            let (told, hears) = mpsc::channel();
            store.then(move || told.send(()).unwrap());
            hears.recv_timeout(Duration::from_secs(20)).unwrap();
        }
    }

    fn reopened(folder: &Path) -> Vec<StoredPeer> {
        let opened = open_store(folder, 0).unwrap();
        assert_eq!(opened.warning, None);
        block_on(opened.store.close());
        opened.remembered.peers
    }

    #[test]
    fn what_was_remembered_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open_store(folder.path(), 0).unwrap();
        assert_eq!((opened.remembered, opened.warning), (Remembered::default(), None));
        for number in 0..100 {
            opened.store.remember(stored(number, number == 3));
        }
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
        let moved = StoredPeer { addresses: vec![], relay: true, record: i64::MAX as u64, ..stored(5, true) };
        opened.store.remember(moved.clone());
        opened.store.forget(peer(6));
        block_on(opened.store.close());

        let peers = reopened(folder.path());
        assert_eq!(peers.len(), 99);
        assert_eq!(peers[4], stored(4, false));
        assert_eq!(peers[5], moved);
        assert_eq!(peers[3], stored(3, true));
        assert!(peers.iter().all(|stored| stored.peer != peer(6)));
    }

    #[test]
    fn every_source_has_a_name_that_is_read_back() {
        for source in Source::ALL {
            assert_eq!(source_of(source_name(source)), Some(source));
        }
        assert_eq!(source_of("hearsay"), None);
    }

    /// The files as another process would see them with this one killed: all of one moment, though it tidies up by itself.
    fn as_if_killed_now(folder: &Path) -> tempfile::TempDir {
        let files = || {
            let all = fs::read_dir(folder).unwrap().filter_map(|entry| {
                let (entry, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))).ok()?;
                Some((entry, metadata.len(), metadata.modified().unwrap()))
            });
            all.collect::<BTreeSet<_>>()
        };
        loop {
            let before = files();
            let copy = tempfile::tempdir().unwrap();
            let copied =
                |(path, ..): &(PathBuf, _, _)| fs::copy(path, copy.path().join(path.file_name().unwrap())).is_ok();
            if before.iter().all(copied) && files() == before {
                return copy;
            }
        }
    }

    #[test]
    fn what_a_user_said_is_on_disk_when_the_answer_comes() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open_store(folder.path(), 0).unwrap();
        let (sender, answered) = mpsc::channel();
        opened.store.remember(stored(1, true));
        opened.store.remember(stored(2, false));
        opened.store.then(move || sender.send(()).unwrap());
        answered.recv().unwrap();
        let copy = as_if_killed_now(folder.path());
        assert_eq!(reopened(copy.path()), [stored(1, true), stored(2, false)]);

        // Undoing it is urgent too.
        let (sender, answered) = mpsc::channel();
        opened.store.forget(peer(1));
        opened.store.then(move || sender.send(()).unwrap());
        answered.recv().unwrap();
        drop(opened);
    }

    #[test]
    fn what_can_be_found_again_is_written_when_it_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path(), 0).unwrap().store.with_batch_time(Duration::from_secs(3_600));
        assert_eq!(store.due_in(), None);
        store.remember(stored(1, false));
        store.remember(stored(2, false));
        let due = store.due_in().unwrap();
        assert!((Duration::from_secs(3_500)..=Duration::from_secs(3_600)).contains(&due), "{due:?}");
        let written = |store: &Store| lock(&store.todo).peers.is_empty();
        assert!(!written(&store));
        store.write();
        while !written(&store) {
            std::thread::yield_now();
        }
        assert_eq!(store.due_in(), None);

        // What is urgent, and what is much, does not wait, and takes the rest along.
        for number in 3..3 + BATCH as u32 {
            store.remember(stored(number, false));
        }
        while !written(&store) {
            std::thread::yield_now();
        }
        store.remember(stored(3, false));
        store.remember(stored(1, true));
        while !written(&store) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn with_nothing_to_wait_for_the_answer_comes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open_store(folder.path(), 0).unwrap();
        opened.store.remember(stored(1, false));
        let (sender, answered) = mpsc::channel();
        opened.store.then(move || sender.send(()).unwrap());
        answered.try_recv().unwrap();
    }

    #[test]
    fn a_damaged_store_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open_store(folder.path(), 0).unwrap();
        for number in 0..500 {
            opened.store.remember(stored(number, false));
        }
        block_on(opened.store.close());
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();

        let mut overwritten = whole.clone();
        overwritten[4_096..12_000].fill(0xa5);
        let no_tables = {
            let empty = folder.path().join("empty");
            let connection = Connection::open(&empty).unwrap();
            connection.pragma_update(None, "user_version", MIGRATIONS.len() as i64).unwrap();
            connection.close().unwrap();
            fs::read(&empty).unwrap()
        };
        for (unix_time, damage) in [
            (1, overwritten),
            (2, whole[..whole.len() / 2].to_vec()),
            (3, b"not a database at all".repeat(300)),
            (4, no_tables),
        ] {
            fs::write(&path, &damage).unwrap();
            let opened = open_store(folder.path(), unix_time).unwrap();
            let warning = opened.warning.unwrap();
            assert!(warning.contains(&format!("peers.damaged-{unix_time}")), "{warning}");
            assert_eq!(opened.remembered, Remembered::default());
            opened.store.remember(stored(1, false));
            block_on(opened.store.close());
            assert_eq!(reopened(folder.path()), [stored(1, false)]);
            assert_eq!(fs::read(folder.path().join(format!("peers.damaged-{unix_time}"))).unwrap().len(), damage.len());
        }
    }

    #[test]
    fn a_newer_store_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", MIGRATIONS.len() as i64 + 1).unwrap();
        connection.close().unwrap();
        let before = fs::read(&path).unwrap();
        let error = open_store(folder.path(), 0).unwrap_err().to_string();
        assert!(error.contains("newer version"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_store_of_the_first_version_keeps_its_peers() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join(FILE)).unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let insert = "INSERT INTO peers (peer, pinned, blocked) VALUES (?1, 1, 0)";
        connection.execute(insert, [peer(1).as_bytes()]).unwrap();
        connection.close().unwrap();

        let old = StoredPeer { addresses: vec![], ..stored(1, true) };
        let opened = open_store(folder.path(), 0).unwrap();
        assert_eq!((opened.remembered.peers, opened.warning), (vec![old.clone()], None));
        let relay = StoredPeer { relay: true, ..old };
        opened.store.remember(relay.clone());
        block_on(opened.store.close());
        assert_eq!(reopened(folder.path()), [relay]);
    }

    #[test]
    fn the_highest_number_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open_store(folder.path(), 0).unwrap();
        assert_eq!(opened.number, 0);
        let keep = opened.store.number_keeper();
        [5, 9, 7].into_iter().for_each(keep);
        block_on(opened.store.close());
        let opened = open_store(folder.path(), 0).unwrap();
        assert_eq!(opened.number, 9);
        // A late word of an older one changes nothing.
        opened.store.number_keeper()(8);
        block_on(opened.store.close());
        assert_eq!(open_store(folder.path(), 0).unwrap().number, 9);
    }

    #[test]
    fn what_the_nats_are_like_is_there_after_a_restart() {
        let nat = |len, reachability| StoredNat {
            addresses: vec![Prefix { ip: "192.168.1.7".parse().unwrap(), len }],
            reachability,
            mappings: vec![StoredMapping { ipv6: false, transport: Transport::Quic, mapping: Mapping::PerDestination }],
        };
        let folder = tempfile::tempdir().unwrap();
        let opened = open_store(folder.path(), 0).unwrap();
        assert_eq!(opened.store.due_in(), None);
        opened.store.remember_nat(nat(8, Reachability::Public));
        assert!(opened.store.due_in().is_some());
        opened.store.remember_nat(nat(24, Reachability::Private));
        block_on(opened.store.close());
        let opened = open_store(folder.path(), 0).unwrap();
        assert_eq!(opened.remembered.nat, Some(nat(24, Reachability::Private)));
        block_on(opened.store.close());
        let connection = Connection::open(folder.path().join(FILE)).unwrap();
        connection.execute_batch("UPDATE found SET json = '{}'").unwrap();
        connection.close().unwrap();
        assert_eq!(open_store(folder.path(), 0).unwrap().remembered, Remembered::default(), "a guess less");
    }

    #[test]
    fn rows_without_sense_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open_store(folder.path(), 0).unwrap();
        opened.store.remember(stored(1, false));
        block_on(opened.store.close());
        let connection = Connection::open(folder.path().join(FILE)).unwrap();
        connection
            .execute_batch(
                "INSERT INTO peers VALUES (x'0102', 0, 0, 0, 0); UPDATE addresses SET address = 'home' WHERE place = 0",
            )
            .unwrap();
        connection.close().unwrap();
        let peers = reopened(folder.path());
        assert_eq!((peers.len(), peers[0].addresses.len()), (1, 1));
    }

    #[test]
    fn frames_are_small_and_the_last_is_marked() {
        let nat = StoredNat { addresses: vec![], reachability: Reachability::Private, mappings: vec![] };
        let count = |peers: u32| {
            let peers = (0..peers).map(|number| stored(number, false)).collect();
            let frames = Remembered { peers, nat: Some(nat.clone()) }.frames();
            let count = |event: &Event| {
                let Event::StoreLoaded { peers, nat, last } = event else { panic!("{event:?}") };
                (peers.len(), nat.is_some(), *last)
            };
            frames.iter().map(count).collect::<Vec<_>>()
        };
        assert_eq!(count(0), [(0, true, true)]);
        assert_eq!(count(32), [(32, true, true)]);
        assert_eq!(count(33), [(32, true, false), (1, false, true)]);
    }
}
