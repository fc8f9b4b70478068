//! The invariants of the design (DESIGN section 4), looked at while a world runs: what a step touches at each step,
//! everything once a minute.
//!
//! | | invariant | where |
//! |---|---|---|
//! | 1 | nothing panics | a panic ends the run and is a finding |
//! | 2 | no deadline is forgotten, none lies in the past, nothing spins | each step |
//! | 3 | sizes within settings | each minute |
//! | 4 | dials within budget | each step |
//! | 5 | nobody dials itself, the blocked, or nowhere | each step |
//! | 6 | same inputs, same commands | `tests/the_same_seed_is_the_same_run.rs`, and replay of a failing run's traces |
//! | 7 | nothing private is told to the internet | each step |
//! | 8 | no reachability flips faster than `nat.dwell` | each step |
//! | 9 | nothing protected is trimmed | each step |
//! | 10 | wanted relays are held, or the view says why not | each minute |
//! | 11 | every id is answered or times out | each minute |
//! | 12 | who can meet, meets | the scenario's end; if it says within which time, so long after the last fault is over |
//! | 13 | every request is answered in time | each minute |

mod grammar;

pub use grammar::{Grammar, Wrong};

use std::{collections::BTreeMap, fmt};

use kinfolk_core::{
    Action, Address, Command, CommandId, Event, Notice, Origin, PeerId, Query, Reason, RequestId, Scope, Time,
};
use rustc_hash::FxHashMap;

use crate::{
    engine::{Moment, SECOND},
    internet::HostId,
    swarm::Machine,
};

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// When, in nanoseconds.
    pub at: Moment,
    /// At which node, if at one.
    pub node: Option<HostId>,
    /// Which invariant, by its number in the design.
    pub invariant: u8,
    /// What.
    pub what: String,
}

/// Watches over all nodes of a world.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    nodes: Vec<Node>,
    findings: Vec<Finding>,
    minute: u32,
}

/// What is known of one node's promises.
#[derive(Debug, Default)]
struct Node {
    dials: FxHashMap<CommandId, Dial>,
    queries: FxHashMap<CommandId, Time>,
    probes: FxHashMap<CommandId, Time>,
    /// Questions to signal servers.
    signals: FxHashMap<CommandId, Time>,
    asks: BTreeMap<RequestId, Moment>,
    flipped: Option<Time>,
    /// When it last came to another network, or woke.
    moved: Moment,
    /// When it last woke.
    woke: Moment,
    /// Who hung up on it last, and when.
    lost: Option<(Moment, PeerId)>,
    /// At the last look this relay was held, since then, in its own view only.
    unheld: Option<(PeerId, Time)>,
}

/// A dial under way.
#[derive(Debug)]
struct Dial {
    since: Time,
    peer: Option<PeerId>,
    addresses: Vec<Address>,
    reason: Reason,
}

/// Findings that are kept.
const MAX_FINDINGS: usize = 8;
/// How late an answer may be that is owed at a moment: the core's own deadline, and the wakes' slack.
const GRACE: u64 = 15 * SECOND;
/// A lost place is noticed within this.
const NOTICED: std::time::Duration = std::time::Duration::from_secs(180);
/// So long after a change of network, reachability may change at once.
const MOVED: u64 = 60 * SECOND;
/// Each node is looked at in depth once in so many minutes.
const DEPTH: u32 = 8;

