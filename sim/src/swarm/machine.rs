//! A machine that runs Kinfolk: its core, its clock, and what its program remembers.

use std::collections::BTreeMap;

use kinfolk_core::{
    Address, Audience, CommandId, Config, ConnectionId, Deadline, Event, HeldId, Identity, Node, PeerId, Started,
    StoredNat, StoredPeer, Time, Transport, ValidConfig,
};
use smallvec::SmallVec;

use super::{Addresses, Malice, What, World, kademlia::Shelf, kademlia::Table, relay::Serving};
use crate::{
    engine::{Dice, Key, MILLI, Moment, Purpose, SECOND},
    record::Recording,
};

/// What a machine is given.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The node's settings.
    pub config: ValidConfig,
    /// Wakes come up to this much late, in nanoseconds.
    pub slack: u64,
    /// How wrong the wall clock is, in seconds.
    pub clock_offset: i64,
    /// Whether the operating system vouches for the wall clock.
    pub synced: bool,
    /// By how much the machine's clock runs fast, in millionths.
    pub drift: i32,
    /// Whether another program has the ports that the settings name.
    pub ports_taken: bool,
    /// Whether it is hostile, and how.
    pub malice: Option<Malice>,
}

/// How a program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Politely: it closes its connections.
    Farewell,
    /// Killed: the operating system resets its TCP connections, QUIC peers hear nothing.
    Killed,
    /// The power is gone: nobody hears anything.
    Power,
}

/// See the module.
pub struct Machine {
    /// The node.
    pub core: Node,
    /// Its id.
    pub id: PeerId,
    /// Where its id lies in the hash table.
    pub place: u64,
    /// What it was given.
    pub setup: Setup,
    /// Whether it is hostile, and how.
    pub malice: Option<Malice>,
    /// Whether the program runs.
    pub on: bool,
    /// Whether the machine is suspended.
    pub asleep: bool,
    /// Whether it has power, and whether its cable is in: troubles that overlap end one by one.
    powered: bool,
    cabled: bool,
    /// How often it was started.
    pub run: u32,
    /// When it was started last.
    pub started: Moment,
    pub(super) asleep_since: Moment,
    pub(super) armed: Moment,
    pub(super) recorded: bool,
    /// Its core forgets its deadlines of this kind.
    #[cfg(feature = "museum")]
    pub(super) forgets: Option<kinfolk_core::DeadlineReason>,
    pub(super) dice: Dice,
    pub(super) requests: u64,
    /// Connections that stand, by number.
    pub(super) conns: Vec<Standing>,
    pub(super) last_connection: u64,
    pub(super) last_listener: u64,
    pub(super) last_held: u64,
    pub(super) last_offer: u64,
    pub(super) last_port: u16,
    pub(super) listeners: SmallVec<[Listener; 4]>,
    pub(super) dials: Vec<Key>,
    pub(super) held: Vec<Held>,
    pub(super) queries: Vec<Key>,
    pub(super) advertised: Vec<Address>,
    pub(super) server: bool,
    pub(super) denied: Vec<u32>,
    pub(super) members: Vec<u32>,
    pub(super) table: Table,
    pub(super) shelf: Shelf,
    /// Who was found by multicast, at which addresses, and until when that holds.
    pub(super) near: Vec<(u32, Addresses, Moment)>,
    pub(super) services: (Audience, Audience),
    pub(super) serving: Serving,
    pub(super) reservations: Vec<super::relay::Reservation>,
    pub(super) leases: Vec<super::ports::Lease>,
    pub(super) punches: Vec<Key>,
    pub(super) probes: Vec<Key>,
    pub(super) questions: Vec<Key>,
    pub(super) logs: super::logs::Logs,
    /// Whether it exchanges logs.
    pub(super) keeps_logs: bool,
    /// The number of its last record, for the hash table and for signal servers. It survives a restart, as do the peers
    /// that its store remembers.
    pub(super) record_number: u64,
    pub(super) store: BTreeMap<PeerId, StoredPeer>,
    /// And what it remembers of the NATs in front of it.
    pub(super) nat: Option<StoredNat>,
}

