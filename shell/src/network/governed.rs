//! Takes the wheel from a stock behaviour.
//!
//! Behaviours dial, and confirm addresses of ours, as they see fit. Here both become events for the core: a dial is
//! *held* until the core releases or refuses it, an address is only a claim until the core advertises it. Connection
//! handlers are untouched.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::DialFailure,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{errors, gate::Refusal};

/// What a governed behaviour says.
#[derive(Debug)]
pub(crate) enum Said<E> {
    /// Its own event.
    Own(E),
    /// It takes this for an address of ours, without proof.
    Candidate(Multiaddr),
    /// It takes this for a proven address of ours.
    Confirmed(Multiaddr),
    /// It no longer does.
    Expired(Multiaddr),
    /// It wants to dial. The dial is held.
    Dial {
        /// The dial's id, and the connection's if one comes of it.
        dial: ConnectionId,
        /// Whom, if it knows.
        peer: Option<PeerId>,
    },
    /// A dial that was released came to nothing.
    DialFailed {
        /// Which.
        dial: ConnectionId,
        /// What ended it.
        error: kinfolk_core::DialError,
    },
}

/// Which of the swarm's events the behaviour is told.
pub(crate) type Hear = fn(&FromSwarm<'_>) -> bool;

/// Which of the addresses that the behaviour adds to a dial are dialled.
pub(crate) type Keep = Box<dyn Fn(&PeerId, &Multiaddr) -> bool + Send>;

/// See the module.
pub(crate) struct Governed<B: NetworkBehaviour> {
    inner: B,
    hear: Hear,
    keep: Keep,
    held: HashMap<ConnectionId, DialOpts>,
    released: HashSet<ConnectionId>,
    out: VecDeque<ToSwarm<Said<B::ToSwarm>, THandlerInEvent<B>>>,
}

impl<B: NetworkBehaviour> Governed<B> {
    pub(crate) fn new(inner: B, hear: Hear, keep: Keep) -> Self {
        Self { inner, hear, keep, held: HashMap::new(), released: HashSet::new(), out: VecDeque::new() }
    }

    pub(crate) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// The addresses that a dial of this behaviour to `peer` would try.
    pub(crate) fn addresses(&mut self, dial: ConnectionId, peer: PeerId) -> Vec<Multiaddr> {
        let mut added =
            self.inner.handle_pending_outbound_connection(dial, Some(peer), &[], Endpoint::Dialer).unwrap_or_default();
        added.retain(|address| (self.keep)(&peer, address));
        added
    }

    /// Lets a held dial go on. `false`: there is none.
    pub(crate) fn release(&mut self, dial: ConnectionId) -> bool {
        let Some(opts) = self.held.remove(&dial) else { return false };
        self.released.insert(dial);
        self.out.push_back(ToSwarm::Dial { opts });
        true
    }

    /// Stops a held dial. `connected`: a connection to the peer stands by now, so the behaviour has lost nothing.
    pub(crate) fn refuse(&mut self, dial: ConnectionId, connected: bool) {
        let Some(opts) = self.held.remove(&dial) else { return };
        let error = if connected {
            DialError::DialPeerConditionFalse(PeerCondition::Disconnected)
        } else {
            DialError::Denied { cause: ConnectionDenied::new(Refusal::NotReleased) }
        };
        self.inner.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: opts.get_peer_id(),
            error: &error,
            connection_id: dial,
        }));
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Governed<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = Said<B::ToSwarm>;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut added = self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        added.retain(|address| peer.is_some_and(|peer| (self.keep)(&peer, address)));
        Ok(added)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            self.released.remove(&established.connection_id);
        } else if let FromSwarm::DialFailure(failure) = event
            && self.released.remove(&failure.connection_id)
        {
            // Also the only sign of a dial that the swarm refuses at once.
            let error = errors::of_dial(failure.error);
            self.out.push_back(ToSwarm::GenerateEvent(Said::DialFailed { dial: failure.connection_id, error }));
        }
        if (self.hear)(&event) {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what else a behaviour asks for, now or later, goes on unchanged"
    )]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(out) = self.out.pop_front() {
            return Poll::Ready(out);
        }
        self.inner.poll(cx).map(|out| match out {
            ToSwarm::Dial { opts } => {
                let said = Said::Dial { dial: opts.connection_id(), peer: opts.get_peer_id() };
                self.held.insert(opts.connection_id(), opts);
                ToSwarm::GenerateEvent(said)
            }
            ToSwarm::NewExternalAddrCandidate(address) => ToSwarm::GenerateEvent(Said::Candidate(address)),
            ToSwarm::ExternalAddrConfirmed(address) => ToSwarm::GenerateEvent(Said::Confirmed(address)),
            ToSwarm::ExternalAddrExpired(address) => ToSwarm::GenerateEvent(Said::Expired(address)),
            other => other.map_out(Said::Own),
        })
    }
}

impl<B: NetworkBehaviour> fmt::Debug for Governed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Governed").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
