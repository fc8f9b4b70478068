//! What the hash table is asked and told, a few queries at a time, the most urgent first.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use crate::{
    cx::{Cx, Signal},
    jitter::{self, Purpose},
    lifecycle::PeerLifecycle,
    nat::NatPolicy,
    peers::Slot,
    view::Capabilities,
    vocabulary::{Action, Address, CommandId, Config, Direction, PeerId, Query, Reason, Scope, Source, Time},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Queries {
    table: BTreeSet<PeerId>,
    running: BTreeMap<CommandId, Running>,
    /// Peers whose record is wanted.
    sought: BTreeMap<PeerId, Sought>,
    refresh: Schedule,
    members: Schedule,
    publish: Schedule,
    relays: Schedule,
    /// Random look-ups that still belong to the present round.
    random_left: u32,
    /// The table was filled once.
    populated: bool,
    /// The record is out; the membership is not.
    join_due: bool,
    /// The membership is out; that we relay is not.
    offer_due: bool,
    /// Our addresses have changed since the record that is out, or on its way.
    record_is_old: bool,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Running {
    kind: Kind,
    since: Time,
    /// Peers that were not known before.
    news: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum Kind {
    LookUpSelf,
    LookUpRandom,
    Members,
    Publish,
    Join,
    Relays,
    OfferRelay,
    Record(PeerId),
    /// A peer that has no record may serve the table itself.
    LookUpPeer(PeerId),
}

/// When something is done next, and how often it has failed or brought nothing.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Schedule {
    at: Time,
    misses: u32,
}

/// A peer that is looked for.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Sought {
    schedule: Schedule,
    running: bool,
    /// A user waits.
    urgent: bool,
}

const MAX_SOUGHT: usize = 256;
/// While relays are wanted and nobody is left to ask.
const RELAYS_WAIT: Duration = Duration::from_secs(5);
/// Addresses change in bursts: those of one relay together, those of both transports within a round trip.
const SETTLING: Duration = Duration::from_millis(300);
/// Members who start together are there in a moment; after that, later and later.
const MEMBERS_WAIT: Duration = Duration::from_secs(3);
const SMALL_TABLE_WAIT: Duration = Duration::from_secs(10);
const PUBLISH_RETRY: Duration = Duration::from_secs(5);
const RECORD_WAIT: Duration = Duration::from_secs(30);
const RECORD_WAIT_MAX: Duration = Duration::from_secs(600);

impl Schedule {
    fn again(&mut self, now: Time, wait: Duration, longest: Duration, seed: u64, purpose: Purpose, key: u64) {
        let wait = wait.saturating_mul(1 << self.misses.min(12)).min(longest);
        self.at = now + jitter::vary(wait, jitter::draw(seed, purpose, key, now.as_nanos()));
    }
}

impl Queries {
    pub(super) fn table_len(&self) -> u32 {
        self.table.len() as u32
    }

    pub(super) fn routed(&mut self, cx: &Cx<'_>, peer: PeerId, present: bool) {
        if present {
            if self.table.is_empty() {
                // Somebody to ask, at last, or again.
                self.rearm(cx.now);
            }
            self.table.insert(peer);
        } else {
            self.table.remove(&peer);
        }
    }

    pub(super) fn removed(&mut self, peer: &PeerId) {
        self.sought.remove(peer);
        self.table.remove(peer);
    }

    pub(super) fn rearm(&mut self, now: Time) {
        for schedule in [&mut self.refresh, &mut self.members] {
            *schedule = Schedule { at: now, misses: 0 };
        }
        // Whoever is met first may relay.
        self.relays = Schedule { at: now + RELAYS_WAIT, misses: 0 };
        self.addresses_changed(now);
    }

    pub(super) fn addresses_changed(&mut self, now: Time) {
        self.publish = Schedule { at: now + SETTLING, misses: 0 };
        self.record_is_old = true;
    }

    /// A peer that mattered is gone: who else is there, and where is it now?
    pub(super) fn down(&mut self, cx: &Cx<'_>, lifecycle: &PeerLifecycle, peer: &PeerId) {
        let last = !lifecycle.has_members();
        if lifecycle.peers.by_id(peer).is_some_and(|peer| (peer.member && last) || peer.pinned) {
            self.members.misses = 0;
            self.members.at = self.members.at.min(cx.now + cx.config.planner.members);
        }
    }

    /// A user waits for a peer of which no address is known. Whether there is anybody to ask.
    pub(super) fn seek(&mut self, now: Time, peer: PeerId) -> bool {
        if self.table.is_empty() {
            return false;
        }
        self.want_record(now, peer, true);
        true
    }

