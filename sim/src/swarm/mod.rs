//! The swarm: what the shell and libp2p do with each command of a node's core, and what they tell it.
//!
//! [`World`] holds the internet and the machines on it, each with the real core, unchanged. Where the outcome depends on it,
//! packets are looked at one by one: the first packets of a dial go through the NATs' tables, cross each other, get lost and
//! come again. Over connections that stand, messages take their time and check that the way is still there. The timers
//! are those of libp2p 0.57.1 and of the shell, with their source beside each.
//!
//! The model emits only what the shell can emit: it answers commands in `execute.rs`, one arm for each.

mod connections;
mod dialing;
mod doorways;
mod execute;
mod kademlia;
mod logs;
mod machine;
mod malice;
mod mdns;
#[cfg(feature = "museum")]
mod museum;
mod outcome;
mod ports;
mod probes;
mod punch;
mod relay;

pub use doorways::Trouble;
pub use logs::Writing;
pub use machine::{End, Machine, Setup, peer_id, peer_index};
pub use malice::Malice;
#[cfg(feature = "museum")]
pub use museum::Plant;
pub use outcome::{Pair, Path};

use std::{borrow::Cow, collections::BTreeMap, rc::Rc, time::Duration};

use kinfolk_core::{Action, Ask, Command, Event, PeerId, RequestId, Time};
use rustc_hash::FxHashMap;

use crate::{
    check::{Finding, Watch},
    engine::{Digest, Key, Moment, Queue, SECOND, Slab},
    internet::{HostId, Internet, SegmentId},
    record::Recording,
};
use connections::{Conn, Message};
use dialing::{Dial, Packet};
use kademlia::Query;
use mdns::Lan;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum What {
    /// A core's deadline.
    Wake,
    /// A core is told something.
    Told(Key),
    /// An address of a dial is tried, or tried again.
    Attempt(Key, u8),
    /// A dial's address takes too long, or fails after a while.
    AttemptOver(Key, u8),
    /// The handshake of a dial's address is done.
    Shaken(Key, u8),
    /// A packet reaches its destination's network.
    Arrives(Key),
    /// A dial's address is refused by a router.
    Refused(Key, u8),
    /// A message on a connection is there, or is tried again.
    Message(Key),
    /// A side of a connection pings.
    Ping(Key, u8),
    /// A side of a connection gives up on a ping.
    PingLost(Key, u8),
    /// A side of a QUIC connection looks whether anything came lately.
    QuietCheck(Key, u8),
    /// A side of a connection wants the other's introduction.
    Identify(Key, u8),
    /// A machine's query looks at one of those it has asked.
    Asked(Key, u16),
    /// A machine's query has taken too long.
    QueryOver(Key),
    /// Kademlia starts look-ups by itself.
    Bootstrap,
    /// Somebody has waited for a place in this bucket.
    Pending(u32),
    /// A home network's multicast questions.
    Multicast(SegmentId),
    /// A circuit's time is over.
    CircuitOver(Key),
    /// A reservation's time may be over, or is to be renewed.
    Reservation(u32),
    /// A router's lease is renewed.
    Lease(u8),
    /// A punch goes its next step.
    Punch(Key, u8),
    /// A probe goes its next step.
    Probe(Key),
    /// A question to a signal server goes its next step.
    Question(Key),
    /// An author writes, in this run of its program.
    Write(u32),
    /// A hostile node goes on.
    Malice(u64),
    /// The wall clock is told.
    WallClock,
    /// Something that the scenario has planned.
    Planned(u32),
    /// All nodes are looked at.
    Review,
}

/// Not a machine's number: what concerns all.
const NOBODY: u32 = u32::MAX;
/// How often all nodes are looked at.
const REVIEW: u64 = 60 * SECOND;
/// The shell tells the wall clock this often.
const WALL_CLOCK: u64 = 600 * SECOND;

/// A sleeping process is looked at this often.
const ASLEEP: u64 = 10 * SECOND;

