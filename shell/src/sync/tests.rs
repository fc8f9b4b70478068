//! Two authors' stores, and ranges carried between them by hand.

use std::{fs, path::Path, sync::mpsc, task::Waker, thread};

use futures::executor::block_on;
use rusqlite::Connection;

use super::*;
use super::{
    log::{Entry, Fork},
    sqlite::{FILE, SqliteLog},
};
use kinfolk_core::EntryHash;

struct Node {
    logs: Logs,
    key: Keypair,
}

fn node(key: &Keypair, log: SqliteLog) -> Node {
    Node { logs: Logs::start(key.clone(), Box::new(log), &Disk::default()).unwrap(), key: key.clone() }
}

fn in_memory() -> Node {
    node(&Keypair::generate_ed25519(), SqliteLog::in_memory().unwrap())
}

fn on_disk(key: &Keypair, folder: &Path, new: bool) -> Node {
    node(key, SqliteLog::open(folder, new, 1_000).unwrap().log)
}

impl Node {
    fn put(&self, entries: std::ops::Range<u32>) -> LogHead {
        block_on(self.logs.put(entries.map(|at| at.to_string().into_bytes()).collect())).unwrap()
    }

    /// A log of this node.
    fn log(&self, epoch: u64) -> LogId {
        LogId { author: self.logs.own, epoch }
    }

    /// How far the newest log of `of` goes here.
    fn head(&self, of: &Self) -> Head {
        self.newest(of).head
    }

    fn newest(&self, of: &Self) -> LogHead {
        let newest = self.logs.heads().into_iter().rfind(|head| head.log.author == of.logs.own);
        newest.unwrap_or(LogHead { log: of.log(0), head: Head::default() })
    }

    /// Fetches a range of the newest log of `of` from `from`.
    fn fetch(&self, from: &Self, of: &Self, since: u64, limit: u32) -> Result<Stored, SyncError> {
        self.fetch_of(from, from.newest(of).log, since, limit)
    }

    fn fetch_of(&self, from: &Self, log: LogId, since: u64, limit: u32) -> Result<Stored, SyncError> {
        let range = block_on(from.logs.range(log, since, limit))?;
        block_on(self.logs.store(sent(log, since, range)))
    }

    fn events(&self) -> Vec<Event> {
        let mut cx = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match self.logs.poll_event(&mut cx) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        })
        .collect()
    }

    fn data(&self, of: &Self) -> Vec<String> {
        let log = self.newest(of).log;
        let entries = block_on(self.logs.entries(log, 0, u32::MAX)).unwrap();
        entries.into_iter().map(|entry| String::from_utf8(entry.data).unwrap()).collect()
    }

    /// The same author with an empty store: a second machine with the same key.
    fn twin(&self) -> Self {
        node(&self.key, SqliteLog::in_memory().unwrap())
    }
}

fn sent(log: LogId, since: u64, range: Range) -> Sent {
    let items = range.entries.into_iter().map(|entry| (entry.data, entry.signature)).collect();
    Sent { log, since, before: range.before, items }
}

#[test]
fn ranges_carry_a_log_from_node_to_node() {
    let (ada, bob, eve) = (in_memory(), in_memory(), in_memory());
    assert_eq!(ada.put(0..100).head.position, 100);
    ada.put(100..150);
    // The third one has it from the second, to whom only some signatures came.
    let first = bob.fetch(&ada, &ada, 0, 70).unwrap();
    assert_eq!((first.head.position, first.entries), (64, 64));
    assert_eq!(bob.fetch(&ada, &ada, 64, 4_096).unwrap().head, ada.head(&ada));
    assert_eq!(eve.fetch(&bob, &ada, 0, 4_096).unwrap().entries, 150);
    assert_eq!(eve.data(&ada), (0..150).map(|at| at.to_string()).collect::<Vec<_>>());
    assert_eq!(eve.logs.digest(), bob.logs.digest());
}

