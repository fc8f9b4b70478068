//! The power is cut in the middle of a write, at each of the first ones of every kind: who the node is, and whom it is never to
//! give up, is still there.

#![allow(clippy::unwrap_used, reason = "where there is nothing to unwrap, the test has failed")]

mod common;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use common::{ask, program, start};

/// Whatever changes a file or makes the change last.
const WRITES: &str =
    "write,writev,pwrite64,pwritev,fsync,fdatasync,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat";

/// What is written while a node works, and hardly while it starts.
const WORK: [&str; 2] = ["peers.sqlite-wal", "logs.sqlite-wal"];

/// Runs a node that is killed as one of its threads begins its write of this number, to any file or to one of these, or at
/// the end of its work. Whether it came so far.
fn cut(data: &Path, number: u32, files: &[&str]) -> bool {
    let flags = ["up", "--json", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--set", "batch=100ms"];
    let plain = program(data, &flags);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={WRITES}"));
    traced.arg("-e").arg(format!("inject={WRITES}:signal=SIGKILL:when={number}"));
    for file in files {
        traced.arg("-P").arg(data.join(file));
    }
    traced.arg(plain.get_program()).args(plain.get_args()).env_clear().env("HOME", data);
    traced.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut child = traced.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    printed.read_line(&mut first).unwrap();
    let mut came_so_far = false;
    if let Some((_, rest)) = first.split_once("\"pid\":") {
        let pid: String = rest.chars().take_while(char::is_ascii_digit).collect();
        for number in 0..8 {
            // It may be gone at any moment, or answer.
            let _ = program(data, &["put", &format!("entry {number}")]).output();
            let _ = program(data, &["pin", OTHERS[number % OTHERS.len()]]).output();
        }
        came_so_far = program(data, &["status"]).output().unwrap().status.success();
        let _ = Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status();
    }
    child.wait().unwrap();
    came_so_far
}

const MEMBER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const OTHERS: [&str; 2] =
    ["12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo", "12D3KooWLJtG8fd2hkQzTn96MrLvThmnNQjTUFZwGEsLRz5EmSzc"];

#[test]
fn identity_and_pinned_peers_outlive_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let node = start(data);
    ask(data, &["pin", MEMBER]);
    ask(data, &["put", "before"]);
    let id = ask(data, &["id"]);
    drop(node);
    let cuts = (1..=12).map(|number| (number, &[][..])).chain((1..=4).map(|number| (number, &WORK[..])));
    for (number, files) in cuts {
        assert!(!cut(data, number, files), "it was not killed: write {number} of {files:?}");
        let node = start(data);
        assert_eq!(ask(data, &["id"]), id, "write {number}");
        let peer = ask(data, &["peers", MEMBER, "--json"]);
        assert!(peer.contains("\"pinned\":true"), "write {number}: {peer}");
        let log = ask(data, &["log"]);
        assert!(log.contains("before"), "write {number}: {log}");
        drop(node);
    }
    let aside = std::fs::read_dir(data).unwrap().map(|file| file.unwrap().file_name());
    let damaged: Vec<_> = aside.filter(|name| name.to_string_lossy().contains("damaged")).collect();
    assert!(damaged.is_empty(), "{damaged:?}");
}

#[test]
fn the_first_start_is_made_good() {
    for number in 1..=20 {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert!(!cut(data, number, &[]), "it was not killed: write {number}");
        let before = program(data, &["id"]).output().unwrap();
        let node = start(data);
        if before.status.success() {
            assert_eq!(ask(data, &["id"]), String::from_utf8(before.stdout).unwrap(), "write {number}");
        }
        drop(node);
    }
}
