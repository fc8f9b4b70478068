//! Several doorways behind one name.

use std::time::{Duration, Instant};

use kinfolk::doorway::Keep;
use serde_json::json;
use tokio::time::sleep;

use crate::harness::{Open, Peer, RedisServer, open, settings};

#[tokio::test]
async fn what_one_is_told_the_other_knows() {
    let server = RedisServer::start().await;
    let (one, other) =
        (open(settings(Keep::Redis(server.url()))).await, open(settings(Keep::Redis(server.url()))).await);
    let peer = Peer::new();
    assert_eq!(one.put(&peer, &peer.publish(5)).await.status, 200);
    let found = other.get(&format!("/signal/{}", peer.id)).await;
    assert_eq!((found.status, found.header("kinfolk-backing")), (200, "redis"));
    assert_eq!(other.put(&peer, &peer.publish(5)).await.body["changed"], json!(false));
    assert_eq!(other.put(&peer, &peer.publish(4)).await.said(), (409, "stale"));
    assert_eq!(other.delete(&peer, &peer.record(6, &[])).await.body["changed"], json!(true));
    assert_eq!(one.get("/signal").await.body["total"], json!(0));
    assert_eq!(one.put(&peer, &peer.publish(6)).await.said(), (409, "stale"));

    // Whatever the order in which they are told at once, the highest number stands.
    let peer = Peer::new();
    let bodies: Vec<_> = (1..=40).map(|seq| peer.publish(seq)).collect();
    let begun = Instant::now();
    let put = async |(body, doorway): (&serde_json::Value, &Open)| {
        loop {
            let answer = doorway.put(&peer, body).await;
            // A server that gets no time on a busy machine is one that is to be asked again.
            if answer.said() != (503, "store_down") {
                return answer;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the server stays away: {}", answer.text);
            sleep(Duration::from_millis(100)).await;
        }
    };
    let puts = bodies.iter().rev().zip([&one, &other].into_iter().cycle()).map(put);
    for answer in futures::future::join_all(puts).await {
        assert!([200, 409].contains(&answer.status), "{}", answer.text);
    }
    for doorway in [&one, &other] {
        assert_eq!(doorway.get(&format!("/signal/{}", peer.id)).await.body["seq"], json!("40"));
    }
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_server_that_dies_is_missed_at_once_and_found_again() {
    let mut server = RedisServer::start().await;
    let doorway = open(settings(Keep::Redis(server.url()))).await;
    let peer = Peer::new();
    let path = format!("/signal/{}", peer.id);
    assert_eq!(doorway.put(&peer, &peer.publish(1)).await.status, 200);
    server.kill();
    for _ in 0..3 {
        let begun = std::time::Instant::now();
        let missing = doorway.get(&path).await;
        assert_eq!((missing.said(), missing.header("kinfolk-backing")), ((503, "store_down"), "redis"));
        assert!(!missing.header("retry-after").is_empty() && !missing.text.contains("sock"), "{}", missing.text);
        assert_eq!(doorway.put(&peer, &peer.publish(2)).await.said(), (503, "store_down"));
        let health = doorway.get("/health").await;
        assert_eq!((health.status, &health.body["ok"], &health.body["backing"]), (503, &json!(false), &json!("redis")));
        assert!(doorway.get("/metrics").await.text.contains("kinfolk_doorway_store_up 0\n"));
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    server.again().await;
    // No more than the very next question may still be refused.
    let _ = doorway.get("/health").await;
    assert_eq!(doorway.get("/health").await.status, 200);
    assert_eq!(doorway.put(&peer, &peer.publish(3)).await.status, 200, "it is empty now, and takes what comes");
    assert_eq!(doorway.get(&path).await.status, 200);
    assert!(doorway.get("/metrics").await.text.contains("kinfolk_doorway_store_up 1\n"));
    doorway.close().await;
}

#[tokio::test]
async fn a_doorway_starts_before_its_server() {
    let mut server = RedisServer::start().await;
    server.kill();
    let doorway = open(settings(Keep::Redis(server.url()))).await;
    assert_eq!(doorway.get("/signal").await.said(), (503, "store_down"));
    server.again().await;
    let _ = doorway.get("/signal").await;
    assert_eq!(doorway.get("/signal").await.status, 200);
    doorway.close().await;
}