#[test]
fn a_limit_below_the_next_signature_gives_a_whole_block() {
    let (ada, bob) = (in_memory(), in_memory());
    ada.put(0..200);
    let range = block_on(ada.logs.range(ada.log(0), 10, 1)).unwrap();
    assert_eq!((range.entries.len(), range.has_more), (54, true));
    assert_eq!(bob.fetch(&ada, &ada, 0, 1).unwrap().head.position, 64);
    let end = block_on(ada.logs.range(ada.log(0), 128, 1_000)).unwrap();
    assert_eq!((end.entries.len(), end.has_more), (72, false));
}

#[test]
fn what_is_here_already_is_compared_and_not_stored_again() {
    let (ada, bob) = (in_memory(), in_memory());
    ada.put(0..100);
    bob.fetch(&ada, &ada, 0, 100).unwrap();
    ada.put(100..110);
    let stored = bob.fetch(&ada, &ada, 50, 100).unwrap();
    assert_eq!((stored.entries, stored.head.position), (10, 110));
    assert_eq!(bob.fetch(&ada, &ada, 109, 1).unwrap().entries, 0);
}

#[test]
fn a_range_that_leaves_something_out_is_refused() {
    let (ada, bob) = (in_memory(), in_memory());
    ada.put(0..200);
    assert_eq!(bob.fetch(&ada, &ada, 64, 100), Err(SyncError::Gap));
    assert_eq!(block_on(ada.logs.range(ada.log(0), 201, 1)), Err(SyncError::NotThere));
    assert_eq!(block_on(ada.logs.range(bob.log(0), 0, 1)), Err(SyncError::NotThere));
    assert_eq!(block_on(ada.logs.range(ada.log(0), u64::MAX, 1)), Err(SyncError::NotThere));
}

#[test]
fn forged_entries_change_nothing() {
    let (ada, bob) = (in_memory(), in_memory());
    ada.put(0..10);
    let range = || block_on(ada.logs.range(ada.log(0), 0, 10)).unwrap();
    let store = |sent| block_on(bob.logs.store(sent));
    let mut changed = sent(ada.log(0), 0, range());
    changed.items[4].0.push(b'!');
    assert_eq!(store(changed), Err(SyncError::Forged));
    assert_eq!(store(sent(bob.log(0), 0, range())), Err(SyncError::Forged));
    let mut elsewhere = sent(ada.log(0), 0, range());
    elsewhere.before = EntryHash([1; 32]);
    assert_eq!(store(elsewhere), Err(SyncError::Forged));
    let mut none = sent(ada.log(0), 0, range());
    none.items.clear();
    assert_eq!(store(none), Err(SyncError::Malformed));
    // A first entry that names one before it, signed by its author all the same: it could not be handed on.
    let before = EntryHash([1; 32]);
    let place = chain::Place { log: &ada.log(0), since: 0, before };
    let entries = chain::write(place, &ada.key, vec![vec![7]]).unwrap();
    assert_eq!(store(sent(ada.log(0), 0, Range { before, entries, has_more: false })), Err(SyncError::Malformed));
    assert_eq!(bob.head(&ada), Head::default());
    assert!(bob.fetch(&ada, &ada, 0, 10).is_ok());
}

#[test]
fn a_fork_is_proven_and_kept_apart() {
    for theirs in [10, 30] {
        let (ada, bob) = (in_memory(), in_memory());
        ada.put(0..5);
        let twin = ada.twin();
        twin.put(0..5);
        ada.put(5..20);
        twin.put(100..100 + theirs);
        bob.fetch(&ada, &ada, 0, 100).unwrap();

        // The whole range, and one that begins after the place where they part.
        let fork = |position, other| Fork { log: ada.log(0), position, other };
        let other = |position: u64| block_on(twin.logs.entries(ada.log(0), position - 1, 1)).unwrap().remove(0).hash;
        assert_eq!(bob.fetch(&twin, &ada, 8, 100), Err(SyncError::Forked { position: 8 }));
        assert_eq!(block_on(bob.logs.forks()).unwrap(), [fork(8, other(8))]);
        assert_eq!(bob.fetch(&twin, &ada, 0, 100), Err(SyncError::Forked { position: 6 }));
        assert_eq!(block_on(bob.logs.forks()).unwrap(), [fork(6, other(6))]);

        // Ours stays, and goes on.
        assert_eq!(bob.head(&ada), ada.head(&ada));
        ada.put(20..21);
        assert_eq!(bob.fetch(&ada, &ada, 20, 1).unwrap().head.position, 21);
    }
}

