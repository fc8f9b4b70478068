//! Relays: places that others keep for us, circuits through them, and what we relay for others.
//!
//! The core decides all of it: which relay to ask, when to ask again, when to give up. A reservation is a listener of
//! the relay's transport; to renew it is to listen once more, and the older listener then closes by itself.

mod circuits;
mod client;
mod early;
mod quotas;
mod server;
mod transport;

use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

use kinfolk_core::{Address, Circuit, CommandId, Event, PeerId as CorePeerId, Refusal, RelayLimits, ReserveError};
use libp2p::{
    Multiaddr, PeerId,
    core::transport::ListenerId,
    relay,
    swarm::{ConnectionId, NetworkBehaviour},
};

pub(super) use client::{Client, Told};
pub(super) use early::Early;
pub(super) use server::{Served, Server};
pub(super) use transport::{CircuitTransport, relay_of};

use super::{
    Network, errors,
    ids::{address_to_libp2p, peer_to_core, peer_to_libp2p, told_address},
    members::{Members, Services},
};

/// How long a place at our relay is kept, unless it is renewed: what the library gives.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// A relay whose reservations have to be renewed more often than this gives none that are worth it: it keeps us busy.
const SHORTEST: Duration = Duration::from_secs(10);
/// So often in a row, that is.
const TOO_SOON: u32 = 3;

/// The relay client, in three parts that belong together.
pub(super) fn client(local: PeerId) -> (CircuitTransport, (Client, Early)) {
    let (transport, behaviour) = relay::client::new(local);
    let circuits = circuits::Circuits::default();
    let relays = early::Relays::default();
    let transport = CircuitTransport::new(transport, circuits.clone(), relays.clone());
    (transport, (Client::new(behaviour, circuits), Early(relays)))
}

/// The relay server: nobody is served until the core says so.
pub(super) fn server(local: PeerId, limits: &RelayLimits, members: Members, services: Services) -> Server {
    Server::new(local, quotas::Book::new(limits.clone(), members, services), LIFETIME)
}

/// The places that are kept for us, or asked for.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// By relay: the latest command.
    latest: HashMap<PeerId, Reservation>,
    /// All that have not closed yet, with those that a later one has replaced.
    listeners: HashMap<ListenerId, PeerId>,
}

#[derive(Debug)]
struct Reservation {
    command: CommandId,
    listener: ListenerId,
    /// When the relay last said yes to it.
    accepted: Option<Instant>,
    /// How often in a row it was renewed too soon.
    too_soon: u32,
    /// Why the listener is being closed, when we close it.
    ending: Option<ReserveError>,
}

impl<A: NetworkBehaviour> Network<A> {
    pub(super) fn reserve(&mut self, command: CommandId, relay: &CorePeerId, address: &Address) {
        let id = peer_to_libp2p(relay);
        let circuit = Address::Relayed(Box::new(Circuit { relay: *relay, via: Some(address.clone()) }));
        let listened = match address_to_libp2p(&circuit) {
            None => Err(ReserveError::Other("this is no multiaddr".to_owned())),
            // The relay client would dial by itself.
            Some(_) if self.direct_connection(relay).is_none() => Err(ReserveError::ConnectionLost),
            Some(circuit) => self.swarm.listen_on(circuit).map_err(|error| errors::of_reserve_at_once(&error)),
        };
        match listened {
            Ok(listener) => {
                self.reservations.listeners.insert(listener, id);
                let reservation = Reservation { command, listener, accepted: None, too_soon: 0, ending: None };
                self.reservations.latest.insert(id, reservation);
            }
            Err(error) => self.tell(Event::ReservationEnded { reservation: command, error }),
        }
    }

    pub(super) fn unreserve(&mut self, command: CommandId, reservation: CommandId) {
        let known = self.reservations.latest.values_mut().find(|known| known.command == reservation);
        match known {
            Some(known) => {
                known.ending.get_or_insert(ReserveError::Ours);
                let listener = known.listener;
                self.swarm.remove_listener(listener);
            }
            None => self.tell(Event::Refused { command, refusal: Refusal::Gone }),
        }
    }

