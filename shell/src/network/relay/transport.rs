//! Circuits as a transport: those that are dialled, and those that arrive at the places that relays keep for us.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use futures_timer::Delay;
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
    multiaddr::Protocol,
};

use super::{
    circuits::Circuits,
    client::{Arrival, Desk},
    wire::{CircuitError, CircuitStream, Failure},
};
use crate::network::ids::is_relayed;

/// A relay that has not opened a circuit by then will not: the time for one address, with the dial to the relay.
const PATIENCE: Duration = Duration::from_secs(15);

/// See the module.
pub(crate) struct CircuitTransport {
    circuits: Circuits,
    desk: Desk,
    /// All arrivals are this listener's; a place at a relay is none of the swarm's listeners.
    listener: ListenerId,
}

impl CircuitTransport {
    pub(super) fn new(circuits: Circuits, desk: Desk) -> Self {
        Self { circuits, desk, listener: ListenerId::next() }
    }
}

impl Transport for CircuitTransport {
    type Output = CircuitStream;
    type Error = CircuitError;
    type ListenerUpgrade = BoxFuture<'static, Result<CircuitStream, CircuitError>>;
    type Dial = BoxFuture<'static, Result<CircuitStream, CircuitError>>;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<CircuitError>> {
        Err(not_ours(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<CircuitError>> {
        let Some((relay, via, peer)) = ends_of(&address).filter(|_| opts.role.is_dialer()) else {
            return Err(not_ours(address));
        };
        let metered = self.circuits.dial(address);
        let stream = self.desk.wish(relay, via);
        let circuit = async move {
            // Without a word: the connection to the relay has ended.
            let stream = stream.await.unwrap_or(Err(Failure::Unreachable))?;
            CircuitStream::ask(stream, peer, metered, PATIENCE).await
        };
        Ok(async move {
            match select(circuit.boxed(), Delay::new(PATIENCE)).await {
                Either::Left((circuit, _)) => circuit.map_err(CircuitError),
                Either::Right(((), _)) => Err(CircuitError(Failure::TimedOut)),
            }
        }
        .boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, CircuitError>> {
        self.desk.poll_arrival(cx).map(|Arrival { relay, remote, call }| {
            let send_back_addr = Multiaddr::empty().with(Protocol::P2p(call.from));
            let upgrade = call.accept(self.circuits.arriving()).boxed();
            TransportEvent::Incoming {
                listener_id: self.listener,
                upgrade,
                local_addr: through(&remote, relay),
                send_back_addr,
            }
        })
    }
}

/// Nobody else is to try what leads through a relay: TCP would dial whatever address it finds in it.
fn not_ours(address: Multiaddr) -> TransportError<CircuitError> {
    if is_relayed(&address) {
        TransportError::Other(CircuitError(Failure::NoCircuit))
    } else {
        TransportError::MultiaddrNotSupported(address)
    }
}

/// Who relays, by an address with a circuit in it.
pub(in crate::network) fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let mut relay = None;
    for part in address.iter() {
        if let Protocol::P2p(peer) = part {
            relay = Some(peer);
        } else if part == Protocol::P2pCircuit {
            return relay;
        }
    }
    None
}

/// The relay, where it is, and the peer, of an address that leads through one relay to one peer.
fn ends_of(address: &Multiaddr) -> Option<(PeerId, Multiaddr, PeerId)> {
    let parts: Vec<_> = address.iter().collect();
    let at = parts.iter().position(|part| *part == Protocol::P2pCircuit)?;
    match (parts.get(..at)?, parts.get(at + 1..)?) {
        ([via @ .., Protocol::P2p(relay)], [Protocol::P2p(peer)]) => {
            Some((*relay, via.iter().cloned().collect(), *peer))
        }
        _ => None,
    }
}

/// The address of a circuit's end at the relay.
fn through(remote: &Multiaddr, relay: PeerId) -> Multiaddr {
    let plain: Multiaddr =
        remote.iter().take_while(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit)).collect();
    plain.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
}
