//! Circuits through relays that are connected: what the peer gets first follows our request at once, and does not wait
//! for the relay's yes. That saves the way from the relay to the peer and back; relays pass on what came early.
//!
//! The library's client waits. It has those circuits whose relay it must dial before.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use asynchronous_codec::{Framed, FramedParts};
use futures::{AsyncRead, AsyncWrite, FutureExt, SinkExt, StreamExt, channel::oneshot};
use futures_timer::Delay;
use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{DeniedUpgrade, ReadyUpgrade},
    },
    relay::{HOP_PROTOCOL_NAME, client::transport::Error, outbound::hop},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedOutbound},
    },
};
use prost::Message;
use prost_codec::Codec;

use super::{
    circuits::{Limit, Metered},
    client::limit_of,
    transport::CircuitError,
};
use crate::network::ids::is_relayed;

/// The library's own bound.
const MAX_MESSAGE: usize = 4096;
/// A relay that gives no stream by then is stuck.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

type Reply = oneshot::Sender<Result<Stream, hop::ConnectError>>;

/// Streams to relays, from the behaviour, which knows their connections, to the transport. A clone is the same.
#[derive(Clone, Default, Debug)]
pub(super) struct Relays(Arc<Mutex<Inner>>);

#[derive(Default, Debug)]
struct Inner {
    /// To everyone who might be one: direct connections only.
    connections: HashMap<PeerId, BTreeSet<ConnectionId>>,
    wanted: VecDeque<(PeerId, ConnectionId, Reply)>,
    waker: Option<Waker>,
}

impl Relays {
    /// A stream for a request, over the oldest connection to the relay: the one that is proven. `None` without one.
    pub(super) fn stream(&self, relay: PeerId) -> Option<oneshot::Receiver<Result<Stream, hop::ConnectError>>> {
        let mut inner = self.lock();
        let connection = *inner.connections.get(&relay)?.first()?;
        let (reply, stream) = oneshot::channel();
        inner.wanted.push_back((relay, connection, reply));
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
        Some(stream)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the streams. See the module.
pub(crate) struct Early(pub(super) Relays);

impl NetworkBehaviour for Early {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            if !is_relayed(established.endpoint.get_remote_address()) {
                let mut inner = self.0.lock();
                inner.connections.entry(established.peer_id).or_default().insert(established.connection_id);
            }
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            let mut inner = self.0.lock();
            if let Some(connections) = inner.connections.get_mut(&closed.peer_id) {
                connections.remove(&closed.connection_id);
                if connections.is_empty() {
                    inner.connections.remove(&closed.peer_id);
                }
            }
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        let mut inner = self.0.lock();
        if let Some((peer_id, connection, event)) = inner.wanted.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event });
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Opens the streams of one connection. When it ends, who waits for one is told so by the end of the channel.
#[derive(Default)]
pub(crate) struct Handler {
    wanted: VecDeque<Reply>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Reply;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn on_behaviour_event(&mut self, reply: Reply) {
        self.wanted.push_back(reply);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, DeniedUpgrade, Self::OutboundProtocol, (), Reply>) {
        let (reply, stream) =
            if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) = event {
                (info, Ok(protocol))
            } else if let ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) = event {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => hop::ConnectError::Unsupported,
                    StreamUpgradeError::Timeout => hop::ConnectError::Io(io::ErrorKind::TimedOut.into()),
                    StreamUpgradeError::Io(error) => hop::ConnectError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                (info, Err(error))
            } else {
                return;
            };
        // Nobody waits any more when the dial is over.
        let _ = reply.send(stream);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Reply, Infallible>> {
        let Some(reply) = self.wanted.pop_front() else { return Poll::Pending };
        let protocol =
            SubstreamProtocol::new(ReadyUpgrade::new(HOP_PROTOCOL_NAME), reply).with_timeout(STREAM_PATIENCE);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }
}

