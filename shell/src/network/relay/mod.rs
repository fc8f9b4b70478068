//! Relays: places that others keep for us, circuits through them, and what we relay for others.
//!
//! The core decides all of it: which relay to ask, when to ask again, when to give up.

mod circuits;
mod client;
mod handler;
mod quotas;
mod server;
mod transport;
mod wire;

use std::time::Duration;

use kinfolk_core::{Address, Circuit, CommandId, Event, PeerId as CorePeerId, Refusal, RelayLimits, ReserveError};
use libp2p::{
    Multiaddr, PeerId,
    multiaddr::Protocol,
    swarm::{ConnectionId, NetworkBehaviour},
};

pub(super) use client::{Client, Told};
pub(super) use server::{Served, Server};
pub(super) use transport::{CircuitTransport, relay_of};
pub(super) use wire::Failure;

use super::{
    Network,
    ids::{self, peer_to_core, peer_to_libp2p, told_address},
    members::{Members, Services},
};

/// How long a place at our relay is kept, unless it is renewed: what the library gives.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// Addresses of one place; more are not heeded. Each relay's answer may hold about 100.
const MAX_ADDRESSES: usize = 8;

/// The relay client, in two parts that belong together.
pub(super) fn client() -> (CircuitTransport, Client) {
    let desk = client::Desk::default();
    let circuits = circuits::Circuits::default();
    (CircuitTransport::new(circuits.clone(), desk.clone()), Client::new(desk, circuits))
}

/// The relay server: nobody is served until the core says so.
pub(super) fn server(local: PeerId, limits: &RelayLimits, members: Members, services: Services) -> Server {
    Server::new(local, quotas::Book::new(limits.clone(), members, services), LIFETIME)
}

impl<A: NetworkBehaviour> Network<A> {
    /// Asks a relay for a place, over the connection that stands.
    pub(super) fn reserve(&mut self, command: CommandId, relay: &CorePeerId) {
        let client = self.swarm.behaviour_mut().relay.inner_mut();
        if !client.reserve(command, peer_to_libp2p(relay)) {
            self.tell(Event::ReservationEnded { reservation: command, error: ReserveError::ConnectionLost });
        }
    }

    pub(super) fn unreserve(&mut self, command: CommandId, reservation: CommandId) {
        let known = self.swarm.behaviour_mut().relay.inner_mut().unreserve(reservation);
        self.tell(if known {
            Event::ReservationEnded { reservation, error: ReserveError::Ours }
        } else {
            Event::Refused { command, refusal: Refusal::Gone }
        });
    }

    pub(super) fn on_relay(&mut self, told: Told) {
        match told {
            Told::Reserved { command: reservation, relay, kept } => {
                self.tell(Event::Reserved { reservation, limit: kept.limit, lasts: kept.lasts });
                for address in kept.addresses.iter().take(MAX_ADDRESSES) {
                    match place_at(relay, address) {
                        Some(address) => self.tell(Event::ReservedAt { reservation, address }),
                        // It names another relay, or is overlong.
                        None => self.counters.count("relays.bad_addresses"),
                    }
                }
            }
            Told::Ended { command: reservation, error } => self.tell(Event::ReservationEnded { reservation, error }),
            Told::Late => self.counters.count("relays.late_answers"),
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

    /// A connection to this peer that leads through no relay, and the other end's address.
    pub(super) fn direct_connection(&self, peer: &CorePeerId) -> Option<(&ConnectionId, &Multiaddr)> {
        let direct = self.connections.iter().filter(|(_, one)| one.peer == *peer && !one.relayed);
        direct.map(|(id, connection)| (id, &connection.remote)).min_by_key(|(id, _)| **id)
    }
}

/// Where others reach us through `relay`, by what it says of where it is.
fn place_at(relay: PeerId, address: &Multiaddr) -> Option<Address> {
    if let Some(Protocol::P2p(named)) = address.iter().last()
        && named != relay
    {
        return None;
    }
    let via = told_address(&ids::without_peer(address.clone())).filter(|via| !via.is_relayed())?;
    Some(Address::Relayed(Box::new(Circuit { relay: peer_to_core(relay), via: Some(via) })))
}
