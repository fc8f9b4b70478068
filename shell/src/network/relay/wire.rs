//! `/libp2p/circuit/relay/0.2.0` as a relay's client speaks it: asking for a place, asking for a circuit, and being
//! told of one.

use std::{
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use asynchronous_codec::{Framed, FramedParts};
use futures::{AsyncRead, AsyncWrite, FutureExt, SinkExt, StreamExt};
use futures_timer::Delay;
use kinfolk_core::CircuitLimit;
use libp2p::{Multiaddr, PeerId, swarm::Stream};
use prost::Message;
use prost_codec::Codec;

use super::circuits::{Limit, Metered};
use crate::network::errors;

/// As other implementations have it.
const MAX_MESSAGE: usize = 4096;

/// Why a talk with a relay came to nothing. The words are for who wanted a circuit.
#[derive(Debug, thiserror::Error)]
pub(in crate::network) enum Failure {
    /// The address names no relay, or no peer, or more than one of them.
    #[error("this is no address of one peer at one relay")]
    NoCircuit,
    /// There is no connection to the relay, or no longer.
    #[error("the relay can't be reached")]
    Unreachable,
    /// It does not speak the protocol.
    #[error("it is no relay, or does not relay for this node")]
    NotSpoken,
    /// It was silent.
    #[error("the relay has not answered in time")]
    TimedOut,
    /// What it says is not what was asked for.
    #[error("the relay's answer makes no sense")]
    Nonsense,
    /// The stream has ended or broken. How, in at most 200 characters.
    #[error("the relay broke off: {0}")]
    Broken(String),
    /// It keeps no place for us.
    #[error("the relay keeps no place for this node")]
    Refused,
    /// It has no place, or no room for the circuit.
    #[error("the relay has no room for another circuit")]
    Full,
    /// It does not want to.
    #[error("the relay refuses to relay to the peer")]
    Denied,
    /// The peer does not take the circuit.
    #[error("the relay can't get through to the peer")]
    NoAnswer,
    /// The peer is not there for others.
    #[error("the peer has no place at the relay")]
    NoPlace,
}

/// A failure on its way through the transports' upgrades. A type of its own, because the `Either`s that libp2p puts
/// around errors show only what lies below the error in them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CircuitError(#[source] pub(in crate::network) Failure);

/// A place that a relay keeps.
#[derive(Debug)]
pub(crate) struct Kept {
    /// How much longer, by the relay's clock and ours; `None` if one of them is so wrong that it would be over.
    pub(super) lasts: Option<Duration>,
    /// What it allows each circuit.
    pub(super) limit: Limit,
    /// Where it says that it is.
    pub(super) addresses: Vec<Multiaddr>,
}

/// Asks for a place.
///
/// # Errors
/// When the relay keeps none, or does not say so.
pub(super) async fn reserve(stream: Stream) -> Result<Kept, Failure> {
    let mut stream = Framed::new(stream, Codec::<Hop>::new(MAX_MESSAGE));
    stream.send(Hop { kind: Some(Hop::RESERVE), ..Hop::default() }).await.map_err(of_codec)?;
    stream.close().await.map_err(of_codec)?;
    let answer = stream.next().await.ok_or_else(broken_off)?.map_err(of_codec)?;
    let Hop { kind: Some(Hop::STATUS), reservation, limit, status, .. } = answer else { return Err(Failure::Nonsense) };
    match (status, reservation) {
        (Some(OK), Some(place)) => {
            let addresses: Vec<_> = place.addresses.into_iter().filter_map(|one| one.try_into().ok()).collect();
            if addresses.is_empty() {
                return Err(Failure::Nonsense);
            }
            let lasts = place.expire.unwrap_or(0).checked_sub(unix_time()).filter(|left| *left > 0);
            Ok(Kept { lasts: lasts.map(Duration::from_secs), limit: limit.and_then(Allowed::limit), addresses })
        }
        (Some(REFUSED), _) => Err(Failure::Refused),
        (Some(FULL), _) => Err(Failure::Full),
        (Some(DENIED), _) => Err(Failure::Denied),
        (Some(_) | None, _) => Err(Failure::Nonsense),
    }
}

/// Somebody calls, by a relay.
pub(super) struct Call {
    stream: Framed<Stream, Codec<Stop>>,
    /// Who, by the relay's word.
    pub(super) from: PeerId,
    /// What the relay allows.
    pub(super) limit: Limit,
}

impl Call {
    /// Reads what the relay says of it.
    ///
    /// # Errors
    /// When that is no call.
    pub(super) async fn read(stream: Stream) -> Result<Self, Failure> {
        let mut stream = Framed::new(stream, Codec::<Stop>::new(MAX_MESSAGE));
        let call = stream.next().await.ok_or_else(broken_off)?.map_err(of_codec)?;
        let Stop { kind: Some(Stop::CONNECT), peer: Some(peer), limit, .. } = call else {
            return Err(Failure::Nonsense);
        };
        let from = PeerId::from_bytes(&peer.id.unwrap_or_default()).map_err(|_| Failure::Nonsense)?;
        Ok(Self { stream, from, limit: limit.and_then(Allowed::limit) })
    }

    /// Takes it.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(super) async fn accept(mut self, metered: Metered) -> Result<CircuitStream, CircuitError> {
        self.answer(OK).await.map_err(CircuitError)?;
        let FramedParts { io: stream, read_buffer, .. } = self.stream.into_parts();
        metered.allow(self.limit);
        Ok(CircuitStream { state: State::Open { stream, rest: read_buffer.to_vec() }, metered })
    }

    /// Does not take it: nobody is to reach us through this relay, or too many want to.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(super) async fn decline(mut self, full: bool) -> Result<(), Failure> {
        self.answer(if full { FULL } else { NO_PLACE }).await
    }

    async fn answer(&mut self, status: i32) -> Result<(), Failure> {
        let answer = Stop { kind: Some(Stop::STATUS), status: Some(status), ..Stop::default() };
        self.stream.send(answer).await.map_err(of_codec)
    }
}

