//! The program `kinfolk-sim`: what it prints, where, and with which exit code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A folder with `family.jsonl` in it.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        common::family().save(&folder.path().join("family.jsonl")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("family.jsonl")).unwrap()
    }

    fn run(&self, args: &[&str]) -> Ran {
        ran(command(self.folder.path(), args).output().unwrap())
    }
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinfolk-sim"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
}

#[test]
fn a_good_replay_says_how_much_and_how_fast() {
    let place = Place::new();
    let ran = place.run(&["replay", "family.jsonl"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.starts_with("family.jsonl: replayed, all equal: 3 segments, "), "{}", ran.out);
    let ran = place.run(&["replay", "--json", "family.jsonl"]);
    let report = json(&ran);
    assert_eq!((ran.code, &report["equal"], &report["segments"]), (Some(0), &true.into(), &3.into()));
    assert_eq!(report["node_seconds"], 3_610.0);
}

#[test]
fn a_difference_is_shown_and_is_exit_code_1() {
    let place = Place::new();
    fs::write(place.path("other.jsonl"), place.text().replace("\"why\":\"connection_lost\"", "\"why\":\"asked\""))
        .unwrap();
    let ran = place.run(&["replay", "--context", "1", "other.jsonl"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("other.jsonl: DIFFERS after 2 segments"), "{}", ran.out);
    assert!(ran.out.contains(", because you asked for it") && ran.out.contains(", because its connection ended"));
    let report = json(&place.run(&["replay", "--context", "1", "--json", "other.jsonl"]));
    assert_eq!(report["difference"]["before"].as_array().unwrap().len(), 1);
    assert_ne!(report["difference"]["what"]["expected"], report["difference"]["what"]["got"]);
}

#[test]
fn damage_is_exit_code_3_after_all_that_could_be_used() {
    let place = Place::new();
    let text = place.text();
    fs::write(place.path("cut.jsonl"), &text[..text.len() - 9]).unwrap();
    let line = format!("error: cut.jsonl, line {} (segment 3): the trace is cut off", text.lines().count());
    for args in [["replay", "cut.jsonl"].as_slice(), &["trace", "show", "cut.jsonl"], &["trace", "stat", "cut.jsonl"]] {
        let ran = place.run(args);
        assert_eq!(ran.code, Some(3), "{args:?}");
        assert!(ran.err.starts_with(&line), "{args:?}: {}", ran.err);
        assert!(!ran.out.is_empty());
    }
    let report = json(&place.run(&["replay", "--json", "cut.jsonl"]));
    assert_eq!((&report["equal"], &report["problems"][0]["kind"]), (&true.into(), &"cut_off".into()));
    let shown = place.run(&["trace", "show", "--json", "cut.jsonl"]).out;
    let last: Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["error"]["kind"]), (&"error".into(), &"cut_off".into()));
    let stat = json(&place.run(&["trace", "stat", "--json", "cut.jsonl"]));
    assert_eq!(stat["error"]["line"], text.lines().count());

    for args in [
        ["replay", "none.jsonl"].as_slice(),
        &["trace", "show", "none.jsonl"],
        &["trace", "stat", "none.jsonl"],
        &["trace", "redact", "none.jsonl", "out.jsonl"],
        &["bless", "none.jsonl"],
        &["bless", "."],
    ] {
        fs::remove_file(place.path("family.jsonl")).ok();
        fs::remove_file(place.path("cut.jsonl")).ok();
        let ran = place.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{args:?}");
        assert!(ran.err.starts_with("error: "), "{args:?}: {}", ran.err);
    }
}

#[test]
fn the_standard_input_is_a_trace_too() {
    let place = Place::new();
    let text = zstd::encode_all(place.text().as_bytes(), 3).unwrap();
    let mut child = command(place.folder.path(), &["replay", "-"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&text).unwrap();
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.out.starts_with("-: replayed, all equal") || ran.out.starts_with("standard input: replayed"),
        "{}",
        ran.out
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    // More than a pipe holds.
    let head = place.text().lines().next().unwrap().to_string() + "\n";
    let wake = "{\"t\":1,\"in\":\"wake\",\"out\":[]}\n";
    fs::write(place.path("long.jsonl"), head + &wake.repeat(50_000)).unwrap();
    let mut child = command(place.folder.path(), &["trace", "show", "--kind", "wake", "long.jsonl"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn a_wrong_command_line_says_what_is_right() {
    let place = Place::new();
    let ran = place.run(&["trace", "show", "--kind", "dance", "family.jsonl"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("no such kind") && ran.err.contains("peer_expired"), "{}", ran.err);
    let ran = place.run(&["trace", "show", "--from", "soon", "family.jsonl"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("'soon' is no time; write seconds"), "{}", ran.err);
    let ran = place.run(&["trace", "show", "--peer", "me", "family.jsonl"]);
    assert_eq!(ran.code, Some(2));
    assert!(place.run(&["--help"]).out.contains("Exit codes:"));
}

#[test]
fn redaction_and_blessing_report_what_they_did() {
    let place = Place::new();
    let ran = place.run(&["trace", "redact", "family.jsonl", "nobody.jsonl.zst"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("replayed equal; renamed: "), "{}", ran.out);
    assert_eq!(place.run(&["replay", "nobody.jsonl.zst"]).code, Some(0));
    let report = json(&place.run(&["trace", "redact", "--json", "family.jsonl", "again.jsonl"]));
    assert!(report["peers"].as_u64().unwrap() >= 6 && report["error"].is_null());
    assert_eq!(place.run(&["trace", "redact", "family.jsonl", "family.jsonl"]).code, Some(4));

    let spoiled = place.text().replace("\"why\":\"connection_lost\"", "\"why\":\"asked\"");
    fs::write(place.path("family.jsonl"), spoiled).unwrap();
    let ran = place.run(&["trace", "redact", "family.jsonl", "no.jsonl"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("does not replay"), "{}", ran.err);
    assert!(!place.path("no.jsonl").exists());

    let ran = place.run(&["bless", "."]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("./family.jsonl: blessed: other commands after ") && ran.out.contains(": as it was ("));
    assert_eq!(place.run(&["replay", "family.jsonl"]).code, Some(0));
}
