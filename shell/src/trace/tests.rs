use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    sync::mpsc,
};

use futures::executor::block_on;
use kinfolk_core::{Action, Command, CommandId, Event, Reason};

use super::*;

const NODE: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

fn open(data: &Path, limits: TraceLimits) -> Recorder {
    Recorder::open(data, NODE.parse().unwrap(), limits, &Disk::default()).unwrap()
}

fn frame(second: u64, words: usize) -> Frame {
    // Text that does not compress away.
    let mut state = second.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = (0..words).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:x} ", state >> 16)
    });
    let answer = Err(kinfolk_core::AskError::Failed(text.collect()));
    let action = Action::Answer { request: kinfolk_core::RequestId(second), answer };
    let out = vec![Command { id: CommandId(second), action, reason: Reason::Asked }];
    Frame { t: Time::from_secs(second), r#in: Event::Wake, out }
}

/// Hands the frames in as the driver does.
fn record(recorder: &mut Recorder, frames: impl IntoIterator<Item = Frame>) {
    for frame in frames {
        if recorder.is_recording() {
            recorder.before(frame.t, 1_790_000_000, &Node::new());
            recorder.after(frame);
        } else {
            recorder.passed();
        }
    }
}

/// Waits until the thread has taken everything, flushed it, and exported it.
fn exported(recorder: &Recorder, file: &Path) -> Result<Exported, String> {
    let (reply, answer) = oneshot::channel();
    recorder.export(file.to_path_buf(), reply);
    block_on(answer).unwrap()
}

#[derive(Debug, Default)]
struct Segments(Vec<(Header, Vec<Frame>)>);

fn read(text: &str) -> Segments {
    let mut segments = Segments::default();
    for line in text.lines() {
        if line.starts_with("{\"kinfolk_trace\"") {
            segments.0.push((serde_json::from_str(line).unwrap(), vec![]));
        } else {
            segments.0.last_mut().unwrap().1.push(serde_json::from_str(line).unwrap());
        }
    }
    segments
}

impl Segments {
    fn shape(&self) -> Vec<(u64, SegmentReason, u64, bool, usize)> {
        let shape = |(header, frames): &(Header, Vec<Frame>)| {
            (header.segment, header.reason, header.lost, header.checkpoint.is_some(), frames.len())
        };
        self.0.iter().map(shape).collect()
    }

    fn frames(&self) -> Vec<Frame> {
        self.0.iter().flat_map(|(_, frames)| frames.clone()).collect()
    }
}

/// What can be decompressed of a file.
fn text_of(file: &Path) -> String {
    let mut text = vec![];
    // A file that was cut off ends in an error, after what is whole.
    let _ = zstd::Decoder::new(File::open(file).unwrap()).unwrap().read_to_end(&mut text);
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    String::from_utf8(text[..whole].to_vec()).unwrap()
}

fn files(data: &Path) -> BTreeMap<String, u64> {
    let size = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
    };
    fs::read_dir(data.join(FOLDER)).unwrap().map(size).collect()
}

#[test]
fn what_was_recorded_is_read_back() {
    let data = tempfile::tempdir().unwrap();
    let mut recorder = open(data.path(), TraceLimits::default());
    let frames: Vec<Frame> = (1..=100).map(|second| frame(second, 5)).collect();
    record(&mut recorder, frames.clone());
    for name in ["trace.jsonl", "trace.jsonl.zst"] {
        let file = data.path().join(name);
        let exported = exported(&recorder, &file).unwrap();
        assert_eq!((exported.segments, exported.bytes), (1, fs::metadata(&file).unwrap().len()));
        let text = if name.ends_with("zst") { text_of(&file) } else { fs::read_to_string(&file).unwrap() };
        let segments = read(&text);
        assert_eq!(segments.shape(), [(1, SegmentReason::Start, 0, false, 100)]);
        assert_eq!(segments.frames(), frames);
        assert_eq!(segments.0[0].0.unix_time, 1_790_000_000);
    }
    let status = recorder.status();
    assert_eq!((status.recording, status.segments, status.lost, status.error), (true, 1, 0, None));
    assert!(status.bytes > 1_000);
    block_on(recorder.close());
    assert_eq!(read(&text_of(&data.path().join("traces/000001.jsonl.zst"))).frames(), frames);
}

