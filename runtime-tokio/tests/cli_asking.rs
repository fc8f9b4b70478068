//! What the program asks a node for, and what it makes of the answers; the node is a fake one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{io::Read, os::unix::fs::symlink, process::Stdio};

use common::{FakeNode, Home};
use serde_json::json;

const ADA: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const BOB: &str = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo";

fn peer(id: &str, state: &str) -> serde_json::Value {
    json!({ "peer": id, "state": state, "state_for_s": 61, "pinned": false, "blocked": false, "path": null,
        "rtt_us": null, "agent": null, "capabilities": [], "last_seen_s": null, "sync_position": null,
        "pending_requests": 0, "next_dial_in_s": null, "connections": [], "addresses": [] })
}

fn answer(target: &str) -> (u16, String) {
    let body = match target {
        "GET /v1/id" => json!({ "peer": ADA, "agent": "kinfolk/0.1.0",
            "addresses": [format!("/ip4/192.168.1.7/tcp/4001/p2p/{ADA}")] }),
        "GET /v1/peers" => json!({ "peers": [peer(ADA, "identified"), peer(BOB, "disconnected")] }),
        "GET /v1/status" => json!({ "peer": ADA, "agent": "kinfolk/0.1.0", "role": "desktop", "network": "elohim",
            "pid": 1, "data_dir": null, "uptime_s": 5, "health": "alone", "health_text": "alone", "health_for_s": 4,
            "reachability": "unknown", "reachability_text": "not known", "listening": [], "advertised": [],
            "candidates": [], "kademlia": "client", "kademlia_server": false, "routing_table": 0,
            "bootstrap": [{ "address": "/dns4/a.example/tcp/1", "peer": null, "connected": false, "failures": 1,
                "retry_in_s": 2 }],
            "peers": 0, "connected": 0, "dialing": 0, "counters": {},
            "trace": { "recording": false, "segments": 0, "bytes": 0, "lost": 0, "error": null } }),
        "POST /v1/connect" => json!({ "result": "connected", "peer": BOB, "connection": 7,
            "address": "/ip4/192.0.2.1/tcp/4001" }),
        "POST /v1/forget" => json!({ "result": "nothing_to_do" }),
        "POST /v1/trace/start" | "POST /v1/trace/stop" => {
            json!({ "recording": true, "segments": 1, "bytes": 0, "lost": 0, "error": null })
        }
        "POST /v1/trace/export" => json!({ "file": "/x/t.zst", "segments": 2, "bytes": 99 }),
        target if target.ends_with("/why") => json!({ "entries": [{ "ago_s": 5, "at_unix": 1_000_000_000, "t": 7,
            "command": 3, "action": "dial /ip4/192.0.2.1/tcp/4001", "because": "you asked for it", "times": 1 }] }),
        target if target.ends_with(BOB) => peer(BOB, "disconnected"),
        target if target.starts_with("POST") => json!({ "result": "done" }),
        _ => return problem("no_such_endpoint", 404, "no such path"),
    };
    (200, body.to_string())
}

fn problem(kind: &str, status: u16, detail: &str) -> (u16, String) {
    (status, json!({ "type": kind, "title": "-", "status": status, "detail": detail }).to_string())
}

#[test]
fn every_command_asks_for_its_thing() {
    let home = Home::new();
    let node = FakeNode::start(&home, answer);
    let lines = [
        "id",
        "id --addresses",
        "status",
        "bootstrap list",
        "peers",
        "peers kSCVe2Xo",
        "connect /ip4/192.0.2.1/tcp/4001",
        "connect …kSCVe2Xo",
        "disconnect kSCVe2Xo",
        "forget kSCVe2Xo",
        "block kSCVe2Xo",
        "allow kSCVe2Xo",
        "pin kSCVe2Xo",
        "why",
        "why kSCVe2Xo",
        "bootstrap add /dnsaddr/a.example",
        "bootstrap remove /dnsaddr/a.example",
        "trace start",
        "trace stop",
        "trace export t.zst",
    ];
    let mut seen = String::new();
    for line in lines {
        seen.push_str(&format!("$ kinfolk {line}\n{}\n", home.run(line).seen()));
    }
    insta::assert_snapshot!("text", seen);
    let asked = node.asked().join("\n").replace(&home.path().display().to_string(), "~");
    insta::assert_snapshot!("asked", asked);

    let mut seen = String::new();
    for line in lines {
        let ran = home.run(&format!("{line} --json"));
        seen.push_str(&format!("$ kinfolk {line} --json\n{}\n", ran.out.trim_end()));
        assert!(ran.code == 0 || ran.out.is_empty(), "{line}: {}", ran.seen());
        if ran.code == 0 {
            ran.json();
        }
    }
    insta::assert_snapshot!("json", seen);
}

