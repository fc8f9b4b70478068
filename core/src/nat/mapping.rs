//! What the NAT in front of us does with ports, as far as others' eyes tell.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use super::own::Kind;
use crate::{
    cx::Here,
    vocabulary::{Address, ConnectionId, Mapping},
};

/// Where the peers that we have dialled see us coming from, for as long as the connections stand.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(super) struct Sightings {
    by_connection: BTreeMap<ConnectionId, Sighting>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Sighting {
    observer: IpAddr,
    seen: Address,
}

/// Sightings kept: the latest.
const MAX_SIGHTINGS: usize = 64;

impl Sightings {
    /// Says whether that is news.
    pub(super) fn seen(&mut self, connection: ConnectionId, observer: IpAddr, seen: &Address) -> bool {
        let sighting = Sighting { observer, seen: seen.clone() };
        let before = self.by_connection.insert(connection, sighting);
        if self.by_connection.len() > MAX_SIGHTINGS {
            self.by_connection.pop_first();
        }
        before.as_ref() != self.by_connection.get(&connection)
    }

    pub(super) fn ended(&mut self, connection: ConnectionId) {
        self.by_connection.remove(&connection);
    }

    pub(super) fn forget_the_network(&mut self) {
        self.by_connection.clear();
    }

    /// Two observers that agree outweigh one that does not: it may lie, or have been dialled from another port. An
    /// observer counts once, however many connections it has.
    pub(super) fn mapping(&self, here: &Here, kind: Kind) -> Mapping {
        let mut seen_by: BTreeMap<&Address, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut observers = BTreeSet::new();
        for Sighting { observer, seen } in self.of(kind) {
            seen_by.entry(seen).or_default().insert(*observer);
            observers.insert(*observer);
        }
        let Some((most_seen, agreed)) = seen_by.iter().max_by_key(|(_, observers)| observers.len()) else {
            return Mapping::Unknown;
        };
        let (agreed, others) = (agreed.len(), observers.len() - agreed.len());
        let is_own = |ip: IpAddr| here.interfaces.addresses.iter().any(|own| own.ip == ip);
        if most_seen.host_ip().is_some_and(is_own) {
            Mapping::None
        } else if agreed >= 2 && agreed > others {
            Mapping::Independent
        } else if observers.len() >= 2 {
            Mapping::PerDestination
        } else {
            Mapping::Unknown
        }
    }

    /// The IPv4 address at which at least two observers see us, by whatever transport and port.
    pub(super) fn public_v4(&self) -> Option<IpAddr> {
        let mut seen_by: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
        for Sighting { observer, seen } in self.by_connection.values() {
            if let Some(ip) = seen.host_ip().filter(IpAddr::is_ipv4) {
                seen_by.entry(ip).or_default().insert(*observer);
            }
        }
        let most = seen_by.into_iter().max_by_key(|(_, observers)| observers.len());
        most.filter(|(_, observers)| observers.len() >= 2).map(|(ip, _)| ip)
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Sighting> {
        self.by_connection.values().filter(move |sighting| Kind::of(&sighting.seen) == Some(kind))
    }
}

/// Families and transports that are listened on.
pub(super) fn listened(here: &Here) -> BTreeSet<Kind> {
    here.listening.iter().filter_map(Kind::of).collect()
}