/// What was counted in a run.
#[derive(Clone, Default, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
// Results of older programs lack what is counted since.
#[serde(default)]
pub struct Counts {
    /// Steps of the engine.
    pub steps: u64,
    /// Events that cores were told.
    pub events: u64,
    /// Commands of cores.
    pub commands: u64,
    /// Wakes of cores.
    pub wakes: u64,
    /// Dials of cores.
    pub dials: u64,
    /// Of these, those that led to a connection.
    pub dials_won: u64,
    /// Connections, by path: `direct-quic`, `direct-tcp`, `relayed`.
    pub connections: BTreeMap<Cow<'static, str>, u64>,
    /// Bytes on the wire, roughly: handshakes, pings, introductions, questions.
    pub bytes: u64,
    /// Tries to punch a hole, and those that worked.
    pub punches: u64,
    /// Tries to punch a hole that worked.
    pub punched: u64,
    /// Nodes that got a direct connection by a try to punch a hole, whoever proposed it.
    pub holes: u64,
    /// Of these, those that got it by the first try.
    pub holes_at_first: u64,
    /// Questions of the hash table.
    pub queries: u64,
    /// Questions to signal servers, and records that were sent to them.
    pub signal_questions: u64,
    /// Entries that authors wrote.
    pub entries_written: u64,
    /// Entries that came from others, at all nodes.
    pub entries_received: u64,
    /// Exchanges, announcements and ranges of logs that were asked for.
    pub log_questions: u64,
    /// Bytes of these and of their answers.
    pub log_bytes: u64,
}

/// The whole simulated world. Not `Send`: each run has its own, on its own thread.
pub struct World {
    now: Moment,
    seed: u64,
    queue: Queue<What>,
    digest: Digest,
    net: Internet,
    machines: Vec<Machine>,
    /// What will be told, and in which run of its program it is.
    events: Slab<(u32, Event)>,
    conns: Slab<Conn>,
    messages: Slab<Message>,
    dials: Slab<Dial>,
    packets: Slab<Packet>,
    queries: Slab<Query>,
    punches: Slab<punch::Try>,
    probes: Slab<probes::Probe>,
    questions: Slab<doorways::Question>,
    doorways: Vec<doorways::Doorway>,
    lans: FxHashMap<SegmentId, Lan>,
    counts: Counts,
    watch: Watch,
    outcome: outcome::Outcome,
    recordings: BTreeMap<u32, Vec<Life>>,
    /// Whose core is being told something; stays when that panics.
    acting: Option<u32>,
    planned: Vec<u32>,
    unix_time: u64,
    spin: (Moment, u64),
    writing: Option<Writing>,
    #[cfg(feature = "museum")]
    plant: Option<museum::Plant>,
}

/// A node's trace from one start of its program to its end.
#[derive(Debug)]
pub struct Life {
    /// When it began.
    pub began: Moment,
    /// What it was told and commanded.
    pub recording: Recording,
}

/// Lives of a node that are kept.
const MAX_LIVES: usize = 16;

/// Steps at one moment above which the world spins.
const SPIN: u64 = 5_000_000;

impl World {
    /// A world with this internet and nobody on it.
    pub fn new(seed: u64, net: Internet, unix_time: u64) -> Self {
        let mut queue = Queue::default();
        queue.push(REVIEW, NOBODY, What::Review);
        let machines = Vec::with_capacity(net.len());
        Self {
            now: 0,
            seed,
            queue,
            digest: Digest::default(),
            net,
            machines,
            events: Slab::default(),
            conns: Slab::default(),
            messages: Slab::default(),
            dials: Slab::default(),
            packets: Slab::default(),
            queries: Slab::default(),
            punches: Slab::default(),
            probes: Slab::default(),
            questions: Slab::default(),
            doorways: Vec::new(),
            lans: FxHashMap::default(),
            counts: Counts::default(),
            watch: Watch::default(),
            outcome: outcome::Outcome::default(),
            recordings: BTreeMap::new(),
            acting: None,
            planned: Vec::new(),
            unix_time,
            spin: (0, 0),
            writing: None,
            #[cfg(feature = "museum")]
            plant: None,
        }
    }