pub(super) struct Listener {
    pub(super) number: u64,
    pub(super) command: CommandId,
    pub(super) transport: Transport,
    pub(super) ipv6: bool,
    pub(super) port: u16,
    pub(super) addresses: Vec<Address>,
}

/// A connection that stands, as one of its ends knows it.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) number: u64,
    pub(super) peer: u32,
    pub(super) relayed: bool,
    pub(super) key: Key,
}

/// A dial of a behaviour that waits for the core.
pub(super) struct Held {
    pub(super) number: u64,
    pub(super) peer: u32,
    pub(super) addresses: Vec<Address>,
    /// It is an AutoNAT server's dial, for this probe.
    pub(super) probe: Option<Key>,
}

/// Numbers of records that somebody else says we used are believed up to here.
pub(super) const HIGHEST_NUMBER: u64 = 1 << 40;

/// Frames of the store hold so many peers.
const FRAME: usize = 32;

impl Machine {
    pub(super) fn new(index: u32, seed: u64, setup: Setup) -> Self {
        let malice = setup.malice;
        let own = malice.and_then(|malice| super::malice::place(malice, &setup.config.network, index));
        Self {
            core: Node::new(),
            id: peer_id(index),
            place: own.unwrap_or_else(|| super::kademlia::place_of_peer(index)),
            setup,
            malice,
            on: false,
            asleep: false,
            powered: true,
            cabled: true,
            run: 0,
            started: 0,
            asleep_since: 0,
            armed: Moment::MAX,
            recorded: false,
            #[cfg(feature = "museum")]
            forgets: None,
            dice: Dice::new(seed, index, Purpose::Program),
            requests: 0,
            conns: Vec::new(),
            last_connection: 0,
            last_listener: 0,
            last_held: 0,
            last_offer: 0,
            last_port: 0,
            listeners: SmallVec::new(),
            dials: Vec::new(),
            held: Vec::new(),
            queries: Vec::new(),
            advertised: Vec::new(),
            server: false,
            denied: Vec::new(),
            members: Vec::new(),
            table: Table::default(),
            shelf: Shelf::default(),
            near: Vec::new(),
            services: (Audience::Nobody, Audience::Nobody),
            serving: Serving::default(),
            reservations: Vec::new(),
            leases: Vec::new(),
            punches: Vec::new(),
            probes: Vec::new(),
            questions: Vec::new(),
            logs: super::logs::Logs::default(),
            keeps_logs: false,
            record_number: 0,
            store: BTreeMap::new(),
            nat: None,
        }
    }

    /// The number for its next record: what the shell does.
    pub(super) fn next_record_number(&mut self, unix_time: u64) -> u64 {
        self.record_number = unix_time.min(HIGHEST_NUMBER).max(self.record_number.saturating_add(1));
        self.record_number
    }

