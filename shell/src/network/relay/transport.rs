//! The relay client's transport, with what the library's leaves out: who the relay of an arriving circuit is, a bound on
//! the addresses that a relay may give us, an end to dials that take too long, and a count of bytes.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, Either, select},
};
use futures_timer::Delay;
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
    multiaddr::Protocol,
    relay::client,
};

use super::{
    circuits::{Circuits, Counted},
    early::{Asked, Relays},
};

/// A relay that has not opened a circuit by then will not: the time for one address, with the dial to the relay.
const PATIENCE: Duration = Duration::from_secs(15);
/// Addresses of one reservation; more are not listened on. Each relay's answer may hold about 100.
const MAX_ADDRESSES: usize = 8;

/// See the module.
pub(crate) struct CircuitTransport {
    inner: client::Transport,
    circuits: Circuits,
    relays: Relays,
    listeners: HashMap<ListenerId, Listener>,
}

struct Listener {
    relay: PeerId,
    addresses: Vec<Multiaddr>,
}

/// What goes wrong with a circuit. A type of its own, because the `Either`s that libp2p's upgrades put around it show
/// only what lies below the error in them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CircuitError {
    /// The relay client's own error.
    #[error("{0}")]
    Client(#[source] client::transport::Error),
    /// It took too long.
    #[error("the relay has not opened a circuit in time")]
    TimedOut(#[source] io::Error),
}

impl CircuitTransport {
    pub(super) fn new(inner: client::Transport, circuits: Circuits, relays: Relays) -> Self {
        Self { inner, circuits, relays, listeners: HashMap::new() }
    }
}

impl Transport for CircuitTransport {
    type Output = Counted;
    type Error = CircuitError;
    type ListenerUpgrade = BoxFuture<'static, Result<Counted, CircuitError>>;
    type Dial = BoxFuture<'static, Result<Counted, CircuitError>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<CircuitError>> {
        let relay = relay_of(&address);
        self.inner.listen_on(id, address).map_err(|error| error.map(CircuitError::Client))?;
        if let Some(relay) = relay {
            self.listeners.insert(id, Listener { relay, addresses: vec![] });
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<CircuitError>> {
        if let Some((relay, peer)) = ends_of(&address).filter(|_| opts.role.is_dialer())
            && let Some(stream) = self.relays.stream(relay)
        {
            let metered = self.circuits.dial(relay, address);
            return Ok(async move {
                let stream = stream.await.map_err(client::transport::Error::from);
                let stream = stream.and_then(|stream| Ok(stream?)).map_err(CircuitError::Client)?;
                let asked = Asked::send(stream, peer, metered.clone(), PATIENCE).await;
                let asked = asked.map_err(|error| CircuitError::Client(error.into()))?;
                Ok(Counted { circuit: Either::Right(asked), metered })
            }
            .boxed());
        }
        let dial = self.inner.dial(address.clone(), opts).map_err(|error| error.map(CircuitError::Client))?;
        // Without a relay in it, the library has refused it.
        let Some(relay) = relay_of(&address) else { return Err(TransportError::MultiaddrNotSupported(address)) };
        let metered = self.circuits.dial(relay, address);
        let circuits = self.circuits.clone();
        Ok(async move {
            match select(dial, Delay::new(PATIENCE)).await {
                Either::Left((circuit, _)) => {
                    let circuit = circuit.map_err(CircuitError::Client)?;
                    circuits.opened(&metered);
                    Ok(Counted { circuit: Either::Left(circuit), metered })
                }
                Either::Right(((), _)) => Err(CircuitError::TimedOut(io::ErrorKind::TimedOut.into())),
            }
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, CircuitError>> {
        while let Poll::Ready(event) = Pin::new(&mut self.inner).poll(cx) {
            match event {
                TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                    let Some(relay) = self.listeners.get(&listener_id).map(|listener| listener.relay) else { continue };
                    let Some(Protocol::P2p(from)) = send_back_addr.iter().next() else { continue };
                    let metered = self.circuits.arriving(relay, from);
                    let upgrade = upgrade
                        .map_ok(|circuit| Counted { circuit: Either::Left(circuit), metered })
                        .map_err(CircuitError::Client)
                        .boxed();
                    let local_addr = through(&local_addr, relay);
                    return Poll::Ready(TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr });
                }
                TransportEvent::NewAddress { listener_id, listen_addr } => {
                    let Some(listener) = self.listeners.get_mut(&listener_id) else { continue };
                    if listener.addresses.contains(&listen_addr) || listener.addresses.len() == MAX_ADDRESSES {
                        continue;
                    }
                    listener.addresses.push(listen_addr.clone());
                    return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
                }
                TransportEvent::ListenerClosed { listener_id, reason } => {
                    self.listeners.remove(&listener_id);
                    let reason = reason.map_err(CircuitError::Client);
                    return Poll::Ready(TransportEvent::ListenerClosed { listener_id, reason });
                }
                TransportEvent::AddressExpired { listener_id, listen_addr } => {
                    return Poll::Ready(TransportEvent::AddressExpired { listener_id, listen_addr });
                }
                TransportEvent::ListenerError { listener_id, error } => {
                    let error = CircuitError::Client(error);
                    return Poll::Ready(TransportEvent::ListenerError { listener_id, error });
                }
            }
        }
        Poll::Pending
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

/// The relay and the peer of an address that leads through one relay to one peer.
fn ends_of(address: &Multiaddr) -> Option<(PeerId, PeerId)> {
    let parts: Vec<_> = address.iter().collect();
    let at = parts.iter().position(|part| *part == Protocol::P2pCircuit)?;
    match (parts.get(at.checked_sub(1)?)?, parts.get(at + 1..)?) {
        (Protocol::P2p(relay), [Protocol::P2p(peer)]) => Some((*relay, *peer)),
        _ => None,
    }
}

/// The address of a circuit's end at the relay, which the library gives with or without the relay's id.
fn through(local: &Multiaddr, relay: PeerId) -> Multiaddr {
    let plain: Multiaddr =
        local.iter().take_while(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit)).collect();
    plain.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
}