#[test]
fn a_killed_node_leaves_what_was_flushed_and_the_next_run_goes_on_counting() {
    let data = tempfile::tempdir().unwrap();
    let mut recorder = open(data.path(), TraceLimits::default());
    record(&mut recorder, (1..=50).map(|second| frame(second, 5)));
    exported(&recorder, &data.path().join("flushed")).unwrap();
    // As the disk looks to whoever comes after kill -9: no end was written.
    let after = tempfile::tempdir().unwrap();
    fs::create_dir(after.path().join(FOLDER)).unwrap();
    let mut bytes = fs::read(data.path().join("traces/000001.jsonl.zst")).unwrap();
    let whole = bytes.len();
    bytes.extend(b"half of a block");
    fs::write(after.path().join("traces/000001.jsonl.zst"), &bytes[..whole + 7]).unwrap();

    let mut recorder = open(after.path(), TraceLimits::default());
    record(&mut recorder, [frame(1, 1)]);
    let file = after.path().join("all.jsonl.zst");
    exported(&recorder, &file).unwrap();
    assert_eq!(
        read(&text_of(&file)).shape(),
        [(1, SegmentReason::Start, 0, false, 50), (2, SegmentReason::Start, 0, false, 1)]
    );
}

#[test]
fn the_ring_is_bounded_and_nothing_is_missing_in_it() {
    let data = tempfile::tempdir().unwrap();
    let limits = TraceLimits { segment_bytes: 20_000, segments: 4, ..TraceLimits::default() };
    let mut recorder = open(data.path(), limits);
    for second in 1..=600 {
        record(&mut recorder, [frame(second, 100)]);
        if second % 50 == 0 {
            // The thread is to keep up: this test is about the ring.
            exported(&recorder, &data.path().join("so far")).unwrap();
        }
    }
    let file = data.path().join("trace.jsonl");
    exported(&recorder, &file).unwrap();
    let segments = read(&fs::read_to_string(&file).unwrap());
    let shape = segments.shape();
    assert_eq!(shape.len(), 4, "{shape:?}");
    assert!(shape[0].0 > 4, "{shape:?}");
    assert!(shape.iter().all(|one| (one.1, one.2, one.3) == (SegmentReason::Rotation, 0, true)), "{shape:?}");
    let seconds: Vec<u64> = segments.frames().iter().map(|frame| frame.t.as_secs()).collect();
    assert!(seconds.windows(2).all(|two| two[0] + 1 == two[1]), "no input is missing between segments");
    assert_eq!(seconds.last(), Some(&600));
    assert_eq!(recorder.status().lost, 0);

    let sizes = files(data.path());
    assert_eq!(sizes.len(), 4, "{sizes:?}");
    assert_eq!(sizes.values().sum::<u64>(), recorder.status().bytes);
}

#[test]
fn the_ring_is_bounded_in_bytes_too() {
    let data = tempfile::tempdir().unwrap();
    let limits = TraceLimits { segment_bytes: 20_000, segments: 100, bytes: 90_000, record: true };
    let mut recorder = open(data.path(), limits);
    for second in 1..=600 {
        record(&mut recorder, [frame(second, 100)]);
        if second % 50 == 0 {
            exported(&recorder, &data.path().join("so far")).unwrap();
            let bytes: u64 = files(data.path()).values().sum();
            assert!(bytes <= 90_000, "{bytes}");
        }
    }
    block_on(recorder.close());
    // A smaller limit counts for what lies there already.
    drop(open(data.path(), TraceLimits { segments: 2, ..TraceLimits::default() }));
    assert_eq!(files(data.path()).len(), 2);
}

#[test]
fn a_segment_is_never_mostly_checkpoint() {
    let data = tempfile::tempdir().unwrap();
    let limits = TraceLimits { segment_bytes: 1, segments: 100, ..TraceLimits::default() };
    let mut recorder = open(data.path(), limits);
    let file = data.path().join("trace.jsonl");
    for second in 1..=40 {
        record(&mut recorder, [frame(second, 5)]);
        exported(&recorder, &file).unwrap();
    }
    let shape = read(&fs::read_to_string(&file).unwrap()).shape();
    assert!(shape.len() > 4, "{shape:?}");
    assert!(shape[..shape.len() - 1].iter().all(|segment| segment.4 >= 2), "{shape:?}");
}