#[test]
fn an_author_whose_log_forked_begins_anew() {
    let (ada, bob) = (in_memory(), in_memory());
    let twin = ada.twin();
    ada.put(0..5);
    twin.put(7..9);
    assert_eq!(ada.fetch(&twin, &ada, 0, 9), Err(SyncError::Forked { position: 1 }));
    let LogHead { log, head } = ada.put(20..22);
    assert!(log.epoch > 1_000_000_000 && head.position == 2, "{log} {head:?}");
    assert_eq!(bob.fetch(&ada, &ada, 0, 9).unwrap().head, head);
    // The old one is a log like any other, and comes later as well.
    assert_eq!(bob.fetch_of(&ada, ada.log(0), 0, 9).unwrap().entries, 5);
    assert_eq!(bob.fetch_of(&twin, ada.log(0), 0, 9), Err(SyncError::Forked { position: 1 }));
    assert_eq!(bob.data(&ada), ["20", "21"]);
    assert_eq!(bob.logs.heads(), ada.logs.heads());
    assert_eq!(bob.logs.digest(), ada.logs.digest());
    // Once only, also when the fork of the old one is seen again.
    assert_eq!(ada.fetch_of(&twin, ada.log(0), 0, 9), Err(SyncError::Forked { position: 1 }));
    assert_eq!(ada.put(30..31).head.position, 3);
}

#[test]
fn an_author_whose_entries_come_back_from_others_begins_anew() {
    let (ada, bob) = (in_memory(), in_memory());
    ada.put(0..200);
    bob.fetch(&ada, &ada, 0, 4_096).unwrap();
    let restored = ada.twin();
    restored.put(0..10);
    assert_eq!(restored.fetch(&bob, &ada, 10, 1).unwrap().head.position, 64);
    let head = restored.put(300..301);
    assert!(head.log.epoch > 0 && head.head.position == 1, "there are more of the old ones elsewhere: {head}");
    restored.fetch_of(&bob, ada.log(0), 64, 4_096).unwrap();
    assert_eq!(restored.logs.head(&ada.log(0)), ada.head(&ada));
    assert_eq!(restored.put(301..302).head.position, 2);
}

