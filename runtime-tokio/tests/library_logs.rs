//! Logs in a program of one's own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use kinfolk::{
    Event, Fed, NoBehaviour, Node, NodeBuilder, Running,
    core::{EntryHash, Head, LogHead, LogId, Service},
    log::{Entry, Fork, Log, LogError},
};

type Entries = BTreeMap<LogId, Vec<Entry>>;

/// An application's own store.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Entries>>);

impl Log for Shelf {
    fn heads(&mut self) -> Result<Vec<LogHead>, LogError> {
        let head = |(log, entries): (&LogId, &Vec<Entry>)| {
            let last = entries.last().unwrap();
            LogHead { log: *log, head: Head { position: last.position, hash: last.hash } }
        };
        Ok(self.0.lock().unwrap().iter().map(head).collect())
    }

    fn hash(&mut self, log: &LogId, position: u64) -> Result<Option<EntryHash>, LogError> {
        Ok(self.read(log, position - 1, 1, 1)?.first().map(|entry| entry.hash))
    }

    fn read(&mut self, log: &LogId, since: u64, limit: u32, _: usize) -> Result<Vec<Entry>, LogError> {
        let shelf = self.0.lock().unwrap();
        let entries = shelf.get(log).into_iter().flatten();
        Ok(entries.skip(since as usize).take(limit as usize).cloned().collect())
    }

    fn append(&mut self, log: &LogId, entries: &[Entry]) -> Result<(), LogError> {
        self.0.lock().unwrap().entry(*log).or_default().extend_from_slice(entries);
        Ok(())
    }

    fn keep_apart(&mut self, _: &Fork, _: &[Entry]) -> Result<(), LogError> {
        Ok(())
    }

    fn forks(&mut self) -> Result<Vec<Fork>, LogError> {
        Ok(vec![])
    }
}

fn here() -> NodeBuilder<NoBehaviour> {
    let builder = Node::builder().ephemeral().listen("/ip4/127.0.0.1/tcp/0").mdns(false);
    builder.configure(|config| config.sync.with = Service::Anyone)
}

async fn address(node: &Running<NoBehaviour>) -> String {
    let mut events = node.events();
    loop {
        if let Fed::Item(told) = events.next().await.unwrap()
            && let Event::Listening { address } = &told.notice
        {
            return format!("{address}/p2p/{}", node.peer_id());
        }
    }
}

#[tokio::test]
async fn an_applications_own_store_gets_what_others_put() {
    let shelf = Shelf::default();
    let (ada, bob) = (here().start().await.unwrap(), here().log(shelf.clone()).start().await.unwrap());
    assert_eq!(ada.put("Hello").await.unwrap().head.position, 1);
    let (mut events, mut grown) = (bob.events(), bob.log().grown());
    bob.connect(address(&ada).await.parse().unwrap()).await.unwrap();
    let grown = grown.next().await.unwrap();
    assert_eq!(grown, Fed::Item(ada.log().heads()[0]));
    let stored = shelf.0.lock().unwrap().get(&LogId { author: ada.peer_id(), epoch: 0 }).unwrap()[0].data.clone();
    assert_eq!(stored, b"Hello");

    let mut heard = vec![];
    while heard.last() != Some(&"synced") {
        let Fed::Item(told) = events.next().await.unwrap() else { panic!("events were lost") };
        if let Event::PeerSyncing { .. } = told.notice {
            heard.push("syncing");
        } else if let Event::EntriesReceived { entries: 1, position: 1, .. } = told.notice {
            heard.push("received");
        } else if let Event::PeerSynced { .. } = told.notice {
            heard.push("synced");
        }
    }
    assert_eq!(heard, ["syncing", "received", "synced"]);
    bob.put("Hello, Ada").await.unwrap();
    assert_eq!(shelf.0.lock().unwrap().len(), 2);
    ada.shutdown().await;
    bob.shutdown().await;
}

#[tokio::test]
async fn what_an_author_put_before_it_lost_its_store_comes_to_those_who_never_saw_it() {
    let folder = tempfile::tempdir().unwrap();
    let ada = || here().data_dir(folder.path()).start();
    let first = ada().await.unwrap();
    let (bob, carol) = (here().start().await.unwrap(), here().start().await.unwrap());
    first.put("before").await.unwrap();
    bob.connect(address(&first).await.parse().unwrap()).await.unwrap();
    logs_of(&bob, 1).await;
    first.shutdown().await;
    std::fs::remove_file(folder.path().join("logs.sqlite")).unwrap();

    let again = ada().await.unwrap();
    let at = address(&again).await;
    assert!(again.put("after").await.unwrap().log.epoch > 0);
    carol.connect(at.parse().unwrap()).await.unwrap();
    logs_of(&carol, 1).await;
    bob.connect(at.parse().unwrap()).await.unwrap();
    for node in [&again, &bob, &carol] {
        let mut said = vec![];
        for LogHead { log, .. } in logs_of(node, 2).await {
            said.extend(node.log().entries(log, 0, 9).await.unwrap().into_iter().map(|entry| entry.data));
        }
        assert_eq!(said, [b"before".to_vec(), b"after".to_vec()]);
    }
    for node in [again, bob, carol] {
        node.shutdown().await;
    }
}

/// Waits until a node holds so many logs.
async fn logs_of(node: &Running<NoBehaviour>, count: usize) -> Vec<LogHead> {
    let mut grown = node.log().grown();
    while node.log().heads().len() < count {
        grown.next().await.unwrap();
    }
    node.log().heads()
}

#[tokio::test]
async fn the_store_is_free_when_the_node_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let builder = Node::builder().data_dir(folder.path()).listen("/ip4/127.0.0.1/tcp/0").mdns(false);
        builder.start()
    };
    for position in 1..=3 {
        let node = start().await.unwrap();
        assert_eq!(node.put("again").await.unwrap(), node.log().heads()[0]);
        assert_eq!(node.log().heads()[0].head.position, position);
        let logs = node.log().clone();
        node.shutdown().await;
        assert!(logs.put(vec![vec![]]).await.is_err());
    }
}
