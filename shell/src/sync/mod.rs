//! Logs: what the members of a network say, each in a log of its own, kept by all of them.
//!
//! A log has one author, named by its peer id; [`Logs`] is the way to a node's own log and to its copies of the others'.
//! Entries are checked and stored by the [`Disk`], on a thread of its own, since disks and signatures take time. Which entries to ask
//! whom for is the core's decision; how they travel is the network's. What they mean is the application's.
//!
//! Under stress: the thread works off one thing after the other, and at most 64 wait for it; when ranges pile up, the core
//! hears of it and asks for no more. Nothing here grows with the length of a log, only with the number of logs.

pub(crate) mod chain;
mod keeper;
pub mod log;
pub mod sqlite;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use aws_lc_rs::digest::{self, SHA256};
use futures::channel::oneshot;
use kinfolk_core::{EntryHash, Event, Head, LogHead, LogId, MAX_EPOCHS, PeerId, SyncError};
use libp2p::identity::Keypair;

pub use chain::MAX_ENTRY;
use keeper::{Desk, Job, Keeper};

use crate::{
    disk::{Disk, Worker},
    feed::{Feed, Feeder, feed},
    handle::{NodeGone, Way},
    network::ids::peer_to_core,
};
use log::{Entry, Fork, Log, LogError};

/// Entries of one `put`.
pub const MAX_PUT: usize = 65_536;

/// Bytes of one `put`.
pub const MAX_PUT_BYTES: usize = 16 << 20;

/// Entries of one answer to [`Logs::entries`].
pub const MAX_READ: u32 = 4_096;

/// What is read at once weighs no more, but for one entry.
pub(crate) const READ_BYTES: usize = 1 << 20;

/// Heads in one event.
pub(crate) const FRAME: usize = 64;

/// Changes that a [`Feed`] of [`Logs::grown`] keeps for a slow reader.
const MAX_GROWN: usize = 1_024;

/// Logs at most: their heads are in memory.
const MAX_LOGS: usize = 65_536;

/// So many ranges that wait are too many, and so few are few again.
const MANY: usize = 8;
const FEW: usize = 2;

/// The way to a node's logs. Cheap to clone; any thread may use it, and the futures run on any executor.
#[derive(Clone)]
pub struct Logs {
    own: PeerId,
    jobs: Way<Job>,
    /// After `jobs`, so that the last time that it is called it finds that nobody can ask any more.
    worker: Arc<Worker>,
    shared: Arc<Shared>,
}

/// Why nothing was put into the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PutError {
    /// An entry is too long.
    #[error("an entry has at most {MAX_ENTRY} bytes; this one has {0}")]
    TooLong(usize),
    /// It is too much for once.
    #[error("at most {MAX_PUT} entries, of {MAX_PUT_BYTES} bytes together, are put at once")]
    TooMuch,
    /// The store says no.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no node any more, or it has no logs.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// Why nothing is read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// The store says no.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no node any more, or it has no logs.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// A range of a log, as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    /// The hash of the entry before the first.
    pub(crate) before: EntryHash,
    pub(crate) entries: Vec<Entry>,
    /// There are more.
    pub(crate) has_more: bool,
}

/// A range that somebody sent, not checked yet.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) log: LogId,
    pub(crate) since: u64,
    pub(crate) before: EntryHash,
    /// Data and signatures.
    pub(crate) items: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A range that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// How far the log goes now.
    pub(crate) head: Head,
    /// How many entries were new.
    pub(crate) entries: u32,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    waiting: AtomicUsize,
}

/// What is known without the disk.
#[derive(Default)]
struct Table {
    /// How far each log goes: of each author, the [`MAX_EPOCHS`] newest.
    heads: BTreeMap<LogId, Head>,
    digest: Option<EntryHash>,
    /// Logs of whose growth the core has not heard.
    untold: BTreeSet<LogId>,
    /// The core has heard of all that were there at the start.
    begun: bool,
    busy: bool,
    busy_told: bool,
    waker: Option<Waker>,
    grown: Vec<Feeder<LogHead>>,
}