#[test]
fn what_the_node_declines_has_its_word_and_exit_code() {
    for (kind, status, exit, word) in [
        ("unknown_peer", 404, 4, "unknown_peer"),
        ("not_found", 404, 4, "not_found"),
        ("own_identity", 409, 4, "own_identity"),
        ("blocked", 409, 4, "blocked"),
        ("unusable_address", 422, 4, "unusable_address"),
        ("failed", 502, 4, "failed_to_connect"),
        ("timed_out", 504, 4, "timed_out"),
        ("limit", 429, 4, "limit"),
        ("incomplete", 422, 4, "incomplete"),
        ("bad_request", 400, 2, "bad_request"),
        ("shutting_down", 503, 1, "shutting_down"),
        ("internal", 500, 1, "internal"),
    ] {
        let home = Home::new();
        let _node = FakeNode::start(&home, move |_| problem(kind, status, "so it is"));
        let ran = home.run("connect /ip4/192.0.2.1/tcp/4001 --json");
        let said: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
        assert_eq!((ran.code, ran.out.as_str()), (exit, ""), "{kind}");
        assert_eq!(said, json!({ "error": word, "detail": "so it is", "exit": exit }), "{kind}");
        let ran = home.run("connect /ip4/192.0.2.1/tcp/4001");
        assert_eq!((ran.code, ran.err.as_str()), (exit, "error: so it is\n"), "{kind}");
    }
}

#[test]
fn a_node_that_talks_nonsense_is_an_error_and_no_panic() {
    for body in ["", "{", "[]", "{\"peers\": 7}", "<html>"] {
        let home = Home::new();
        let body = body.to_owned();
        let _node =
            FakeNode::start(&home, move |target| (if target.contains("status") { 500 } else { 200 }, body.clone()));
        for line in ["peers", "status"] {
            let ran = home.run(line);
            assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line}");
            assert!(ran.err.starts_with("error: can't speak with the node over ~/"), "{}", ran.err);
        }
    }
}

#[test]
fn a_name_that_fits_several_lists_them() {
    let home = Home::new();
    let _node = FakeNode::start(&home, answer);
    insta::assert_snapshot!(home.run("why 12D3KooW").seen(), @"
    exit 2
    on the error stream:
    error: '12D3KooW' fits 2 peers:
             12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA (…eQAJU5SA)
             12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo (…kSCVe2Xo)
    ");
    insta::assert_snapshot!(home.run("why zzzzzzzz").seen(), @"
    exit 4
    on the error stream:
    error: no peer is known whose id begins or ends with 'zzzzzzzz'; `kinfolk peers --long` lists all
    ");
}

#[test]
fn an_export_replaces_nothing_unless_told() {
    let home = Home::new();
    let node = FakeNode::start(&home, answer);
    let file = home.path().join("t.zst");
    std::fs::write(&file, "precious").unwrap();
    insta::assert_snapshot!(home.run("trace export t.zst").seen(), @"
    exit 2
    on the error stream:
    error: ~/t.zst exists; --force replaces it
    ");
    assert!(node.asked().is_empty());
    assert_eq!(home.run("trace export t.zst --force").code, 0);
    assert_eq!(node.asked(), [format!("POST /v1/trace/export {{\"file\":\"{}\"}}", file.display())]);
}

#[test]
fn the_socket_may_lie_elsewhere() {
    let home = Home::new();
    let _node = FakeNode::start(&home, answer);
    symlink(home.data().join("api.sock"), home.path().join("s")).unwrap();
    let elsewhere = home.path().join("elsewhere");
    let line = format!("id --data-dir {} --set api.socket=s", elsewhere.display());
    assert_eq!(home.run(&line).out.trim(), ADA);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let home = Home::new();
    let _node = FakeNode::start(&home, |_| {
        let peers: Vec<_> = (0..5_000).map(|_| peer(ADA, "identified")).collect();
        (200, json!({ "peers": peers }).to_string())
    });
    let mut child = home.command(["peers"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((&first, child.wait().unwrap().code(), said.as_str()), (b"PEER", Some(0), ""));
}