    pub(super) fn is_seeking(&self, peer: &PeerId) -> bool {
        self.sought.get(peer).is_some_and(|sought| sought.urgent || sought.running)
    }

    fn want_record(&mut self, now: Time, peer: PeerId, urgent: bool) {
        if self.sought.len() >= MAX_SOUGHT && !self.sought.contains_key(&peer) {
            let spare = self.sought.iter().find(|(_, sought)| !sought.running && !sought.urgent).map(|(peer, _)| *peer);
            let Some(spare) = spare else { return };
            self.sought.remove(&spare);
        }
        let new = Sought { schedule: Schedule { at: now, misses: 0 }, ..Sought::default() };
        let sought = self.sought.entry(peer).or_insert(new);
        if urgent && !sought.running {
            sought.urgent = true;
            sought.schedule.at = now;
        }
    }

    pub(super) fn found(
        &mut self,
        cx: &mut Cx<'_>,
        lifecycle: &mut PeerLifecycle,
        query: CommandId,
        peers: &[(PeerId, Vec<Address>)],
        record: Option<u64>,
    ) {
        let Some(Running { kind, .. }) = self.running.get(&query) else { return };
        let kind = *kind;
        let (mut news, local) = (0, cx.local);
        for (peer, addresses) in peers.iter().filter(|(peer, _)| *peer != local) {
            news += u32::from(lifecycle.peers.find(peer).is_none());
            match kind {
                Kind::Members => {
                    lifecycle.mark_member(cx, *peer);
                    lifecycle.learn(cx, Source::Kademlia, *peer, addresses, 0);
                    if lifecycle.misses_record(cx, peer) {
                        self.want_record(cx.now, *peer, false);
                    }
                }
                Kind::Relays => {
                    lifecycle.mark_relay(cx, *peer);
                    lifecycle.learn(cx, Source::Kademlia, *peer, addresses, 0);
                    if lifecycle.needs_record(cx, peer) {
                        self.want_record(cx.now, *peer, false);
                    }
                }
                Kind::Record(wanted) if wanted != *peer => {}
                Kind::Record(_) => lifecycle.published(cx, *peer, addresses, record),
                Kind::LookUpSelf
                | Kind::LookUpRandom
                | Kind::LookUpPeer(_)
                | Kind::Publish
                | Kind::Join
                | Kind::OfferRelay => {
                    lifecycle.learn(cx, Source::Kademlia, *peer, addresses, 0);
                }
            }
        }
        if let Some(running) = self.running.get_mut(&query) {
            running.news = running.news.saturating_add(news);
        }
    }

    pub(super) fn ended(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, query: CommandId, successes: u32) {
        let Some(Running { kind, news, since: _ }) = self.running.remove(&query) else { return };
        let (now, seed, config) = (cx.now, cx.seed, &cx.config.planner);
        match kind {
            Kind::LookUpSelf => {
                let small = self.table.len() < config.small_table as usize;
                let wait = if small { SMALL_TABLE_WAIT } else { config.refresh };
                self.refresh.misses = if small && news == 0 { self.refresh.misses + 1 } else { 0 };
                self.refresh.again(now, wait, config.refresh, seed, Purpose::Refresh, query.0);
                // The first one that brings somebody is followed by others, until nothing new comes.
                let first = news > 0 && !core::mem::replace(&mut self.populated, true);
                self.random_left = if first { config.first_lookups } else { u32::from(news > 0 || !small) };
            }
            Kind::LookUpRandom => {
                // Until nothing new comes.
                self.random_left = if news == 0 { 0 } else { self.random_left.saturating_sub(1) };
            }
            Kind::Members => {
                // Who has some of them can wait for more, longer and longer: each time costs as much as a look-up.
                let lacking = lifecycle.missing_pinned() > 0 || !lifecycle.has_members();
                self.members.misses = if news > 0 && lacking { 0 } else { self.members.misses + 1 };
                let longest = if lacking || successes == 0 { config.members } else { config.refresh };
                self.members.again(now, MEMBERS_WAIT, longest, seed, Purpose::Members, query.0);
                for peer in lifecycle.pinned_peers() {
                    if lifecycle.needs_record(cx, &peer) {
                        self.want_record(now, peer, false);
                    }
                }
            }
            Kind::Relays => {
                self.relays.again(now, RELAYS_WAIT, config.refresh, seed, Purpose::Relay, query.0);
                self.relays.misses = if news > 0 { 0 } else { self.relays.misses + 1 };
            }
            // Said again with the next membership.
            Kind::OfferRelay => {}
            Kind::Publish if successes > 0 => self.join_due = true,
            Kind::Join if successes > 0 => {
                self.offer_due = true;
                if !self.record_is_old {
                    self.publish = Schedule::default();
                    self.publish.again(now, config.publish, config.publish, seed, Purpose::Publish, query.0);
                }
                // Of two that join at the same time the later one finds the other.
                self.members = Schedule { at: now, misses: 0 };
            }
            Kind::Publish | Kind::Join => {
                self.record_is_old = true;
                self.join_due = false;
                self.publish.again(now, PUBLISH_RETRY, config.refresh, seed, Purpose::Publish, query.0);
                self.publish.misses += 1;
            }
            Kind::Record(peer) => self.record_ended(cx, lifecycle, peer, query),
            Kind::LookUpPeer(peer) => {
                self.rest(cx, &peer, query);
                cx.signal(Signal::SeekEnded(peer));
            }
        }
    }