impl Logs {
    /// Begins to keep logs in a store, by `disk`; `key` signs what is put into the own log.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn start(key: Keypair, mut log: Box<dyn Log>, disk: &Disk) -> Result<Self, LogError> {
        let own = peer_to_core(key.public().to_peer_id());
        let mut table = Table::default();
        for LogHead { log, head } in log.heads()? {
            table.set(log, head);
        }
        table.untold = table.heads.keys().copied().collect();
        let shared = Arc::new(Shared { table: Mutex::new(table), waiting: AtomicUsize::new(0) });
        let (jobs, receiver) = Way::new();
        let mut desk = Desk::new(Keeper::new(own, key, log, Arc::clone(&shared))?, receiver);
        let worker = Arc::new(disk.worker(move || desk.work()));
        Ok(Self { own, jobs, worker, shared })
    }

    /// This node, the author of its own log.
    pub fn own(&self) -> PeerId {
        self.own
    }

    /// Puts entries into the own log, all or none. When this returns, they are on the disk, and others will be told. Gives
    /// how far the log goes now. Entries of one call are cheaper, to store and to check, than those of many.
    ///
    /// # Errors
    /// When an entry is longer than [`MAX_ENTRY`], they are too many, or the store can't write.
    pub async fn put(&self, entries: Vec<Vec<u8>>) -> Result<LogHead, PutError> {
        if let Some(long) = entries.iter().map(Vec::len).find(|length| *length > MAX_ENTRY) {
            return Err(PutError::TooLong(long));
        }
        if entries.len() > MAX_PUT || entries.iter().map(Vec::len).sum::<usize>() > MAX_PUT_BYTES {
            return Err(PutError::TooMuch);
        }
        Ok(self.wait(|reply| Job::Put { entries, reply }).await??)
    }

    /// The entries of a log after number `since`, in order: at most `limit` and [`MAX_READ`], and no more than about 1 MiB.
    /// No entries: there are none so far.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn entries(&self, log: LogId, since: u64, limit: u32) -> Result<Vec<Entry>, ReadError> {
        let limit = limit.min(MAX_READ);
        Ok(self.wait(|reply| Job::Read { log, since, limit, reply }).await??)
    }

    /// How far each log goes, by author and epoch: of each author, the newest [`MAX_EPOCHS`], which are exchanged.
    pub fn heads(&self) -> Vec<LogHead> {
        self.table().heads.iter().map(|(log, head)| LogHead { log: *log, head: *head }).collect()
    }

    /// How far each log goes, however many an author has.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn all_heads(&self) -> Result<Vec<LogHead>, ReadError> {
        Ok(self.wait(|reply| Job::Heads { reply }).await??)
    }

    /// The forks that are known.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn forks(&self) -> Result<Vec<Fork>, ReadError> {
        Ok(self.wait(|reply| Job::Forks { reply }).await??)
    }

    /// Tells whenever a log has grown, from now on. It ends with the node.
    pub fn grown(&self) -> Feed<LogHead> {
        let (feeder, feed) = feed(MAX_GROWN);
        let mut table = self.table();
        table.grown.retain(Feeder::is_read);
        table.grown.push(feeder);
        feed
    }

    /// Ends: what was put before is on the disk. Whatever is asked afterwards finds nobody.
    pub async fn close(&self) {
        // An error means that it has ended already.
        let _ = self.wait(|reply| Job::Close { reply }).await;
    }

    /// How far one log goes.
    pub(crate) fn head(&self, log: &LogId) -> Head {
        self.table().heads.get(log).copied().unwrap_or_default()
    }

    /// The heads of the logs after one, by author and epoch, at most `limit`; and whether there are more.
    pub(crate) fn heads_after(&self, after: Option<&LogId>, limit: usize) -> (Vec<LogHead>, bool) {
        let table = self.table();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut heads = table.heads.range::<LogId, _>((from, Bound::Unbounded));
        let page = heads.by_ref().take(limit).map(|(log, head)| LogHead { log: *log, head: *head }).collect();
        (page, heads.next().is_some())
    }

    /// A digest of all heads: equal where they are.
    pub(crate) fn digest(&self) -> EntryHash {
        let mut table = self.table();
        if let Some(digest) = table.digest {
            return digest;
        }
        let mut context = digest::Context::new(&SHA256);
        for (log, head) in &table.heads {
            context.update(log.author.as_bytes());
            context.update(&log.epoch.to_be_bytes());
            context.update(&head.position.to_be_bytes());
            context.update(&head.hash.0);
        }
        let mut digest = EntryHash::default();
        digest.0.copy_from_slice(context.finish().as_ref());
        table.digest = Some(digest);
        digest
    }

    /// A range for somebody else.
    pub(crate) async fn range(&self, log: LogId, since: u64, limit: u32) -> Result<Range, SyncError> {
        let range = self.wait(|reply| Job::Range { log, since, limit, reply }).await;
        range.unwrap_or(Err(SyncError::StoreFailed))
    }

    /// Checks a range of somebody else's, and stores it for good.
    pub(crate) async fn store(&self, sent: Sent) -> Result<Stored, SyncError> {
        let waiting = Waiting::new(&self.shared);
        let stored = self.wait(|reply| Job::Store { sent, waiting, reply }).await;
        stored.unwrap_or(Err(SyncError::StoreFailed))
    }

    /// What the core has to hear.
    pub(crate) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut table = self.table();
        if table.begun && table.busy != table.busy_told {
            table.busy_told = table.busy;
            return Poll::Ready(Event::SyncPressure { busy: table.busy });
        }
        if table.begun && table.untold.is_empty() {
            table.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let rest = table.untold.iter().nth(FRAME).copied();
        let rest = rest.map(|first| table.untold.split_off(&first)).unwrap_or_default();
        let frame = mem::replace(&mut table.untold, rest);
        let head = |log: LogId| table.heads.get(&log).map(|head| LogHead { log, head: *head });
        let heads = frame.into_iter().filter_map(head).collect();
        let last = table.begun || table.untold.is_empty();
        table.begun |= last;
        Poll::Ready(Event::SyncHeads { heads, last })
    }

    async fn wait<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, NodeGone> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await?;
        self.worker.wake();
        answer.await.map_err(|_| NodeGone)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A log has grown. Whether the core has to hear of it: it does where nobody else tells it.
    fn grew(&self, log: LogId, head: Head, tell: bool) {
        let mut table = self.table();
        table.set(log, head);
        table.grown.retain(|feeder| feeder.feed(LogHead { log, head }));
        if tell {
            table.untold.insert(log);
            table.wake();
        }
    }

    /// The core has to hear how far a log goes.
    fn tell(&self, log: LogId) {
        let mut table = self.table();
        table.untold.insert(log);
        table.wake();
    }

    fn set_busy(&self, busy: bool) {
        let mut table = self.table();
        if table.busy != busy {
            table.busy = busy;
            table.wake();
        }
    }
}

