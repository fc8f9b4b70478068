//! Whatever a file holds, reading ends in order: all that stands before the damage, then one error with its place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{self, Read, Write};

use kinfolk_sim::trace::{Entry, Item, MAX_FRAME, Problem, ReadError, Reader};
use proptest::prelude::*;
use serde_json::Value;

fn read(bytes: &[u8]) -> (Vec<Item>, Option<ReadError>) {
    let mut items = vec![];
    let mut reader = match Reader::<Value>::new("t.jsonl", io::Cursor::new(bytes.to_vec())) {
        Ok(reader) => reader,
        Err(error) => return (items, Some(error)),
    };
    for item in reader.by_ref() {
        match item {
            Ok(item) => items.push(item),
            Err(error) => {
                assert!(reader.next().is_none(), "nothing comes after an error");
                return (items, Some(error));
            }
        }
    }
    (items, None)
}

fn error(bytes: &[u8]) -> String {
    read(bytes).1.expect("an error").to_string()
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_string).collect()
}

/// The first lines of the trace; a new segment is among them.
fn beginning(count: usize) -> Vec<u8> {
    (lines(&common::hand_made())[..count].join("\n") + "\n").into_bytes()
}

/// The trace with one line changed.
fn with_line(at: usize, line: &str) -> Vec<u8> {
    let mut lines = lines(&common::hand_made());
    lines[at] = line.to_string();
    (lines.join("\n") + "\n").into_bytes()
}

#[test]
fn what_was_written_is_read() {
    let text = common::hand_made();
    let (items, error) = read(&text);
    assert!(error.is_none());
    let written: Vec<String> = items
        .iter()
        .map(|item| match &item.entry {
            Entry::Header(header) => serde_json::to_string(header).unwrap(),
            Entry::Frame(frame) => serde_json::to_string(frame).unwrap(),
        })
        .collect();
    assert_eq!(written, lines(&text));
    assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), (1..=items.len() as u64).collect::<Vec<_>>());
}

#[test]
fn compression_is_told_by_the_bytes_and_may_be_in_pieces() {
    let text = common::hand_made();
    let (plain, _) = read(&text);
    assert_eq!(read(&compress(&text)).0, plain);
    let pieces: Vec<u8> = text.chunks(777).flat_map(compress).collect();
    let (items, error) = read(&pieces);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(items, plain);
}

#[test]
fn a_file_cut_anywhere_gives_all_whole_lines() {
    let text = beginning(24);
    let (all, _) = read(&text);
    for cut in 1..text.len() {
        let (items, error) = read(&text[..cut]);
        // A line is whole when its last brace is there, with or without the line feed.
        let feeds = text[..cut].iter().filter(|byte| **byte == b'\n').count();
        let whole = feeds + usize::from(text[cut] == b'\n');
        assert_eq!(items, all[..whole], "cut at {cut}");
        let ragged = text[cut] != b'\n' && text[cut - 1] != b'\n';
        let problem = error.map(|error| (error.line, error.problem.kind()));
        let named = if cut < "{\"kinfolk_trace\"".len() { "not_json" } else { "cut_off" };
        assert_eq!(problem, ragged.then_some((whole as u64 + 1, named)), "cut at {cut}");
    }
}

#[test]
fn a_compressed_file_cut_anywhere_gives_what_was_flushed() {
    let text = beginning(24);
    let (all, _) = read(&text);
    let mut flushed = vec![];
    let mut encoder = zstd::Encoder::new(&mut flushed, 3).unwrap();
    let mut marks = vec![];
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        encoder.write_all(line).unwrap();
        encoder.flush().unwrap();
        marks.push(encoder.get_ref().len());
    }
    encoder.finish().unwrap();
    for cut in 4..flushed.len() {
        let (items, error) = read(&flushed[..cut]);
        let at_least = marks.iter().filter(|mark| **mark <= cut).count();
        assert!(items.len() >= at_least, "cut at {cut}: {} lines of {at_least}", items.len());
        assert_eq!(items, all[..items.len()], "cut at {cut}");
        assert_eq!(error.map(|error| error.problem.kind()), Some("cut_off"), "cut at {cut}");
    }
}

