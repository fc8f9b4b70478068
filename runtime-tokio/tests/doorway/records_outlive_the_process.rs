//! The backing on disk: restart, damage, and two at once.

use std::fs;

use kinfolk::doorway::Keep;
use serde_json::json;

use crate::harness::{Peer, open, settings, try_open};

#[tokio::test]
async fn a_restarted_doorway_knows_what_it_knew() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(Keep::Folder(folder.path().to_owned()));
    let (kept, withdrawn) = (Peer::new(), Peer::new());
    let doorway = open(settings.clone()).await;
    assert_eq!(doorway.get("/health").await.body["backing"], json!("sqlite"));
    let body =
        json!({ "record": kept.record(5, &["/ip4/45.10.20.1/tcp/1"]), "lifetime_s": 600, "services": ["relay"] });
    assert_eq!(doorway.put(&kept, &body).await.status, 200);
    assert_eq!(doorway.put(&withdrawn, &withdrawn.publish(5)).await.status, 200);
    assert_eq!(doorway.delete(&withdrawn, &withdrawn.record(6, &[])).await.status, 200);
    let before = doorway.get(&format!("/signal/{}", kept.id)).await.body;
    doorway.close().await;

    let doorway = open(settings).await;
    assert_eq!(doorway.warnings, Vec::<String>::new());
    let after = doorway.get(&format!("/signal/{}", kept.id)).await.body;
    for field in ["record", "expires", "services", "seq"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(doorway.get("/signal").await.peers(), [kept.id.as_str()]);
    assert_eq!(doorway.put(&withdrawn, &withdrawn.publish(5)).await.said(), (409, "stale"));
    assert_eq!(doorway.put(&kept, &kept.publish(4)).await.said(), (409, "stale"));
    doorway.close().await;
}

#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(Keep::Folder(folder.path().to_owned()));
    fs::write(folder.path().join("doorway.sqlite"), "x".repeat(10_000)).unwrap();
    let doorway = open(settings).await;
    assert!(doorway.warnings[0].contains("was damaged"), "{:?}", doorway.warnings);
    let aside = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("doorway.damaged-");
    assert!(fs::read_dir(folder.path()).unwrap().any(|entry| aside(&entry.unwrap())));
    let peer = Peer::new();
    assert_eq!(doorway.put(&peer, &peer.publish(1)).await.status, 200);
    doorway.close().await;
}

#[tokio::test]
async fn a_second_doorway_on_the_same_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(Keep::Folder(folder.path().to_owned()));
    let doorway = open(settings.clone()).await;
    let error = try_open(settings).await.err().unwrap().to_string();
    assert!(error.contains("in use by another doorway"), "{error}");
    doorway.close().await;
}
