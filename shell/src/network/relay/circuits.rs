//! Which circuits there are, what their relays allow them, and how much of it is used.
//!
//! libp2p tells a circuit's limit apart from its connection, and counts no bytes. So each circuit is listed here from
//! its begin in the transport, where its bytes pass, and bound to the connection that it becomes:
//!
//! - The swarm asks the behaviours before it dials, and then calls the transport, in one go: the dial that was asked
//!   about last is the one whose addresses the transport gets.
//! - It takes one arrival at a time from the transport, and asks the behaviours about it before it takes the next: the
//!   arrival that was given last is the one asked about, if it is asked about at all.
//! - Limits come by relay (and by source, of an inbound circuit) in the order of the circuits. Two circuits that begin
//!   at once through one relay may get each other's, which matters only if that relay gives each another.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite, future::Either};
use kinfolk_core::CircuitLimit;
use libp2p::{
    Multiaddr, PeerId,
    relay::client::Connection,
    swarm::{ConnectionId, FromSwarm},
};

use super::early::Asked;

/// Limits that have come before their circuits. More are lost.
const MAX_EARLY: usize = 64;
/// Use is told in so many steps.
const STEPS: u64 = 10;
/// No step is told.
const NEVER: u64 = u64::MAX;

/// See the module. A clone is the same table.
#[derive(Clone, Default, Debug)]
pub(super) struct Circuits(Arc<Mutex<Table>>);

#[derive(Default, Debug)]
struct Table {
    dialling: Option<ConnectionId>,
    arriving: Option<Circuit>,
    /// A dial has one for each of its addresses that leads through a relay, a connection has one or none.
    of: HashMap<ConnectionId, Vec<Circuit>>,
    early: VecDeque<(PeerId, Option<PeerId>, Limit)>,
    opened: u64,
    /// Of those, which [`Circuits::said`] has not been asked about.
    unsaid: u64,
    /// Connections of which a step of use is to be told.
    news: VecDeque<ConnectionId>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Circuit {
    relay: PeerId,
    /// Where the other side is, as far as is known: an inbound circuit's source.
    from: Option<PeerId>,
    /// What was dialled.
    address: Option<Multiaddr>,
    /// Of those that the relay has opened, which it was.
    opened: Option<u64>,
    limit: Option<Limit>,
    stands: bool,
    meter: Arc<Meter>,
}

/// What a relay allows. `None`: no limit.
pub(super) type Limit = Option<CircuitLimit>;

#[derive(Debug)]
struct Meter {
    used: AtomicU64,
    /// The use of which the table is told.
    mark: AtomicU64,
    connection: Mutex<Option<ConnectionId>>,
}

impl Circuits {
    /// The swarm is about to dial.
    pub(super) fn dialling(&self, dial: ConnectionId) {
        self.lock().dialling = Some(dial);
    }

    /// The transport is asked to dial `address` through `relay`.
    pub(super) fn dial(&self, relay: PeerId, address: Multiaddr) -> Metered {
        let mut table = self.lock();
        let meter = Meter::new(table.dialling);
        if let Some(dial) = table.dialling {
            let meter = Arc::clone(&meter);
            let address = Some(address);
            let circuit = Circuit { relay, from: None, address, opened: None, limit: None, stands: false, meter };
            table.of.entry(dial).or_default().push(circuit);
        }
        drop(table);
        Metered { meter, circuits: self.clone() }
    }

    /// The relay has opened a circuit that was dialled.
    pub(super) fn opened(&self, metered: &Metered) {
        let mut table = self.lock();
        let Some(relay) = table.open(&metered.meter).map(|circuit| circuit.relay) else { return };
        if let Some(limit) = table.take_early(relay, None)
            && let Some(circuit) = table.find(&metered.meter)
        {
            circuit.allow(limit);
        }
    }

    /// The transport gives the swarm a circuit that has come in.
    pub(super) fn arriving(&self, relay: PeerId, from: PeerId) -> Metered {
        let meter = Meter::new(None);
        let circuit = Circuit {
            relay,
            from: Some(from),
            address: None,
            opened: None,
            limit: None,
            stands: false,
            meter: Arc::clone(&meter),
        };
        self.lock().arriving = Some(circuit);
        Metered { meter, circuits: self.clone() }
    }

    /// The swarm asks about the circuit that has come in last.
    pub(super) fn arrived(&self, connection: ConnectionId) {
        let mut table = self.lock();
        let Some(mut circuit) = table.arriving.take() else { return };
        circuit.meter.bind(connection);
        if let Some(limit) = table.take_early(circuit.relay, circuit.from) {
            circuit.allow(limit);
        }
        table.of.insert(connection, vec![circuit]);
    }

    /// A relay has said what it allows: `from` whom the circuit comes, or `None` for one that we have dialled. The
    /// connection comes back, if it stands.
    pub(super) fn limit(&self, relay: PeerId, from: Option<PeerId>, limit: Limit) -> Option<ConnectionId> {
        let mut table = self.lock();
        let waiting = table.of.iter_mut().flat_map(|(id, circuits)| circuits.iter_mut().map(move |one| (*id, one)));
        let waiting = waiting.filter(|(_, circuit)| {
            let begun = from.is_some() || circuit.opened.is_some();
            circuit.relay == relay && circuit.from == from && circuit.limit.is_none() && begun
        });
        // Connections are numbered in the order of their arrival.
        if let Some((id, circuit)) = waiting.min_by_key(|(id, circuit)| (circuit.opened, *id)) {
            circuit.allow(limit);
            return circuit.stands.then_some(id);
        }
        if table.early.len() == MAX_EARLY {
            table.early.pop_front();
        }
        table.early.push_back((relay, from, limit));
        None
    }