#[test]
fn when_the_thread_does_not_keep_up_there_is_a_gap_with_a_checkpoint() {
    let data = tempfile::tempdir().unwrap();
    // Somebody else keeps the disk busy.
    let (disk, (go, wait)) = (Disk::default(), mpsc::channel::<()>());
    let other = disk.worker(move || wait.recv().is_ok());
    other.wake();
    let mut recorder = Recorder::open(data.path(), NODE.parse().unwrap(), TraceLimits::default(), &disk).unwrap();
    let extra = 500;
    // One place is the header's.
    let queued = QUEUE as u64 - 1;
    record(&mut recorder, (1..=queued + extra).map(|second| frame(second, 1)));
    assert_eq!(recorder.status().lost, extra);
    drop(go);
    while recorder.shared.waiting.load(Ordering::Relaxed) > 0 {
        std::thread::yield_now();
    }
    record(&mut recorder, [frame(5_000, 1), frame(5_001, 1)]);
    let file = data.path().join("trace.jsonl");
    exported(&recorder, &file).unwrap();
    assert_eq!(
        read(&fs::read_to_string(&file).unwrap()).shape(),
        [(1, SegmentReason::Start, 0, false, queued as usize), (2, SegmentReason::Gap, extra, true, 2)]
    );
}

#[test]
fn a_failed_write_is_told_and_leaves_a_gap() {
    let data = tempfile::tempdir().unwrap();
    let shared = Arc::new(Shared::default());
    let ring = Ring::open(data.path().join(FOLDER), TraceLimits::default()).unwrap();
    let mut writer = Writer::new(ring, Arc::clone(&shared), oneshot::channel().0);
    let header = |reason| Header::new(NODE.parse().unwrap(), 0, reason, Time::ZERO, 0);
    fs::remove_dir(data.path().join(FOLDER)).unwrap();
    writer.take(Message::Begin(Box::new(header(SegmentReason::Start))));
    writer.take(Message::Frame(Box::new(frame(1, 1))));
    writer.take(Message::Frame(Box::new(frame(2, 1))));
    assert!(shared.error.lock().unwrap().as_ref().unwrap().contains("can't write to"));
    assert_eq!(shared.lost.load(Ordering::Relaxed), 2);

    fs::create_dir(data.path().join(FOLDER)).unwrap();
    writer.retry_now();
    writer.take(Message::Frame(Box::new(frame(3, 1))));
    assert!(shared.recovered.load(Ordering::Relaxed), "the driver is asked for a checkpoint");
    writer.take(Message::Begin(Box::new(header(SegmentReason::Gap))));
    assert_eq!(*shared.error.lock().unwrap(), None);
    writer.take(Message::Frame(Box::new(frame(4, 1))));
    writer.take(Message::Stop);
    let (name, _) = files(data.path()).pop_first().unwrap();
    let shape = read(&text_of(&data.path().join(FOLDER).join(name))).shape();
    assert_eq!((shape[0].1, shape[0].2, shape[0].4), (SegmentReason::Gap, 3, 1));
}

#[test]
fn recording_is_switched_off_and_on() {
    let data = tempfile::tempdir().unwrap();
    let mut recorder = open(data.path(), TraceLimits { record: false, ..TraceLimits::default() });
    let file = data.path().join("trace.jsonl");
    let nothing = exported(&recorder, &file).unwrap_err();
    assert!(nothing.contains("nothing has been recorded"), "{nothing}");
    assert!(!file.exists());

    record(&mut recorder, [frame(1, 1)]);
    recorder.start();
    record(&mut recorder, [frame(2, 1)]);
    recorder.stop();
    record(&mut recorder, [frame(3, 1)]);
    recorder.start();
    record(&mut recorder, [frame(4, 1), frame(5, 1)]);
    exported(&recorder, &file).unwrap();
    assert_eq!(
        read(&fs::read_to_string(&file).unwrap()).shape(),
        [(1, SegmentReason::Asked, 0, true, 1), (2, SegmentReason::Asked, 0, true, 2)]
    );
}

#[test]
fn an_export_says_what_it_cannot_write() {
    let data = tempfile::tempdir().unwrap();
    let mut recorder = open(data.path(), TraceLimits::default());
    record(&mut recorder, [frame(1, 1)]);
    let error = exported(&recorder, Path::new("relative")).unwrap_err();
    assert!(error.contains("not an absolute path"), "{error}");
    let error = exported(&recorder, &data.path().join("no/such/folder")).unwrap_err();
    assert!(error.contains("can't write") && error.contains("no/such/folder"), "{error}");
}
