//! Offers a stock AutoNAT server to those whom it is for, and to nobody else.
//!
//! Whom it is for changes: the core finds out that this node can be reached, and who belongs to the network, while
//! connections stand. So each connection that came in has a handler, and the handler names its protocol, and takes
//! streams, only as long as its peer is served. The server must not be offered and then refuse: AutoNAT has no words for
//! "later", so its client would take itself for unreachable. Only who asks too often finds the stream closed.
//!
//! The server dials wherever it is asked to. Its dials are held for the core (see [`Governed`]), checked here, and walled
//! in by the guard. Version 2's gives up its answer after a while, and a dial into a NAT that drops packets may last
//! longer: then its client would hear nothing where "no" is the answer. So such a dial counts as failed before ([`within`]).
//!
//! [`within`]: Offered::within
//! [`Governed`]: super::super::governed::Governed

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    net::IpAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use either::Either;
use futures::{FutureExt, future};
use futures_timer::Delay;
use kinfolk_core::network_of;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError,
        DialFailure, FromSwarm, NetworkBehaviour, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        behaviour::ConnectionEstablished,
        handler::{ConnectionEvent, FullyNegotiatedInbound, ListenUpgradeError, SendWrapper},
    },
};

use super::{
    super::{
        gate::Refusal,
        ids,
        members::{Members, Services},
    },
    is_circuit,
    quota::Quota,
};

/// Whom probes are for, and how many: one for both versions.
#[derive(Clone, Debug, Default)]
pub(in crate::network) struct Terms {
    pub(in crate::network) members: Members,
    pub(in crate::network) services: Services,
    pub(in crate::network) quota: Quota,
}

/// Where the server may dial.
pub(in crate::network) type Where = fn(&Multiaddr) -> bool;

/// See the module.
pub(in crate::network) struct Offered<B: NetworkBehaviour> {
    inner: B,
    terms: Terms,
    may_dial: Where,
    /// The server's own dials under way, with the time that they have.
    dials: HashMap<ConnectionId, Option<Delay>>,
    patience: Option<Duration>,
    /// The connections that it knows of: direct ones that came in, and its own.
    shown: HashMap<PeerId, HashSet<ConnectionId>>,
    counts: VecDeque<&'static str>,
}

/// What an offered server says.
#[derive(Debug)]
pub(in crate::network) enum Served<E> {
    /// Its own event.
    Own(E),
    /// Something is to be counted.
    Count(&'static str),
}

impl<B: NetworkBehaviour> Offered<B> {
    pub(in crate::network) fn new(inner: B, terms: Terms, may_dial: Where) -> Self {
        Self {
            inner,
            terms,
            may_dial,
            dials: HashMap::new(),
            patience: None,
            shown: HashMap::new(),
            counts: VecDeque::new(),
        }
    }

    /// Its dials count as failed after that time.
    pub(in crate::network) fn within(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    fn on_established(&mut self, established: ConnectionEstablished<'_>) {
        let shown = match established.endpoint {
            ConnectedPoint::Listener { local_addr, .. } => !is_circuit(local_addr),
            ConnectedPoint::Dialer { .. } => self.dials.remove(&established.connection_id).is_some(),
        };
        if shown {
            if established.endpoint.is_dialer() {
                self.counts.push_back("probes.reached");
            }
            let of_peer = self.shown.entry(established.peer_id).or_default();
            let other_established = of_peer.len();
            of_peer.insert(established.connection_id);
            let established = ConnectionEstablished { other_established, ..established };
            self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(established));
        }
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let Some(of_peer) = self.shown.get_mut(&closed.peer_id) else { return };
        if !of_peer.remove(&closed.connection_id) {
            return;
        }
        let remaining_established = of_peer.len();
        if remaining_established == 0 {
            self.shown.remove(&closed.peer_id);
        }
        self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed { remaining_established, ..closed }));
    }

    fn on_dial_failed(&mut self, failure: DialFailure<'_>) {
        if self.dials.remove(&failure.connection_id).is_some() {
            let denied = matches!(failure.error, DialError::Denied { .. });
            self.counts.push_back(if denied { "probes.refused" } else { "probes.not_reached" });
            self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
        }
    }

    /// Ends dials whose time is over.
    fn give_up(&mut self, cx: &mut Context<'_>) {
        let mut is_over =
            |patience: &mut Option<Delay>| patience.as_mut().is_some_and(|left| left.poll_unpin(cx).is_ready());
        let over = self.dials.iter_mut().filter_map(|(dial, patience)| is_over(patience).then_some(*dial));
        for connection_id in over.collect::<Vec<_>>() {
            self.on_dial_failed(DialFailure { peer_id: None, error: &DialError::Aborted, connection_id });
        }
    }

    fn is_shown(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        self.shown.get(peer).is_some_and(|of_peer| of_peer.contains(&connection))
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Offered<B> {
    type ConnectionHandler = Offer<THandler<B>>;
    type ToSwarm = Served<B::ToSwarm>;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_circuit(local) {
            return Ok(Offer::of(None, None));
        }
        let client = Client { peer, network: ids::first_ip(remote).map(network_of), terms: self.terms.clone() };
        let inner = self.inner.handle_established_inbound_connection(connection, peer, local, remote)?;
        Ok(Offer::of(Some(inner), Some(client)))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.dials.contains_key(&connection) && !addresses.iter().all(self.may_dial) {
            return Err(ConnectionDenied::new(Refusal::Denied));
        }
        Ok(vec![])
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.dials.contains_key(&connection) {
            return Ok(Offer::of(None, None));
        }
        let inner = self.inner.handle_established_outbound_connection(connection, peer, address, role, port)?;
        Ok(Offer::of(Some(inner), None))
    }

    /// Others' dials are none of its business: one of ours that fails is no answer to a client.
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            self.on_established(established);
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.on_closed(closed);
        } else if let FromSwarm::DialFailure(failure) = event {
            self.on_dial_failed(failure);
        } else if let FromSwarm::AddressChange(change) = event
            && self.is_shown(&change.peer_id, change.connection_id)
        {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Served::Own(event) => self.inner.on_connection_handler_event(peer, connection, event),
            Served::Count(name) => self.counts.push_back(name),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.give_up(cx);
        if let Some(name) = self.counts.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(Served::Count(name)));
        }
        self.inner.poll(cx).map(|out| {
            if let ToSwarm::Dial { opts } = &out {
                self.dials.insert(opts.connection_id(), self.patience.map(Delay::new));
            }
            out.map_out(Served::Own)
        })
    }
}

