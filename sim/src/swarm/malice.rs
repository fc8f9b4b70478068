//! Hostile peers: real programs otherwise, which lie, flood and drop. Nothing that they do is checked; what they do to
//! others is what the checks are for.

use std::net::{IpAddr, Ipv4Addr};

use kinfolk_core::{Address, CommandId, Identity, Transport};
use serde::Deserialize;
use smallvec::SmallVec;

use super::{
    Addresses, What, World,
    dialing::Asker,
    kademlia::{K, Topic, place_of_topic},
    peer_id,
};
use crate::engine::{Dice, Key, MILLI, Moment, Purpose, SECOND};

/// What a hostile node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Malice {
    /// It tells of addresses without end that nobody is at: its own, and in look-ups those of others.
    AddressFlood,
    /// It tells everyone that they come from elsewhere.
    LyingObserver,
    /// It says of each address that it could not be reached, and does not try.
    LyingProbes,
    /// It has made itself an id beside the key under which a network's members find each other, names nobody but others
    /// like it, and keeps what it is told to itself.
    Sybil,
    /// It gives places and opens circuits, and cuts them after a second.
    DroppingRelay,
    /// It connects to one after the other, and drops each connection.
    ConnectDrop,
}

/// How often somebody is connected to and dropped.
const PACE: u64 = SECOND / 2;
/// A dropping relay's patience.
const CUT: u64 = SECOND;
/// Numbers of dials that no core has asked for.
const FIRST_DIAL: u64 = 1 << 50;

impl World {
    pub(super) fn malice(&self, node: u32) -> Option<Malice> {
        self.machines[node as usize].malice
    }

    /// A hostile program has started.
    pub(super) fn start_malice(&mut self, node: u32) {
        if self.malice(node) == Some(Malice::ConnectDrop) {
            self.queue.push(self.now + PACE, node, What::Malice(0));
        }
    }

    /// Drops whom it has connected to, and connects to the next one.
    pub(super) fn malice_due(&mut self, node: u32, turn: u64) {
        if !self.machines[node as usize].on {
            return;
        }
        let dropped: Vec<Key> = self.machines[node as usize].conns.iter().map(|one| one.key).collect();
        let own = |key: &Key| self.conns.get(*key).is_some_and(|conn| conn.ends[0].node == node);
        for key in dropped.into_iter().filter(own).collect::<Vec<_>>() {
            self.close(node, key);
        }
        self.queue.push(self.now + PACE, node, What::Malice(turn + 1));
        let all = self.machines.len() as u64;
        let victim = self.machines[node as usize].dice.below(all) as u32;
        let addresses: Vec<Address> = self.machines[victim as usize]
            .advertised
            .iter()
            .filter(|address| !address.is_relayed())
            .take(4)
            .cloned()
            .collect();
        if victim != node && !addresses.is_empty() {
            let command = CommandId(FIRST_DIAL + turn);
            self.dial(node, Asker::Core(command), Some(peer_id(victim)), &addresses);
        }
    }

    /// What it says of itself.
    pub(super) fn introduced(&self, node: u32, identity: &mut Identity) {
        if self.malice(node) == Some(Malice::AddressFlood) {
            let mut dice = invention(node, self.now);
            identity.addresses = (0..32).map(|_| invented(&mut dice)).collect();
        }
    }

    /// Where it says that it sees somebody.
    pub(super) fn observed_by(&self, node: u32, observed: Address) -> Address {
        if self.malice(node) == Some(Malice::LyingObserver) && !observed.is_relayed() {
            invented(&mut invention(node, self.now))
        } else {
            observed
        }
    }

    /// Whom it names in a look-up. `None`: whom an honest one would.
    pub(super) fn named_by(&self, node: u32) -> Option<SmallVec<[(u32, Addresses); K]>> {
        match self.malice(node)? {
            Malice::AddressFlood => {
                let mut dice = invention(node, self.now);
                let all = self.machines.len() as u64;
                let name = |_| {
                    let addresses: Vec<Address> = (0..8).map(|_| invented(&mut dice)).collect();
                    (dice.below(all) as u32, Addresses::from(addresses))
                };
                Some((0..K).map(name).collect())
            }
            Malice::Sybil => {
                let others = (0..).zip(&self.machines).filter(|(_, machine)| machine.malice == Some(Malice::Sybil));
                let known = others.map(|(other, machine)| {
                    let own = machine.advertised.iter().filter(|address| !address.is_relayed()).cloned();
                    (other, own.collect::<Addresses>())
                });
                let from = (self.now / SECOND) as usize;
                let known: Vec<_> = known.filter(|(other, own)| *other != node && !own.is_empty()).collect();
                let count = known.len();
                Some(known.into_iter().cycle().skip(from % count.max(1)).take(K.min(count)).collect())
            }
            Malice::LyingObserver | Malice::LyingProbes | Malice::DroppingRelay | Malice::ConnectDrop => None,
        }
    }

    /// Whether it keeps what it is told to itself.
    pub(super) fn conceals(&self, node: u32) -> bool {
        self.malice(node) == Some(Malice::Sybil)
    }

    /// A circuit through it stands.
    pub(super) fn may_cut(&mut self, relay: u32, circuit: Key) {
        if self.malice(relay) == Some(Malice::DroppingRelay) {
            self.queue.push(self.now + CUT, relay, What::CircuitOver(circuit));
        }
    }
}

/// Where a hostile node puts itself in the hash table of a network. `None`: where its id lies.
pub(super) fn place(malice: Malice, network: &str, index: u32) -> Option<u64> {
    // So near that nobody honest is nearer.
    (malice == Malice::Sybil).then(|| place_of_topic(Topic::Members, network) ^ u64::from(index))
}

fn invention(node: u32, now: Moment) -> Dice {
    Dice::new(now / (50 * MILLI), node, Purpose::Malice)
}

/// An address that could be anybody's, and is nobody's.
pub(super) fn invented(dice: &mut Dice) -> Address {
    let ip = Ipv4Addr::from(0x5000_0000 + dice.below(1 << 24) as u32);
    let transport = if dice.happens(500_000) { Transport::Quic } else { Transport::Tcp };
    Address::ip(IpAddr::V4(ip), 1_024 + dice.below(60_000) as u16, transport)
}
