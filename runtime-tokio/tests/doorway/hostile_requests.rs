//! Whatever is sent: a problem that says why, counted, and nothing kept.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use kinfolk::doorway::Keep;
use libp2p::core::PeerRecord;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Open, Peer, open, settings};

/// Nothing is kept, and the doorway is well.
async fn is_unharmed(doorway: &Open) {
    assert_eq!(doorway.get("/health").await.status, 200);
    assert_eq!(doorway.get("/signal").await.body["total"], json!(0));
}

#[tokio::test]
async fn records_that_are_not_this_peers_are_refused_and_counted() {
    let doorway = open(settings(Keep::Memory)).await;
    let (peer, other) = (Peer::new(), Peer::new());
    let good = ["/ip4/45.10.20.1/tcp/4001"];
    let mut bent = peer.bytes(1, &good);
    *bent.last_mut().unwrap() ^= 1;
    let legacy = PeerRecord::new(&peer.key, vec![good[0].parse().unwrap()]).unwrap();
    let legacy = BASE64.encode(&legacy.into_signed_envelope().into_protobuf_encoding());
    let many = PeerRecord::new_interop(&peer.key, vec![good[0].parse().unwrap(); 17]).unwrap();
    let many = BASE64.encode(&many.into_signed_envelope().into_protobuf_encoding());
    for (record, said) in [
        (BASE64.encode(&bent), (422, "bad_signature")),
        (other.record(1, &good), (422, "bad_signature")),
        (legacy, (422, "bad_signature")),
        (BASE64.encode(b"no record"), (422, "bad_signature")),
        ("not base64!".to_owned(), (422, "bad_signature")),
        (String::new(), (422, "bad_signature")),
        (many, (413, "too_large")),
        (BASE64.encode(&[0; 2049]), (413, "too_large")),
        (peer.record(u64::MAX, &good), (422, "bad_sequence")),
        (peer.record(i64::MAX as u64 + 1, &good), (422, "bad_sequence")),
        (peer.record(1, &[]), (422, "bad_address")),
        (peer.record(1, &["/ip4/192.168.1.1/tcp/1"]), (422, "bad_address")),
        (peer.record(1, &[good[0], "/ip4/127.0.0.1/tcp/1"]), (422, "bad_address")),
        (peer.record(1, &["/ip6/::/tcp/1"]), (422, "bad_address")),
        (peer.record(1, &["/dns4/nas.local/tcp/1"]), (422, "bad_address")),
        (peer.record(1, &[&format!("{}/p2p/{}", good[0], other.id)]), (422, "bad_address")),
    ] {
        let answer = doorway.put(&peer, &json!({ "record": record })).await;
        assert_eq!(answer.said(), said, "{}", answer.text);
    }
    is_unharmed(&doorway).await;
    let figures = doorway.get("/metrics").await.text;
    assert!(figures.contains(r#"kinfolk_doorway_problems_total{type="bad_signature"} 6"#), "{figures}");
    assert!(figures.contains(r#"kinfolk_doorway_problems_total{type="bad_address"} 6"#), "{figures}");
    assert!(figures.contains(r#"requests_total{route="/signal/{peer}",method="PUT",status="413"} 2"#), "{figures}");
    doorway.close().await;
}

#[tokio::test]
async fn a_setting_lets_private_addresses_in() {
    let mut settings = settings(Keep::Memory);
    settings.rules.private = true;
    let doorway = open(settings).await;
    let peer = Peer::new();
    let body = json!({ "record": peer.record(1, &["/ip4/192.168.1.1/tcp/1"]) });
    assert_eq!(doorway.put(&peer, &body).await.status, 200);
    doorway.close().await;
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let doorway = open(settings(Keep::Memory)).await;
    let peer = Peer::new();
    let path = format!("/signal/{}", peer.id);
    let record = peer.record(1, &["/ip4/45.10.20.1/tcp/4001"]);
    let put = |body: String, media: &str| doorway.request(Method::PUT, &path).header("content-type", media).body(body);
    let json = "application/json";
    for (request, said) in [
        (put("{".to_owned(), json), (400, "bad_request")),
        (put("[]".to_owned(), json), (400, "bad_request")),
        (put(json!({ "record": record, "more": 1 }).to_string(), json), (400, "bad_request")),
        (put(json!({ "record": record, "lifetime_s": -1 }).to_string(), json), (400, "bad_request")),
        (put("[".repeat(4_000), json), (400, "bad_request")),
        (put("x".repeat(4_097), json), (413, "too_large")),
        (put(record.clone(), "application/x-www-form-urlencoded"), (415, "wrong_media_type")),
        (doorway.request(Method::PUT, &path).body(record.clone()), (415, "wrong_media_type")),
        (doorway.request(Method::POST, &path), (405, "wrong_method")),
        (doorway.request(Method::PUT, "/signal"), (405, "wrong_method")),
        (doorway.request(Method::TRACE, "/health"), (405, "wrong_method")),
        (doorway.request(Method::GET, "/signal?network=smith"), (404, "unknown_network")),
        (doorway.request(Method::GET, "/signal?network="), (404, "unknown_network")),
        (doorway.request(Method::GET, "/signal?network=elohim%00"), (404, "unknown_network")),
        (doorway.request(Method::GET, "/signal?limit=many"), (400, "bad_request")),
        (doorway.request(Method::GET, "/signal?limt=1"), (400, "bad_request")),
        (doorway.request(Method::GET, "/signal?service=teleport"), (400, "bad_request")),
        (doorway.request(Method::GET, &format!("{path}?network=elohim&network=elohim")), (400, "bad_request")),
    ] {
        let answer = doorway.send(request).await;
        assert_eq!(answer.said(), said, "{}", answer.text);
    }
    is_unharmed(&doorway).await;
    doorway.close().await;
}

/// The status and the type of the problem that answers these bytes.
fn raw(doorway: &Open, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(doorway.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    (status, body["type"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_lead_nowhere_else() {
    let doorway = open(settings(Keep::Memory)).await;
    let get =
        |path: &str| raw(&doorway, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
    for (path, status, kind) in [
        ("/", 404, "no_such_endpoint"),
        ("//signal", 404, "no_such_endpoint"),
        ("/signal/", 404, "no_such_endpoint"),
        ("/signal/../health", 404, "no_such_endpoint"),
        ("/signal/..", 400, "bad_peer"),
        ("/signal/%2e%2e%2fhealth", 400, "bad_peer"),
        ("/signal/%00", 400, "bad_peer"),
        ("/signal/%ff", 400, "bad_peer"),
        ("/signal/12D3KooW", 400, "bad_peer"),
        ("/signal/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", 400, "bad_peer"),
        ("/SIGNAL", 404, "no_such_endpoint"),
        ("/metrics/../signal", 404, "no_such_endpoint"),
    ] {
        assert_eq!(get(path), (status, kind.to_owned()), "{path}");
    }
    assert_eq!(get(&format!("/signal/{}", "a".repeat(3_000))), (400, "bad_peer".to_owned()));
    assert_eq!(get(&format!("/signal/{}", "a".repeat(20_000))).0, 431);
    assert_eq!(raw(&doorway, b"nonsense\r\n\r\n").0, 400);
    is_unharmed(&doorway).await;
    doorway.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_requests_are_given_up() {
    let doorway = open(settings(Keep::Memory)).await;
    let peer = Peer::new();
    let head = format!("PUT /signal/{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n", peer.id);
    let begun = Instant::now();
    let body = format!("{head}content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{");
    assert_eq!(raw(&doorway, body.as_bytes()), (408, "timed_out".to_owned()));
    assert_eq!(raw(&doorway, head.as_bytes()).0, 0);
    assert_eq!(raw(&doorway, b"").0, 0);
    assert!((Duration::from_secs(29)..Duration::from_secs(55)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    is_unharmed(&doorway).await;
    doorway.close().await;
}