#[test]
fn errors_say_where_and_what() {
    insta::assert_snapshot!(error(b""), @"t.jsonl: there is nothing in it; a trace begins with a header line");
    insta::assert_snapshot!(error(b"hello\n"), @"t.jsonl, line 1: no JSON at column 1: expected value");
    insta::assert_snapshot!(error(b"{\"peers\":[]}\n"), @r#"t.jsonl, line 1: not a trace: the first line must be a header ({"kinfolk_trace":1,…})"#);
    insta::assert_snapshot!(error(b"{\"kinfolk_trace\":9,\"new\":true}\n"), @"t.jsonl, line 1: the trace has format 9, and this kinfolk-sim reads format 1; it comes from a newer Kinfolk: use the kinfolk-sim of that one");
    insta::assert_snapshot!(error(b"{\"kinfolk_trace\":0}\n"), @"t.jsonl, line 1: the trace has format 0, and this kinfolk-sim reads format 1; it comes from an older Kinfolk: use the kinfolk-sim of that one");
    insta::assert_snapshot!(error(b"{\"kinfolk_trace\":1}\n"), @"t.jsonl, line 1: the segment's header can't be understood: missing field `core`");
    insta::assert_snapshot!(error(b"{\"kinfolk_trace\":\"x\"}\n"), @r#"t.jsonl, line 1: the segment's header can't be understood: invalid type: string "x", expected u64"#);
    insta::assert_snapshot!(error(&with_line(3, "{\"t\":1,\"in\":\"wake\"}")), @"t.jsonl, line 4 (segment 1): the frame can't be understood: missing field `out`");
    insta::assert_snapshot!(error(&with_line(3, "{\"t\":1,\"in\":\"dance\",\"out\":[]}")), @"t.jsonl, line 4 (segment 1): the frame can't be understood: unknown variant `dance`");
    insta::assert_snapshot!(error(&with_line(3, "{\"t\":1,\"in\":\"wa\u{0}ke\",\"out\":[]}")), @r#"t.jsonl, line 4 (segment 1): no JSON at column 15: control character (\u0000-\u001F) found while parsing a string"#);
    insta::assert_snapshot!(error(&with_line(21, "{\"kinfolk_trace\":2}")), @"t.jsonl, line 22 (segment 1): the trace has format 2, and this kinfolk-sim reads format 1; it comes from a newer Kinfolk: use the kinfolk-sim of that one");
    insta::assert_snapshot!(error(&with_line(24, "{\"t\":1,\"in\":\"wa")), @"t.jsonl, line 25 (segment 2): no JSON at column 15: EOF while parsing a string");
    let deep = format!("{{\"kinfolk_trace\":1,\"checkpoint\":{}", "[".repeat(100_000));
    insta::assert_snapshot!(error(&with_line(0, &deep)), @"t.jsonl, line 1: no JSON at column 100032: EOF while parsing a list");
}

#[test]
fn the_line_that_breaks_is_named_and_those_before_are_kept() {
    let (all, _) = read(&common::hand_made());
    let (items, error) = read(&with_line(30, "{\"t\":1,\"in\":\"dance\",\"out\":[]}"));
    let error = error.unwrap();
    assert_eq!((error.line, error.segment), (31, Some(2)));
    assert_eq!(items, all[..30]);
    assert_eq!(error.problem.kind(), "bad_frame");
}

#[test]
fn a_flipped_bit_in_compressed_data_is_an_error() {
    let text = beginning(24);
    let whole = zstd_with_checksum(&text);
    let (all, _) = read(&text);
    let mut seen = 0;
    for at in 6..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        // A few bits of zstd's tables change nothing.
        let (items, error) = read(&damaged);
        assert!(error.is_some() || items == all, "byte {at}");
        seen += usize::from(error.is_some());
    }
    assert!(seen * 100 > whole.len() * 99, "{seen} of {}", whole.len());
    let mut followed = whole.clone();
    followed.extend_from_slice(b"and then something else");
    assert_eq!(read(&followed).1.map(|error| error.problem.kind()), Some("compression"));
}

fn zstd_with_checksum(text: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(vec![], 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn endless_lines_are_given_up_with_little_memory() {
    let header = lines(&common::hand_made())[0].clone() + "\n";
    let endless = io::Cursor::new(header.into_bytes()).chain(io::repeat(b'x'));
    let mut reader = Reader::<Value>::new("pipe", endless).unwrap();
    assert!(reader.next().unwrap().is_ok());
    let error = reader.next().unwrap().unwrap_err();
    assert!(matches!(error.problem, Problem::TooLong { limit: MAX_FRAME }), "{error}");
    assert_eq!(error.line, 2);
    // The same, very small on disk.
    let bomb = compress(&vec![b' '; MAX_FRAME * 2]);
    assert!(bomb.len() < 10_000);
    assert_eq!(read(&bomb).1.map(|error| error.problem.kind()), Some("too_long"));
}

#[test]
fn a_checkpoint_may_be_longer_than_a_frame() {
    let checkpoint = "x".repeat(MAX_FRAME);
    let header =
        lines(&common::hand_made())[0].replace("\"checkpoint\":null", &format!("\"checkpoint\":\"{checkpoint}\""));
    let (items, error) = read(header.as_bytes());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(items.len(), 1);
}

#[test]
fn a_failing_disk_is_not_taken_for_the_end() {
    struct Failing(io::Cursor<Vec<u8>>);
    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(io::Error::from_raw_os_error(5)),
                n => Ok(n),
            }
        }
    }
    for bytes in [common::hand_made(), compress(&common::hand_made())] {
        let mut reader = Reader::<Value>::new("disk", Failing(io::Cursor::new(bytes))).unwrap();
        let last = reader.by_ref().last().unwrap().unwrap_err();
        assert!(matches!(last.problem, Problem::Io(_)), "{last}");
    }
    let missing = Reader::<Value>::open(std::path::Path::new("no/such/file")).unwrap_err();
    assert_eq!(missing.problem.kind(), "io");
    assert!(missing.to_string().starts_with("no/such/file: can't be read: "), "{missing}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic {
            bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
        }
        let (items, error) = read(&bytes);
        prop_assert!(items.is_empty());
        prop_assert!(error.is_some());
    }

    #[test]
    fn a_trace_with_arbitrary_bytes_in_it_is_read_up_to_these(
        at in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 1..40),
        squeeze in any::<bool>(),
    ) {
        let mut text = common::hand_made();
        let (all, _) = read(&text);
        let at = at.index(text.len());
        let untouched = text[..at].iter().filter(|byte| **byte == b'\n').count();
        let end = (at + bytes.len()).min(text.len());
        text.splice(at..end, bytes);
        let (items, _) = read(&if squeeze { compress(&text) } else { text });
        prop_assert!(items.len() >= untouched);
        prop_assert_eq!(&items[..untouched], &all[..untouched]);
    }
}
