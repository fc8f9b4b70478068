use alloc::{boxed::Box, vec::Vec};

use crate::{
    bootstrap::BootstrapPlanner,
    cx::{Cx, Here, Out, Signal},
    lifecycle::PeerLifecycle,
    nat::NatPolicy,
    sync::LogSync,
    view::{NodeView, PeerView, SyncView},
    vocabulary::{Command, Event, PeerId, Started, Time, ValidConfig},
};

/// A node's mind.
///
/// The rule: *one input, drain to empty, sleep until the deadline.* After each [`Node::handle`], call
/// [`Node::next_command`] until it returns `None`; then sleep until [`Node::next_deadline`] or the next event, whichever
/// comes first, and at the deadline call `handle(now, Event::Wake)`.
///
/// A wake that comes early does nothing; one that comes late loses nothing, and does what was missed once. Time that goes
/// backwards is taken for standing still. The same settings, seed and inputs give the same commands, bit for bit, on every
/// machine.
///
/// ```
/// use kinfolk_core::{Action, Config, Event, Interfaces, Node, Started, Time};
///
/// let mut node = Node::new();
/// let started = Started {
///     config: Config::desktop().validate().unwrap(),
///     local: "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap(),
///     seed: 7,
///     unix_time: 1_800_000_000,
///     interfaces: Interfaces::default(),
/// };
/// node.handle(Time::ZERO, Event::Started(Box::new(started)));
/// let first = node.next_command().unwrap();
/// assert!(matches!(first.action, Action::Listen { .. }));
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Node {
    now: Time,
    running: Option<Box<Running>>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Running {
    config: ValidConfig,
    local: PeerId,
    seed: u64,
    here: Here,
    out: Out,
    lifecycle: PeerLifecycle,
    nat: NatPolicy,
    planner: BootstrapPlanner,
    #[cfg_attr(feature = "serde", serde(default))]
    sync: LogSync,
    /// Follows from the rest, and is asked for several times as often as it changes.
    #[cfg_attr(feature = "serde", serde(skip))]
    due: Due,
}

/// When something is due next.
#[derive(Clone, Copy, Debug, Default)]
enum Due {
    /// Not worked out since the checkpoint.
    #[default]
    Unknown,
    Known(Option<Deadline>),
}

/// When a node wants to be woken, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// When.
    pub at: Time,
    /// Why.
    pub reason: DeadlineReason,
}

/// What a node wants to be woken for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DeadlineReason {
    /// Commands wait to be drained.
    CommandsWaiting,
    /// A peer: a dial, a time-out, a proof, an expiry.
    Peers,
    /// Own addresses: a listener, an observation that ages, a verdict that ripens.
    Addresses,
    /// First peers: a bootstrap peer, a query, isolation.
    Bootstrap,
    /// Logs: positions to compare or announce, an answer that is late, a peer that has rested.
    Logs,
}

impl Node {
    /// A node that has not been told anything yet. Its first event is `Event::Started`; others before it are ignored.
    pub fn new() -> Self {
        Self::default()
    }

    /// The only input. First does everything that was due up to `now`, then takes in `event`. The work is bounded by what
    /// the event holds and what is due, except for changes of network or settings, which look at every peer.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        match (&mut self.running, event) {
            (None, Event::Started(started)) => self.running = Some(Box::new(Running::start(self.now, *started))),
            (None, _) | (Some(_), Event::Started(_)) => {}
            (Some(running), event) => running.handle(self.now, event),
        }
    }

    /// The next thing to do; `None` when there is no more.
    pub fn next_command(&mut self) -> Option<Command> {
        self.running.as_mut()?.out.pop()
    }

    /// When to call `handle(.., Event::Wake)`. Asking changes nothing.
    pub fn next_deadline(&self) -> Option<Deadline> {
        let running = self.running.as_ref()?;
        if !running.out.is_empty() {
            return Some(Deadline { at: self.now, reason: DeadlineReason::CommandsWaiting });
        }
        running.deadline()
    }

    /// Everything there is to know, for reading. `None` before `Event::Started`.
    pub fn view(&self) -> Option<View<'_>> {
        self.running.as_ref().map(|running| View { running, now: self.now })
    }
}

impl Running {
    fn start(now: Time, started: Started) -> Self {
        let Started { config, local, seed, unix_time, interfaces } = started;
        let mut running = Self {
            config,
            local,
            seed,
            here: Here { interfaces, wall_clock: (unix_time, now), ..Here::default() },
            out: Out::default(),
            lifecycle: PeerLifecycle::new(seed),
            nat: NatPolicy::default(),
            planner: BootstrapPlanner::default(),
            sync: LogSync::default(),
            due: Due::Unknown,
        };
        running.configure(now);
        running.due = Due::Known(running.deadline());
        running
    }

    fn handle(&mut self, now: Time, event: Event) {
        if self.deadline().is_some_and(|deadline| deadline.at <= now) {
            self.pass(now, &Event::Wake);
        }
        if let Event::Configured(config) = event {
            self.config = *config;
            self.configure(now);
        } else if !event.is_wake() && !self.here.knows(&event) {
            self.here.absorb(now, &event);
            self.pass(now, &event);
        }
        self.due = Due::Known(self.deadline());
    }