/// A circuit that counts its bytes, as the relay does: all of them, both ways.
///
/// One of our own begins before the relay has said yes: what is written goes out at once, what is read comes after the
/// answer. That saves the way from the relay to the peer and back; relays pass on what came early.
pub(crate) struct CircuitStream {
    state: State,
    metered: Metered,
}

enum State {
    Waiting {
        stream: Box<Framed<Stream, Codec<Hop>>>,
        /// The end of the relay's time to answer.
        deadline: Delay,
    },
    Open {
        stream: Stream,
        /// What came together with the answer.
        rest: Vec<u8>,
    },
    Refused,
}

impl CircuitStream {
    /// Sends the request for a circuit to `peer`.
    ///
    /// # Errors
    /// When the stream to the relay breaks.
    pub(super) async fn ask(
        stream: Stream,
        peer: PeerId,
        metered: Metered,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let mut stream = Box::new(Framed::new(stream, Codec::<Hop>::new(MAX_MESSAGE)));
        let peer = Some(Peer { id: Some(peer.to_bytes()) });
        stream.send(Hop { kind: Some(Hop::CONNECT), peer, ..Hop::default() }).await.map_err(of_codec)?;
        Ok(Self { state: State::Waiting { stream, deadline: Delay::new(patience) }, metered })
    }

