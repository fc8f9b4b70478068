//! The client of relays: it asks for places when the core says so, and for circuits when one is dialled, and takes the
//! calls that come to the places.
//!
//! It renews nothing by itself, and reads no clock but to pass on how long a place is to last: a node that starts in
//! 1970, or a year ahead, is served as any other.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use either::Either;
use futures::channel::oneshot;
use kinfolk_core::{CircuitLimit, CommandId, ReserveError};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler, Stream, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
        dummy,
    },
};

use super::{
    circuits::Circuits,
    handler::{Answered, Handler, Want},
    wire::{Call, Failure, Kept},
};
use crate::network::{errors, ids::is_relayed};

/// Calls that may wait to be taken. What comes on top is declined.
const MAX_ARRIVALS: usize = 32;

/// What the client says.
#[derive(Debug)]
pub(crate) enum Told {
    /// A relay keeps a place for us, or has renewed it.
    Reserved {
        /// Who has asked for it.
        command: CommandId,
        /// Which relay.
        relay: PeerId,
        /// What it keeps.
        kept: Kept,
    },
    /// A relay keeps no place for us, or no longer.
    Ended {
        /// Who has asked for it.
        command: CommandId,
        /// Why.
        error: ReserveError,
    },
    /// An answer came to what was given back, or asked again.
    Late,
    /// What a connection's relay allows it.
    Limited {
        /// Which connection.
        connection: ConnectionId,
        /// The limit.
        limit: CircuitLimit,
    },
    /// Another tenth of the bytes is used.
    Used {
        /// Of which connection.
        connection: ConnectionId,
        /// In all.
        bytes: u64,
    },
}

/// Who waits for a stream to a relay.
pub(crate) type Reply = oneshot::Sender<Result<Stream, Failure>>;

/// A stream to a relay is wanted.
pub(super) struct Wish {
    relay: PeerId,
    /// Where it is, for want of a connection.
    via: Multiaddr,
    reply: Reply,
}

/// Somebody calls, at a relay that keeps a place for us.
pub(super) struct Arrival {
    pub(super) relay: PeerId,
    /// Where the relay is.
    pub(super) remote: Multiaddr,
    pub(super) call: Call,
}

/// What behaviour, handlers and transport hand each other. A clone is the same.
#[derive(Clone, Default)]
pub(super) struct Desk(Arc<Mutex<Papers>>);

#[derive(Default)]
struct Papers {
    wishes: VecDeque<Wish>,
    behaviour: Option<Waker>,
    arrivals: VecDeque<Arrival>,
    transport: Option<Waker>,
    /// The relays that keep a place for us.
    keepers: HashSet<PeerId>,
}

impl Desk {
    /// A stream to `relay`, over the connection that stands, or one that the core has yet to allow.
    pub(super) fn wish(&self, relay: PeerId, via: Multiaddr) -> oneshot::Receiver<Result<Stream, Failure>> {
        let (reply, stream) = oneshot::channel();
        let mut papers = self.lock();
        papers.wishes.push_back(Wish { relay, via, reply });
        if let Some(waker) = papers.behaviour.take() {
            waker.wake();
        }
        stream
    }