    /// When the core wants to be woken.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let deadline = self.core.next_deadline();
        #[cfg(feature = "museum")]
        let deadline = deadline.filter(|deadline| self.forgets != Some(deadline.reason));
        deadline
    }

    /// What the node's clock shows.
    pub fn local(&self, now: Moment) -> Time {
        let elapsed = now.saturating_sub(self.started);
        Time::from_nanos(drifted(elapsed, self.setup.drift))
    }

    /// When the node's clock will show this, or the first moment after it.
    pub(super) fn moment(&self, time: Time) -> Moment {
        let wanted = time.as_nanos();
        if self.setup.drift == 0 {
            return self.started.saturating_add(wanted);
        }
        let guess = i128::from(wanted) * 1_000_000 / (1_000_000 + i128::from(self.setup.drift));
        let mut elapsed = u64::try_from(guess).unwrap_or(u64::MAX).saturating_sub(2);
        while drifted(elapsed, self.setup.drift) < wanted && elapsed < u64::MAX / 2 {
            elapsed += 1;
        }
        self.started.saturating_add(elapsed)
    }

    pub(super) fn unix_time(&self, now: Moment, begin: u64) -> u64 {
        (begin + now / SECOND).saturating_add_signed(self.setup.clock_offset)
    }

    /// An operating system's free port.
    pub(super) fn free_port(&mut self) -> u16 {
        if self.last_port == 0 {
            self.last_port = 32_768 + self.dice.below(20_000) as u16;
        }
        self.last_port = if self.last_port >= 60_999 { 32_768 } else { self.last_port + 1 };
        self.last_port
    }

    /// The port on which it listens, which dials of the same family leave from.
    pub(super) fn listens(&self, transport: Transport, ipv6: bool) -> Option<u16> {
        let mut listeners = self.listeners.iter();
        let found = listeners.find(|one| one.transport == transport && one.ipv6 == ipv6 && !one.addresses.is_empty());
        found.map(|one| one.port)
    }

    pub(super) fn listens_at(&self, transport: Transport, ipv6: bool, port: u16) -> bool {
        self.listeners
            .iter()
            .any(|one| one.transport == transport && one.ipv6 == ipv6 && one.port == port && !one.addresses.is_empty())
    }

    pub(super) fn conn(&self, number: ConnectionId) -> Option<Key> {
        let at = self.conns.binary_search_by_key(&number.0, |one| one.number).ok()?;
        Some(self.conns[at].key)
    }

    /// Its connections to a peer.
    pub(super) fn conns_to(&self, peer: u32) -> impl Iterator<Item = &Standing> {
        self.conns.iter().filter(move |one| one.peer == peer)
    }

    pub(super) fn held(&mut self, held: HeldId) -> Option<Held> {
        let at = self.held.iter().position(|one| one.number == held.0)?;
        Some(self.held.remove(at))
    }

    /// Whether it listens at this address itself.
    pub(super) fn is_own(&self, address: &Address) -> bool {
        self.listeners.iter().any(|listener| listener.addresses.contains(address))
    }

    /// What it says of itself, without where it sees the other side.
    pub(super) fn identity(&self) -> Identity {
        let names = &self.setup.config.protocols;
        let mut protocols: Vec<String> = ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"]
            .into_iter()
            .chain(["/libp2p/circuit/relay/0.2.0/stop", "/libp2p/dcutr"])
            .map(str::to_owned)
            .collect();
        protocols.push(names.punch.clone());
        if self.keeps_logs {
            protocols.push(names.sync.clone());
        }
        if self.server {
            protocols.push(names.kademlia.clone());
        }
        let global = self.advertised.iter().any(|address| !address.is_relayed());
        if self.services.0 != Audience::Nobody && global {
            protocols.push("/libp2p/circuit/relay/0.2.0/hop".to_owned());
        }
        if self.services.1 != Audience::Nobody {
            protocols.push("/libp2p/autonat/2/dial-request".to_owned());
            protocols.push("/libp2p/autonat/1.0.0".to_owned());
        }
        Identity {
            protocol_version: names.identify.clone(),
            agent: "kinfolk/0.1.0".to_owned(),
            protocols,
            addresses: self.advertised.iter().take(32).cloned().collect(),
            observed: None,
            cut: 0,
        }
    }
}

impl World {
    /// Starts a machine's program.
    pub fn start(&mut self, node: u32) {
        let interfaces = self.net.interfaces(node);
        let seed = Dice::new(self.seed, node, Purpose::Seeds);
        let machine = &mut self.machines[node as usize];
        if machine.on || !machine.powered {
            return;
        }
        machine.on = true;
        machine.run += 1;
        machine.started = self.now;
        machine.core = Node::new();
        machine.armed = Moment::MAX;
        let mut seed = seed;
        let seed = (0..machine.run).fold(0, |_, _| seed.next());
        let started = Started {
            config: machine.setup.config.clone(),
            local: machine.id,
            seed,
            unix_time: machine.unix_time(self.now, self.unix_time),
            interfaces,
        };
        if machine.recorded {
            let lives = self.recordings.entry(node).or_default();
            if lives.len() == super::MAX_LIVES {
                lives.remove(0);
            }
            lives.push(super::Life { began: self.now, recording: Recording::empty(&started) });
        }
        let stored: Vec<StoredPeer> = machine.store.values().cloned().collect();
        let mut nat = machine.nat.clone();
        self.watch.started(self.now, node);
        self.note_start(node);
        self.tell(node, Event::Started(Box::new(started)));
        let mut at = self.now + 3 * MILLI;
        let frames: Vec<&[StoredPeer]> = if stored.is_empty() { vec![&[]] } else { stored.chunks(FRAME).collect() };
        let last = frames.len() - 1;
        for (number, frame) in frames.iter().enumerate() {
            self.say(at, node, Event::StoreLoaded { peers: frame.to_vec(), nat: nat.take(), last: number == last });
            at += MILLI;
        }
        self.logs_started(node, at + MILLI);
        self.queue.push(at + 5 * MILLI, node, What::WallClock);
        self.join_lan(node);
        self.start_malice(node);
    }