    fn record_ended(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, peer: PeerId, query: CommandId) {
        let urgent = self.sought.get(&peer).is_some_and(|sought| sought.urgent);
        if urgent && lifecycle.needs_record(cx, &peer) {
            // No record: it may still serve the table and be known by place.
            self.run(cx, Kind::LookUpPeer(peer), Query::LookUp { near: peer }, Reason::Asked);
            return;
        }
        if lifecycle.misses_record(cx, &peer) {
            self.rest(cx, &peer, query);
        } else {
            self.sought.remove(&peer);
        }
        cx.signal(Signal::SeekEnded(peer));
    }

    /// Looks for a peer again, later and later.
    fn rest(&mut self, cx: &Cx<'_>, peer: &PeerId, query: CommandId) {
        if let Some(sought) = self.sought.get_mut(peer) {
            sought.running = false;
            sought.urgent = false;
            let schedule = &mut sought.schedule;
            schedule.again(cx.now, RECORD_WAIT, RECORD_WAIT_MAX, cx.seed, Purpose::Record, query.0);
            schedule.misses += 1;
        }
    }

    pub(super) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, nat: &NatPolicy) {
        while let Some(late) = self.overdue(cx) {
            cx.command(Action::CancelQuery { query: late }, Reason::TimedOut);
            self.ended(cx, lifecycle, late, 0);
        }
        while self.has_slot(cx.config) {
            let Some((kind, query, reason)) = self.next(cx, lifecycle, nat) else { break };
            self.run(cx, kind, query, reason);
        }
    }

    pub(super) fn deadline(&self, config: &Config, nat: &NatPolicy) -> Option<Time> {
        let timeout = self.running.first_key_value().map(|(_, first)| first.since + config.planner.query_timeout);
        if self.table.is_empty() || !self.has_slot(config) {
            return timeout;
        }
        let idle = |kind: Kind| !self.is_running(kind);
        let refresh = Some(self.refresh.at).filter(|_| idle(Kind::LookUpSelf));
        let members = Some(self.members.at).filter(|_| idle(Kind::Members));
        let publishing = !idle(Kind::Publish) || !idle(Kind::Join) || nat.advertised().is_empty();
        let publish = Some(self.publish.at).filter(|_| !publishing);
        let seeking = self.seeking();
        let waiting = self.sought.values().filter(|sought| !sought.running && may_seek(config, seeking, sought));
        let sought = waiting.map(|sought| sought.schedule.at).min();
        let relays = Some(self.relays.at).filter(|_| nat.relays.is_lacking() && idle(Kind::Relays));
        [timeout, refresh, members, publish, relays, sought].into_iter().flatten().min()
    }

    fn seeking(&self) -> usize {
        self.running.values().filter(|running| matches!(running.kind, Kind::Record(_) | Kind::LookUpPeer(_))).count()
    }

    fn overdue(&self, cx: &Cx<'_>) -> Option<CommandId> {
        let (id, first) = self.running.first_key_value()?;
        (first.since + cx.config.planner.query_timeout <= cx.now).then_some(*id)
    }

    fn has_slot(&self, config: &Config) -> bool {
        self.running.len() < config.planner.max_queries as usize
    }

    fn is_running(&self, kind: Kind) -> bool {
        self.running.values().any(|running| running.kind == kind)
    }

    fn run(&mut self, cx: &mut Cx<'_>, kind: Kind, query: Query, reason: Reason) {
        let id = cx.command(Action::Query(query), reason);
        self.running.insert(id, Running { kind, since: cx.now, news: 0 });
    }

    /// The most urgent query that is due.
    fn next(&mut self, cx: &Cx<'_>, lifecycle: &PeerLifecycle, nat: &NatPolicy) -> Option<(Kind, Query, Reason)> {
        if self.table.is_empty() {
            return None;
        }
        let seeking = self.seeking();
        let due =
            |sought: &Sought| !sought.running && sought.schedule.at <= cx.now && may_seek(cx.config, seeking, sought);
        let wanted = self.sought.iter_mut().filter(|(_, sought)| due(sought)).max_by_key(|(_, sought)| sought.urgent);
        if let Some((peer, sought)) = wanted {
            sought.running = true;
            let reason = if sought.urgent { Reason::Asked } else { Reason::Member };
            return Some((Kind::Record(*peer), Query::Record { peer: *peer }, reason));
        }
        if self.refresh.at <= cx.now && !self.is_running(Kind::LookUpSelf) {
            let entries = self.table_len();
            let small = entries < cx.config.planner.small_table;
            let reason = if small { Reason::SmallTable { entries } } else { Reason::Routine };
            return Some((Kind::LookUpSelf, Query::LookUp { near: cx.local }, reason));
        }
        if core::mem::take(&mut self.join_due) {
            return Some((Kind::Join, Query::Join, Reason::Routine));
        }
        let publishing = self.is_running(Kind::Publish) || self.is_running(Kind::Join);
        if self.publish.at <= cx.now && !publishing && !nat.advertised().is_empty() {
            let addresses = nat.advertised().iter().cloned().collect();
            let changed = core::mem::take(&mut self.record_is_old);
            let reason = if changed { Reason::AddressesChanged } else { Reason::Routine };
            return Some((Kind::Publish, Query::Publish { addresses }, reason));
        }
        if core::mem::take(&mut self.offer_due) && nat.own.offers_relay() {
            return Some((Kind::OfferRelay, Query::OfferRelay, Reason::Reachable));
        }
        if self.members.at <= cx.now && !self.is_running(Kind::Members) {
            let missing = lifecycle.missing_pinned() + lifecycle.missing_members();
            let reason = if missing > 0 { Reason::PeersMissing { missing } } else { Reason::Routine };
            return Some((Kind::Members, Query::Members, reason));
        }
        if self.relays.at <= cx.now && nat.relays.is_lacking() && !self.is_running(Kind::Relays) {
            let reason = Reason::RelayWanted { have: nat.relays.held_count(), want: nat.relays.wanted() };
            return Some((Kind::Relays, Query::Relays, reason));
        }
        if self.random_left > 0 && !self.is_running(Kind::LookUpRandom) && !self.is_running(Kind::LookUpSelf) {
            let place = jitter::draw(cx.seed, Purpose::Place, cx.now.as_nanos(), self.random_left.into());
            return Some((Kind::LookUpRandom, Query::LookUpRandom { place }, Reason::Routine));
        }
        None
    }
}

