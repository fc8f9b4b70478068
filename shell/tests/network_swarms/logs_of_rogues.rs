//! The messages are written here once more, so that a change of them shows.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use kinfolk_core::{Action, ConnectionId, Event, LogId, SyncError, Told};
use kinfolk_shell::sync::sqlite::SqliteLog;
use libp2p::{
    StreamProtocol,
    identity::Keypair,
    request_response::{self, Codec, Message, ProtocolSupport},
};
use serde::Serialize;
use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    harness::{Peer, connect, in_memory_with, until, wait},
    logs::{Member, failed, fetched, member_with},
};

/// Bytes, as they are: what libp2p's request-response would make of anything.
#[derive(Clone, Default)]
struct Raw;

type Talk = request_response::Behaviour<Raw>;

impl Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        self.read_request(&StreamProtocol::new("/"), io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await?;
        io.close().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        self.write_request(protocol, io, bytes).await
    }
}

fn talk(protocol: &'static str) -> Talk {
    Talk::new([(StreamProtocol::new(protocol), ProtocolSupport::Full)], request_response::Config::default())
}

#[derive(Clone, Serialize)]
enum Says {
    #[serde(rename = "exchange")]
    Exchange { digest: ByteArray<32>, after: Option<(ByteBuf, u64)> },
    #[serde(rename = "announce")]
    Announce { heads: Vec<(ByteBuf, u64, u64, ByteArray<32>)> },
    #[serde(rename = "heads")]
    Heads { heads: Vec<(ByteBuf, u64, u64, ByteArray<32>)>, has_more: bool },
    #[serde(rename = "range")]
    Range { before: ByteArray<32>, entries: Vec<(ByteBuf, Option<ByteBuf>)>, has_more: bool },
    #[serde(rename = "busy")]
    Busy,
}

fn bytes(says: &Says) -> Vec<u8> {
    cbor4ii::serde::to_vec(vec![], says).unwrap()
}

fn head_of(author: u8, position: u64) -> (ByteBuf, u64, u64, ByteArray<32>) {
    let id = [&[0x12, 0x20][..], &[author; 32]].concat();
    (ByteBuf::from(id), 0, position, ByteArray::new([7; 32]))
}

/// An honest member, and a rogue that speaks the protocol with its own hands.
async fn pair() -> (Member<Talk>, Peer<Talk>, ConnectionId) {
    let mut honest = member_with(SqliteLog::in_memory().unwrap(), talk("/none"));
    let mut rogue = in_memory_with(Keypair::generate_ed25519(), talk("/elohim/kinfolk-sync/1.0.0"));
    let at = rogue.listen("/memory/0").await;
    let (connection, _) = connect(&mut honest.peer, &mut rogue, &at).await;
    (honest, rogue, connection)
}

/// Has the rogue answer the next request with these bytes; `None`: not at all.
async fn answer(honest: &mut Member<Talk>, rogue: &mut Peer<Talk>, with: Option<Vec<u8>>) {
    let channel = until(&mut [&mut honest.peer, rogue], "a request", |peers| {
        peers[1].app_events.pop_front().and_then(|event| match event {
            request_response::Event::Message { message: Message::Request { channel, .. }, .. } => Some(channel),
            _ => None,
        })
    })
    .await;
    if let Some(with) = with {
        rogue.network.app_mut().send_response(channel, with).unwrap();
    }
}

async fn fetched_from_rogue(with: Vec<u8>) -> SyncError {
    let (mut honest, mut rogue, connection) = pair().await;
    let peer = rogue.id();
    let fetch = honest.fetch(peer, connection, LogId { author: peer, epoch: 0 }, 0);
    answer(&mut honest, &mut rogue, Some(with)).await;
    let error = wait(&mut [&mut honest.peer, &mut rogue], 0, "a refusal", failed(fetch)).await;
    assert_eq!(honest.logs.heads(), []);
    error
}

#[tokio::test]
async fn answers_that_can_not_be_read_are_malformed() {
    let range = |count: usize| {
        let entry = (ByteBuf::from(vec![0; 60_000]), Some(ByteBuf::from(vec![0; 64])));
        bytes(&Says::Range { before: ByteArray::new([0; 32]), entries: vec![entry; count], has_more: true })
    };
    let empty = bytes(&Says::Range { before: ByteArray::new([0; 32]), entries: vec![], has_more: true });
    let other_kind = bytes(&Says::Heads { heads: vec![], has_more: false });
    // Among them one that is too long, and one that promises more than there is.
    for with in [vec![], vec![0xff; 100], range(36), empty, other_kind, range(1)[..100].to_vec()] {
        assert_eq!(fetched_from_rogue(with).await, SyncError::Malformed);
    }
    assert_eq!(fetched_from_rogue(range(3)).await, SyncError::Forged);
    assert_eq!(fetched_from_rogue(bytes(&Says::Busy)).await, SyncError::Busy);
}