    /// Ends a machine's program.
    pub fn stop(&mut self, node: u32, end: End) {
        if end == End::Power {
            self.machines[node as usize].powered = false;
            self.plug(node);
        }
        if !self.machines[node as usize].on {
            return;
        }
        let conns: Vec<Key> = self.machines[node as usize].conns.iter().map(|one| one.key).collect();
        for key in conns {
            self.abandon(key, node, end);
        }
        for key in std::mem::take(&mut self.machines[node as usize].dials) {
            self.dials.remove(key);
        }
        for key in std::mem::take(&mut self.machines[node as usize].queries) {
            self.queries.remove(key);
        }
        self.forget_questions(node);
        self.logs_stopped(node);
        self.leave_lan(node);
        self.relay_gone(node);
        let machine = &mut self.machines[node as usize];
        machine.on = false;
        machine.asleep = false;
        machine.conns.clear();
        machine.listeners.clear();
        machine.held.clear();
        machine.advertised.clear();
        machine.server = false;
        machine.denied.clear();
        machine.table = Table::default();
        machine.shelf = Shelf::default();
        machine.near.clear();
        machine.services = (Audience::Nobody, Audience::Nobody);
        machine.serving = Serving::default();
        machine.reservations.clear();
        machine.leases.clear();
        machine.punches.clear();
        machine.probes.clear();
        (machine.last_connection, machine.last_listener, machine.last_held, machine.last_offer) = (0, 0, 0, 0);
        self.watch.stopped(node);
        self.plug(node);
    }

    /// The power is back; the program is not started.
    pub fn power(&mut self, node: u32) {
        self.machines[node as usize].powered = true;
        self.plug(node);
    }

    /// Pulls or plugs a machine's cable.
    pub fn cable(&mut self, node: u32, plugged: bool) {
        self.machines[node as usize].cabled = plugged;
        self.plug(node);
        self.interfaces_changed(node);
    }

    /// Only whoever has power, a cable, and is awake is on the network.
    fn plug(&mut self, node: u32) {
        let machine = &self.machines[node as usize];
        self.net.set_plugged(node, machine.powered && machine.cabled && !machine.asleep);
    }

    /// Forgets what a machine's program has stored.
    pub fn wipe(&mut self, node: u32) {
        let machine = &mut self.machines[node as usize];
        machine.store.clear();
        machine.nat = None;
        machine.record_number = 0;
        self.logs_lost(node);
    }

    /// Suspends a machine: it hears and does nothing, and its clock goes on.
    pub fn suspend(&mut self, node: u32) {
        let machine = &mut self.machines[node as usize];
        if machine.on && !machine.asleep {
            machine.asleep = true;
            machine.asleep_since = self.now;
            self.plug(node);
        }
    }

    /// Wakes a suspended machine.
    pub fn resume(&mut self, node: u32) {
        let machine = &mut self.machines[node as usize];
        if !machine.asleep {
            return;
        }
        machine.asleep = false;
        let asleep = std::time::Duration::from_nanos(self.now - machine.asleep_since);
        self.plug(node);
        self.watch.resumed(self.now, node);
        self.tell(node, Event::Resumed { asleep });
        // Its cable may have been pulled or plugged in the meantime.
        self.interfaces_changed(node);
    }

