//! A node at rest has one thread and libp2p's timer; what it writes brings one more, for as long as that takes.

#![allow(clippy::unwrap_used, reason = "where there is nothing to unwrap, the test has failed")]

mod common;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use common::{Node, ask, program, start};

/// The names of its threads, sorted.
fn threads(node: &Node) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.0.id())).unwrap();
    // One may end while it is looked at.
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let mut names: Vec<String> =
        tasks.filter_map(|task| name(task.unwrap())).map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

/// It comes to rest, and stays so for as long as would show anything that comes again and again.
fn rests(node: &Node) {
    let limit = Instant::now() + Duration::from_secs(60);
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        let threads = threads(node);
        if threads != ["futures-timer", "kinfolk-embedde"] {
            since = Instant::now();
        }
        assert!(Instant::now() < limit, "{threads:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn at_rest_and_after_writing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let node = start(data);
    // With the trace written now and then, it would have more than two for a moment each time.
    ask(data, &["trace", "stop"]);
    rests(&node);

    ask(data, &["put", "Dinner at seven"]);
    let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    ask(data, &["pin", peer]);
    rests(&node);
    drop(node);

    // What was acknowledged outlives a kill.
    let _node = start(data);
    assert!(ask(data, &["log"]).contains("Dinner at seven"));
    assert!(ask(data, &["peers", "--long"]).contains(peer));
}

#[test]
fn what_only_servers_have_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let help = String::from_utf8(program(folder.path(), &["--help"]).output().unwrap().stdout).unwrap();
    assert!(help.contains("kinfolk-embedded up") && help.contains("doctor"), "{help}");
    assert!(!help.to_lowercase().contains("doorway"), "{help}");
    let refused = program(folder.path(), &["up", "--set", "doorway.listen=127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("has no doorway"), "{said}");
    let nobody = program(folder.path(), &["status"]).output().unwrap();
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert!(nobody.status.code() == Some(3) && said.contains("`kinfolk-embedded up`"), "{said}");
}