/// A range that waits to be stored, until this is dropped: whoever sent it may not wait that long.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn new(shared: &Arc<Shared>) -> Self {
        if shared.waiting.fetch_add(1, Ordering::Relaxed) + 1 >= MANY {
            shared.set_busy(true);
        }
        Self(Arc::clone(shared))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) - 1 <= FEW {
            self.0.set_busy(false);
        }
    }
}

impl Table {
    fn of(&self, author: &PeerId) -> impl DoubleEndedIterator<Item = LogHead> {
        self.heads.range(LogId::all_of(*author)).map(|(log, head)| LogHead { log: *log, head: *head })
    }

    /// An author's log of the highest epoch.
    fn newest(&self, author: &PeerId) -> Option<LogHead> {
        self.of(author).next_back()
    }

    fn has_room_for(&self, new: &LogId) -> bool {
        let retired = self.of(&new.author).rev().nth(MAX_EPOCHS - 1).is_some_and(|oldest| *new < oldest.log);
        !retired && self.heads.len() < MAX_LOGS
    }

    fn set(&mut self, log: LogId, head: Head) {
        self.heads.insert(log, head);
        self.digest = None;
        let retired = self.of(&log.author).rev().nth(MAX_EPOCHS).map(|retired| retired.log);
        if let Some(retired) = retired {
            self.heads.remove(&retired);
            self.untold.remove(&retired);
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").field("own", &self.own).finish_non_exhaustive()
    }
}
