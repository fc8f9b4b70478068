//! Who is dialled next: a queue by class, under one budget with reserved shares.
//!
//! Of `dial_slots`, an eighth is kept for what users ask for; pinned peers may use all but a quarter of the rest;
//! everything else at most half, bootstrap peers at most a quarter, and mere discoveries (look-ups included) at most a
//! third: so peers that don't answer, however wanted, leave room for others. What does not fit stays in the queue; what must not be
//! dialled now is held, with a reason and a time.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    bootstrap::TargetId,
    peers::Slot,
    vocabulary::{
        Address, Asker, CommandId, HeldId, LifecycleConfig, PeerId, Reason, RequestId, Scope, Time, Transport,
        network_of,
    },
};

/// How much a connection is wanted, the most wanted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum Class {
    /// A user or the application asked.
    User,
    /// Pinned, or named by hand.
    Kept,
    /// A bootstrap peer.
    Bootstrap,
    /// On the home network.
    Near,
    /// It belongs to our network.
    Member,
    /// Anything else, and what look-ups need.
    Discovery,
}

impl Class {
    pub(crate) const ALL: [Self; 6] =
        [Self::User, Self::Kept, Self::Bootstrap, Self::Near, Self::Member, Self::Discovery];
}

/// Who waits for a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum Job {
    Peer(Slot),
    Target(TargetId),
    /// An address without a peer's id, by a user.
    Ask(RequestId),
    /// A dial that some behaviour wants.
    Held(HeldId),
}

/// A dial under way.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Dial {
    pub(crate) job: Job,
    pub(crate) class: Class,
    pub(crate) addresses: Vec<Address>,
    pub(crate) since: Time,
    pub(crate) reason: Reason,
}

/// A behaviour's dial, waiting or released.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Held {
    pub(crate) asker: Asker,
    pub(crate) peer: Option<PeerId>,
    pub(crate) since: Time,
    pub(crate) released: bool,
}

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Dialer {
    queue: BTreeSet<(Class, Time, Job)>,
    dials: BTreeMap<CommandId, Dial>,
    /// Peers that are dialled as bootstrap targets, and by which dial.
    #[cfg_attr(feature = "serde", serde(default))]
    targets: BTreeMap<PeerId, CommandId>,
    held: BTreeMap<HeldId, Held>,
    networks: BTreeMap<IpAddr, (Time, u32)>,
    pub(crate) blackholes: Blackholes,
    /// Slots or queue have changed since the queue was last served.
    stirred: bool,
}

/// Held dials at most; each is answered within `HELD_FOR`.
const MAX_HELD: usize = 64;
const HELD_FOR: Duration = Duration::from_secs(8);
/// Destination networks that are counted at once.
const MAX_NETWORKS: usize = 1_024;
const MINUTE: Duration = Duration::from_secs(60);

impl Dialer {
    /// The settings may have made room.
    pub(crate) const fn stir(&mut self) {
        self.stirred = true;
    }

    pub(crate) fn enqueue(&mut self, class: Class, since: Time, job: Job) {
        self.stirred |= self.queue.insert((class, since, job));
    }

    pub(crate) fn dequeue(&mut self, class: Class, since: Time, job: Job) {
        self.queue.remove(&(class, since, job));
    }

    /// The next job that has a slot; it leaves the queue.
    pub(crate) fn next_job(&mut self, slots: u32) -> Option<(Class, Job)> {
        if !self.stirred {
            return None;
        }
        for class in Class::ALL {
            if !self.has_slot(class, slots) {
                continue;
            }
            let first = self.queue.range((class, Time::ZERO, Job::Peer(Slot::FIRST))..).next().copied();
            if let Some(entry) = first.filter(|(found, _, _)| *found == class) {
                self.queue.remove(&entry);
                return Some((class, entry.2));
            }
        }
        self.stirred = false;
        None
    }

    fn has_slot(&self, class: Class, slots: u32) -> bool {
        let of = |least: Class| {
            let dials = self.dials.values().filter(|dial| dial.class >= least).count();
            let held = self.held.values().filter(|held| held.released && held.class() >= least).count();
            (dials + held) as u32
        };
        let only = |class: Class| self.dials.values().filter(|dial| dial.class == class).count() as u32;
        let part = |of: u32| (slots / of).max(1);
        let unasked = of(Class::Kept) < slots - part(8);
        let unpinned = unasked && of(Class::Bootstrap) < part(2);
        of(Class::User) < slots
            && match class {
                Class::User => true,
                Class::Kept => unasked && only(Class::Kept) < slots - part(8) - part(4),
                Class::Bootstrap => unpinned && only(Class::Bootstrap) < part(4),
                Class::Near | Class::Member => unpinned,
                Class::Discovery => unpinned && of(Class::Discovery) < part(3),
            }
    }

