//! The segments on disk, and what writes them.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use kinfolk_core::trace::{Frame, Header};
use serde::Serialize;
use zstd::{stream::raw::CParameter, zstd_safe::Strategy};

use super::{Message, Shared, TraceLimits, export};
use crate::api::types::Exported;

/// After a failed write (disk full), the next try.
const RETRY: Duration = Duration::from_secs(60);

/// How a segment is compressed. With 64 KiB to look back into and small tables, which it searches longer, the compressor
/// needs 0.35 MiB in place of 1.3 (level 3 with 256 KiB), and a trace with batches of a few lines becomes a tenth smaller.
const COMPRESSION: [CParameter; 7] = [
    CParameter::Strategy(Strategy::ZSTD_lazy),
    CParameter::WindowLog(16),
    CParameter::HashLog(14),
    CParameter::ChainLog(14),
    CParameter::SearchLog(3),
    CParameter::MinMatch(5),
    CParameter::TargetLength(4),
];

/// The room for a line that is kept from line to line; only checkpoints are longer.
const KEPT_LINE: usize = 64 << 10;

/// The files of the ring.
#[derive(Debug)]
pub(super) struct Ring {
    folder: PathBuf,
    limits: TraceLimits,
    segments: VecDeque<Segment>,
    next: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
}

impl Ring {
    pub(super) fn open(folder: PathBuf, limits: TraceLimits) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut segments = vec![];
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(".jsonl.zst")).and_then(|name| name.parse().ok());
            if let Some(number) = number {
                segments.push(Segment { number, bytes: entry.metadata()?.len() });
            }
        }
        segments.sort_by_key(|segment| segment.number);
        let next = segments.last().map_or(1, |last| last.number.saturating_add(1));
        let mut ring = Self { folder, limits, segments: segments.into(), next };
        ring.drop_oldest();
        Ok(ring)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:06}.jsonl.zst"))
    }

    fn begin(&mut self) -> io::Result<(u64, File)> {
        let number = self.next;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(number))?;
        self.next += 1;
        self.segments.push_back(Segment { number, bytes: 0 });
        self.drop_oldest();
        Ok((number, file))
    }

    fn written(&mut self, bytes: u64) {
        if let Some(last) = self.segments.back_mut() {
            last.bytes = bytes;
        }
        self.drop_oldest();
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn drop_oldest(&mut self) {
        let most = usize::try_from(self.limits.segments.max(1)).unwrap_or(usize::MAX);
        while self.segments.len() > 1 && (self.segments.len() > most || self.bytes() > self.limits.bytes) {
            let Some(oldest) = self.segments.pop_front() else { return };
            let path = self.path(oldest.number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "can't remove an old trace segment");
            }
        }
    }

    /// The segments, oldest first, opened: what is removed or written later makes no difference.
    fn files(&self) -> io::Result<Vec<(File, u64)>> {
        let open = |segment: &Segment| Ok((File::open(self.path(segment.number))?, segment.bytes));
        self.segments.iter().filter(|segment| segment.bytes > 0).map(open).collect()
    }
}

/// What the disk's thread holds.
#[derive(Debug)]
pub(super) struct Writer {
    ring: Ring,
    shared: Arc<Shared>,
    segment: Option<Open>,
    /// The segment ended by a failure, and frames are thrown away until a new one begins; it is asked for then.
    retry_at: Option<Instant>,
    /// Frames that were thrown away, up to the last header.
    told_lost: u64,
    line: Vec<u8>,
    /// Dropped last.
    _end: oneshot::Sender<()>,
}