impl Watch {
    pub(crate) fn add(&mut self) {
        self.nodes.push(Node::default());
    }

    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(crate) fn find(&mut self, at: Moment, node: Option<HostId>, invariant: u8, what: String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { at, node, invariant, what });
        }
    }

    pub(crate) fn started(&mut self, _now: Moment, node: HostId) {
        self.nodes[node as usize] = Node::default();
    }

    pub(crate) fn stopped(&mut self, node: HostId) {
        self.nodes[node as usize] = Node::default();
    }

    /// A machine slept: what was owed in that time is owed from now on.
    pub(crate) fn resumed(&mut self, now: Moment, node: HostId) {
        self.nodes[node as usize].woke = now;
        for deadline in self.nodes[node as usize].asks.values_mut() {
            *deadline = (*deadline).max(now + GRACE);
        }
    }

    pub(crate) fn asked(&mut self, node: HostId, request: RequestId, now: Moment, patience: std::time::Duration) {
        let until = now + patience.as_nanos() as u64 + GRACE;
        self.nodes[node as usize].asks.insert(request, until);
    }

    pub(crate) fn told(&mut self, now: Moment, index: HostId, machine: &Machine, event: &Event) {
        // An event has the core do what is due, and would hide that nobody woke it.
        if let Some(what) = self.missed_a_deadline(now, index, machine) {
            self.find(now, Some(index), 2, what);
        }
        let node = &mut self.nodes[index as usize];
        if let Event::Connected { origin: Origin::Dial(dial), .. } | Event::DialFailed { dial, .. } = event {
            if node.dials.remove(dial).is_none() {
                // By a dial that the core gave up in the meantime: `dial_timeout` is longer than the shell's, so never.
                self.find(now, Some(index), 11, format!("dial {dial} is answered twice, or was never made"));
            }
        } else if let Event::QueryEnded { query, .. } = event {
            node.queries.remove(query);
        } else if let Event::Probed { probe, .. } = event {
            node.probes.remove(probe);
        } else if let Event::SignalFound { query: command, .. }
        | Event::SignalPublished { publish: command, .. }
        | Event::SignalFailed { command, .. } = event
        {
            node.signals.remove(command);
        } else if matches!(event, Event::Interfaces(_) | Event::Resumed { .. }) {
            node.moved = now;
        } else if let Event::Disconnected { peer, .. } = event {
            node.lost = Some((now, *peer));
        } else if let Event::Refused { command, .. } = event {
            node.dials.remove(command);
            node.queries.remove(command);
            node.probes.remove(command);
            node.signals.remove(command);
        }
    }

    pub(crate) fn commanded(&mut self, now: Moment, index: HostId, machine: &Machine, command: &Command, left: usize) {
        let node = &mut self.nodes[index as usize];
        let t = machine.local(now);
        let config = &machine.setup.config;
        let mut wrong = None;
        match &command.action {
            Action::Dial { peer, addresses } => {
                wrong = dial_is_wrong(machine, *peer, addresses, &command.reason);
                let reason = command.reason.clone();
                let dial = Dial { since: t, peer: *peer, addresses: addresses.clone(), reason };
                // Directly and through a relay are two dials; and whoever is a bootstrap peer and something else is
                // dialled for each.
                let twin = |other: &Dial| {
                    let common = addresses.iter().any(|address| other.addresses.contains(address));
                    // What a sleep has made overdue is given up when the machine wakes, and answered a little later.
                    let given_up = other.since + config.lifecycle.dial_timeout <= t;
                    peer.is_some() && other.peer == *peer && common && other.reason == dial.reason && !given_up
                };
                if node.dials.values().any(twin) {
                    wrong = Some((4, "the same address is dialled twice at once, for the same reason".to_owned()));
                }
                node.dials.insert(command.id, dial);
                let slots = config.lifecycle.dial_slots as usize;
                let open = |dial: &&Dial| dial.since + config.lifecycle.dial_timeout > t;
                if node.dials.len() > slots && node.dials.values().filter(open).count() > slots {
                    wrong = Some((4, format!("{} dials at once, {slots} allowed", node.dials.len())));
                }
            }
            Action::Query(query) => {
                node.queries.insert(command.id, t);
                if node.queries.len() > config.planner.max_queries as usize {
                    let most = config.planner.max_queries;
                    wrong = Some((3, format!("{} queries at once, {most} allowed", node.queries.len())));
                }
                if let Query::Publish { addresses } = query {
                    wrong = addresses.iter().find_map(told_is_wrong);
                }
            }
            Action::SignalQuery { .. } => {
                node.signals.insert(command.id, t);
            }
            Action::SignalPublish { addresses, .. } => {
                node.signals.insert(command.id, t);
                wrong = addresses.iter().find_map(told_is_wrong);
            }
            Action::SignalCancel { command } => {
                node.signals.remove(command);
            }
            Action::CancelQuery { query } => {
                node.queries.remove(query);
            }
            Action::Probe { address, .. } => {
                node.probes.insert(command.id, t);
                wrong = told_is_wrong(address);
            }
            Action::CancelProbe { probe } => {
                node.probes.remove(probe);
            }
            Action::Advertise { address } => wrong = told_is_wrong(address),
            Action::Close { peer, .. } => {
                let pinned = config.pinned.iter().any(|pinned| pinned.peer == *peer);
                let trimmed = matches!(command.reason, Reason::OverBudget { .. } | Reason::NotNeeded);
                // One of several may go, a dial-back, say: what is due is done before the word that another has just ended.
                if pinned && trimmed && left == 0 && node.lost != Some((now, *peer)) {
                    wrong = Some((9, format!("{peer} is pinned, and left, because {}", command.reason)));
                }
            }
            Action::Answer { request, .. } => {
                if node.asks.remove(request).is_none() {
                    wrong = Some((13, format!("request {request} is answered twice, or was never made")));
                }
            }
            Action::Tell(Notice::ReachabilityChanged { .. }) => {
                let dwell = config.nat.dwell;
                // In another network everything may be different at once.
                let settled = node.moved + MOVED < now;
                if settled && node.flipped.is_some_and(|before| t.since(before) < dwell) {
                    wrong = Some((8, "its reachability has changed twice within the dwell time".to_owned()));
                }
                node.flipped = Some(t);
            }
            Action::Release { .. }
            | Action::Refuse { .. }
            | Action::Deny { .. }
            | Action::Admit { .. }
            | Action::Listen { .. }
            | Action::Withdraw { .. }
            | Action::PushIdentity
            | Action::Reserve { .. }
            | Action::Unreserve { .. }
            | Action::Punch { .. }
            | Action::AnswerPunch { .. }
            | Action::RefusePunch { .. }
            | Action::CancelPunch { .. }
            | Action::SetSync { .. }
            | Action::SyncExchange { .. }
            | Action::SyncAnnounce { .. }
            | Action::SyncFetch { .. }
            | Action::SyncCancel { .. }
            | Action::MapPort { .. }
            | Action::UnmapPort { .. }
            | Action::SetServices { .. }
            | Action::SetMember { .. }
            | Action::SetKademliaServer { .. }
            | Action::Route { .. }
            | Action::Unroute { .. }
            | Action::Remember(_)
            | Action::RememberNat(_)
            | Action::Forget { .. }
            | Action::Tell(_) => {}
        }
        if let Some((invariant, what)) = wrong {
            self.find(now, Some(index), invariant, format!("{what} ({}: {})", command.id, command.action));
        }
    }

    /// A machine that has slept catches up first.
    fn is_rested(&self, now: Moment, index: HostId) -> bool {
        let woke = self.nodes[index as usize].woke;
        woke == 0 || woke + GRACE < now
    }

    fn missed_a_deadline(&self, now: Moment, index: HostId, machine: &Machine) -> Option<String> {
        let deadline = machine.deadline().filter(|_| self.is_rested(now, index))?;
        let late = deadline.at + std::time::Duration::from_nanos(GRACE + machine.setup.slack) < machine.local(now);
        late.then(|| format!("a deadline was missed: {:?} at {}", deadline.reason, deadline.at))
    }

    /// A node that runs, once a minute.
    /// `keeps` says whether a relay really keeps a place for it.
    pub(crate) fn review(&mut self, now: Moment, index: HostId, machine: &Machine, keeps: &dyn Fn(&PeerId) -> bool) {
        if index == 0 {
            self.minute = self.minute.wrapping_add(1);
        }
        if machine.asleep || machine.started + GRACE > now {
            return;
        }
        let deep = (self.minute.wrapping_add(index)).is_multiple_of(DEPTH);
        if deep {
            self.relays_are_held(now, index, machine, keeps);
        }
        if let Some((invariant, what)) = self.wrong_with(now, index, machine, deep) {
            self.find(now, Some(index), invariant, what);
        }
    }

    /// What a node takes for held must be, give or take what it takes to notice a loss.
    fn relays_are_held(&mut self, now: Moment, index: HostId, machine: &Machine, keeps: &dyn Fn(&PeerId) -> bool) {
        let Some(view) = machine.core.view() else { return };
        let old = |since: Time| machine.local(now).since(since) > NOTICED;
        let relays = view.node().relays;
        let lost = relays.iter().filter(|one| !keeps(&one.relay));
        let mut lost = lost.filter_map(|one| Some((one.relay, one.held_since.filter(|since| old(*since))?)));
        let before = self.nodes[index as usize].unheld;
        let still = before.filter(|before| lost.clone().any(|lost| lost == *before));
        self.nodes[index as usize].unheld = still.or_else(|| lost.next());
        if let Some((relay, since)) = still {
            let what = format!("{relay} keeps no place for it, and it does not know, since {since}");
            self.find(now, Some(index), 10, what);
        }
    }

    fn wrong_with(&self, now: Moment, index: HostId, machine: &Machine, deep: bool) -> Option<(u8, String)> {
        let node = &self.nodes[index as usize];
        let config = &machine.setup.config;
        let t = machine.local(now);
        let grace = std::time::Duration::from_nanos(GRACE + machine.setup.slack);
        let rested = self.is_rested(now, index);
        // The sum does not depend on the order.
        let late = |all: &FxHashMap<CommandId, Time>, patience| {
            rested && all.values().any(|since| *since + patience + grace < t)
        };
        if rested && node.dials.values().any(|dial| dial.since + config.lifecycle.dial_timeout + grace < t) {
            // The core gives up by itself; the shell's own time-outs are shorter, so an answer is overdue.
            return Some((11, "a dial was never answered".to_owned()));
        }
        if late(&node.queries, config.planner.query_timeout) {
            return Some((11, "a query was neither answered nor dropped".to_owned()));
        }
        if late(&node.signals, config.signal.timeout) {
            return Some((11, "a question to a signal server was neither answered nor dropped".to_owned()));
        }
        if late(&node.probes, config.nat.probe_timeout) {
            return Some((11, "a probe was neither answered nor dropped".to_owned()));
        }
        if let Some((request, _)) = node.asks.iter().find(|(_, until)| **until < now) {
            return Some((13, format!("request {request} was not answered in time")));
        }
        if !deep {
            return None;
        }
        let view = machine.core.view()?;
        let whole = view.node();
        if let Some(what) = self.missed_a_deadline(now, index, machine) {
            return Some((2, what));
        }
        if machine.core.next_deadline().is_none() && whole.peers > 0 {
            return Some((2, "there are peers, and no deadline".to_owned()));
        }
        let lifecycle = &config.lifecycle;
        if whole.peers > lifecycle.max_peers {
            return Some((3, format!("{} peers in the table, {} allowed", whole.peers, lifecycle.max_peers)));
        }
        if whole.candidates.len() > usize::from(config.nat.max_candidates) {
            return Some((3, format!("{} candidates, {} allowed", whole.candidates.len(), config.nat.max_candidates)));
        }
        // What comes in at the moment of trimming is not trimmed yet.
        let most = lifecycle.high_water + lifecycle.dial_slots + 16;
        if whole.connected > most {
            return Some((3, format!("{} peers connected, {most} allowed", whole.connected)));
        }
        let held = whole.relays.iter().filter(|relay| relay.held_since.is_some()).count() as u32;
        let said =
            whole.relays.iter().any(|relay| relay.asked || relay.last_error.is_some() || relay.retry_at.is_some());
        let known = whole.relays.iter().any(|relay| relay.held_since.is_none());
        if held < whole.relays_wanted && known && !said && machine.started + 300 * SECOND < now {
            return Some((10, format!("{held} of {} relays are held, and nothing says why", whole.relays_wanted)));
        }
        for peer in view.peers() {
            if peer.addresses.len() > usize::from(lifecycle.max_addresses) {
                return Some((3, format!("{} addresses of {}", peer.addresses.len(), peer.peer)));
            }
            if peer.connections.len() > 16 {
                return Some((3, format!("{} connections to {}", peer.connections.len(), peer.peer)));
            }
        }
        None
    }
}