#[test]
fn of_an_author_the_newest_epochs_are_exchanged_and_older_ones_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (ada, key) = (in_memory(), Keypair::generate_ed25519());
    let open = || on_disk(&key, folder.path(), true);
    let bob = open();
    let write = |epoch| {
        let place = chain::Place { log: &ada.log(epoch), since: 0, before: EntryHash::default() };
        let entries = chain::write(place, &ada.key, vec![vec![7]]).unwrap();
        block_on(bob.logs.store(sent(ada.log(epoch), 0, Range { before: place.before, entries, has_more: false })))
    };
    let epochs = |heads: Vec<LogHead>| heads.iter().map(|head| head.log.epoch).collect::<Vec<_>>();
    for epoch in (0..40).step_by(2) {
        write(epoch).unwrap();
    }
    let newest: Vec<u64> = (8..40).step_by(2).collect();
    assert_eq!(newest.len(), MAX_EPOCHS);
    assert_eq!(epochs(bob.logs.heads()), newest);
    assert_eq!(write(7), Err(SyncError::LogFull), "older than all of these");
    assert_eq!(block_on(bob.logs.all_heads()).unwrap().len(), 20);
    assert_eq!(block_on(bob.logs.entries(ada.log(0), 0, 9)).unwrap().len(), 1);
    block_on(bob.logs.close());
    assert_eq!(epochs(open().logs.heads()), newest, "the same after a restart");
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let key = Keypair::generate_ed25519();
    let ada = on_disk(&key, folder.path(), true);
    let head = ada.put(0..100);
    block_on(ada.logs.close());
    assert!(matches!(block_on(ada.logs.put(vec![vec![1]])), Err(PutError::Gone(_))));
    let ada = on_disk(&key, folder.path(), false);
    assert_eq!(ada.newest(&ada), head);
    let again = ada.put(100..101);
    assert_eq!((again.log, again.head.position), (ada.log(0), 101));
    assert_eq!(ada.data(&ada).len(), 101);
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let key = Keypair::generate_ed25519();
    let ada = on_disk(&key, folder.path(), true);
    let (sender, acknowledged) = mpsc::channel();
    let logs = ada.logs.clone();
    let writer = thread::spawn(move || {
        for at in 0..200_u32 {
            let put = block_on(logs.put(vec![at.to_string().into_bytes(); 3])).unwrap();
            sender.send(put.head).unwrap();
        }
    });
    // The files as a process would find them that starts now, while the other one goes on writing.
    let mut last = Head::default();
    let mut cuts = 0;
    while let Ok(head) = acknowledged.recv() {
        last = acknowledged.try_iter().last().unwrap_or(head);
        let copy = tempfile::tempdir().unwrap();
        // The database first: checkpoints go from the other file into it.
        for end in ["", "-wal"] {
            let name = format!("{FILE}{end}");
            let _ = fs::copy(folder.path().join(&name), copy.path().join(&name));
        }
        let opened = SqliteLog::open(copy.path(), false, 1_000).unwrap();
        if opened.warning.is_some() {
            // A checkpoint ran between the two copies: no moment that a disk can have.
            continue;
        }
        let found = node(&key, opened.log);
        assert!(found.head(&found).position >= last.position, "{:?} {last:?}", found.head(&found));
        assert_eq!(found.data(&found).len() as u64, found.head(&found).position);
        cuts += 1;
    }
    writer.join().unwrap();
    assert_eq!(last.position, 600);
    assert!(cuts > 0);
}

#[test]
fn a_damaged_store_is_set_aside_and_the_log_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let key = Keypair::generate_ed25519();
    let (ada, bob) = (on_disk(&key, folder.path(), true), in_memory());
    ada.put(0..2_000);
    bob.fetch(&ada, &ada, 0, 4_096).unwrap();
    block_on(ada.logs.close());
    let path = folder.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8_192..40_000].fill(0xa5);
    fs::write(&path, bytes).unwrap();

    let opened = SqliteLog::open(folder.path(), false, 7).unwrap();
    assert!(opened.warning.unwrap().contains("logs.damaged-7"));
    let ada = node(&key, opened.log);
    assert_eq!(ada.head(&ada), Head::default());
    // What others have comes back; what they don't have can't get a number twice.
    assert_eq!(ada.fetch(&bob, &ada, 0, 4_096).unwrap().entries, 2_000);
    block_on(ada.logs.close());
    let ada = on_disk(&key, folder.path(), false);
    let LogHead { log, head } = ada.put(0..1);
    assert!(log.epoch > 0 && head.position == 1);
    block_on(ada.logs.close());
    let ada = on_disk(&key, folder.path(), false);
    let again = ada.put(1..2);
    assert_eq!((again.log, again.head.position), (log, 2));
}

#[test]
fn a_store_that_is_gone_begins_anew_too() {
    let folder = tempfile::tempdir().unwrap();
    let ada = on_disk(&Keypair::generate_ed25519(), folder.path(), false);
    assert!(ada.put(0..1).log.epoch > 0);
}

