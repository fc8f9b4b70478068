//! Peers that are not ours: stock behaviours, and one that says whatever it is told to.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use kinfolk_core::{Address, PeerId};
use kinfolk_shell::network::ids;
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder,
    identity::Keypair,
    noise,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use tokio::task::JoinHandle;

use crate::harness::Peer;

/// A stock swarm over TCP and QUIC.
pub(crate) fn foreign<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_quic()
        .with_behaviour(|key| behaviour(key))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build()
}

/// Listens, and says where.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &str) -> Address {
    swarm.listen_on(address.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return ids::address_to_core(&address);
        }
    }
}

/// A foreign peer that runs by itself until this is dropped.
pub(crate) struct Foreign {
    pub(crate) id: PeerId,
    pub(crate) at: Address,
    task: JoinHandle<()>,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets a swarm listen on loopback, and run by itself; `each` sees its events.
pub(crate) async fn running<B>(
    mut swarm: Swarm<B>,
    mut each: impl FnMut(&mut Swarm<B>, SwarmEvent<B::ToSwarm>) + Send + 'static,
) -> Foreign
where
    B: NetworkBehaviour<ToSwarm: Send> + Send,
{
    let at = listen(&mut swarm, "/ip4/127.0.0.1/tcp/0").await;
    let id = ids::peer_to_core(*swarm.local_peer_id());
    let task = tokio::spawn(async move {
        loop {
            let event = swarm.select_next_some().await;
            each(&mut swarm, event);
        }
    });
    Foreign { id, at, task }
}

/// Says what it is told to, over streams of one protocol, whatever the other side says.
pub(crate) type Actor = request_response::Behaviour<Lines>;

/// Bytes, as they are.
#[derive(Clone)]
pub(crate) struct Lines;

pub(crate) fn actor(protocol: &'static str) -> Actor {
    let config = request_response::Config::default()
        .with_request_timeout(Duration::from_secs(600))
        .with_max_concurrent_streams(1_000);
    Actor::with_codec(Lines, [(StreamProtocol::new(protocol), ProtocolSupport::Full)], config)
}

/// An actor that answers everything with `line`; `None`: it never answers.
pub(crate) async fn actor_with(protocol: &'static str, line: Option<Vec<u8>>) -> Foreign {
    let mut unanswered = vec![];
    running(foreign(|_| actor(protocol)), move |swarm, event| {
        if let SwarmEvent::Behaviour(request_response::Event::Message {
            message: request_response::Message::Request { channel, .. },
            ..
        }) = event
        {
            match &line {
                Some(line) => drop(swarm.behaviour_mut().send_response(channel, line.clone())),
                None => unanswered.push(channel),
            }
        }
    })
    .await
}

impl request_response::Codec for Lines {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        some(io).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        some(io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        line: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&line).await?;
        io.flush().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        line: Vec<u8>,
    ) -> io::Result<()> {
        self.write_request(protocol, io, line).await
    }
}

async fn some<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut line = vec![0; 4096];
    let length = io.read(&mut line).await?;
    line.truncate(length);
    if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
}

/// Runs a peer of ours and a foreign one until one of the foreign one's events is what is looked for.
pub(crate) async fn meanwhile<B: NetworkBehaviour, T>(
    ours: &mut Peer,
    foreign: &mut Swarm<B>,
    what: &str,
    mut find: impl FnMut(&SwarmEvent<B::ToSwarm>) -> Option<T>,
) -> T {
    loop {
        tokio::select! {
            event = foreign.select_next_some() => if let Some(found) = find(&event) { return found },
            () = ours.wait(what, |_| None) => {}
        }
    }
}