    /// A machine on a host: hosts and machines have the same numbers, so each host gets one, in their order.
    pub fn add(&mut self, setup: Setup) -> HostId {
        let index = self.machines.len() as u32;
        self.machines.push(Machine::new(index, self.seed, setup));
        self.watch.add();
        index
    }

    /// Lets time pass. Ends early, and says so, when something is found to be wrong.
    pub fn run_until(&mut self, until: Moment) -> bool {
        while self.watch.findings().is_empty() && self.planned.is_empty() {
            match self.queue.next_at() {
                Some(at) if at <= until => self.step(),
                Some(_) | None => {
                    self.now = self.now.max(until);
                    return true;
                }
            }
        }
        false
    }

    /// Has `run_until` come back at a moment, with this number in `take_planned`.
    pub fn plan(&mut self, at: Moment, number: u32) {
        self.queue.push(at, NOBODY, What::Planned(number));
    }

    /// What was planned for now.
    pub fn take_planned(&mut self) -> Option<u32> {
        self.planned.pop()
    }

    /// The present.
    pub const fn now(&self) -> Moment {
        self.now
    }

    /// The running hash of everything so far.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What was counted so far.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What is wrong, if anything.
    pub fn findings(&self) -> &[Finding] {
        self.watch.findings()
    }

    /// The internet.
    pub const fn net(&self) -> &Internet {
        &self.net
    }

    /// The internet, to be changed by faults.
    pub const fn net_mut(&mut self) -> &mut Internet {
        &mut self.net
    }

    /// All machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Records everything that a node is told and commands, from its next start on.
    pub fn record(&mut self, node: HostId) {
        self.machines[node as usize].recorded = true;
    }

    /// What a recorded node went through, one life for each start of its program; of very many the last ones.
    pub fn lives(&self, node: HostId) -> &[Life] {
        self.recordings.get(&node).map_or(&[], Vec::as_slice)
    }

    /// A core has panicked, which ends the run.
    pub fn panicked(&mut self, text: &str) {
        self.watch.find(self.now, self.acting, 1, format!("a panic: {text}"));
    }

    /// A user asks something of a node.
    pub fn ask(&mut self, node: HostId, ask: Ask) {
        let machine = &mut self.machines[node as usize];
        if machine.on {
            machine.requests += 1;
            let request = RequestId(machine.requests);
            self.watch.asked(node, request, self.now, machine.setup.config.lifecycle.ask_timeout);
            self.tell(node, Event::Asked { request, ask });
        }
    }

    /// Whether a direct connection between two machines stands, and whether a relayed one does, as both see it.
    pub fn paths(&self, a: HostId, b: HostId) -> (bool, bool) {
        let mut found = (false, false);
        for one in self.machines[a as usize].conns_to(b) {
            if self.conns.get(one.key).is_some_and(Conn::is_whole) {
                if one.relayed { found.1 = true } else { found.0 = true }
            }
        }
        found
    }

    /// The scenario's own finding.
    pub fn find(&mut self, node: Option<HostId>, invariant: u8, what: String) {
        self.watch.find(self.now, node, invariant, what);
    }