    /// Waits for the answer.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Waiting { stream, deadline } = &mut self.state else { return Poll::Ready(Ok(())) };
        let answer = match stream.poll_next_unpin(cx) {
            Poll::Pending if deadline.poll_unpin(cx).is_pending() => return Poll::Pending,
            Poll::Pending => Err(Failure::TimedOut),
            Poll::Ready(None) => Err(broken_off()),
            Poll::Ready(Some(Err(error))) => Err(of_codec(error)),
            Poll::Ready(Some(Ok(answer))) => opened(&answer),
        };
        let state = std::mem::replace(&mut self.state, State::Refused);
        Poll::Ready(match (answer, state) {
            (Ok(limit), State::Waiting { stream, .. }) => {
                let FramedParts { io: stream, read_buffer, .. } = stream.into_parts();
                self.state = State::Open { stream, rest: read_buffer.to_vec() };
                self.metered.allow(limit);
                Ok(())
            }
            // The encryption that reads shows only what lies below its own error.
            (Err(failure), _) => Err(io::Error::other(CircuitError(failure))),
            (Ok(_), State::Open { .. } | State::Refused) => Err(io::ErrorKind::BrokenPipe.into()),
        })
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        match &mut self.state {
            State::Waiting { stream, .. } => Ok(Pin::new(&mut ***stream)),
            State::Open { stream, .. } => Ok(Pin::new(stream)),
            State::Refused => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// What came together with the answer is read first.
    fn poll_open(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Option<usize>>> {
        ready!(self.poll_answer(cx))?;
        let State::Open { rest, .. } = &mut self.state else { return Poll::Ready(Ok(None)) };
        let some = rest.len().min(buf.len());
        if some == 0 {
            return Poll::Ready(Ok(None));
        }
        buf[..some].copy_from_slice(&rest[..some]);
        rest.drain(..some);
        Poll::Ready(Ok(Some(some)))
    }
}

impl AsyncRead for CircuitStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = match ready!(self.poll_open(cx, buf))? {
            Some(bytes) => Poll::Ready(Ok(bytes)),
            None => self.stream()?.poll_read(cx, buf),
        };
        self.metered.count(read)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.first_mut().map_or(&mut [][..], |buf| &mut **buf);
        let read = match ready!(self.poll_open(cx, first))? {
            Some(bytes) => Poll::Ready(Ok(bytes)),
            None => self.stream()?.poll_read_vectored(cx, bufs),
        };
        self.metered.count(read)
    }
}

impl AsyncWrite for CircuitStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write(cx, buf);
        self.metered.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write_vectored(cx, bufs);
        self.metered.count(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_close(cx)
    }
}

/// What the relay allows the circuit, when it says yes.
fn opened(answer: &Hop) -> Result<Limit, Failure> {
    if answer.kind != Some(Hop::STATUS) {
        return Err(Failure::Nonsense);
    }
    match answer.status {
        Some(OK) => Ok(answer.limit.and_then(Allowed::limit)),
        Some(FULL) => Err(Failure::Full),
        Some(DENIED) => Err(Failure::Denied),
        Some(NO_ANSWER) => Err(Failure::NoAnswer),
        Some(NO_PLACE) => Err(Failure::NoPlace),
        Some(_) | None => Err(Failure::Nonsense),
    }
}

fn of_codec(error: prost_codec::Error) -> Failure {
    errors::of_talk(&error)
}

fn broken_off() -> Failure {
    errors::of_talk(&io::Error::from(io::ErrorKind::UnexpectedEof))
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const OK: i32 = 100;
const REFUSED: i32 = 200;
const FULL: i32 = 201;
const DENIED: i32 = 202;
const NO_ANSWER: i32 = 203;
const NO_PLACE: i32 = 204;

/// To and from a relay whom we ask.
#[derive(Clone, PartialEq, Message)]
struct Hop {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    peer: Option<Peer>,
    #[prost(message, optional, tag = "3")]
    reservation: Option<Place>,
    #[prost(message, optional, tag = "4")]
    limit: Option<Allowed>,
    #[prost(int32, optional, tag = "5")]
    status: Option<i32>,
}

impl Hop {
    const RESERVE: i32 = 0;
    const CONNECT: i32 = 1;
    const STATUS: i32 = 2;
}

/// From and to a relay that asks us.
#[derive(Clone, PartialEq, Message)]
struct Stop {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    peer: Option<Peer>,
    #[prost(message, optional, tag = "3")]
    limit: Option<Allowed>,
    #[prost(int32, optional, tag = "4")]
    status: Option<i32>,
}

impl Stop {
    const CONNECT: i32 = 0;
    const STATUS: i32 = 1;
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(bytes = "vec", optional, tag = "1")]
    id: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Place {
    /// Seconds since 1970, by the relay's clock.
    #[prost(uint64, optional, tag = "1")]
    expire: Option<u64>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Allowed {
    /// Seconds.
    #[prost(uint32, optional, tag = "1")]
    duration: Option<u32>,
    /// Bytes.
    #[prost(uint64, optional, tag = "2")]
    data: Option<u64>,
}

impl Allowed {
    /// The protocol says "no limit" by nothing or by zero.
    fn limit(self) -> Limit {
        let duration = self.duration.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()));
        let bytes = self.data.filter(|bytes| *bytes > 0);
        (duration.is_some() || bytes.is_some()).then_some(CircuitLimit { duration, bytes })
    }
}
