//! The handlers of one connection: one asks over connections that we have dialled, one hears dial-backs over those that
//! came in.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures_bounded::{Delay, FuturesMap, FuturesSet};
use kinfolk_core::{CommandId, ProbeVerdict};
use libp2p::{
    Multiaddr,
    core::upgrade::{DeniedUpgrade, ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::{
    DIAL_BACK, DIAL_REQUEST,
    nonces::{Arrival, Nonces},
    talk,
};

/// Probes at one server at a time.
const MAX_PROBES: usize = 32;
/// The core drops a probe long before; this only bounds what is kept if it doesn't.
const PROBE_PATIENCE: Duration = Duration::from_secs(120);
/// Dial-backs at a time over one connection. An honest server sends one.
const MAX_DIAL_BACKS: usize = 4;
/// A dial-back is one number: who takes longer has nothing to say.
const DIAL_BACK_PATIENCE: Duration = Duration::from_secs(10);

/// Asks. See the module.
pub(in crate::network) struct Asks {
    /// Those that nobody has dropped.
    wanted: HashSet<CommandId>,
    queue: VecDeque<Ask>,
    talks: FuturesMap<CommandId, (ProbeVerdict, u64)>,
    outcomes: VecDeque<Outcome>,
}

/// A probe to be asked for.
#[derive(Clone, Debug)]
pub(in crate::network) struct Ask {
    pub(super) probe: CommandId,
    pub(super) address: Multiaddr,
    pub(super) nonce: u64,
}

/// What the behaviour tells [`Asks`].
#[derive(Debug)]
pub(in crate::network) enum Order {
    Ask(Ask),
    Drop(CommandId),
}

/// What a server has said.
#[derive(Debug)]
pub(in crate::network) struct Outcome {
    pub(super) probe: CommandId,
    /// In the server's words: `Reachable` is only its claim.
    pub(super) verdict: ProbeVerdict,
    /// Sent at the server's wish.
    pub(super) paid: u64,
}

impl Asks {
    pub(super) fn new() -> Self {
        Self {
            wanted: HashSet::new(),
            queue: VecDeque::new(),
            talks: FuturesMap::new(|| Delay::futures_timer(PROBE_PATIENCE), MAX_PROBES),
            outcomes: VecDeque::new(),
        }
    }

    fn talk(&mut self, stream: Stream, ask: Ask) {
        let Ask { probe, address, nonce } = ask;
        if !self.wanted.contains(&probe) {
            return;
        }
        if self.talks.try_push(probe, async move { talk::ask(stream, &address, nonce).await }).is_err() {
            self.over(probe, ProbeVerdict::Broken("too many probes at once".to_owned()), 0);
        }
    }

    fn over(&mut self, probe: CommandId, verdict: ProbeVerdict, paid: u64) {
        if self.wanted.remove(&probe) {
            self.outcomes.push_back(Outcome { probe, verdict, paid });
        }
    }
}

impl ConnectionHandler for Asks {
    type FromBehaviour = Order;
    type ToBehaviour = Outcome;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Ask;

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Ask, Outcome>> {
        while let Poll::Ready((probe, result)) = self.talks.poll_unpin(cx) {
            let (verdict, paid) = result.unwrap_or_else(|_| (talk::broken(&io::ErrorKind::TimedOut.into()), 0));
            self.over(probe, verdict, paid);
        }
        if let Some(outcome) = self.outcomes.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(outcome));
        }
        if let Some(ask) = self.queue.pop_front() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(DIAL_REQUEST), ask);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, order: Order) {
        match order {
            Order::Ask(ask) => {
                self.wanted.insert(ask.probe);
                self.queue.push_back(ask);
            }
            Order::Drop(probe) => {
                self.wanted.remove(&probe);
                self.queue.retain(|ask| ask.probe != probe);
                drop(self.talks.remove(probe));
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, DeniedUpgrade, ReadyUpgrade<StreamProtocol>, (), Ask>,
    ) {
        if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) = event {
            self.talk(protocol, info);
        } else if let ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) = event {
            let verdict = match error {
                StreamUpgradeError::NegotiationFailed => ProbeVerdict::NotSupported,
                StreamUpgradeError::Timeout => talk::broken(&io::ErrorKind::TimedOut.into()),
                StreamUpgradeError::Io(error) => talk::broken(&error),
                StreamUpgradeError::Apply(never) => match never {},
            };
            self.over(info.probe, verdict, 0);
        }
    }
}

/// Hears dial-backs, while a probe is open. See the module.
pub(in crate::network) struct Hears {
    nonces: Nonces,
    arrival: Arrival,
    dial_backs: FuturesSet<bool>,
    strays: u32,
}

/// A dial-back that nobody waits for.
#[derive(Debug)]
pub(in crate::network) struct Stray;

impl Hears {
    pub(super) fn new(nonces: Nonces, arrival: Arrival) -> Self {
        let dial_backs = FuturesSet::new(|| Delay::futures_timer(DIAL_BACK_PATIENCE), MAX_DIAL_BACKS);
        Self { nonces, arrival, dial_backs, strays: 0 }
    }
}

impl ConnectionHandler for Hears {
    type FromBehaviour = Infallible;
    type ToBehaviour = Stray;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<ReadyUpgrade<StreamProtocol>> {
        SubstreamProtocol::new(ReadyUpgrade::new(DIAL_BACK), ())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Stray>> {
        while let Poll::Ready(heard) = self.dial_backs.poll_unpin(cx) {
            self.strays += u32::from(!heard.unwrap_or(false));
        }
        if self.strays > 0 {
            self.strays -= 1;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Stray));
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, ReadyUpgrade<StreamProtocol>, DeniedUpgrade>) {
        let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) = event else {
            return;
        };
        let (nonces, arrival) = (self.nonces.clone(), self.arrival.clone());
        let taken = nonces.any()
            && self.dial_backs.try_push(async move { talk::hear(stream, &nonces, &arrival).await }).is_ok();
        self.strays += u32::from(!taken);
    }
}