    /// A user changes a node's settings while it runs: to half as many connections and one relay, or back.
    pub fn change_settings(&mut self, node: u32, thrift: bool) {
        let machine = &self.machines[node as usize];
        if !machine.on || machine.asleep {
            return;
        }
        let config = &machine.setup.config;
        let config = if thrift { thrifty(config) } else { config.clone() };
        self.tell(node, Event::Configured(Box::new(config)));
    }

    /// A machine's interfaces have changed. Asleep, it sees that when it wakes.
    pub fn interfaces_changed(&mut self, node: u32) {
        if self.machines[node as usize].asleep {
            return;
        }
        let interfaces = self.net.interfaces(node);
        self.tell(node, Event::Interfaces(interfaces));
        self.relisten(node);
        self.join_lan(node);
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("id", &self.id)
            .field("on", &self.on)
            .field("run", &self.run)
            .field("connections", &self.conns.len())
            .finish_non_exhaustive()
    }
}

fn thrifty(config: &ValidConfig) -> ValidConfig {
    let mut less = Config::from(config.clone());
    let lifecycle = &mut less.lifecycle;
    lifecycle.low_water = (lifecycle.low_water / 2).max(1);
    lifecycle.high_water = (lifecycle.high_water / 2).max(lifecycle.low_water);
    less.nat.want_relays = less.nat.want_relays.min(1);
    // There may be more whom the settings name than it would have room for.
    less.validate().unwrap_or_else(|_| config.clone())
}

const fn drifted(elapsed: u64, drift: i32) -> u64 {
    if drift == 0 {
        return elapsed;
    }
    let more = elapsed as i128 * drift as i128 / 1_000_000;
    let sum = elapsed as i128 + more;
    if sum < 0 { 0 } else { sum as u64 }
}

const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The id of a machine: an Ed25519 key's form, with the number in it.
pub fn peer_id(index: u32) -> PeerId {
    let mut bytes = [0x4b; 38];
    bytes[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
    bytes[6..14].copy_from_slice(&(u64::from(index) + 1).wrapping_mul(SCATTER).to_be_bytes());
    bytes[14..18].copy_from_slice(&index.to_be_bytes());
    #[expect(clippy::expect_used, reason = "these bytes are a multihash")]
    PeerId::from_bytes(&bytes).expect("an inlined key")
}

/// The machine whose id this is. `None`: nobody's.
pub fn peer_index(peer: &PeerId) -> Option<u32> {
    let bytes: &[u8; 38] = peer.as_bytes().try_into().ok()?;
    let index = u32::from_be_bytes(bytes[14..18].try_into().ok()?);
    (peer_id(index) == *peer).then_some(index)
}

#[cfg(test)]
mod tests {
    use kinfolk_core::Config;

    use super::*;

    #[test]
    fn ids_lead_back_to_machines() {
        for index in [0, 1, 77, 99_999, u32::MAX - 1] {
            assert_eq!(peer_index(&peer_id(index)), Some(index));
        }
        let stranger = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        assert_eq!(peer_index(&stranger), None);
    }

    #[test]
    fn a_clock_that_drifts_is_read_backwards_to_the_nanosecond() {
        let config = Config::desktop().validate().unwrap();
        for drift in [0, 1, 50, -50, 200_000, -200_000] {
            let setup = Setup {
                config: config.clone(),
                slack: 0,
                clock_offset: 0,
                synced: true,
                drift,
                ports_taken: false,
                malice: None,
            };
            let mut machine = Machine::new(0, 1, setup);
            machine.started = 12_345;
            for nanos in [0, 1, 2, 999, 1_000_000_007, 86_400 * SECOND + 3] {
                let at = machine.moment(Time::from_nanos(nanos));
                assert!(machine.local(at).as_nanos() >= nanos, "{drift}: not early");
                let before = at.saturating_sub(1);
                assert!(at == machine.started || machine.local(before).as_nanos() < nanos, "{drift}: not late");
            }
        }
    }
}
