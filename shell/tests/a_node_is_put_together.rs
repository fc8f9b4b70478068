//! Data folder, identity, store, recorder, local API and driver as one, with a world that does what the test says.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::{fs, path::Path};

use common::{FakeWorld, OPEN, SendApp, at, config, peer};
use kinfolk_shell::{
    api::client::{Client, ClientError},
    handle::{Handle, NodeGone},
    node::{Folder, NodeSettings, Place, StartError, prepare},
};

fn settings(place: Place) -> NodeSettings {
    NodeSettings::new(config().validate().unwrap(), "kinfolk/test", place)
}

fn start(path: &Path) -> Handle<SendApp> {
    let prepared = prepare(settings(Place::Folder(Folder::new(path)))).unwrap();
    assert_eq!(prepared.warnings, [""; 0]);
    let (world, _) = FakeWorld::new(SendApp::default());
    let (life, handle, _) = prepared.drive(world);
    tokio::spawn(life);
    handle
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_from_nothing_and_comes_back_as_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = start(&data);
    let client = Client::of_data_dir(&data).unwrap();
    let first = client.status().await.unwrap();
    assert_eq!((first.data_dir, first.trace.recording), (Some(data.display().to_string()), true));
    node.pin(at(peer(1), OPEN)).await.unwrap();
    node.shutdown().await;
    assert!(matches!(client.status().await, Err(ClientError::NoNode { .. })));

    let node = start(&data);
    let again = client.status().await.unwrap();
    assert_eq!(again.peer, first.peer);
    let pinned = loop {
        let peers = client.peers().await.unwrap();
        if let Some(pinned) = peers.into_iter().next() {
            break pinned;
        }
    };
    assert!(pinned.pinned && pinned.peer == peer(1), "{pinned:?}");
    node.shutdown().await;
    let names: Vec<String> = fs::read_dir(data.join("traces"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "each run begins a segment: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    let error = prepare(settings(Place::Folder(Folder::new(folder.path())))).unwrap_err();
    assert!(matches!(error, StartError::DataDir(_)), "{error}");
    assert!(error.to_string().contains("in use by another node (process "), "{error}");
    assert!(Client::of_data_dir(folder.path()).unwrap().status().await.is_ok(), "the first goes on");
    node.shutdown().await;
    // When `shutdown` has returned, the folder is free.
    start(folder.path()).shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_shut_it_down_both_wait_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    let other = node.clone();
    let (first, second) = (tokio::spawn(async move { node.shutdown().await }), other.shutdown());
    second.await;
    prepare(settings(Place::Folder(Folder::new(folder.path())))).unwrap();
    first.await.unwrap();
    assert_eq!(other.status().await, Err(NodeGone));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_told_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).shutdown().await;
    fs::write(folder.path().join("peers.sqlite"), "damaged").unwrap();
    fs::remove_dir_all(folder.path().join("traces")).unwrap();
    fs::write(folder.path().join("traces"), "in the way").unwrap();
    let prepared = prepare(settings(Place::Folder(Folder::new(folder.path())))).unwrap();
    assert_eq!(prepared.warnings.len(), 2, "{:?}", prepared.warnings);
    assert!(prepared.warnings[0].contains("peers.damaged-"), "{:?}", prepared.warnings);
    assert!(prepared.warnings[1].contains("nothing is recorded"), "{:?}", prepared.warnings);
    drop(prepared);

    fs::write(folder.path().join("identity"), "damaged").unwrap();
    let error = prepare(settings(Place::Folder(Folder::new(folder.path())))).unwrap_err();
    assert!(matches!(error, StartError::Identity(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_memory_leaves_nothing_behind() {
    let prepared = prepare(settings(Place::Memory)).unwrap();
    assert!(prepared.identity.created && prepared.api_socket().is_none());
    let (world, _) = FakeWorld::new(SendApp::default());
    let (life, handle, _) = prepared.drive(world);
    let life = tokio::spawn(life);
    let status = handle.status().await.unwrap();
    assert_eq!((status.data_dir, status.trace.recording), (None, false));
    handle.shutdown().await;
    life.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_is_dropped_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = prepare(settings(Place::Folder(Folder::new(folder.path())))).unwrap();
    let (world, _) = FakeWorld::new(SendApp::default());
    let (life, handle, _) = prepared.drive(world);
    let life = tokio::spawn(life);
    handle.status().await.unwrap();
    life.abort();
    assert!(life.await.unwrap_err().is_cancelled());
    assert_eq!(handle.status().await, Err(NodeGone));
    // The local API's task ends by itself.
    while folder.path().join("api.sock").exists() {
        tokio::task::yield_now().await;
    }
    start(folder.path()).shutdown().await;
}
