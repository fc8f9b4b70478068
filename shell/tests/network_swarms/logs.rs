use kinfolk_core::{Action, Audience, CommandId, ConnectionId, Event, Head, LogHead, LogId, PeerId, SyncError, Told};
use kinfolk_shell::{
    disk::Disk,
    sync::{
        Logs,
        log::{Entry, Log},
        sqlite::SqliteLog,
    },
};
use libp2p::{
    identity::Keypair,
    swarm::{NetworkBehaviour, dummy},
};

use crate::harness::{Peer, connect, in_memory_with, peer_with, settings, until, wait};

/// A peer with logs.
pub(crate) struct Member<A: NetworkBehaviour = dummy::Behaviour> {
    pub(crate) peer: Peer<A>,
    pub(crate) logs: Logs,
}

pub(crate) fn member() -> Member {
    member_with(SqliteLog::in_memory().unwrap(), dummy::Behaviour)
}

pub(crate) fn member_with<A: NetworkBehaviour>(log: SqliteLog, app: A) -> Member<A> {
    let key = Keypair::generate_ed25519();
    let logs = Logs::start(key.clone(), Box::new(log), &Disk::default()).unwrap();
    let peer = in_memory_with(key, app);
    Member { peer: Peer::of(peer.network.with_logs(logs.clone())), logs }.serving_anyone()
}

impl<A: NetworkBehaviour> Member<A> {
    fn serving_anyone(mut self) -> Self {
        self.peer.run(Action::SetSync { with: Audience::Anyone });
        self
    }

    pub(crate) async fn put(&self, entries: std::ops::Range<u32>) -> LogHead {
        let entries = entries.map(|at| at.to_string().into_bytes()).collect();
        self.logs.put(entries).await.unwrap()
    }

    pub(crate) fn fetch(&mut self, peer: PeerId, connection: ConnectionId, log: LogId, since: u64) -> CommandId {
        self.peer.run(Action::SyncFetch { peer, connection, log, since, limit: 4_096 })
    }
}

/// Two members, connected; and the connection's number at each.
async fn pair() -> (Member, Member, ConnectionId, ConnectionId) {
    let (mut a, mut b) = (member(), member());
    let at = b.peer.listen("/memory/0").await;
    let (to_b, to_a) = connect(&mut a.peer, &mut b.peer, &at).await;
    (a, b, to_b, to_a)
}

pub(crate) fn failed(sync: CommandId) -> impl FnMut(&Event) -> Option<SyncError> {
    move |event| match event {
        Event::SyncFailed { sync: of, error } if *of == sync => Some(error.clone()),
        Event::SyncFetched { fetch, .. } if *fetch == sync => panic!("{event:?}"),
        Event::SyncTold { sync: Some(of), .. } if *of == sync => panic!("{event:?}"),
        _ => None,
    }
}

pub(crate) fn fetched(sync: CommandId) -> impl FnMut(&Event) -> Option<(Head, u32, bool)> {
    move |event| match event {
        Event::SyncFetched { fetch, head, entries, has_more, .. } if *fetch == sync => {
            Some((*head, *entries, *has_more))
        }
        Event::SyncFailed { sync: of, error } if *of == sync => panic!("{error}"),
        _ => None,
    }
}

/// What a peer has told: unasked, or as an answer.
fn told(of: Option<CommandId>) -> impl FnMut(&Event) -> Option<(Told, bool)> {
    move |event| match event {
        Event::SyncTold { sync, told, last, .. } if *sync == of => Some((told.clone(), *last)),
        Event::SyncFailed { sync, error } if Some(*sync) == of => panic!("{error}"),
        _ => None,
    }
}