    fn step(&mut self) {
        let Some(due) = self.queue.pop() else { return };
        self.now = self.now.max(due.at);
        self.counts.steps += 1;
        self.spin = if self.spin.0 == self.now { (self.now, self.spin.1 + 1) } else { (self.now, 0) };
        if self.spin.1 > SPIN {
            self.watch.find(self.now, None, 2, format!("{SPIN} steps without time passing"));
        }
        let node = due.node;
        match due.what {
            What::Wake => self.wake(node),
            What::Told(key) => {
                // What a program was owed dies with it.
                if let Some((run, event)) = self.events.remove(key)
                    && run == self.machines[node as usize].run
                {
                    self.tell(node, event);
                }
            }
            What::Attempt(dial, at) => self.attempt(dial, at),
            What::AttemptOver(dial, at) => self.attempt_over(dial, at),
            What::Shaken(dial, at) => self.shaken(dial, at),
            What::Arrives(packet) => self.arrives(packet),
            What::Refused(dial, at) => self.refused(dial, at),
            What::Message(message) => self.message(message),
            What::Ping(conn, side) => self.ping(conn, side),
            What::PingLost(conn, side) => self.ping_lost(conn, side),
            What::QuietCheck(conn, side) => self.quiet_check(conn, side),
            What::Identify(conn, side) => self.identify(conn, side),
            What::Asked(query, at) => self.contact(query, at),
            What::QueryOver(query) => self.query_over(query),
            What::Bootstrap => self.kademlia_bootstrap(node),
            What::Pending(bucket) => self.pending_over(node, bucket),
            What::Multicast(segment) => self.multicast(segment),
            What::CircuitOver(conn) => self.circuit_over(conn),
            What::Reservation(relay) => self.reservation_due(node, relay),
            What::Lease(which) => self.lease_due(node, which),
            What::Punch(key, stage) => self.punch_step(key, stage),
            What::Probe(key) => self.probe_step(key),
            What::Question(key) => self.question_due(key),
            What::Write(run) => self.write(node, run),
            What::Malice(turn) => self.malice_due(node, turn),
            What::WallClock => self.wall_clock(node),
            What::Planned(number) => self.planned.push(number),
            What::Review => self.review(),
        }
    }

    fn review(&mut self) {
        self.queue.push(self.now + REVIEW, NOBODY, What::Review);
        for (machine, index) in self.machines.iter().zip(0..) {
            if machine.on && machine.malice.is_none() {
                let keeps = |relay: &PeerId| {
                    let relay = peer_index(relay).and_then(|relay| self.machines.get(relay as usize));
                    relay.is_none_or(|relay| !relay.on || relay.serving.keeps(index, self.now))
                };
                self.watch.review(self.now, index, machine, &keeps);
            }
        }
    }

    /// A core is told something, now.
    fn tell(&mut self, node: u32, event: Event) {
        let machine = &mut self.machines[node as usize];
        if !machine.on {
            return;
        }
        if machine.asleep {
            // It waits in the sleeping process.
            return self.say(self.now + ASLEEP, node, event);
        }
        self.counts.events += 1;
        self.digest.word(u64::from(node) << 32 ^ self.now);
        self.digest.value(&event);
        let machine = &self.machines[node as usize];
        if machine.malice.is_none() {
            self.watch.told(self.now, node, machine, &event);
        }
        let t = machine.local(self.now);
        if machine.malice.is_none() {
            self.look_early(node, t);
        }
        self.hand(node, t, event);
    }

    /// A core that has named its deadlines has nothing to do before the first of them: a pass that tells it nothing new
    /// changes nothing.
    fn look_early(&mut self, node: u32, t: Time) {
        let machine = &mut self.machines[node as usize];
        if machine.deadline().is_some_and(|deadline| deadline.at <= t) {
            return;
        }
        let unix_time = machine.unix_time(self.now, self.unix_time);
        let synced = machine.setup.synced;
        self.acting = Some(node);
        machine.core.handle(t, Event::WallClock { unix_time, synced });
        if let Some(command) = machine.core.next_command() {
            let what = format!("a deadline was forgotten: nothing was due, and it commands: {}", command.action);
            self.watch.find(self.now, Some(node), 2, what);
        }
    }

    /// A core's deadline, or what was one when the wake was scheduled.
    fn wake(&mut self, node: u32) {
        let machine = &mut self.machines[node as usize];
        if machine.armed > self.now {
            return;
        }
        machine.armed = Moment::MAX;
        if !machine.on || machine.asleep {
            return;
        }
        let t = machine.local(self.now);
        match machine.deadline() {
            Some(deadline) if deadline.at <= t => {
                self.counts.wakes += 1;
                self.digest.word(u64::from(node) << 32 ^ self.now ^ 1 << 63);
                self.hand(node, t, Event::Wake);
            }
            Some(_) | None => self.arm(node),
        }
    }

