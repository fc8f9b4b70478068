//! Somebody asks, publishes or connects without end; others notice nothing.

use std::{io::Read, net::TcpStream, time::Duration};

use kinfolk::doorway::Keep;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Peer, open, settings, with_each};

const FLOODING: &str = "45.1.1.7";
const NEIGHBOUR: &str = "45.1.1.8";
const OTHER: &str = "45.1.2.7";

#[tokio::test]
async fn one_network_has_its_share_of_requests() {
    let mut settings = settings(Keep::Memory);
    (settings.rules.reads, settings.rules.writes) = (30, 5);
    let doorway = open(settings).await;
    let peer = Peer::new();
    let put = |from: &'static str, seq| {
        let request = doorway.request(Method::PUT, &format!("/signal/{}", peer.id)).header("x-forwarded-for", from);
        doorway.send(request.json(&peer.publish(seq)))
    };
    let get =
        |from: &'static str| doorway.send(doorway.request(Method::GET, "/signal").header("x-forwarded-for", from));
    for seq in 1..=5 {
        assert_eq!(put(FLOODING, seq).await.status, 200);
    }
    let refused = put(NEIGHBOUR, 6).await;
    assert_eq!(refused.said(), (429, "too_many_requests"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    // Wrong requests count, too: a signature costs most.
    assert_eq!(put(OTHER, 1).await.said(), (409, "stale"));
    assert_eq!(put(OTHER, 6).await.status, 200);
    assert_eq!(get(FLOODING).await.status, 200, "reading has a share of its own");
    for _ in 0..29 {
        assert_eq!(get(FLOODING).await.status, 200);
    }
    assert_eq!(get(FLOODING).await.said(), (429, "too_many_requests"));
    assert_eq!(get(OTHER).await.status, 200);
    doorway.close().await;
}

#[tokio::test]
async fn one_network_has_its_share_of_records() {
    with_each(async |mut settings| {
        (settings.rules.records, settings.rules.records_per_prefix) = (4, 2);
        let doorway = open(settings).await;
        let put = async |peer: &Peer, from: &str, seq| {
            let request = doorway.request(Method::PUT, &format!("/signal/{}", peer.id)).header("x-forwarded-for", from);
            doorway.send(request.json(&peer.publish(seq))).await
        };
        let peers: Vec<_> = (0..6).map(|_| Peer::new()).collect();
        assert_eq!(put(&peers[0], FLOODING, 1).await.status, 200);
        assert_eq!(put(&peers[1], NEIGHBOUR, 1).await.status, 200);
        let crowded = put(&peers[2], FLOODING, 1).await;
        assert_eq!(crowded.said(), (429, "too_many_records"));
        assert!(!crowded.header("retry-after").is_empty());
        assert_eq!(put(&peers[0], FLOODING, 2).await.status, 200, "those that are there may publish again");
        assert_eq!(put(&peers[0], OTHER, 3).await.status, 200, "and move");
        assert_eq!(put(&peers[2], FLOODING, 1).await.status, 200, "which makes room");
        assert_eq!(put(&peers[3], OTHER, 1).await.status, 200);
        let full = put(&peers[4], "46.1.1.1", 1).await;
        assert_eq!(full.said(), (503, "full"));
        assert_eq!(doorway.delete(&peers[3], &peers[3].record(2, &[])).await.status, 200);
        assert_eq!(put(&peers[4], "46.1.1.1", 1).await.status, 200);
        doorway.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_has_its_share_of_connections() {
    let mut settings = settings(Keep::Memory);
    settings.rules.connections_per_prefix = 3;
    settings.rules.proxies.clear();
    let doorway = open(settings).await;
    let connect = || {
        let stream = TcpStream::connect(doorway.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    };
    let held: Vec<_> = (0..3).map(|_| connect()).collect();
    let turned_away = connect().read(&mut [0; 1]);
    assert!(
        matches!(turned_away, Ok(0))
            || turned_away.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    drop(held);
    crate::harness::eventually("a place is free again", || {
        let mut stream = connect();
        let asked =
            std::io::Write::write_all(&mut stream, b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
    })
    .await;
    let figures = doorway.get("/metrics").await;
    assert!(!figures.text.contains("connections_turned_away_total 0\n"), "{}", figures.text);
    assert_eq!(figures.body, json!(null));
    doorway.close().await;
}
