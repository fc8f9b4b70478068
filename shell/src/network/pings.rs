//! Pings (`/ipfs/ping/1.0.0`) of all connections, by one timer.
//!
//! libp2p's own has a timer for each connection and one more for each ping. On a machine that sleeps most of the time each
//! of these wakes it for itself: with 20 connections they were most of what woke a node at rest. Here a connection takes the
//! turn of another that is near: all come to share a few, and the machine wakes for all of a turn at once.
//!
//! QUIC notices by itself that nobody is there, so its pings only keep the way open and tell how far away the peer is. For
//! the way those of one side do: whoever was dialled pings more seldom.
//!
//! An answer goes out at once. libp2p's handler (libp2p-ping 0.48) does not ask for the next ping until something else polls
//! it: over QUIC, where each stream has its own wake-up, its answers wait for its next timer, up to 15 s.
//!
//! Under stress: a ping costs its sender as much as us; of a flood, so many are answered in a row and then others have
//! their turn; of many streams, the newest is answered.

mod turns;

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt, io,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use futures_timer::Delay;
use kinfolk_core::Transport;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    ping::{Event, Failure, PROTOCOL_NAME},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::{NetworkSettings, ids::endpoint};
use turns::{Pace, Turns};

const PAYLOAD: usize = 32;

/// So many pings of one peer are answered before others get a turn.
const FAIR: usize = 8;

/// See the module.
pub(super) struct Pings {
    any: Pace,
    quic_dialled: Pace,
    quic_heard: Pace,
    turns: Turns<ConnectionId, PeerId>,
    timer: Option<(Instant, Delay)>,
    out: VecDeque<ToSwarm<Event, Ping>>,
}

/// It is time for a ping. One that is not answered yet is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ping;

impl Pings {
    pub(super) fn new(settings: &NetworkSettings) -> Self {
        let pace = |later| Pace { second: settings.ping_interval.min(later), later };
        Self {
            any: pace(settings.ping_interval),
            quic_dialled: pace(settings.quic_ping_interval),
            quic_heard: pace(settings.quic_ping_heard),
            turns: Turns::new(settings.ping_timeout),
            timer: None,
            out: VecDeque::new(),
        }
    }

    fn pace(&self, at: &ConnectedPoint) -> Pace {
        match endpoint(at.get_remote_address()) {
            Some((.., Transport::Quic)) => match at {
                ConnectedPoint::Dialer { role_override: Endpoint::Dialer, .. } => self.quic_dialled,
                // A punched connection is the other side's, too.
                ConnectedPoint::Dialer { role_override: Endpoint::Listener, .. } | ConnectedPoint::Listener { .. } => {
                    self.quic_heard
                }
            },
            Some((.., Transport::Tcp)) | None => self.any,
        }
    }

    fn tell(&mut self, peer: PeerId, connection: ConnectionId, result: Result<Duration, Failure>) {
        self.out.push_back(ToSwarm::GenerateEvent(Event { peer, connection, result }));
    }
}

impl NetworkBehaviour for Pings {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

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
        // Others don't concern pings, also those that are yet to be invented.
        if let FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, peer_id, endpoint, .. }) = event
        {
            let pace = self.pace(endpoint);
            self.turns.add(Instant::now(), connection_id, peer_id, pace);
        } else if let FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) = event {
            self.turns.remove(&connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, result: THandlerOutEvent<Self>) {
        if self.turns.ended(&connection, result.is_ok()) {
            self.tell(peer, connection, result);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(out) = self.out.pop_front() {
                return Poll::Ready(out);
            }
            let Some(next) = self.turns.next() else { return Poll::Pending };
            // One that goes off too early costs one look at the clock.
            let (_, timer) = match &mut self.timer {
                Some(timer) if timer.0 <= next => timer,
                timer => timer.insert((next, Delay::new(next.saturating_duration_since(Instant::now())))),
            };
            if timer.poll_unpin(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
            for turn in self.turns.take(Instant::now()) {
                if turn.failed {
                    self.tell(turn.peer, turn.id, Err(Failure::Timeout));
                }
                let handler = NotifyHandler::One(turn.id);
                self.out.push_back(ToSwarm::NotifyHandler { peer_id: turn.peer, handler, event: Ping });
            }
        }
    }
}

/// One connection's.
pub(crate) struct Handler {
    /// The first ping needs no turn.
    due: bool,
    asking: Asking,
    answering: Option<BoxFuture<'static, io::Result<Stream>>>,
    ended: VecDeque<Result<Duration, Failure>>,
}

enum Asking {
    /// There is no stream.
    Not,
    /// It is being opened.
    Opening,
    /// It waits for the next ping.
    Idle(Stream),
    /// A ping is under way.
    Ping(BoxFuture<'static, io::Result<(Stream, Duration)>>),
}

impl Default for Handler {
    fn default() -> Self {
        Self { due: true, asking: Asking::Not, answering: None, ended: VecDeque::new() }
    }
}

impl Handler {
    fn answer(&mut self, cx: &mut Context<'_>) {
        for _ in 0..FAIR {
            let Some(answering) = &mut self.answering else { return };
            match answering.poll_unpin(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(stream)) => self.answering = Some(answer(stream).boxed()),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a peer's pings end");
                    self.answering = None;
                }
            }
        }
        cx.waker().wake_by_ref();
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Ping;
    type ToBehaviour = Result<Duration, Failure>;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL_NAME), ())
    }

    fn on_behaviour_event(&mut self, Ping: Ping) {
        self.due = true;
        if let Asking::Ping(_) = self.asking {
            self.asking = Asking::Not;
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        self.answer(cx);
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(ended));
            }
            match std::mem::replace(&mut self.asking, Asking::Not) {
                Asking::Not if self.due => {
                    self.asking = Asking::Opening;
                    let protocol = self.listen_protocol();
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                Asking::Idle(stream) if self.due => {
                    self.due = false;
                    self.asking = Asking::Ping(ask(stream).boxed());
                }
                Asking::Ping(mut ping) => match ping.poll_unpin(cx) {
                    Poll::Pending => {
                        self.asking = Asking::Ping(ping);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((stream, rtt))) => {
                        self.asking = Asking::Idle(stream);
                        self.ended.push_back(Ok(rtt));
                    }
                    Poll::Ready(Err(error)) => self.ended.push_back(Err(Failure::Other { error: Box::new(error) })),
                },
                asking @ (Asking::Not | Asking::Opening | Asking::Idle(_)) => {
                    self.asking = asking;
                    return Poll::Pending;
                }
            }
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        // Others don't concern pings, also those that are yet to be invented.
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: mut stream, .. }) = event {
            stream.ignore_for_keep_alive();
            self.answering = Some(answer(stream).boxed());
        } else if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
            protocol: mut stream, ..
        }) = event
        {
            stream.ignore_for_keep_alive();
            self.asking = Asking::Idle(stream);
        } else if let ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) = event {
            self.due = false;
            self.asking = Asking::Not;
            self.ended.push_back(Err(failure(error)));
        }
    }
}