    fn hand(&mut self, node: u32, t: Time, event: Event) {
        let machine = &mut self.machines[node as usize];
        if machine.recorded
            && let Some(life) = self.recordings.get_mut(&node).and_then(|lives| lives.last_mut())
        {
            self.acting = Some(node);
            // It runs the same core beside the machine's own.
            life.recording.tell_only(t, event.clone());
        }
        self.acting = Some(node);
        machine.core.handle(t, event);
        let mut drained = 0u32;
        while let Some(command) = self.machines[node as usize].core.next_command() {
            drained += 1;
            #[cfg(feature = "museum")]
            for command in self.planted(node, command) {
                self.command(node, &command);
            }
            #[cfg(not(feature = "museum"))]
            self.command(node, &command);
            if drained > 100_000 {
                self.watch.find(self.now, Some(node), 2, "one input, endless commands".to_owned());
                return;
            }
        }
        self.arm(node);
    }

    fn command(&mut self, node: u32, command: &Command) {
        self.counts.commands += 1;
        self.digest.value(command);
        if self.malice(node).is_none() {
            let left = self.left_after(node, command);
            self.watch.commanded(self.now, node, &self.machines[node as usize], command, left);
        }
        self.note(node, command);
        self.execute(node, command);
    }

    /// How many connections to the peer are left when one is closed.
    fn left_after(&self, node: u32, command: &Command) -> usize {
        let Action::Close { connection, peer } = &command.action else { return 0 };
        let Some(peer) = self.index(peer) else { return 0 };
        self.machines[node as usize].conns_to(peer).filter(|one| one.number != connection.0).count()
    }

    /// Schedules the next wake, unless an earlier one is scheduled already, which will look again.
    fn arm(&mut self, node: u32) {
        let machine = &mut self.machines[node as usize];
        let Some(deadline) = machine.deadline() else { return };
        #[cfg(feature = "museum")]
        let deadline = if self.plant == Some(museum::Plant::PastDeadline) {
            kinfolk_core::Deadline { at: Time::ZERO, ..deadline }
        } else {
            deadline
        };
        let mut at = machine.moment(deadline.at);
        if at <= self.now {
            self.watch.find(
                self.now,
                Some(node),
                2,
                format!(
                    "a deadline that has passed: {:?} at {}, now {}",
                    deadline.reason,
                    deadline.at,
                    machine.local(self.now)
                ),
            );
            return;
        }
        if machine.setup.slack > 0 {
            at += machine.dice.below(machine.setup.slack);
        }
        if at < machine.armed {
            machine.armed = at;
            self.queue.push(at, node, What::Wake);
        }
    }

    /// A core will be told something.
    fn say(&mut self, at: Moment, node: u32, event: Event) {
        let key = self.events.insert((self.machines[node as usize].run, event));
        self.queue.push(at, node, What::Told(key));
    }

    /// The same, as soon as what is under way now is done.
    fn say_now(&mut self, node: u32, event: Event) {
        self.say(self.now, node, event);
    }

    fn wall_clock(&mut self, node: u32) {
        let machine = &self.machines[node as usize];
        if !machine.on {
            return;
        }
        let unix_time = machine.unix_time(self.now, self.unix_time);
        let synced = machine.setup.synced;
        self.queue.push(self.now + WALL_CLOCK, node, What::WallClock);
        self.tell(node, Event::WallClock { unix_time, synced });
    }

    /// The machine whose id this is, if it is one of ours.
    fn index(&self, peer: &PeerId) -> Option<u32> {
        peer_index(peer).filter(|index| (*index as usize) < self.machines.len())
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .field("machines", &self.machines.len())
            .field("scheduled", &self.queue.len())
            .field("connections", &self.conns.len())
            .finish_non_exhaustive()
    }
}

/// A list of addresses that many hold.
type Addresses = Rc<[kinfolk_core::Address]>;

const fn nanos(span: Duration) -> u64 {
    let nanos = span.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}
