//! What operators ask a node in a process of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use common::{Home, UpNode};
use serde_json::Value;

/// The status, and the body.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// Starts a node that answers operators, and gives it with the address.
fn start(home: &Home, more: &[&str]) -> (UpNode, String) {
    let mut arguments = vec!["--http", "127.0.0.1:0"];
    arguments.extend(more);
    let mut node = UpNode::unready(home, &arguments);
    let started = node.wait_for("started");
    node.peer = started["detail"]["peer"].as_str().unwrap().to_owned();
    let listening = node.wait_for("listening");
    node.address = format!("{}/p2p/{}", listening["detail"]["address"].as_str().unwrap(), node.peer);
    (node, started["detail"]["http"].as_str().unwrap().to_owned())
}

#[test]
fn two_nodes_that_meet_are_ready_and_show_it() {
    let (home_a, home_b) = (Home::new(), Home::new());
    let (mut ada, http) = start(&home_a, &[]);
    assert_eq!(get(&http, "/health").0, 200);
    let (status, body) = get(&http, "/ready");
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &ready["ready"]), (503, &Value::Bool(false)), "{body}");
    let (_bob, http_b) = start(&home_b, &["--bootstrap", &ada.address]);
    ada.wait_for("peer_identified");
    for http in [&http, &http_b] {
        let (status, body) = get(http, "/ready");
        assert_eq!(status, 200, "{body}");
        let (status, text) = get(http, "/metrics");
        assert_eq!(status, 200);
        assert!(text.contains("\nkinfolk_health{state=\"connected\"} 1\n"), "{text}");
        assert!(text.contains("\nkinfolk_connections{path=\"local\",transport=\"tcp\"} 1\n"), "{text}");
    }
    let (_, text) = get(&http_b, "/metrics");
    assert!(text.contains("\nkinfolk_dials_total{reason=\"bootstrap_peer\",result=\"connected\"} 1\n"), "{text}");
    assert!(text.contains("\nkinfolk_bootstrap_peers{connected=\"yes\"} 1\n"), "{text}");

    ada.signal("TERM");
    ada.wait_for("stopped");
    assert!(TcpStream::connect(&http).is_err(), "the port is free with the node's end");
}

#[test]
fn without_the_setting_nobody_listens() {
    let home = Home::new();
    let mut node = UpNode::unready(&home, &[]);
    assert_eq!(node.wait_for("started")["detail"]["http"], Value::Null);
}

#[test]
fn a_port_that_is_taken_ends_the_start_clearly() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let home = Home::new();
    let ran = home.run(&format!("up --listen /ip4/127.0.0.1/tcp/0 --no-mdns --http {taken}"));
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    insta::assert_snapshot!(ran.err.replace(&taken, "TAKEN"), @"error: can't answer over HTTP on TAKEN (setting http.listen): Address already in use (os error 98); another program has the port, choose another one");
    insta::assert_snapshot!(home.run("up --http localhost").seen(), @r#"
    exit 2
    on the error stream:
    error: --http: http.listen: must be an IP address with a port in quotes, such as "127.0.0.1:9090" or "[::1]:9090", or "off", not "localhost"
    "#);
    insta::assert_snapshot!(home.run("up --set http.listen=9090").seen(), @r#"
    exit 2
    on the error stream:
    error: --set: http.listen: must be an IP address with a port in quotes, such as "127.0.0.1:9090" or "[::1]:9090", or "off", not "9090"
    "#);
}
