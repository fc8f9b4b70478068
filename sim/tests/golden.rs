//! Golden traces replay to the bit, and an intended change is blessed by one command.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use kinfolk_core::trace::CORE_VERSION;
use kinfolk_sim::{
    bless::{BlessError, bless, traces},
    replay::{Options, Report, replay},
    trace::Reader,
};

const BLESS: &str = "cargo run -p kinfolk-sim -- bless tests/traces";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces")
}

fn replayed(file: &Path) -> Report {
    match Reader::open(file) {
        Ok(mut reader) => replay(&mut reader, Options::default()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn golden_traces_replay() {
    let files = traces(&golden()).unwrap();
    assert!(!files.is_empty(), "there are no golden traces in {}", golden().display());
    let reports = files.iter().map(|file| replayed(file)).filter(|report| !report.is_good());
    let failures: Vec<String> = reports
        .map(|report| {
            let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            format!("{report}{}", problems.join("\n"))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} golden traces differ:\n\n{}\n\nIf that is intended: `{BLESS}`, and review the change as a diff.",
        failures.len(),
        files.len(),
        failures.join("\n\n")
    );
}

#[test]
fn the_first_node_alone_is_among_them_and_healthy() {
    let text = fs::read_to_string(golden().join("first-node-alone.jsonl")).unwrap();
    assert!(text.contains("\"alone\"") && !text.contains("\"isolated\""));
}

/// A trace with other commands, another checkpoint and another core version than this core gives.
fn spoil(text: &str) -> String {
    let spoiled = text
        .replace("\"why\":\"settings\"", "\"why\":\"asked\"")
        .replace("\"arrivals\":", "\"arrivals\":9")
        .replace(&format!("\"core\":\"{CORE_VERSION}\""), "\"core\":\"0.0.1\"");
    assert!(spoiled != text);
    spoiled
}

#[test]
fn blessing_writes_what_the_core_does_now() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    fs::create_dir(&below).unwrap();
    let file = below.join("family.jsonl");
    common::family().save(&file).unwrap();
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, spoil(&good)).unwrap();
    assert!(replayed(&file).difference.is_some());

    assert_eq!(traces(folder.path()).unwrap(), [file.as_path()]);
    let blessed = bless(&file).unwrap();
    assert!(blessed.is_changed() && blessed.changed_inputs > 0 && blessed.changed_headers == 3, "{blessed}");
    assert_eq!(blessed.commands_before, blessed.commands_now);
    assert!(fs::read_to_string(&file).unwrap() == good, "as this core records it");
    assert!(replayed(&file).is_good());

    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    assert!(!bless(&file).unwrap().is_changed());
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), modified, "not touched");
}

#[test]
fn a_trace_that_begins_with_a_checkpoint_is_blessed_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tail.jsonl.zst");
    let text = String::from_utf8(common::family().text().unwrap()).unwrap();
    let second = text.match_indices("{\"kinfolk_trace\"").nth(1).unwrap().0;
    let spoiled = text[second..].replace("\"why\":\"connection_lost\"", "\"why\":\"asked\"");
    fs::write(&file, zstd::encode_all(spoiled.as_bytes(), 3).unwrap()).unwrap();
    assert!(bless(&file).unwrap().is_changed());
    let now = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
    assert!(now == text.as_bytes()[second..], "as this core records it");
}

#[test]
fn what_cannot_be_blessed_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("family.jsonl");
    let good = String::from_utf8(common::family().text().unwrap()).unwrap();
    let second = good.match_indices("{\"kinfolk_trace\"").nth(1).unwrap().0;
    let unusable = good[second..].replacen("\"now\":", "\"then\":", 1);
    for (bad, kind) in [(&good[..good.len() / 2], "cut_off"), (&unusable, "bad_checkpoint"), ("nothing", "not_json")] {
        fs::write(&file, bad).unwrap();
        let error = bless(&file).unwrap_err();
        let BlessError::Read(read) = &error else { panic!("{error}") };
        assert_eq!(read.problem.kind(), kind);
        assert!(fs::read_to_string(&file).unwrap() == bad, "it stays as it was");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}