/// A message of `/libp2p/circuit/relay/0.2.0/hop`, as far as it is about circuits.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Hop {
    /// 1: CONNECT; 2: STATUS.
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    peer: Option<Target>,
    #[prost(message, optional, tag = "4")]
    limit: Option<Allowed>,
    #[prost(int32, optional, tag = "5")]
    status: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Target {
    #[prost(bytes = "vec", optional, tag = "1")]
    id: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Allowed {
    /// Seconds.
    #[prost(uint32, optional, tag = "1")]
    duration: Option<u32>,
    /// Bytes.
    #[prost(uint64, optional, tag = "2")]
    data: Option<u64>,
}

const CONNECT: i32 = 1;
const STATUS: i32 = 2;

/// A circuit that was asked for. What is written goes out; what is read comes after the relay's answer.
#[derive(Debug)]
pub(super) struct Asked {
    state: State,
    metered: Metered,
    /// The end of the relay's time to answer.
    deadline: Delay,
}

#[derive(Debug)]
enum State {
    Waiting(Box<Framed<Stream, Codec<Hop>>>),
    Open {
        stream: Stream,
        /// What came together with the answer.
        rest: Vec<u8>,
    },
    Refused,
}

impl Asked {
    /// Sends the request for a circuit to `peer`.
    ///
    /// # Errors
    /// When the stream to the relay breaks.
    pub(super) async fn send(
        stream: Stream,
        peer: PeerId,
        metered: Metered,
        patience: Duration,
    ) -> Result<Self, hop::ConnectError> {
        let mut stream = Framed::new(stream, Codec::<Hop>::new(MAX_MESSAGE));
        let peer = Some(Target { id: Some(peer.to_bytes()) });
        stream.send(Hop { kind: Some(CONNECT), peer, limit: None, status: None }).await.map_err(of_codec)?;
        Ok(Self { state: State::Waiting(Box::new(stream)), metered, deadline: Delay::new(patience) })
    }

    /// Waits for the answer.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Waiting(waiting) = &mut self.state else { return Poll::Ready(Ok(())) };
        let answer = match waiting.poll_next_unpin(cx) {
            Poll::Pending if self.deadline.poll_unpin(cx).is_pending() => return Poll::Pending,
            Poll::Pending => Err(hop::ConnectError::Io(io::ErrorKind::TimedOut.into())),
            Poll::Ready(None) => Err(hop::ConnectError::Io(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Some(Err(error))) => Err(of_codec(error)),
            Poll::Ready(Some(Ok(answer))) => judge(&answer),
        };
        let state = std::mem::replace(&mut self.state, State::Refused);
        Poll::Ready(match (answer, state) {
            (Ok(limit), State::Waiting(waiting)) => {
                let FramedParts { io: stream, read_buffer, .. } = waiting.into_parts();
                self.state = State::Open { stream, rest: read_buffer.to_vec() };
                self.metered.open(limit);
                Ok(())
            }
            (Err(error), _) => Err(refused(error)),
            (Ok(_), State::Open { .. } | State::Refused) => Err(io::ErrorKind::BrokenPipe.into()),
        })
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        match &mut self.state {
            State::Waiting(waiting) => Ok(Pin::new(&mut ***waiting)),
            State::Open { stream, .. } => Ok(Pin::new(stream)),
            State::Refused => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// What the relay allows the circuit, when it says yes.
fn judge(answer: &Hop) -> Result<Limit, hop::ConnectError> {
    use hop::{ConnectError, ProtocolViolation};
    if answer.kind != Some(STATUS) {
        let kind = answer.kind.map_or_else(|| "none".to_owned(), |kind| kind.to_string());
        return Err(ProtocolViolation::UnexpectedType(kind).into());
    }
    match answer.status {
        Some(100) => {
            let limit = answer.limit.as_ref();
            let duration = limit.and_then(|limit| limit.duration).map(|seconds| Duration::from_secs(seconds.into()));
            Ok(limit_of(duration, limit.and_then(|limit| limit.data)))
        }
        Some(201) => Err(ConnectError::ResourceLimitExceeded),
        Some(202) => Err(ConnectError::PermissionDenied),
        Some(203) => Err(ConnectError::ConnectionFailed),
        Some(204) => Err(ConnectError::NoReservation),
        Some(other) => Err(ProtocolViolation::UnexpectedStatus(other.to_string()).into()),
        None => Err(ProtocolViolation::MissingStatusField.into()),
    }
}

fn of_codec(error: prost_codec::Error) -> hop::ConnectError {
    hop::ConnectError::Protocol(hop::ProtocolViolation::Codec(error))
}

/// The encryption that reads shows only what lies below its own error.
fn refused(error: hop::ConnectError) -> io::Error {
    io::Error::other(CircuitError::Client(Error::Connect(error)))
}

impl AsyncRead for Asked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        futures::ready!(self.poll_answer(cx))?;
        if let State::Open { rest, .. } = &mut self.state
            && !rest.is_empty()
        {
            let some = rest.len().min(buf.len());
            buf[..some].copy_from_slice(&rest[..some]);
            rest.drain(..some);
            return Poll::Ready(Ok(some));
        }
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Asked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_close(cx)
    }
}
