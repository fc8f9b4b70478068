//! The recorder: what the node is told and what it commands, in a bounded ring of segments on disk.
//!
//! Format and meaning of the lines: `kinfolk_core::trace`. Each segment is a file `traces/NNNNNN.jsonl.zst` of the data
//! folder. The newest are kept, up to a number of files and bytes. The [`Disk`] compresses and writes; the driver hands its
//! frames over and never waits. When that does not keep up or can't write, the segment ends, and a new one starts with a
//! checkpoint, the reason `gap` and the number of inputs that are missing. What was written is readable up to the last
//! flush, even after kill -9; [`Recorder::due_in`] says when the next one is due.

mod export;
mod ring;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use kinfolk_core::{
    Node, PeerId, Time,
    trace::{Frame, Header, SegmentReason},
};

use self::ring::{Ring, Writer};
use crate::{
    api::types::{Exported, TraceStatus},
    disk::{Disk, Worker},
};

/// The folder of the segments, in the data folder.
pub const FOLDER: &str = "traces";

/// What was recorded is readable on disk this long after, unless somebody says otherwise.
pub const FLUSH: Duration = Duration::from_secs(2);

/// Frames that may wait.
const QUEUE: usize = 1_024;

/// So many are compressed without waiting for a flush.
const MANY: usize = 128;

/// So many are compressed before others have a turn at the disk.
const TURN: usize = 64;

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceLimits {
    /// A segment is full when so much was written after its checkpoint, in bytes on disk; default 4 MiB, which is
    /// about 40 MiB of text.
    pub segment_bytes: u64,
    /// Segments kept; default 32. Each start of the node begins one, so a node that is started often would soon have
    /// nothing but starts if these were few.
    pub segments: u32,
    /// Bytes kept on disk by all of them, checkpoints included; default 32 MiB. The newest segment is kept in any case.
    pub bytes: u64,
    /// Whether to record from the start; default yes.
    pub record: bool,
}

impl Default for TraceLimits {
    fn default() -> Self {
        Self { segment_bytes: 4 << 20, segments: 32, bytes: 32 << 20, record: true }
    }
}

/// The driver's end of the recorder.
#[derive(Debug)]
pub struct Recorder {
    node: PeerId,
    queue: SyncSender<Message>,
    /// After `queue`: when it is called the last time, it finds that nothing more can come.
    worker: Worker,
    ended: oneshot::Receiver<()>,
    flush: Duration,
    /// Since when something waits to be readable on disk.
    dirty: Option<Instant>,
    shared: Arc<Shared>,
    /// A new segment is due, for this reason.
    begin: Option<SegmentReason>,
    recording: bool,
    /// Inputs that are missing since the last segment.
    lost: u64,
    /// Inputs that are missing since the start.
    lost_ever: u64,
}

#[derive(Debug)]
enum Message {
    Begin(Box<Header>),
    Frame(Box<Frame>),
    Flush,
    Stop,
    Export(PathBuf, oneshot::Sender<Result<Exported, String>>),
}

/// What both sides know.
#[derive(Debug, Default)]
struct Shared {
    /// Messages in the queue.
    waiting: AtomicUsize,
    /// The segment is full: another one, please.
    full: AtomicBool,
    /// Writing failed and frames were thrown away; a new segment may begin.
    recovered: AtomicBool,
    /// How many were thrown away since the start.
    lost: AtomicU64,
    segments: AtomicU64,
    bytes: AtomicU64,
    error: std::sync::Mutex<Option<String>>,
}

