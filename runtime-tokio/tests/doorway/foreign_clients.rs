//! curl, and js-libp2p's own code for peer records.

use std::process::{Command, Stdio};

use data_encoding::BASE64;
use kinfolk::doorway::Keep;
use serde_json::{Value, json};

use crate::harness::{Peer, js_folder, open, settings};

const ADDRESSES: [&str; 2] = ["/ip4/45.10.20.1/tcp/4001", "/dns4/node.example.org/tcp/443/wss"];

/// The line of JSON that a program prints. Its last argument may be long.
async fn run(mut command: Command) -> Value {
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap()).await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{error}", String::from_utf8_lossy(&output.stdout)))
}

async fn js(arguments: &[&str]) -> Value {
    let node = js_folder().join("node_modules/.bin/node");
    assert!(node.exists(), "{} is missing: scripts/needs.sh makes it", node.display());
    let mut command = Command::new(node);
    command.arg(js_folder().join("record.js")).args(arguments);
    run(command).await
}

async fn curl(arguments: &[&str]) -> Value {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*"]).args(arguments);
    run(command).await
}

#[tokio::test]
async fn a_record_that_js_makes_is_published_by_curl() {
    let doorway = open(settings(Keep::Memory)).await;
    // As js-libp2p counts: milliseconds.
    let made = js(&[&["make", "1795000000123"], &ADDRESSES[..]].concat()).await;
    let (peer, record) = (made["peer"].as_str().unwrap(), made["record"].as_str().unwrap());
    let url = format!("http://{}/signal/{peer}?network=elohim", doorway.address);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("record");
    std::fs::write(&file, BASE64.decode(record.as_bytes()).unwrap()).unwrap();
    let upload = ["--header", "content-type: application/octet-stream", "--upload-file", file.to_str().unwrap(), &url];
    let published = curl(&upload).await;
    assert_eq!((&published["changed"], &published["seq"]), (&json!(true), &json!("1795000000123")), "{published}");
    let body = json!({ "record": record }).to_string();
    let again = ["--request", "PUT", "--header", "content-type: application/json", "--data", &body, &url];
    assert_eq!(curl(&again).await["changed"], json!(false));
    let found = curl(&[&url]).await;
    assert_eq!((&found["addrs"], &found["record"]), (&json!(ADDRESSES), &json!(record)), "{found}");
    doorway.close().await;
}

#[tokio::test]
async fn a_record_of_ours_is_believed_by_js() {
    let doorway = open(settings(Keep::Memory)).await;
    let peer = Peer::new();
    let seq = 1_795_000_000_123_456_789;
    assert_eq!(doorway.put(&peer, &json!({ "record": peer.record(seq, &ADDRESSES) })).await.status, 200);
    let found = doorway.get(&format!("/signal/{}", peer.id)).await.body;
    let said = js(&["check", &peer.id, found["record"].as_str().unwrap()]).await;
    assert_eq!(said, json!({ "peer": peer.id, "seq": seq.to_string(), "addresses": ADDRESSES }));
    doorway.close().await;
}