    fn poll_wish(&self, cx: &mut Context<'_>) -> Poll<Wish> {
        let mut papers = self.lock();
        if let Some(wish) = papers.wishes.pop_front() {
            return Poll::Ready(wish);
        }
        papers.behaviour = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Hands a call to the transport.
    ///
    /// # Errors
    /// It comes back when too many wait.
    pub(super) fn arrive(&self, arrival: Arrival) -> Result<(), Box<Arrival>> {
        let mut papers = self.lock();
        if papers.arrivals.len() == MAX_ARRIVALS {
            return Err(Box::new(arrival));
        }
        papers.arrivals.push_back(arrival);
        if let Some(waker) = papers.transport.take() {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<Arrival> {
        let mut papers = self.lock();
        if let Some(arrival) = papers.arrivals.pop_front() {
            return Poll::Ready(arrival);
        }
        papers.transport = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn keeps(&self, relay: PeerId) -> bool {
        self.lock().keepers.contains(&relay)
    }

    pub(super) fn keep(&self, relay: PeerId, kept: bool) {
        let keepers = &mut self.lock().keepers;
        if kept {
            keepers.insert(relay);
        } else {
            keepers.remove(&relay);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(crate) struct Client {
    desk: Desk,
    circuits: Circuits,
    /// To everyone who might be a relay: the direct ones, the oldest first. It is the one that is proven.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    /// Wishes whose relay is dialled, by the dial.
    waiting: HashMap<ConnectionId, (PeerId, Reply)>,
    places: HashMap<PeerId, Place>,
    out: VecDeque<ToSwarm<Told, Either<Want, Infallible>>>,
}

/// What was asked for last of a relay.
struct Place {
    command: CommandId,
    on: ConnectionId,
    kept: bool,
}

impl Client {
    pub(super) fn new(desk: Desk, circuits: Circuits) -> Self {
        Self {
            desk,
            circuits,
            connections: HashMap::new(),
            waiting: HashMap::new(),
            places: HashMap::new(),
            out: VecDeque::new(),
        }
    }

    /// Asks `relay` for a place, or for the same one again, which then has the new name. `false`: it is not connected.
    pub(super) fn reserve(&mut self, command: CommandId, relay: PeerId) -> bool {
        let Some(on) = self.first_connection(relay) else { return false };
        let kept = self.places.get(&relay).is_some_and(|place| place.kept);
        self.places.insert(relay, Place { command, on, kept });
        self.want(relay, on, Want::Place(command));
        true
    }

    /// Whoever calls by this place is not heard any more; the protocol has no word to tell the relay. `false`: there is
    /// no such place.
    pub(super) fn unreserve(&mut self, reservation: CommandId) -> bool {
        let named = self.places.iter().find(|(_, place)| place.command == reservation);
        let Some(relay) = named.map(|(relay, _)| *relay) else { return false };
        self.places.remove(&relay);
        self.desk.keep(relay, false);
        true
    }

    fn first_connection(&self, relay: PeerId) -> Option<ConnectionId> {
        self.connections.get(&relay)?.first().copied()
    }

    fn want(&mut self, peer_id: PeerId, connection: ConnectionId, want: Want) {
        let handler = NotifyHandler::One(connection);
        self.out.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: Either::Left(want) });
    }

    fn tell(&mut self, told: Told) {
        self.out.push_back(ToSwarm::GenerateEvent(told));
    }

    fn on_wish(&mut self, Wish { relay, via, reply }: Wish) {
        if let Some(connection) = self.first_connection(relay) {
            return self.want(relay, connection, Want::Stream(reply));
        }
        let opts = DialOpts::peer_id(relay).addresses(vec![via]).condition(PeerCondition::NotDialing);
        let opts = opts.extend_addresses_through_behaviour().build();
        self.waiting.insert(opts.connection_id(), (relay, reply));
        self.out.push_back(ToSwarm::Dial { opts });
    }

    fn on_answer(&mut self, relay: PeerId, Answered { command, answer }: Answered) {
        let Some(place) = self.places.get_mut(&relay).filter(|place| place.command == command || answer.is_ok()) else {
            self.desk.keep(relay, self.places.get(&relay).is_some_and(|place| place.kept));
            return self.tell(Told::Late);
        };
        place.kept = answer.is_ok();
        if place.command != command {
            return self.tell(Told::Late);
        }
        match answer {
            Ok(kept) => self.tell(Told::Reserved { command, relay, kept }),
            Err(failure) => self.over(relay, errors::of_reserve(&failure)),
        }
    }

    fn over(&mut self, relay: PeerId, error: ReserveError) {
        self.desk.keep(relay, false);
        if let Some(place) = self.places.remove(&relay) {
            self.tell(Told::Ended { command: place.command, error });
        }
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId) {
        self.connections.entry(peer).or_default().push(connection);
        let served = self.waiting.extract_if(|_, (relay, _)| *relay == peer).map(|(_, (_, reply))| reply);
        for reply in served.collect::<Vec<_>>() {
            self.want(peer, connection, Want::Stream(reply));
        }
    }

    fn disconnected(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(connections) = self.connections.get_mut(&peer) {
            connections.retain(|known| *known != connection);
            if connections.is_empty() {
                self.connections.remove(&peer);
            }
        }
        if self.places.get(&peer).is_some_and(|place| place.on == connection) {
            self.over(peer, ReserveError::ConnectionLost);
        }
    }

    fn handler(&self, peer: PeerId, remote: &Multiaddr, relayed: bool) -> THandler<Self> {
        if relayed {
            Either::Right(dummy::ConnectionHandler)
        } else {
            Either::Left(Handler::new(peer, remote.clone(), self.desk.clone()))
        }
    }
}

impl NetworkBehaviour for Client {
    type ConnectionHandler = Either<Handler, dummy::ConnectionHandler>;
    type ToSwarm = Told;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if is_relayed(local) {
            self.circuits.arrived(connection);
        }
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote, is_relayed(local)))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.circuits.dialling(connection);
        Ok(vec![])
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, address, is_relayed(address)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some((connection, limit)) = self.circuits.on_swarm_event(&event) {
            self.tell(Told::Limited { connection, limit });
        }
        if let FromSwarm::ConnectionEstablished(established) = event {
            if !established.endpoint.is_relayed() {
                self.connected(established.peer_id, established.connection_id);
            }
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.disconnected(closed.peer_id, closed.connection_id);
        } else if let FromSwarm::DialFailure(failure) = event
            // Somebody else's dial to the relay serves as well.
            && !matches!(failure.error, DialError::DialPeerConditionFalse(_))
            && let Some((_, reply)) = self.waiting.remove(&failure.connection_id)
        {
            // `Err`: nobody waits any more.
            drop(reply.send(Err(Failure::Unreachable)));
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(answered) => self.on_answer(peer, answered),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Poll::Ready(wish) = self.desk.poll_wish(cx) {
            self.on_wish(wish);
        }
        // Dials that somebody else's were to serve, and that took too long.
        self.waiting.retain(|_, (_, reply)| !reply.is_canceled());
        if let Some(out) = self.out.pop_front() {
            return Poll::Ready(out);
        }
        self.circuits.poll_used(cx).map(|(connection, bytes)| ToSwarm::GenerateEvent(Told::Used { connection, bytes }))
    }
}
