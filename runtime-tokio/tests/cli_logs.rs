//! `put`, `log` and `sync` between nodes in processes of their own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use common::{Home, UpNode};
use serde_json::{Value, json};

const ANYONE: [&str; 2] = ["--set", "sync.with=anyone"];

/// Runs a program with this on its standard input.
fn fed(mut command: Command, input: &str) -> std::process::Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn log_of(home: &Home, line: &str) -> Vec<Value> {
    home.run(line).out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A `kinfolk log --follow` that runs; killed when dropped.
struct Follower(std::process::Child, std::io::Lines<BufReader<std::process::ChildStdout>>);

impl Follower {
    fn start(home: &Home, more: &[&str]) -> Self {
        let mut child = home.command([&["log", "--follow"], more].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self(child, lines)
    }

    fn next(&mut self) -> String {
        self.1.next().unwrap().unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_one_puts_the_other_prints() {
    let (home_a, home_b) = (Home::new(), Home::new());
    let ada = UpNode::start(&home_a, &ANYONE);
    let mut bob = UpNode::start(&home_b, &ANYONE);
    let short = format!("…{}", &ada.peer[ada.peer.len() - 8..]);
    assert_eq!(home_b.run("log").seen(), "exit 0\n");
    assert_eq!(
        home_a.ran(home_a.command(["put", "Dinner at \x1b[2J seven"]).output().unwrap()).out,
        "entry 1 of this node's log\n"
    );
    let mut follower = Follower::start(&home_b, &[]);
    home_b.run(&format!("connect {}", ada.address));
    assert_eq!(follower.next(), format!("{short}  1  Dinner at \u{fffd}[2J seven"), "nobody's words move the cursor");

    let put = home_a.ran(fed(home_a.command(["put", "-", "--json"]), "one\n\nthree"));
    assert_eq!(put.json(), json!({ "author": ada.peer, "epoch": 0, "position": 4 }));
    assert_eq!(
        [follower.next(), follower.next(), follower.next()].map(|line| line.replace(&short, "A")),
        ["A  2  one", "A  3  ", "A  4  three"]
    );
    home_b.run("put mine");
    assert!(follower.next().ends_with("  1  mine"));

    let line = format!("log --json --author {} -n 1", &short);
    assert_eq!(
        log_of(&home_b, &line),
        [json!({ "author": ada.peer, "epoch": 0, "position": 4, "text": "three", "hex": null })]
    );
    assert_eq!(log_of(&home_b, &format!("log --json --author {}", bob.peer)).len(), 1, "this node is an author, too");
    assert_eq!(bob.wait_for("entries_received")["detail"]["log"], ada.peer);

    // Both have everything, and say so.
    let even = loop {
        let sync = home_b.run("sync --json").json();
        let peer = sync["peers"][0].clone();
        if peer["position"] == 5 && peer["missing_there"] == 0 {
            break sync;
        }
        // Asked again once the other one has told what it has.
        bob.wait_for("peer_lag");
    };
    assert_eq!(
        (&even["with"], &even["partners"], &even["peers"][0]["peer"]),
        (&json!("anyone"), &json!(1), &json!(ada.peer))
    );
    let shown = home_b.run("sync").out;
    assert!(shown.starts_with("5 entries in 2 logs; exchanged with everybody of this network\n"), "{shown}");
    assert!(shown.contains("this node") && shown.contains("MISSING HERE"), "{shown}");

    bob.signal("KILL");
    assert!(follower.1.next().is_none(), "nothing more comes");
}

#[test]
fn a_thousand_lines_outlive_a_power_cut_of_either() {
    let (home_a, home_b) = (Home::new(), Home::new());
    let ada = UpNode::start(&home_a, &ANYONE);
    let lines: String = (1..=6_000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(home_a.ran(fed(home_a.command(["put", "-"]), &lines)).code, 0);
    ada.signal("KILL");
    drop(ada);
    let ada = UpNode::start(&home_a, &ANYONE);
    let bob = UpNode::start(&home_b, &ANYONE);
    let mut follower = Follower::start(&home_b, &[]);
    home_b.run(&format!("connect {}", ada.address));
    follower.next();
    bob.signal("KILL");
    drop((bob, follower));
    let _bob = UpNode::start(&home_b, &ANYONE);
    let mut follower = Follower::start(&home_b, &["--json"]);
    home_b.run(&format!("connect {}", ada.address));
    for number in 1..=6_000 {
        let entry: Value = serde_json::from_str(&follower.next()).unwrap();
        assert_eq!((&entry["position"], &entry["text"]), (&json!(number), &json!(format!("line {number}"))));
    }
}

#[test]
fn what_can_not_be_put_or_shown_is_said() {
    let home = Home::new();
    for line in ["put x", "log", "sync"] {
        assert_eq!(home.run(line).code, 3, "{line}");
    }
    let _node = UpNode::start(&home, &[]);
    let long = "x".repeat(64 * 1024 + 1);
    let put = home.ran(fed(home.command(["put", "-"]), &long));
    assert_eq!(put.code, 2);
    assert!(put.err.contains("a line is longer than 65536 bytes"), "{}", put.seen());
    assert_eq!(home.ran(home.command(["put", &long]).output().unwrap()).code, 2);
    assert_eq!(
        home.run("put -").seen(),
        "exit 2\non the error stream:\nerror: there was no line on the standard input stream\n"
    );
    assert_eq!(home.run("log --author nobody99").code, 4);
    assert_eq!(home.run("log --author x").code, 2);
    let longest = "y".repeat(64 * 1024);
    assert_eq!(home.ran(home.command(["put", &longest]).output().unwrap()).out, "entry 1 of this node's log\n");
    let shown = home.run("sync").out;
    assert!(shown.starts_with("1 entry in 1 log; exchanged with pinned peers\n"), "{shown}");
    assert!(shown.contains("no peer that exchanges logs is connected; `kinfolk pin PEER`"), "{shown}");
}

#[test]
fn bytes_that_are_no_text_are_shown_as_digits() {
    let home = Home::new();
    let _node = UpNode::start(&home, &[]);
    let mut command = home.command(["put", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\xff\x00\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(home.run("log").out.ends_with("  1  (bytes) ff00\n"));
    let entry = &log_of(&home, "log --json")[0];
    assert_eq!((&entry["text"], &entry["hex"]), (&Value::Null, &json!("ff00")));
}