    pub(crate) fn started(&mut self, id: CommandId, dial: Dial) {
        self.dials.insert(id, dial);
    }

    /// A dial to a bootstrap target, where this peer is or is said to be, is under way.
    pub(crate) fn started_to_target(&mut self, id: CommandId, peer: PeerId) {
        self.targets.insert(peer, id);
    }

    pub(crate) fn ended(&mut self, id: CommandId) -> Option<Dial> {
        self.stirred = true;
        self.targets.retain(|_, dial| *dial != id);
        self.dials.remove(&id)
    }

    /// The peer that is dialled as a bootstrap target by this dial.
    pub(crate) fn target_of(&self, id: CommandId) -> Option<PeerId> {
        self.targets.iter().find(|(_, dial)| **dial == id).map(|(peer, _)| *peer)
    }

    /// Whether this peer is being dialled as a bootstrap target: another dial of it would find nothing else.
    pub(crate) fn is_target_dialled(&self, peer: &PeerId) -> bool {
        !self.targets.is_empty() && self.targets.contains_key(peer)
    }

    /// Whether a dial for this is under way.
    pub(crate) fn has(&self, job: Job) -> bool {
        self.dials.values().any(|dial| dial.job == job)
    }

    pub(crate) fn dial(&self, id: CommandId) -> Option<&Dial> {
        self.dials.get(&id)
    }

    /// Whether packets of a dial under way may have gone to this host.
    pub(crate) fn is_dialing(&self, host: IpAddr) -> bool {
        self.dials.values().flat_map(|dial| &dial.addresses).any(|address| address.host_ip() == Some(host))
    }

    pub(crate) fn dialing(&self) -> u32 {
        self.dials.len() as u32
    }

    /// A dial whose answer is overdue. All dials have the same time-out and ids grow, so the first one is the oldest.
    pub(crate) fn overdue_dial(&self, now: Time, config: &LifecycleConfig) -> Option<CommandId> {
        let (id, dial) = self.dials.first_key_value()?;
        (dial.since + config.dial_timeout <= now).then_some(*id)
    }

    /// Takes in a behaviour's dial; `false` when there are too many.
    pub(crate) fn hold(&mut self, id: HeldId, held: Held) -> bool {
        if self.held.len() >= MAX_HELD {
            return false;
        }
        let (class, since) = (held.class(), held.since);
        if self.held.insert(id, held).is_none() {
            self.enqueue(class, since, Job::Held(id));
        }
        true
    }

    pub(crate) fn release(&mut self, id: HeldId, now: Time) -> Option<&Held> {
        let held = self.held.get_mut(&id)?;
        held.released = true;
        held.since = now;
        Some(held)
    }

    pub(crate) fn asker(&self, id: HeldId) -> Option<Asker> {
        self.held.get(&id).map(|held| held.asker)
    }

    pub(crate) fn unhold(&mut self, id: HeldId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.dequeue(held.class(), held.since, Job::Held(id));
        self.stirred = true;
        Some(held)
    }

    /// A held dial that nobody has decided or ended in time.
    pub(crate) fn overdue_held(&self, now: Time, config: &LifecycleConfig) -> Option<HeldId> {
        self.held.iter().find(|(_, held)| held.due(config) <= now).map(|(id, _)| *id)
    }

    pub(crate) fn deadline(&self, config: &LifecycleConfig) -> Option<Time> {
        let dial = self.dials.first_key_value().map(|(_, dial)| dial.since + config.dial_timeout);
        let held = self.held.values().map(|held| held.due(config)).min();
        dial.into_iter().chain(held).min()
    }

    /// Counts a dial into a network; how long to wait instead, when it has had enough.
    pub(crate) fn charge(&mut self, ip: IpAddr, limit: u32, now: Time) -> Result<(), Time> {
        let network = network_of(ip);
        if self.networks.len() >= MAX_NETWORKS && !self.networks.contains_key(&network) {
            self.networks.retain(|_, (since, _)| *since + MINUTE > now);
            if self.networks.len() >= MAX_NETWORKS {
                return Err(now + MINUTE);
            }
        }
        let (since, count) = self.networks.entry(network).or_insert((now, 0));
        if *since + MINUTE <= now {
            (*since, *count) = (now, 0);
        }
        if *count >= limit {
            return Err(*since + MINUTE);
        }
        *count += 1;
        Ok(())
    }
}

impl Held {
    pub(crate) fn class(&self) -> Class {
        match self.asker {
            Asker::Application => Class::User,
            Asker::Relay => Class::Kept,
            Asker::Kademlia | Asker::Identify | Asker::Autonat => Class::Discovery,
        }
    }

    fn due(&self, config: &LifecycleConfig) -> Time {
        self.since + if self.released { config.dial_timeout } else { HELD_FOR }
    }
}

