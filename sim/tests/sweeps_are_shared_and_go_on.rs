//! Sweeps: shares of many machines together are the whole; what was ended goes on; results are compared and merged.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use kinfolk_sim::results;
use serde_json::Value;

const TWO: &str = "two-homes-and-a-server";

fn sim(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kinfolk-sim")).args(args).current_dir(folder).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Seeds and hashes of a results' file.
fn hashes(file: &Path) -> Vec<(u64, String)> {
    let mut all: Vec<(u64, String)> =
        results::read(file).unwrap().into_iter().map(|report| (report.seed, report.hash)).collect();
    all.sort();
    all
}

#[test]
fn shares_together_are_the_whole() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let seeds = ["--seeds", "0..12", "--vary", "--out"];
    sim(folder, &[&["sweep", TWO, "--shard", "0/2"][..], &seeds, &["a.jsonl"]].concat());
    sim(folder, &[&["sweep", TWO, "--shard", "1/2"][..], &seeds, &["b.jsonl"]].concat());
    sim(folder, &[&["sweep", TWO][..], &seeds, &["whole.jsonl"]].concat());
    assert_eq!(hashes(&folder.join("a.jsonl")).len(), 6);
    let merged = sim(folder, &["merge", "b.jsonl", "a.jsonl", "a.jsonl", "--out", "both.jsonl", "--json"]);
    let value: Value = serde_json::from_str(&out(&merged)).unwrap();
    assert_eq!(value["summary"]["runs"], 12);
    assert_eq!(hashes(&folder.join("both.jsonl")), hashes(&folder.join("whole.jsonl")));
    let ordered: Vec<u64> =
        results::read(&folder.join("both.jsonl")).unwrap().iter().map(|report| report.seed).collect();
    assert_eq!(ordered, (0..12).collect::<Vec<_>>());
}

#[test]
fn a_sweep_goes_on_after_a_line_that_was_cut_off() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let file = folder.join("r.jsonl");
    sim(folder, &["sweep", TWO, "--seeds", "0..6", "--out", "r.jsonl"]);
    let whole = hashes(&file);
    let text = fs::read(&file).unwrap();
    fs::write(&file, &text[..text.len() - 100]).unwrap();
    assert_eq!(hashes(&file).len(), 5, "what stands before it is read");
    let again = sim(folder, &["sweep", TWO, "--seeds", "0..6", "--out", "r.jsonl"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("5 of 6 runs are there already"));
    assert_eq!(hashes(&file), whole);
}

#[test]
fn a_line_that_is_no_result_is_named() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("r.jsonl"), "\n{\"seed\": 1}\n").unwrap();
    let merged = sim(place.path(), &["merge", "r.jsonl"]);
    let said = String::from_utf8(merged.stderr).unwrap();
    assert_eq!(merged.status.code(), Some(3));
    assert!(said.starts_with("error: r.jsonl, line 2: missing field"), "{said}");
}

#[test]
fn ctrl_c_leaves_what_is_known_by_then() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("r.jsonl");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kinfolk-sim"))
        .args(["sweep", TWO, "--seeds", "0..10000000", "--out", "r.jsonl"])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while fs::read(&file).map_or(0, |text| text.len()) < 20_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut text).unwrap();
    let code = child.wait().unwrap().code();
    assert!(code == Some(0) || code == Some(1), "{code:?}");
    let there = results::read(&file).unwrap();
    assert!(there.len() > 5 && there.iter().all(|report| report.complete || !report.is_good()));
    assert!(text.starts_with(&format!("{} runs", there.len())), "{text}");
}

#[test]
fn the_same_program_compares_as_the_same() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    sim(folder, &["sweep", TWO, "--seeds", "0..5", "--out", "base.jsonl"]);
    let same = sim(folder, &["compare", "base.jsonl", "--tolerance", "0", "--json"]);
    let value: Value = serde_json::from_str(&out(&same)).unwrap();
    assert_eq!((&value["runs"], &value["same"]), (&5.into(), &5.into()), "{value}");
    assert_eq!(same.status.code(), Some(0));
    assert!(
        value["figures"].as_array().unwrap().iter().all(|row| row["better_percent"].as_f64().unwrap_or(0.0) == 0.0)
    );
}

#[test]
fn what_is_slower_is_told_so_and_fails() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    sim(folder, &["sweep", TWO, "--seeds", "0..5", "--out", "base.jsonl"]);
    let text = fs::read_to_string(folder.join("base.jsonl")).unwrap();
    let slower: String = text
        .lines()
        .map(|line| {
            let mut report: Value = serde_json::from_str(line).unwrap();
            for times in ["firsts", "directs"] {
                for time in report["pairs"][times].as_array_mut().unwrap() {
                    *time = (time.as_u64().unwrap() * 2).into();
                }
            }
            format!("{report}\n")
        })
        .collect();
    fs::write(folder.join("now.jsonl"), slower).unwrap();
    let worse = sim(folder, &["compare", "base.jsonl", "now.jsonl", "--tolerance", "5"]);
    assert_eq!(worse.status.code(), Some(1));
    assert!(out(&worse).contains("100.0 % worse"), "{}", out(&worse));
}
