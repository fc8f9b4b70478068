//! A record belongs to a network, and a network may need a token.

use kinfolk::doorway::{Keep, Tokens};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Peer, open, settings, with_each};

#[tokio::test]
async fn a_record_is_found_in_its_own_network_only() {
    with_each(async |mut settings| {
        settings.networks = vec!["elohim".to_owned(), "smith".to_owned()];
        let doorway = open(settings).await;
        let peer = Peer::new();
        let path = format!("/signal/{}", peer.id);
        let nowhere = doorway.send(doorway.request(Method::PUT, &path).json(&peer.publish(5))).await;
        assert_eq!(nowhere.said(), (400, "bad_request"), "of several networks, one has to be named");
        let put = doorway.request(Method::PUT, &format!("{path}?network=smith")).json(&peer.publish(5));
        assert_eq!(doorway.send(put).await.status, 200);
        assert_eq!(doorway.get(&format!("{path}?network=smith")).await.status, 200);
        assert_eq!(doorway.get(&format!("{path}?network=elohim")).await.said(), (404, "not_found"));
        assert_eq!(doorway.get("/signal?network=elohim").await.body["total"], json!(0));
        assert_eq!(doorway.get("/api/v1/federation/p2p-peers").await.body["total"], json!(0));
        assert_eq!(doorway.get("/api/v1/federation/p2p-peers?network=smith").await.body["total"], json!(1));
        // Numbers are counted per network.
        let put = doorway.request(Method::PUT, &format!("{path}?network=elohim")).json(&peer.publish(1));
        assert_eq!(doorway.send(put).await.status, 200);
        let figures = doorway.get("/metrics").await.text;
        assert!(figures.contains(r#"kinfolk_doorway_records{network="smith"} 1"#), "{figures}");
        doorway.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_token_opens_what_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "elohim read 0123456789abcdef\nelohim write fedcba9876543210\n").unwrap();
    let mut settings = settings(Keep::Memory);
    settings.tokens = Tokens::load(&file).unwrap();
    let doorway = open(settings.clone()).await;
    let peer = Peer::new();
    let path = format!("/signal/{}", peer.id);
    let send = async |method, token: &str| {
        let mut request = doorway.request(method, &path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        doorway.send(request.json(&peer.publish(1))).await
    };
    for token in ["", "wrong", "0123456789abcdef"] {
        let refused = send(Method::PUT, token).await;
        assert_eq!((refused.said(), refused.header("www-authenticate")), ((401, "unauthorized"), "Bearer"), "{token}");
    }
    assert_eq!(send(Method::PUT, "fedcba9876543210").await.status, 200);
    for (token, status) in [("", 401), ("wrong", 401), ("0123456789abcdef", 200), ("fedcba9876543210", 200)] {
        assert_eq!(send(Method::GET, token).await.status, status, "{token}");
    }
    for path in ["/signal", "/api/v1/federation/p2p-peers"] {
        assert_eq!(doorway.get(path).await.said(), (401, "unauthorized"));
    }
    assert_eq!(doorway.get("/health").await.status, 200);
    doorway.close().await;

    settings.networks = vec!["other".to_owned()];
    let error = crate::harness::try_open(settings).await.err().unwrap().to_string();
    assert!(error.contains("'elohim', which this doorway does not serve"), "{error}");
}