impl<B: NetworkBehaviour> fmt::Debug for Offered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("dials", &self.dials.len()).finish_non_exhaustive()
    }
}

/// Who is at the other end.
struct Client {
    peer: PeerId,
    network: Option<IpAddr>,
    terms: Terms,
}

impl Client {
    fn is_served(&self) -> bool {
        self.terms.members.are_served(self.terms.services.get().probes, &self.peer)
    }
}

/// The handler of one connection: the server's own, offered to a client or dialling back, or none.
pub(in crate::network) struct Offer<H> {
    inner: Option<H>,
    client: Option<Client>,
    counts: VecDeque<&'static str>,
}

impl<H> Offer<H> {
    fn of(inner: Option<H>, client: Option<Client>) -> Self {
        Self { inner, client, counts: VecDeque::new() }
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Offer<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = Served<H::ToBehaviour>;
    type InboundProtocol = Either<SendWrapper<H::InboundProtocol>, DeniedUpgrade>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Option<H::InboundOpenInfo>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match (&self.inner, &self.client) {
            (Some(inner), Some(client)) if client.is_served() => {
                inner.listen_protocol().map_upgrade(|upgrade| Either::Left(SendWrapper(upgrade))).map_info(Some)
            }
            (..) => SubstreamProtocol::new(Either::Right(DeniedUpgrade), None),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.as_ref().is_some_and(H::connection_keep_alive)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Some(name) = self.counts.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Served::Count(name)));
        }
        match &mut self.inner {
            Some(inner) => inner.poll(cx).map(|event| event.map_custom(Served::Own)),
            None => Poll::Pending,
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        match &mut self.inner {
            Some(inner) => inner.poll_close(cx).map(|event| event.map(Served::Own)),
            None => Poll::Ready(None),
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        if let Some(inner) = &mut self.inner {
            inner.on_behaviour_event(event);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let Some(inner) = &mut self.inner else { return };
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                let (future::Either::Left(protocol), Some(info)) = (protocol, info) else { return };
                let Some(client) = &self.client else { return };
                if client.terms.quota.take(client.peer, client.network, Instant::now()) {
                    self.counts.push_back("probes.asked");
                    let stream = FullyNegotiatedInbound { protocol, info };
                    inner.on_connection_event(ConnectionEvent::FullyNegotiatedInbound(stream));
                } else {
                    self.counts.push_back("probes.refused");
                }
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                if let (Some(info), Either::Left(error)) = (info, error) {
                    inner.on_connection_event(ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(stream) => {
                inner.on_connection_event(ConnectionEvent::FullyNegotiatedOutbound(stream));
            }
            ConnectionEvent::DialUpgradeError(error) => {
                inner.on_connection_event(ConnectionEvent::DialUpgradeError(error));
            }
            ConnectionEvent::AddressChange(change) => {
                inner.on_connection_event(ConnectionEvent::AddressChange(change));
            }
            ConnectionEvent::LocalProtocolsChange(change) => {
                inner.on_connection_event(ConnectionEvent::LocalProtocolsChange(change));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                inner.on_connection_event(ConnectionEvent::RemoteProtocolsChange(change));
            }
            // The list of events is open.
            _ => {}
        }
    }
}