#[tokio::test]
async fn an_exchange_without_end_is_ended() {
    for second in [1, 2] {
        let (mut honest, mut rogue, connection) = pair().await;
        let exchange = honest.peer.run(Action::SyncExchange { peer: rogue.id(), connection });
        let page = |author, has_more| bytes(&Says::Heads { heads: vec![head_of(author, 1)], has_more });
        answer(&mut honest, &mut rogue, Some(page(2, true))).await;
        let first = wait(&mut [&mut honest.peer, &mut rogue], 0, "a page", |event| match event {
            Event::SyncTold { sync: Some(sync), told: Told::Heads(heads), last: false, .. } if *sync == exchange => {
                Some(heads.len())
            }
            _ => None,
        })
        .await;
        assert_eq!(first, 1);
        // The same again, or what should have come before.
        answer(&mut honest, &mut rogue, Some(page(second, true))).await;
        let error = wait(&mut [&mut honest.peer, &mut rogue], 0, "a refusal", failed(exchange)).await;
        assert_eq!(error, SyncError::Malformed);
    }
}

#[tokio::test]
async fn heads_beyond_all_numbers_are_malformed() {
    for says in [
        Says::Heads { heads: vec![head_of(1, u64::MAX)], has_more: false },
        Says::Heads { heads: vec![], has_more: true },
        Says::Heads { heads: vec![(ByteBuf::from(vec![1]), 0, 1, ByteArray::new([0; 32]))], has_more: false },
        Says::Heads { heads: (0..1_025).map(|_| head_of(1, 1)).collect(), has_more: false },
    ] {
        let (mut honest, mut rogue, connection) = pair().await;
        let exchange = honest.peer.run(Action::SyncExchange { peer: rogue.id(), connection });
        answer(&mut honest, &mut rogue, Some(bytes(&says))).await;
        let error = wait(&mut [&mut honest.peer, &mut rogue], 0, "a refusal", failed(exchange)).await;
        assert_eq!(error, SyncError::Malformed);
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_holds_up_nobody() {
    let (mut honest, mut rogue, connection) = pair().await;
    let mut friend = member_with(SqliteLog::in_memory().unwrap(), talk("/none"));
    let of_friend = friend.put(0..10).await;
    let at = friend.peer.listen("/memory/0").await;
    let (to_friend, _) = connect(&mut honest.peer, &mut friend.peer, &at).await;

    let peer = rogue.id();
    let silent: Vec<_> = (0..40).map(|_| honest.fetch(peer, connection, LogId { author: peer, epoch: 0 }, 0)).collect();
    answer(&mut honest, &mut rogue, None).await;
    let fetch = honest.fetch(friend.peer.id(), to_friend, of_friend.log, 0);
    let find = fetched(fetch);
    let (head, ..) = wait(&mut [&mut honest.peer, &mut friend.peer, &mut rogue], 0, "a range", find).await;
    assert_eq!(head, of_friend.head);
    // More than can be open at once are declined here; the others wait for the core's patience, or the connection's end.
    honest.peer.run(Action::Close { connection, peer });
    for fetch in silent {
        wait(&mut [&mut honest.peer, &mut rogue], 0, "an end", failed(fetch)).await;
    }
}

#[tokio::test]
async fn requests_that_can_not_be_read_are_not_answered() {
    let (mut honest, mut rogue, _) = pair().await;
    let to = kinfolk_shell::network::ids::peer_to_libp2p(&honest.peer.id());
    let many = (0..65).map(|author| head_of(author, 1)).collect();
    let requests = [
        vec![],
        vec![0xff; 10],
        vec![0; 20_000],
        bytes(&Says::Announce { heads: vec![] }),
        bytes(&Says::Announce { heads: many }),
        bytes(&Says::Announce { heads: vec![head_of(1, u64::MAX)] }),
        bytes(&Says::Exchange { digest: ByteArray::new([0; 32]), after: Some((ByteBuf::from(vec![1]), 0)) }),
    ];
    for request in &requests {
        rogue.network.app_mut().send_request(&to, request.clone());
        let count = |peer: &Peer<Talk>| peer.network.counters().iter().find(|(name, _)| *name == "sync.not_answered");
        let before = count(&honest.peer).map_or(0, |(_, count)| count);
        until(&mut [&mut honest.peer, &mut rogue], "it to be dropped", |peers| {
            (count(peers[0]).map_or(0, |(_, count)| count) > before).then_some(())
        })
        .await;
    }
    let heard = |event: &Event| matches!(event, Event::SyncTold { .. }).then_some(());
    assert_eq!(honest.peer.take(heard), None);
}

#[tokio::test]
async fn a_flood_of_requests_is_told_to_go_away() {
    let (mut honest, mut rogue, _) = pair().await;
    let to = kinfolk_shell::network::ids::peer_to_libp2p(&honest.peer.id());
    let exchange = bytes(&Says::Exchange { digest: ByteArray::new([0; 32]), after: None });
    let busy = bytes(&Says::Busy);
    let mut heard = 0_u32;
    // One after the other, so that none is dropped for coming at once with others.
    for sent in 1.. {
        rogue.network.app_mut().send_request(&to, exchange.clone());
        let answer = until(&mut [&mut honest.peer, &mut rogue], "an answer", |peers| {
            peers[1].app_events.pop_front().and_then(|event| match event {
                request_response::Event::Message { message: Message::Response { response, .. }, .. } => Some(response),
                _ => None,
            })
        })
        .await;
        let told = |event: &Event| matches!(event, Event::SyncTold { sync: None, .. }).then_some(());
        while honest.peer.take(told).is_some() {
            heard += 1;
        }
        if answer == busy {
            break;
        }
        assert!(sent < 10_000, "it is answered for ever");
    }
    assert!(heard >= 500, "{heard}");
    assert_eq!(honest.logs.heads(), []);
}