#[tokio::test]
async fn positions_are_compared_in_a_word_while_they_are_equal() {
    let (mut a, mut b, to_b, _) = pair().await;
    let exchange = a.peer.run(Action::SyncExchange { peer: b.peer.id(), connection: to_b });
    let answer = wait(&mut [&mut a.peer, &mut b.peer], 0, "an answer", told(Some(exchange))).await;
    assert_eq!(answer, (Told::Same, true));
    let heard = wait(&mut [&mut a.peer, &mut b.peer], 1, "the question", told(None)).await;
    assert_eq!(heard, (Told::Same, true));

    let (of_b, of_a) = (b.put(0..3).await, a.put(0..1).await);
    let exchange = a.peer.run(Action::SyncExchange { peer: b.peer.id(), connection: to_b });
    let answer = wait(&mut [&mut a.peer, &mut b.peer], 0, "an answer", told(Some(exchange))).await;
    assert_eq!(answer, (Told::Heads(vec![of_b]), true));
    let heard = wait(&mut [&mut a.peer, &mut b.peer], 1, "the question", told(None)).await;
    assert_eq!(heard, (Told::Differs, true));

    let announce = a.peer.run(Action::SyncAnnounce { peer: b.peer.id(), connection: to_b, heads: vec![of_a] });
    let answer = wait(&mut [&mut a.peer, &mut b.peer], 0, "an answer", told(Some(announce))).await;
    assert_eq!(answer, (Told::Heads(vec![LogHead { log: of_a.log, head: Head::default() }]), true));
    let heard = wait(&mut [&mut a.peer, &mut b.peer], 1, "the announcement", told(None)).await;
    assert_eq!(heard, (Told::Heads(vec![of_a]), true));
}

#[tokio::test]
async fn all_heads_of_many_logs_come_in_frames() {
    let mut log = SqliteLog::in_memory().unwrap();
    // Two of each author, so that the first page ends between them.
    let log_of = |number: u32| {
        let author = [&[0x12, 0x20][..], &number.div_ceil(2).to_be_bytes(), &[0; 28]].concat();
        LogId { author: PeerId::from_bytes(&author).unwrap(), epoch: u64::from((number + 1) % 2) }
    };
    let entry = Entry { position: 1, hash: kinfolk_core::EntryHash([1; 32]), signature: None, data: vec![] };
    for number in 0..1_100 {
        log.append(&log_of(number), std::slice::from_ref(&entry)).unwrap();
    }
    let (mut a, mut b) = (member(), member_with(log, dummy::Behaviour));
    let at = b.peer.listen("/memory/0").await;
    let (to_b, _) = connect(&mut a.peer, &mut b.peer, &at).await;
    let exchange = a.peer.run(Action::SyncExchange { peer: b.peer.id(), connection: to_b });
    let mut heads = vec![];
    loop {
        let (part, last) = wait(&mut [&mut a.peer, &mut b.peer], 0, "a frame", told(Some(exchange))).await;
        let Told::Heads(part) = part else { panic!("{part:?}") };
        assert!(part.len() <= 64);
        heads.extend(part.into_iter().map(|head| head.log));
        if last {
            break;
        }
    }
    assert_eq!(heads, (0..1_100).map(log_of).collect::<Vec<_>>());
    // The question was one, in two pages.
    wait(&mut [&mut a.peer, &mut b.peer], 1, "the question", told(None)).await;
    assert_eq!(b.peer.take(told(None)), None);
}

#[tokio::test]
async fn ranges_are_stored_before_they_are_told_of() {
    for at in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let internet = || {
            let key = Keypair::generate_ed25519();
            let logs = Logs::start(key.clone(), Box::new(SqliteLog::in_memory().unwrap()), &Disk::default()).unwrap();
            let peer = Peer::of(peer_with(key, settings()).network.with_logs(logs.clone()));
            Member { peer, logs }.serving_anyone()
        };
        let (mut a, mut b) = (internet(), internet());
        let at = b.peer.listen(at).await;
        let (to_b, _) = connect(&mut a.peer, &mut b.peer, &at).await;
        let of_b = b.put(0..5_000).await;
        let (mut since, mut ranges) = (0, 0);
        while since < 5_000 {
            let fetch = a.fetch(b.peer.id(), to_b, of_b.log, since);
            let (head, entries, has_more) = wait(&mut [&mut a.peer, &mut b.peer], 0, "a range", fetched(fetch)).await;
            assert_eq!(a.logs.heads(), [LogHead { log: of_b.log, head }]);
            assert_eq!((since + u64::from(entries), head.position < 5_000), (head.position, has_more));
            (since, ranges) = (head.position, ranges + 1);
        }
        assert_eq!(ranges, 2);
        assert_eq!(a.logs.heads(), b.logs.heads());
    }
}

