//! Which circuits there are, what their relays allow them, and how much of it is used.
//!
//! libp2p does not say which connection a transport's stream becomes. So each circuit is listed here from its begin in
//! the transport, where its bytes pass, and bound to the connection that it becomes:
//!
//! - The swarm asks the behaviours before it dials, and then calls the transport, in one go: the dial that was asked
//!   about last is the one whose addresses the transport gets.
//! - It takes one arrival at a time from the transport, and asks the behaviours about it before it takes the next: the
//!   arrival that was given last is the one asked about, if it is asked about at all.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use kinfolk_core::CircuitLimit;
use libp2p::{
    Multiaddr,
    swarm::{ConnectionId, FromSwarm},
};

/// Use is told in so many steps.
const STEPS: u64 = 10;
/// No step is told.
const NEVER: u64 = u64::MAX;

/// What a relay allows. `None`: no limit.
pub(super) type Limit = Option<CircuitLimit>;

/// See the module. A clone is the same table.
#[derive(Clone, Default, Debug)]
pub(super) struct Circuits(Arc<Mutex<Table>>);

#[derive(Default, Debug)]
struct Table {
    dialling: Option<ConnectionId>,
    arriving: Option<Arc<Meter>>,
    /// A dial has one for each of its addresses that leads through a relay, a connection has one or none.
    of: HashMap<ConnectionId, Vec<Circuit>>,
    /// Connections of which a step of use is to be told.
    news: VecDeque<ConnectionId>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Circuit {
    /// What was dialled.
    address: Option<Multiaddr>,
    stands: bool,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Meter {
    limit: OnceLock<CircuitLimit>,
    used: AtomicU64,
    /// The use of which the table is told.
    mark: AtomicU64,
    connection: OnceLock<ConnectionId>,
}

impl Circuits {
    /// The swarm is about to dial.
    pub(super) fn dialling(&self, dial: ConnectionId) {
        self.lock().dialling = Some(dial);
    }

    /// The transport is asked to dial `address`.
    pub(super) fn dial(&self, address: Multiaddr) -> Metered {
        let mut table = self.lock();
        let meter = Arc::new(Meter::default());
        if let Some(dial) = table.dialling {
            meter.bind(dial);
            let circuit = Circuit { address: Some(address), stands: false, meter: Arc::clone(&meter) };
            table.of.entry(dial).or_default().push(circuit);
        }
        drop(table);
        Metered { meter, circuits: self.clone() }
    }

    /// The transport gives the swarm a circuit that has come in.
    pub(super) fn arriving(&self) -> Metered {
        let meter = Arc::new(Meter::default());
        self.lock().arriving = Some(Arc::clone(&meter));
        Metered { meter, circuits: self.clone() }
    }

    /// The swarm asks about the circuit that has come in last.
    pub(super) fn arrived(&self, connection: ConnectionId) {
        let mut table = self.lock();
        let Some(meter) = table.arriving.take() else { return };
        meter.bind(connection);
        table.of.insert(connection, vec![Circuit { address: None, stands: false, meter }]);
    }

    /// What the swarm says of connections. The limit comes back of a circuit that stands from now on: its relay has
    /// said it, before the first byte of the peer's came through.
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
        let limit = circuit.meter.limit.get().copied();
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
            if let Some(used) = circuit.and_then(|circuit| circuit.meter.step()) {
                return Poll::Ready((id, used));
            }
        }
        table.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn tell(&mut self, id: ConnectionId) {
        if !self.news.contains(&id) {
            self.news.push_back(id);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        let mark = AtomicU64::new(NEVER);
        Self { limit: OnceLock::new(), used: AtomicU64::new(0), mark, connection: OnceLock::new() }
    }
}

impl Meter {
    fn bind(&self, connection: ConnectionId) {
        // A circuit becomes one connection only.
        let _ = self.connection.set(connection);
    }

    /// The use, if a step is passed. The next step becomes the mark.
    fn step(&self) -> Option<u64> {
        let step = step_of(self.limit.get()?.bytes?);
        let used = self.used.load(Ordering::Relaxed);
        if used < self.mark.load(Ordering::Relaxed) {
            return None;
        }
        self.mark.store((used / step + 1).saturating_mul(step), Ordering::Relaxed);
        Some(used)
    }
}

fn step_of(bytes: u64) -> u64 {
    (bytes / STEPS).max(1)
}

/// Where a circuit's bytes are counted. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Metered {
    meter: Arc<Meter>,
    circuits: Circuits,
}

impl Metered {
    /// The relay has opened the circuit, and allows it this.
    pub(super) fn allow(&self, limit: Limit) {
        let Some(limit) = limit else { return };
        if let Some(bytes) = limit.bytes {
            self.meter.mark.store(step_of(bytes), Ordering::Relaxed);
        }
        // A circuit is opened once.
        let _ = self.meter.limit.set(limit);
    }

    /// Counts what was read or written.
    pub(super) fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            let used = self.meter.used.fetch_add(*bytes as u64, Ordering::Relaxed) + *bytes as u64;
            if used >= self.meter.mark.load(Ordering::Relaxed)
                && let Some(connection) = self.meter.connection.get()
            {
                self.circuits.lock().tell(*connection);
            }
        }
        result
    }
}
