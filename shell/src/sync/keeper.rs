//! What checks and stores, on the disk's thread.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures::channel::{mpsc, oneshot};
use kinfolk_core::{EntryHash, Head, LogHead, LogId, PeerId, SyncError};
use libp2p::identity::Keypair;

use super::{
    MAX_READ, READ_BYTES, Range, Sent, Shared, Stored, Waiting,
    chain::{self, BLOCK, MAX_EPOCH, MAX_POSITION, Place, Wrong},
    log::{Entry, Fork, Log, LogError},
};

/// What it is asked for.
pub(super) enum Job {
    Put { entries: Vec<Vec<u8>>, reply: oneshot::Sender<Result<LogHead, LogError>> },
    Store { sent: Sent, waiting: Waiting, reply: oneshot::Sender<Result<Stored, SyncError>> },
    Range { log: LogId, since: u64, limit: u32, reply: oneshot::Sender<Result<Range, SyncError>> },
    Read { log: LogId, since: u64, limit: u32, reply: oneshot::Sender<Result<Vec<Entry>, LogError>> },
    Heads { reply: oneshot::Sender<Result<Vec<LogHead>, LogError>> },
    Forks { reply: oneshot::Sender<Result<Vec<Fork>, LogError>> },
    Close { reply: oneshot::Sender<()> },
}

/// Where jobs wait for the keeper, until `Close`, or until nobody can ask any more.
pub(super) struct Desk(Option<(Keeper, mpsc::Receiver<Job>)>);

impl Desk {
    pub(super) fn new(keeper: Keeper, jobs: mpsc::Receiver<Job>) -> Self {
        Self(Some((keeper, jobs)))
    }

    /// Does the first of them; whether it may not have been the last.
    pub(super) fn work(&mut self) -> bool {
        let Some((keeper, jobs)) = &mut self.0 else { return false };
        let closed = match jobs.try_recv() {
            Ok(Job::Close { reply }) => Some(reply),
            Ok(job) => {
                keeper.take(job);
                return true;
            }
            Err(mpsc::TryRecvError::Empty) => return false,
            Err(mpsc::TryRecvError::Closed) => None,
        };
        // The store's files are closed before anybody hears that it has ended.
        if let Some((Keeper { log, shared, .. }, jobs)) = self.0.take() {
            drop(log);
            shared.table().grown.clear();
            drop((jobs, closed));
        }
        false
    }
}

/// See the module.
pub(super) struct Keeper {
    own: PeerId,
    key: Keypair,
    log: Box<dyn Log>,
    shared: Arc<Shared>,
    /// Numbers of our own log may have been given already: the next entry begins a new epoch.
    anew: bool,
}

impl Keeper {
    pub(super) fn new(own: PeerId, key: Keypair, mut log: Box<dyn Log>, shared: Arc<Shared>) -> Result<Self, LogError> {
        let newest = shared.table().newest(&own).map(|newest| newest.log);
        let forked = log.forks()?.iter().any(|fork| Some(fork.log) == newest);
        let anew = forked || log.begins_anew()?;
        Ok(Self { own, key, log, shared, anew })
    }

    fn take(&mut self, job: Job) {
        // Whoever asked may have gone: no reply is sure to arrive, and only one needs to.
        match job {
            Job::Close { reply } => drop(reply),
            Job::Put { entries, reply } => drop(reply.send(self.put(entries))),
            Job::Store { sent, waiting, reply } => {
                let log = sent.log;
                let stored = self.store(sent);
                drop(waiting);
                if let Err(Ok(_)) = reply.send(stored) {
                    self.shared.tell(log);
                }
            }
            Job::Range { log, since, limit, reply } => {
                if !reply.is_canceled() {
                    drop(reply.send(self.range(&log, since, limit)));
                }
            }
            Job::Read { log, since, limit, reply } => {
                drop(reply.send(self.log.read(&log, since, limit, READ_BYTES)));
            }
            Job::Heads { reply } => drop(reply.send(self.log.heads())),
            Job::Forks { reply } => drop(reply.send(self.log.forks())),
        }
    }

    fn put(&mut self, data: Vec<Vec<u8>>) -> Result<LogHead, LogError> {
        let first = LogId { author: self.own, epoch: 0 };
        let newest = self.shared.table().newest(&self.own);
        let LogHead { mut log, mut head } = newest.unwrap_or(LogHead { log: first, head: Head::default() });
        if data.is_empty() {
            return Ok(LogHead { log, head });
        }
        let anew = self.anew;
        if anew {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            log.epoch = now.max(log.epoch + 1);
            head = Head::default();
        }
        if log.epoch > MAX_EPOCH || head.position + data.len() as u64 > MAX_POSITION {
            return Err(LogError::Full("there are no numbers any more".to_owned()));
        }
        let place = Place { log: &log, since: head.position, before: head.hash };
        let entries = chain::write(place, &self.key, data).map_err(LogError::Failed)?;
        self.log.append(&log, &entries).inspect_err(|error| tracing::warn!(%error, "nothing was put"))?;
        if anew {
            self.anew = false;
            if let Err(error) = self.log.begun() {
                tracing::warn!(%error, "the next start of this node begins a new epoch of its log");
            }
        }
        if let Some(last) = entries.last() {
            head = Head { position: last.position, hash: last.hash };
            self.shared.grew(log, head, true);
        }
        Ok(LogHead { log, head })
    }