struct Open {
    encoder: zstd::Encoder<'static, Counted>,
    /// It is full at this size.
    full: u64,
    told_full: bool,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("bytes", &self.encoder.get_ref().bytes).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Counted {
    file: File,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Writer {
    pub(super) fn new(ring: Ring, shared: Arc<Shared>, end: oneshot::Sender<()>) -> Self {
        let writer = Self { ring, shared, segment: None, retry_at: None, told_lost: 0, line: vec![], _end: end };
        writer.publish();
        writer
    }

    /// As if the wait after a failure were over.
    #[cfg(test)]
    pub(super) fn retry_now(&mut self) {
        self.retry_at = self.retry_at.map(|_| Instant::now());
    }

    /// A message from the queue.
    pub(super) fn receive(&mut self, message: Message) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        self.take(message);
    }

    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Begin(header) => {
                self.end();
                if let Err(error) = self.begin(*header) {
                    self.fail(&error);
                }
            }
            Message::Frame(frame) => self.frame(&frame),
            Message::Flush => self.flush(),
            Message::Stop => self.end(),
            Message::Export(file, reply) => {
                self.flush();
                self.export(file, reply);
            }
        }
    }

    fn begin(&mut self, mut header: Header) -> io::Result<()> {
        let (number, file) = self.ring.begin()?;
        let mut encoder = zstd::Encoder::new(Counted { file, bytes: 0 }, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        for parameter in COMPRESSION {
            encoder.set_parameter(parameter)?;
        }
        // A flipped bit may be other JSON that is just as valid.
        encoder.include_checksum(true)?;
        self.segment = Some(Open { encoder, full: u64::MAX, told_full: false });
        header.segment = number;
        let lost = self.shared.lost.load(Ordering::Relaxed);
        header.lost += lost - self.told_lost;
        self.told_lost = lost;
        self.line(&header)?;
        self.retry_at = None;
        *self.shared.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // A header makes a segment: it can be read from now on.
        self.try_flush()?;
        if let Some(segment) = &mut self.segment {
            // However large the checkpoint is, at least as much follows: else a large node would write nothing else.
            let header = segment.encoder.get_ref().bytes;
            segment.full = header + self.ring.limits.segment_bytes.max(header);
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame) {
        if self.segment.is_none() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            if self.retry_at.is_some_and(|at| Instant::now() >= at) {
                self.retry_at = Some(Instant::now() + RETRY);
                self.shared.recovered.store(true, Ordering::Relaxed);
            }
            return;
        }
        match self.line(frame) {
            Ok(()) => self.measure(),
            Err(error) => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                self.fail(&error);
            }
        }
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        // First as a whole, so that what can't be written leaves no half line.
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        segment.encoder.write_all(&self.line)?;
        if self.line.capacity() > KEPT_LINE {
            self.line = vec![];
        }
        Ok(())
    }

    /// Notes how long the segment has become, and asks for another one when it is full.
    fn measure(&mut self) {
        let Some(segment) = &mut self.segment else { return };
        let bytes = segment.encoder.get_ref().bytes;
        if bytes >= segment.full && !segment.told_full {
            segment.told_full = true;
            self.shared.full.store(true, Ordering::Relaxed);
        }
        self.ring.written(bytes);
        self.publish();
    }

    fn flush(&mut self) {
        if let Err(error) = self.try_flush() {
            self.fail(&error);
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        segment.encoder.flush()?;
        self.measure();
        Ok(())
    }

    /// Ends the segment.
    pub(super) fn end(&mut self) {
        let Some(segment) = self.segment.take() else { return };
        match segment.encoder.finish() {
            Ok(counted) => {
                self.ring.written(counted.bytes);
                self.publish();
            }
            Err(error) => self.note(&error),
        }
    }

    /// Gives the segment up; what is in it stays readable up to the last flush.
    fn fail(&mut self, error: &io::Error) {
        self.note(error);
        if let Some(segment) = self.segment.take() {
            self.ring.written(segment.encoder.get_ref().bytes);
        }
        self.retry_at = Some(Instant::now() + RETRY);
        self.publish();
    }

    fn note(&self, error: &io::Error) {
        tracing::warn!(%error, folder = %self.ring.folder.display(), "can't record the trace");
        let text = format!("can't write to {}: {error}", self.ring.folder.display());
        *self.shared.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    fn publish(&self) {
        self.shared.segments.store(self.ring.segments.len() as u64, Ordering::Relaxed);
        self.shared.bytes.store(self.ring.bytes(), Ordering::Relaxed);
    }

    fn export(&self, file: PathBuf, reply: oneshot::Sender<Result<Exported, String>>) {
        let segments = match self.ring.files() {
            Ok(segments) => segments,
            Err(error) => {
                // Nobody may be waiting; here and below.
                let _ = reply.send(Err(format!("can't read {}: {error}", self.ring.folder.display())));
                return;
            }
        };
        let export = move || {
            let _ = reply.send(export::export(segments, &file));
        };
        if let Err(error) = thread::Builder::new().name("kinfolk-export".into()).spawn(export) {
            tracing::warn!(%error, "can't start a thread to export the trace");
        }
    }
}