/// One place is kept for the routine, unless a user waits.
fn may_seek(config: &Config, seeking: usize, sought: &Sought) -> bool {
    sought.urgent || config.planner.max_queries == 1 || seeking + 1 < config.planner.max_queries as usize
}

/// A peer has introduced itself: does it belong into the routing table? Only servers do, at addresses that everyone can
/// use.
pub(super) fn route(cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, slot: Slot) {
    let Some(known) = lifecycle.peers.get(slot) else { return };
    let peer = known.id;
    if !known.capabilities().contains(Capabilities::KADEMLIA) {
        if known.routed {
            lifecycle.peers.at_mut(slot).routed = false;
            cx.command(Action::Unroute { peer }, Reason::NoServer);
        }
        return;
    }
    let global = |address: &&Address| address.scope().is_some_and(Scope::is_global);
    let dialled = known
        .standing()
        .filter(|connection| connection.direction == Direction::Outbound)
        .map(|connection| &connection.address);
    let told = known.book.iter().filter(|told| told.sources.contains(Source::Identify)).map(|told| &told.address);
    let addresses: BTreeSet<Address> = dialled.chain(told).filter(global).cloned().collect();
    if addresses.is_empty() {
        return;
    }
    // Said again with each introduction: the addresses may be others, and the table may have dropped it.
    lifecycle.peers.at_mut(slot).routed = true;
    cx.command(Action::Route { peer, addresses: addresses.into_iter().collect() }, Reason::Server);
}
