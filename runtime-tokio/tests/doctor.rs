//! `kinfolk doctor` with real nodes on this machine: it must be right about what is there, and end in time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::{Home, Ran, UpNode};
use serde_json::Value;

/// Looks from a node that listens on this machine only.
fn doctor(home: &Home, more: &str) -> Ran {
    home.run(&format!("doctor --json --timeout 3s --no-mdns --listen /ip4/127.0.0.1/tcp/0 {more}"))
}

/// What is said under this id, which is one finding.
#[track_caller]
fn finding(ran: &Ran, id: &str) -> (String, String) {
    let report = ran.json();
    let all = report["findings"].as_array().unwrap();
    let found: Vec<&Value> = all.iter().filter(|finding| finding["id"] == id).collect();
    assert_eq!(found.len(), 1, "{id}: {report:#}");
    (found[0]["verdict"].as_str().unwrap().to_owned(), found[0]["text"].as_str().unwrap().to_owned())
}

/// A node that listens by both transports on one port, as servers do.
fn server(home: &Home) -> UpNode {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut arguments = vec!["up", "--json", "--no-mdns", "--role", "server", "--listen"]
        .into_iter()
        .map(String::from)
        .collect::<Vec<_>>();
    arguments.extend([
        format!("/ip4/127.0.0.1/tcp/{port}"),
        "--listen".into(),
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
    ]);
    let mut node = UpNode::run(home, &arguments);
    node.peer = node.wait_for("started")["detail"]["peer"].as_str().unwrap().to_owned();
    node.wait_for("listening");
    node.wait_for("listening");
    node.address = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", node.peer);
    node
}

#[test]
fn without_any_server_nothing_is_invented() {
    let home = Home::new();
    let ran = doctor(&home, "");
    assert_eq!(finding(&ran, "bootstrap").0, "note");
    for id in ["tcp", "udp", "mapping", "filtering", "reachable"] {
        assert_eq!(finding(&ran, id).0, "unknown", "{id}");
    }
    assert_eq!(
        finding(&ran, "node"),
        ("note".into(), "no node is running here; a temporary one has looked around".into())
    );
    assert_eq!(finding(&ran, "mdns").0, "note");
    assert!(!home.data().exists(), "looking makes nothing");
    let problems = ran.json()["findings"].as_array().unwrap().iter().any(|finding| finding["verdict"] == "problem");
    assert_eq!((ran.code, ran.json()["ok"].as_bool()), (i32::from(problems), Some(!problems)), "{}", ran.seen());
}

#[test]
fn a_server_is_tried_by_both_transports() {
    let (home, home_s) = (Home::new(), Home::new());
    let server = server(&home_s);
    let ran = doctor(&home, &format!("--bootstrap {}", server.address));
    let (verdict, text) = finding(&ran, "bootstrap");
    assert_eq!(verdict, "ok", "{text}");
    for part in ["IPv4 TCP ", "IPv4 QUIC ", " ms"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!((finding(&ran, "tcp").0, finding(&ran, "udp").0), ("ok".into(), "ok".into()));
    assert_ne!(finding(&ran, "ipv4").0, "ok", "this machine is not the internet");
    // A stranger came by, and left no trace but its address book entry, unpinned.
    let known = home_s.run("peers --json").json();
    assert!(
        known["peers"].as_array().unwrap().iter().all(|peer| peer["pinned"] == false && peer["path"].is_null()),
        "{known}"
    );
}

#[test]
fn a_server_that_is_not_there_is_a_problem_with_its_advice() {
    let home = Home::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = doctor(&home, &format!("--bootstrap /ip4/127.0.0.1/tcp/{port}"));
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "findings are told, not an error");
    let (verdict, text) = finding(&ran, "bootstrap");
    assert!(verdict == "problem" && text.contains("connection refused"), "{text}");
    assert_eq!(finding(&ran, "tcp"), ("unknown".into(), "no server was reached, by TCP or otherwise".into()));
    assert!(ran.out.contains("no node listens on that port"), "{}", ran.out);
}

#[test]
fn somebody_else_at_the_address_is_told() {
    let (home, home_s) = (Home::new(), Home::new());
    let server = server(&home_s);
    let other = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let ran = doctor(&home, &format!("--relay {}", server.address.replace(&server.peer, other)));
    let (verdict, text) = finding(&ran, "relay_server");
    assert!(verdict == "problem" && text.contains(&server.peer), "{text}");
    assert!(ran.out.contains("the peer id at the end of the address is not that of the node there"), "{}", ran.out);
}

#[test]
fn a_server_that_never_answers_does_not_hold_it_up() {
    let home = Home::new();
    // Its queue is full after this, and whoever comes then hears nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let start = Instant::now();
    let ran = doctor(&home, &format!("--bootstrap /ip4/127.0.0.1/tcp/{}", address.port()));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!((ran.code, finding(&ran, "bootstrap").0.as_str()), (1, "problem"));
}

#[test]
fn a_signal_server_that_wants_a_token_is_shown_it() {
    let (home, home_d) = (Home::new(), Home::new());
    std::fs::write(home_d.path().join("tokens"), "elohim read 0123456789abcdef\n").unwrap();
    let mut doorway = UpNode::run(&home_d, &["doorway", "--json", "--listen", "127.0.0.1:0", "--tokens", "tokens"]);
    let server = format!("http://{}", doorway.wait_for("started")["detail"]["http"].as_str().unwrap());
    let (verdict, text) = finding(&doctor(&home, &format!("--signal {server}")), "signal");
    assert!(verdict == "problem" && text.contains("needs a token"), "{text}");
    std::fs::write(home.path().join("tokens"), format!("{server} 0123456789abcdef\n")).unwrap();
    let (verdict, text) = finding(&doctor(&home, &format!("--signal {server} --set signal.tokens=tokens")), "signal");
    assert!(verdict == "ok" && text.contains("the signal server answers"), "{text}");
}

#[test]
fn beside_a_running_node_that_one_is_asked_and_left_alone() {
    let (home, home_s) = (Home::new(), Home::new());
    let server = server(&home_s);
    let node = UpNode::start(&home, &["--bootstrap", &server.address]);
    let ran = doctor(&home, &format!("--bootstrap {}", server.address));
    assert_eq!(ran.json()["node_running"], true);
    assert!(finding(&ran, "node").1.starts_with("a node is running here: "), "{}", ran.out);
    let status = home.run("status --json").json();
    assert_eq!((&status["peer"], &status["connected"]), (&Value::from(node.peer.clone()), &Value::from(1)));
}

#[test]
fn wrong_settings_and_spans_are_told_before_anything_is_tried() {
    let home = Home::new();
    insta::assert_snapshot!(home.run("doctor --timeout 5").seen(), @"
    exit 2
    on the error stream:
    error: invalid value '5' for '--timeout <TIME>': write a span of time with its unit, such as 20s or 1m

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(home.run("doctor --timeout 0s").seen(), @"
    exit 2
    on the error stream:
    error: invalid value '0s' for '--timeout <TIME>': must be 1s to 1h

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(home.run("doctor --relay /ip4/192.0.2.1/tcp/1 --bootstrap here --json").seen(), @r#"
    exit 2
    on the error stream:
    {"error":"bad_settings","detail":"--bootstrap: bootstrap: 'here': an address is a multiaddr and begins with '/', such as /ip4/192.0.2.1/tcp/4001\n--relay: nat.relays[0]: needs an address and the relay's peer id: /dns4/relay.example/udp/4001/quic-v1/p2p/PEER","exit":2}
    "#);
}