#[tokio::test]
async fn only_those_whom_the_logs_are_for_are_answered() {
    let (mut a, mut b, to_b, _) = pair().await;
    let of_b = b.put(0..3).await;
    let of_a = a.put(0..3).await;
    b.peer.run(Action::SetSync { with: Audience::Members });
    let (id, peer) = (a.peer.id(), b.peer.id());
    for action in [
        Action::SyncExchange { peer, connection: to_b },
        Action::SyncAnnounce { peer, connection: to_b, heads: vec![of_a] },
        Action::SyncFetch { peer, connection: to_b, log: of_b.log, since: 0, limit: 10 },
    ] {
        let command = a.peer.run(action);
        let error = wait(&mut [&mut a.peer, &mut b.peer], 0, "a refusal", failed(command)).await;
        assert_eq!(error, SyncError::Denied);
    }
    // What a stranger says of its logs is not heard.
    assert_eq!(b.peer.take(told(None)), None);
    b.peer.run(Action::SetMember { peer: id, member: true });
    let fetch = a.fetch(b.peer.id(), to_b, of_b.log, 0);
    let (head, ..) = wait(&mut [&mut a.peer, &mut b.peer], 0, "a range", fetched(fetch)).await;
    assert_eq!(head, of_b.head);
}

#[tokio::test]
async fn requests_end_with_their_reason() {
    let (mut a, mut b, to_b, _) = pair().await;
    let (peer, own) = (b.peer.id(), LogId { author: a.peer.id(), epoch: 0 });
    let fetch = a.fetch(peer, to_b, own, 0);
    let error = wait(&mut [&mut a.peer, &mut b.peer], 0, "a refusal", failed(fetch)).await;
    assert_eq!(error, SyncError::NotThere);

    let fetch = a.fetch(peer, ConnectionId(99), own, 0);
    assert_eq!(a.peer.wait("a refusal", failed(fetch)).await, SyncError::ConnectionLost);

    // Under way when the connection ends.
    let exchange = a.peer.run(Action::SyncExchange { peer, connection: to_b });
    a.peer.run(Action::Close { connection: to_b, peer });
    let error = wait(&mut [&mut a.peer, &mut b.peer], 0, "an end", failed(exchange)).await;
    assert_eq!(error, SyncError::ConnectionLost);
}

#[tokio::test]
async fn whoever_has_no_logs_is_found_out() {
    let mut a = member();
    let mut b = crate::harness::in_memory();
    let at = b.listen("/memory/0").await;
    let (to_b, to_a) = connect(&mut a.peer, &mut b, &at).await;
    let exchange = a.peer.run(Action::SyncExchange { peer: b.id(), connection: to_b });
    let error = wait(&mut [&mut a.peer, &mut b], 0, "a refusal", failed(exchange)).await;
    assert_eq!(error, SyncError::Unsupported);
    let exchange = b.run(Action::SyncExchange { peer: a.peer.id(), connection: to_a });
    assert_eq!(b.wait("a refusal", failed(exchange)).await, SyncError::Unsupported);
}

#[tokio::test]
async fn what_was_dropped_is_not_told_of() {
    let (mut a, mut b, to_b, _) = pair().await;
    let of_b = b.put(0..3).await;
    let fetch = a.fetch(b.peer.id(), to_b, of_b.log, 0);
    a.peer.run(Action::SyncCancel { sync: fetch, peer: b.peer.id() });
    let exchange = a.peer.run(Action::SyncExchange { peer: b.peer.id(), connection: to_b });
    wait(&mut [&mut a.peer, &mut b.peer], 0, "an answer", told(Some(exchange))).await;
    let of_fetch = |event: &Event| match event {
        Event::SyncFetched { fetch: of, .. } | Event::SyncFailed { sync: of, .. } => (*of == fetch).then_some(()),
        _ => None,
    };
    assert_eq!(a.peer.take(of_fetch), None);
}

#[tokio::test]
async fn what_is_put_is_told_to_the_core() {
    let mut a = member();
    let first = a.peer.wait("the logs", |event| match event {
        Event::SyncHeads { heads, last } => Some((heads.clone(), *last)),
        _ => None,
    });
    assert_eq!(first.await, (vec![], true));
    let of_a = a.put(0..1).await;
    let own = |event: &Event| match event {
        Event::SyncHeads { heads, last: true } => Some(heads.clone()),
        _ => None,
    };
    let heads = until(&mut [&mut a.peer], "its growth", |peers| peers[0].take(own)).await;
    assert_eq!(heads, [of_a]);
}