#[test]
fn a_newer_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::open(folder.path().join(FILE)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.close().unwrap();
    let error = SqliteLog::open(folder.path(), true, 0).unwrap_err().to_string();
    assert!(error.contains("newer version"), "{error}");
}

#[test]
fn what_the_disk_has_changed_is_not_handed_on() {
    let folder = tempfile::tempdir().unwrap();
    let key = Keypair::generate_ed25519();
    let ada = on_disk(&key, folder.path(), true);
    ada.put(0..10);
    block_on(ada.logs.close());
    let connection = Connection::open(folder.path().join(FILE)).unwrap();
    connection.execute("UPDATE entries SET data = x'00' WHERE id % 10 = 3", []).unwrap();
    connection.close().unwrap();
    let ada = on_disk(&key, folder.path(), false);
    assert_eq!(block_on(ada.logs.range(ada.log(0), 0, 10)), Err(SyncError::StoreFailed));
}

#[test]
fn too_much_is_refused_before_it_is_stored() {
    let ada = in_memory();
    let put = |entries| block_on(ada.logs.put(entries));
    assert_eq!(put(vec![vec![0; MAX_ENTRY + 1]]), Err(PutError::TooLong(MAX_ENTRY + 1)));
    assert_eq!(put(vec![vec![]; MAX_PUT + 1]), Err(PutError::TooMuch));
    assert_eq!(put(vec![vec![0; MAX_ENTRY]; 257]), Err(PutError::TooMuch));
    assert_eq!(put(vec![]).unwrap().head, Head::default());
    assert_eq!(put(vec![vec![0; MAX_ENTRY]; 20]).unwrap().head.position, 20);
    // They travel in ranges that no bound stops.
    let bob = in_memory();
    let first = bob.fetch(&ada, &ada, 0, 4_096).unwrap();
    assert!(first.entries >= 12, "{first:?}");
    bob.fetch(&ada, &ada, first.head.position, 4_096).unwrap();
    assert_eq!(bob.head(&ada), ada.head(&ada));
}

#[test]
fn one_author_can_not_take_the_room_of_the_others() {
    let (folder, key) = (tempfile::tempdir().unwrap(), Keypair::generate_ed25519());
    let own = peer_to_core(key.public().to_peer_id());
    let small = || SqliteLog::open(folder.path(), true, 0).unwrap().log.with_room(own, 64 << 10).unwrap();
    let (ada, bob) = (in_memory(), in_memory());
    let eve = node(&key, small());
    let (a_kib, everything) = (|count| vec![vec![b'x'; 1_024 - 64]; count], 4_096);
    block_on(ada.logs.put(a_kib(30))).unwrap();
    assert_eq!(eve.fetch(&ada, &ada, 0, everything).unwrap().entries, 30);
    block_on(ada.logs.put(a_kib(5))).unwrap();
    assert_eq!(eve.fetch(&ada, &ada, 30, everything), Err(SyncError::LogFull));
    block_on(bob.logs.put(a_kib(16))).unwrap();
    assert_eq!(eve.fetch(&bob, &bob, 0, everything).unwrap().entries, 16);
    // What one puts oneself has no such bound, and takes no room from the others; nor does a restart give more.
    block_on(eve.logs.put(a_kib(100))).unwrap();
    block_on(eve.logs.close());
    let eve = node(&key, small());
    block_on(bob.logs.put(a_kib(3))).unwrap();
    assert_eq!(eve.fetch(&bob, &bob, 16, everything), Err(SyncError::LogFull));
    // Nor does a new epoch.
    let twin = ada.twin();
    twin.put(0..1);
    assert_eq!(ada.fetch(&twin, &ada, 0, everything), Err(SyncError::Forked { position: 1 }));
    assert!(ada.put(0..1).log.epoch > 0);
    assert_eq!(eve.fetch(&ada, &ada, 0, everything), Err(SyncError::LogFull));
}

