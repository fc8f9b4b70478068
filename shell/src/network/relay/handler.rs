//! The talks with one peer that relays, or may do so, on one direct connection.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures_bounded::{Delay, FuturesSet, FuturesTupleSet};
use kinfolk_core::CommandId;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    relay::{HOP_PROTOCOL_NAME, STOP_PROTOCOL_NAME},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::{
    client::{Arrival, Desk, Reply},
    wire::{self, Call, Failure, Kept},
};

/// A relay that gives no stream by then is stuck.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);
/// One that has not answered by then will not: the core's own patience, and then the next request may go out.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// A relay has this long to say who calls, and to take our answer.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// Calls that may be heard out at once. What comes on top is dropped.
const MAX_CALLS: usize = 8;

/// What the behaviour wants.
#[derive(Debug)]
pub(crate) enum Want {
    /// To ask for a place, or to renew it.
    Place(CommandId),
    /// A stream on which to ask for a circuit.
    Stream(Reply),
}

/// A relay's answer to who asked for a place.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(super) command: CommandId,
    pub(super) answer: Result<Kept, Failure>,
}

/// See the module. When the connection ends, who waits for a stream is told so by the end of the channel.
pub(crate) struct Handler {
    relay: PeerId,
    /// Where the relay is.
    remote: Multiaddr,
    desk: Desk,
    /// Who wants a stream.
    wanted: VecDeque<Reply>,
    /// Who asks for a place next; who was asked before that is not asked any more.
    next: Option<CommandId>,
    /// A place is asked for. One at a time: relays answer the one of two requests that they read last.
    busy: bool,
    asking: FuturesTupleSet<Result<Kept, Failure>, CommandId>,
    calls: FuturesSet<Result<(), Failure>>,
    out: VecDeque<Answered>,
}

impl Handler {
    pub(super) fn new(relay: PeerId, remote: Multiaddr, desk: Desk) -> Self {
        Self {
            relay,
            remote,
            desk,
            wanted: VecDeque::new(),
            next: None,
            busy: false,
            asking: FuturesTupleSet::new(|| Delay::futures_timer(ANSWER_PATIENCE), 1),
            calls: FuturesSet::new(|| Delay::futures_timer(CALL_PATIENCE), MAX_CALLS),
            out: VecDeque::new(),
        }
    }

    fn answered(&mut self, command: CommandId, answer: Result<Kept, Failure>) {
        self.busy = false;
        if answer.is_ok() {
            // Before the behaviour hears of it: the first call may come right behind the answer.
            self.desk.keep(self.relay, true);
        }
        self.out.push_back(Answered { command, answer });
    }

    fn failed(&mut self, want: Want, failure: Failure) {
        match want {
            Want::Place(command) => self.answered(command, Err(failure)),
            // `Err`: the dial is over, nobody waits any more.
            Want::Stream(reply) => drop(reply.send(Err(failure))),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Want;
    type ToBehaviour = Answered;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Want;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(STOP_PROTOCOL_NAME), ())
    }

    fn on_behaviour_event(&mut self, want: Want) {
        match want {
            Want::Place(command) => self.next = Some(command),
            Want::Stream(reply) => self.wanted.push_back(reply),
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Want>,
    ) {
        if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) = event {
            match info {
                Want::Place(command) => {
                    if self.asking.try_push(wire::reserve(stream), command).is_err() {
                        self.answered(command, Err(Failure::TimedOut));
                    }
                }
                // `Err`: the dial is over, nobody waits any more.
                Want::Stream(reply) => drop(reply.send(Ok(stream))),
            }
        } else if let ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) = event {
            let failure = match error {
                StreamUpgradeError::NegotiationFailed => Failure::NotSpoken,
                StreamUpgradeError::Timeout => Failure::TimedOut,
                StreamUpgradeError::Io(error) => crate::network::errors::of_talk(&error),
                StreamUpgradeError::Apply(never) => match never {},
            };
            self.failed(info, failure);
        } else if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) = event {
            let (relay, remote, desk) = (self.relay, self.remote.clone(), self.desk.clone());
            let hear = async move {
                let call = Call::read(stream).await?;
                if !desk.keeps(relay) {
                    return call.decline(false).await;
                }
                match desk.arrive(Arrival { relay, remote, call }) {
                    Ok(()) => Ok(()),
                    Err(arrival) => arrival.call.decline(true).await,
                }
            };
            if self.calls.try_push(hear).is_err() {
                tracing::debug!(relay = %self.relay, "too many calls by a relay at once");
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Want, Answered>> {
        if let Poll::Ready((answer, command)) = self.asking.poll_unpin(cx) {
            self.answered(command, answer.unwrap_or(Err(Failure::TimedOut)));
        }
        if let Some(answered) = self.out.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(answered));
        }
        let place = self.next.take_if(|_| !self.busy).map(Want::Place);
        self.busy |= place.is_some();
        if let Some(want) = place.or_else(|| self.wanted.pop_front().map(Want::Stream)) {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(HOP_PROTOCOL_NAME), want);
            let protocol = protocol.with_timeout(STREAM_PATIENCE);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        while let Poll::Ready(heard) = self.calls.poll_unpin(cx) {
            let error = heard.map_err(|_| io::Error::from(io::ErrorKind::TimedOut).to_string());
            if let Err(error) = error.and_then(|heard| heard.map_err(|failure| failure.to_string())) {
                tracing::debug!(relay = %self.relay, error, "a call by a relay came to nothing");
            }
        }
        Poll::Pending
    }
}