/// Families and transports that nothing comes through: UDP that a router drops, IPv6 that leads nowhere. One dial in ten
/// tries them still, until the network changes.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Blackholes([Blackhole; 4]);

#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Blackhole {
    failures: u32,
    skipped: u32,
}

impl Blackholes {
    fn of(&mut self, address: &Address) -> Option<&mut Blackhole> {
        let (ip, transport) = (address.host_ip()?, address.transport()?);
        if !Scope::of(ip).is_global() {
            return None;
        }
        let at = usize::from(ip.is_ipv6()) * 2 + usize::from(transport == Transport::Quic);
        self.0.get_mut(at)
    }

    pub(crate) fn succeeded(&mut self, address: &Address) {
        if let Some(hole) = self.of(address) {
            *hole = Blackhole::default();
        }
    }

    pub(crate) fn failed(&mut self, address: &Address) {
        if let Some(hole) = self.of(address) {
            hole.failures = hole.failures.saturating_add(1);
        }
    }

    /// Whether to leave this address out of a dial.
    pub(crate) fn skips(&mut self, address: &Address, config: &LifecycleConfig) -> bool {
        let Some(hole) = self.of(address) else { return false };
        if hole.failures < config.black_hole {
            return false;
        }
        hole.skipped = (hole.skipped + 1) % 10;
        hole.skipped != 0
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_request_has_a_slot_when_everything_else_is_busy() {
        let mut dialer = Dialer::default();
        let slots = 16;
        let mut taken = Vec::new();
        for n in 0..64 {
            let class = Class::ALL[1 + n % 5];
            dialer.enqueue(class, Time::from_nanos(n as u64), Job::Target(TargetId(n as u32)));
        }
        while let Some((class, job)) = dialer.next_job(slots) {
            let id = CommandId(taken.len() as u64 + 1);
            dialer.started(id, Dial { job, class, addresses: Vec::new(), since: Time::ZERO, reason: Reason::Routine });
            taken.push(class);
        }
        let count = |class| taken.iter().filter(|taken| **taken == class).count();
        assert_eq!((count(Class::Kept), count(Class::Bootstrap), count(Class::Discovery)), (10, 4, 0));
        assert_eq!(taken.len(), 14);
        dialer.enqueue(Class::User, Time::ZERO, Job::Ask(RequestId(1)));
        assert_eq!(dialer.next_job(slots), Some((Class::User, Job::Ask(RequestId(1)))));
    }

    #[test]
    fn discoveries_have_a_third_and_everything_unpinned_half() {
        let mut dialer = Dialer::default();
        for n in 0..64 {
            dialer.enqueue(Class::Discovery, Time::ZERO, Job::Target(TargetId(n)));
        }
        let mut started = 0;
        while let Some((class, job)) = dialer.next_job(16) {
            started += 1;
            dialer.started(
                CommandId(started),
                Dial { job, class, addresses: Vec::new(), since: Time::ZERO, reason: Reason::Routine },
            );
        }
        assert_eq!(started, 5);
        for n in 0..64 {
            dialer.enqueue(Class::Near, Time::ZERO, Job::Target(TargetId(n)));
        }
        while let Some((class, job)) = dialer.next_job(16) {
            started += 1;
            dialer.started(
                CommandId(started),
                Dial { job, class, addresses: Vec::new(), since: Time::ZERO, reason: Reason::Routine },
            );
        }
        assert_eq!(started, 8);
    }

    #[test]
    fn a_network_has_so_many_dials_a_minute() {
        let mut dialer = Dialer::default();
        let ip = |last| IpAddr::from([45, 10, 20, last]);
        for last in 0..8 {
            assert_eq!(dialer.charge(ip(last), 8, Time::from_secs(5)), Ok(()));
        }
        assert_eq!(dialer.charge(ip(9), 8, Time::from_secs(5)), Err(Time::from_secs(65)));
        assert_eq!(dialer.charge(IpAddr::from([45, 10, 21, 1]), 8, Time::from_secs(5)), Ok(()));
        assert_eq!(dialer.charge(ip(9), 8, Time::from_secs(65)), Ok(()));
    }

    #[test]
    fn a_black_hole_is_tried_once_in_ten() {
        let config = LifecycleConfig::default();
        let mut holes = Blackholes::default();
        let quic: Address = "/ip4/45.10.20.1/udp/1/quic-v1".parse().unwrap();
        let tcp: Address = "/ip4/45.10.20.1/tcp/1".parse().unwrap();
        for _ in 0..config.black_hole {
            assert!(!holes.skips(&quic, &config));
            holes.failed(&quic);
        }
        assert_eq!((0..20).filter(|_| !holes.skips(&quic, &config)).count(), 2);
        assert!(!holes.skips(&tcp, &config));
        holes.succeeded(&quic);
        assert!(!holes.skips(&quic, &config));
    }
}