    pub(super) fn on_relay(&mut self, told: Told) {
        match told {
            Told::Reserved { relay, limit } => {
                let Some(reservation) = self.reservations.latest.get_mut(&relay) else {
                    // It came after all was given back.
                    return self.counters.count("relays.late_answers");
                };
                let now = Instant::now();
                let last = reservation.accepted.replace(now);
                // By the library, which renews when three quarters of the time are over; or one command followed another.
                if last.is_some_and(|last| now.saturating_duration_since(last) < SHORTEST) {
                    self.counters.count("relays.renewed_too_soon");
                    reservation.too_soon += 1;
                    if reservation.too_soon == TOO_SOON {
                        reservation.ending.get_or_insert(ReserveError::Malformed);
                        let listener = reservation.listener;
                        self.swarm.remove_listener(listener);
                    }
                    return;
                }
                reservation.too_soon = 0;
                let reservation = reservation.command;
                self.tell(Event::Reserved { reservation, limit });
            }
            Told::Opened => self.counters.count("relays.circuits"),
            Told::Limited { connection, limit } => {
                if let Some(connection) = self.number(connection) {
                    self.tell(Event::CircuitLimited { connection, limit });
                }
            }
            Told::Used { connection, bytes } => {
                if let Some(connection) = self.number(connection) {
                    self.tell(Event::CircuitUsed { connection, bytes });
                }
            }
        }
    }

    pub(super) fn on_served(&mut self, served: Served) {
        match served {
            Served::Changed { peer, reserved, circuits } => {
                self.tell(Event::Serving { peer: peer_to_core(peer), reserved, circuits });
            }
            Served::Count(name) => self.counters.count(name),
        }
    }

    /// Whether the address is a circuit listener's; then it is told here.
    pub(super) fn on_circuit_listened(&mut self, listener: ListenerId, address: &Multiaddr) -> bool {
        let Some(relay) = self.reservations.listeners.get(&listener) else { return false };
        let known = told_address(address);
        let ours = known.filter(|known| known.relay() == Some(&peer_to_core(*relay)));
        match (ours, self.reservations.latest.get(relay)) {
            (Some(address), Some(reservation)) => {
                let reservation = reservation.command;
                self.tell(Event::ReservedAt { reservation, address });
            }
            // It names another relay, or is overlong.
            (None, _) => self.counters.count("relays.bad_addresses"),
            (Some(_), None) => {}
        }
        true
    }

    /// Whether the listener is a circuit's; then it is told here.
    pub(super) fn on_circuit_listener_closed(&mut self, listener: ListenerId, reason: &io::Result<()>) -> bool {
        let Some(relay) = self.reservations.listeners.remove(&listener) else { return false };
        let latest = self.reservations.latest.get(&relay).is_some_and(|reservation| reservation.listener == listener);
        let Some(latest) = latest.then(|| self.reservations.latest.remove(&relay)).flatten() else {
            self.counters.count("relays.replaced");
            return true;
        };
        let reservation = latest.command;
        let error = match (latest.ending, reason) {
            (Some(error), _) => error,
            (None, Err(error)) => errors::of_reserve(error),
            // The library gives no reason when the connection has ended, and none for anything else of its own.
            (None, Ok(())) => ReserveError::ConnectionLost,
        };
        self.tell(Event::ReservationEnded { reservation, error });
        true
    }

    /// A connection to this peer that leads through no relay, and the other end's address.
    pub(super) fn direct_connection(&self, peer: &CorePeerId) -> Option<(&ConnectionId, &Multiaddr)> {
        let direct = self.connections.iter().filter(|(_, one)| one.peer == *peer && !one.relayed);
        direct.map(|(id, connection)| (id, &connection.remote)).min_by_key(|(id, _)| **id)
    }
}