impl Recorder {
    /// Opens the ring of a data folder; the first frame begins a segment.
    ///
    /// # Errors
    /// When the folder can't be made or read.
    pub fn open(data_dir: &Path, node: PeerId, limits: TraceLimits, disk: &Disk) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ring = Ring::open(data_dir.join(FOLDER), limits)?;
        let (end, ended) = oneshot::channel();
        let mut writer = Writer::new(ring, Arc::clone(&shared), end);
        let (queue, messages) = sync_channel(QUEUE);
        Ok(Self {
            node,
            queue,
            worker: disk.worker(move || work(&mut writer, &messages)),
            ended,
            flush: FLUSH,
            dirty: None,
            shared,
            begin: Some(SegmentReason::Start),
            recording: limits.record,
            lost: 0,
            lost_ever: 0,
        })
    }

    /// Makes what was recorded readable so long after, in place of [`FLUSH`].
    pub fn with_flush(self, flush: Duration) -> Self {
        Self { flush, ..self }
    }

    /// After this, what was recorded is to be made readable: call [`Recorder::flush`] then. `None`: it is.
    pub fn due_in(&self) -> Option<Duration> {
        self.dirty.map(|since| self.flush.saturating_sub(since.elapsed()))
    }

    /// Has everything written that was recorded. Does not wait for it.
    pub fn flush(&mut self) {
        // A full queue is worked off in any case, and the next flush comes for what it leaves behind.
        self.dirty = self.send(Message::Flush).err().map(|_| Instant::now());
        self.worker.wake();
    }

    /// Whether the next input is to be recorded: call [`Recorder::before`] and [`Recorder::after`] then.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Before an input is handed in, with nothing left to drain: begins a new segment where one is due.
    pub fn before(&mut self, now: Time, unix_time: u64, node: &Node) {
        if self.shared.recovered.swap(false, Ordering::Relaxed) {
            self.begin = Some(SegmentReason::Gap);
        }
        let due = self.shared.full.load(Ordering::Relaxed).then_some(SegmentReason::Rotation);
        let Some(reason) = self.begin.or(due) else { return };
        // A checkpoint costs a copy of the node: not while there is enough to do.
        if reason != SegmentReason::Start && self.shared.waiting.load(Ordering::Relaxed) > QUEUE / 2 {
            return;
        }
        // The number is the writer's to give.
        let mut header = Header::new(self.node, 0, reason, now, unix_time);
        header.lost = self.lost;
        if reason != SegmentReason::Start {
            header.checkpoint = Some(Box::new(node.clone()));
        }
        if self.send(Message::Begin(Box::new(header))).is_ok() {
            self.begin = None;
            self.lost = 0;
            self.shared.full.store(false, Ordering::Relaxed);
            self.worker.wake();
        }
    }

    /// After an input was handed in and everything drained.
    pub fn after(&mut self, frame: Frame) {
        if self.begin.is_none() && self.send(Message::Frame(Box::new(frame))).is_ok() {
            self.dirty.get_or_insert_with(Instant::now);
            if self.shared.waiting.load(Ordering::Relaxed) >= MANY {
                self.worker.wake();
            }
            return;
        }
        self.begin = Some(SegmentReason::Gap);
        self.lost += 1;
        self.lost_ever += 1;
    }

    /// Switches recording on.
    pub fn start(&mut self) {
        if !self.recording {
            self.recording = true;
            self.lost = 0;
            // A node that was not told anything yet still is at its start.
            self.begin = Some(if self.begin == Some(SegmentReason::Start) {
                SegmentReason::Start
            } else {
                SegmentReason::Asked
            });
        }
    }

    /// Switches recording off.
    pub fn stop(&mut self) {
        if self.recording {
            self.recording = false;
            // When the queue is full, the segment ends with the next one's beginning.
            let _ = self.send(Message::Stop);
            self.dirty = None;
            self.worker.wake();
        }
    }

    /// An input went by while recording was off: the start is over.
    pub fn passed(&mut self) {
        if self.begin == Some(SegmentReason::Start) {
            self.begin = Some(SegmentReason::Asked);
        }
    }

    /// How it stands.
    pub fn status(&self) -> TraceStatus {
        let error = self.shared.error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        TraceStatus {
            recording: self.recording,
            segments: u32::try_from(self.shared.segments.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            lost: self.lost_ever + self.shared.lost.load(Ordering::Relaxed),
            error,
        }
    }

    /// Writes everything recorded so far into one file, on a thread of its own.
    pub fn export(&self, file: PathBuf, reply: oneshot::Sender<Result<Exported, String>>) {
        if let Err(Message::Export(_, reply)) = self.send(Message::Export(file, reply)) {
            // Nobody may be waiting.
            let _ = reply.send(Err("the recorder is too busy right now; try again".into()));
        }
        self.worker.wake();
    }

    /// Writes what is left, and ends. Done when the future is.
    pub async fn close(self) {
        drop((self.queue, self.worker));
        // Nothing is ever sent: the other end is dropped when the file is closed.
        let _ = self.ended.await;
    }

    fn send(&self, message: Message) -> Result<(), Message> {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(message).map_err(|error| {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(message) | TrySendError::Disconnected(message) => message,
            }
        })
    }
}

/// Takes some of what waits; whether there is more.
fn work(writer: &mut Writer, messages: &Receiver<Message>) -> bool {
    for _ in 0..TURN {
        match messages.try_recv() {
            Ok(message) => writer.receive(message),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => {
                writer.end();
                return false;
            }
        }
    }
    true
}
