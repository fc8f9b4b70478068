//! Logs on the network: asks over the connection that the core names, and answers within bounds.
//!
//! The messages are those of libp2p's request-response (`sync::wire`); its behaviour chooses the connection by itself,
//! and a relayed one may be among them, so here is a handler of our own. Checking and storing are the logs' own thread's;
//! a range that is on its way to it holds up nothing else on the connection.

mod handler;
mod serving;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    task::{Context, Poll},
};

use kinfolk_core::{Audience, CommandId, ConnectionId as CoreConnectionId, Event, LogHead, LogId, SyncError, Told};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::{Network, ids::peer_to_core, members::Members};
use crate::sync::{FRAME, Logs};
use handler::{Ask, FromHandler, Handler, ToHandler, What};
use serving::Audiences;

/// See the module.
pub(super) struct Sync {
    protocol: StreamProtocol,
    logs: Option<Logs>,
    audiences: Audiences,
    connections: HashMap<ConnectionId, PeerId>,
    /// The core's requests, and where they are under way.
    open: BTreeMap<CommandId, ConnectionId>,
    out: VecDeque<ToSwarm<Said, ToHandler>>,
}

/// What it says to the network.
#[derive(Debug)]
pub(super) struct Said {
    connection: ConnectionId,
    peer: PeerId,
    what: FromHandler,
}

impl Sync {
    pub(super) fn new(protocol: StreamProtocol, members: Members) -> Self {
        Self {
            protocol,
            logs: None,
            audiences: Audiences::new(members),
            connections: HashMap::new(),
            open: BTreeMap::new(),
            out: VecDeque::new(),
        }
    }

    fn ask(&mut self, command: CommandId, connection: ConnectionId, what: What) -> Result<(), SyncError> {
        if self.logs.is_none() {
            return Err(SyncError::Unsupported);
        }
        let peer_id = *self.connections.get(&connection).ok_or(SyncError::ConnectionLost)?;
        self.open.insert(command, connection);
        let event = ToHandler::Ask(Ask { command, what });
        self.out.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event });
        Ok(())
    }

    fn drop_ask(&mut self, command: CommandId) {
        let Some(connection) = self.open.remove(&command) else { return };
        if let Some(peer) = self.connections.get(&connection) {
            let event = ToHandler::Drop(command);
            let handler = NotifyHandler::One(connection);
            self.out.push_back(ToSwarm::NotifyHandler { peer_id: *peer, handler, event });
        }
    }

    fn say(&mut self, connection: ConnectionId, peer: PeerId, what: FromHandler) {
        self.out.push_back(ToSwarm::GenerateEvent(Said { connection, peer, what }));
    }

    fn handler(&mut self, connection: ConnectionId, peer: PeerId) -> Handler {
        self.connections.insert(connection, peer);
        Handler::new(self.protocol.clone(), self.logs.clone(), self.audiences.serving(peer))
    }

    /// The connection is gone, or never came to stand.
    fn gone(&mut self, connection: ConnectionId) {
        let Some(peer) = self.connections.remove(&connection) else { return };
        let lost: Vec<CommandId> =
            self.open.iter().filter(|(_, on)| **on == connection).map(|(command, _)| *command).collect();
        for command in lost {
            self.open.remove(&command);
            self.say(connection, peer, FromHandler::Failed { command, error: SyncError::ConnectionLost });
        }
    }
}

impl NetworkBehaviour for Sync {
    type ConnectionHandler = Handler;
    type ToSwarm = Said;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
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

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, what: THandlerOutEvent<Self>) {
        let ended = match &what {
            FromHandler::Told { command, last: true, .. }
            | FromHandler::Fetched { command, .. }
            | FromHandler::Failed { command, .. } => Some(*command),
            FromHandler::Told { .. } | FromHandler::Heard(_) | FromHandler::Dropped => None,
        };
        // What has been dropped here has no end any more.
        if ended.is_none_or(|command| self.open.remove(&command).is_some()) {
            self.say(connection, peer, what);
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<A: NetworkBehaviour> Network<A> {
    /// Exchanges logs, too. To be called before the network is polled.
    pub fn with_logs(mut self, logs: Logs) -> Self {
        self.swarm.behaviour_mut().sync.logs = Some(logs.clone());
        self.logs = Some(logs);
        self
    }

    pub(super) fn set_sync(&mut self, with: Audience) {
        self.swarm.behaviour_mut().sync.audiences.set(with);
    }

    pub(super) fn sync_exchange(&mut self, command: CommandId, connection: CoreConnectionId) {
        self.sync(command, connection, What::Exchange { after: None, pages: 0 });
    }

    pub(super) fn sync_announce(&mut self, command: CommandId, connection: CoreConnectionId, heads: &[LogHead]) {
        self.sync(command, connection, What::Announce { heads: heads.iter().take(FRAME).copied().collect() });
    }

    pub(super) fn sync_fetch(
        &mut self,
        command: CommandId,
        connection: CoreConnectionId,
        log: LogId,
        since: u64,
        limit: u32,
    ) {
        self.sync(command, connection, What::Range { log, since, limit });
    }

    pub(super) fn sync_cancel(&mut self, command: CommandId) {
        self.swarm.behaviour_mut().sync.drop_ask(command);
    }

    fn sync(&mut self, command: CommandId, connection: CoreConnectionId, what: What) {
        let asked = match self.by_number.get(&connection.0) {
            Some(id) => self.swarm.behaviour_mut().sync.ask(command, *id, what),
            None => Err(SyncError::ConnectionLost),
        };
        if let Err(error) = asked {
            self.tell(Event::SyncFailed { sync: command, error });
        }
    }

    pub(super) fn on_sync(&mut self, said: Said) {
        let Said { connection, peer, what } = said;
        let (sync, told, last) = match what {
            FromHandler::Fetched { command, log, stored, has_more } => {
                let (head, entries) = (stored.head, stored.entries);
                return self.tell(Event::SyncFetched { fetch: command, log, head, entries, has_more });
            }
            FromHandler::Failed { command, error } => {
                return self.tell(Event::SyncFailed { sync: command, error });
            }
            FromHandler::Dropped => return self.counters.count("sync.not_answered"),
            FromHandler::Heard(told) => (None, told, true),
            FromHandler::Told { command, told, last } => (Some(command), told, last),
        };
        let peer = peer_to_core(peer);
        let Some(connection) = self.number(connection) else {
            if let Some(sync) = sync.filter(|_| last) {
                self.tell(Event::SyncFailed { sync, error: SyncError::ConnectionLost });
            }
            return;
        };
        match &told {
            Told::Heads(heads) if heads.len() > FRAME => {
                let frames = heads.len().div_ceil(FRAME);
                for (at, frame) in heads.chunks(FRAME).enumerate() {
                    let last = last && at + 1 == frames;
                    self.tell(Event::SyncTold { peer, connection, sync, told: Told::Heads(frame.to_vec()), last });
                }
            }
            Told::Same | Told::Differs | Told::Heads(_) => {
                self.tell(Event::SyncTold { peer, connection, sync, told, last })
            }
        }
    }
}