    fn store(&mut self, sent: Sent) -> Result<Stored, SyncError> {
        let Sent { log, since, before, items } = sent;
        let known = self.shared.table().heads.get(&log).copied();
        if known.is_none() && !self.shared.table().has_room_for(&log) {
            return Err(SyncError::LogFull);
        }
        let mut head = known.unwrap_or_default();
        if since > head.position {
            return Err(SyncError::Gap);
        }
        let entries = chain::check(Place { log: &log, since, before }, items).map_err(|wrong| match wrong {
            Wrong::Malformed => SyncError::Malformed,
            Wrong::Forged => SyncError::Forged,
        })?;
        if since == 0 && before != EntryHash::default() {
            return Err(SyncError::Malformed);
        }
        if since > 0 && self.own_hash(&log, since)? != before {
            return Err(self.forked(Fork { log, position: since, other: before }, &entries));
        }
        let known = usize::try_from(head.position - since).unwrap_or(usize::MAX).min(entries.len());
        if let Some(fork) = self.first_other(&log, since, &entries[..known])? {
            let at = usize::try_from(fork.position - since - 1).unwrap_or_default();
            return Err(self.forked(fork, &entries[at..]));
        }
        let new = &entries[known..];
        if let Some(last) = new.last() {
            self.log.append(&log, new).map_err(|error| match error {
                LogError::Full(_) => SyncError::LogFull,
                LogError::Damaged(_) | LogError::Failed(_) => failed(&error),
            })?;
            head = Head { position: last.position, hash: last.hash };
            if log.author == self.own && self.shared.table().newest(&log.author).is_none_or(|newest| newest.log <= log)
            {
                // They were lost here, and there may be more of them elsewhere than have come so far.
                self.anew = true;
            }
            self.shared.grew(log, head, false);
        }
        Ok(Stored { head, entries: u32::try_from(new.len()).unwrap_or(u32::MAX) })
    }

    /// The first of these entries that is another one than ours.
    fn first_other(&mut self, log: &LogId, since: u64, entries: &[Entry]) -> Result<Option<Fork>, SyncError> {
        // Hashes are chained: where the last one is the same, all are.
        match entries.last() {
            None => return Ok(None),
            Some(last) if self.own_hash(log, last.position)? == last.hash => return Ok(None),
            Some(_) => {}
        }
        let (mut same, mut other) = (since, since + entries.len() as u64);
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            let theirs = usize::try_from(middle - since - 1).ok().and_then(|at| entries.get(at));
            if theirs.is_some_and(|theirs| self.own_hash(log, middle).is_ok_and(|ours| ours == theirs.hash)) {
                same = middle;
            } else {
                other = middle;
            }
        }
        let theirs = usize::try_from(other - since - 1).ok().and_then(|at| entries.get(at));
        Ok(theirs.map(|theirs| Fork { log: *log, position: other, other: theirs.hash }))
    }

    fn own_hash(&mut self, log: &LogId, position: u64) -> Result<EntryHash, SyncError> {
        let hash = self.log.hash(log, position).map_err(|error| failed(&error))?;
        hash.ok_or_else(|| failed(&LogError::Damaged(format!("entry {position} of {log} is missing"))))
    }

    fn forked(&mut self, fork: Fork, entries: &[Entry]) -> SyncError {
        if let Err(error) = self.log.keep_apart(&fork, entries) {
            tracing::warn!(%error, "the other branch of a fork is not kept");
        }
        let newest = self.shared.table().newest(&self.own);
        if newest.is_some_and(|newest| newest.log == fork.log) && !self.anew {
            tracing::warn!(
                position = fork.position,
                "entries of this node's own log are elsewhere that are not here, as after restoring a backup; its next \
                 entry begins a new epoch"
            );
            self.anew = true;
        }
        SyncError::Forked { position: fork.position }
    }

    fn range(&mut self, log: &LogId, since: u64, limit: u32) -> Result<Range, SyncError> {
        if log.epoch > MAX_EPOCH || since > MAX_POSITION {
            return Err(SyncError::NotThere);
        }
        let before = match since {
            0 => EntryHash::default(),
            _ => self.log.hash(log, since).map_err(|error| failed(&error))?.ok_or(SyncError::NotThere)?,
        };
        // A range ends in a signature, which may come after the limit.
        let block = BLOCK as u32;
        let wanted = limit.clamp(1, MAX_READ);
        let bytes = READ_BYTES.max(chain::BLOCK_BYTES + chain::MAX_ENTRY);
        let mut entries = self.log.read(log, since, wanted.max(block), bytes).map_err(|error| failed(&error))?;
        if !chain::holds(Place { log, since, before }, &entries) {
            return Err(failed(&LogError::Damaged(format!("entries of {log} after {since} have changed"))));
        }
        let signed = |(at, entry): (usize, &Entry)| entry.signature.is_some().then_some(at + 1);
        let ends = || entries.iter().enumerate().filter_map(signed);
        let end = ends().take_while(|end| *end <= wanted as usize).last().or_else(|| ends().next());
        let read = entries.len();
        entries.truncate(end.ok_or(SyncError::NotThere)?);
        let has_more = entries.len() < read || {
            let last = since + entries.len() as u64;
            !self.log.read(log, last, 1, 1).map_err(|error| failed(&error))?.is_empty()
        };
        Ok(Range { before, entries, has_more })
    }
}

fn failed(error: &LogError) -> SyncError {
    tracing::warn!(%error, "logs can't be read or written");
    SyncError::StoreFailed
}
