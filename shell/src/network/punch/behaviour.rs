//! The offers and talks of all relayed connections.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use futures_timer::Delay;
use kinfolk_core::{CommandId, OfferId, PunchError, PunchRole, Transport};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::{
    DCUTR, Share, Side, Wire,
    handler::{Dropped, FromHandler, Handler, Proposal, ToHandler},
    wire::Terms,
};

/// Offers that wait for the core.
const MAX_OFFERS: usize = 64;

/// What it says to the network.
#[derive(Debug)]
pub(crate) enum Said {
    /// A peer proposes.
    Offered { offer: OfferId, connection: ConnectionId, peer: PeerId, terms: Terms },
    /// A peer has answered.
    Answered { command: CommandId, share: Share, terms: Terms },
    /// The time for our part has come.
    Now { command: CommandId },
    /// The talk has failed.
    Failed { command: CommandId, error: PunchError },
    /// [`Punch::wait`] is over.
    Waited { command: CommandId },
    /// Something of a peer's that was dropped.
    Dropped(Dropped),
}

/// See the module.
pub(crate) struct Punch {
    /// Our own protocol first.
    listens: Vec<StreamProtocol>,
    relayed: HashMap<ConnectionId, PeerId>,
    offers: BTreeMap<OfferId, Offer>,
    last_offer: u64,
    /// Where the core's tries are talked about.
    talks: BTreeMap<CommandId, ConnectionId>,
    waits: FuturesUnordered<BoxFuture<'static, CommandId>>,
    out: VecDeque<ToSwarm<Said, ToHandler>>,
}

#[derive(Clone, Copy, Debug)]
struct Offer {
    connection: ConnectionId,
    /// The handler's number of it.
    number: u64,
    wire: Wire,
    transport: Option<Transport>,
}

impl Punch {
    /// `own`: the name of Kinfolk's own protocol.
    pub(crate) fn new(own: StreamProtocol) -> Self {
        Self {
            listens: vec![own, DCUTR],
            relayed: HashMap::new(),
            offers: BTreeMap::new(),
            last_offer: 0,
            talks: BTreeMap::new(),
            waits: FuturesUnordered::new(),
            out: VecDeque::new(),
        }
    }

    /// Proposes, on a relayed connection.
    ///
    /// # Errors
    /// When there is no such connection.
    pub(super) fn propose(&mut self, connection: ConnectionId, proposal: Proposal) -> Result<(), PunchError> {
        if !self.relayed.contains_key(&connection) {
            return Err(PunchError::CircuitGone);
        }
        self.talks.insert(proposal.command, connection);
        self.notify(connection, ToHandler::Propose(proposal));
        Ok(())
    }

    /// Our share in a peer's offer, if this role by this transport is taken.
    ///
    /// # Errors
    /// When the offer is gone, or is by another transport.
    pub(super) fn share(&self, offer: OfferId, transport: Transport, role: PunchRole) -> Result<Share, PunchError> {
        let gone = || PunchError::Broken("the peer's proposal is gone".to_owned());
        let open = self.offers.get(&offer).ok_or_else(gone)?;
        if open.transport.is_some_and(|proposed| proposed != transport) {
            return Err(PunchError::NoCandidates);
        }
        Ok(Share { wire: open.wire, side: Side::Answerer, transport, role })
    }

    /// Takes up an offer.
    pub(super) fn answer(&mut self, command: CommandId, offer: OfferId, share: Share, terms: Terms) {
        if let Some(open) = self.offers.remove(&offer) {
            self.talks.insert(command, open.connection);
            self.notify(open.connection, ToHandler::Answer { command, offer: open.number, share, terms });
        }
    }

    /// Declines an offer. `false`: it is gone.
    pub(super) fn refuse(&mut self, offer: OfferId) -> bool {
        let Some(open) = self.offers.remove(&offer) else { return false };
        self.notify(open.connection, ToHandler::Refuse { offer: open.number });
        true
    }

    /// Our part of this try has begun.
    pub(super) fn begun(&mut self, command: CommandId) {
        if let Some(connection) = self.talks.get(&command) {
            self.notify(*connection, ToHandler::Begun { command });
        }
    }

    /// No more is said about this try.
    pub(super) fn drop_talk(&mut self, command: CommandId) {
        if let Some(connection) = self.talks.remove(&command) {
            self.notify(connection, ToHandler::Drop { command });
        }
    }

    /// Says [`Said::Waited`] after this time.
    pub(super) fn wait(&mut self, command: CommandId, time: Duration) {
        self.waits.push(Delay::new(time).map(move |()| command).boxed());
    }

    fn notify(&mut self, connection: ConnectionId, event: ToHandler) {
        if let Some(peer) = self.relayed.get(&connection) {
            let handler = NotifyHandler::One(connection);
            self.out.push_back(ToSwarm::NotifyHandler { peer_id: *peer, handler, event });
        }
    }

    fn say(&mut self, said: Said) {
        self.out.push_back(ToSwarm::GenerateEvent(said));
    }

    fn handler(&mut self, connection: ConnectionId, peer: PeerId, relayed: bool) -> Handler {
        if !relayed {
            return Handler::new(vec![]);
        }
        self.relayed.insert(connection, peer);
        Handler::new(self.listens.clone())
    }