    /// What the swarm says of connections. The limit comes back of a circuit that stands from now on.
    pub(super) fn on_swarm_event(&self, event: &FromSwarm<'_>) -> Option<(ConnectionId, CircuitLimit)> {
        if let FromSwarm::ConnectionEstablished(established) = event {
            let id = established.connection_id;
            return self.stands(id, established.endpoint.get_remote_address()).map(|limit| (id, limit));
        }
        let ended = if let FromSwarm::ConnectionClosed(closed) = event {
            closed.connection_id
        } else if let FromSwarm::DialFailure(failure) = event {
            failure.connection_id
        } else if let FromSwarm::ListenFailure(failure) = event {
            failure.connection_id
        } else {
            return None;
        };
        self.lock().of.remove(&ended);
        None
    }

    fn stands(&self, id: ConnectionId, address: &Multiaddr) -> Limit {
        let mut table = self.lock();
        let circuits = table.of.remove(&id)?;
        let mut circuit =
            circuits.into_iter().find(|circuit| circuit.address.as_ref().is_none_or(|dialled| dialled == address))?;
        circuit.stands = true;
        let limit = circuit.limit.flatten();
        let passed = circuit.meter.used.load(Ordering::Relaxed) >= circuit.meter.mark.load(Ordering::Relaxed);
        table.of.insert(id, vec![circuit]);
        if passed {
            table.tell(id);
        }
        limit
    }

    /// A connection of which another tenth is used, and how much that is in all.
    pub(super) fn poll_used(&self, cx: &mut Context<'_>) -> Poll<(ConnectionId, u64)> {
        let mut table = self.lock();
        while let Some(id) = table.news.pop_front() {
            let circuit = table.of.get(&id).and_then(|circuits| circuits.iter().find(|circuit| circuit.stands));
            if let Some(circuit) = circuit
                && let Some(used) = circuit.step()
            {
                return Poll::Ready((id, used));
            }
        }
        table.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether another circuit was opened without the library's client.
    pub(super) fn said(&self) -> bool {
        let mut table = self.lock();
        let some = table.unsaid > 0;
        table.unsaid = table.unsaid.saturating_sub(1);
        some
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn open(&mut self, meter: &Arc<Meter>) -> Option<&mut Circuit> {
        self.opened += 1;
        let number = self.opened;
        let circuit = self.find(meter)?;
        circuit.opened = Some(number);
        Some(circuit)
    }

    fn find(&mut self, meter: &Arc<Meter>) -> Option<&mut Circuit> {
        let id = meter.connection()?;
        self.of.get_mut(&id)?.iter_mut().find(|circuit| Arc::ptr_eq(&circuit.meter, meter))
    }

    fn take_early(&mut self, relay: PeerId, from: Option<PeerId>) -> Option<Limit> {
        let at = self.early.iter().position(|(of, to, _)| (*of, *to) == (relay, from))?;
        self.early.remove(at).map(|(.., limit)| limit)
    }

    fn tell(&mut self, id: ConnectionId) {
        if !self.news.contains(&id) {
            self.news.push_back(id);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Circuit {
    fn allow(&mut self, limit: Limit) {
        self.limit = Some(limit);
        if let Some(bytes) = limit.and_then(|limit| limit.bytes) {
            self.meter.mark.store(step_of(bytes), Ordering::Relaxed);
        }
    }

    /// The use, if a step is passed. The next step becomes the mark.
    fn step(&self) -> Option<u64> {
        let step = step_of(self.limit.flatten()?.bytes?);
        let used = self.meter.used.load(Ordering::Relaxed);
        if used < self.meter.mark.load(Ordering::Relaxed) {
            return None;
        }
        self.meter.mark.store((used / step + 1).saturating_mul(step), Ordering::Relaxed);
        Some(used)
    }
}

fn step_of(bytes: u64) -> u64 {
    (bytes / STEPS).max(1)
}

impl Meter {
    fn new(connection: Option<ConnectionId>) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), mark: AtomicU64::new(NEVER), connection: Mutex::new(connection) })
    }

    fn bind(&self, connection: ConnectionId) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }

    fn connection(&self) -> Option<ConnectionId> {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a circuit's bytes are counted. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Metered {
    meter: Arc<Meter>,
    circuits: Circuits,
}

impl Metered {
    /// The relay has opened the circuit, which was dialled, and allows it this.
    pub(super) fn open(&self, limit: Limit) {
        let mut table = self.circuits.lock();
        if let Some(circuit) = table.open(&self.meter) {
            circuit.allow(limit);
        }
        table.unsaid += 1;
    }

    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            let used = self.meter.used.fetch_add(*bytes as u64, Ordering::Relaxed) + *bytes as u64;
            if used >= self.meter.mark.load(Ordering::Relaxed)
                && let Some(connection) = self.meter.connection()
            {
                self.circuits.lock().tell(connection);
            }
        }
        result
    }
}

/// A circuit that counts its bytes, as the relay does: all of them, both ways.
pub(crate) struct Counted {
    /// The library's, which waited for the relay, or one that did not.
    pub(super) circuit: Either<Connection, Asked>,
    pub(super) metered: Metered,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.circuit).poll_read(cx, buf);
        self.metered.count(read)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.circuit).poll_read_vectored(cx, bufs);
        self.metered.count(read)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.circuit).poll_write(cx, buf);
        self.metered.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.circuit).poll_write_vectored(cx, bufs);
        self.metered.count(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.circuit).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.circuit).poll_close(cx)
    }
}