#[test]
fn the_core_hears_of_all_logs_first_and_then_of_what_is_put() {
    let ada = in_memory();
    assert_eq!(ada.events(), [Event::SyncHeads { heads: vec![], last: true }]);
    let grown = ada.put(0..1);
    assert_eq!(ada.events(), [Event::SyncHeads { heads: vec![grown], last: true }]);
    assert_eq!(ada.events(), []);

    // In frames.
    let folder = tempfile::tempdir().unwrap();
    let mut log = SqliteLog::open(folder.path(), true, 0).unwrap().log;
    for at in 0..100_u8 {
        let author = PeerId::from_bytes(&[&[0x12, 0x20][..], &[at; 32]].concat()).unwrap();
        let entry = Entry { position: 1, hash: EntryHash([1; 32]), signature: Some(vec![]), data: vec![] };
        log.append(&LogId { author, epoch: 0 }, &[entry]).unwrap();
    }
    let many = node(&Keypair::generate_ed25519(), log);
    let frames: Vec<(usize, bool)> = many
        .events()
        .iter()
        .map(|event| {
            let Event::SyncHeads { heads, last } = event else { panic!("{event:?}") };
            (heads.len(), *last)
        })
        .collect();
    assert_eq!(frames, [(64, false), (36, true)]);
    let (page, more) = many.logs.heads_after(None, 99);
    assert_eq!((page.len(), more), (99, true));
    assert_eq!(many.logs.heads_after(Some(&page[98].log), 99).0.len(), 1);
}

#[test]
fn a_range_that_nobody_waits_for_is_told_of_all_the_same() {
    let (ada, bob) = (in_memory(), in_memory());
    ada.put(0..10);
    bob.events();
    let range = block_on(ada.logs.range(ada.log(0), 0, 10)).unwrap();
    let mut store = Box::pin(bob.logs.store(sent(ada.log(0), 0, range)));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(store.as_mut().poll(&mut cx).is_pending());
    drop(store);
    block_on(bob.logs.all_heads()).unwrap();
    let heads = vec![ada.newest(&ada)];
    assert_eq!(bob.events(), [Event::SyncHeads { heads, last: true }]);
}

#[test]
fn the_core_hears_when_ranges_pile_up_and_when_they_are_gone() {
    let (ada, bob) = (in_memory(), in_memory());
    bob.events();
    ada.put(0..10);
    let range = || sent(ada.log(0), 0, block_on(ada.logs.range(ada.log(0), 0, 10)).unwrap());
    let others: Vec<Waiting> = (0..MANY - 1).map(|_| Waiting::new(&bob.logs.shared)).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let mut store = Box::pin(bob.logs.store(range()));
    assert!(store.as_mut().poll(&mut cx).is_pending());
    assert_eq!(bob.events(), [Event::SyncPressure { busy: true }]);
    block_on(store).unwrap();
    assert_eq!(bob.events(), []);
    drop(others);
    assert_eq!(bob.events(), [Event::SyncPressure { busy: false }]);

    // Also when nobody waits for them any more.
    let stores: Vec<_> = (0..MANY).map(|_| bob.logs.store(range())).collect();
    for store in stores {
        let mut store = std::pin::pin!(store);
        assert!(store.as_mut().poll(&mut cx).is_pending());
    }
    block_on(bob.logs.all_heads()).unwrap();
    assert_eq!(bob.logs.shared.waiting.load(Ordering::Relaxed), 0);
}

#[test]
fn whoever_follows_hears_of_growth_until_the_end() {
    use futures::StreamExt;
    let (ada, bob) = (in_memory(), in_memory());
    let mut grown = bob.logs.grown();
    ada.put(0..10);
    bob.fetch(&ada, &ada, 0, 10).unwrap();
    bob.put(0..1);
    block_on(bob.logs.close());
    let heard: Vec<_> = block_on(grown.by_ref().collect());
    let of = |node: &Node| crate::feed::Fed::Item(node.newest(node));
    assert_eq!(heard[0], of(&ada));
    assert_eq!(heard.len(), 2);
}