fn failure(error: StreamUpgradeError<Infallible>) -> Failure {
    match error {
        StreamUpgradeError::NegotiationFailed => Failure::Unsupported,
        StreamUpgradeError::Timeout => Failure::Timeout,
        StreamUpgradeError::Apply(never) => match never {},
        StreamUpgradeError::Io(error) => Failure::Other { error: Box::new(error) },
    }
}

async fn ask(mut stream: Stream) -> io::Result<(Stream, Duration)> {
    let (mut sent, mut back) = ([0; PAYLOAD], [0; PAYLOAD]);
    aws_lc_rs::rand::fill(&mut sent).map_err(|_| io::Error::other("no random numbers"))?;
    stream.write_all(&sent).await?;
    stream.flush().await?;
    let began = Instant::now();
    stream.read_exact(&mut back).await?;
    if sent == back {
        Ok((stream, began.elapsed()))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "another answer than what was asked"))
    }
}

async fn answer(mut stream: Stream) -> io::Result<Stream> {
    let mut payload = [0; PAYLOAD];
    stream.read_exact(&mut payload).await?;
    stream.write_all(&payload).await?;
    stream.flush().await?;
    Ok(stream)
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("due", &self.due).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use kinfolk_core::Config;
    use libp2p::core::ConnectedPoint::{Dialer, Listener};

    use super::*;

    #[test]
    fn by_quic_the_side_that_has_dialled_pings() {
        let settings = NetworkSettings::new(Config::family_node().validate().unwrap(), "kinfolk/test");
        let pings = Pings::new(&settings);
        let seconds = |at: ConnectedPoint| {
            let Pace { second, later } = pings.pace(&at);
            (second.as_secs(), later.as_secs())
        };
        let dialled = |address: &str, role_override| Dialer {
            address: address.parse().unwrap(),
            role_override,
            port_use: PortUse::Reuse,
        };
        let heard =
            |address: &str| Listener { local_addr: address.parse().unwrap(), send_back_addr: address.parse().unwrap() };
        let (tcp, quic) = ("/ip4/45.10.20.1/tcp/4001", "/ip4/45.10.20.1/udp/4001/quic-v1");
        assert_eq!(seconds(dialled(quic, Endpoint::Dialer)), (15, 25));
        assert_eq!(
            seconds(dialled(quic, Endpoint::Listener)),
            (15, 60),
            "punched: the other side is the one that dials"
        );
        assert_eq!(seconds(heard(quic)), (15, 60));
        assert_eq!(seconds(dialled(tcp, Endpoint::Dialer)), (15, 15));
        assert_eq!(seconds(heard(tcp)), (15, 15));
        let circuit = format!("{quic}/p2p/{}/p2p-circuit", PeerId::random());
        assert_eq!(
            seconds(dialled(&circuit, Endpoint::Dialer)),
            (15, 15),
            "its relay may be reached by TCP on the other side"
        );
        assert!(settings.quic_ping_heard + settings.quic_idle <= Duration::from_secs(120), "the core's patience");
        assert!(settings.quic_ping_interval < settings.quic_keep_alive);
    }
}