    fn configure(&mut self, now: Time) {
        self.with_machines(now, |cx, lifecycle, nat, planner, sync| {
            nat.configure(cx);
            lifecycle.configure(cx);
            planner.configure(cx, lifecycle);
            sync.configure(cx, lifecycle);
        });
        self.pass(now, &Event::Wake);
    }

    /// One pass, in a fixed order: each machine takes in the event, then does what is due; last, wants become dials.
    fn pass(&mut self, now: Time, event: &Event) {
        self.with_machines(now, |cx, lifecycle, nat, planner, sync| {
            lifecycle.absorb(cx, event);
            nat.absorb(cx, lifecycle, event);
            planner.absorb(cx, lifecycle, event);
            sync.absorb(cx, lifecycle, event);
            lifecycle.step(cx);
            nat.step(cx, lifecycle);
            sync.step(cx, lifecycle);
            lifecycle.trim_if_due(cx);
            hear(cx, lifecycle, planner);
            planner.step(cx, lifecycle, nat);
            lifecycle.reconcile(cx, planner.wants());
            // A want that could not be served at all was refused just now; nothing in here wants again at once.
            hear(cx, lifecycle, planner);
        });
    }

    fn with_machines(
        &mut self,
        now: Time,
        work: impl FnOnce(&mut Cx<'_>, &mut PeerLifecycle, &mut NatPolicy, &mut BootstrapPlanner, &mut LogSync),
    ) {
        let mut signals = Vec::new();
        let mut cx = Cx {
            now,
            config: &self.config,
            seed: self.seed,
            local: self.local,
            here: &self.here,
            out: &mut self.out,
            signals: &mut signals,
        };
        work(&mut cx, &mut self.lifecycle, &mut self.nat, &mut self.planner, &mut self.sync);
        self.due = Due::Unknown;
    }

    fn deadline(&self) -> Option<Deadline> {
        match self.due {
            Due::Known(deadline) => deadline,
            Due::Unknown => self.find_deadline(),
        }
    }

    fn find_deadline(&self) -> Option<Deadline> {
        let peers = self.lifecycle.deadline(&self.config.lifecycle).map(|at| (at, DeadlineReason::Peers));
        let addresses = self.nat.deadline(&self.config).map(|at| (at, DeadlineReason::Addresses));
        let planner = self.planner.deadline(&self.config, &self.nat).map(|at| (at, DeadlineReason::Bootstrap));
        let logs = self.sync.deadline().map(|at| (at, DeadlineReason::Logs));
        [peers, addresses, planner, logs].into_iter().flatten().min().map(|(at, reason)| Deadline { at, reason })
    }
}

/// Lets the planner hear what happened, and what its hearing brings about.
fn hear(cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, planner: &mut BootstrapPlanner) {
    while !cx.signals.is_empty() {
        let signals: Vec<Signal> = core::mem::take(cx.signals);
        for signal in signals {
            planner.hear(cx, lifecycle, signal);
        }
    }
}

/// A node, for reading.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    running: &'a Running,
    now: Time,
}

impl<'a> View<'a> {
    /// The node as a whole.
    pub fn node(&self) -> NodeView<'a> {
        let Running { config, local, here, lifecycle, nat, planner, .. } = self.running;
        let (health, health_since) = planner.health();
        NodeView {
            local: *local,
            health,
            health_since,
            reachability: nat.own.reachability(),
            listening: here.listening.iter().collect(),
            advertised: nat.advertised().iter().collect(),
            candidates: nat.own.candidates().collect(),
            mappings: nat.own.mappings(here),
            nat: nat.own.finding(),
            gateway: nat.own.gateway(),
            port_mappings: nat.own.port_mappings().collect(),
            relays: nat.relays.views(lifecycle),
            relays_wanted: nat.relays.wanted(),
            services: nat.own.services(),
            kademlia_server: nat.own.is_kademlia_server(),
            routing_table: planner.routing_table(),
            bootstrap: planner.views(config).collect(),
            signal: planner.signal_servers().collect(),
            peers: lifecycle.peers.len(),
            connected: lifecycle.connected_count(),
            dialing: lifecycle.dialer.dialing(),
        }
    }

    /// All peers, by id. Sorts them: not for every event.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'a>> {
        self.running.lifecycle.views().map(|view| self.with_service(view))
    }

    /// One peer, in one look-up.
    pub fn peer(&self, peer: &PeerId) -> Option<PeerView<'a>> {
        self.running.lifecycle.view(peer).map(|view| self.with_service(view))
    }

    /// The exchange of logs. Looks at what each peer says of each log: not for every event.
    pub fn sync(&self) -> SyncView {
        self.running.sync.view(self.now)
    }

    fn with_service(self, view: PeerView<'a>) -> PeerView<'a> {
        let Running { nat, lifecycle, sync, .. } = self.running;
        let punching = lifecycle.peers.find(&view.peer).and_then(|slot| nat.punching.view(slot));
        let sync = sync.peer_view(&view.peer);
        let sync_position = sync.as_ref().map(|sync| sync.position).or(view.sync_position);
        let fetching = sync.as_ref().map_or(0, |sync| sync.pending);
        let pending_requests = view.pending_requests.saturating_add(fetching);
        let served = nat.own.is_served(&view.peer);
        PeerView { served, punching, sync, sync_position, pending_requests, ..view }
    }
}
