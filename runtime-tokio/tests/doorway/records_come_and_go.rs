//! What an honest peer sees.

use std::time::{Duration, Instant};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use kinfolk_shell::signal::{key::PeerKey, types::Record};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::harness::{Peer, open, with_each};

#[tokio::test]
async fn what_is_published_is_found_by_every_name() {
    with_each(async |settings| {
        let doorway = open(settings).await;
        let peer = Peer::new();
        let address = "/ip4/45.10.20.1/udp/4001/quic-v1";
        let body = json!({ "record": peer.record(7, &[address]), "lifetime_s": 600, "services": ["relay"] });
        let published = doorway.put(&peer, &body).await;
        assert_eq!(published.status, 200, "{}", published.text);
        assert_eq!((&published.body["seq"], &published.body["changed"]), (&json!("7"), &json!(true)));
        assert!((595..=600).contains(&published.body["expires_in_s"].as_u64().unwrap()));

        let raw = PeerKey::of(&peer.key.public().to_peer_id()).unwrap().0;
        let cid = [&[1, 0x72][..], &peer.key.public().to_peer_id().to_bytes()].concat();
        let cid = format!("b{}", data_encoding::BASE32_NOPAD.encode(&cid).to_lowercase());
        for name in [peer.id.clone(), cid, HEXLOWER.encode(&raw), BASE64URL_NOPAD.encode(&raw)] {
            let found = doorway.get(&format!("/signal/{name}?network=elohim")).await;
            assert_eq!(found.status, 200, "{name}: {}", found.text);
            assert_eq!(found.body["addrs"], json!([address]));
            let record: Record = serde_json::from_value(found.body).unwrap();
            let said = record.verify().unwrap();
            assert_eq!((said.peer.to_string(), said.seq), (peer.id.clone(), 7));
        }
        let stranger = Peer::new();
        assert_eq!(doorway.get(&format!("/signal/{}", stranger.id)).await.said(), (404, "not_found"));

        let sample = doorway.get("/signal?limit=5").await;
        assert_eq!((sample.peers(), &sample.body["total"]), (vec![peer.id.as_str()], &json!(1)));
        assert_eq!(sample.body["peers"][0]["services"], json!(["relay"]));
        let federation = doorway.get("/api/v1/federation/p2p-peers").await;
        assert_eq!(
            federation.body,
            json!({"peers": [{"peer_id": peer.id, "multiaddrs": [address], "capabilities": ["relay"], "nat_status": "public"}], "total": 1})
        );
        doorway.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_newer_record_replaces_an_older_one_and_the_way_back_from_a_wrong_clock_is_told() {
    with_each(async |settings| {
        let doorway = open(settings).await;
        let peer = Peer::new();
        // Its clock says 2099, and then is put right.
        assert_eq!(doorway.put(&peer, &peer.publish(4_070_908_800)).await.status, 200);
        let stale = doorway.put(&peer, &peer.publish(1_795_000_000)).await;
        assert_eq!((stale.said(), &stale.body["seq"]), ((409, "stale"), &json!("4070908800")));
        assert_eq!(doorway.put(&peer, &peer.publish(4_070_908_801)).await.status, 200);

        // The answer was lost, and it is asked again: nothing changes, also not the end.
        let again =
            json!({ "record": peer.record(4_070_908_801, &["/ip4/45.10.20.1/udp/4001/quic-v1"]), "lifetime_s": 60 });
        let again = doorway.put(&peer, &again).await;
        assert_eq!((again.status, &again.body["changed"]), (200, &json!(false)));
        assert!(again.body["expires_in_s"].as_u64().unwrap() > 7_000);
        // The same number with something else is refused.
        let other = json!({ "record": peer.record(4_070_908_801, &["/ip4/45.10.20.9/tcp/1"]) });
        assert_eq!(doorway.put(&peer, &other).await.said(), (409, "stale"));

        // As Go counts, beyond what JavaScript's numbers hold.
        let go = doorway.put(&peer, &peer.publish(1_795_000_000_123_456_789)).await;
        assert_eq!(go.body["seq"], json!("1795000000123456789"));
        let stale = doorway.put(&peer, &peer.publish(1_795_000_000_123_456_788)).await;
        assert_eq!(stale.body["seq"], json!("1795000000123456789"));
        doorway.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_withdrawn_can_not_be_brought_back_by_others() {
    with_each(async |settings| {
        let doorway = open(settings).await;
        let peer = Peer::new();
        let published = peer.publish(7);
        assert_eq!(doorway.delete(&peer, &peer.record(1, &[])).await.body["changed"], json!(false));
        assert_eq!(doorway.put(&peer, &published).await.status, 200);
        // Whoever has seen the record can't end it, nor can an old withdrawal.
        let record = published["record"].as_str().unwrap();
        assert_eq!(doorway.delete(&peer, record).await.said(), (422, "bad_address"));
        assert_eq!(doorway.delete(&peer, &peer.record(7, &[])).await.said(), (409, "stale"));
        let withdrawn = doorway.delete(&peer, &peer.record(8, &[])).await;
        assert_eq!((withdrawn.status, &withdrawn.body["changed"]), (200, &json!(true)), "{}", withdrawn.text);
        assert_eq!(doorway.delete(&peer, &peer.record(8, &[])).await.body["changed"], json!(false));

        assert_eq!(doorway.get(&format!("/signal/{}", peer.id)).await.status, 404);
        assert_eq!(doorway.get("/signal").await.body["total"], json!(0));
        let replayed = doorway.put(&peer, &published).await;
        assert_eq!((replayed.said(), &replayed.body["seq"]), ((409, "stale"), &json!("8")));
        assert_eq!(doorway.put(&peer, &peer.publish(9)).await.status, 200);
        doorway.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_bare_record_is_published_like_one_in_json() {
    with_each(async |settings| {
        let doorway = open(settings).await;
        let peer = Peer::new();
        let path = format!("/signal/{}?lifetime_s=120&services=relay,bootstrap", peer.id);
        let bare = |method, path: &str, bytes| {
            doorway.request(method, path).header("content-type", "application/octet-stream").body(bytes)
        };
        let put = bare(Method::PUT, &path, peer.bytes(1, &["/dns4/node.example.org/tcp/443/wss"]));
        let put = doorway.send(put).await;
        assert_eq!(put.status, 200, "{}", put.text);
        let found = doorway.get(&format!("/signal/{}", peer.id)).await;
        assert_eq!(found.body["services"], json!(["relay", "bootstrap"]));
        assert!(found.body["expires_in_s"].as_u64().unwrap() <= 120);
        let ended = bare(Method::DELETE, &format!("/signal/{}", peer.id), peer.bytes(2, &[]));
        assert_eq!(doorway.send(ended).await.body["changed"], json!(true));
        doorway.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_record_lives_for_as_long_as_it_may() {
    with_each(async |mut settings| {
        let doorway = open(settings.clone()).await;
        for (wanted, least, most) in
            [(json!(null), 7_195, 7_200), (json!(1), 55, 60), (json!(600), 595, 600), (json!(u32::MAX), 7_195, 7_200)]
        {
            let peer = Peer::new();
            let mut body = peer.publish(1);
            if !wanted.is_null() {
                body["lifetime_s"] = wanted.clone();
            }
            let life = doorway.put(&peer, &body).await.body["expires_in_s"].as_u64().unwrap();
            assert!((least..=most).contains(&life), "{wanted}: {life}");
        }
        doorway.close().await;

        settings.rules.lifetime = Duration::from_secs(2);
        let (doorway, peer) = (open(settings).await, Peer::new());
        assert_eq!(doorway.put(&peer, &peer.publish(7)).await.status, 200);
        let begun = Instant::now();
        while doorway.get(&format!("/signal/{}", peer.id)).await.status == 200 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            sleep(Duration::from_millis(50)).await;
        }
        assert!(!doorway.get("/signal").await.peers().contains(&peer.id.as_str()));
        assert_eq!(doorway.put(&peer, &peer.publish(7)).await.said(), (409, "stale"), "it is over for good");
        assert_eq!(doorway.put(&peer, &peer.publish(8)).await.status, 200);
        doorway.close().await;
    })
    .await;
}

#[tokio::test]
async fn servers_are_found_among_many() {
    with_each(async |settings| {
        let doorway = open(settings).await;
        let mut servers = Vec::new();
        for n in 0..40 {
            let peer = Peer::new();
            let services = if n < 2 { json!(["bootstrap"]) } else { json!([]) };
            let body = json!({ "record": peer.record(1, &["/ip4/45.10.20.1/tcp/1"]), "services": services });
            assert_eq!(doorway.put(&peer, &body).await.status, 200);
            if n < 2 {
                servers.push(peer.id);
            }
        }
        servers.sort();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..90 {
            let sample = doorway.get("/signal?limit=8").await;
            let peers = sample.peers();
            assert_eq!((peers.len(), &sample.body["total"]), (8, &json!(40)));
            assert!(servers.iter().all(|server| peers.contains(&server.as_str())), "{peers:?}");
            seen.extend(peers.into_iter().map(str::to_owned));
        }
        // Six other places, drawn 90 times: that one of 38 is never drawn happens once in 100 000 runs.
        assert_eq!(seen.len(), 40);
        assert_eq!(doorway.get("/signal?service=bootstrap&limit=100").await.peers(), servers);
        assert_eq!(doorway.get("/signal?service=relay").await.peers(), Vec::<&str>::new());
        assert_eq!(doorway.get("/signal?limit=0").await.peers(), Vec::<&str>::new());
        assert_eq!(doorway.get("/signal?limit=4000000000").await.peers().len(), 40);
        doorway.close().await;
    })
    .await;
}