    /// The connection is gone, or never came to stand.
    fn gone(&mut self, connection: ConnectionId) {
        if self.relayed.remove(&connection).is_none() {
            return;
        }
        self.offers.retain(|_, offer| offer.connection != connection);
        let lost: Vec<CommandId> =
            self.talks.iter().filter(|(_, on)| **on == connection).map(|(command, _)| *command).collect();
        for command in lost {
            self.talks.remove(&command);
            self.say(Said::Failed { command, error: PunchError::CircuitGone });
        }
    }
}

impl NetworkBehaviour for Punch {
    type ConnectionHandler = Handler;
    type ToSwarm = Said;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer, is_relayed(local)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer, is_relayed(address)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.gone(closed.connection_id);
        } else if let FromSwarm::ListenFailure(failure) = event {
            // Another behaviour did not let it in.
            self.gone(failure.connection_id);
        } else if let FromSwarm::DialFailure(failure) = event {
            self.gone(failure.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            FromHandler::Offered { offer, .. } if self.offers.len() >= MAX_OFFERS => {
                self.notify(connection, ToHandler::Refuse { offer });
                self.say(Said::Dropped(Dropped::TooMany));
            }
            FromHandler::Offered { offer: number, wire, terms } => {
                self.last_offer += 1;
                let offer = OfferId(self.last_offer);
                self.offers.insert(offer, Offer { connection, number, wire, transport: terms.transport });
                self.say(Said::Offered { offer, connection, peer, terms });
            }
            FromHandler::Withdrawn { offer } => {
                self.offers.retain(|_, open| open.connection != connection || open.number != offer);
            }
            FromHandler::Answered { command, share, terms } => self.say(Said::Answered { command, share, terms }),
            FromHandler::Now { command } => self.say(Said::Now { command }),
            FromHandler::Ended { command } => {
                self.talks.remove(&command);
            }
            FromHandler::Failed { command, error } => {
                // What has been dropped here can't fail any more.
                if self.talks.remove(&command).is_some() {
                    self.say(Said::Failed { command, error });
                }
            }
            FromHandler::Dropped(what) => self.say(Said::Dropped(what)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(out) = self.out.pop_front() {
            return Poll::Ready(out);
        }
        match self.waits.poll_next_unpin(cx) {
            Poll::Ready(Some(command)) => Poll::Ready(ToSwarm::GenerateEvent(Said::Waited { command })),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    /// What it has said, and which offers its handlers were told to refuse.
    fn drain(punch: &mut Punch) -> (Vec<Said>, usize) {
        let (mut said, mut refused) = (vec![], 0);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(out) = punch.poll(&mut cx) {
            if let ToSwarm::GenerateEvent(event) = out {
                said.push(event);
            } else if let ToSwarm::NotifyHandler { event: ToHandler::Refuse { .. }, .. } = out {
                refused += 1;
            } else {
                panic!("{out:?}");
            }
        }
        (said, refused)
    }

    fn circuit() -> Multiaddr {
        "/ip4/45.10.20.1/tcp/1/p2p-circuit".parse().unwrap()
    }

    #[test]
    fn so_many_offers_wait_and_no_more() {
        let mut punch = Punch::new(StreamProtocol::new("/punch"));
        let peer = PeerId::random();
        let offer = |punch: &mut Punch, number| {
            let (wire, terms) = (Wire::Dcutr, Terms::default());
            let event = FromHandler::Offered { offer: 1, wire, terms };
            punch.on_connection_handler_event(peer, id(number), event);
        };
        for number in 0..=MAX_OFFERS {
            punch.handle_established_inbound_connection(id(number), peer, &circuit(), &circuit()).unwrap();
            offer(&mut punch, number);
        }
        let (said, refused) = drain(&mut punch);
        assert_eq!((said.len(), refused), (MAX_OFFERS + 1, 1));
        assert!(matches!(said.last(), Some(Said::Dropped(Dropped::TooMany))));
        // An answer, a withdrawal and a lost connection make room.
        assert!(punch.refuse(OfferId(1)));
        punch.on_connection_handler_event(peer, id(1), FromHandler::Withdrawn { offer: 1 });
        punch.gone(id(2));
        assert_eq!(punch.offers.len(), MAX_OFFERS - 3);
        drain(&mut punch);
        for number in 61..65 {
            offer(&mut punch, number);
        }
        let dropped = drain(&mut punch).0.iter().filter(|said| matches!(said, Said::Dropped(_))).count();
        assert_eq!(dropped, 1);
    }

    #[test]
    fn direct_connections_have_no_part_in_it() {
        let mut punch = Punch::new(StreamProtocol::new("/punch"));
        let direct: Multiaddr = "/ip4/45.10.20.1/tcp/1".parse().unwrap();
        let peer = PeerId::random();
        punch.handle_established_inbound_connection(id(1), peer, &direct, &direct).unwrap();
        assert!(punch.relayed.is_empty());
        punch
            .handle_established_outbound_connection(id(2), peer, &circuit(), Endpoint::Dialer, PortUse::Reuse)
            .unwrap();
        assert_eq!(punch.relayed.len(), 1);
    }
}