fn dial_is_wrong(
    machine: &Machine,
    peer: Option<PeerId>,
    addresses: &[Address],
    reason: &Reason,
) -> Option<(u8, String)> {
    if addresses.is_empty() {
        return Some((5, "a dial without an address".to_owned()));
    }
    if peer == Some(machine.id) {
        return Some((5, "it dials itself".to_owned()));
    }
    if let Some(peer) = peer {
        let view = machine.core.view()?;
        if view.peer(&peer).is_some_and(|peer| peer.blocked) && *reason != Reason::Asked {
            return Some((5, format!("{peer} is blocked")));
        }
    }
    let nowhere =
        |address: &&Address| address.port() == Some(0) || address.scope().is_some_and(|scope| !scope.is_dialable());
    addresses.iter().find(nowhere).map(|address| (5, format!("nobody can be at {address}")))
}

/// Only what everyone can use is told to the internet.
fn told_is_wrong(address: &Address) -> Option<(u8, String)> {
    let private = match address {
        Address::Relayed(circuit) => {
            circuit.via.as_ref().and_then(Address::scope).is_some_and(|scope| scope != Scope::Global)
        }
        Address::Ip { .. } | Address::Name { .. } | Address::DnsAddr(_) | Address::Other(_) => {
            address.scope().is_some_and(|scope| scope != Scope::Global)
        }
    };
    private.then(|| (7, format!("{address} is nobody else's business")))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invariant {} is broken at {}.{:03} s",
            self.invariant,
            self.at / SECOND,
            self.at / 1_000_000 % 1_000
        )?;
        if let Some(node) = self.node {
            write!(f, ", node {node}")?;
        }
        write!(f, ": {}", self.what)
    }
}
